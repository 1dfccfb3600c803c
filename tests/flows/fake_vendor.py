"""A vendor in memory for the tests of the engine: bars by symbol and session, scripted failures, and a list of what it was asked.

It is no stand-in for a real source (those run against the replay server); it stands for everything a source may do to the engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from config.calendar import session_closes, sessions
from config.clock import FixedClock
from config.errors import QuantError
from config.progress import SILENT, Progress
from config.settings import load_settings
from flows.ingest import Window, ingest
from flows.ingest_gaps import fill_gaps
from flows.ingest_report import IngestReport
from flows.sources.base import Answer, answer_schema
from lake import Lake, open_lake

MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)
Bars = dict[date, float]


def days(start: str, end: str, calendar: str = "XNYS") -> list[date]:
    """Sessions, as dates."""
    return [day.date() for day in sessions(start, end, calendar)]


def ramp(start: str, end: str, first: float = 100.0, calendar: str = "XNYS") -> Bars:
    """Closes that rise by one a session."""
    return {day: first + number for number, day in enumerate(days(start, end, calendar))}


@dataclass
class FakeVendor:
    """See the module.

    Parameters
    ----------
    history : mapping of str to Bars
        What it has now. A symbol that is not in it is said to be unknown.
    wrong : callable, optional
        Called with each request's symbols before the answer; raises what shall go wrong.
    actions : mapping of str to list of (date, kind, value)
    volumes : mapping of (str, date) to float
        Of bars that have another volume than 100.
    """

    history: dict[str, Bars]
    name: str = "vendor"
    names_per_request: int | None = 1
    incremental: bool = True
    calendars: Mapping[str, str] = field(default_factory=dict)
    interval: str = "1d"
    actions: Mapping[str, list[tuple[date, str, float]]] = field(default_factory=dict)
    wrong: Callable[[tuple[str, ...]], None] | None = None
    listed: tuple[str, ...] | None = None
    volumes: dict[tuple[str, date], float] = field(default_factory=dict)
    asked: list[tuple[tuple[str, ...], date | None, date | None]] = field(default_factory=list)

    def available(self) -> tuple[str, ...] | None:
        """As the test says."""
        return self.listed

    def bars(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer a request, and one more with its corporate actions."""
        self.asked.append((tuple(symbols), start, end))
        if self.wrong is not None:
            self.wrong(tuple(symbols))
        known = [symbol for symbol in symbols if symbol in self.history]
        found = [
            (symbol, day, close)
            for symbol in known
            for day, close in self.history[symbol].items()
            if (start is None or day >= start) and (end is None or day <= end)
        ]
        missing = {symbol: f"{self.name} has no {symbol}" for symbol in symbols if symbol not in known}
        request = {"symbols": list(symbols), "start": start, "end": end}
        told = [[symbol, day.isoformat(), close, self.volumes.get((symbol, day))] for symbol, day, close in found]
        payload = json.dumps(told).encode()
        shared: dict[str, Any] = {"source": self.name, "origin": f"{self.name}.example", "request": request, "payload": payload}
        yield Answer(dataset="equity_bars", rows=self._rows(found), names=tuple(known), missing=missing, **shared)
        acts = [(symbol, *act) for symbol in known for act in self.actions.get(symbol, ())]
        if acts:
            yield Answer(dataset="corporate_actions", rows=self._action_rows(acts), names=tuple(known), **shared)

    def _rows(self, found: Sequence[tuple[str, date, float]]) -> pa.Table:
        closes: dict[tuple[str, date], pd.Timestamp] = {}
        for calendar in {self.calendars.get(symbol, "XNYS") for symbol, _, _ in found}:
            mine = sorted({day for symbol, day, _ in found if self.calendars.get(symbol, "XNYS") == calendar})
            moments = session_closes(pd.DatetimeIndex(mine), calendar)
            closes.update({(calendar, day): moment for day, moment in zip(mine, moments, strict=True)})
        rows = []
        for symbol, day, close in found:
            calendar = self.calendars.get(symbol, "XNYS")
            at = closes[calendar, day].to_pydatetime()
            rows.append(
                {
                    **dict.fromkeys(("open", "high", "low", "close"), close),
                    "volume": self.volumes.get((symbol, day), 100.0),
                    "symbol": symbol,
                    "interval": self.interval,
                    "event_time": at,
                    "available_at": at,
                    "source": self.name,
                    "session": day,
                    "basis": "as_traded",
                    "currency": "USD",
                    "calendar": calendar,
                }
            )
        return pa.Table.from_pylist(rows, schema=answer_schema("equity_bars"))

    def _action_rows(self, acts: Sequence[tuple[str, date, str, float]]) -> pa.Table:
        rows = [
            {
                "symbol": symbol,
                "ex_date": day,
                "kind": kind,
                "source": self.name,
                "value": value,
                "new_symbol": None,
                "currency": "USD",
                "available_at": datetime(day.year, day.month, day.day, tzinfo=UTC),
            }
            for symbol, day, kind, value in acts
        ]
        return pa.Table.from_pylist(rows, schema=answer_schema("corporate_actions"))


def ask(of: Any, names: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
    """As `ingest_equity_flow` asks."""
    found: Iterator[Answer] = of.bars(names, start, end)
    return found


def lake() -> Lake:
    """The test's own."""
    return open_lake(load_settings())


def run(
    vendors: FakeVendor | Sequence[FakeVendor],
    names: Sequence[str] | None,
    at: datetime = MONDAY,
    progress: Progress = SILENT,
    **window: Any,
) -> IngestReport:
    """An ingest from these vendors, in order."""
    chain = [vendors] if isinstance(vendors, FakeVendor) else list(vendors)
    shared: dict[str, Any] = {"lake": lake(), "clock": FixedClock(at), "progress": progress}
    return ingest("equity", names, chain, ask, window=Window(**window), **shared)


def fill(vendors: FakeVendor | Sequence[FakeVendor], names: Sequence[str] | None = None, at: datetime = MONDAY) -> IngestReport:
    """Work off the open gaps."""
    chain = [vendors] if isinstance(vendors, FakeVendor) else list(vendors)
    return fill_gaps(names, chain, ask, lake=lake(), clock=FixedClock(at), progress=SILENT, window=Window())


def closes(symbol: str, **read: Any) -> Bars:
    """What the lake's newest snapshot holds."""
    rows = lake().snapshot().read("equity_bars", where={"symbol": symbol}, columns=["session", "close"], **read).to_pylist()
    return {row["session"]: row["close"] for row in rows}


def outcomes(report: IngestReport) -> dict[str, str]:
    """Symbol to outcome."""
    return {name.name: name.outcome for name in report.names}


def fails_for(bad: Mapping[str, QuantError]) -> Callable[[tuple[str, ...]], None]:
    """Any request that holds a bad symbol fails."""

    def wrong(symbols: tuple[str, ...]) -> None:
        for symbol in symbols:
            if symbol in bad:
                raise bad[symbol]

    return wrong
