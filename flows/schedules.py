"""What runs by itself, and when: deployments in code, on New York time, guarded by the exchange's calendar.

1. `daily_ingest_flow` takes its as-of date from the start it was scheduled for, skips days without a session (`closed`), and
   ingests every dataset; so a run that starts late is a catch-up of its own day, and one that starts twice adds nothing.
2. `deployments` lists what is scheduled: the daily research chain (flows/daily.py), whose first part the ingest is, and the
   ingest alone, its schedule switched off. `serve_schedules` runs it in this process, `apply_schedules` leaves it to workers.
3. `apply_schedules` also puts one concurrency limit a vendor on the server (`vendor_limits`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from config.calendar import is_session
from config.clock import Clock, SystemClock
from config.errors import InputError, QuantError
from config.orchestration import api_configured, flow, inside_flow_run
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from flows.ingest import as_day
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_macro import ingest_macro_flow
from flows.ingest_report import IngestReport

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

__all__ = [
    "POOL",
    "DailyIngest",
    "apply_schedules",
    "closed",
    "daily_ingest_flow",
    "deployments",
    "require_api",
    "scheduled_day",
    "serve_schedules",
    "skipped_state",
    "vendor_limits",
]

POOL = "quantrail"
NEW_YORK = ZoneInfo("America/New_York")
# Weekdays at 18:30 New York: the session has been over for two and a half hours, and the evening's releases are out.
DAILY = "30 18 * * 1-5"


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
    description="Ingest equity bars and macro series up to one session",
    run_name=lambda given: f"ingest of {as_day(given['as_of'], 'as_of') or scheduled_day(SystemClock())}",
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
    """Ingest equity bars and macro series up to one session.

    Parameters
    ----------
    as_of : date or str, optional
        None: the New York date of the start this run was scheduled for; called by hand, of now.
    symbols, series : sequence of str, optional
        None: all that the sources have.
    lookback_days : int, optional
        How many days before `as_of` are fetched again, to meet revisions; None: everything.

    Returns
    -------
    DailyIngest
        On a day without a session nothing is done; inside Prefect the run then ends as *Skipped*.

    Raises
    ------
    QuantError
        A dataset failed. The others were ingested first.
    """
    chosen = settings or load_settings()
    day = as_day(as_of, "as_of") or scheduled_day(clock or SystemClock())
    reason = closed(day, chosen.data.calendar)
    if reason is not None:
        skipped = DailyIngest(as_of=day, skipped=reason)
        return skipped_state(skipped, reason) if inside_flow_run() else skipped
    start = None if lookback_days is None else day - timedelta(days=lookback_days)
    shared: dict[str, Any] = {"settings": chosen, "progress": progress, "clock": clock}
    stages: tuple[Callable[[], IngestReport], ...] = (
        lambda: ingest_equity_flow(symbols, start, day, **shared),
        lambda: ingest_macro_flow(series=series, start_date=start, end_date=day, **shared),
    )
    reports: list[IngestReport] = []
    failures: list[QuantError] = []
    for stage in stages:
        try:
            reports.append(stage())
        except QuantError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
    return DailyIngest(as_of=day, reports=tuple(reports))


def scheduled_day(clock: Clock) -> date:
    """The New York date this run stands for: of its scheduled start, so that a run made up for later is about its own day."""
    if inside_flow_run():
        from prefect.runtime import flow_run

        planned = flow_run.scheduled_start_time
        if planned is not None:
            return datetime.fromisoformat(str(planned)).astimezone(NEW_YORK).date()
    return clock.now().astimezone(NEW_YORK).date()


def closed(day: date, calendar: str) -> str | None:
    """Why there is nothing to do on that day; None when there is."""
    return None if is_session(day, calendar) else f"{day} is not a session of {calendar}"


def skipped_state(result: object, reason: str) -> Any:
    from prefect.states import Completed

    return Completed(name="Skipped", message=reason, data=result)


def deployments(
    *, schedule: str = DAILY, lookback_days: int | None = None, paused: bool = False, pool: str | None = None
) -> list[RunnerDeployment]:
    """The deployments, each with its schedule.

    Parameters
    ----------
    schedule : str
        Cron, New York time.
    paused : bool
        Made, but not started by the clock.
    pool : str, optional
        The work pool whose workers run them.
    """
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.daily import daily_research_flow

    def deploy(chain: Any, about: str, tag: str, active: bool) -> Any:
        return chain.to_deployment(
            name="after-the-close",
            schedule=Cron(schedule, timezone="America/New_York", active=active),
            parameters={} if lookback_days is None else {"lookback_days": lookback_days},
            description=about,
            tags=["quantrail", tag],
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
    return [deploy(daily_research_flow, research, "research", True), deploy(daily_ingest_flow, alone, "ingest", False)]


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


def apply_schedules(
    *, pool: str = POOL, schedule: str = DAILY, lookback_days: int | None = None, paused: bool = False
) -> list[str]:
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
    made = deployments(schedule=schedule, lookback_days=lookback_days, paused=paused, pool=pool)
    for deployment in made:
        deployment.apply()
    return [f"{deployment.flow_name}/{deployment.name}" for deployment in made]


def vendor_limits(settings: Settings) -> dict[str, int]:
    """How many requests each source may be asked at the same time, by the tag its fetching tasks carry."""
    from flows.sources.base import source_names

    names = {name for dataset in ("equity", "macro", "options") for name in source_names(dataset)}
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
