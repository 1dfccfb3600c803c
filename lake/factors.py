"""From splits and payments to the two factors of each bar, by which prices as traded are adjusted.

1. `_placed` finds the bar before which each event acts, and joins those that act before the same one.
2. `_last_close` finds the close that a payment is taken out of; `_refuse_payment` refuses what cannot be right.
3. `factors` multiplies each series' events from its end to its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from config.errors import QualityError

__all__ = ["REFERENCE_DAYS", "Factors", "factors"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
REFERENCE_DAYS = 31


@dataclass(frozen=True, kw_only=True, slots=True)
class Factors:
    """What each bar is multiplied with.

    Parameters
    ----------
    price : ndarray of shape (n_bars,)
        For cash paid later: the product of 1 − amount / close before the ex-date.
    split : ndarray of shape (n_bars,)
        For splits later: one over the product of new shares for an old one. Volume is divided by it.
    """

    price: FloatArray
    split: FloatArray


def factors(
    sessions: npt.NDArray[np.datetime64],
    close: FloatArray,
    ex_dates: npt.NDArray[np.datetime64],
    ratios: FloatArray,
    cash: FloatArray,
    *,
    series: npt.NDArray[np.int64] | None = None,
    event_series: npt.NDArray[np.int64] | None = None,
    names: Sequence[str] = (),
    reference_days: int | None = REFERENCE_DAYS,
) -> Factors:
    """The factors of bars as traded, by splits and cash of later ex-dates.

    An event acts on the bars before the first session on or after its ex-date; with an ex-date not after a series' first bar, or
    after its last, on none. So the last bar is always as traded, and the factor of one bar to another depends on the events
    between the two only: cutting the future off changes levels by one constant, and no return.

    Parameters
    ----------
    sessions : ndarray of datetime64[D], shape (n_bars,)
        Ascending within a series; an intraday series has several bars a session.
    close : ndarray of shape (n_bars,)
        As traded, in the instrument's currency; NaN where there is none.
    ex_dates : ndarray of datetime64[D], shape (n_events,)
    ratios : ndarray of shape (n_events,)
        New shares for one old; 1 for cash only.
    cash : ndarray of shape (n_events,)
        Amount a share, of the shares that trade on the ex-date: after a split of the same day. 0 for a split only.
    series, event_series : ndarray of int, shapes (n_bars,), (n_events,)
        Which series a bar (ascending) and an event belong to; all to one by default.
    names : sequence of str
        Of the series, for messages.
    reference_days : int or None
        How many calendar days the close that a payment is taken out of may lie before the ex-date; None: any number.

    Returns
    -------
    Factors
        Never NaN. An event's own: ``1 / ratio`` and ``1 − cash × ratio / P``, P the last close before the ex-date (a NaN close is
        passed over), as in the factor files of QuantConnect's Lean and in Yahoo's adjusted close. (CRSP and Tiingo pay the amount
        back in at the close C of the ex-date, ``C / (C + cash)``: the same but for the amount times that day's return.)

    Raises
    ------
    QualityError
        A ratio is not positive, cash is negative, or not below the price it is paid out of, or there is no such price, or only one
        that is too old: bars are missing.

    Examples
    --------
    A dividend of 1 on the third day, out of a close of 50; a two-for-one split on the fourth:

    >>> import numpy as np
    >>> days = np.array(["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"], "datetime64[D]")
    >>> found = factors(days, np.array([40.0, 50.0, 49.0, 25.0]), days[2:], np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    >>> [round(float(value), 4) for value in found.price], [float(value) for value in found.split]
    ([0.98, 0.98, 1.0, 1.0], [0.5, 0.5, 0.5, 1.0])
    """
    bars = len(sessions)
    price, split = np.ones(bars), np.ones(bars)
    of_bar = np.zeros(bars, dtype=np.int64) if series is None else series
    of_event = np.zeros(len(ex_dates), dtype=np.int64) if event_series is None else event_series
    row, first, ratio, cash_of_old, last_day = _placed(sessions, of_bar, ex_dates, of_event, ratios, cash, names)
    if not len(row):
        return Factors(price=price, split=split)
    before = _last_close(close, row, first)
    reference = close[before]
    factor = np.ones(len(row))
    pays = cash_of_old > 0
    with np.errstate(invalid="ignore"):
        factor[pays] = 1 - (cash_of_old / reference)[pays]
    days = (last_day - sessions[before].astype("datetime64[D]")).astype(np.int64)
    old = days > (np.iinfo(np.int64).max if reference_days is None else reference_days)
    wrong = np.flatnonzero(pays & (~(factor > 0) | old))
    if len(wrong):
        at = int(wrong[0])
        told = f"{_name(names, of_bar[row[at]])}: {cash_of_old[at] / ratio[at]:g} a share is paid on {last_day[at]}"
        _refuse_payment(told, cash_of_old[at], float(reference[at]), sessions[before[at]], int(days[at]), bool(factor[at] > 0))
    # Each stretch of bars between two events of a series has one factor: the product of the series' events after it.
    for begin in np.flatnonzero(np.r_[True, first[1:] != first[:-1]]):
        end = int(np.searchsorted(first, first[begin], side="right"))
        lengths = np.diff(np.r_[first[begin], row[begin:end]])
        stretch = slice(int(first[begin]), int(row[end - 1]))
        price[stretch] = np.repeat(np.cumprod(factor[begin:end][::-1])[::-1], lengths)
        split[stretch] = np.repeat(1 / np.cumprod(ratio[begin:end][::-1])[::-1], lengths)
    return Factors(price=price, split=split)


def _placed(
    sessions: npt.NDArray[np.datetime64],
    of_bar: npt.NDArray[np.int64],
    ex_dates: npt.NDArray[np.datetime64],
    of_event: npt.NDArray[np.int64],
    ratios: FloatArray,
    cash: FloatArray,
    names: Sequence[str],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray, FloatArray, npt.NDArray[np.datetime64]]:
    """The events that act: the bar each comes before, its series' first bar, ratio, cash and day; those of one bar in one.

    Cash is that of a share of before all of them: where bars are missing between two ex-dates, an amount is multiplied with the
    splits up to its own ex-date, not with those after it.
    """
    bad = np.flatnonzero(~(ratios > 0) | ~np.isfinite(ratios) | ~(cash >= 0) | ~np.isfinite(cash))
    if len(bad):
        at = int(bad[0])
        raise QualityError(
            f"{_name(names, of_event[at])}: the action of {ex_dates[at]} has the ratio {ratios[at]:g} and the amount {cash[at]:g}",
            remedy="a ratio is positive, an amount not negative: correct the corporate action",
        )
    span = np.int64(1) << 32
    days = sessions.astype("datetime64[D]").astype(np.int64)
    bar_key = of_bar * span + days
    row = np.searchsorted(bar_key, of_event * span + ex_dates.astype("datetime64[D]").astype(np.int64), side="left")
    first = np.searchsorted(of_bar, of_event, side="left")
    last = np.searchsorted(of_bar, of_event, side="right")
    acts = (row > first) & (row < last)
    row, first, ratios, cash = row[acts], first[acts], ratios[acts], cash[acts]
    together, event = np.unique(row, return_inverse=True)
    ratio = np.ones(len(together))
    np.multiply.at(ratio, event, ratios)
    days_of = ex_dates[acts].astype("datetime64[D]")
    shares = ratios.copy()  # that trade on the ex-date, for one of before
    for several in np.flatnonzero(np.bincount(event, minlength=len(together)) > 1):
        mine = np.flatnonzero(event == several)
        shares[mine] = [float(np.prod(ratios[mine[days_of[mine] <= days_of[one]]])) for one in mine]
    paid: FloatArray = np.zeros(len(together))
    np.add.at(paid, event, cash * shares)
    begins = np.zeros(len(together), dtype=np.int64)
    begins[event] = first
    last_day = np.full(len(together), np.datetime64("0001-01-01", "D"))
    np.maximum.at(last_day, event, days_of)
    return np.asarray(together, dtype=np.int64), begins, ratio, paid, last_day


def _last_close(close: FloatArray, row: npt.NDArray[np.int64], first: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where the last close before each row is that is a number, of the same series; the row before where there is none."""
    found = row - 1
    for event in np.flatnonzero(np.isnan(close[found])):
        before = np.flatnonzero(~np.isnan(close[first[event] : row[event]]))
        if len(before):
            found[event] = first[event] + before[-1]
    return found


def _refuse_payment(told: str, of_old: float, reference: float, day: np.datetime64, age: int, possible: bool) -> None:
    if possible:
        raise QualityError(
            f"{told}; the last close before it is of {day}, {age} days earlier: prices cannot be adjusted by it",
            remedy="ingest the bars in between (quant data check lists the gaps), or take the older close: reference_days=None",
        )
    price = "there is no close before it" if np.isnan(reference) else f"the close before it is {reference:g}"
    raise QualityError(
        f"{told}, {of_old:g} for a share of before, and {price}: prices cannot be adjusted by it",
        remedy="correct the corporate action (its amount, its currency) or the bar; quant data check",
    )


def _name(names: Sequence[str], series: Any) -> str:
    return names[int(series)] if int(series) < len(names) else f"series {int(series)}"
