"""Calendars that exchange_calendars does not have."""

from __future__ import annotations

from datetime import time
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

__all__ = ["OWN_CALENDARS", "register_own_calendars"]

OWN_CALENDARS = ("CBOE",)

# Since the holiday sessions of its options Cboe computes VIX on all weekdays but New Year's Day, Good Friday and Christmas:
# the first such day in its history is Memorial Day 2022.
_HOLIDAY_SESSIONS_SINCE = pd.Timestamp("2022-05-30")
# The New York Stock Exchange mourned a president; Cboe's history has a value.
_OPEN_BEFORE = pd.DatetimeIndex(["2004-06-11"])


def register_own_calendars() -> None:
    """Make `OWN_CALENDARS` known to exchange_calendars; doing it twice changes nothing.

    ``CBOE`` is the calendar of Cboe's volatility indices, read off the history of VIX from 1990 to July 2026, which it fits but for
    four sessions that Cboe has no value of (1991-03-01, 1997-01-31, 1997-11-26, 1999-12-31). A session ends at 16:15 New York,
    when the closing value is computed; on half days and holidays it is out earlier, and 16:15 is kept: never early.
    """
    import exchange_calendars as xcals
    from exchange_calendars import ExchangeCalendar

    if "CBOE" in xcals.get_calendar_names(include_aliases=False):
        return

    class CboeIndexCalendar(ExchangeCalendar):  # type: ignore[misc, unused-ignore]
        """Cboe's volatility indices; see `register_own_calendars`."""

        name = "CBOE"
        tz = ZoneInfo("America/New_York")
        open_times = ((None, time(9, 30)),)
        close_times = ((None, time(16, 15)),)

        @property
        def adhoc_holidays(self) -> list[pd.Timestamp]:
            return list(_closed_weekdays())

    xcals.register_calendar_type("CBOE", CboeIndexCalendar)


def _closed_weekdays() -> pd.DatetimeIndex:
    from config.calendar import sessions

    weekdays = pd.bdate_range("1962-01-01", "2035-12-31")
    closed = weekdays.difference(sessions(weekdays[0].date(), weekdays[-1].date(), "XNYS"))
    return closed.difference(_OPEN_BEFORE).difference(closed[_computed(closed)])


def _computed(closed: pd.DatetimeIndex) -> Any:
    """Which days without stock trading have an index value all the same."""
    new_year = (closed.month == 1) & (closed.day <= 2)
    christmas = (closed.month == 12) & (closed.day >= 24)
    good_friday = closed.month.isin([3, 4])  # the only holiday of these months
    return (closed >= _HOLIDAY_SESSIONS_SINCE) & ~(new_year | christmas | good_friday)
