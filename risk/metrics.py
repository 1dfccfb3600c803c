"""Performance metrics: pure functions of simple session returns, equity, trades and orders.

The functions on returns take an array of shape (..., n_returns) and reduce its last axis, so that one call serves a single track
record, a matrix of configurations or a block of bootstrap resamples. A metric that its definition leaves without a value is NaN,
never infinite; `performance` is the full list for one backtest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from config.conventions import Convention
from config.errors import InputError, QualityError
from risk.trade_metrics import exposure, trade_statistics, turnover

__all__ = [
    "cagr",
    "calmar",
    "checked_equity",
    "conditional_value_at_risk",
    "drawdowns",
    "excess_kurtosis",
    "max_drawdown",
    "max_drawdown_sessions",
    "omega",
    "performance",
    "returns_of",
    "sharpe",
    "skewness",
    "sortino",
    "total_return",
    "value_at_risk",
    "volatility",
]

FloatArray = npt.NDArray[np.float64]

# Returns are ratios of equities and carry rounding near 1e-16; a deviation below this is that rounding, not risk.
ROUNDING = 1e-14


def total_return(returns: npt.ArrayLike) -> FloatArray:
    """Compounded return over the whole period, as a fraction.

    Parameters
    ----------
    returns : array of shape (..., n_returns)
        Simple session returns.
    """
    values = _returns(returns)
    return np.asarray(np.prod(1.0 + values, axis=-1) - 1.0)


def cagr(returns: npt.ArrayLike, sessions_per_year: float = 252.0) -> FloatArray:
    """Compound annual growth rate: (final / first) ** (sessions_per_year / n_returns) − 1.

    Years are counted in sessions (docs/conventions.md, 5), not in calendar days. A total loss gives −1; no returns, NaN.
    """
    values = _returns(returns)
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    growth = np.maximum(np.prod(1.0 + values, axis=-1), 0.0)
    return np.asarray(growth ** (sessions_per_year / values.shape[-1]) - 1.0)


def volatility(returns: npt.ArrayLike, sessions_per_year: float = 252.0) -> FloatArray:
    """Annualised standard deviation (ddof 1); NaN for fewer than two returns."""
    return np.asarray(_deviation(_returns(returns)) * math.sqrt(sessions_per_year))


def sharpe(returns: npt.ArrayLike, sessions_per_year: float = 252.0, risk_free_ann: float = 0.0) -> FloatArray:
    """Annualised Sharpe ratio: √sessions_per_year × mean / deviation (ddof 1) of the returns over the risk-free rate.

    Parameters
    ----------
    returns : array of shape (..., n_returns)
        Simple session returns.
    sessions_per_year : float
        1 gives the ratio per session.
    risk_free_ann : float
        Yearly rate; `risk_free_ann` / `sessions_per_year` is taken off each return.

    Notes
    -----
    Without deviation the ratio is 0 when the mean is 0 too (an account that never traded earned nothing for no risk) and NaN
    otherwise; NaN for fewer than two returns.
    """
    excess = _returns(returns) - risk_free_ann / sessions_per_year
    return _ratio(_mean(excess), _deviation(excess), math.sqrt(sessions_per_year))


def sortino(returns: npt.ArrayLike, sessions_per_year: float = 252.0, risk_free_ann: float = 0.0) -> FloatArray:
    """Annualised Sortino ratio: mean excess over the root mean square of the losses, taken over *all* sessions.

    Notes
    -----
    0 when nothing was earned or lost, NaN when there was no loss or no return.
    """
    excess = _returns(returns) - risk_free_ann / sessions_per_year
    downside = np.sqrt(_mean(np.minimum(excess, 0.0) ** 2))
    return _ratio(_mean(excess), downside, math.sqrt(sessions_per_year))


def calmar(returns: npt.ArrayLike, sessions_per_year: float = 252.0) -> FloatArray:
    """Compound annual growth over the maximum drawdown; NaN without a drawdown."""
    depth = max_drawdown(returns)
    return np.asarray(np.divide(cagr(returns, sessions_per_year), depth, out=np.full_like(depth, np.nan), where=depth > ROUNDING))


def omega(returns: npt.ArrayLike, threshold: float = 0.0) -> FloatArray:
    """Sum of the gains over `threshold` (a return per session) over the sum of the losses below it; NaN without a loss."""
    beyond = _returns(returns) - threshold
    losses = np.asarray(np.maximum(-beyond, 0.0).sum(axis=-1))
    gains = np.asarray(np.maximum(beyond, 0.0).sum(axis=-1))
    return np.asarray(np.divide(gains, losses, out=np.full_like(losses, np.nan), where=losses > ROUNDING))


def drawdowns(returns: npt.ArrayLike) -> FloatArray:
    """Depth below the running peak, positive, at the start and after each return: shape (..., n_returns + 1)."""
    values = _returns(returns)
    growth = np.concatenate([np.ones((*values.shape[:-1], 1)), np.cumprod(1.0 + values, axis=-1)], axis=-1)
    return np.asarray(1.0 - growth / np.maximum.accumulate(growth, axis=-1))


def max_drawdown(returns: npt.ArrayLike) -> FloatArray:
    """Greatest fall from a running peak, as a positive fraction; 0 when the account never fell."""
    return np.asarray(drawdowns(returns).max(axis=-1))


def max_drawdown_sessions(returns: npt.ArrayLike) -> int:
    """Longest stretch of consecutive sessions that closed below a former peak, recovered or not; 0 without a drawdown."""
    below = drawdowns(np.asarray(returns, dtype=np.float64).ravel()) > ROUNDING
    # Counting up by one each session, less the count at the last session that was not below.
    count = np.arange(below.size)
    return int((count - np.maximum.accumulate(np.where(below, 0, count))).max())


def value_at_risk(returns: npt.ArrayLike, level: float = 0.95) -> float:
    """Historical value at risk of one session: the loss, positive, that 1 − `level` of the sessions reach or exceed.

    Notes
    -----
    The ⌈(1 − level) n⌉-th smallest return, without interpolation; NaN without returns.
    """
    ordered, place = _tail(returns, level)
    return math.nan if ordered.size == 0 else float(-ordered[math.ceil(round(place, 9)) - 1])


def conditional_value_at_risk(returns: npt.ArrayLike, level: float = 0.95) -> float:
    """Mean loss, positive, in the worst 1 − `level` of the sessions; the marginal session counts by its fraction.

    Notes
    -----
    Source: R. T. Rockafellar and S. Uryasev, "Conditional value-at-risk for general loss distributions", 2002.
    """
    ordered, place = _tail(returns, level)
    if ordered.size == 0:
        return math.nan
    whole = math.ceil(round(place, 9)) - 1
    return float(-(ordered[:whole].sum() + (place - whole) * ordered[whole]) / place)


def skewness(returns: npt.ArrayLike) -> FloatArray:
    """Third standardised moment (population); 0 for a normal sample, NaN without deviation."""
    return _moment(_returns(returns), 3)


def excess_kurtosis(returns: npt.ArrayLike) -> FloatArray:
    """Fourth standardised moment (population) less 3; 0 for a normal sample, NaN without deviation."""
    return np.asarray(_moment(_returns(returns), 4) - 3.0)


def checked_equity(equity: pd.Series) -> pd.Series:
    """Refuse an equity curve that no metric can be computed from.

    Parameters
    ----------
    equity : Series of shape (n_sessions,)
        Account value after each close, in account currency, indexed by session.

    Raises
    ------
    InputError
        The curve is empty.
    QualityError
        A value is NaN, infinite, zero or negative, or sessions do not ascend; the message names the session.
    """
    if equity.empty:
        raise InputError("the equity curve is empty: there is no session to measure", remedy="check the dates of the backtest")
    values = equity.to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values) | (values <= 0.0)
    if bad.any():
        place = int(bad.argmax())
        ruined = (
            "the account was ruined there" if math.isfinite(values[place]) else "a price was missing where a position was marked"
        )
        raise QualityError(
            f"equity is {values[place]:g} on {_day(equity.index[place])} (row {place} of {values.size}): {ruined}, and simple "
            "returns have no meaning from there on",
            remedy="mend the prices of that session, or end the series before it",
        )
    if not equity.index.is_monotonic_increasing or equity.index.has_duplicates:
        raise QualityError("the equity curve's sessions are not ascending and unique", remedy="sort it and drop repeated sessions")
    return equity.astype(np.float64)


def returns_of(equity: pd.Series) -> pd.Series:
    """Simple session returns of a checked equity curve, one fewer than its sessions."""
    return checked_equity(equity).pct_change(fill_method=None).iloc[1:]


def performance(equity: pd.Series, trades: pd.DataFrame, orders: pd.DataFrame, convention: Convention) -> dict[str, float]:
    """Every headline number of one backtest.

    Parameters
    ----------
    equity : Series of shape (n_sessions,)
        Account value after each session's close.
    trades : DataFrame
        Closed round trips, see `backtests.result.TRADE_COLUMNS`.
    orders : DataFrame
        Fills, see `backtests.result.ORDER_COLUMNS`.
    convention : Convention
        Annualisation and risk-free rate.

    Returns
    -------
    dict of str to float
        Fractions unless the name says otherwise; NaN where a metric has no value (one session, no trades, no losses), never
        infinite. `fees` and `expectancy` in account currency; `var_95` and `cvar_95` of one session, positive losses.

    Raises
    ------
    QualityError
        The equity is NaN, infinite or not positive; the message names the session.
    """
    returns = returns_of(equity).to_numpy()
    year = convention.sessions_per_year
    free = convention.risk_free_ann
    numbers: dict[str, Any] = {
        "final_equity": equity.iloc[-1],
        "total_return": total_return(returns),
        "cagr": cagr(returns, year),
        "volatility_ann": volatility(returns, year),
        "sharpe": sharpe(returns, year, free),
        "sortino": sortino(returns, year, free),
        "calmar": calmar(returns, year),
        "omega": omega(returns),
        "max_drawdown": max_drawdown(returns),
        "max_drawdown_sessions": max_drawdown_sessions(returns),
        "var_95": value_at_risk(returns),
        "cvar_95": conditional_value_at_risk(returns),
        "skew": skewness(returns),
        "excess_kurtosis": excess_kurtosis(returns),
        "best_session": returns.max() if returns.size else math.nan,
        "worst_session": returns.min() if returns.size else math.nan,
        **trade_statistics(trades),
        "orders": len(orders),
        "fees": orders["fee"].sum() if len(orders) else 0.0,
        "turnover_ann": turnover(equity, orders, year),
        "exposure": exposure(pd.DatetimeIndex(equity.index), orders),
        "sessions": len(equity),
    }
    return {name: float(value) for name, value in numbers.items()}


def _returns(returns: npt.ArrayLike) -> FloatArray:
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim == 0:
        raise InputError(f"returns must be an array, one value a session; got the single number {float(values)!r}")
    if not np.isfinite(values).all():
        place = tuple(int(axis) for axis in np.argwhere(~np.isfinite(values))[0])
        raise QualityError(
            f"returns hold {values[place]} at position {place}", remedy="fill or drop that session before measuring it"
        )
    return values


def _mean(values: FloatArray) -> FloatArray:
    return np.asarray(values.mean(axis=-1)) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


def _deviation(values: FloatArray) -> FloatArray:
    return np.asarray(values.std(axis=-1, ddof=1)) if values.shape[-1] > 1 else np.full(values.shape[:-1], np.nan)


def _ratio(mean: FloatArray, risk: FloatArray, scale: float) -> FloatArray:
    """`scale` × mean / risk, with the defined values where there is no risk."""
    idle = (risk <= ROUNDING) & (np.abs(mean) <= ROUNDING)
    ratio = np.divide(mean * scale, risk, out=np.full(np.shape(risk), np.nan), where=risk > ROUNDING)
    return np.asarray(np.where(idle, 0.0, ratio))


def _moment(values: FloatArray, order: int) -> FloatArray:
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], np.nan)
    centred = values - values.mean(axis=-1, keepdims=True)
    deviation = np.asarray(np.sqrt((centred**2).mean(axis=-1)))
    raw = np.asarray((centred**order).mean(axis=-1))
    return np.asarray(np.divide(raw, deviation**order, out=np.full_like(raw, np.nan), where=deviation > ROUNDING))


def _tail(returns: npt.ArrayLike, level: float) -> tuple[FloatArray, float]:
    """The returns in ascending order and how many of them, possibly a fraction, are the tail."""
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of a value at risk lies between 0 and 1; got {level!r}", remedy="0.95 is the usual one")
    ordered = np.sort(_returns(returns).ravel())
    return ordered, (1.0 - level) * ordered.size


def _day(session: Any) -> str:
    return session.strftime("%Y-%m-%d") if hasattr(session, "strftime") else str(session)
