"""Research: backtests, every trial counted, the evidence, the findings, the gate's verdict, and one MLflow run for each.

1. `look` reads a view: the market panel of a snapshot and the features the strategies declare, from the built set.
2. `evaluate` runs each contender and everything tried beside it, and records all of it in the ledger of trials (`_try_family`).
3. Only then, with the count complete, `judge` gathers the evidence and asks the gate.
4. `log` files result, evidence and verdict as one run; a run with the same content is found again and not logged twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtests.recording import record_trials, trials_of
from backtests.result import BacktestResult
from backtests.strategy import Strategy, View
from config.clock import Clock
from config.hashing import digest
from config.progress import SILENT, Progress
from config.settings import Settings
from tracking.evidence import Evidence, Finding
from tracking.gates import Verdict
from tracking.ledger import TrialLedger

if TYPE_CHECKING:
    from backtests.validation import WalkForward
    from lake import Snapshot
    from tracking.runs import RunRecord
    from tracking.tracker import BacktestTracker

__all__ = ["Contender", "Outcome", "Study", "evaluate", "judge", "log", "look"]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A strategy that asks to be promoted, and what else was tried to arrive at it.

    Parameters
    ----------
    label : str
        Its name in lists and reports; two versions of one strategy need two.
    strategy : Strategy
    tried : tuple of Strategy
        The grid it was chosen from. Its declared neighbours are added to the trials anyway.
    """

    label: str
    strategy: Strategy
    tried: tuple[Strategy, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A contender, run.

    Parameters
    ----------
    neighbourhood : tuple of float
        Annualised Sharpe ratios of the declared neighbours.
    """

    label: str
    result: BacktestResult
    metrics: Mapping[str, float]
    role: str
    neighbourhood: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Study:
    """A contender, judged.

    Parameters
    ----------
    run : RunRecord, optional
        Its MLflow run, once logged.
    reused : bool
        The run was there already, with the same content.
    """

    label: str
    result: BacktestResult
    metrics: Mapping[str, float]
    evidence: Evidence
    verdict: Verdict
    walk_forward: WalkForward | None
    run: RunRecord | None = field(default=None)
    reused: bool = False


def look(
    snapshot: Snapshot,
    symbols: Sequence[str],
    strategies: Sequence[Strategy],
    *,
    feature_set: str | None = None,
    start: date | None = None,
    end: date | None = None,
) -> View:
    """Read what the strategies may look at.

    Parameters
    ----------
    feature_set : str, optional
        Version of the built feature set that declared features are taken from; computed on the panel when left out.
    """
    from backtests.views import load_view
    from features.store import load_features

    view = load_view(snapshot, symbols, strategies, start=start, end=end)
    names = sorted({name for strategy in strategies for name in strategy.features})
    if feature_set is None or not names:
        return view
    stored = load_features(snapshot, feature_set, names, tuple(symbols), start, end)
    aligned = {name: frame.reindex(index=view.sessions, columns=list(view.symbols)) for name, frame in stored.items()}
    return replace(view, features=aligned)


def evaluate(
    contenders: Sequence[Contender],
    view: View,
    *,
    settings: Settings,
    snapshot_id: str,
    clock: Clock,
    progress: Progress = SILENT,
) -> list[Outcome]:
    """Run every contender and everything tried beside it; all of it is in the ledger when this returns."""
    from backtests.equity_vectorbt import run_vectorised
    from backtests.strategies import neighbours
    from risk.metrics import performance

    convention = settings.trading_convention()
    outcomes = []
    for contender in contenders:
        near = neighbours(contender.strategy)
        sharpes = _try_family(contender, near, view, settings, snapshot_id, clock)
        result = run_vectorised(contender.strategy, view, convention=convention, snapshot_id=snapshot_id)
        outcomes.append(
            Outcome(
                label=contender.label,
                result=result,
                metrics=performance(result.equity, result.trades, result.orders, convention),
                role=contender.strategy.role,
                neighbourhood=tuple(sharpes),
            )
        )
        progress.advance()
    return outcomes


def _try_family(
    contender: Contender,
    near: Sequence[Strategy],
    view: View,
    settings: Settings,
    snapshot_id: str,
    clock: Clock,
) -> list[float]:
    """Run contender, neighbours and grid as one block, record them, and return the neighbours' annualised Sharpe ratios."""
    from backtests.decisions import specification
    from backtests.equity_vectorbt import run_many
    from risk.metrics import sharpe

    convention = settings.trading_convention()
    everything = {digest(dict(one.params)): one for one in (contender.strategy, *near, *contender.tried)}
    many = run_many(list(everything.values()), view, convention=convention)
    returns, values = many.returns, many.returns.to_numpy(dtype=np.float64)
    final = many.equity.to_numpy(dtype=np.float64)[-1]
    annual = sharpe(values.T, convention.sessions_per_year, convention.risk_free_ann)
    specs = [specification(strategy, view, convention) for strategy in everything.values()]
    trials = trials_of(specs, returns, list(final / convention.initial_cash - 1.0), list(many.trades))
    record_trials(
        settings,
        family=contender.strategy.family,
        symbols=view.symbols,
        convention=convention,
        trials=trials,
        snapshot_id=snapshot_id,
        clock=clock,
    )
    places = {name: column for column, name in enumerate(everything)}
    return [float(annual[places[digest(dict(one.params))]]) for one in near]


def judge(
    outcome: Outcome,
    *,
    settings: Settings,
    benchmark: pd.Series | None,
    found: tuple[Finding, ...],
    universe_point_in_time: bool,
    clock: Clock,
) -> Study:
    """Gather the evidence for one outcome, with the ledger's counts as they stand now, and ask the gate to `paper`.

    Parameters
    ----------
    benchmark : Series, optional
        The benchmark's session returns over the same sessions; None for the benchmark itself.
    found : tuple of Finding
    """
    from backtests.validation import build_evidence, walk_forward
    from tracking.gates import evaluate as ask_gate

    result, ledger = outcome.result, TrialLedger(settings)
    symbols, family = list(result.spec.symbols), result.spec.family
    returns = result.returns
    tried = ledger.returns_matrix(symbols, family, snapshot_id=result.snapshot_id).reindex(returns.index).dropna(axis=1)
    role = "benchmark" if outcome.role == "benchmark" else "candidate"
    convention = result.spec.convention
    forward = None
    if role == "candidate" and tried.shape[1] > 0:
        forward = walk_forward(
            tried,
            folds=settings.evidence.walk_forward_folds,
            switch_cost=2.0 * (convention.fee + convention.slippage),
            sessions_per_year=convention.sessions_per_year,
            risk_free_ann=convention.risk_free_ann,
        )
    evidence = build_evidence(
        result,
        settings=settings.evidence,
        trials=ledger.count(symbols, family),
        trials_all=ledger.count(symbols),
        trial_sharpes=ledger.sharpes(symbols),
        returns_matrix=tried,
        benchmark_returns=benchmark,
        walk_forward=forward,
        role="benchmark" if role == "benchmark" else "candidate",
        universe_point_in_time=universe_point_in_time,
        findings=found,
    )
    return Study(
        label=outcome.label,
        result=result,
        metrics=outcome.metrics,
        evidence=evidence,
        verdict=ask_gate(evidence, "paper", clock=clock),
        walk_forward=forward,
    )


def log(study: Study, tracker: BacktestTracker, *, tags: Mapping[str, Any]) -> Study:
    """File a study as one MLflow run, or find the run that holds exactly this already.

    Parameters
    ----------
    tags : mapping
        What the run was made from: the feature set, the ingests. `quant explain` walks along them.
    """
    from config.hashing import canonical_json

    key = tracker.run_key(spec_digest=study.result.spec.digest, snapshot_id=study.result.snapshot_id, engine=study.result.engine)
    known = tracker.find_run(key)
    document = canonical_json(study.evidence.as_dict())
    if known is not None and "evidence.json" in known.artefacts and canonical_json(known.document("evidence")) == document:
        return replace(study, run=known, reused=True)
    low, high = study.evidence.sharpe_interval
    metrics: dict[str, Any] = {**study.metrics, "sharpe": (study.evidence.sharpe, low, high)}
    for name in ("dsr", "pbo", "spa_p", "walk_forward_sharpe"):
        value = getattr(study.evidence, name)
        if value is not None:
            metrics[name] = value
    metrics["trials"] = study.evidence.trials_all
    with_label = {"label": study.label, "verdict": study.verdict.outcome, **tags}
    run = tracker.log_result(study.result, metrics, study.evidence, tags=with_label)
    tracker.log_verdict(run.run_id, study.verdict)
    return replace(study, run=run)
