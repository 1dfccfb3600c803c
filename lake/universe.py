"""Who belonged to a universe on a day, including those that left it or were delisted since.

1. `store` compares intervals with what is stored and writes what is new: a membership when it begins, its end when that is known,
   as two versions of one row, so that no read as of a moment between them sees the end coming.
2. `members` answers for one day, `membership` for every session of a backtest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from config.calendar import session_closes, session_opens, sessions
from config.clock import require_utc
from config.errors import InputError, UnknownNameError, did_you_mean
from config.tables import TABLES
from lake.reading import Tables
from lake.store import Lake

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Interval", "Stored", "effective_open", "members", "membership", "store", "stored_intervals"]

_TABLE = "universe_membership"
_SPEC = TABLES[_TABLE]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """One membership.

    Parameters
    ----------
    from_date, to_date : date
        First day, and the first day on which it no longer was one (None while it lasts).
    joined_known_at, left_known_at : datetime
        When either was known, aware; `left_known_at` is None while `to_date` is.
    available_kind : {"announced", "assumed"}
    """

    universe: str
    symbol: str
    from_date: date
    to_date: date | None
    joined_known_at: datetime
    left_known_at: datetime | None
    available_kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """What became of intervals: memberships begun, ends written, both there already, ends corrected."""

    begun: int
    ended: int
    unchanged: int
    corrected: int


def effective_open(day: date, calendar: str) -> datetime:
    """When a change that takes effect on `day` counts as known: the open of the first session from that day on.

    Before the calendar begins: the end of the day, UTC, which is never too early.
    """
    known = sessions(day, day.replace(year=day.year + 1) if (day.month, day.day) != (2, 29) else date(day.year + 1, 3, 1), calendar)
    if not len(known) or sessions(date.min, date.max, calendar)[0].date() > day:
        return pd.Timestamp(day, tz="UTC").to_pydatetime() + pd.Timedelta(hours=23, minutes=59)
    opens: datetime = session_opens(known[:1], calendar)[0].to_pydatetime()
    return opens


def store(lake: Lake, intervals: Sequence[Interval], *, source: str, ingest_id: str, recorded_at: datetime) -> Stored:
    """Write intervals; those that are stored as given are left alone, so the same import twice writes nothing.

    An end that was stored and is another now is a correction, known from `recorded_at` on. Not safe against another import of
    the same universe at the same moment: the later one may write its beginning once more as a correction.
    """
    held = {(row["universe"], row["symbol"], row["from_date"]): row for row in lake.read_latest(_TABLE).to_pylist()}
    begin: list[dict[str, Any]] = []
    end: list[dict[str, Any]] = []
    unchanged = corrected = ended = 0
    for one in intervals:
        was = held.get((one.universe, one.symbol, one.from_date))
        whole = _row(one, source, ingest_id)
        if was is None:
            begin.append({**whole, "to_date": None, "left_known_at": None, "available_at": one.joined_known_at})
            if one.to_date is not None:
                end.append({**whole, "available_at": max(one.joined_known_at, one.left_known_at or recorded_at)})
                ended += 1
        elif was["to_date"] == one.to_date:
            unchanged += 1
        elif was["to_date"] is None:
            known = max(
                was["available_at"], one.left_known_at or recorded_at
            )  # later than its joining, where an end was taken back
            end.append({**whole, "joined_known_at": was["joined_known_at"], "available_at": known})
            ended += 1
        else:
            corrected += 1
            known = max(was["available_at"], recorded_at)
            late = None if one.to_date is None else known
            end.append({**whole, "joined_known_at": was["joined_known_at"], "left_known_at": late, "available_at": known})
    schema = pa.schema([field for field in _SPEC.schema if field.name != "recorded_at"])
    for rows in (begin, end):
        lake.write(_SPEC, pa.Table.from_pylist(rows, schema=schema), recorded_at=recorded_at)
    return Stored(begun=len(begin), ended=ended, unchanged=unchanged, corrected=corrected)


def _row(one: Interval, source: str, ingest_id: str) -> dict[str, Any]:
    return {
        "universe": one.universe,
        "symbol": one.symbol,
        "from_date": one.from_date,
        "to_date": one.to_date,
        "source": source,
        "joined_known_at": one.joined_known_at,
        "left_known_at": one.left_known_at,
        "available_kind": one.available_kind,
        "ingest_id": ingest_id,
    }


def stored_intervals(state: Tables, universe: str, *, as_of: datetime | None = None) -> list[dict[str, Any]]:
    """The stored memberships of a universe, as known at `as_of`, by symbol and day.

    Raises
    ------
    UnknownNameError
        There is no such universe.
    """
    rows: list[dict[str, Any]] = state.read(_TABLE, where={"universe": universe}, as_of=as_of).to_pylist()
    if not rows and not state.read(_TABLE, where={"universe": universe}).num_rows:
        known = tuple(state.read(_TABLE, columns=["universe"])["universe"].unique().to_pylist())
        near = did_you_mean(universe, known)
        raise UnknownNameError(f"no universe is called {universe!r}", remedy=f"{near}; import one: quant universe import FILE")
    return rows


def members(snapshot: Tables, universe: str, *, on: date, as_of: datetime | None = None) -> tuple[str, ...]:
    """Who belonged to a universe on a day.

    Parameters
    ----------
    snapshot : Snapshot
    universe : str
    on : date
    as_of : datetime, optional
        Only what was known then; without it what is known in the snapshot. A backtest on day `on` that leaves it out sees late
        announcements and corrections.

    Returns
    -------
    tuple of str
        Symbols, sorted; `to_date` itself is no day of membership.

    Raises
    ------
    UnknownNameError
        There is no such universe.
    InputError
        Its history begins after `on`, so nobody knows.
    """
    rows = stored_intervals(snapshot, universe)
    _require_begun(universe, rows, on)
    if as_of is not None:
        rows = stored_intervals(snapshot, universe, as_of=require_utc(as_of, "members"))
    return tuple(
        sorted({row["symbol"] for row in rows if row["from_date"] <= on and (row["to_date"] is None or on < row["to_date"])})
    )


def membership(snapshot: Tables, universe: str, sessions: pd.DatetimeIndex, *, calendar: str = "XNYS") -> pd.DataFrame:
    """Who belonged to a universe on each session, as known at that session's close.

    Parameters
    ----------
    snapshot : Snapshot
    universe : str
    sessions : DatetimeIndex
        Naive midnights, ascending.
    calendar : str
        Whose closes they have.

    Returns
    -------
    DataFrame of bool, shape (n_sessions, n_symbols)
        Index `session`; every symbol that ever was a member in that span, delisted ones included. A change that became known
        after it took effect counts from the first close at which it was known.

    Raises
    ------
    UnknownNameError
        There is no such universe.
    InputError
        Its history begins after the first session, or a day is no session of the calendar.
    """
    days = pd.DatetimeIndex(sessions)
    closes = session_closes(days, calendar)
    if closes.hasnans:
        raise InputError(f"{days[closes.isna()][0].date()} is no session of {calendar}", remedy="pass the sessions' own calendar")
    rows = stored_intervals(snapshot, universe)
    if not len(days):
        return pd.DataFrame(index=pd.DatetimeIndex([], name="session"), dtype=bool)
    _require_begun(universe, rows, days[0].date())
    columns: dict[str, np.ndarray] = {}
    every = snapshot.versions(_TABLE, where={"universe": universe}).to_pylist()
    for (symbol, begins), versions in groupby(every, key=lambda row: (row["symbol"], row["from_date"])):
        inside = np.zeros(len(days), dtype=bool)
        for version in versions:  # a corrected end holds from its correction on, before it the old one does
            begun = np.asarray((days >= pd.Timestamp(begins)) & (closes >= pd.Timestamp(version["joined_known_at"])))
            ends = version["to_date"]
            until = begun if ends is None else begun & np.asarray(days < pd.Timestamp(ends))
            inside = np.where(np.asarray(closes >= pd.Timestamp(version["available_at"])), until, inside)
        if inside.any():
            columns[symbol] = columns.get(symbol, False) | inside
    return pd.DataFrame(dict(sorted(columns.items())), index=pd.DatetimeIndex(days, name="session"), dtype=bool)


def _require_begun(universe: str, rows: Sequence[dict[str, Any]], on: date) -> None:
    first = min(row["from_date"] for row in rows)
    if on < first:
        raise InputError(
            f"the history of {universe} begins on {first}: who belonged to it on {on} is not known",
            remedy="ask for a later day, or import an earlier history",
        )
