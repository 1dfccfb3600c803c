"""The demo: real data to a traced, gated, paper-traded strategy, in one go.

0. `_check_stored`: what an earlier demo left in the lake is compared with its recorded hashes.
1. `_ingest`: the Prefect flows read the bundled prices and macro series, and the modelled option chain, into the lake.
2. `_features`: the declared features are built, point-in-time, and cut off at many points to prove it.
3. `_research`: the shipped strategies, a deliberately overfitted search, a covered call on the modelled chain, and parity.
4. `_judge`: with every trial counted, evidence, findings and the gate's verdict for each; one MLflow run each.
5. `promote_studies`: what passes holds the alias `paper`; when nothing does, buy-and-hold stands in as the baseline.
6. `trade_flow`: twenty sessions on the simulated broker, reconciled, the drift explained.
7. `explain` and `demo_report`: the chain from an order to the file it came from, and one HTML page.

Every step is named by its content, so a demo that was killed runs again, and a second one re-uses what is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backtests.strategies import SmaCrossover, shipped
from config.addresses import without_password
from config.clock import Clock, SystemClock
from config.errors import DataError
from config.locks import exclusive
from config.progress import SILENT, Progress
from config.settings import Settings
from flows.explain import Link, explain
from flows.promote import Promotion, promote_studies
from flows.research import Contender, Outcome, Study, evaluate, judge, log, look
from flows.trade import PaperRun, trade_flow

if TYPE_CHECKING:
    from backtests.parity import Parity
    from backtests.search import SearchResult
    from backtests.strategy import View
    from features.build import FeatureBuild
    from lake import Snapshot

__all__ = ["DemoOutcome", "run_demo"]

SYMBOL = "NASDAQ"
UNDERLYING = "SP500"
EXPERIMENT = "demo"
PAPER_SESSIONS = 20
# The grid of the deliberately overfitted search: 253 pairs, of which the luckiest is put before the gate.
WINDOWS = tuple(range(5, 204, 9))
SEARCH_LABEL = "sma_search_best"
INDICES = ("NASDAQ", "SP500")


@dataclass(frozen=True, kw_only=True)
class DemoOutcome:
    """Everything the demo did; `as_dict` is what ``quant demo --json`` prints."""

    snapshot_id: str
    data: dict[str, int]
    built: FeatureBuild
    studies: tuple[Study, ...]
    promotion: Promotion
    search: SearchResult
    parity: Parity
    paper: PaperRun
    chain: tuple[Link, ...]
    trials: int
    configurations: Mapping[str, Mapping[str, Any]]
    reused: tuple[str, ...]
    report: Path
    tracking_uri: str
    home: Path
    seconds: float
    interval_level: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "snapshot_id": self.snapshot_id,
            "data": self.data,
            "features": len(self.built.features),
            "feature_set": self.built.set_version,
            "trials": self.trials,
            "strategies": [_strategy_entry(study) for study in self.studies],
            "paper_strategy": self.promotion.traded.label,
            "parity": {
                "strategy": "sma_crossover",
                "engines": list(self.parity.engines),
                "equal": self.parity.equal,
                "max_relative_equity_difference": self.parity.max_relative_equity_difference,
            },
            "orders": self.paper.order_list,
            "drift": {
                "expected": round(float(self.paper.drift.expected), 6),
                "achieved": round(float(self.paper.drift.achieved), 6),
                "parts": {name: round(float(part), 6) for name, part in self.paper.drift.parts.items()},
                "residual": float(self.paper.drift.residual),
            },
            "lineage": [link.as_dict() for link in self.chain],
            "reused": list(self.reused),
            "report": str(self.report),
            "tracking_uri": self.tracking_uri,
            "seconds": round(self.seconds, 2),
        }


def _strategy_entry(study: Study) -> dict[str, Any]:
    evidence = study.evidence
    return {
        "name": study.label,
        "data_kind": evidence.data_kind,
        "total_return": evidence.total_return,
        "cagr": evidence.cagr,
        "sharpe": evidence.sharpe,
        "sharpe_interval": list(evidence.sharpe_interval),
        "max_drawdown": evidence.max_drawdown,
        "trades": evidence.trades,
        "dsr": evidence.dsr,
        "pbo": evidence.pbo,
        "spa_p": evidence.spa_p,
        "walk_forward_sharpe": evidence.walk_forward_sharpe,
        "trials": evidence.trials_all,
        "verdict": study.verdict.outcome,
        "failed_checks": list(study.verdict.failed_checks),
        "findings": [finding.code for finding in evidence.findings],
        "spec_digest": evidence.spec_digest,
        "run_id": study.run.run_id if study.run else None,
    }


def run_demo(settings: Settings, progress: Progress = SILENT, clock: Clock | None = None) -> DemoOutcome:
    """Run the demo in the settings' home folder, alone.

    Raises
    ------
    LockHeldError
        Another demo is running there.
    QuantError
        A step failed; what was acknowledged before it is kept, and running the demo again goes on from there.
    """
    clock = clock or SystemClock()
    with exclusive(settings.home_path / "locks" / "demo.lock", "a demo"):
        return _run(settings, progress, clock)


def _run(settings: Settings, progress: Progress, clock: Clock) -> DemoOutcome:
    from flows.demo_report import demo_report
    from lake import open_lake
    from tracking.ledger import TrialLedger
    from tracking.store import prepare_store_in_background

    began = time.monotonic()
    reused: list[str] = []
    store = prepare_store_in_background(settings)
    _check_stored(settings, progress)
    _ingest(settings, progress, reused)
    built = _features(settings, progress, reused)
    lake = open_lake(settings)
    snapshot = lake.snapshot(built.snapshot_id)
    outcomes, search, parity, view = _research(settings, snapshot, built, progress, clock)
    store.result()
    studies = _judge(settings, snapshot, built, outcomes, view, progress, clock)
    reused += [f"run of {study.label}" for study in studies if study.reused]
    progress.stage("Gates and registry")
    promotion = promote_studies(studies, settings, who="quant demo", clock=clock)
    _tell_verdict(promotion, progress)
    paper = trade_flow(
        promotion.traded.result.spec.name, PAPER_SESSIONS, snapshot_id=snapshot.id, settings=settings, progress=progress
    )
    if paper.orders and not paper.sent:
        reused.append(f"{len(paper.orders)} paper orders")
    progress.stage("Lineage and report")
    chain = explain(settings, paper.fills[0].client_order_id) if paper.fills else ()
    for what in reused:
        progress.note(f"re-used: {what}")
    ledger = TrialLedger(settings)
    counts = {name: at.rows for name, at in sorted(lake.tables().items())}
    outcome = DemoOutcome(
        snapshot_id=snapshot.id,
        data=counts,
        built=built,
        studies=studies,
        promotion=promotion,
        search=search,
        parity=parity,
        paper=paper,
        chain=chain,
        trials=sum(ledger.count([symbol]) for symbol in (SYMBOL, UNDERLYING)),
        configurations={name: params for symbol in (SYMBOL, UNDERLYING) for name, params in ledger.parameters([symbol]).items()},
        reused=tuple(reused),
        report=settings.home_path / "reports" / "demo.html",
        tracking_uri=without_password(settings.tracking_uri),
        home=settings.home_path,
        seconds=time.monotonic() - began,
        interval_level=settings.evidence.interval_level,
    )
    demo_report(outcome, snapshot)
    return replace(outcome, seconds=time.monotonic() - began)


def _check_stored(settings: Settings, progress: Progress) -> None:
    """Compare what an earlier demo stored with its recorded hashes: damaged bytes would be taken for revised values.

    Raises
    ------
    IntegrityError
        A table does not hold the rows that were written to it.
    """
    from lake import open_lake

    lake = open_lake(settings)
    if not lake.has_snapshot():
        return
    snapshot = lake.snapshot()
    progress.stage("Check what is stored", len(snapshot.tables))
    for name in sorted(snapshot.tables):
        snapshot.verify(name)
        progress.advance()


def _ingest(settings: Settings, progress: Progress, reused: list[str]) -> None:
    from flows.ingest_equity import ingest_equity_flow
    from flows.ingest_macro import ingest_macro_flow
    from flows.ingest_options import ingest_options_flow

    progress.stage("Ingest prices")
    prices = ingest_equity_flow(None, source="bundled", settings=settings, progress=progress)
    progress.stage("Ingest macro series")
    macro = ingest_macro_flow(source="bundled", settings=settings, progress=progress)
    progress.stage("Model and ingest an option chain")
    options = ingest_options_flow([UNDERLYING], "modelled", settings=settings, progress=progress)
    for what, report in (("prices", prices), ("macro series", macro), ("option chain (modelled)", options)):
        total = report.total
        if report.outcome == "unchanged":
            reused.append(f"{what}: {total.unchanged} rows unchanged")
        else:
            progress.note(f"{what}: {total.new} rows new, {total.revised} revised, {total.refused} refused")


def _features(settings: Settings, progress: Progress, reused: list[str]) -> FeatureBuild:
    from features.build import build_features_flow
    from features.catalogue import CATALOGUE, feature_set
    from features.leakage import check_catalogue
    from features.point_in_time import load_panel
    from flows.sources.bundled import BUNDLED_SYMBOLS
    from lake import open_lake

    progress.stage("Build features")
    built: FeatureBuild = build_features_flow(sorted(BUNDLED_SYMBOLS), settings=settings, progress=progress)
    if built.reused:
        reused.append(f"features {built.set_version}")
        return built
    progress.note(f"{len(built.features)} features, {built.rows} rows, as {built.set_version}")
    progress.stage("Cut the future off every feature")
    macro = feature_set(tuple(CATALOGUE)).macro
    panel = load_panel(open_lake(settings).snapshot(built.panel_snapshot_id), (SYMBOL,), macro=macro)
    check_catalogue(panel, cuts=4, rng=np.random.default_rng(settings.evidence.seed))
    progress.note(f"{len(CATALOGUE)} features keep every value: none sees the future")
    return built


def _research(
    settings: Settings, snapshot: Snapshot, built: FeatureBuild, progress: Progress, clock: Clock
) -> tuple[list[Outcome], SearchResult, Parity, View]:
    from backtests.equity_event import run_event
    from backtests.parity import compare
    from backtests.search import run_search
    from flows.research_options import evaluate_covered_call

    strategies = dict(sorted(shipped().items(), key=lambda item: item[1].role != "benchmark"))
    progress.stage("Backtests and an overfitted search", len(strategies) + 3)
    view = look(snapshot, [SYMBOL], list(strategies.values()), feature_set=built.set_version)
    convention = settings.trading_convention()
    search = run_search("sma_crossover", {"fast": WINDOWS, "slow": WINDOWS}, view, convention)
    progress.advance()
    contenders = [Contender(label=label, strategy=strategy) for label, strategy in strategies.items()]
    contenders.append(Contender(label=SEARCH_LABEL, strategy=search.best, tried=search.strategies))
    outcomes = evaluate(contenders, view, settings=settings, snapshot_id=snapshot.id, clock=clock, progress=progress)
    progress.note(f"searched {len(search.table)} SMA pairs; the luckiest is {search.best.params}")
    outcomes += evaluate_covered_call(settings, snapshot, UNDERLYING, clock=clock)
    progress.advance()
    progress.stage("Parity of vectorbt and backtrader")
    sma = next(outcome for outcome in outcomes if outcome.label == "sma_crossover")
    event = run_event(SmaCrossover(**dict(sma.result.spec.params)), view, convention=convention, snapshot_id=snapshot.id)
    parity = compare(sma.result, event)
    if not parity.equal:
        raise DataError(
            f"vectorbt and backtrader disagree on sma_crossover: {parity.first_difference}",
            remedy="this is a defect of an engine: nothing is promoted on it; please report it",
        )
    progress.note(f"{parity.orders_left} orders equal, equity within {parity.max_relative_equity_difference:.1e}")
    return outcomes, search, parity, view


def _judge(
    settings: Settings,
    snapshot: Snapshot,
    built: FeatureBuild,
    outcomes: Sequence[Outcome],
    view: View,
    progress: Progress,
    clock: Clock,
) -> tuple[Study, ...]:
    from backtests.findings import find
    from flows.research_options import option_panel
    from tracking.tracker import create_backtest_tracker

    progress.stage("Evidence and verdicts", len(outcomes))
    tracker = create_backtest_tracker(EXPERIMENT, settings, clock=clock)
    benchmarks = {outcome.result.spec.symbols: outcome.result.returns for outcome in outcomes if outcome.role == "benchmark"}
    studies = []
    for outcome in outcomes:
        modelled = outcome.result.data_kind == "modelled"
        panel = option_panel(snapshot, UNDERLYING, outcome.result) if modelled else view.panel
        is_benchmark = outcome.role == "benchmark"
        benchmark = None if is_benchmark else benchmarks.get(outcome.result.spec.symbols)
        if modelled:
            benchmark = panel.close[UNDERLYING].pct_change(fill_method=None).iloc[1:]
        found = find(
            outcome.result,
            metrics=outcome.metrics,
            panel=panel,
            benchmark=benchmark,
            neighbourhood=outcome.neighbourhood or None,
            role="benchmark" if is_benchmark else "candidate",
            not_tradable=INDICES,
        )
        study = judge(outcome, settings=settings, benchmark=benchmark, found=found, universe_point_in_time=True, clock=clock)
        tags = {"feature_set": built.set_version, "ingest_ids": ",".join(_ingests(snapshot, panel.ingest_ids, modelled))}
        studies.append(log(study, tracker, tags=tags))
        progress.advance()
    return tuple(studies)


def _ingests(snapshot: Snapshot, of_panel: Sequence[str], modelled: bool) -> list[str]:
    """The ingests a run rests on: its bars', the macro series' behind its features, and the option chain's."""
    macro = snapshot.ingest_ids("macro_observations")
    chain = snapshot.ingest_ids("option_quotes", where={"underlying": UNDERLYING}) if modelled else ()
    return sorted({*of_panel, *macro, *chain})


def _tell_verdict(promotion: Promotion, progress: Progress) -> None:
    if promotion.promoted:
        progress.note(f"promoted to paper: {', '.join(promotion.promoted)}")
    else:
        progress.note(f"nothing deserves promotion on this data; {promotion.traded.label} goes to paper as the baseline")
    progress.note(f"refused: {', '.join(promotion.refused)}")
