"""European option prices, Greeks and implied volatility under Black, Scholes and Merton, vectorised.

1. `price` works on the out-of-the-money side of each contract, in scaled complementary error functions (`_log_normalised`,
   `_normalised`), and adds the intrinsic value of the forward: deep prices keep their relative precision.
2. `greeks` gives price, delta, gamma, vega, theta and rho in one pass.
3. `implied_volatility` inverts the same functions by a bracketed Halley iteration (`_solve`).
4. `forward_from_parity` reads forward and discount off a chain's own call and put quotes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erfcx, erfinv, ndtr

from config.errors import InputError

__all__ = ["DAYS_PER_YEAR", "Greeks", "forward_from_parity", "greeks", "implied_volatility", "price"]

Floats: TypeAlias = NDArray[np.float64]

DAYS_PER_YEAR = 365.0
_ROOT_2 = np.sqrt(2.0)
_ROOT_2PI = np.sqrt(2.0 * np.pi)
_MOST_STEPS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Greeks:
    """Sensitivities of one unit of the underlying's worth of option (times the multiplier for a contract).

    Parameters
    ----------
    price : ndarray
        In the underlying's currency.
    delta : ndarray
        Per unit of spot.
    gamma : ndarray
        Delta per unit of spot.
    vega : ndarray
        Per volatility point (0.01).
    theta : ndarray
        Per calendar day, of value lost as time passes (negative for most long options).
    rho : ndarray
        Per interest-rate point (0.01).
    """

    price: Floats
    delta: Floats
    gamma: Floats
    vega: Floats
    theta: Floats
    rho: Floats


def price(
    is_call: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike,
    volatility: ArrayLike,
) -> Floats:
    """Black-Scholes-Merton price of a European option.

    Parameters
    ----------
    is_call : array_like of bool
        True for a call, False for a put. All arguments broadcast.
    spot, strike : array_like
        Positive, in the same currency.
    years : array_like
        Time to expiry; 0 gives the payoff.
    rate, dividend_yield : array_like
        Continuously compounded, yearly, as fractions.
    volatility : array_like
        Yearly, as a fraction; 0 gives the discounted intrinsic value of the forward.

    Returns
    -------
    ndarray
        At least one-dimensional. NaN where an argument is NaN, spot or strike is not positive, or years or volatility is negative.

    References
    ----------
    Black and Scholes (1973); Merton (1973), continuous dividend yield.
    """
    call, s, k, t, r, q, sigma = _arrays(is_call, spot, strike, years, rate, dividend_yield, volatility)
    with np.errstate(all="ignore"):
        forward, discount = s * np.exp((r - q) * t), np.exp(-r * t)
        deviation = sigma * np.sqrt(t)
        time_value = discount * np.sqrt(forward * k) * _normalised(-np.abs(np.log(forward / k)), deviation)
        intrinsic = discount * np.maximum(np.where(call, forward - k, k - forward), 0.0)
        value = np.asarray(intrinsic + time_value, dtype=np.float64)
    value[~_valid(s, k, t, sigma)] = np.nan
    return value


def greeks(
    is_call: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike,
    volatility: ArrayLike,
) -> Greeks:
    """Price and Greeks; arguments as in `price`.

    At expiry or without volatility the delta is the step of the payoff, and gamma, vega and theta are those of the discounted
    forward (gamma is NaN exactly at the money, where it does not exist).
    """
    call, s, k, t, r, q, sigma = _arrays(is_call, spot, strike, years, rate, dividend_yield, volatility)
    sign = np.where(call, 1.0, -1.0)
    with np.errstate(all="ignore"):
        carry, discount = np.exp(-q * t), np.exp(-r * t)
        moneyness = np.log(s / k) + (r - q) * t
        deviation = sigma * np.sqrt(t)
        flat = deviation == 0.0
        middle = np.where(flat, np.where(moneyness == 0.0, 0.0, np.copysign(np.inf, moneyness)), moneyness / deviation)
        d1, d2 = middle + deviation / 2, middle - deviation / 2
        density = np.exp(-0.5 * d1 * d1) / _ROOT_2PI
        gamma = np.where(flat, np.where(moneyness == 0.0, np.nan, 0.0), carry * density / (s * deviation))
        vega = s * carry * density * np.sqrt(t)
        # The decay term is the limit 0 when there is no time left, where sigma / sqrt(t) is not a number.
        decay = np.where(t > 0.0, s * carry * density * sigma / (2.0 * np.sqrt(t)), 0.0)
        theta = -decay + sign * (q * s * carry * ndtr(sign * d1) - r * k * discount * ndtr(sign * d2))
        rho = sign * k * t * discount * ndtr(sign * d2)
        delta = sign * carry * ndtr(sign * d1)
    invalid = ~_valid(s, k, t, sigma)
    value = price(call, s, k, t, r, q, sigma)
    parts = [np.where(invalid, np.nan, part) for part in (delta, gamma, vega / 100.0, theta / DAYS_PER_YEAR, rho / 100.0)]
    return Greeks(price=value, delta=parts[0], gamma=parts[1], vega=parts[2], theta=parts[3], rho=parts[4])


def implied_volatility(
    is_call: ArrayLike,
    option_price: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike,
) -> Floats:
    """The volatility at which `price` gives `option_price`.

    Parameters
    ----------
    option_price : array_like
        In the currency of spot and strike; the other arguments as in `price`.

    Returns
    -------
    ndarray
        At least one-dimensional; yearly, as a fraction.
        NaN where no volatility exists: at or below the discounted intrinsic value of the forward (or
        above it by no more than rounding), at or above the value of the discounted forward (call) or strike (put), at expiry,
        or where an argument is NaN. Never 0.

    Notes
    -----
    The problem is reduced to the normalised out-of-the-money price of Jäckel, *Let's be rational* (2015). Each contract is
    solved between brackets by Halley's iteration on a transform of the price that is nearly linear in volatility: the inverse
    logarithm of the price below the point of inflection, the price itself above it, and the logarithm of what is left to the
    maximum near the upper end. A step that leaves its bracket is replaced by bisection.
    """
    call, value, s, k, t, r, q = _arrays(is_call, option_price, spot, strike, years, rate, dividend_yield)
    with np.errstate(all="ignore"):
        forward, discount = s * np.exp((r - q) * t), np.exp(-r * t)
        undiscounted = value / discount
        intrinsic = np.maximum(np.where(call, forward - k, k - forward), 0.0)
        scale = np.sqrt(forward * k)
        beta = (undiscounted - intrinsic) / scale
        x = -np.abs(np.log(forward / k))
        noise = 8.0 * np.finfo(np.float64).eps * intrinsic / scale
        exists = (
            _valid(s, k, t, np.ones_like(t))
            & (t > 0.0)
            & (beta > noise)
            & (beta < np.exp(x / 2.0) * (1.0 - 8.0 * np.finfo(np.float64).eps))
        )
    result = np.full(value.shape, np.nan)
    result[exists] = _solve(x[exists], beta[exists]) / np.sqrt(t[exists])
    return result


def forward_from_parity(
    strike: ArrayLike, call_mid: ArrayLike, put_mid: ArrayLike, discount: float | None = None
) -> tuple[float, float]:
    """Forward and discount factor implied by put-call parity over one expiry's strikes.

    Parameters
    ----------
    strike, call_mid, put_mid : array_like of shape (n_strikes,)
        Mid quotes of the same expiry at the same moment; pairs with a NaN are left out.
    discount : float, optional
        When given, only the forward is read (one pair is enough), as the median over the strikes.

    Returns
    -------
    forward, discount : float

    Raises
    ------
    InputError
        Fewer than one pair (two without `discount`), or quotes that imply no positive discount.
    """
    k, c, p = (np.asarray(part, dtype=np.float64) for part in (strike, call_mid, put_mid))
    usable = np.isfinite(k) & np.isfinite(c) & np.isfinite(p)
    k, gap = k[usable], (c - p)[usable]
    needed = 1 if discount is not None else 2
    if np.unique(k).size < needed:
        raise InputError(
            f"put-call parity needs {needed} strike(s) with both a call and a put, found {np.unique(k).size}",
            remedy="pass more strikes, or the discount factor",
        )
    if discount is None:
        slope, level = np.polyfit(k, gap, 1)
        if slope >= 0.0:
            raise InputError(f"the quotes imply a discount factor of {-slope:.6g}: calls and puts do not belong together")
        return float(-level / slope), float(-slope)
    return float(np.median(gap / discount + k)), float(discount)


def _arrays(is_call: ArrayLike, *numbers: ArrayLike) -> tuple[NDArray[np.bool_], Floats, Floats, Floats, Floats, Floats, Floats]:
    parts = np.broadcast_arrays(
        np.atleast_1d(np.asarray(is_call, dtype=bool)), *(np.asarray(number, dtype=np.float64) for number in numbers)
    )
    call, a, b, c, d, e, f = parts
    return call, a, b, c, d, e, f


def _valid(spot: Floats, strike: Floats, years: Floats, volatility: Floats) -> NDArray[np.bool_]:
    return np.asarray((spot > 0.0) & (strike > 0.0) & (years >= 0.0) & (volatility >= 0.0))


def _log_normalised(x: Floats, s: Floats) -> tuple[Floats, Floats]:
    """Logarithm of the normalised price and its slope, for x < 0 and s below the point of inflection (x/s + s/2 <= 0)."""
    h, t = x / s, s / 2.0
    half_gap = 0.5 * (erfcx(-(h + t) / _ROOT_2) - erfcx(-(h - t) / _ROOT_2))
    return np.log(half_gap) - 0.5 * (h * h + t * t), 1.0 / (_ROOT_2PI * half_gap)


def _normalised(x: Floats, s: Floats) -> Floats:
    """Normalised price of an out-of-the-money option: the price over the discount and the root of forward times strike."""
    flat = ~(s > 0.0)
    s_safe = np.where(flat, 1.0, s)
    h, t = x / s_safe, s_safe / 2.0
    low = (h + t <= 0.0) & (x < 0.0)
    value = np.exp(x / 2.0) * ndtr(h + t) - np.exp(-x / 2.0) * ndtr(h - t)
    if low.any():
        value[low] = np.exp(_log_normalised(x[low], s_safe[low])[0])
    return np.where(np.isnan(s), np.nan, np.where(flat, 0.0, np.maximum(value, 0.0)))


def _solve(x: Floats, beta: Floats) -> Floats:
    """Total volatility at which the normalised price is `beta`, all of which exist."""
    solution = np.full(x.shape, np.nan)
    exact = x == 0.0
    solution[exact] = 2.0 * _ROOT_2 * erfinv(beta[exact])
    turning = np.sqrt(2.0 * np.abs(x))
    with np.errstate(all="ignore"):
        at_turning = _normalised(x, turning)
        low = ~exact & (beta < at_turning)
        high = ~exact & ~low
        solution[low] = _iterate(x[low], beta[low], turning[low], _low_step, np.zeros(int(low.sum())), turning[low])
        ceiling = _upper_bracket(x[high], beta[high], turning[high])
        solution[high] = _iterate(x[high], beta[high], turning[high], _high_step, turning[high], ceiling)
    return solution


def _upper_bracket(x: Floats, beta: Floats, turning: Floats) -> Floats:
    upper = np.maximum(2.0 * turning, 1.0)
    for _ in range(_MOST_STEPS):
        short = _normalised(x, upper) < beta
        if not short.any():
            break
        # What is left to the maximum falls below rounding at a total volatility near 17: the bracket cannot run away.
        upper = np.where(short & (upper < 64.0), 2.0 * upper, upper)
        if (upper[short] >= 64.0).all():
            break
    return upper


def _low_step(x: Floats, s: Floats, beta: Floats) -> tuple[Floats, Floats]:
    """Halley step and sign of the error for 1 / log(price), which is nearly quadratic in volatility."""
    log_price, slope = _log_normalised(x, s)
    log_beta = np.log(beta)
    error = 1.0 / log_price - 1.0 / log_beta
    first = -slope / log_price**2
    bend = x * x / s**3 - s / 4.0  # second over first derivative of the price
    second_log = slope * bend - slope**2
    second = 2.0 * slope**2 / log_price**3 - second_log / log_price**2
    newton = error / first
    return newton / (1.0 - 0.5 * newton * second / first), log_price - log_beta


def _high_step(x: Floats, s: Floats, beta: Floats) -> tuple[Floats, Floats]:
    """Halley step and sign of the error for the price, or near the maximum for the logarithm of what is left to it."""
    h, t = x / s, s / 2.0
    largest = np.exp(x / 2.0)
    first_price = np.exp(-0.5 * (h * h + t * t)) / _ROOT_2PI
    bend = x * x / s**3 - s / 4.0
    value = largest * ndtr(h + t) - ndtr(h - t) / largest
    left = largest * ndtr(-(h + t)) + ndtr(h - t) / largest
    near_top = beta > largest / 2.0
    error = np.where(near_top, np.log((largest - beta) / left), value - beta)
    first = np.where(near_top, first_price / left, first_price)
    ratio = np.where(near_top, bend + first_price / left, bend)  # second over first derivative of the transform
    newton = error / first
    return newton / (1.0 - 0.5 * newton * ratio), error


def _iterate(
    x: Floats,
    beta: Floats,
    start: Floats,
    step: Callable[[Floats, Floats, Floats], tuple[Floats, Floats]],
    lower: Floats,
    upper: Floats,
) -> Floats:
    """Halley's iteration inside brackets; contracts leave the working set as they converge."""
    solution, lower, upper = start.copy(), lower.copy(), upper.copy()
    active = np.arange(x.size)
    for _ in range(_MOST_STEPS):
        if active.size == 0:
            break
        s = solution[active]
        change, error = step(x[active], s, beta[active])
        above = error > 0.0
        upper[active] = np.where(above, s, upper[active])
        lower[active] = np.where(above, lower[active], s)
        proposed = s - change
        outside = ~((proposed > lower[active]) & (proposed < upper[active]))
        proposed = np.where(outside & (error != 0.0), 0.5 * (lower[active] + upper[active]), np.where(outside, s, proposed))
        solution[active] = proposed
        done = (np.abs(proposed - s) <= 4.0 * np.finfo(np.float64).eps * s) | (error == 0.0)
        active = active[~done]
    return solution
