"""Sessions that a symbol should have and has not, each bar's symbol held against its own exchange's calendar.

1. `missing_sessions` takes, for each symbol and source, the sessions of its bars' calendar between its first bar and its last,
   without those it has and those on which the letters were nobody's (`_unlisted`: delisted, renamed away, not listed yet).
2. `update_gaps` brings the table `gaps` up to date: a session is `missing`, then `filled` by a bar; `no_data` when its source was
   asked for exactly it and has none (`close_asked`); `not_listed` when a corporate action that came later explains it.
3. `open_ranges` merges what is missing into windows to ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from config.calendar import sessions
from config.tables import TABLES
from lake.query import connect
from lake.store import Lake
from lake.writer import WriteResult

__all__ = [
    "FILLED",
    "MISSING",
    "NOT_LISTED",
    "NO_DATA",
    "GapUpdate",
    "OpenRange",
    "close_asked",
    "gap_dataset",
    "missing_sessions",
    "open_ranges",
    "update_gaps",
]

MISSING, FILLED, NO_DATA, NOT_LISTED = "missing", "filled", "no_data", "not_listed"
_COLUMNS = ("symbol", "source", "session")
# Missing sessions nearer to one another than this are asked for in one window: the bars between them are cheaper than a request.
_NEAR = timedelta(days=10)


@dataclass(frozen=True, kw_only=True, slots=True)
class GapUpdate:
    """What a look at the calendars changed.

    Parameters
    ----------
    written : WriteResult
        `new` counts gaps never seen before, `revised` those whose state changed.
    filled : int
        Gaps that were open and have a bar now.
    """

    written: WriteResult
    filled: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRange:
    """A window that holds missing sessions of one symbol and source.

    Parameters
    ----------
    first, last : date
        Both included; the sessions between them that are not missing are stored already.
    missing : tuple of date
    """

    symbol: str
    source: str
    first: date
    last: date
    missing: tuple[date, ...]


def gap_dataset(interval: str = "1d") -> str:
    """The name in `gaps.dataset`: daily and intraday bars of one symbol have gaps of their own."""
    return "equity_bars" if interval == "1d" else f"equity_bars/{interval}"


def missing_sessions(bars: pa.Table, calendar: str | None = None, actions: pa.Table | None = None) -> pa.Table:
    """Find the sessions without a bar, for each symbol and source between its first and last bar.

    Parameters
    ----------
    bars : pyarrow.Table
        `symbol`, `source`, `session`, and `calendar` unless one is given. A symbol that has changed its exchange is held to each
        calendar over the time of that calendar's bars.
    calendar : str, optional
        For all bars.
    actions : pyarrow.Table, optional
        `symbol`, `ex_date`, `kind` of corporate actions: from a delisting or a rename on until the letters' next bar, and between
        the last bar of others and a listing, nothing is missing.

    Returns
    -------
    pyarrow.Table
        `symbol`, `source`, `session`, sorted; no rows where nothing is missing.
    """
    if calendar is not None:
        bars = bars.select(_COLUMNS).append_column("calendar", pa.repeat(pa.scalar(calendar), bars.num_rows))
    with connect() as con:
        con.register("bars", bars.select([*_COLUMNS, "calendar"]))
        con.register("open_days", _open_days(bars))
        con.register("actions", _nothing_happened() if actions is None else actions.select(["symbol", "ex_date", "kind"]))
        return con.sql(
            "WITH life AS (SELECT symbol, source, calendar, min(session) AS first, max(session) AS last FROM bars GROUP BY ALL), "
            "days AS (SELECT DISTINCT symbol, source, session FROM bars), "
            "lacking AS (SELECT DISTINCT l.symbol, l.source, c.session FROM life l JOIN open_days c "
            "ON c.calendar = l.calendar AND c.session BETWEEN l.first AND l.last "
            "ANTI JOIN days d ON d.symbol = l.symbol AND d.source = l.source AND d.session = c.session) "
            f"SELECT k.* FROM lacking k WHERE NOT ({_unlisted()}) ORDER BY ALL"
        ).to_arrow_table()


def _unlisted() -> str:
    """Whether nobody held the letters on the missing session `k`: an end before it or a beginning after it, no bar between."""
    day_between = "SELECT 1 FROM days d WHERE d.symbol = k.symbol AND d.source = k.source AND d.session"
    return (
        "EXISTS (SELECT 1 FROM actions a WHERE a.symbol = k.symbol AND a.kind IN ('delisting', 'rename') "
        f"AND a.ex_date <= k.session AND NOT EXISTS ({day_between} >= a.ex_date AND d.session < k.session) "
        "AND NOT EXISTS (SELECT 1 FROM actions b WHERE b.symbol = k.symbol AND b.kind = 'listing' "
        "AND b.ex_date > a.ex_date AND b.ex_date <= k.session)) "
        "OR EXISTS (SELECT 1 FROM actions a WHERE a.symbol = k.symbol AND a.kind = 'listing' AND a.ex_date > k.session "
        f"AND NOT EXISTS ({day_between} > k.session AND d.session < a.ex_date))"
    )


def _open_days(bars: pa.Table) -> pa.Table:
    """The sessions of each calendar over the span of its bars."""
    spans = bars.group_by("calendar").aggregate([("session", "min"), ("session", "max")]).to_pylist()
    found = {one["calendar"]: sessions(one["session_min"], one["session_max"], one["calendar"]).date for one in spans}
    return pa.table(
        {
            "calendar": pa.array([name for name, days in found.items() for _ in days], pa.string()),
            "session": pa.array([day for days in found.values() for day in days], pa.date32()),
        }
    )


def _nothing_happened() -> pa.Table:
    return pa.schema([("symbol", pa.string()), ("ex_date", pa.date32()), ("kind", pa.string())]).empty_table()


def update_gaps(
    lake: Lake,
    *,
    recorded_at: datetime,
    ingest_id: str,
    calendar: str | None = None,
    interval: str = "1d",
    symbols: Sequence[str] | None = None,
    source: str | None = None,
    start: date | None = None,
) -> GapUpdate:
    """Compare the newest bars with their calendars and bring the table `gaps` up to date.

    Bars are read at the newest committed version, so this may run before the ingest's snapshot is published. A gap whose source
    was asked for it in vain stays closed until a bar comes.

    Parameters
    ----------
    calendar : str, optional
        Instead of each bar's own.
    symbols : sequence of str, optional
        Only these; all by default.
    source : str, optional
        Only bars of this source.
    start : date, optional
        Only sessions from here on. Each symbol's bars must reach back to it, or its gap before its first bar there is not seen.

    Returns
    -------
    GapUpdate
    """
    chosen = {**({} if symbols is None else {"symbol": list(symbols)}), **({} if source is None else {"source": source})}
    bars = lake.read_latest(
        "equity_bars", where={"interval": interval, **chosen}, start=start, columns=["symbol", "source", "session", "calendar"]
    )
    name = gap_dataset(interval)
    known = lake.read_latest("gaps", where={"dataset": name, **chosen}, start=start, columns=[*_COLUMNS, "state"])
    of_symbols = {} if symbols is None else {"symbol": list(symbols)}
    actions = lake.read_latest(
        "corporate_actions",
        where={"kind": ["delisting", "rename", "listing"], **of_symbols},
        columns=["symbol", "ex_date", "kind"],
    )
    states = _states(missing_sessions(bars, calendar, actions), known, bars)
    filled = pc.sum(pc.equal(states["state"], FILLED)).as_py() or 0
    return GapUpdate(written=_write(lake, name, states, recorded_at, ingest_id), filled=int(filled))


def _states(missing: pa.Table, known: pa.Table, bars: pa.Table) -> pa.Table:
    """What is missing, and the gaps whose state is another than the one that is stored."""
    with connect() as con:
        con.register("missing", missing)
        con.register("known", known)
        con.register("bars", bars)
        return con.sql(
            "WITH life AS (SELECT symbol, source, min(session) AS first, max(session) AS last FROM bars GROUP BY ALL), "
            "days AS (SELECT DISTINCT symbol, source, session FROM bars), "
            "every AS (SELECT symbol, source, session FROM missing UNION SELECT symbol, source, session FROM known), "
            "judged AS (SELECT e.symbol, e.source, e.session, k.state AS was, CASE "
            f"WHEN d.session IS NOT NULL THEN '{FILLED}' "
            f"WHEN m.session IS NOT NULL THEN CASE WHEN k.state = '{NO_DATA}' THEN k.state ELSE '{MISSING}' END "
            f"WHEN k.state = '{MISSING}' AND e.session BETWEEN l.first AND l.last THEN '{NOT_LISTED}' "
            "ELSE k.state END AS state FROM every e "
            "LEFT JOIN known k USING (symbol, source, session) LEFT JOIN missing m USING (symbol, source, session) "
            "LEFT JOIN days d USING (symbol, source, session) LEFT JOIN life l USING (symbol, source)) "
            "SELECT symbol, source, session, state FROM judged "
            f"WHERE state IS DISTINCT FROM was OR state = '{MISSING}' ORDER BY ALL"
        ).to_arrow_table()


def _write(lake: Lake, dataset: str, states: pa.Table, recorded_at: datetime, ingest_id: str) -> WriteResult:
    count = states.num_rows
    rows = pa.table(
        {
            "dataset": pa.array([dataset] * count, pa.string()),
            **{name: states[name] for name in ("symbol", "session", "source", "state")},
            "available_at": pa.array([recorded_at] * count, pa.timestamp("us", tz="UTC")),
            "ingest_id": pa.array([ingest_id] * count, pa.string()),
        }
    )
    return lake.write(TABLES["gaps"], rows, recorded_at=recorded_at)


def open_ranges(
    lake: Lake,
    *,
    interval: str = "1d",
    symbols: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    start: date | None = None,
    end: date | None = None,
) -> list[OpenRange]:
    """What is missing, merged into windows, by symbol and source in order of time."""
    chosen = {**({} if symbols is None else {"symbol": list(symbols)}), **({} if sources is None else {"source": list(sources)})}
    where = {"dataset": gap_dataset(interval), "state": MISSING, **chosen}
    found = lake.read_latest("gaps", where=where, start=start, end=end, columns=list(_COLUMNS)).to_pylist()
    ranges: list[OpenRange] = []
    days: list[date] = []
    listed = _by_name(found)
    for row, after in zip_longest(listed, listed[1:]):
        days.append(row["session"])
        same = after is not None and (after["symbol"], after["source"]) == (row["symbol"], row["source"])
        if after is None or not same or after["session"] - row["session"] > _NEAR:
            ranges.append(OpenRange(symbol=row["symbol"], source=row["source"], first=days[0], last=days[-1], missing=tuple(days)))
            days = []
    return ranges


def _by_name(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["symbol"], row["source"], row["session"]))


def close_asked(
    lake: Lake, asked: Iterable[tuple[str, str, date]], *, recorded_at: datetime, ingest_id: str, interval: str = "1d"
) -> int:
    """Say of sessions that are still missing that their source was asked for exactly them and has none: ``no_data``.

    Parameters
    ----------
    asked : iterable of (symbol, source, session)

    Returns
    -------
    int
        How many were missing.
    """
    wanted = set(asked)
    where = {"dataset": gap_dataset(interval), "state": MISSING, "symbol": sorted({symbol for symbol, _, _ in wanted})}
    if not wanted:
        return 0
    found = lake.read_latest("gaps", where=where, columns=list(_COLUMNS)).to_pylist()
    closed = [row for row in found if (row["symbol"], row["source"], row["session"]) in wanted]
    states = pa.table(
        {
            **{name: pa.array([row[name] for row in closed], pa.string()) for name in ("symbol", "source")},
            "session": pa.array([row["session"] for row in closed], pa.date32()),
            "state": pa.array([NO_DATA] * len(closed), pa.string()),
        }
    )
    _write(lake, gap_dataset(interval), states, recorded_at, ingest_id)
    return len(closed)
