"""Evidence for one strategy version: walk-forward selection, and the statistics that the gates read.

1. `walk_forward` cuts the sessions into folds (`_fold_bounds`), picks in each the best configuration of the sessions before it,
   and stitches the out-of-sample returns.
2. `build_evidence` measures the result and adds the bootstrap interval, the deflated Sharpe ratio, the probability of overfitting
   (`_overfitting`) and the test of superior predictive ability (`_superiority`), each from its own seeded stream (`_seed`).

Strategies are causal: a configuration's return on a session depends on nothing later. So one pass over the whole history gives the
matrix *sessions × configurations*, and every fold is a slice of it; nothing is run again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtests.result import BacktestResult
from config.errors import InputError, QualityError
from config.settings import EvidenceSettings
from risk.metrics import performance, sharpe
from risk.statistics import bootstrap_intervals, deflated_sharpe_of, pbo, spa_test
from tracking.evidence import Evidence, Finding

__all__ = ["Fold", "WalkForward", "build_evidence", "walk_forward"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """One step of a walk-forward: what was chosen on the training sessions, and what it did on the next ones.

    Parameters
    ----------
    train, test : tuple of (Timestamp, Timestamp)
        First and last session, both included.
    configuration : str
        Name of the column chosen at the end of the training sessions.
    train_sharpe, test_sharpe : float
        Annualised; `test_sharpe` is of the returns after the cost of switching.
    """

    train: tuple[pd.Timestamp, pd.Timestamp]
    test: tuple[pd.Timestamp, pd.Timestamp]
    configuration: str
    train_sharpe: float
    test_sharpe: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkForward:
    """The stitched out-of-sample record.

    Parameters
    ----------
    folds : tuple of Fold
    returns : Series of shape (n_test_sessions,)
        Simple session returns of each fold's choice, after the cost of switching.
    sharpe : float
        Annualised, of `returns`.
    """

    folds: tuple[Fold, ...]
    returns: pd.Series
    sharpe: float


def walk_forward(
    returns: pd.DataFrame,
    *,
    folds: int = 5,
    mode: Literal["anchored", "rolling"] = "anchored",
    purge: int = 1,
    switch_cost: float = 0.0,
    sessions_per_year: float = 252.0,
    risk_free_ann: float = 0.0,
) -> WalkForward:
    """Choose the best configuration on the past, hold it over the next stretch, and repeat.

    Parameters
    ----------
    returns : DataFrame of shape (n_sessions, n_configurations)
        Simple session returns, costs included, of causal configurations.
    folds : int
        Out-of-sample stretches. The sessions are cut into folds + 1 equal parts; what is left over lengthens the first training
        set.
    mode : {"anchored", "rolling"}
        Train on everything before the fold, or on as many sessions as the first training set has.
    purge : int
        Sessions left out between training and test.
    switch_cost : float
        Fraction of equity taken off the first test session when the chosen configuration differs from the fold before: both may
        hold positions, so a whole round trip (twice fee plus slippage) is the cautious value.

    Raises
    ------
    InputError
        Too few sessions for the folds.
    QualityError
        A return is missing; the message names configuration and session.

    Notes
    -----
    The choice is the greatest training Sharpe ratio, the first column among equals. A configuration whose training ratio has no
    value (a constant gain) is never chosen unless all are so.
    """
    values = _complete(returns)
    part = values.shape[0] // (folds + 1) if folds >= 1 else 0
    if folds < 1 or purge < 0 or part < 2 or part - purge < 2:
        raise InputError(
            f"{values.shape[0]} sessions cannot be cut into {folds} walk-forward folds with {purge} purged",
            remedy="use fewer folds (evidence.walk_forward_folds) or a longer history",
        )
    stitched: list[FloatArray] = []
    done: list[Fold] = []
    for train, test in _fold_bounds(values.shape[0], folds, part, mode, purge):
        scores = sharpe(values[train].T, sessions_per_year, risk_free_ann)
        chosen = int(np.where(np.isnan(scores), -np.inf, scores).argmax())
        held = values[test, chosen].copy()
        if done and done[-1].configuration != str(returns.columns[chosen]):
            held[0] = (1.0 + held[0]) * (1.0 - switch_cost) - 1.0
        stitched.append(held)
        done.append(
            Fold(
                train=(returns.index[train][0], returns.index[train][-1]),
                test=(returns.index[test][0], returns.index[test][-1]),
                configuration=str(returns.columns[chosen]),
                train_sharpe=float(scores[chosen]),
                test_sharpe=float(sharpe(held, sessions_per_year, risk_free_ann)),
            )
        )
    record = pd.Series(np.concatenate(stitched), index=returns.index[-part * folds :], name="walk_forward")
    return WalkForward(folds=tuple(done), returns=record, sharpe=float(sharpe(record.to_numpy(), sessions_per_year, risk_free_ann)))


def build_evidence(
    result: BacktestResult,
    *,
    settings: EvidenceSettings,
    trials: int,
    trials_all: int,
    trial_sharpes: Sequence[float] | FloatArray,
    returns_matrix: pd.DataFrame,
    benchmark_returns: pd.Series | None,
    walk_forward: WalkForward | None,
    role: Literal["candidate", "benchmark"],
    universe_point_in_time: bool,
    findings: tuple[Finding, ...] = (),
) -> Evidence:
    """Measure one result and everything that speaks for or against it.

    Parameters
    ----------
    result : BacktestResult
        Its convention decides annualisation and risk-free rate.
    settings : EvidenceSettings
        Section `evidence` of the settings: samples, level, blocks, seed.
    trials, trials_all : int
        The ledger's counts, this configuration included: of the family, and of all families.
    trial_sharpes : sequence of float
        Sharpe ratios *per session* of all trials (of `trials_all`), NaN where one failed.
    returns_matrix : DataFrame of shape (n_sessions, n_configurations)
        Session returns of the family's configurations, this one included, over this result's sessions.
    benchmark_returns : Series of shape (n_sessions,), optional
        None for the benchmark itself: then there is no SPA test.
    walk_forward : WalkForward, optional
        Of the family.
    role : {"candidate", "benchmark"}
    universe_point_in_time : bool
        Whether membership was known at the time, or chosen with hindsight.

    Returns
    -------
    Evidence
        A Sharpe ratio without a value (returns that do not vary, as of idle cash at interest) shows no skill and counts as 0.
        `pbo` is None for fewer than two configurations; `spa_p` None without a benchmark; `dsr` None when the result's Sharpe
        ratio has no value. The same inputs give the same numbers: each bootstrap is seeded by the settings, the strategy's digest
        and its own name.

    Raises
    ------
    InputError
        Counts that contradict each other, a matrix or benchmark over other sessions, too short a result.
    QualityError
        NaN in the equity or the matrix.
    """
    convention = result.spec.convention
    year, free = convention.sessions_per_year, convention.risk_free_ann
    numbers = performance(result.equity, result.trades, result.orders, convention)
    returns = result.returns
    excess = returns.to_numpy(dtype=np.float64) - free / year
    if not 1 <= trials <= trials_all:
        raise InputError(
            f"{result.spec.name}: {trials} trials of the family and {trials_all} of all contradict each other",
            remedy="take both counts from the trial ledger after this run was recorded",
        )
    interval = bootstrap_intervals(
        returns.to_numpy(dtype=np.float64),
        {"sharpe": lambda sample: sharpe(sample, year, free)},
        rng=np.random.default_rng(_seed(settings.seed, result.spec.digest, "interval")),
        samples=settings.bootstrap_samples,
        level=settings.interval_level,
    )["sharpe"]
    valued = not math.isnan(numbers["sharpe"])
    return Evidence(
        strategy=result.spec.name,
        spec_digest=result.spec.digest,
        data_kind=result.data_kind,
        role=role,
        sessions=len(returns),
        trades=int(numbers["trades"]),
        total_return=numbers["total_return"],
        cagr=numbers["cagr"],
        volatility_ann=numbers["volatility_ann"],
        max_drawdown=numbers["max_drawdown"],
        sharpe=_or_nothing(numbers["sharpe"]),
        sharpe_interval=(_or_nothing(interval.low), _or_nothing(interval.high)),
        trials=trials,
        trials_all=trials_all,
        dsr=deflated_sharpe_of(excess, trial_sharpes, trials_all).probability if valued else None,
        pbo=_overfitting(returns_matrix, returns, settings.pbo_blocks),
        spa_p=_superiority(returns_matrix, returns, benchmark_returns, result, settings),
        walk_forward_sharpe=None if walk_forward is None or math.isnan(walk_forward.sharpe) else walk_forward.sharpe,
        universe_point_in_time=universe_point_in_time,
        findings=findings,
    )


def _or_nothing(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _overfitting(matrix: pd.DataFrame, returns: pd.Series, blocks: int) -> float | None:
    _same_sessions(matrix.index, returns.index, "the family's returns")
    return None if matrix.shape[1] < 2 else pbo(_complete(matrix), blocks).probability


def _superiority(
    matrix: pd.DataFrame, returns: pd.Series, benchmark: pd.Series | None, result: BacktestResult, settings: EvidenceSettings
) -> float | None:
    if benchmark is None:
        return None
    _same_sessions(benchmark.index, returns.index, "the benchmark's returns")
    seed = _seed(settings.seed, result.spec.digest, "spa")
    family = _complete(matrix)
    return spa_test(benchmark.to_numpy(dtype=np.float64), family, seed=seed, samples=settings.bootstrap_samples).consistent


def _same_sessions(given: pd.Index, wanted: pd.Index, what: str) -> None:
    if not given.equals(wanted):
        raise InputError(
            f"{what} cover {len(given)} sessions, the result {len(wanted)}, and they are not the same ones",
            remedy="run the family and the benchmark over the sessions of the result",
        )


def _fold_bounds(
    sessions: int, folds: int, part: int, mode: Literal["anchored", "rolling"], purge: int
) -> list[tuple[slice, slice]]:
    """(training rows, test rows) of each fold; the test parts are equal and reach the last session."""
    first = sessions - folds * part
    bounds = []
    for number in range(folds):
        begin = first + number * part
        start = 0 if mode == "anchored" else begin - first
        bounds.append((slice(start, begin - purge), slice(begin, begin + part)))
    return bounds


def _complete(returns: pd.DataFrame) -> FloatArray:
    values = returns.to_numpy(dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(f"the returns of at least one configuration are needed; got shape {values.shape}")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise QualityError(
            f"configuration {returns.columns[column]} has return {values[row, column]} on {returns.index[row]}",
            remedy="cut the family to the sessions that all configurations have, or drop that one",
        )
    return values


def _seed(seed: int, spec_digest: str, purpose: str) -> int:
    """A 32-bit seed of its own for each strategy version and purpose."""
    words = np.random.SeedSequence([seed, int(spec_digest[:16], 16), *purpose.encode()]).generate_state(1)
    return int(words[0])
