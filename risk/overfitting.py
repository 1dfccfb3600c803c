"""Probability of backtest overfitting by combinatorially symmetric cross-validation (CSCV).

1. `pbo` cuts the sessions into an even number of equal blocks and sums returns and their squares by block (`_block_sums`).
2. Every half of the blocks is a training set, the rest its test set (`_halves`).
3. Sharpe ratios of all configurations on both sets come from the sums by matrix products (`_sharpes`), a chunk of splits at a time.
4. The training set's best configuration is ranked on the test set (`_relative_rank`); its logit is at most 0 when it lands in the
   lower half.

Source: D. Bailey, J. Borwein, M. López de Prado and Q. Zhu, "The probability of backtest overfitting", Journal of Computational
Finance 20(4), 2016 (working paper 2015).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.errors import InputError, QualityError

__all__ = ["Overfitting", "pbo"]

FloatArray = npt.NDArray[np.float64]

# Rows of splits handled at once: a few matrices of this many rows and one column a configuration live at the same time.
CHUNK_CELLS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Overfitting:
    """The outcome of CSCV.

    Parameters
    ----------
    probability : float
        Share of splits whose training winner lands in the lower half of the test set.
    logits : ndarray of shape (n_splits,)
        Logarithm of rank / (n_configurations + 1 − rank) of the training winner in the test set; splits in lexicographic order.
    loss_probability : float
        Share of splits whose training winner has a negative Sharpe ratio in the test set.
    sessions_dropped : int
        Sessions at the *end* that did not fill a block.
    """

    probability: float
    logits: FloatArray
    loss_probability: float
    sessions_dropped: int


def pbo(returns: npt.ArrayLike, blocks: int = 16) -> Overfitting:
    """Probability of backtest overfitting of a family of configurations.

    Parameters
    ----------
    returns : array of shape (n_sessions, n_configurations)
        Simple session returns of every configuration tried, over the same sessions.
    blocks : int
        Even, 4 to 24. The number of splits is blocks! / (blocks/2)!²: 12,870 for 16.

    Raises
    ------
    InputError
        Fewer than two configurations, an odd number of blocks, or fewer than two sessions a block.
    QualityError
        A return is NaN or infinite; the message names row and column.

    Notes
    -----
    Blocks have ⌊n_sessions / blocks⌋ sessions; what is left over at the end is dropped. A configuration that does not move has
    Sharpe ratio 0. Among equal winners of a training set the first column is taken; ties in the test set share their mean rank, so
    identical configurations give a logit of exactly 0. A logit of 0 counts as overfitted.
    """
    values = _checked(returns, blocks)
    length = values.shape[0] // blocks
    sums, squares = _block_sums(values[: length * blocks], blocks)
    halves = _halves(blocks)
    logits = np.empty(len(halves))
    losses = 0
    step = max(1, CHUNK_CELLS // values.shape[1])
    sessions = length * blocks // 2
    for start in range(0, len(halves), step):
        chosen = halves[start : start + step]
        train = _sharpes(chosen, sums, squares, sessions)
        test = _sharpes(1.0 - chosen, sums, squares, sessions)
        winners = train.argmax(axis=1)
        achieved = np.take_along_axis(test, winners[:, None], axis=1)
        rank = _relative_rank(test, achieved)
        logits[start : start + step] = np.log(rank / (1.0 - rank))
        losses += int((achieved < 0.0).sum())
    return Overfitting(
        probability=float((logits <= 1e-12).mean()),
        logits=logits,
        loss_probability=losses / len(halves),
        sessions_dropped=values.shape[0] - length * blocks,
    )


def _checked(returns: npt.ArrayLike, blocks: int) -> FloatArray:
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise InputError(
            f"overfitting is a property of a family: sessions × at least two configurations are needed; got shape {values.shape}",
            remedy="pass the returns of every configuration that was tried",
        )
    if blocks % 2 or not 4 <= blocks <= 24:
        raise InputError(f"the number of blocks must be even, from 4 to 24; got {blocks}", remedy="16 is the usual one")
    if values.shape[0] < 2 * blocks:
        raise InputError(
            f"{values.shape[0]} sessions are too few for {blocks} blocks of at least two", remedy="fewer blocks or a longer history"
        )
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise QualityError(
            f"configuration {column} has return {values[row, column]} in row {row}",
            remedy="drop that configuration, or the sessions it does not have, from the family",
        )
    return values


def _block_sums(values: FloatArray, blocks: int) -> tuple[FloatArray, FloatArray]:
    cut = values.reshape(blocks, -1, values.shape[1])
    return cut.sum(axis=1), np.einsum("blc,blc->bc", cut, cut)


def _halves(blocks: int) -> FloatArray:
    """One row a split: 1 where the block is in the training half."""
    splits = math.comb(blocks, blocks // 2)
    picks = np.fromiter(itertools.chain.from_iterable(itertools.combinations(range(blocks), blocks // 2)), dtype=np.intp)
    halves = np.zeros((splits, blocks))
    np.put_along_axis(halves, picks.reshape(splits, -1), 1.0, axis=1)
    return halves


def _sharpes(chosen: FloatArray, sums: FloatArray, squares: FloatArray, sessions: int) -> FloatArray:
    """Sharpe ratio per session (ddof 1) of each configuration on each half: shape (n_splits, n_configurations)."""
    mean = chosen @ sums / sessions
    power = chosen @ squares
    variance = (power - sessions * mean**2) / (sessions - 1)
    # Sums of squares cancel to about 1e-16 of their size; below that there is no deviation, and the ratio is 0.
    moving = variance > 1e-12 * power / sessions
    return np.divide(mean, np.sqrt(variance, where=moving, out=np.ones_like(variance)), out=np.zeros_like(mean), where=moving)


def _relative_rank(test: FloatArray, achieved: FloatArray) -> FloatArray:
    """Rank of `achieved` in each row, 1 for the worst, ties sharing their mean, over n_configurations + 1."""
    # Equal configurations come out of one matrix product with equal bits, but not always of two; rounding is not a difference.
    slack = 1e-12 * np.maximum(np.abs(achieved), 1e-3)
    below = (test < achieved - slack).sum(axis=1)
    equal = (np.abs(test - achieved) <= slack).sum(axis=1)
    return np.asarray((below + (equal + 1.0) / 2.0) / (test.shape[1] + 1.0))
