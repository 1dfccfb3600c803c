"""When a Commitments of Traders report became public: the known exceptions, else the rule, else nothing.

1. `known_exceptions` reads `config/cot_publications.csv`: reports that came late, with the source of the date; an empty date says
   that the report was late and that the day is not known.
2. `scheduled` gives for the others the third federal business day after the as-of date, 15:30 New York: Friday as a rule,
   Monday when a federal holiday lies between.
3. `published` answers with the first of these that speaks, or None: then only the moment at which a report was first seen counts.
"""

from __future__ import annotations

import csv
import functools
from datetime import UTC, date, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import config

__all__ = ["known_exceptions", "published", "scheduled"]

NEW_YORK = ZoneInfo("America/New_York")
_AT = time(15, 30)
_BUSINESS_DAYS = 3
# The CFTC moved to the third business day in 1992, from the sixth; before 1990 reports were monthly.
_RULE_SINCE = date(1993, 1, 1)
_TABLE = Path(config.__file__).with_name("cot_publications.csv")


@functools.cache
def known_exceptions() -> dict[date, date | None]:
    """As-of dates whose report did not come by the rule, with the day on which it came; None where that is not known."""
    with _TABLE.open(encoding="utf-8", newline="") as lines:
        return {
            date.fromisoformat(row["as_of_date"]): date.fromisoformat(row["published"]) if row["published"] else None
            for row in csv.DictReader(lines)
        }


@functools.cache
def scheduled(as_of: date) -> date | None:
    """The day of publication by the rule; None before the rule was one."""
    import numpy as np

    if as_of < _RULE_SINCE:
        return None
    found = np.busday_offset(np.datetime64(as_of, "D"), _BUSINESS_DAYS, roll="backward", holidays=_federal_holidays())
    day: date = found.astype(object)
    return day


def published(as_of: date) -> datetime | None:
    """The moment at which the report of positions on `as_of` was to be public, UTC; None where nobody has said."""
    known = known_exceptions()
    day = known[as_of] if as_of in known else scheduled(as_of)
    return None if day is None else datetime.combine(day, _AT, NEW_YORK).astimezone(UTC)


@functools.cache
def _federal_holidays() -> tuple[date, ...]:
    from pandas.tseries.holiday import USFederalHolidayCalendar

    return tuple(USFederalHolidayCalendar().holidays("1990-01-01", "2040-12-31").date)
