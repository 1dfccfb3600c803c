"""Sliding-window and recursive arithmetic on arrays, in which each result depends on its own window and on nothing else.

A running sum drifts over a long history, and a sum over a cut history would round differently. Here every window is added by
the same tree of pairs wherever it lies (`window_sum`, `window_moments`), so the results are exact to the rounding of one plain
mean, do not drift, and are equal to the last bit when later rows are cut off.

All functions take float64 arrays of shape (n_rows, n_columns) and return the same shape; a window that is not full is NaN.
"""

from __future__ import annotations

import itertools
import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "lag", "rank_in_window", "smooth", "window_max", "window_min", "window_moments", "window_sum"]

FloatArray: TypeAlias = npt.NDArray[np.float64]


def lag(values: FloatArray, rows: int) -> FloatArray:
    """The value `rows` rows earlier; NaN in the first `rows` rows."""
    moved = np.full_like(values, np.nan)
    if rows < len(values):
        moved[rows:] = values[: len(values) - rows]
    return moved


def window_sum(values: FloatArray, window: int) -> FloatArray:
    """Sum of the `window` rows that end at each row, added pairwise.

    Sums of 1, 2, 4, ... rows are built by doubling; the window is put together from those that its binary form names, the
    newest rows first. About 2 log2(window) passes over the array.
    """
    total: FloatArray | None = None
    block, size, placed = values, 1, 0
    while True:
        if window & size:
            piece = lag(block, placed)
            total = piece if total is None else total + piece
            placed += size
        if placed == window:
            assert total is not None
            return total
        block = block + lag(block, size)
        size *= 2


def window_moments(values: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    """Mean and sum of squared deviations from it, over the `window` rows that end at each row.

    Two neighbouring blocks are combined by Chan, Golub and LeVeque's formula (1983, "Algorithms for computing the sample
    variance", The American Statistician 37), which loses no digits to a large common level. Equal values give exactly zero.
    """
    mean: FloatArray | None = None
    spread = np.zeros_like(values)
    block_mean, block_spread, size, placed = values, np.where(np.isnan(values), np.nan, 0.0), 1, 0
    while True:
        if window & size:
            older_mean, older_spread = lag(block_mean, placed), lag(block_spread, placed)
            if mean is None:
                mean, spread = older_mean, older_spread
            else:
                apart = older_mean - mean
                spread = spread + older_spread + apart * apart * (placed * size / (placed + size))
                mean = mean + apart * (size / (placed + size))
            placed += size
        if placed == window:
            assert mean is not None
            return mean, spread
        apart = lag(block_mean, size) - block_mean
        block_spread = block_spread + lag(block_spread, size) + apart * apart * (size / 2)
        block_mean = block_mean + apart * 0.5
        size *= 2


def window_max(values: FloatArray, window: int) -> FloatArray:
    """Largest of the `window` rows that end at each row."""
    block, size = values, 1
    while size * 2 <= window:
        block = np.maximum(block, lag(block, size))
        size *= 2
    return np.maximum(block, lag(block, window - size))


def window_min(values: FloatArray, window: int) -> FloatArray:
    """Smallest of the `window` rows that end at each row."""
    return -window_max(-values, window)


def rank_in_window(values: FloatArray, window: int) -> FloatArray:
    """Share of the `window` rows that end at each row whose value lies below the row's own, equal ones counted by half."""
    doubled = np.zeros(values.shape, dtype=np.int64)
    for rows in range(min(window, len(values))):
        earlier, now = values[: len(values) - rows], values[rows:]
        doubled[rows:] += earlier < now
        doubled[rows:] += earlier <= now
    full = ~np.isnan(window_sum(values, window))
    return np.where(full, doubled / (2 * window), np.nan)


def smooth(values: FloatArray, weight: float, seed: int) -> FloatArray:
    """Exponential smoothing ``s += weight * (x - s)``, started with the plain mean of the first `seed` values of each column.

    NaN rows are passed over: their result is NaN and the state stays. The mean is summed exactly (`math.fsum`).
    """
    result = np.full_like(values, np.nan)

    def advance(state: float, value: float) -> float:
        return state + weight * (value - state)

    for column in range(values.shape[1]):
        present = np.flatnonzero(~np.isnan(values[:, column]))
        if len(present) < seed:
            continue
        series = values[present, column].tolist()
        start = math.fsum(series[:seed]) / seed
        result[present[seed - 1 :], column] = list(itertools.accumulate(series[seed:], advance, initial=start))
    return result
