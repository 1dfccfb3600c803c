"""The CFTC's Commitments of Traders: six reports, from the public reporting tables or from the yearly files.

1. `CftcPositions.positions` asks for one market at a time (``via="api"``, paged) or for whole years (``via="files"``).
2. `_columns` finds each category's columns whatever the file calls them; `_rows` makes a row a category.
3. `_available` says when a report became public: by `cot_calendar.published`, never later than it was seen, and not before it was
   seen where it had been looked for in vain after the day that was scheduled.
"""

from __future__ import annotations

import bisect
import csv
import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

from config.clock import Clock, SystemClock
from config.errors import InputError, SchemaError, ServiceUnavailable
from config.settings import Settings
from flows.sources.base import Answer, RefusedRow
from flows.sources.cot_calendar import NEW_YORK, published
from flows.sources.cot_reports import Report, normal, report_of
from flows.sources.http import Reply, VendorClient, moment_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CftcPositions", "Looked"]

SOURCE = "cftc"
DATASET = "cot_positions"
TABLES_ADDRESS = "https://publicreporting.cftc.gov"
FILES_ADDRESS = "https://www.cftc.gov"
_MARKET = re.compile(r"[0-9A-Z+]{2,8}")
_DATES = ("report_date_as_yyyy_mm_dd", "as_of_date_in_form_yyyy_mm_dd", "report_date_as_mm_dd_yyyy")
_MARKET_COLUMN = "cftc_contract_market_code"
_BROKEN = "line"  # in place of the columns of a line that does not fit them
_SIX_DIGITS = "as_of_date_in_form_yymmdd"
_LONG_AGO, _FAR_OFF = date(1900, 1, 1), date(2100, 1, 1)  # years that the tables' SQL takes
_MISSING = frozenset({"", "."})


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
class _Columns:
    """Where an answer keeps what: names as they came. A missing one is None."""

    market: str
    name: str
    day: str
    open_interest: str
    numbers: tuple[tuple[str, tuple[str | None, ...]], ...]  # category -> long, short, spreading and the three trader counts


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
            yield self._answer(reply, request, *_named(found), (market,), start, end)
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
            yield self._answer(reply, request, *_lines(reply, frozenset(markets)), markets, start, end)

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
        columns = _columns(self._report, header, reply.origin, traders_needed=self._via == "files") if header else None
        table, refused = ([], []) if columns is None else _rows(self._report, columns, rows, frozenset(markets), start, end)
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


def _named(rows: Sequence[Mapping[str, Any]]) -> tuple[frozenset[str], list[dict[str, Any]]]:
    """Column names in one spelling, and rows of the public tables under them. A row lacks the columns it has no value for."""
    named = [{normal(name): value for name, value in row.items()} for row in rows]
    return frozenset().union(*named), named


def _lines(reply: Reply, markets: frozenset[str]) -> tuple[frozenset[str], list[dict[str, str]]]:
    """Column names in one spelling, and under them the lines about `markets` in the one text file of a ZIP.

    Raises
    ------
    ServiceUnavailable
        It is no ZIP, half of one, or not one file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
            texts = [name for name in archive.namelist() if name.lower().endswith(".txt")]
            if len(texts) != 1:
                raise ServiceUnavailable(f"{reply.origin} holds {len(texts)} text files ({', '.join(archive.namelist())}), not one")
            with archive.open(texts[0]) as unpacked:  # a line at a time: thirty years of all markets are 200 MB
                reader = csv.reader(io.TextIOWrapper(unpacked, encoding="latin-1", newline=""))
                header = [normal(name) for name in next(reader, [])]
                at = header.index(_MARKET_COLUMN) if _MARKET_COLUMN in header else None
                lines = [] if at is None else [line for line in reader if len(line) > at and line[at].strip() in markets]
    except (zipfile.BadZipFile, zlib.error, EOFError, csv.Error) as problem:
        raise ServiceUnavailable(f"{reply.origin} is no whole ZIP file: {problem}", remedy="run the same command again") from None
    return frozenset(header or [""]), [
        dict(zip(header, line, strict=True))
        if len(line) == len(header)
        else {_MARKET_COLUMN: line[at or 0], _BROKEN: ",".join(line)}
        for line in lines
    ]


def _columns(report: Report, known: frozenset[str], origin: str, *, traders_needed: bool) -> _Columns:
    """Find the columns; those of all months are called ``…_all`` or, where the table cut the word off, just so.

    The public tables leave a column out of an answer in which no row has a value for it: trader counts may be absent there.

    Raises
    ------
    SchemaError
        A column that every row needs is not there.
    """

    def find(*names: str) -> str | None:
        return next((spelled for name in names for spelled in (f"{name}_all", name) if spelled in known), None)

    def needed(*names: str) -> str:
        found = find(*names)
        if found is None:
            raise SchemaError(
                f"{origin} has no column {names[0]} of the report {report.name}",
                remedy="the CFTC may have changed the file; its columns are listed on cftc.gov under Explanatory Notes",
            )
        return found

    numbers = []
    for category in report.categories:
        positions = [needed(*(f"{begin}_positions_{side}" for begin in category.columns)) for side in ("long", "short")]
        spread = needed(*(f"{begin}_positions_spread" for begin in category.columns)) if category.spreading else None
        counts: list[str | None] = [None, None, None]
        if category.traders:
            sides = ("long", "short", "spread") if category.spreading else ("long", "short")
            named = needed if traders_needed else find
            counts = [*(named(*(f"traders_{begin}_{side}" for begin in category.columns)) for side in sides), None][:3]
        numbers.append((category.name, (*positions, spread, *counts)))
    day = next((name for name in (*_DATES, _SIX_DIGITS) if name in known), None)
    return _Columns(
        market=needed(_MARKET_COLUMN),
        name=needed("market_and_exchange_names"),
        day=day or needed(_DATES[0]),
        open_interest=needed("open_interest"),
        numbers=tuple(numbers),
    )


_Row = tuple[str, str, date, str, list[float | None]]  # market, its name, as-of date, category, open interest and six numbers


def _rows(
    report: Report,
    columns: _Columns,
    rows: Sequence[Mapping[str, Any]],
    markets: frozenset[str],
    start: date | None,
    end: date | None,
) -> tuple[list[_Row], list[RefusedRow]]:
    """One row a category of each line that was asked for; a line that cannot be read is refused whole."""
    found: list[_Row] = []
    refused: list[RefusedRow] = []
    for line in rows:
        market = str(line.get(columns.market, "")).strip()
        if market not in markets:
            continue
        try:
            if _BROKEN in line:
                raise ValueError("the line has not as many cells as the header")
            day = _day(str(line.get(columns.day, "")).strip(), columns.day)
            if (start and day < start) or (end and day > end):
                continue
            interest = _number(line, columns.open_interest)
            numbers = [(category, [interest, *(_number(line, name) for name in of)]) for category, of in columns.numbers]
        except ValueError as problem:
            reason = f"{report.name}, market {market}, {line.get(columns.day)}: {problem}"
            refused.append(RefusedRow(symbol=market, rule="wrong_type", reason=reason, raw=dict(line)))
            continue
        name = str(line.get(columns.name, "")).strip()
        found.extend((market, name, day, category, values) for category, values in numbers)
    return found, refused


def _number(line: Mapping[str, Any], column: str | None) -> float | None:
    text = "" if column is None else str(line.get(column, "")).strip()
    if text in _MISSING:
        return None
    try:
        return float(int(text))  # contracts and traders are counted
    except ValueError:
        raise ValueError(f"{column} is {text!r}, not a whole number") from None


def _day(text: str, column: str) -> date:
    try:
        if column == _SIX_DIGITS:
            return datetime.strptime(text, "%y%m%d").date()
        if "/" in text:
            return datetime.strptime(text.split()[0], "%m/%d/%Y").date()
        return date.fromisoformat(text[:10])
    except (ValueError, IndexError):
        raise ValueError(f"{column} is {text!r}, not a date") from None


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


def _table(report: Report, rows: Sequence[_Row], seen: _Seen, looked: Mapping[str, Sequence[Looked]]) -> pa.Table:
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
