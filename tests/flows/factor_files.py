"""Corporate actions read out of QuantConnect Lean's factor files, independently of the code that adjusts.

A file's rows say: until and including `through_date`, adjusted = raw × price_factor × split_factor. So the step from one row to the
next is one event, on the first session after `through_date`, and `reference_close` is the raw close of that day.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import pandas as pd

from config.calendar import next_session


@dataclass(frozen=True)
class Step:
    """One row of a factor file beside the next one."""

    through: date
    price_factor: float
    split_factor: float
    reference_close: float
    next_price_factor: float
    next_split_factor: float


def steps(path: Path) -> Iterator[Step]:
    rows = list(csv.DictReader(path.read_text().splitlines()))
    for row, after in pairwise(rows):
        yield Step(
            date.fromisoformat(row["through_date"]),
            *(float(row[name]) for name in ("price_factor", "split_factor", "reference_close")),
            float(after["price_factor"]),
            float(after["split_factor"]),
        )


# The letters the factor files do not tell. The Nasdaq-100 trust traded as QQQQ between December 2004 and March 2011. NationsBank
# (NB) bought BankAmerica (BAC) on 1998-09-30 and took its letters: the factors before that day are NationsBank's, the recorded
# bars of BAC are BankAmerica's, another company's.
SPELLS = {
    "QQQ": (("QQQ", "1998-01-01"), ("QQQQ", "2004-12-01"), ("QQQ", "2011-03-23")),
    "BAC": (("NB", "1998-01-01"), ("BAC", "1998-10-01")),
}
LETTERS = (
    ("QQQ", "2004-12-01", "rename", "", "QQQQ"),
    ("QQQQ", "2011-03-23", "rename", "", "QQQ"),
    ("BAC", "1998-10-01", "delisting", "", ""),
    ("NB", "1998-10-01", "rename", "", "BAC"),
)
SINCE = {"BAC": "1998-10-01"}


def letters_of(symbol: str, day: date) -> str:
    return next(name for name, since in reversed(SPELLS.get(symbol, ((symbol, "1998-01-01"),))) if f"{day}" >= since)


def actions(path: Path) -> list[tuple[str, str, str, float, str]]:
    """(letters, ex-date, kind, value, no new letters) of every step; the ex-date is the exchange's next session.

    A dividend's factor is 1 − amount / reference_close; a split's ratio is rounded to a thousandth, the files having seven digits.
    """
    found = []
    for step in steps(path):
        day = next_session(step.through).date()
        who = letters_of(path.stem, day)
        if step.next_split_factor != step.split_factor:
            found.append((who, f"{day}", "split", round(step.next_split_factor / step.split_factor, 3), ""))
        if step.next_price_factor != step.price_factor:
            amount = step.reference_close * (1 - step.price_factor / step.next_price_factor)
            found.append((who, f"{day}", "dividend", amount, ""))
    return found


def other_letters(path: Path) -> dict[str, list[tuple[str, float]]]:
    """The closes that the file itself gives (reference_close) while the company had other letters than the recorded bars'."""
    found: dict[str, list[tuple[str, float]]] = {}
    for step in list(steps(path))[1:]:  # the first row's reference is a placeholder
        who = letters_of(path.stem, step.through)
        if who != path.stem:
            found.setdefault(who, []).append((f"{step.through}", step.reference_close))
    return found


def expected_factors(path: Path, sessions: pd.DatetimeIndex) -> pd.DataFrame:
    """price_factor and split_factor of each session, straight from the file: the row of the first `through_date` not before it."""
    rows = pd.read_csv(path, parse_dates=["through_date"])
    place = rows["through_date"].searchsorted(sessions, side="left")
    return rows.iloc[place][["price_factor", "split_factor"]].set_axis(sessions, axis=0)
