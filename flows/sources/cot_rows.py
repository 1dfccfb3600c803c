"""Reads the lines of the CFTC's files and the rows of its public tables: one row a category of traders.

1. `rows_of_tables` and `lines_of_zip` give column names in one spelling, and what stands under them.
2. `columns_of` finds each category's columns, whatever the file calls them.
3. `read_rows` makes a row a category of each line; a line that cannot be read is refused whole.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from config.errors import SchemaError, ServiceUnavailable
from flows.sources.base import RefusedRow
from flows.sources.cot_reports import Report, normal
from flows.sources.http import Reply

__all__ = ["Columns", "CotRow", "columns_of", "lines_of_zip", "read_rows", "rows_of_tables"]

_DATES = ("report_date_as_yyyy_mm_dd", "as_of_date_in_form_yyyy_mm_dd", "report_date_as_mm_dd_yyyy")
_MARKET_COLUMN = "cftc_contract_market_code"
_BROKEN = "line"  # in place of the columns of a line that does not fit them
_SIX_DIGITS = "as_of_date_in_form_yymmdd"
_MISSING = frozenset({"", "."})


@dataclass(frozen=True, slots=True)
class Columns:
    """Where an answer keeps what: names as they came. A missing one is None."""

    market: str
    name: str
    day: str
    open_interest: str
    numbers: tuple[tuple[str, tuple[str | None, ...]], ...]  # category -> long, short, spreading and the three trader counts


def rows_of_tables(rows: Sequence[Mapping[str, Any]]) -> tuple[frozenset[str], list[dict[str, Any]]]:
    """Column names in one spelling, and rows of the public tables under them. A row lacks the columns it has no value for."""
    named = [{normal(name): value for name, value in row.items()} for row in rows]
    return frozenset().union(*named), named


def lines_of_zip(reply: Reply, markets: frozenset[str]) -> tuple[frozenset[str], list[dict[str, str]]]:
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


def columns_of(report: Report, known: frozenset[str], origin: str, *, traders_needed: bool) -> Columns:
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
    return Columns(
        market=needed(_MARKET_COLUMN),
        name=needed("market_and_exchange_names"),
        day=day or needed(_DATES[0]),
        open_interest=needed("open_interest"),
        numbers=tuple(numbers),
    )


CotRow = tuple[str, str, date, str, list[float | None]]  # market, its name, as-of date, category, open interest and six numbers


def read_rows(
    report: Report,
    columns: Columns,
    rows: Sequence[Mapping[str, Any]],
    markets: frozenset[str],
    start: date | None,
    end: date | None,
) -> tuple[list[CotRow], list[RefusedRow]]:
    """One row a category of each line that was asked for; a line that cannot be read is refused whole."""
    found: list[CotRow] = []
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
