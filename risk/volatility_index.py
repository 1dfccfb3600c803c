"""The volatility index of an option chain by Cboe's published method, vectorised over chains.

1. `strip_variance` reads the forward off put-call parity at the strike where call and put are closest, takes the strip of
   out-of-the-money quotes under the zero-bid rule (`_strip`), and sums it with its strike weights (`_weights`).
2. `volatility_index` joins two expiries to a constant thirty days.

Source: Cboe, *Volatility Index Methodology: Cboe Volatility Index* (the VIX white paper).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from config.errors import InputError

__all__ = ["INDEX_DAYS", "strip_variance", "volatility_index"]

Floats: TypeAlias = NDArray[np.float64]

INDEX_DAYS = 30.0
_YEAR_DAYS = 365.0


def strip_variance(
    strike: ArrayLike,
    call_bid: ArrayLike,
    call_ask: ArrayLike,
    put_bid: ArrayLike,
    put_ask: ArrayLike,
    *,
    years: ArrayLike,
    rate: ArrayLike,
) -> Floats:
    """Yearly variance of each chain (one expiry, one moment) by the strip of its out-of-the-money options.

    Parameters
    ----------
    strike : array_like of shape (n_chains, n_strikes)
        Ascending in each row; pad with NaN at the end.
    call_bid, call_ask, put_bid, put_ask : array_like of shape (n_chains, n_strikes)
        Quotes; NaN where that side is not listed.
    years, rate : array_like of shape (n_chains,)
        Time to expiry, and the yearly continuously compounded rate to it.

    Returns
    -------
    ndarray of shape (n_chains,)
        Variance a year, as a fraction; NaN where a chain has no strike with both sides quoted, none at or below the forward,
        or fewer than two options in its strip.

    Raises
    ------
    InputError
        Arrays of different shapes.
    """
    k, cb, ca, pb, pa = (
        np.atleast_2d(np.asarray(part, dtype=np.float64)) for part in (strike, call_bid, call_ask, put_bid, put_ask)
    )
    if not k.shape == cb.shape == ca.shape == pb.shape == pa.shape:
        raise InputError(f"strikes and quotes have shapes {[part.shape for part in (k, cb, ca, pb, pa)]}; they must be one")
    t = np.broadcast_to(np.asarray(years, dtype=np.float64), k.shape[:1])
    growth = np.exp(np.asarray(rate, dtype=np.float64) * t)
    rows = np.arange(k.shape[0])

    call_mid, put_mid = (cb + ca) / 2.0, (pb + pa) / 2.0
    gap = np.abs(call_mid - put_mid)
    closest = np.argmin(np.where(np.isfinite(gap), gap, np.inf), axis=1)
    forward = k[rows, closest] + growth * (call_mid - put_mid)[rows, closest]
    below = np.isfinite(gap) & (k <= forward[:, None])
    has_centre = below.any(axis=1)
    centre = k.shape[1] - 1 - np.argmax(below[:, ::-1], axis=1)
    included = _strip(cb, pb, centre)
    columns = np.arange(k.shape[1])
    value = np.where(columns < centre[:, None], put_mid, call_mid)
    value[rows, centre] = ((call_mid + put_mid) / 2.0)[rows, centre]
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = np.where(included, _weights(k, included) / k**2 * value, 0.0)
        variance = 2.0 / t * growth * terms.sum(axis=1) - (forward / k[rows, centre] - 1.0) ** 2 / t
    return np.asarray(np.where(has_centre & (included.sum(axis=1) >= 2) & (t > 0.0), variance, np.nan), dtype=np.float64)


def volatility_index(near_variance: ArrayLike, near_years: ArrayLike, next_variance: ArrayLike, next_years: ArrayLike) -> Floats:
    """The index, in volatility points: total variances of two expiries interpolated to thirty days.

    Parameters
    ----------
    near_variance, next_variance : array_like
        Yearly, from `strip_variance`.
    near_years, next_years : array_like
        Times to expiry, around thirty days (30 / 365 of a year).

    Returns
    -------
    ndarray
        100 times a yearly volatility; NaN where a variance is, or where the interpolated variance is negative.
    """
    v1, t1, v2, t2 = (np.asarray(part, dtype=np.float64) for part in (near_variance, near_years, next_variance, next_years))
    month = INDEX_DAYS / _YEAR_DAYS
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = (t2 - month) / (t2 - t1)
        total = t1 * v1 * weight + t2 * v2 * (1.0 - weight)
        return np.asarray(100.0 * np.sqrt(total / month), dtype=np.float64)


def _strip(call_bid: Floats, put_bid: Floats, centre: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Options of the strip: from the centre outwards, without zero bids, ending before two zero bids in a row."""
    columns = np.arange(call_bid.shape[1])
    below, above = columns < centre[:, None], columns > centre[:, None]
    puts = _until_two_zeros(put_bid[:, ::-1], below[:, ::-1])[:, ::-1]
    calls = _until_two_zeros(call_bid, above)
    return np.asarray(puts | calls | (columns == centre[:, None]), dtype=bool)


def _until_two_zeros(bid: Floats, side: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Walk the columns in order over the listed options of one side; unlisted ones (NaN) neither count nor interrupt."""
    listed = side & np.isfinite(bid)
    zero = listed & (bid <= 0.0)
    # A listed option's predecessor on its side: the column of the last listed one before it.
    columns = np.arange(bid.shape[1])
    last = np.maximum.accumulate(np.where(listed, columns, -1), axis=1)
    before = np.concatenate([np.full((bid.shape[0], 1), -1), last[:, :-1]], axis=1)
    before_zero = np.take_along_axis(zero, np.maximum(before, 0), axis=1) & (before >= 0)
    ended = np.logical_or.accumulate(zero & before_zero, axis=1)
    return np.asarray(listed & ~zero & ~ended, dtype=bool)


def _weights(strike: Floats, included: NDArray[np.bool_]) -> Floats:
    """Half the distance between the included neighbours; at the ends the distance to the one neighbour."""
    n = strike.shape[1]
    columns = np.arange(n)
    last = np.maximum.accumulate(np.where(included, columns, -1), axis=1)
    lower = np.concatenate([np.full((strike.shape[0], 1), -1), last[:, :-1]], axis=1)
    following = np.minimum.accumulate(np.where(included, columns, n)[:, ::-1], axis=1)[:, ::-1]
    upper = np.concatenate([following[:, 1:], np.full((strike.shape[0], 1), n)], axis=1)
    has_lower, has_upper = lower >= 0, upper < n
    low = np.where(has_lower, np.take_along_axis(strike, np.maximum(lower, 0), axis=1), strike)
    high = np.where(has_upper, np.take_along_axis(strike, np.minimum(upper, n - 1), axis=1), strike)
    return (high - low) / np.where(has_lower & has_upper, 2.0, 1.0)
