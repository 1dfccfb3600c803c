"""Ingest Commitments of Traders: ask for a report of some markets, keep the bytes, store it with its moment of publication.

1. `_looked` reads from the lake when each market's report was asked for before: one that was to be public by then and is not
   stored was not there, and counts from the moment at which it is seen.
2. `flows.ingest.ingest` asks the sources, stores, and publishes a snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from config.clock import Clock, SystemClock
from config.orchestration import flow
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from flows.ingest import TIMEOUT_SECONDS, Window, as_names, as_window, final_state, ingest, make_sources, run_words
from flows.ingest_report import IngestReport
from flows.sources.base import Answer, PositionSource

if TYPE_CHECKING:
    from flows.sources.cftc import Looked
    from lake.store import Lake

__all__ = ["ingest_cot_flow"]

_NOT_YET = timedelta(days=2)  # a report is never public so soon after its date: a window that ends there asks for all there is


@runtime_checkable
class _Watches(Protocol):
    """A source whose reports come at moments that nobody may have announced."""

    name: str
    report: str

    def watch(self, clock: Clock, looked: Mapping[str, Sequence[Looked]]) -> None: ...


@flow(
    name="ingest-cot",
    description="Ask for Commitments of Traders, keep the bytes, store good rows with their publication, publish a snapshot",
    timeout_seconds=TIMEOUT_SECONDS,
    run_name=lambda given: run_words(given["markets"], "markets", (given["start_date"], given["end_date"]), given["source"]),
    withheld=("settings", "progress", "clock"),
)
def ingest_cot_flow(
    markets: str | Sequence[str] | None = None,
    start_date: date | str | None = None,
    end_date: date | str | None = None,
    *,
    source: str | None = None,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
    **source_options: Any,
) -> IngestReport:
    """Ingest Commitments of Traders of `markets`, as of dates from `start_date` to `end_date`, both included.

    Parameters
    ----------
    markets : str or sequence of str
        Contract market codes of the CFTC: ``001602`` is wheat, ``13874A`` the E-mini S&P 500.
    start_date, end_date : date or str, optional
        As-of dates (Tuesdays, as a rule).
    source : str, optional
        Instead of those in the settings (``data.cot``), which are asked in order.
    **source_options
        The source's own: ``report`` (legacy_futures, tff_combined, …) and ``via`` (api, files) for cftc.

    Returns
    -------
    IngestReport

    Raises
    ------
    UnknownNameError
        There is no such source.
    InputError
        A date, a market or an option is wrong, or no market is named.
    DataError, ServiceError
        Every request failed; nothing was written.
    """
    from lake import open_lake

    chosen = settings or load_settings()
    first, last = as_window(start_date, end_date)
    names = as_names(markets, "markets")
    lake, now = open_lake(chosen), clock or SystemClock()
    sources, left_out = make_sources((source,) if source else chosen.data.cot, "cot", chosen, source_options)
    for one in sources:
        if isinstance(one, _Watches):
            one.watch(now, _looked(lake, one.name, one.report))

    def ask(of: PositionSource, block: Sequence[str], since: date | None, until: date | None) -> Iterator[Answer]:
        return of.positions(block, since, until)

    report = ingest(
        "cot",
        names,
        sources,
        ask,
        lake=lake,
        clock=now,
        progress=progress,
        window=Window(start=first, end=last, full=True),
        notes=left_out,
    )
    return cast("IngestReport", final_state(report))


def _looked(lake: Lake, source: str, report: str) -> dict[str, list[Looked]]:
    """Of each market: when its report was asked for before, and from which as-of date on."""
    from flows.sources.cftc import Looked

    found: dict[str, list[Looked]] = {}
    whole = ["completed", "completed with refusals", "unchanged"]  # not one that was cut off while its rows were being stored
    where = {"source": source, "dataset": "cot_positions", "outcome": whole}
    for run in lake.read_latest("ingest_runs", where=where, columns=["started_at", "request"]).to_pylist():
        asked = json.loads(run["request"])
        start, end = (None if asked.get(name) is None else date.fromisoformat(asked[name]) for name in ("start", "end"))
        if asked.get("report") != report or (end is not None and end < run["started_at"].date() - _NOT_YET):
            continue
        for market in asked.get("markets", ()):
            found.setdefault(market, []).append(Looked(at=run["started_at"], start=start))
    return found
