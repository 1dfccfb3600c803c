"""Run in a process of its own by test_prefect_chain.py: every research flow once, with or without a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from config.settings import load_settings
from tests.flows.paper_home import promote_to_paper

KEY = "given-in-the-call-0123456789"


def main() -> dict[str, Any]:
    """From bars to a paper session; the numbers of each flow."""
    from backtests.equity_vectorbt import equity_backtest_flow
    from backtests.options_bt import options_backtest_flow
    from features.build import build_features_flow
    from flows.daily import daily_research_flow
    from flows.ingest_equity import ingest_equity_flow
    from flows.ingest_macro import ingest_macro_flow
    from flows.ingest_options import ingest_options_flow
    from flows.trade import trade_flow

    settings = load_settings()
    ingest_equity_flow(["SP500"], "2018-01-02", "2018-12-28")
    ingest_macro_flow(series=["VIXCLS"], start_date="2018-01-02")
    options = ingest_options_flow(["SP500"], "modelled", KEY, start_date="2018-09-04", settings=settings)
    built = build_features_flow(["SP500"], settings=settings)
    # Parameters that are objects, not text: Prefect stores a description of them and hands them on as they are.
    equity = equity_backtest_flow(["SP500"], ["buy_and_hold", {"name": "sma_crossover", "fast": 5, "slow": 20}], "chain")
    calls = options_backtest_flow(["SP500"], ["CoveredCallsStrategy"], "chain", settings=settings)
    model = promote_to_paper(settings, {"name": "buy_and_hold"}, ["SP500"])
    paper = trade_flow(model, 3, settings=settings)
    daily = daily_research_flow("2018-12-31", symbols=["SP500"], series=["BAA"])
    return {
        "options": options.as_dict(),
        "features": {**built.as_dict()},
        "equity": [[one.result.orders_hash, one.metrics["final_equity"], one.metrics["sharpe"]] for one in equity],
        "calls": [[one.result.orders_hash, one.metrics["final_equity"]] for one in calls],
        "paper": {"orders": paper.order_list, "equity": float(paper.equity.iloc[-1]), "residual": float(paper.drift.residual)},
        "daily": {"set": daily.feature_set, "paper": [one.as_dict() for one in daily.paper]},
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(main()), encoding="utf-8")
