"""A macro series as it was published: every vintage, the first release, the newest values, and what was known at a moment.

`vintages` is the history that the others are views of: `first_release`, `latest` and `as_of`. Each reads a published snapshot, one
source a series (`one_source`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING

import pandas as pd

from config.clock import require_utc
from config.errors import InputError, UnknownNameError, did_you_mean
from features.macro import one_source

if TYPE_CHECKING:
    from lake import Snapshot

__all__ = ["as_of", "first_release", "latest", "vintages"]

_COLUMNS = ["series", "period", "vintage", "source", "value", "unit", "available_at"]


def vintages(
    snapshot: Snapshot,
    series: str,
    *,
    source: str | None = None,
    start: date | None = None,
    end: date | None = None,
) -> pd.DataFrame:
    """Every vintage of a series.

    Parameters
    ----------
    snapshot : Snapshot
    series : str
        Such as ``GDP``.
    source : str, optional
        Needed where several sources hold the series.
    start, end : date, optional
        Periods, both included.

    Returns
    -------
    DataFrame of shape (n_vintages, 6)
        `period` and `vintage` (naive midnights), `value` (NaN: the source's own missing, or taken back), `unit` (of that vintage:
        a new base year is another unit), `available_at` (the moment from which the value counts as known, UTC) and `valid_until`
        (the last day before the next vintage of that period; NaT while it is the newest). Sorted by period and vintage.

    Raises
    ------
    UnknownNameError
        The snapshot holds no such series.
    InputError
        Several sources hold it and none was chosen.
    """
    found = snapshot.read("macro_observations", where={"series": [series]}, start=start, end=end, columns=_COLUMNS)
    if found.num_rows == 0 and start is None and end is None:
        held = snapshot.read("macro_observations", columns=["series"])["series"].unique().to_pylist()
        raise UnknownNameError(f"no macro series is called {series!r}", remedy=did_you_mean(series, sorted(held)))
    chosen: str | Mapping[str, str] | None = source
    rows = one_source(found, "series", chosen, argument="source")
    if found.num_rows and not rows.num_rows:
        raise UnknownNameError(f"{source} holds no series {series!r}", remedy="leave the source out, or ingest it from there")
    frame = pd.DataFrame(
        {
            "period": pd.to_datetime(rows["period"].to_pandas()),
            "vintage": pd.to_datetime(rows["vintage"].to_pandas()),
            "value": rows["value"].to_pandas().astype("float64"),
            "unit": rows["unit"].to_pandas(),
            "available_at": rows["available_at"].to_pandas(),
        }
    ).sort_values(["period", "vintage"], ignore_index=True)
    following = frame.groupby("period")["vintage"].shift(-1)
    frame["valid_until"] = following - pd.Timedelta(days=1)
    return frame


def first_release(snapshot: Snapshot, series: str, *, source: str | None = None) -> pd.Series:
    """The value that was published first for each period, whatever it was revised to since.

    Returns
    -------
    Series of float over `period`
        A missing value ("." in FRED) is no release: the first number counts. Periods that never had one are left out.
        The value of a period was known from its own `available_at` on (see `vintages`), so a row is not one moment's knowledge.
    """
    known = vintages(snapshot, series, source=source).dropna(subset="value")
    return _by_period(known.drop_duplicates("period", keep="first"), series)


def latest(snapshot: Snapshot, series: str, *, source: str | None = None) -> pd.Series:
    """The newest value of each period: with hindsight, all revisions to date.

    Returns
    -------
    Series of float over `period`
        NaN where the newest vintage has no value.
    """
    return _by_period(vintages(snapshot, series, source=source).drop_duplicates("period", keep="last"), series)


def as_of(snapshot: Snapshot, series: str, when: datetime | date, *, source: str | None = None) -> pd.Series:
    """What was known of a series at a moment.

    Parameters
    ----------
    when : datetime or date
        A moment, aware: what was available by then (`available_at`, which is never early). A date: the vintages dated up to and
        including that day, as FRED itself shows a day in the past.

    Returns
    -------
    Series of float over `period`
        The newest value of each period that had been published; NaN where it was missing then. Empty before the first vintage.

    Raises
    ------
    InputError
        The moment has no time zone.
    """
    frame = vintages(snapshot, series, source=source)
    if isinstance(when, datetime):
        try:
            known = frame[frame["available_at"] <= require_utc(when, "when")]
        except ValueError as problem:
            raise InputError(str(problem)) from None
    else:
        known = frame[frame["vintage"] <= pd.Timestamp(when)]
    return _by_period(known.drop_duplicates("period", keep="last"), series)


def _by_period(rows: pd.DataFrame, series: str) -> pd.Series:
    return pd.Series(rows["value"].to_numpy(), index=pd.DatetimeIndex(rows["period"], name="period"), name=series)
