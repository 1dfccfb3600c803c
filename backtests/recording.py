"""Where every evaluated configuration is recorded: once in the ledger of trials, and as one MLflow run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtests.result import BacktestResult
from config.artifacts import show_table
from config.clock import Clock
from config.conventions import Convention
from config.errors import InputError
from config.hashing import digest
from config.settings import Settings
from risk.metrics import sharpe
from tracking.ledger import Trial, TrialLedger

if TYPE_CHECKING:
    import pandas as pd

    from backtests.strategy import StrategySpec
    from tracking.artefacts import Artefact

__all__ = ["record_backtest", "record_trials", "show_backtests", "trial_of", "trials_of"]


def trial_of(result: BacktestResult, metrics: Mapping[str, float], window: Mapping[str, str] | None = None) -> Trial:
    """A result as a trial of the ledger; `window` as in `trials_of`."""
    return trials_of([result.spec], result.returns.to_frame(), [metrics["total_return"]], [len(result.trades)], window)[0]


def trials_of(
    specs: Sequence[StrategySpec],
    returns: pd.DataFrame,
    total_returns: Sequence[float],
    trades: Sequence[int],
    window: Mapping[str, str] | None = None,
) -> list[Trial]:
    """Configurations of one convention that were run together, as trials of the ledger.

    Parameters
    ----------
    returns : DataFrame of shape (n_sessions, n_configurations)
        Simple session returns, a column a specification; the trial's Sharpe ratio is of these less the convention's risk-free
        rate, per session.
    total_returns, trades : sequence of shape (n_configurations,)
        Fractions; closed round trips.
    window : mapping, optional
        ``start`` and ``end`` where they were chosen: choosing them is a choice, so they name the trial too.

    Raises
    ------
    InputError
        There is no return: the run covers one session.
    """
    convention = specs[0].convention
    if returns.empty:
        raise InputError(
            f"{specs[0].name} was run over a single session: there is no return to measure", remedy="widen the window (start, end)"
        )
    free = convention.risk_free_ann / convention.sessions_per_year
    ratios = np.atleast_1d(sharpe(returns.to_numpy(dtype=np.float64).T, 1.0, free))
    return [
        Trial(
            params={**spec.params, **(window or {})},
            spec_digest=spec.digest,
            sharpe_per_session=float(ratios[column]),
            total_return=float(total_returns[column]),
            trades=int(trades[column]),
            returns=returns.iloc[:, column],
        )
        for column, spec in enumerate(specs)
    ]


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
    from tracking.runs import RUN_KEY_TAG, search_all
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
    days = result.equity.index
    about = {"first_session": f"{days[0]:%Y-%m-%d}", "last_session": f"{days[-1]:%Y-%m-%d}"}
    # The key does not know the window: a run over other sessions is another run.
    known = {RUN_KEY_TAG: key, "orders_hash": result.orders_hash, **about}
    condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in known.items())
    whole = [run for run in search_all(tracker.store, tracker.experiment_id, condition) if run.is_whole()]
    run = whole[0] if whole else tracker.log_result(result, metrics, artefacts=artefacts, tags={**about, **(tags or {})})
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
