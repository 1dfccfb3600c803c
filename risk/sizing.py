"""How much to put where: volatility targeting and minimum-variance weights for a wanted return."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from config.errors import InputError, QualityError

__all__ = ["OptimalPortfolio", "minimum_variance", "volatility_target_fraction"]


@dataclass(frozen=True, kw_only=True)
class OptimalPortfolio:
    """Weights with what the sample says they would have earned.

    Parameters
    ----------
    weights : Series of shape (n_symbols,)
        Fractions of the invested capital, not negative, summing to 1.
    expected_return_ann, volatility_ann : float
        Of the sample: mean and deviation (ddof 1) of its sessions, annualised. No forecast.
    invested_fraction : float
        Share of the capital that keeps the volatility within the manager's limit; the rest stays cash.
    """

    weights: pd.Series
    expected_return_ann: float
    volatility_ann: float
    invested_fraction: float


def volatility_target_fraction(volatility_ann: float, max_volatility_ann: float) -> float:
    """Fraction of capital to invest so that volatility stays at or below a limit: min(1, limit / volatility).

    Never above 1: a calm market does not lead to borrowing.

    Raises
    ------
    InputError
        A volatility that is not a positive number.
    """
    for name, value in (("volatility", volatility_ann), ("max_volatility", max_volatility_ann)):
        if not (math.isfinite(value) and value > 0.0):
            raise InputError(
                f"{name} must be a positive yearly fraction; got {value!r}", remedy="0.2 means 20 % a year; measure it on more data"
            )
    return min(1.0, max_volatility_ann / volatility_ann)


def minimum_variance(
    returns: pd.DataFrame, target_return_ann: float, *, max_volatility_ann: float, sessions_per_year: float = 252.0
) -> OptimalPortfolio:
    """Long-only weights of least variance whose sample mean reaches `target_return_ann`.

    Parameters
    ----------
    returns : DataFrame of shape (n_sessions, n_symbols)
        Simple session returns, no NaN.
    target_return_ann : float
        Yearly arithmetic return, a fraction; a target that the minimum-variance portfolio exceeds does not bind.
    max_volatility_ann : float
        For `OptimalPortfolio.invested_fraction`.

    Raises
    ------
    InputError
        The target is beyond the best symbol's mean (the message gives the range), or the sample is too small.
    QualityError
        A return is missing; the message names symbol and session.

    Notes
    -----
    Mean and covariance are the sample's; the quadratic programme is solved by SciPy's SLSQP on the covariance scaled to a mean
    variance of one, from a start that satisfies the constraints. Source: H. Markowitz, "Portfolio selection", Journal of Finance,
    1952.
    """
    values = _checked(returns)
    mean = values.mean(axis=0) * sessions_per_year
    covariance = np.cov(values, rowvar=False, ddof=1).reshape(mean.size, mean.size) * sessions_per_year
    best, worst = float(mean.max()), float(mean.min())
    if not (math.isfinite(target_return_ann) and target_return_ann <= best + 1e-12):
        raise InputError(
            f"no long-only portfolio of {', '.join(map(str, returns.columns))} earned {target_return_ann:g} a year in this sample",
            remedy=f"ask for {worst:.4f} to {best:.4f}: the symbols' own mean yearly returns",
        )
    weights = _solve(mean, covariance, target_return_ann)
    volatility = math.sqrt(max(float(weights @ covariance @ weights), 0.0))
    return OptimalPortfolio(
        weights=pd.Series(weights, index=returns.columns, name="weight"),
        expected_return_ann=float(weights @ mean),
        volatility_ann=volatility,
        invested_fraction=volatility_target_fraction(volatility, max_volatility_ann) if volatility > 0.0 else 1.0,
    )


def _checked(returns: pd.DataFrame) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    values = returns.to_numpy(dtype=np.float64)
    if values.shape[0] < 2 or values.shape[1] < 1 or not returns.columns.is_unique:
        raise InputError(
            f"an optimisation needs at least two sessions and one symbol, each once; got shape {values.shape}",
            remedy="pass session returns, one column a symbol",
        )
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise QualityError(
            f"the return of {returns.columns[column]} on {returns.index[row]} is {values[row, column]}",
            remedy="drop the sessions before a symbol was listed, or that symbol",
        )
    return values


def _solve(
    mean: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    covariance: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    target: float,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    from scipy.optimize import minimize

    size = mean.size
    if size == 1:
        return np.ones(1)
    scale = float(np.trace(covariance)) / size or 1.0
    scaled = covariance / scale
    spread = max(float(np.ptp(mean)), 1e-12)
    # The start meets both constraints: equal weights moved towards the best symbol as far as the target asks.
    start = np.full(size, 1.0 / size)
    top = np.zeros(size)
    top[int(mean.argmax())] = 1.0
    lacking = target - float(start @ mean)
    if lacking > 0.0:
        share = min(1.0, lacking / max(float(mean.max() - start @ mean), 1e-300))
        start = (1.0 - share) * start + share * top
    constraints = (
        {"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda _: np.ones(size)},
        {"type": "ineq", "fun": lambda w: (w @ mean - target) / spread, "jac": lambda _: mean / spread},
    )
    found = minimize(
        lambda w: w @ scaled @ w,
        start,
        jac=lambda w: 2.0 * scaled @ w,
        bounds=[(0.0, 1.0)] * size,
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    weights = np.clip(np.asarray(found.x, dtype=np.float64), 0.0, 1.0)
    weights /= weights.sum()
    # Status 8 says that no direction descends at the wanted precision: an answer, provided that it meets the target.
    if found.status not in (0, 8) or float(weights @ mean) < target - 1e-6 * spread:
        raise InputError(
            f"the optimiser gave up after {found.nit} steps: {found.message}",
            remedy="look for symbols with identical or constant returns, and drop them",
        )
    return weights
