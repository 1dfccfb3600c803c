"""Where every evaluated configuration is recorded: once in the ledger of trials, and as one MLflow run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtests.result import BacktestResult
from config.artifacts import show_table
from config.clock import Clock
from config.conventions import Convention
from config.hashing import digest
from config.settings import Settings
from risk.metrics import sharpe
from tracking.ledger import Trial, TrialLedger

if TYPE_CHECKING:
    from tracking.artefacts import Artefact

__all__ = ["record_backtest", "record_trials", "show_backtests", "trial_of"]


def trial_of(result: BacktestResult, metrics: Mapping[str, float], window: Mapping[str, str] | None = None) -> Trial:
    """A result as a trial of the ledger.

    Parameters
    ----------
    window : mapping, optional
        ``start`` and ``end`` where they were chosen: choosing them is a choice, so they name the trial too.
    """
    convention = result.spec.convention
    excess = convention.risk_free_ann / convention.sessions_per_year
    return Trial(
        params={**result.spec.params, **(window or {})},
        spec_digest=result.spec.digest,
        sharpe_per_session=float(sharpe(result.returns.to_numpy(dtype=np.float64), 1.0, excess)),
        total_return=metrics["total_return"],
        trades=len(result.trades),
        returns=result.returns,
    )


def record_trials(
    settings: Settings,
    *,
    family: str,
    symbols: Sequence[str],
    convention: Convention,
    trials: Sequence[Trial],
    snapshot_id: str,
    clock: Clock,
) -> int:
    """Record trials under a convention; the number that were not known before."""
    return TrialLedger(settings).record_many(
        family=family,
        symbols=list(symbols),
        convention_digest=digest(convention.as_dict()),
        trials=trials,
        snapshot_id=snapshot_id,
        recorded_at=clock.now(),
    )


def record_backtest(
    result: BacktestResult,
    metrics: Mapping[str, float],
    *,
    experiment_name: str,
    settings: Settings,
    clock: Clock,
    window: Mapping[str, str] | None = None,
    artefacts: Mapping[str, Artefact] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> str:
    """Count a result as a trial and log it as a run; the same content again finds the run that is there.

    Returns
    -------
    str
        The MLflow run's id.
    """
    from tracking.tracker import create_backtest_tracker

    spec = result.spec
    record_trials(
        settings,
        family=spec.family,
        symbols=spec.symbols,
        convention=spec.convention,
        trials=[trial_of(result, metrics, window)],
        snapshot_id=result.snapshot_id,
        clock=clock,
    )
    tracker = create_backtest_tracker(experiment_name, settings, clock=clock)
    key = tracker.run_key(spec_digest=spec.digest, snapshot_id=result.snapshot_id, engine=result.engine)
    found = None if window else tracker.find_run(key)
    run = found or tracker.log_result(result, metrics, artefacts=artefacts, tags={**(window or {}), **(tags or {})})
    return run.run_id


def show_backtests(key: str, experiment: str, evaluated: Sequence[tuple[BacktestResult, Mapping[str, float], str]]) -> None:
    """Leave backtests as a table on the flow run's page; outside of a Prefect run nothing happens.

    Parameters
    ----------
    evaluated : sequence of (result, metrics, run_id)
    """
    rows = [
        {
            "strategy": result.spec.name,
            "symbols": ", ".join(result.spec.symbols),
            "parameters": ", ".join(f"{name}={value}" for name, value in result.spec.params.items()) or "–",
            "data": result.data_kind,
            "sessions": len(result.equity),
            "total return": f"{metrics['total_return']:.2%}",
            "CAGR": f"{metrics['cagr']:.2%}",
            "Sharpe": f"{metrics['sharpe']:.3f}",
            "max drawdown": f"{metrics['max_drawdown']:.2%}",
            "closed trades": len(result.trades),
            "MLflow run": run_id,
        }
        for result, metrics, run_id in evaluated
    ]
    snapshots = ", ".join(f"`{name}`" for name in sorted({result.snapshot_id for result, _, _ in evaluated}))
    show_table(key, rows, f"MLflow experiment **{experiment}**, snapshot {snapshots}")
