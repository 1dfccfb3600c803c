"""The research verbs as functions, on the newest lake: a backtest, a search, a comparison of engines, a look-ahead check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from backtests.strategies import get_strategy
from backtests.views import load_view
from config.clock import Clock, SystemClock
from config.errors import InputError, StorageError
from config.progress import SILENT, Progress
from config.settings import Settings
from flows.inventory import day

if TYPE_CHECKING:
    from backtests.result import BacktestResult
    from backtests.strategy import Strategy, View

__all__ = ["backtest_one", "check_one", "compare_engines", "search_grid"]


def _look(
    settings: Settings,
    name: str,
    params: Mapping[str, Any],
    symbols: Sequence[str],
    start: str | None = None,
    end: str | None = None,
    progress: Progress = SILENT,
) -> tuple[Strategy, View]:
    from lake import open_lake

    if not symbols:
        raise InputError("no symbols were given", remedy="--symbols NASDAQ; `quant data ls` shows what the lake holds")
    strategy = get_strategy(name, params or None)
    view = load_view(open_lake(settings).snapshot(), symbols, [strategy], start=day(start), end=day(end), progress=progress)
    return strategy, view


def backtest_one(
    settings: Settings,
    name: str,
    params: Mapping[str, Any],
    symbols: Sequence[str],
    *,
    engine: Literal["vector", "event"] = "vector",
    start: str | None = None,
    end: str | None = None,
    experiment: str = "backtests",
    clock: Clock | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Backtest one configuration, count it, log it, and word its numbers.

    Returns
    -------
    dict
        ``final_equity, sharpe, sharpe_interval, max_drawdown, cagr, volatility, trades, closed_trades, win_rate, fees,
        orders_hash`` and where it was logged. Fractions; ``trades`` counts entries, ``closed_trades`` round trips.
    """
    from backtests.equity_event import run_event
    from backtests.equity_vectorbt import run_vectorised
    from backtests.findings import find
    from backtests.recording import record_backtest
    from risk.bootstrap import bootstrap_intervals
    from risk.metrics import performance, sharpe

    progress.stage("Backtest")
    strategy, view = _look(settings, name, params, symbols, start, end, progress)
    convention = settings.trading_convention()
    run = run_vectorised if engine == "vector" else run_event
    result: BacktestResult = run(strategy, view, convention=convention)
    metrics = performance(result.equity, result.trades, result.orders, convention)
    window = {key: value for key, value in (("start", start), ("end", end)) if value is not None}
    run_id = record_backtest(
        result, metrics, experiment_name=experiment, settings=settings, clock=clock or SystemClock(), window=window
    )
    interval = bootstrap_intervals(
        result.returns.to_numpy(dtype=np.float64),
        {"sharpe": lambda sample: sharpe(sample, convention.sessions_per_year, convention.risk_free_ann)},
        rng=np.random.default_rng(settings.evidence.seed),
        samples=settings.evidence.bootstrap_samples,
        level=settings.evidence.interval_level,
    )["sharpe"]
    found = find(result, metrics=metrics, panel=view.panel, role=strategy.role)
    return {
        "strategy": name,
        "params": dict(strategy.params),
        "symbols": list(symbols),
        "engine": result.engine,
        "sessions": len(result.equity),
        "final_equity": float(result.equity.iloc[-1]),
        "total_return": metrics["total_return"],
        "cagr": metrics["cagr"],
        "volatility": metrics["volatility_ann"],
        "sharpe": _finite(metrics["sharpe"]),
        "sharpe_interval": [_finite(interval.low), _finite(interval.high)],
        "max_drawdown": metrics["max_drawdown"],
        "trades": int((result.orders["side"] == "buy").sum()),
        "closed_trades": len(result.trades),
        "win_rate": _finite(metrics["win_rate"]),
        "fees": float(result.orders["fee"].sum()),
        "orders_hash": result.orders_hash,
        "findings": [{"code": f.code, "severity": f.severity, "text": f.text, "remedy": f.remedy} for f in found],
        "snapshot_id": result.snapshot_id,
        "run_id": run_id,
    }


def _finite(value: float) -> float | None:
    """JSON knows no NaN: a ratio that does not exist is null."""
    return float(value) if np.isfinite(value) else None


def search_grid(
    settings: Settings,
    name: str,
    grid: Mapping[str, Sequence[Any]],
    symbols: Sequence[str],
    *,
    out: Path | None = None,
    start: str | None = None,
    end: str | None = None,
    clock: Clock | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Search a grid on each symbol by itself; every combination is a trial of the ledger.

    Returns
    -------
    dict
        The luckiest configuration of each symbol, counts, and the Parquet file (symbol, parameters, final_equity, total_return,
        sharpe, max_drawdown, trades) when `out` is given.
    """
    import pandas as pd

    from backtests.recording import record_trials, trials_of
    from backtests.search import run_search
    from tracking.ledger import TrialLedger

    convention, ledger, clock = settings.trading_convention(), TrialLedger(settings), clock or SystemClock()
    window = {key: value for key, value in (("start", start), ("end", end)) if value is not None}
    tables, best = [], []
    for symbol in symbols:
        _, view = _look(settings, name, {}, [symbol], start, end, progress)
        found = run_search(name, grid, view, convention, progress=progress)
        specs = [found.spec(row) for row in range(len(found.strategies))]
        trials = trials_of(specs, found.returns, list(found.table["total_return"]), list(found.table["trades"]), window)
        record_trials(
            settings,
            family=found.strategies[0].family,
            symbols=[symbol],
            convention=convention,
            trials=trials,
            snapshot_id=view.panel.snapshot_id,
            clock=clock,
        )
        tables.append(found.table.assign(symbol=symbol))
        row = found.best_row
        best.append(
            {
                "symbol": symbol,
                "params": dict(found.best.params),
                "sharpe": float(found.table["sharpe"].iloc[row]),
                "trades": int(found.table["trades"].iloc[row]),
            }
        )
    table = pd.concat(tables, ignore_index=True)
    written = None
    if out is not None:
        written = out / f"{name}.parquet"
        try:
            out.mkdir(parents=True, exist_ok=True)
            table.to_parquet(written, index=False)
        except OSError as problem:
            raise StorageError(
                f"cannot write {written}: {problem.strerror or problem}", remedy="choose another --out folder"
            ) from problem
    return {
        "strategy": name,
        "symbols": list(symbols),
        "combinations": len(table),
        "best": best,
        "trials": sum(ledger.count([symbol]) for symbol in symbols),
        "out": str(written) if written else None,
    }


def compare_engines(
    settings: Settings, name: str, params: Mapping[str, Any], symbols: Sequence[str], progress: Progress = SILENT
) -> dict[str, Any]:
    """Run one strategy on both engines and compare orders, trades and equity."""
    from dataclasses import asdict

    from backtests.equity_event import run_event
    from backtests.equity_vectorbt import run_vectorised
    from backtests.parity import compare

    progress.stage("Both engines")
    strategy, view = _look(settings, name, params, symbols, progress=progress)
    convention = settings.trading_convention()
    return asdict(compare(run_vectorised(strategy, view, convention=convention), run_event(strategy, view, convention=convention)))


def check_one(
    settings: Settings, name: str, params: Mapping[str, Any], symbols: Sequence[str], cuts: int, progress: Progress = SILENT
) -> dict[str, Any]:
    """Prove that one strategy does not look ahead on these symbols.

    Raises
    ------
    LeakageError
        A decision changed when the future was taken away.
    """
    from backtests.strategy_check import check_strategy

    strategy, view = _look(settings, name, params, symbols, progress=progress)
    report = check_strategy(
        strategy, view, cuts=cuts, rng=np.random.default_rng(settings.evidence.seed), progress=progress
    ).require()
    return {"strategy": name, "symbols": list(symbols), "cuts": len(report.cuts), "compared": report.compared, "leaks": 0}
