"""What runs by itself, and when: deployments in code, on the exchange's time, guarded by its calendar.

1. `daily_ingest_flow` takes its day from the start it was scheduled for (`scheduled_day`), skips days without a session
   (`closed`), and ingests each dataset of `settings.daily`; so a run that starts late is a catch-up of its own day, and one that
   starts twice adds nothing. What came while nothing ran is asked for by the next run: sources are asked from the newest bar on.
2. It tells what was refused or failed (`flows.alerts`). `watch_data_flow` tells what is late, also when the ingest never ran.
3. `deployments` lists what is scheduled: the daily research chain (flows/daily.py), whose first part the ingest is, the ingest
   alone, its schedule switched off, the watch, and the lake's weekly maintenance. `serve_schedules` runs them in this process,
   `apply_schedules` leaves them to workers; both put one concurrency limit a vendor on the server (`vendor_limits`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from config.calendar import is_session, previous_session, session_closes, time_zone, trading_weekdays
from config.clock import Clock, SystemClock
from config.errors import InputError, QuantError
from config.orchestration import api_configured, flow, inside_flow_run
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from flows.alerts import Alert, Told, raise_alerts
from flows.ingest import TABLE_OF, as_day
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_macro import ingest_macro_flow
from flows.ingest_options import ingest_options_flow
from flows.ingest_report import IngestReport

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

    from flows.freshness import Freshness

__all__ = [
    "POOL",
    "DailyIngest",
    "Watch",
    "apply_schedules",
    "closed",
    "daily_ingest_flow",
    "deployments",
    "require_api",
    "scheduled_day",
    "serve_schedules",
    "skipped_state",
    "vendor_limits",
    "watch_data_flow",
]

POOL = "quantrail"
_MAINTENANCE_AT, _SATURDAY = "06:00", 6
_MOST_SUBJECTS = 20  # alerts one by one up to here; beyond, one for all


@dataclass(frozen=True, kw_only=True)
class DailyIngest:
    """What a daily ingest did.

    Parameters
    ----------
    as_of : date
        The session it is about.
    skipped : str or None
        Why nothing was done.
    reports : tuple of IngestReport
    """

    as_of: date
    skipped: str | None = None
    reports: tuple[IngestReport, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "as_of": self.as_of.isoformat(),
            "skipped": self.skipped,
            "reports": [report.as_dict() for report in self.reports],
        }


@flow(
    name="daily-ingest",
    description="Ingest what settings.daily lists, up to one session",
    run_name=lambda given: f"ingest of {as_day(given['as_of'], 'as_of') or 'the scheduled day'}",
    withheld=("settings", "progress", "clock"),
)
def daily_ingest_flow(
    as_of: date | str | None = None,
    *,
    symbols: Sequence[str] | None = None,
    series: Sequence[str] | None = None,
    lookback_days: int | None = None,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
) -> Any:
    """Ingest the datasets of `settings.daily` up to one session, and tell what was refused or failed.

    Parameters
    ----------
    as_of : date or str, optional
        None: the exchange's session this run was scheduled for (`scheduled_day`); called by hand, the newest one that has closed.
    symbols, series : sequence of str, optional
        Instead of `settings.daily`'s.
    lookback_days : int, optional
        Ask again for this many days before `as_of`; None: sources that are asked incrementally from the newest bar stored on,
        the others for everything.

    Returns
    -------
    DailyIngest
        On a day without a session nothing is done; inside Prefect the run then ends as *Skipped*, and where names were refused,
        missing or failed as *Completed with refusals*.

    Raises
    ------
    QuantError
        A dataset failed. The others were ingested first.
    """
    chosen = settings or load_settings()
    time = clock or SystemClock()
    day = as_day(as_of, "as_of") or scheduled_day(time, chosen.data.calendar)
    reason = closed(day, chosen.data.calendar)
    if reason is not None:
        skipped = DailyIngest(as_of=day, skipped=reason)
        return skipped_state(skipped, reason) if inside_flow_run() else skipped
    start = None if lookback_days is None else day - timedelta(days=lookback_days)
    shared: dict[str, Any] = {"start_date": start, "end_date": day, "settings": chosen, "progress": progress, "clock": clock}
    reports: list[IngestReport] = []
    failures: dict[str, QuantError] = {}
    for dataset, stage in _stages(chosen, day, symbols, series, shared).items():
        try:
            reports.append(stage())
        except QuantError as problem:
            failures[dataset] = problem
    raise_alerts(_troubles(reports, failures, day), chosen, time)
    for failure in failures.values():
        raise failure
    done = DailyIngest(as_of=day, reports=tuple(reports))
    troubled = [report for report in reports if report.troubled]
    if not troubled or not inside_flow_run():
        return done
    from prefect.states import Completed

    said = "; ".join(f"{report.dataset} {report.summary}" for report in troubled)
    return Completed(name="Completed with refusals", message=said, data=done)


def _stages(
    settings: Settings, day: date, symbols: Sequence[str] | None, series: Sequence[str] | None, shared: dict[str, Any]
) -> dict[str, Callable[[], IngestReport]]:
    """What is ingested, by dataset, in the settings' order."""
    daily = settings.daily

    def positions() -> IngestReport:
        from flows.ingest_cot import ingest_cot_flow

        report: IngestReport = ingest_cot_flow(daily.markets or None, **shared)
        return report

    every: dict[str, Callable[[], IngestReport]] = {
        "equity": lambda: ingest_equity_flow(symbols or _symbols_of(settings, day), **shared),
        "macro": lambda: ingest_macro_flow(series=series or daily.series or None, **shared),
        "options": lambda: ingest_options_flow(daily.underlyings or None, **shared),
        "cot": positions,
    }
    return {dataset: every[dataset] for dataset in daily.datasets}


def _symbols_of(settings: Settings, day: date) -> tuple[str, ...] | None:
    """The settings' symbols and the universe's members on the day; None: all that the source has."""
    daily = settings.daily
    if not daily.universe:
        return daily.symbols or None
    from lake import open_lake
    from lake.universe import members

    return tuple(dict.fromkeys((*daily.symbols, *members(open_lake(settings).snapshot(), daily.universe, on=day))))


def _troubles(reports: Sequence[IngestReport], failures: Mapping[str, QuantError], day: date) -> list[Alert]:
    """Alerts of what was refused or failed."""
    said = day.isoformat()
    found = [Alert(kind="failed", dataset=of, subject="", message=problem.message, day=said) for of, problem in failures.items()]
    for report in reports:
        kinds: tuple[Literal["refused", "failed"], ...] = ("refused", "failed")
        for kind in kinds:
            bad = [one for one in report.names if (one.refused if kind == "refused" else one.outcome == "failed")]
            if len(bad) > _MOST_SUBJECTS:
                message = f"{len(bad)} names, the first {bad[0].name}: {bad[0].message}"
                found.append(Alert(kind=kind, dataset=report.dataset, subject="", message=message, day=said))
            else:
                found += [
                    Alert(kind=kind, dataset=report.dataset, subject=one.name, message=one.message or one.outcome, day=said)
                    for one in bad
                ]
    return found


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a look at the data found.

    Parameters
    ----------
    day : date
        The session it is about.
    late : tuple of Freshness
        Tables that are less new than they should be by now.
    told : tuple of Told
        What was told because of it; empty when all was told before.
    """

    day: date
    late: tuple[Freshness, ...] = ()
    told: tuple[Told, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        late = [
            {"table": one.table, "state": one.state, "message": one.message, "names": [name.as_dict() for name in one.late_names]}
            for one in self.late
        ]
        return {"day": self.day.isoformat(), "late": late, "told": [one.as_dict() for one in self.told]}


@flow(
    name="watch-data",
    description="Tell which datasets are less fresh than they should be",
    withheld=("settings", "clock"),
)
def watch_data_flow(*, settings: Settings | None = None, clock: Clock | None = None) -> Watch:
    """Tell what is late by now: log, Prefect event, webhook; each table once a session.

    A table of a dataset that `settings.daily` lists and of which nothing is stored is late too: the ingest never ran.
    """
    from flows.freshness import freshness

    chosen = settings or load_settings()
    time = clock or SystemClock()
    found = freshness(chosen, time)
    late = (*_never_stored(chosen, {one.table for one in found}), *(one for one in found if one.late))
    day = scheduled_day(time, chosen.data.calendar)
    if not is_session(day, chosen.data.calendar):
        day = previous_session(day, chosen.data.calendar).date()  # a weekend is no new trouble
    alerts = [Alert(kind="late", dataset=one.table, subject="", message=one.message, day=day.isoformat()) for one in late]
    return Watch(day=day, late=late, told=raise_alerts(alerts, chosen, time))


def _never_stored(settings: Settings, tables: Collection[str]) -> tuple[Freshness, ...]:
    from flows.freshness import Freshness

    def empty(dataset: str, table: str) -> Freshness:
        said = f"{table}: nothing of it is stored, and daily.datasets lists {dataset}; start it with: quant ingest {dataset}"
        return Freshness(table=table, late=True, state="empty", message=said, names=0)

    return tuple(empty(of, TABLE_OF[of]) for of in settings.daily.datasets if TABLE_OF[of] not in tables)


def scheduled_day(clock: Clock, calendar: str) -> date:
    """The exchange's date that this run stands for, by its scheduled start, so that a run made up for later is about its own day.

    Before the day's session has closed, that is the session before it.
    """
    start = clock.now()
    if inside_flow_run():
        from prefect.runtime import flow_run

        planned = flow_run.scheduled_start_time
        start = start if planned is None else datetime.fromisoformat(str(planned))
    day = start.astimezone(time_zone(calendar)).date()
    if is_session(day, calendar) and start < session_closes(pd.DatetimeIndex([day]), calendar)[0]:
        return previous_session(day, calendar).date()
    return day


def closed(day: date, calendar: str) -> str | None:
    """Why there is nothing to do on that day; None when there is."""
    return None if is_session(day, calendar) else f"{day} is not a session of {calendar}"


def skipped_state(result: object, reason: str) -> Any:
    """Prefect's *Completed* state by the name of Skipped, with the reason as its message."""
    from prefect.states import Completed

    return Completed(name="Skipped", message=reason, data=result)


def deployments(
    *, lookback_days: int | None = None, paused: bool = False, pool: str | None = None, settings: Settings | None = None
) -> list[RunnerDeployment]:
    """The deployments, each with its schedule: times of day of `settings.daily`, on the exchange's days of trading, in its zone.

    Parameters
    ----------
    paused : bool
        Made, but not started by the clock.
    pool : str, optional
        The work pool whose workers run them.
    """
    from flows.daily import daily_research_flow
    from flows.maintain import maintain_flow

    chosen = settings or load_settings()
    parameters: dict[str, Any] = {} if lookback_days is None else {"lookback_days": lookback_days}

    def deploy(
        chain: Any,
        name: str,
        about: str,
        times: Sequence[str],
        active: bool = True,
        days: tuple[int, ...] | None = None,
        **given: Any,
    ) -> Any:
        from prefect.types.entrypoint import EntrypointType

        return chain.to_deployment(
            name=name,
            schedules=[_cron(at, chosen.data.calendar, active, days) for at in times],
            parameters=given,
            description=about,
            tags=["quantrail", chain.name],
            concurrency_limit=1,
            paused=paused,
            work_pool_name=pool,
            # By module, so that an installed package needs no checkout and a worker no particular folder.
            entrypoint_type=EntrypointType.MODULE_PATH,
        )

    research = "Ingest after the close, on sessions only; then features, then a paper session of what holds the alias paper."
    alone = (
        "The ingest alone, to be started by hand; the research chain begins with it. Switch its schedule on instead of the other's."
    )
    watch = "Tell what is late by then: log, Prefect event, webhook."
    tidy = "Compact the lake and delete what nothing names; every published snapshot is kept."
    return [
        deploy(daily_research_flow, "after-the-close", research, [chosen.daily.at], **parameters),
        deploy(daily_ingest_flow, "after-the-close", alone, [chosen.daily.at], active=False, **parameters),
        deploy(watch_data_flow, "watch", watch, chosen.daily.watch_at),
        deploy(maintain_flow, "weekly", tidy, [_MAINTENANCE_AT], days=(_SATURDAY,), apply=True),
    ]


def _cron(at: str, calendar: str, active: bool, days: tuple[int, ...] | None = None) -> Any:
    """A time of day in the exchange's zone, on given days of the week or those on which it trades; flows skip the holidays."""
    from prefect.schedules import Cron

    hour, minute = (int(part) for part in at.split(":"))
    weekdays = days or trading_weekdays(SystemClock().now().date(), calendar)
    listed = ",".join(str(day % 7) for day in weekdays)  # cron's Sunday is 0
    return Cron(f"{minute} {hour} * * {listed}", timezone=str(time_zone(calendar)), active=active)


def require_api(what: str) -> None:
    """Refuse to go on without a Prefect server.

    Raises
    ------
    InputError
        PREFECT_API_URL is not set.
    """
    if not api_configured():
        raise InputError(
            f"{what} needs a Prefect server, and PREFECT_API_URL is not set",
            remedy="start one with `quant ui`, then set PREFECT_API_URL to the address it prints",
        )


def apply_schedules(*, pool: str = POOL, lookback_days: int | None = None, paused: bool = False) -> list[str]:
    """Make or bring up to date deployments and vendor limits on the server, for workers of `pool`; return the full names.

    The pool is made when there is none; a limit that someone changed on the page is set back to the settings'
    (`data.requests_at_once`). Nothing runs until a worker does (`flows.worker.run_worker`).

    Raises
    ------
    InputError
        No Prefect server is set.
    """
    require_api("scheduling")
    _make_pool(pool)
    _limit_vendors(load_settings())
    made = deployments(lookback_days=lookback_days, paused=paused, pool=pool)
    for deployment in made:
        deployment.apply()
    return [f"{deployment.flow_name}/{deployment.name}" for deployment in made]


def vendor_limits(settings: Settings) -> dict[str, int]:
    """How many requests each source may be asked at the same time, by the tag its fetching tasks carry."""
    from flows.sources.base import DATASETS, source_names

    names = {name for dataset in DATASETS for name in source_names(dataset)}
    return {f"vendor:{name}": settings.data.requests_at_once for name in sorted(names)}


def _limit_vendors(settings: Settings) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for tag, limit in vendor_limits(settings).items():
            # Prefect keeps the limit of a tag under this name, and a task run with the tag takes a slot of it.
            client.upsert_global_concurrency_limit_by_name(f"tag:{tag}", limit)


def _make_pool(pool: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client:
        try:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(work_pool=WorkPoolCreate(name=pool, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            return


def serve_schedules(made: Sequence[RunnerDeployment] | None = None, *, limit: int = 2) -> None:
    """Run the scheduled deployments from this process until it is stopped; no work pool, no worker.

    Parameters
    ----------
    made : sequence of RunnerDeployment, optional
        Instead of `deployments()`.
    limit : int
        Runs at the same time.

    Raises
    ------
    InputError
        No Prefect server is set.
    """
    require_api("serving schedules")
    import prefect

    _limit_vendors(load_settings())

    # Not paused on the way out: a missed run starts when serving starts again, and is a catch-up of its own day.
    prefect.serve(*(made or deployments()), pause_on_shutdown=False, print_starting_message=False, limit=limit)
