"""The comparisons and the memory that rule strategies are made of; every one is causal (row t reads rows up to t)."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["TIE", "above", "below", "crossed_above", "equal_slices", "hold_between"]

TIE = 1e-9  # docs/conventions.md: nearer than this, relatively, is a tie, and a tie is no crossing


def above(left: pd.DataFrame, right: pd.DataFrame | float) -> pd.DataFrame:
    """Where `left` is greater than `right` by more than the tie tolerance; False where either is NaN."""
    return left - right > _tolerance(left, right)


def below(left: pd.DataFrame, right: pd.DataFrame | float) -> pd.DataFrame:
    """Where `left` is less than `right` by more than the tie tolerance; False where either is NaN."""
    return right - left > _tolerance(left, right)


def crossed_above(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Where `left` is above `right` and was below it when they last differed; ties and NaN are passed over."""
    side = pd.DataFrame(
        np.where(above(left, right), 1.0, np.where(below(left, right), -1.0, np.nan)), index=left.index, columns=left.columns
    )
    return (side == 1.0) & (side.ffill().shift(1) == -1.0)


def _tolerance(left: pd.DataFrame, right: pd.DataFrame | float) -> pd.DataFrame:
    size = np.maximum(left.abs().to_numpy(), right.abs().to_numpy() if isinstance(right, pd.DataFrame) else abs(right))
    return pd.DataFrame(TIE * size, index=left.index, columns=left.columns)


def hold_between(enter: pd.DataFrame, leave: pd.DataFrame) -> pd.DataFrame:
    """One from a session where `enter` is true until one where `leave` is; leaving wins when both are; zero before.

    Returns
    -------
    DataFrame of shape (n_sessions, n_symbols)
        0.0 or 1.0.
    """
    marks = pd.DataFrame(np.where(leave, 0.0, np.where(enter, 1.0, np.nan)), index=enter.index, columns=enter.columns)
    return marks.ffill().fillna(0.0)


def equal_slices(signal: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Turn a 0/1 signal into weights of one equal slice a symbol; NaN (no opinion) where `known` is false."""
    return (signal.astype(np.float64) / signal.shape[1]).where(known)
