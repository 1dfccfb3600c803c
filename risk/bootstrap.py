"""Stationary bootstrap of session returns: resamples, and percentile intervals for any metric.

1. `block_length` picks the mean block from the data (Politis–White through `arch`).
2. `stationary_indices` draws resamples as index rows; `bootstrap_intervals` evaluates metrics on them, a chunk at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.errors import InputError, QualityError

__all__ = ["Interval", "block_length", "bootstrap_intervals", "stationary_indices"]

FloatArray = npt.NDArray[np.float64]
Metric = Callable[[FloatArray], npt.ArrayLike]

# Indices and returns of a chunk of resamples: two matrices of this many cells live at the same time.
CHUNK_CELLS = 500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A metric with its bootstrap interval.

    Parameters
    ----------
    value : float
        Of the sample itself.
    low, high : float
        Percentiles of the metric over the resamples; NaN where no resample has a value.
    level : float
    samples : int
        Resamples on which the metric had a value.
    """

    value: float
    low: float
    high: float
    level: float
    samples: int


def block_length(returns: npt.ArrayLike) -> float:
    """Mean block length for the stationary bootstrap, chosen from the data's autocorrelation; at least 1.

    Notes
    -----
    Source: D. Politis and H. White (2004), corrected with A. Patton (2009), as `arch.bootstrap.optimal_block_length`. A series
    that does not move gives 1.
    """
    values = one_record(returns)
    if values.size < 8 or float(np.ptp(values)) == 0.0:
        return 1.0
    from arch.bootstrap import optimal_block_length

    length = float(optimal_block_length(values)["stationary"].iloc[0])
    return min(max(length, 1.0), values.size / 3.0) if math.isfinite(length) else 1.0


def stationary_indices(n_returns: int, resamples: int, mean_block: float, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Index rows of stationary-bootstrap resamples.

    Parameters
    ----------
    n_returns : int
        Length of the sample and of each resample.
    mean_block : float
        Blocks have geometric lengths with this mean, start anywhere and wrap around the end; 1 is the plain bootstrap.

    Returns
    -------
    ndarray of shape (resamples, n_returns)

    Notes
    -----
    Source: D. Politis and J. Romano, "The stationary bootstrap", Journal of the American Statistical Association 89, 1994.
    """
    if n_returns < 1 or resamples < 1 or not mean_block >= 1.0:
        raise InputError(
            f"cannot resample {n_returns} returns {resamples} times in blocks of {mean_block}: each must be at least 1"
        )
    begins = rng.random((resamples, n_returns), dtype=np.float32) < 1.0 / mean_block
    starts = rng.integers(0, n_returns, size=(resamples, n_returns), dtype=np.int32)
    steps = np.arange(n_returns, dtype=np.int32)
    # The session at which each one's block began; the first block begins at 0 whatever was drawn.
    begun = np.maximum.accumulate(np.where(begins, steps, np.int32(0)), axis=1)
    return np.asarray((np.take_along_axis(starts, begun, axis=1) + (steps - begun)) % np.int32(n_returns), dtype=np.int32)


def bootstrap_intervals(
    returns: npt.ArrayLike,
    metrics: Mapping[str, Metric],
    *,
    rng: np.random.Generator,
    samples: int = 1000,
    level: float = 0.95,
    mean_block: float | None = None,
) -> dict[str, Interval]:
    """Percentile intervals of several metrics from the same stationary-bootstrap resamples.

    Parameters
    ----------
    returns : array of shape (n_returns,)
        Simple session returns.
    metrics : mapping of str to function
        Each takes an array of shape (..., n_returns) and reduces the last axis, as those of `risk.metrics` do.
    rng : Generator
        The only source of randomness.
    samples : int
        Resamples.
    level : float
        0.95 leaves 2.5 % of the resamples on either side.
    mean_block : float, optional
        Chosen by `block_length` when not given.

    Raises
    ------
    InputError
        Fewer than two returns, or a level outside 0 to 1.
    """
    values = one_record(returns)
    if values.size < 2:
        raise InputError(f"a bootstrap interval needs at least 2 returns; got {values.size}", remedy="use a longer sample")
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of an interval lies between 0 and 1; got {level!r}", remedy="0.95 is the usual one")
    block = block_length(values) if mean_block is None else mean_block
    drawn = {name: np.empty(samples) for name in metrics}
    step = max(1, CHUNK_CELLS // values.size)
    for start in range(0, samples, step):
        count = min(step, samples - start)
        resampled = values[stationary_indices(values.size, count, block, rng)]
        for name, metric in metrics.items():
            drawn[name][start : start + count] = metric(resampled)
    return {name: _interval(float(np.asarray(metric(values))), drawn[name], level) for name, metric in metrics.items()}


def one_record(returns: npt.ArrayLike) -> FloatArray:
    """Session returns as one array without gaps, or the error that says what is wrong with them."""
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"one track record is needed, an array of one dimension; got shape {values.shape}")
    if not np.isfinite(values).all():
        place = int((~np.isfinite(values)).argmax())
        raise QualityError(f"return {values[place]} at position {place}", remedy="fill or drop that session before measuring it")
    return values


def _interval(value: float, drawn: FloatArray, level: float) -> Interval:
    known = drawn[np.isfinite(drawn)]
    if known.size == 0:
        return Interval(value=value, low=math.nan, high=math.nan, level=level, samples=0)
    low, high = np.quantile(known, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(value=value, low=float(low), high=float(high), level=level, samples=int(known.size))
