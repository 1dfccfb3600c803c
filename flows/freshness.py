"""Which data is late: what is stored, compared with what its exchange, its release calendar or its own rhythm makes one expect.

1. `name_freshness` looks at every symbol, series, underlying and market: bars and quotes are held to the calendar's last closed
   session (`_by_session`), positions to the report's release calendar (`_by_report`), macro series to the pauses between their
   own publications (`_by_rhythm`), each plus `data.expected_delay_hours`.
2. `freshness` sums that up by table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from config.clock import Clock
from config.settings import Settings

if TYPE_CHECKING:
    from lake import Snapshot

__all__ = ["Freshness", "NameFreshness", "freshness", "name_freshness", "summed_up"]

State = Literal["fresh", "late", "ended", "recorded", "unknown"]
# So many pauses between publications tell a rhythm; the longest of the last ones is waited for.
_PAUSES, _PAUSES_NEEDED = 12, 3


_RHYTHM = f"""
WITH periods AS (SELECT series, period, min(available_at) AS out FROM macro_observations GROUP BY ALL),
outs AS (SELECT DISTINCT series, out FROM periods),
pauses AS (
    SELECT series, epoch(out) - lag(epoch(out)) OVER w AS pause, row_number() OVER (PARTITION BY series ORDER BY out DESC) AS n
    FROM outs WINDOW w AS (PARTITION BY series ORDER BY out)
),
steps AS (
    SELECT series, period - lag(period) OVER w AS step, row_number() OVER (PARTITION BY series ORDER BY period DESC) AS n
    FROM periods WINDOW w AS (PARTITION BY series ORDER BY period)
),
rhythm AS (SELECT series, max(pause) AS pause, count(pause) AS pauses FROM pauses WHERE n <= {_PAUSES} GROUP BY ALL),
spacing AS (SELECT series, max(step) AS step, count(step) AS steps FROM steps WHERE n <= {_PAUSES} GROUP BY ALL),
newest AS (SELECT series, max(out) AS out FROM outs GROUP BY ALL),
held AS (
    SELECT series, arg_max(source, available_at) AS source, count(*) AS rows, min(period) AS first, max(period) AS last,
        max(available_at) AS newest FROM macro_observations GROUP BY ALL
)
SELECT series AS name, * EXCLUDE (series) FROM held JOIN newest USING (series) LEFT JOIN rhythm USING (series)
LEFT JOIN spacing USING (series) ORDER BY series
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class NameFreshness:
    """Whether one symbol, series, underlying or market is as new as it could be.

    Parameters
    ----------
    table, name, source : str
        The source of its newest row.
    rows : int
        Current rows of it.
    first, last : date
        Of its events.
    newest_available_at : datetime
    state : {"fresh", "late", "ended", "recorded", "unknown"}
        Ended: delisted or renamed since. Recorded: its source gets nothing new. Unknown: too little published to tell a rhythm.
    expected : date or None
        The event that should be there by now; for macro series the day by which something new was due.
    due_at : datetime or None
        When the first event that is missing was due, the expected delay included.
    late_by : str
        In words, for late ones: ``2 sessions``, ``9 days``.
    basis : str
        What the expectation comes from.
    """

    table: str
    name: str
    source: str
    rows: int
    first: date
    last: date
    newest_available_at: datetime
    state: State
    expected: date | None = None
    due_at: datetime | None = None
    late_by: str = ""
    basis: str = ""

    @property
    def late(self) -> bool:
        """Whether it should be newer by now."""
        return self.state == "late"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Freshness:
    """Whether a table is as new as it could be.

    Parameters
    ----------
    table : str
    late : bool
        Whether any name of it is late.
    state : str
        In a word or three: ``fresh``, ``3 of 500 late``, ``recorded``.
    message : str
        In a sentence: which is the latest, what it lacks and since when.
    names : int
        How many symbols, series, underlyings or markets it holds.
    late_names : tuple of NameFreshness
        The longest overdue first.
    """

    table: str
    late: bool
    state: str
    message: str
    names: int
    late_names: tuple[NameFreshness, ...] = ()


def freshness(settings: Settings, clock: Clock) -> list[Freshness]:
    """Compare every table of the newest snapshot with what could be there by now.

    Returns
    -------
    list of Freshness
        One for each table that holds bars, quotes, positions or macro series; empty where nothing was published yet.

    Raises
    ------
    IntegrityError, StorageError
        The lake cannot be read.
    """
    return summed_up(name_freshness(settings, clock))


def summed_up(names: Iterable[NameFreshness]) -> list[Freshness]:
    """`freshness` of names that were looked at."""
    tables: dict[str, list[NameFreshness]] = {}
    for one in names:
        tables.setdefault(one.table, []).append(one)
    return [_of_table(table, of_table) for table, of_table in sorted(tables.items())]


def _of_table(table: str, names: list[NameFreshness]) -> Freshness:
    late = tuple(sorted((one for one in names if one.late), key=lambda one: (one.due_at or one.newest_available_at, one.name)))
    if late:
        worst = late[0]
        state = f"{len(late)} of {len(names)} late" if len(names) > 1 else f"late by {worst.late_by}"
        message = (
            f"{table}: {len(late)} of {len(names)} late; {worst.name} from {worst.source} by {worst.late_by}: newest "
            f"{worst.last}, expected {worst.expected}, due {worst.due_at:%Y-%m-%d %H:%M} UTC ({worst.basis})"
        )
        return Freshness(table=table, late=True, state=state, message=message, names=len(names), late_names=late)
    states = {one.state for one in names}
    found = next((state for state in ("fresh", "unknown", "recorded", "ended") if state in states), "unknown")
    return Freshness(table=table, late=False, state=found, message=f"{table}: {found}", names=len(names))


def name_freshness(settings: Settings, clock: Clock, tables: Iterable[str] | None = None) -> list[NameFreshness]:
    """As `freshness`, one for each name of each table, by table and name.

    Parameters
    ----------
    tables : iterable of str, optional
        Only these.
    """
    from lake import open_lake

    lake = open_lake(settings)
    if not lake.has_snapshot():
        return []
    snapshot, now = lake.snapshot(), clock.now()
    looks: dict[str, Callable[[Snapshot, Settings, datetime], list[NameFreshness]]] = {
        "equity_bars": _bars,
        "option_quotes": _quotes,
        "cot_positions": _positions,
        "macro_observations": _series,
    }
    wanted = set(looks) if tables is None else set(tables)
    return [
        one
        for table, look in sorted(looks.items())
        if table in wanted & set(snapshot.tables)
        for one in look(snapshot, settings, now)
    ]


def _bars(snapshot: Snapshot, settings: Settings, now: datetime) -> list[NameFreshness]:
    """A symbol's newest bar is that of whichever source has the newest; a delisting or rename since ends it."""
    found = snapshot.sql(
        "WITH spans AS (SELECT symbol, interval, source, max(calendar) AS calendar, count(*) AS rows, min(session) AS first, "
        "max(session) AS last, max(available_at) AS newest FROM equity_bars GROUP BY symbol, interval, source) "
        "SELECT symbol, interval, arg_max(source, last) AS source, arg_max(calendar, last) AS calendar, sum(rows)::BIGINT AS rows, "
        "min(first) AS first, max(last) AS last, max(newest) AS newest, "
        "(SELECT max(ex_date) FROM corporate_actions a WHERE a.symbol = s.symbol AND a.kind IN ('delisting', 'rename')) AS ended "
        "FROM spans s GROUP BY symbol, interval ORDER BY symbol, interval"
    ).to_pylist()
    newest: dict[str, _Sessions] = {}
    delay = _delay(settings, "equity_bars")
    judged = []
    for row in found:
        calendar = row["calendar"] or settings.data.calendar
        if calendar not in newest:
            newest[calendar] = _Sessions(calendar, now, delay)
        name = row["symbol"] if row["interval"] == "1d" else f"{row['symbol']} {row['interval']}"
        ended = row["ended"] is not None and row["ended"] > row["last"]
        judged.append(_by_session("equity_bars", name, row, newest[calendar], settings, ended=ended))
    return judged


def _quotes(snapshot: Snapshot, settings: Settings, now: datetime) -> list[NameFreshness]:
    found = snapshot.sql(
        "SELECT underlying AS name, arg_max(source, session) AS source, count(*) AS rows, min(session) AS first, "
        "max(session) AS last, max(available_at) AS newest FROM option_quotes GROUP BY underlying ORDER BY underlying"
    ).to_pylist()
    calendar = _Sessions(settings.data.calendar, now, _delay(settings, "option_quotes"))
    return [_by_session("option_quotes", row["name"], row, calendar, settings) for row in found]


class _Sessions:
    """The sessions of a calendar whose data is due by now."""

    def __init__(self, calendar: str, now: datetime, delay: timedelta) -> None:
        import pandas as pd

        from config.calendar import session_closes, sessions

        self.calendar, self._delay = calendar, delay
        days = sessions(date(1962, 1, 1), now.date() + timedelta(days=1), calendar)
        due = session_closes(days, calendar) + delay
        past = due <= pd.Timestamp(now)
        self._days, self._due = days[past], due[past]
        self.last: date | None = self._days[-1].date() if len(self._days) else None

    def after(self, day: date) -> tuple[int, datetime | None]:
        """How many sessions after `day` are due, and since when the first of them is."""
        import pandas as pd

        at = int(self._days.searchsorted(pd.Timestamp(day), side="right"))
        missing = len(self._days) - at
        return missing, self._due[at].to_pydatetime() if missing else None


def _by_session(
    table: str, name: str, row: Mapping[str, Any], calendar: _Sessions, settings: Settings, *, ended: bool = False
) -> NameFreshness:
    missing, due = calendar.after(row["last"])
    plain = _unexpected(row["source"], settings, ended)
    return NameFreshness(
        **_held(table, name, row),
        state=plain or ("late" if missing else "fresh"),
        expected=None if plain else calendar.last,
        due_at=None if plain else due,
        late_by="" if plain or not missing else f"{missing} session{'s' if missing > 1 else ''}",
        basis=f"sessions of {calendar.calendar}, {settings.data.expected_delay_hours.get(table, 0):g} hours after the close",
    )


def _positions(snapshot: Snapshot, settings: Settings, now: datetime) -> list[NameFreshness]:
    """One a report and source: every market of a report comes on the same day, and some leave it for good."""
    found = snapshot.sql(
        "SELECT report AS name, arg_max(source, as_of_date) AS source, count(*) AS rows, min(as_of_date) AS first, "
        "max(as_of_date) AS last, max(available_at) AS newest FROM cot_positions GROUP BY report ORDER BY report"
    ).to_pylist()
    return [_by_report(row, settings, now) for row in found]


def _by_report(row: Mapping[str, Any], settings: Settings, now: datetime) -> NameFreshness:
    from flows.sources.cot_calendar import published

    following = row["last"] + timedelta(days=7)
    out = published(following)
    basis = "the report's release calendar"
    if out is None:
        out, basis = row["newest"] + timedelta(days=7), "a week after the last publication: no release date is known"
    due = out + _delay(settings, "cot_positions")
    return _by_moment("cot_positions", row, following, due, basis, settings, now)


def _series(snapshot: Snapshot, settings: Settings, now: datetime) -> list[NameFreshness]:
    """The first publication of each period makes a series' rhythm; where all came at once, the distance of the periods does."""
    found = snapshot.sql(_RHYTHM).to_pylist()
    return [_by_rhythm(row, settings, now) for row in found]


def _by_rhythm(row: Mapping[str, Any], settings: Settings, now: datetime) -> NameFreshness:
    if (row["pauses"] or 0) >= _PAUSES_NEEDED:
        pause, basis = timedelta(seconds=row["pause"]), f"the longest of its last {row['pauses']} pauses between publications"
    elif (row["steps"] or 0) >= _PAUSES_NEEDED:
        pause, basis = timedelta(days=row["step"]), f"the longest of the last {row['steps']} distances of its periods"
    else:
        plain = _unexpected(row["source"], settings, ended=False)
        return NameFreshness(
            **_held("macro_observations", row["name"], row), state=plain or "unknown", basis="too few publications"
        )
    due = row["out"] + pause + _delay(settings, "macro_observations")
    return _by_moment("macro_observations", row, due.date(), due, basis, settings, now)


def _by_moment(
    table: str, row: Mapping[str, Any], expected: date, due: datetime, basis: str, settings: Settings, now: datetime
) -> NameFreshness:
    plain = _unexpected(row["source"], settings, ended=False)
    late = plain is None and now >= due
    days = (now - due).days
    return NameFreshness(
        **_held(table, row["name"], row),
        state=plain or ("late" if late else "fresh"),
        expected=None if plain else expected,
        due_at=due if late else None,
        late_by="" if not late else f"{days} day{'' if days == 1 else 's'}" if days else f"{(now - due).seconds // 3600} h",
        basis=basis,
    )


def _held(table: str, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    same = {key: row[key] for key in ("source", "rows", "first", "last")}
    return {"table": table, "name": name, **same, "newest_available_at": row["newest"]}


def _unexpected(source: str, settings: Settings, ended: bool) -> State | None:
    """The state of what nothing new is expected of."""
    return "ended" if ended else "recorded" if source in settings.data.recorded_sources else None


def _delay(settings: Settings, table: str) -> timedelta:
    return timedelta(hours=settings.data.expected_delay_hours.get(table, 0.0))
