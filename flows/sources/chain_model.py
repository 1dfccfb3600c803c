"""A model of an index's listed option chain, solved so that its own volatility index is the one that was observed.

1. `monthly_expiries` and `listed_strikes` say what is listed: a contract, once listed, stays listed until it expires.
2. `model_volatility` is the surface: an SSVI smile (Gatheral and Jacquier 2014) over a mean-reverting term structure.
3. `quote` turns model prices into bids and asks on listed ticks.
4. `solve_levels` finds, for all sessions at once by a secant, the thirty-day at-the-money volatility at which Cboe's method,
   applied to the quotes, returns the observed index.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from config.calendar import is_session, previous_session
from config.errors import InputError
from risk.greeks import price
from risk.volatility_index import INDEX_DAYS, strip_variance, volatility_index

__all__ = ["ChainModel", "Levels", "listed_strikes", "model_volatility", "monthly_expiries", "quote", "solve_levels"]

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

_DAYS = 365.0
_SOLVER_STEPS = 14
_SMALLEST_VARIANCE = 1e-4  # (1 %)^2: keeps total variance growing with time on the calmest days


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainModel:
    """Parameters of the modelled chain. All are assumptions, stated in every answer; none is fitted to a backtest.

    Parameters
    ----------
    rate_ann, dividend_yield_ann : float
        Continuously compounded, constant: near the averages of 2014 to 2018.
    correlation : float
        SSVI rho: tilt of the smile.
    curvature : float
        SSVI eta, in phi(theta) = eta / sqrt(theta (1 + theta)). Free of butterfly arbitrage while eta^2 (1 + |rho|) <= 4.
    reversion_ann : float
        Speed at which at-the-money variance returns to its long-run level, a year.
    long_run_volatility : float
        That level: near 0.84 of the long-run average of VIX.
    strike_step : float
        The finest step, in index points. Rings further from the money use 2, 5, 10 and 20 times it.
    rings, far_rings : tuple of (float, int)
        (distance from spot as a fraction, multiple of `strike_step`), for expiries within and beyond `fine_days`.
    put_reach, call_reach : float
        Furthest strikes, as fractions below and above spot.
    in_the_money : float
        How far into the money a contract is first listed, as a fraction of spot (at least one and a half steps).
    expiry_days, fine_days : int
        Monthly expiries up to `expiry_days` ahead; strikes of `rings` up to `fine_days`.
    half_spread, half_spread_fraction, half_spread_intrinsic, half_spread_most : float
        Half the bid-ask spread before ticks: a constant, plus a fraction of the time value, plus a fraction of the intrinsic
        value, at most `half_spread_most`; in index points.
    """

    rate_ann: float = 0.01
    dividend_yield_ann: float = 0.02
    correlation: float = -0.7
    curvature: float = 1.0
    reversion_ann: float = 3.0
    long_run_volatility: float = 0.165
    strike_step: float = 5.0
    rings: tuple[tuple[float, int], ...] = ((0.01, 1), (0.03, 2), (0.1, 5), (0.2, 10), (1.0, 20))
    far_rings: tuple[tuple[float, int], ...] = ((0.1, 5), (0.2, 10), (1.0, 20))
    put_reach: float = 0.4
    call_reach: float = 0.2
    in_the_money: float = 0.01
    expiry_days: int = 100
    fine_days: int = 50
    half_spread: float = 0.02
    half_spread_fraction: float = 0.0075
    half_spread_intrinsic: float = 0.02
    half_spread_most: float = 2.5

    def __post_init__(self) -> None:
        if self.curvature**2 * (1.0 + abs(self.correlation)) > 4.0 or abs(self.correlation) >= 1.0:
            raise InputError(
                f"the smile (correlation {self.correlation}, curvature {self.curvature}) allows butterfly arbitrage",
                remedy="keep curvature² × (1 + |correlation|) at most 4",
            )
        if self.expiry_days < 66:
            raise InputError(
                f"expiry_days is {self.expiry_days}: two monthly expiries around thirty days need 66",
                remedy="raise expiry_days",
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the canonical inputs."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Levels:
    """The solved thirty-day at-the-money volatilities, and what came back from the quotes.

    Parameters
    ----------
    volatility : ndarray of shape (n_sessions,)
        Yearly, as a fraction; NaN where no chain could be solved.
    index : ndarray of shape (n_sessions,)
        The volatility index of the modelled quotes, in points.
    """

    volatility: Floats
    index: Floats


def monthly_expiries(first: date, last: date) -> list[date]:
    """Third Fridays from `first` to `last` (both included); the session before where the exchange is closed on that Friday."""
    found = []
    month = date(first.year, first.month, 1)
    while month <= last:
        friday = month + timedelta(days=(4 - month.weekday()) % 7 + 14)
        day = friday if is_session(friday) else previous_session(friday).date()
        if first <= day <= last:
            found.append(day)
        month = (month + timedelta(days=32)).replace(day=1)
    return found


def listed_strikes(close: Floats, days: NDArray[np.int64], model: ChainModel) -> tuple[Floats, Flags, Flags]:
    """Which contracts of one expiry are listed at each of its sessions.

    Parameters
    ----------
    close : ndarray of shape (n_sessions,)
        The underlying, in session order, from the expiry's first listed session on.
    days : ndarray of shape (n_sessions,)
        Calendar days to expiry.

    Returns
    -------
    strike : ndarray of shape (n_strikes,)
    calls, puts : ndarray of bool of shape (n_sessions, n_strikes)
        Listed at that session: a strike enters when spot first brings it into reach, and stays.
    """
    step = model.strike_step
    low = np.floor(close.min() * (1.0 - model.put_reach) / step)
    high = np.ceil(close.max() * (1.0 + model.call_reach) / step)
    multiples = np.arange(max(low, 1.0), high + 1.0)
    strike = multiples * step
    distance = strike[None, :] / close[:, None] - 1.0
    away = np.abs(distance)
    wanted = np.zeros(distance.shape, dtype=bool)
    inside = np.zeros(close.shape)
    for rings, rows in ((model.rings, days <= model.fine_days), (model.far_rings, days > model.fine_days)):
        # One and a half of the step at the money, so that some strike below the forward has both a call and a put.
        inside = np.where(rows, np.maximum(model.in_the_money, 1.5 * step * rings[0][1] / close), inside)
        for reach, multiple in rings:
            wanted |= (away <= reach) & (multiples % multiple == 0) & rows[:, None]
    calls = wanted & (distance >= -inside[:, None]) & (distance <= model.call_reach)
    puts = wanted & (distance <= inside[:, None]) & (distance >= -model.put_reach)
    return strike, np.logical_or.accumulate(calls, axis=0), np.logical_or.accumulate(puts, axis=0)


def model_volatility(level: Floats, log_moneyness: Floats, years: Floats, model: ChainModel) -> Floats:
    """Volatility of the surface.

    Parameters
    ----------
    level : ndarray
        Thirty-day at-the-money volatility; all arguments broadcast.
    log_moneyness : ndarray
        Logarithm of strike over forward.
    years : ndarray
        Time to expiry, positive.
    """
    month = INDEX_DAYS / _DAYS
    long_run = model.long_run_volatility**2
    instant = np.maximum(long_run + (level**2 - long_run) / _decay(model.reversion_ann * month), _SMALLEST_VARIANCE)
    theta = years * (long_run + (instant - long_run) * _decay(model.reversion_ann * years))
    rho, scaled = model.correlation, model.curvature / np.sqrt(theta * (1.0 + theta)) * log_moneyness
    total = theta / 2.0 * (1.0 + rho * scaled + np.sqrt((scaled + rho) ** 2 + 1.0 - rho * rho))
    return np.asarray(np.sqrt(total / years), dtype=np.float64)


def _decay(speed_time: Floats | float) -> Floats:
    return np.asarray(-np.expm1(-np.asarray(speed_time)) / speed_time, dtype=np.float64)


def quote(is_call: Flags, spot: Floats, strike: Floats, value: Floats, model: ChainModel) -> tuple[Floats, Floats]:
    """Bid and ask around a model price: widened, then moved outwards to the tick (0.05 below 3.00, 0.10 from there)."""
    intrinsic = np.maximum(np.where(is_call, spot - strike, strike - spot), 0.0)
    time_value = np.maximum(value - intrinsic, 0.0)
    half = np.minimum(
        model.half_spread + model.half_spread_fraction * time_value + model.half_spread_intrinsic * intrinsic,
        model.half_spread_most,
    )
    return _to_tick(np.maximum(value - half, 0.0), np.floor), _to_tick(value + half, np.ceil)


def _to_tick(value: Floats, rounding: Any) -> Floats:
    per_unit = np.where(value < 3.0, 20.0, 10.0)
    # 1e-9: a value that is on a tick up to rounding stays there.
    nudge = 1e-9 if rounding is np.floor else -1e-9
    return np.asarray(np.round(rounding(value * per_unit + nudge) / per_unit, 2), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Strip:
    """The listed chain of one expiry a session: rows are sessions, columns strikes (NaN at the end)."""

    spot: Floats
    years: Floats
    strike: Floats
    calls: Flags
    puts: Flags


def solve_levels(spot: Floats, index: Floats, near: dict[str, Any], following: dict[str, Any], model: ChainModel) -> Levels:
    """Thirty-day at-the-money volatilities at which the quotes give back the observed index.

    Parameters
    ----------
    spot, index : ndarray of shape (n_sessions,)
        Close of the underlying, observed index in points.
    near, following : dict
        The two expiries around thirty days: `years` of shape (n_sessions,); `strike`, `calls`, `puts` of shape (n_sessions,
        n_strikes), as `listed_strikes` gives them, padded with NaN strikes.

    Notes
    -----
    Quotes lie on ticks, so the index is a staircase in the level: the secant is stopped after a fixed number of steps and the
    best level met is kept.
    """
    strips = [_Strip(spot=spot, **part) for part in (near, following)]

    def of(level: Floats) -> Floats:
        first, second = (_variance(strip, level, model) for strip in strips)
        return volatility_index(first, strips[0].years, second, strips[1].years)

    older = 0.0084 * index
    older_index = of(older)
    level = older * index / older_index
    best, best_index = older.copy(), older_index.copy()
    for _ in range(_SOLVER_STEPS):
        found = of(level)
        with np.errstate(invalid="ignore", divide="ignore"):
            better = np.abs(found - index) < np.abs(best_index - index)
            best, best_index = np.where(better, level, best), np.where(better, found, best_index)
            slope = (found - older_index) / (level - older)
            # On a step of the staircase the slope is useless: go on with the one of proportional volatilities.
            slope = np.where(np.isfinite(slope) & (slope > 40.0) & (slope < 400.0), slope, found / level)
            proposed = level + (index - found) / slope
        older, older_index = level, found
        level = np.clip(proposed, 0.5 * level, 2.0 * level)
    return Levels(volatility=best, index=best_index)


def _variance(strip: _Strip, level: Floats, model: ChainModel) -> Floats:
    shape = strip.strike.shape
    years, spot, listed = (np.broadcast_to(part[:, None], shape) for part in (strip.years, strip.spot, level))
    growth = (model.rate_ann - model.dividend_yield_ann) * years
    volatility = model_volatility(listed, np.log(strip.strike / spot) - growth, years, model)
    quotes: list[Floats] = []
    for is_call, on in ((True, strip.calls), (False, strip.puts)):
        side = np.full((2, *shape), np.nan)
        flags = np.full(int(on.sum()), is_call)
        value = price(flags, spot[on], strip.strike[on], years[on], model.rate_ann, model.dividend_yield_ann, volatility[on])
        side[0][on], side[1][on] = quote(flags, spot[on], strip.strike[on], value, model)
        quotes.extend(side)
    return strip_variance(strip.strike, *quotes, years=strip.years, rate=np.full(shape[0], model.rate_ann))
