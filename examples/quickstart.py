"""The quick start: the seven acts of the earlier system, run offline on the bundled data and the simulated broker.

Run it with `python examples/quickstart.py`. Nothing here is special to a demonstration: with `data.equity: [yahoo]` or
`execution.gateway: alpaca` in quantrail.yaml the same lines go elsewhere.
"""

from __future__ import annotations

SYMBOLS = ["NASDAQ", "SP500"]


def ingest() -> None:
    """1. Ingest equity, options and macro data into the lake."""
    from flows.ingest_equity import ingest_equity_flow
    from flows.ingest_macro import ingest_macro_flow
    from flows.ingest_options import ingest_options_flow

    equity = ingest_equity_flow(symbols=SYMBOLS, start_date="2010-01-01", end_date="2018-12-31")
    macro = ingest_macro_flow(fred_api_key=None)
    options = ingest_options_flow(symbols=["SP500"], data_provider="modelled", api_key=None)
    for report in (equity, macro, options):
        print(f"{report.dataset}: {report.total.new} rows new, snapshot {report.snapshot_id}")


def features() -> None:
    """2. Build point-in-time features."""
    from features.build import build_features_flow

    built = build_features_flow(symbols=SYMBOLS)
    print(f"{len(built.features)} features as {built.set_version}")


def equity_backtest() -> None:
    """3. Backtest an equity strategy on vectorbt."""
    from backtests.equity_vectorbt import equity_backtest_flow

    combo = {
        "name": "combo",
        "momentum": {"sma_crossover": {"fast": 20, "slow": 50}, "rsi": {"period": 14, "overbought": 70, "oversold": 30}},
        "mean_reversion": {"bollinger_bands": {"period": 20, "std": 2}},
        "regime_aware": {"risk_regime_filter": {"max_level": 2}, "trend_filter": True},
    }
    runs = equity_backtest_flow(symbols=["NASDAQ"], strategy_configs=[combo, "sma_crossover"], experiment_name="quickstart")
    for run in runs:
        print(f"{run.result.spec.name}: Sharpe {run.metrics['sharpe']:.2f}, {run.metrics['trades']:.0f} trades")


def options_backtest() -> None:
    """4. Backtest options strategies on backtrader, over a modelled chain."""
    from backtests.options_bt import options_backtest_flow

    strategies = [
        {
            "name": "CoveredCallsStrategy",
            "params": {
                "call_delta_target": 0.15,
                "call_dte_min": 30,
                "call_dte_max": 60,
                "cover_ratio_max": 0.6,
                "risk_regime_max": 2,
            },
        },
        {
            "name": "ProtectivePutsStrategy",
            "params": {
                "put_delta_target": -0.20,
                "put_dte_target": 90,
                "protection_ratio_min": 0.4,
                "protection_ratio_max": 0.8,
            },
        },
    ]
    runs = options_backtest_flow(symbols=["SP500"], strategies=strategies, experiment_name="quickstart-options")
    for run in runs:
        print(f"{run.result.spec.name} ({run.result.data_kind} chain): return {run.metrics['total_return']:.1%}")


def tracking() -> None:
    """5. Compare what was tracked, and register the best."""
    from tracking import create_experiment_comparator, create_model_registry

    comparator = create_experiment_comparator("quickstart")
    print(comparator.compare_strategies("sharpe"))
    comparator.generate_performance_report("quickstart.html")
    print("best:", comparator.find_best_hyperparameters("sma_crossover"))
    registry = create_model_registry()
    version = registry.register_best_model("quickstart", "sma_crossover")
    print(f"sma_crossover version {version} is {registry.transition_model_stage('sma_crossover', version, 'None')}")


def risk() -> None:
    """6. Size a position and a portfolio."""
    import numpy as np
    import pandas as pd

    from risk.pm import create_portfolio_manager, create_risk_manager

    manager = create_risk_manager(max_drawdown=0.15, max_volatility=0.20)
    print(f"position: {manager.calculate_position_size(capital=100_000, volatility=0.40):,.0f}")
    rng = np.random.default_rng(7)
    returns = pd.DataFrame(rng.normal([0.0004, 0.0002], [0.01, 0.005], size=(500, 2)), columns=["stocks", "bonds"])
    best = create_portfolio_manager(manager).optimize_portfolio(returns, target_return=0.06)
    print(best.weights.round(3).to_dict())


def execution() -> None:
    """7. Trade, on the simulated broker unless the settings say otherwise."""
    from config.errors import OrderRefused
    from execution.alpaca_client import create_alpaca_client, create_alpaca_risk_manager
    from execution.ib_client import create_ibkr_client

    client = create_alpaca_client(paper=True)
    print(client.get_account_info())
    valid, reason = create_alpaca_risk_manager(client).validate_order("SP500", 10, "buy", "market")
    print(client.place_market_order("SP500", 10, "buy") if valid else f"refused: {reason}")
    try:
        print(client.execute_portfolio_trades({"NASDAQ": 0.5}))
    except OrderRefused as refusal:  # run again while the market is closed, the first order is still working
        print(f"refused: {refusal.message}")
    print(create_ibkr_client(port=7496).get_account_info())


def main() -> None:
    """All seven, in ./.quant unless QUANT_HOME says otherwise."""
    for act in (ingest, features, equity_backtest, options_backtest, tracking, risk, execution):
        print(f"\n{(act.__doc__ or '').strip()}")
        act()


if __name__ == "__main__":
    main()
