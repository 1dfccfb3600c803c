"""Ingest Commitments of Traders: ask for a report of some markets, keep the bytes, store it with its moment of publication.

1. `_looked` reads from the lake when each market's report was last asked for, and what was the newest then: a report that comes
   later than scheduled was not public before it was seen.
2. `flows.ingest.ingest` asks the sources, stores, and publishes a snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from config.clock import Clock, SystemClock
from config.orchestration import flow
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from flows.ingest import TIMEOUT_SECONDS, as_names, as_window, ingest, run_words
from flows.ingest_report import IngestReport
from flows.sources.base import Answer, PositionSource, get_source

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

    def watch(self, clock: Clock, looked: Mapping[str, Looked]) -> None: ...


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
    sources = [get_source(one, "cot", chosen, **source_options) for one in ((source,) if source else chosen.data.cot)]
    for one in sources:
        if isinstance(one, _Watches):
            one.watch(now, _looked(lake, one.name, one.report, names or ()))

    def ask(of: PositionSource, block: Sequence[str]) -> Iterator[Answer]:
        return of.positions(block, first, last)

    return ingest("cot", names, sources, ask, lake=lake, clock=now, progress=progress, calendar=chosen.data.calendar)


def _looked(lake: Lake, source: str, report: str, markets: Sequence[str]) -> dict[str, Looked]:
    """Of each market: when its newest report was last asked for, and the newest as-of date that is stored."""
    from flows.sources.cftc import Looked

    at: dict[str, Any] = {}
    where = {"source": source, "dataset": "cot_positions"}
    for run in lake.read_latest("ingest_runs", where=where, columns=["started_at", "request"]).to_pylist():
        asked = json.loads(run["request"])
        end = asked.get("end")
        if asked.get("report") != report or (end is not None and date.fromisoformat(end) < run["started_at"].date() - _NOT_YET):
            continue
        for market in asked.get("markets", ()):
            at[market] = max(run["started_at"], at.get(market, run["started_at"]))
    newest: dict[str, date] = {}
    wanted = [market for market in markets if market in at]
    if wanted:
        where_rows = {"source": source, "report": report, "market_code": wanted}
        for row in lake.read_latest("cot_positions", where=where_rows, columns=["market_code", "as_of_date"]).to_pylist():
            newest[row["market_code"]] = max(row["as_of_date"], newest.get(row["market_code"], row["as_of_date"]))
    return {market: Looked(newest=day, at=at[market]) for market, day in newest.items()}
