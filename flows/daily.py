"""The daily research chain: after the close, ingest; then features; then a paper session of whatever holds the alias `paper`.

1. `daily_research_flow` takes its day from the start it was scheduled for and skips days without a session, like the ingest.
2. `daily_ingest_flow` brings every dataset up to that day; when one fails, nothing is traded on the others.
3. `build_features_flow` computes the features of what was ingested.
4. `_trade_one` continues the paper account of each version that holds `paper`, up to that day (`_due`).

Each part is a no-op where it was done before, so a run that starts late is a catch-up of its own day, and one that starts twice
adds nothing. A version has a paper account of its own, ``<account>-daily-<strategy>-<digest>``: the session before its first day is
where it begins, and sessions missed since are played one by one, each decided from what was known at its close.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from config.artifacts import show_table
from config.clock import Clock, SystemClock
from config.errors import UnknownNameError
from config.orchestration import flow, inside_flow_run, step
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from flows.ingest import as_day
from flows.schedules import DailyIngest, closed, daily_ingest_flow, scheduled_day, skipped_state

if TYPE_CHECKING:
    from tracking.registry import RegisteredStrategy

__all__ = ["DailyResearch", "PaperOutcome", "daily_research_flow"]


@dataclass(frozen=True, kw_only=True)
class PaperOutcome:
    """What became of one strategy that holds the alias `paper`.

    Parameters
    ----------
    outcome : {"traded", "unchanged", "skipped"}
        Unchanged: its account stood at the day already, and nothing was sent.
    reason : str
        Why it was skipped.
    sessions : int
        Sessions of the account up to the day.
    sent, fills : int
        Orders sent now; fills of all those sessions.
    equity : float or None
        At the day's close, account currency.
    """

    strategy: str
    version: str
    account: str
    outcome: Literal["traded", "unchanged", "skipped"]
    reason: str = ""
    sessions: int = 0
    sent: int = 0
    fills: int = 0
    equity: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class DailyResearch:
    """What a day's chain did.

    Parameters
    ----------
    as_of : date
        The session it is about.
    ingest : DailyIngest
        With the reason, when the day was skipped.
    feature_set : str or None
        Version of the features built; None where no symbol was ingested.
    paper : tuple of PaperOutcome
        One a strategy that holds the alias `paper`.
    """

    as_of: date
    ingest: DailyIngest
    feature_set: str | None = None
    paper: tuple[PaperOutcome, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "as_of": self.as_of.isoformat(),
            "ingest": self.ingest.as_dict(),
            "feature_set": self.feature_set,
            "paper": [one.as_dict() for one in self.paper],
        }


@flow(
    name="daily-research",
    description="Ingest, features, and a paper session of what holds the alias paper",
    run_name=lambda given: f"research of {as_day(given['as_of'], 'as_of') or 'the scheduled day'}",
    withheld=("settings", "progress", "clock"),
)
def daily_research_flow(
    as_of: date | str | None = None,
    *,
    symbols: Sequence[str] | None = None,
    series: Sequence[str] | None = None,
    lookback_days: int | None = None,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
) -> Any:
    """Bring data, features and paper accounts up to one session.

    Parameters
    ----------
    as_of : date or str, optional
        None: the New York date of the start this run was scheduled for; called by hand, of now.
    symbols, series, lookback_days
        As in `daily_ingest_flow`.

    Returns
    -------
    DailyResearch
        On a day without a session nothing is done; inside Prefect the run then ends as *Skipped*.

    Raises
    ------
    QuantError
        An ingest failed, features could not be built, or a paper account refused to go on (a halt, books that do not agree).
        What was done before is kept; the day can be run again.
    """
    chosen = settings or load_settings()
    day = as_day(as_of, "as_of") or scheduled_day(clock or SystemClock(), chosen.data.calendar)
    reason = closed(day, chosen.data.calendar)
    if reason is not None:
        skipped = DailyResearch(as_of=day, ingest=DailyIngest(as_of=day, skipped=reason))
        return skipped_state(skipped, reason) if inside_flow_run() else skipped
    shared: dict[str, Any] = {"settings": chosen, "progress": progress, "clock": clock}
    ingested: DailyIngest = daily_ingest_flow(day, symbols=symbols, series=series, lookback_days=lookback_days, **shared)
    feature_set = _features(ingested, shared)
    paper = tuple(_trade_one(registered, day, chosen, progress) for registered in _held(chosen))
    show_table(
        "daily-research",
        [one.as_dict() for one in paper],
        f"**{day}**: features {feature_set or 'none'}; "
        + (f"{sum(one.sent for one in paper)} orders sent on paper" if paper else "nothing holds the alias `paper`"),
    )
    return DailyResearch(as_of=day, ingest=ingested, feature_set=feature_set, paper=paper)


def _features(ingested: DailyIngest, shared: dict[str, Any]) -> str | None:
    """Build the features of the symbols that were asked for and are in the lake."""
    from features.build import build_features_flow

    equity = [report for report in ingested.reports if report.dataset == "equity"]
    symbols = sorted({one.name for report in equity for one in report.names if one.outcome in ("stored", "unchanged")})
    return str(build_features_flow(symbols, **shared).set_version) if symbols else None


@step(name="find-paper-strategies", retries=2)
def _held(settings: Settings) -> list[RegisteredStrategy]:
    """Every registered version that holds the alias `paper`, verified."""
    from tracking.registry import create_model_registry

    registry = create_model_registry(settings)
    held = []
    for model in registry.models():
        try:
            held.append(registry.get(model, "paper"))
        except UnknownNameError:
            continue  # it never held the alias, or holds it no longer: its account rests
    return held


def _trade_one(registered: RegisteredStrategy, day: date, settings: Settings, progress: Progress) -> PaperOutcome:
    """Continue one version's paper account up to the day, or say why not."""
    from flows.trade import PaperRun, trade_flow

    account = f"{settings.execution.account}-daily-{registered.model[:32]}-{registered.digest[:8]}"
    about: dict[str, Any] = {"strategy": registered.model, "version": registered.version, "account": account}
    count, reason = _due(registered, account, day, settings)
    if reason:
        progress.note(f"{registered.model} is not traded: {reason}")
        return PaperOutcome(**about, outcome="skipped", reason=reason)
    run: PaperRun = trade_flow(registered.model, count, through=day, account=account, settings=settings, progress=progress)
    return PaperOutcome(
        **about,
        outcome="traded" if run.sent or run.new_sessions else "unchanged",
        sessions=len(run.sessions),
        sent=run.sent,
        fills=len(run.fills),
        equity=float(run.equity.iloc[-1]),
    )


@step(name="find-due-sessions", retries=2, run_name=lambda given: f"find due sessions of {given['registered'].model}")
def _due(registered: RegisteredStrategy, account: str, day: date, settings: Settings) -> tuple[int, str]:
    """How many sessions the account has up to the day, its first one excepted; or why it is not traded."""
    from backtests.strategy import StrategySpec
    from features.point_in_time import load_panel
    from flows.trade import played_sessions
    from lake import open_lake

    spec = StrategySpec.from_dict(registered.spec)
    if spec.kind != "weights":
        return 0, "it trades option legs, which the paper account does not take yet"
    panel = load_panel(open_lake(settings).snapshot(), spec.symbols, end=day)
    last = pd.Timestamp(day)
    lacking = list(spec.symbols) if last not in panel.sessions else [str(s) for s, v in panel.close.loc[last].items() if pd.isna(v)]
    if lacking:
        return 0, f"the lake has no bar of {', '.join(lacking)} on {day}; the next run makes the session up"
    played = played_sessions(settings, account)
    if not played:
        return (1, "") if len(panel.sessions) > 1 else (0, f"{day} is the first session in the lake")
    if played[0] >= day or played[-1] > day:
        return 0, f"its account stands at {played[-1]} already"
    return int((panel.sessions > pd.Timestamp(played[0])).sum()), ""
