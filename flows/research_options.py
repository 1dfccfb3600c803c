"""The demo's options half: a covered call over the modelled chain, judged like every other strategy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from backtests.recording import record_trials, trial_of
from config.clock import Clock
from config.progress import SILENT, Progress
from config.settings import Settings
from flows.research import Outcome

if TYPE_CHECKING:
    from backtests.result import BacktestResult
    from features.panel import MarketPanel
    from lake import Snapshot

__all__ = ["evaluate_covered_call", "option_panel"]

LABEL = "covered_calls"


def evaluate_covered_call(
    settings: Settings, snapshot: Snapshot, symbol: str, *, clock: Clock, progress: Progress = SILENT
) -> list[Outcome]:
    """Run the covered call on the snapshot's chain and record it as a trial.

    Notes
    -----
    Contracts are whole and cover 100 shares; at an index of 2,000 that is 200,000 a contract. The account starts with
    `INDEX_CASH` instead of the convention's cash, and its specification says so.
    """
    from backtests.options_bt import CoveredCallsStrategy, read_option_inputs, run_options, specify
    from backtests.options_flow import INDEX_CASH
    from risk.metrics import performance

    convention = settings.trading_convention()
    convention = replace(convention, initial_cash=max(convention.initial_cash, INDEX_CASH))
    inputs = read_option_inputs(snapshot, symbol, sources=settings.data.options)
    # As in the design: delta 0.15, thirty to sixty days out, over at most six tenths of the shares, none in a risky regime.
    strategy = CoveredCallsStrategy(
        call_delta_target=0.15, call_dte_min=30, call_dte_max=60, cover_ratio_max=0.6, risk_regime_max=2
    )
    spec = specify(strategy, symbol, convention)
    result = run_options(spec, inputs.chain, inputs.bars, risk_level=inputs.risk_level, snapshot_id=snapshot.id, progress=progress)
    metrics = performance(result.equity, result.trades, result.orders, convention)
    record_trials(
        settings,
        family=spec.family,
        symbols=spec.symbols,
        convention=convention,
        trials=[trial_of(result, metrics)],
        snapshot_id=snapshot.id,
        clock=clock,
    )
    return [Outcome(label=LABEL, result=result, metrics=metrics, role="candidate")]


def option_panel(snapshot: Snapshot, symbol: str, result: BacktestResult) -> MarketPanel:
    """The underlying's panel over the sessions of an options result."""
    from features.point_in_time import load_panel

    sessions = pd.DatetimeIndex(result.equity.index)
    return load_panel(snapshot, (symbol,), sessions[0].date(), sessions[-1].date())
