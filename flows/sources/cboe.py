"""Cboe's own daily history of its volatility indices: VIX and its family, one CSV file an index.

1. `CboeIndices.bars` asks for ``<NAME>_History.csv``; the whole history comes each time, and what Cboe has revised since is a
   revision in the lake.
2. `_read` reads it: open, high, low and close, or one value a day (VVIX, SKEW, GVZ), which is then the close.
3. `_calendar_of` says by which calendar its days are sessions: VIX has values on holidays, VIX3M has none.
4. A bar is complete at 16:15 New York, when Cboe computes the closing value: later than the stock market's close.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from config.clock import Clock, SystemClock
from config.errors import InputError, SchemaError, ServiceError
from config.settings import Settings
from flows.sources.base import Answer, RefusedRow
from flows.sources.http import Reply, VendorClient

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["KNOWN_INDICES", "CboeIndices"]

SOURCE = "cboe"
ADDRESS = "https://cdn.cboe.com"
DATASET = "equity_bars"
OWN_CALENDAR, STOCK_CALENDAR = "CBOE", "XNYS"
KNOWN_INDICES = ("VIX", "VIX1D", "VIX9D", "VIX3M", "VIX6M", "VIX1Y", "VVIX", "SKEW", "VXN", "RVX", "VXD", "OVX", "GVZ")
_NAME = re.compile(r"[A-Z][A-Z0-9]{1,11}")
_COMPLETE_AT = time(16, 15)
_SATURDAY = 5
_NEW_YORK = ZoneInfo("America/New_York")
_PRICES = ("OPEN", "HIGH", "LOW", "CLOSE")
_Bar = tuple[date, tuple[float | None, ...]]  # session; open, high, low, close


class CboeIndices:
    """Daily bars of Cboe's volatility indices, as published (points; no volume).

    The files are the calendar: an index has a value on days on which the New York Stock Exchange is closed, and a value that came
    on a weekday is never refused for its date. Rows that break the order of high and low are the publisher's own; they are stored
    and flagged.

    Parameters
    ----------
    settings : Settings
    clock : Clock, optional
        Says which bar is not complete yet; the vendor's Date header where it is left out.
    """

    name = SOURCE
    names_per_request = 1
    incremental = False  # the whole history is one file

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self._client = VendorClient(SOURCE, ADDRESS, settings)
        self._clock = clock

    def available(self) -> None:
        """Cboe computes more indices than it lists files of."""
        return

    def bars(self, symbols: Sequence[str], start: date | None = None, end: date | None = None) -> Iterator[Answer]:
        """One answer an index, sessions from `start` to `end`, both included.

        Raises
        ------
        InputError
            A symbol is no index name.
        ServiceUnavailable, RateLimited, ServiceError
            No answer or a refusal.
        SchemaError
            The file has other columns.
        """
        for symbol in symbols:
            if not _NAME.fullmatch(symbol):
                raise InputError(f"{symbol!r} is no index of Cboe", remedy=f"such as {', '.join(KNOWN_INDICES)}")
        for symbol in symbols:
            yield self._answer(symbol, start, end)

    def _answer(self, symbol: str, start: date | None, end: date | None) -> Answer:
        path = f"api/global/us_indices/daily_prices/{symbol}_History.csv"
        reply = self._client.get(path, expect=("csv", "text/plain", "octet-stream"), allow=(403, 404))
        missing: dict[str, str] = {}
        kept: list[_Bar] = []
        refused: list[RefusedRow] = []
        notes: tuple[str, ...] = ()
        calendar = STOCK_CALENDAR
        if reply.status in (403, 404):
            missing[symbol] = _not_there(symbol, reply)
        else:
            found, refused = _read(symbol, reply)
            calendar = _calendar_of([day for day, _ in found])
            now = self._now(reply)
            inside = [bar for bar in found if (start is None or bar[0] >= start) and (end is None or bar[0] <= end)]
            kept = [bar for bar in inside if _complete(bar[0]) <= now]
            if len(kept) < len(inside):
                notes = (f"{symbol}: the value of {inside[-1][0]} is not final before 16:15 New York and was left out",)
        return Answer(
            source=SOURCE,
            dataset=DATASET,
            origin=reply.origin,
            request={"symbol": symbol, "start": start, "end": end},
            payload=reply.body,
            rows=_table(symbol, kept, calendar),
            names=() if missing else (symbol,),
            refused=tuple(refused),
            missing=missing,
            notes=notes,
        )

    def _now(self, reply: Reply) -> datetime:
        if self._clock is not None:
            return self._clock.now()
        return reply.answered_at or SystemClock().now()


def _not_there(symbol: str, reply: Reply) -> str:
    """Why there is no file; a refusal that says something else is an error.

    Raises
    ------
    ServiceError
        The file of an index that Cboe publishes is refused, or the refusal is not the storage's own.
    """
    unknown = reply.status == 404 or b"AccessDenied" in reply.body  # the storage's answer for a name that it does not hold
    if symbol in KNOWN_INDICES or not unknown:
        raise ServiceError(
            f"{reply.origin} answered {reply.status}, and Cboe publishes {symbol}"
            if symbol in KNOWN_INDICES
            else f"{reply.origin} answered {reply.status}: the request was refused",
            remedy="look whether the file has moved, or try again later",
        )
    return f"Cboe has no file of {symbol} ({reply.status})"


def _read(symbol: str, reply: Reply) -> tuple[list[_Bar], list[RefusedRow]]:
    """The file's rows; one that cannot be read is refused, with its line.

    Raises
    ------
    SchemaError
        The columns are neither DATE, OPEN, HIGH, LOW, CLOSE nor DATE and one value.
    """
    reader = csv.reader(io.StringIO(reply.body.decode("utf-8-sig", "replace")))
    header = [name.strip().upper() for name in next(reader, [])]
    single = len(header) == 2 and header[0] == "DATE"
    if not single and header != ["DATE", *_PRICES]:
        raise SchemaError(
            f"{reply.origin} has the columns {', '.join(header) or 'of an empty file'}, "
            "not DATE, OPEN, HIGH, LOW, CLOSE nor DATE and one value",
            remedy="Cboe may have changed the file, or the answer is another page",
        )
    found: list[_Bar] = []
    refused: list[RefusedRow] = []
    for line in reader:
        if not any(cell.strip() for cell in line):
            continue
        rule, why = "wrong_type", ""
        try:
            if len(line) != len(header):
                raise ValueError(f"{len(line)} cells, not {len(header)}")
            day = _day(line[0].strip())
            values = tuple(_number(name, cell) for name, cell in zip(header[1:], line[1:], strict=True))
            if day.weekday() >= _SATURDAY:
                rule, why = "not_a_session", f"{day} is a {day:%A}"
        except ValueError as problem:
            why = str(problem)
        if why:
            raw = dict(zip(header, line, strict=False))
            refused.append(RefusedRow(symbol=symbol, rule=rule, reason=f"line {reader.line_num}: {why}", raw=raw))
        else:
            found.append((day, (None, None, None, *values) if single else values))
    return found, refused


def _day(text: str) -> date:
    """Cboe writes 01/02/1990; copies of its files write 1990-01-02."""
    return datetime.strptime(text, "%m/%d/%Y").date() if "/" in text else date.fromisoformat(text)


def _number(name: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, not a number") from None


def _complete(session: date) -> datetime:
    return datetime.combine(session, _COMPLETE_AT, _NEW_YORK).astimezone(UTC)


def _calendar_of(days: Sequence[date]) -> str:
    """The calendar that an index follows, by its whole history: its own where it has values while the stock exchange is closed."""
    from config.calendar import sessions

    if not days:
        return STOCK_CALENDAR
    open_days = set(sessions(min(days), max(days), STOCK_CALENDAR).date)
    return STOCK_CALENDAR if open_days.issuperset(days) else OWN_CALENDAR


def _table(symbol: str, bars: Sequence[_Bar], calendar: str) -> pa.Table:
    import numpy as np
    import pandas as pd

    from flows.sources.shape import table_of

    moments = pd.DatetimeIndex([_complete(day) for day, _ in bars], tz="UTC")
    columns: dict[str, Any] = {
        "symbol": symbol,
        "interval": "1d",
        "event_time": moments,
        "available_at": moments,
        "source": SOURCE,
        "session": [day for day, _ in bars],
        "volume": None,
        "basis": "as_traded",
        "currency": "USD",
        "calendar": calendar,
    }
    for at, name in enumerate(("open", "high", "low", "close")):
        columns[name] = np.array([values[at] for _, values in bars], dtype=np.float64)
    return table_of(DATASET, columns, len(bars))
