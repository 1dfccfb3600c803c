"""Sessions and their closes on an exchange's own calendar (exchange_calendars)."""

from __future__ import annotations

import functools
from datetime import date
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pandas as pd

from config.errors import InputError
from config.own_calendars import OWN_CALENDARS, register_own_calendars

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

__all__ = [
    "is_session",
    "next_session",
    "previous_session",
    "session_breaks",
    "session_closes",
    "session_opens",
    "sessions",
    "time_zone",
    "trading_weekdays",
]

DEFAULT_CALENDAR = "XNYS"
_FIRST, _LAST = "1962-01-01", "2035-12-31"


@functools.lru_cache(maxsize=8)
def _calendar(name: str) -> ExchangeCalendar:
    import exchange_calendars as xcals

    if name in OWN_CALENDARS:
        register_own_calendars()
    try:
        return xcals.get_calendar(name, start=_FIRST, end=_LAST)
    except xcals.errors.InvalidCalendarName as problem:
        raise InputError(
            f"no exchange calendar is called {name!r}", remedy="use an ISO 10383 code such as XNYS, XNAS, XLON, XTKS; or CBOE"
        ) from problem
    except ValueError:  # a calendar with bounds of its own
        return xcals.get_calendar(name)


@functools.lru_cache(maxsize=8)
def _schedule(name: str) -> Any:
    return _calendar(name).schedule


def sessions(start: date | str, end: date | str, calendar: str = DEFAULT_CALENDAR) -> pd.DatetimeIndex:
    """All sessions from `start` to `end`, both included, as naive midnights."""
    index = _schedule(calendar).index
    return pd.DatetimeIndex(index[(index >= pd.Timestamp(start)) & (index <= pd.Timestamp(end))], name="session")


def session_closes(days: pd.DatetimeIndex, calendar: str = DEFAULT_CALENDAR) -> pd.DatetimeIndex:
    """The moment each session closes, UTC, half days included; NaT where a day is no session."""
    return pd.DatetimeIndex(_schedule(calendar)["close"].reindex(days))


def session_opens(days: pd.DatetimeIndex, calendar: str = DEFAULT_CALENDAR) -> pd.DatetimeIndex:
    """The moment each session opens, UTC; NaT where a day is no session."""
    return pd.DatetimeIndex(_schedule(calendar)["open"].reindex(days))


def session_breaks(days: pd.DatetimeIndex, calendar: str = DEFAULT_CALENDAR) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
    """The moments each session pauses and resumes (a lunch break), UTC; NaT where it does not, or a day is no session."""
    schedule = _schedule(calendar).reindex(days)
    return pd.DatetimeIndex(schedule["break_start"]), pd.DatetimeIndex(schedule["break_end"])


def is_session(day: date | str, calendar: str = DEFAULT_CALENDAR) -> bool:
    """Whether the exchange trades on that date."""
    return pd.Timestamp(day) in _schedule(calendar).index


def next_session(day: date | str, calendar: str = DEFAULT_CALENDAR) -> pd.Timestamp:
    """The first session after `day`."""
    index = _schedule(calendar).index
    return pd.Timestamp(index[index.searchsorted(pd.Timestamp(day), side="right")])


def previous_session(day: date | str, calendar: str = DEFAULT_CALENDAR) -> pd.Timestamp:
    """The last session before `day`."""
    index = _schedule(calendar).index
    return pd.Timestamp(index[index.searchsorted(pd.Timestamp(day), side="left") - 1])


def time_zone(calendar: str = DEFAULT_CALENDAR) -> ZoneInfo:
    """The exchange's own time zone; UTC for 24/7."""
    return ZoneInfo(str(_calendar(calendar).tz))


def trading_weekdays(day: date | str, calendar: str = DEFAULT_CALENDAR) -> tuple[int, ...]:
    """The days of the week on which the exchange trades around `day` (Monday is 1, Sunday 7), holidays aside."""
    at = pd.Timestamp(day)
    found = sessions(at - pd.Timedelta(days=60), at + pd.Timedelta(days=60), calendar)
    return tuple(sorted({int(one) + 1 for one in found.day_of_week}))
