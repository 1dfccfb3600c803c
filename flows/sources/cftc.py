"""The CFTC's Commitments of Traders: six reports, from the public reporting tables or from the yearly files.

1. `CftcPositions.positions` asks for one market at a time (``via="api"``, paged) or for whole years (``via="files"``).
2. `columns_of` and `read_rows` (`cot_rows`) make a row a category.
3. `_available` says when a report became public: by `cot_calendar.published`, never later than it was seen, and not before it was
   seen where it had been looked for in vain after the day that was scheduled.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

from config.clock import Clock, SystemClock
from config.errors import InputError, ServiceUnavailable
from config.settings import Settings
from flows.sources.base import Answer
from flows.sources.cot_calendar import NEW_YORK, published
from flows.sources.cot_reports import Report, report_of
from flows.sources.cot_rows import CotRow, columns_of, lines_of_zip, read_rows, rows_of_tables
from flows.sources.http import Reply, VendorClient, moment_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CftcPositions", "Looked"]

SOURCE = "cftc"
DATASET = "cot_positions"
TABLES_ADDRESS = "https://publicreporting.cftc.gov"
FILES_ADDRESS = "https://www.cftc.gov"
_MARKET = re.compile(r"[0-9A-Z+]{2,8}")
_LONG_AGO, _FAR_OFF = date(1900, 1, 1), date(2100, 1, 1)  # years that the tables' SQL takes


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """An earlier ingest of a market's report: what was there then is stored.

    Parameters
    ----------
    at : datetime
        When it looked, aware.
    start : date or None
        From which as-of date on.
    """

    at: datetime
    start: date | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """When an answer came, and when the CFTC says it last changed what it answers with."""

    now: datetime
    changed: datetime | None


class CftcPositions:
    """Positions by category of traders, in contracts.

    Parameters
    ----------
    settings : Settings
        `data.addresses` may name another base address for ``cftc``, of whichever of the two ways is used.
    report : str
        legacy, disaggregated or tff, with _futures or _combined behind it.
    via : {"api", "files"}
        The public reporting tables, one request a market; or the yearly ZIP files, which hold every market.
    page_rows : int
        Rows a page of the public tables.
    """

    name = SOURCE
    incremental = False

    def __init__(
        self,
        settings: Settings,
        *,
        report: str = "legacy_futures",
        via: Literal["api", "files"] = "api",
        page_rows: int = 1_000_000,
    ) -> None:
        self._report = report_of(report)
        if via not in ("api", "files"):
            raise InputError(f"via {via!r} is no way to the CFTC", remedy="use api or files")
        if page_rows < 1:
            raise InputError(f"page_rows {page_rows} is no size of a page")
        self._via = via
        self._page_rows = page_rows
        self._client = VendorClient(SOURCE, TABLES_ADDRESS if via == "api" else FILES_ADDRESS, settings)
        self._clock: Clock = SystemClock()
        self._looked: dict[str, tuple[Looked, ...]] = {}

    @property
    def report(self) -> str:
        """The report's name, as stored."""
        return self._report.name

    @property
    def names_per_request(self) -> int | None:
        """One market a request of the tables; the files hold all."""
        return 1 if self._via == "api" else None

    def available(self) -> None:
        """There are some hundreds of markets, listed nowhere but in the reports."""
        return

    def watch(self, clock: Clock, looked: Mapping[str, Sequence[Looked]]) -> None:
        """Say what time it is, and when each market was looked for before, for reports that come when nobody said."""
        self._clock = clock
        self._looked = {market: tuple(times) for market, times in looked.items()}

    def positions(self, markets: Sequence[str], start: date | None = None, end: date | None = None) -> Iterator[Answer]:
        """Positions in `markets` as of dates from `start` to `end`, both included.

        Raises
        ------
        InputError
            A market is no contract market code.
        ServiceUnavailable, RateLimited, ServiceError
            No answer, a broken one, or a refused request.
        SchemaError
            The answer lacks a column.
        """
        for market in markets:
            if not _MARKET.fullmatch(market):
                raise InputError(
                    f"{market!r} is no contract market code of the CFTC", remedy="such as 001602 (wheat) or 13874A (E-mini S&P 500)"
                )
        if self._via == "files":
            yield from self._from_files(tuple(markets), start, end)
            return
        for market in markets:
            yield from self._from_tables(market, start, end)

    def _from_tables(self, market: str, start: date | None, end: date | None) -> Iterator[Answer]:
        where = f"cftc_contract_market_code='{market}'"
        if start or end:
            where = f"Report_Date_as_YYYY_MM_DD between '{start or _LONG_AGO}' AND '{end or _FAR_OFF}' AND {where}"
        offset = 0
        while True:
            params = {
                "$where": where,
                "$order": "Report_Date_as_YYYY_MM_DD ASC",
                "$limit": self._page_rows,
                "$offset": offset or None,
            }
            reply = self._client.get(f"resource/{self._report.table}.json", params)
            found = reply.json()
            if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
                raise ServiceUnavailable(f"{reply.origin} did not answer with a list of rows", remedy="run the same command again")
            request = {"report": self.report, "markets": [market], "start": start, "end": end, "via": "api", "offset": offset}
            yield self._answer(reply, request, *rows_of_tables(found), (market,), start, end)
            offset += len(found)
            if len(found) < self._page_rows:
                return

    def _from_files(self, markets: tuple[str, ...], start: date | None, end: date | None) -> Iterator[Answer]:
        today = self._clock.now().astimezone(NEW_YORK).date()
        last = min(end, today) if end else today
        for file, year in self._report.files(start.year if start else None, last.year):
            newest = year >= today.year  # its file comes with the year's first report
            reply = self._client.get(f"files/dea/history/{file}", expect=("zip", "octet-stream"), allow=(404,) if newest else ())
            request = {"report": self.report, "markets": list(markets), "start": start, "end": end, "via": "files", "file": file}
            if reply.status == 404:
                yield self._answer(reply, request, frozenset(), (), (), start, end, note=f"the CFTC has no {file} yet")
                continue
            yield self._answer(reply, request, *lines_of_zip(reply, frozenset(markets)), markets, start, end)

    def _answer(
        self,
        reply: Reply,
        request: Mapping[str, Any],
        header: frozenset[str],
        rows: Sequence[Mapping[str, Any]],
        markets: tuple[str, ...],
        start: date | None,
        end: date | None,
        *,
        note: str = "",
    ) -> Answer:
        seen = _Seen(self._clock.now(), moment_of(reply.headers.get("last-modified")))
        columns = columns_of(self._report, header, reply.origin, traders_needed=self._via == "files") if header else None
        table, refused = ([], []) if columns is None else read_rows(self._report, columns, rows, frozenset(markets), start, end)
        return Answer(
            source=SOURCE,
            dataset=DATASET,
            origin=reply.origin,
            request=request,
            payload=reply.body,
            rows=_table(self._report, table, seen, self._looked),
            names=markets,
            refused=tuple(refused),
            notes=(note,) if note else (),
        )


class _Looks:
    """The earlier ingests of one market's report: when it was looked for last, from an as-of date on."""

    def __init__(self, looked: Sequence[Looked]) -> None:
        by_start = sorted((one.start or date.min, one.at) for one in looked)
        self._starts = [start for start, _ in by_start]
        self._newest = list(itertools.accumulate((at for _, at in by_start), max))

    def last(self, as_of: date) -> datetime | None:
        """The last moment at which a report as of that date would have been found; None: nobody has looked."""
        place = bisect.bisect_right(self._starts, as_of)
        return self._newest[place - 1] if place else None


def _available(as_of: date, seen: _Seen, looks: _Looks) -> datetime:
    """The moment from which a report that is not stored yet counts as public.

    Where the calendar names a moment it counts, but never later than the report was seen. Where it names none, or where an earlier
    ingest looked after that moment and did not find the report, only that it is there now is sure: it came with the CFTC's last
    change, if that lies after the last look, and is dated by it or by now.
    """
    by_calendar, last = published(as_of), looks.last(as_of)
    if by_calendar is not None and (last is None or by_calendar > last):
        return min(by_calendar, seen.now)
    if seen.changed is None or seen.changed > seen.now or (last is not None and seen.changed <= last):
        return seen.now
    return seen.changed if seen.changed.date() > as_of else seen.now


def _table(report: Report, rows: Sequence[CotRow], seen: _Seen, looked: Mapping[str, Sequence[Looked]]) -> pa.Table:
    import pandas as pd

    from flows.sources.shape import table_of

    looks = {market: _Looks(looked.get(market, ())) for market in {row[0] for row in rows}}
    moments = {(row[0], row[2]): _available(row[2], seen, looks[row[0]]) for row in rows}
    numbers = ("open_interest", "long", "short", "spreading", "traders_long", "traders_short", "traders_spreading")
    columns: dict[str, Any] = {
        "report": report.name,
        "market_code": [row[0] for row in rows],
        "as_of_date": [row[2] for row in rows],
        "category": [row[3] for row in rows],
        "source": SOURCE,
        "market_name": [row[1] for row in rows],
        "available_at": pd.DatetimeIndex([moments[row[0], row[2]].astimezone(UTC) for row in rows], tz="UTC"),
    }
    columns.update({name: [row[4][at] for row in rows] for at, name in enumerate(numbers)})
    return table_of(DATASET, columns, len(rows))
