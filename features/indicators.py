"""Technical indicators as pure functions on panels: causal, exact, the same to the last bit when later rows are cut off.

Every function takes DataFrames of shape (n_sessions, n_symbols) and returns the same shape. A value is known at its session's
close, because it uses that session and earlier ones only.

**Missing values.** A window counts the sessions on which the symbol has a value, so calendars may be mixed in one panel: a
session without a value gives NaN on that session and is passed over afterwards; nothing is filled. With several inputs a
session counts when all of them are there. The result is NaN until the warm-up each function states is complete.

Windows below one session are refused, so that none of these functions can look ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from config.errors import InputError
from features.kernels import FloatArray, lag, rank_in_window, smooth, window_max, window_min, window_moments, window_sum

__all__ = [
    "Bands",
    "Directional",
    "Macd",
    "adx",
    "atr",
    "bollinger",
    "change",
    "donchian",
    "drawdown",
    "ema",
    "lagged",
    "log_returns",
    "macd",
    "momentum",
    "percent_rank",
    "realised_volatility",
    "returns",
    "roc",
    "rolling_std",
    "rsi",
    "sma",
    "true_range",
    "zscore",
]

SESSIONS_PER_YEAR = 252.0
# A comparison of prices this near to equality (relative) is none: docs/conventions.md. Rounding would decide it, and rounding is
# another for each factor that prices are adjusted with.
TIE = 1e-9


class Bands(NamedTuple):
    """A channel around or along the price, in its currency; each of shape (n_sessions, n_symbols)."""

    lower: pd.DataFrame
    middle: pd.DataFrame
    upper: pd.DataFrame


class Macd(NamedTuple):
    """Moving-average convergence and divergence, in the price's currency; each of shape (n_sessions, n_symbols)."""

    line: pd.DataFrame
    signal: pd.DataFrame
    histogram: pd.DataFrame


class Directional(NamedTuple):
    """Wilder's directional movement, 0 to 100; each of shape (n_sessions, n_symbols)."""

    adx: pd.DataFrame
    plus: pd.DataFrame
    minus: pd.DataFrame


def sma(close: pd.DataFrame, window: int) -> pd.DataFrame:
    """Simple moving average of the last `window` values. Warm-up: `window` - 1 sessions.

    Each value equals the plain mean of its own window; there is no running sum that could drift.
    """
    _check(window=window)
    return _one(close, lambda values: window_sum(values, window) / window)


def ema(close: pd.DataFrame, span: int) -> pd.DataFrame:
    """Exponential moving average of weight 2 / (span + 1), started with the simple average of the first `span` values.

    Warm-up: `span` - 1 sessions. The start is TA-Lib's and StockCharts'; pandas' ``ewm(adjust=False)`` starts with the first
    value instead, and the two draw together as history grows.
    """
    _check(span=span)
    return _one(close, lambda values: smooth(values, 2.0 / (span + 1.0), span))


def rsi(close: pd.DataFrame, period: int = 14) -> pd.DataFrame:
    """Relative strength index, 0 to 100 (Wilder 1978, "New Concepts in Technical Trading Systems").

    Average gain and loss are Wilder's (weight 1 / period), started with the simple average of the first `period` changes.
    Warm-up: `period` sessions. NaN while there was neither a gain nor a loss: the ratio does not exist then.
    """
    _check(period=period)

    def compute(values: FloatArray) -> FloatArray:
        step = values - lag(values, 1)
        gain = smooth(np.maximum(step, 0.0), 1.0 / period, period)
        loss = smooth(np.maximum(-step, 0.0), 1.0 / period, period)
        return 100.0 * _ratio(gain, gain + loss)

    return _one(close, compute)


def bollinger(close: pd.DataFrame, period: int = 20, deviations: float = 2.0) -> Bands:
    """Bollinger bands: the simple average, and `deviations` population deviations (ddof 0) either side.

    Warm-up: `period` - 1 sessions. Source: Bollinger (2001), "Bollinger on Bollinger Bands".
    """
    _check(period=period)
    middle = sma(close, period)
    width = deviations * rolling_std(close, period, ddof=0)
    return Bands(middle - width, middle, middle + width)


def macd(close: pd.DataFrame, fast: int = 12, slow: int = 26, signal: int = 9) -> Macd:
    """Fast minus slow exponential average, its own exponential average, and the difference of the two (Appel).

    Warm-up: `slow` - 1 sessions for the line, `slow` + `signal` - 2 for the signal and the histogram. Each average starts with
    its own simple average (`ema`).

    Raises
    ------
    InputError
        `fast` is not below `slow`.
    """
    _check(fast=fast, slow=slow, signal=signal)
    if fast >= slow:
        raise InputError(f"macd: fast={fast} is not below slow={slow}", remedy="exchange the two spans")
    line = ema(close, fast) - ema(close, slow)
    average = ema(line, signal)
    return Macd(line, average, line - average)


def lagged(values: pd.DataFrame, periods: int) -> pd.DataFrame:
    """The value `periods` of the symbol's sessions earlier. Warm-up: `periods` sessions."""
    _check(periods=periods)
    return _one(values, lambda array: lag(array, periods))


def change(values: pd.DataFrame, periods: int = 1) -> pd.DataFrame:
    """The value less the one `periods` sessions earlier, in its own unit. Warm-up: `periods` sessions."""
    _check(periods=periods)
    return _one(values, lambda array: array - lag(array, periods))


def roc(close: pd.DataFrame, periods: int) -> pd.DataFrame:
    """Rate of change over `periods` sessions, a fraction. Warm-up: `periods` sessions; NaN from a price that is not positive."""
    _check(periods=periods)
    return _one(close, lambda values: _growth(values, lag(values, periods)))


def returns(close: pd.DataFrame) -> pd.DataFrame:
    """Simple return from the session before, a fraction. Warm-up: one session; NaN from a price that is not positive."""
    return roc(close, 1)


def log_returns(close: pd.DataFrame) -> pd.DataFrame:
    """Logarithm of the price relative to the session before. Warm-up: one session; NaN where a price is not positive."""
    return _one(close, _log_returns)


def momentum(close: pd.DataFrame, lookback: int = 252, skip: int = 21) -> pd.DataFrame:
    """Growth from `lookback` to `skip` sessions ago, a fraction: 252 and 21 give "12-1 momentum".

    The last month is left out because it tends to reverse (Jegadeesh and Titman 1993, Journal of Finance 48). Warm-up:
    `lookback` sessions.

    Raises
    ------
    InputError
        `skip` is not below `lookback`.
    """
    _check(lookback=lookback, skip=skip)
    if skip >= lookback:
        raise InputError(f"momentum: skip={skip} is not below lookback={lookback}", remedy="skip fewer sessions")
    return _one(close, lambda values: _growth(lag(values, skip), lag(values, lookback)))


def true_range(high: pd.DataFrame, low: pd.DataFrame, close: pd.DataFrame) -> pd.DataFrame:
    """Range of the session, stretched to the close before it (Wilder 1978). Warm-up: one session."""
    return _many(_true_range, high, low, close)


def atr(high: pd.DataFrame, low: pd.DataFrame, close: pd.DataFrame, period: int = 14) -> pd.DataFrame:
    """Average true range, in the price's currency: Wilder's average of `true_range`. Warm-up: `period` sessions."""
    _check(period=period)
    return _many(lambda h, low_, c: smooth(_true_range(h, low_, c), 1.0 / period, period), high, low, close)


def adx(high: pd.DataFrame, low: pd.DataFrame, close: pd.DataFrame, period: int = 14) -> Directional:
    """Average directional index and the two directional indicators, 0 to 100 (Wilder 1978).

    Warm-up: `period` sessions for the indicators, 2 × `period` - 1 for the index. A session without any directional movement
    counts as no direction (0); the indicators are NaN while the true range is zero. Up and down by the same (to 1e-9 of the price)
    is no movement.
    """
    _check(period=period)

    def indicators(h: FloatArray, low_: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        up, down = h - lag(h, 1), lag(low_, 1) - low_
        unknown = np.isnan(up)
        tie = TIE * np.abs(h)
        plus = np.where(unknown, np.nan, np.where((up - down > tie) & (up > 0), up, 0.0))
        minus = np.where(unknown, np.nan, np.where((down - up > tie) & (down > 0), down, 0.0))
        size = smooth(_true_range(h, low_, c), 1.0 / period, period)
        return tuple(100.0 * _ratio(smooth(move, 1.0 / period, period), size) for move in (plus, minus))  # type: ignore[return-value]

    def index(h: FloatArray, low_: FloatArray, c: FloatArray) -> FloatArray:
        plus, minus = indicators(h, low_, c)
        together = plus + minus
        direction = np.where(together == 0, 0.0, 100.0 * _ratio(np.abs(plus - minus), together))
        return smooth(direction, 1.0 / period, period)

    return Directional(
        adx=_many(index, high, low, close),
        plus=_many(lambda h, low_, c: indicators(h, low_, c)[0], high, low, close),
        minus=_many(lambda h, low_, c: indicators(h, low_, c)[1], high, low, close),
    )


def donchian(high: pd.DataFrame, low: pd.DataFrame, window: int = 20) -> Bands:
    """Highest high and lowest low of the last `window` sessions, this one included, and their middle.

    Warm-up: `window` - 1 sessions. A breakout rule compares the close with `lagged(upper, 1)`: a close is never above a
    channel that holds its own session.
    """
    _check(window=window)
    upper = _many(lambda h, _: window_max(h, window), high, low)
    lower = _many(lambda _, bottom: window_min(bottom, window), high, low)
    return Bands(lower, (upper + lower) / 2.0, upper)


def rolling_std(values: pd.DataFrame, window: int, *, ddof: int = 1) -> pd.DataFrame:
    """Standard deviation of the last `window` values. Warm-up: `window` - 1 sessions; exactly zero for equal values.

    Raises
    ------
    InputError
        `window` does not exceed `ddof`.
    """
    _check(window=window)
    if window <= ddof:
        raise InputError(
            f"rolling_std: {window} values have no deviation with ddof={ddof}", remedy=f"use window={ddof + 1} or more"
        )
    return _one(values, lambda array: np.sqrt(window_moments(array, window)[1] / (window - ddof)))


def realised_volatility(close: pd.DataFrame, window: int, *, sessions_per_year: float = SESSIONS_PER_YEAR) -> pd.DataFrame:
    """Annualised sample deviation (ddof 1) of the last `window` log returns, a fraction. Warm-up: `window` sessions."""
    return rolling_std(log_returns(close), window) * float(np.sqrt(sessions_per_year))


def zscore(values: pd.DataFrame, window: int) -> pd.DataFrame:
    """Sample deviations by which a value lies from the mean of the last `window`, its own included.

    Warm-up: `window` - 1 sessions. NaN where the window's values are all equal.
    """
    _check(window=window)
    if window < 2:
        raise InputError("zscore: one value has no deviation", remedy="use window=2 or more")

    def compute(array: FloatArray) -> FloatArray:
        mean, spread = window_moments(array, window)
        return _ratio(array - mean, np.sqrt(spread / (window - 1)))

    return _one(values, compute)


def percent_rank(values: pd.DataFrame, window: int) -> pd.DataFrame:
    """Share of the last `window` values, its own included, that lie below the value, equal ones counted by half: inside (0, 1).

    Warm-up: `window` - 1 sessions. A value that never changes ranks 0.5. Known as the mean percentile rank.
    """
    _check(window=window)
    return _one(values, lambda array: rank_in_window(array, window))


def drawdown(close: pd.DataFrame, window: int | None = None) -> pd.DataFrame:
    """Loss from the highest close, a fraction of at most zero.

    The peak is that of the last `window` sessions (warm-up `window` - 1), or of all sessions since the panel's first (no
    warm-up; the value then depends on where the panel starts). NaN where the peak is not positive.
    """
    if window is None:
        return _one(close, lambda values: _growth(values, np.fmax.accumulate(values, axis=0)))
    _check(window=window)
    return _one(close, lambda values: _growth(values, window_max(values, window)))


def _true_range(high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    before = lag(close, 1)
    return np.maximum(high, before) - np.minimum(low, before)


def _log_returns(values: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.where(values > 0, np.log(values), np.nan)
    return logs - lag(logs, 1)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """`part` / `whole`, NaN where `whole` is zero."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)


def _growth(now: FloatArray, before: FloatArray) -> FloatArray:
    """`now` / `before` - 1, NaN where `before` is not positive."""
    return np.divide(now, before, out=np.full_like(now, np.nan), where=before > 0) - 1.0


def _check(**lengths: int) -> None:
    for name, value in lengths.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name}={value!r} is not a number of sessions", remedy="use a whole number of at least 1")


def _one(values: pd.DataFrame, compute: Callable[[FloatArray], FloatArray]) -> pd.DataFrame:
    return _apply(compute, (values,))


def _many(compute: Callable[..., FloatArray], *inputs: pd.DataFrame) -> pd.DataFrame:
    return _apply(compute, inputs)


def _apply(compute: Callable[..., FloatArray], inputs: tuple[pd.DataFrame, ...]) -> pd.DataFrame:
    """Run `compute` on each symbol's own sessions, moved together at the top, and put the results back where they belong."""
    first = inputs[0]
    for other in inputs[1:]:
        if not (other.index.equals(first.index) and other.columns.equals(first.columns)):
            raise InputError(
                "the inputs of an indicator do not have the same sessions and symbols", remedy="take both from one panel"
            )
    arrays = [np.ascontiguousarray(frame.to_numpy(dtype=np.float64, na_value=np.nan)) for frame in inputs]
    missing = np.logical_or.reduce([np.isnan(array) for array in arrays])
    if not missing.any():
        result = compute(*arrays)
    else:
        order = np.argsort(missing, axis=0, kind="stable")
        packed = [np.take_along_axis(np.where(missing, np.nan, array), order, axis=0) for array in arrays]
        result = np.empty_like(arrays[0])
        np.put_along_axis(result, order, compute(*packed), axis=0)
        result[missing] = np.nan
    return pd.DataFrame(result, index=first.index, columns=first.columns)
