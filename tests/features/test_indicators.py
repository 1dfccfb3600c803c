"""Indicators against published tables, pandas, SciPy and the textbook's own loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from scipy import stats

from config.errors import InputError
from features import indicators as ind
from tests.features.panels import walk

# StockCharts' ChartSchool, "Relative Strength Index": closes of QQQ and the RSI(14) of its spreadsheet.
RSI_CLOSES = (
    44.3389, 44.0902, 44.1497, 43.6124, 44.3278, 44.8264, 45.0955, 45.4245, 45.8433, 46.0826, 45.8931, 46.0328, 45.6140, 46.2820,
    46.2820, 46.0028, 46.0328, 46.4116, 46.2222, 45.6439, 46.2122, 46.2521, 45.7137, 46.4515, 45.7835, 45.3548, 44.0288, 44.1783,
    44.2181, 44.5672, 43.4205, 42.6628, 43.1314,
)  # fmt: skip
RSI_PUBLISHED = (
    70.53, 66.32, 66.55, 69.41, 66.36, 57.97, 62.93, 63.26, 56.06, 62.38, 54.71, 50.42, 39.99, 41.46, 41.87, 45.46, 37.30, 33.08,
    37.77,
)  # fmt: skip
# StockCharts' ChartSchool, "Moving Averages": closes of Intel (rounded to cents there) and its 10-day EMA.
EMA_CLOSES = (
    22.27, 22.19, 22.08, 22.17, 22.18, 22.13, 22.23, 22.43, 22.24, 22.29, 22.15, 22.39, 22.38, 22.61, 23.36, 24.05, 23.75, 23.83,
    23.95, 23.63, 23.82, 23.87, 23.65, 23.19, 23.10, 23.33, 22.68, 23.10, 22.40, 22.17,
)  # fmt: skip
EMA_PUBLISHED = (
    22.22, 22.21, 22.24, 22.27, 22.33, 22.52, 22.80, 22.97, 23.13, 23.28, 23.34, 23.43, 23.51, 23.54, 23.47, 23.40, 23.39, 23.26,
    23.23, 23.08, 22.92,
)  # fmt: skip

PANEL = walk(400, 3)
CLOSE, HIGH, LOW = PANEL.close, PANEL.high, PANEL.low


def one(values: tuple[float, ...] | list[float] | np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"A": np.asarray(values, dtype=float)})


def wilder_by_pandas(values: pd.DataFrame, weight: float, seed: int) -> pd.DataFrame:
    """Exponential smoothing started with a simple average, by pandas: the average put in the place of the seed's last value."""
    first = int(values.notna().all(axis=1).to_numpy().argmax()) + seed - 1
    seeded = values.copy()
    seeded.iloc[: first + 1] = np.nan
    seeded.iloc[first] = values.iloc[first - seed + 1 : first + 1].mean()
    return seeded.ewm(alpha=weight, adjust=False).mean()


def test_rsi_is_the_published_one() -> None:
    result = ind.rsi(one(RSI_CLOSES), 14)["A"]
    assert result.iloc[:14].isna().all()
    np.testing.assert_allclose(result.iloc[14:], RSI_PUBLISHED, atol=0.005001)


def test_ema_is_the_published_one() -> None:
    result = ind.ema(one(EMA_CLOSES), 10)["A"]
    assert result.iloc[:9].isna().all()
    np.testing.assert_allclose(result.iloc[9:], EMA_PUBLISHED, atol=0.0101)  # the table's closes are rounded to a cent


def test_rsi_of_three_sessions_by_hand() -> None:
    # changes +1, -1, +2, 0; period 2: gain 0.5, loss 0.5 -> 50; gain (0.5+2)/2 = 1.25, loss 0.25 -> 83.3; halves again: same
    np.testing.assert_allclose(ind.rsi(one([10, 11, 10, 12, 12]), 2)["A"], [np.nan, np.nan, 50, 250 / 3, 250 / 3], rtol=1e-15)


def test_rsi_of_an_unmoved_price_does_not_exist() -> None:
    assert ind.rsi(one([5.0] * 20), 14)["A"].isna().all()
    assert ind.rsi(one(np.arange(1.0, 21.0)), 14)["A"].iloc[-1] == 100.0


@pytest.mark.parametrize("window", [1, 2, 3, 7, 20, 50, 63, 64, 200])
def test_the_simple_average_is_the_plain_mean_of_each_window(window: int) -> None:
    result = ind.sma(CLOSE, window)
    assert result.iloc[: window - 1].isna().all(axis=None)
    for row in range(window - 1, len(CLOSE)):
        for symbol in CLOSE:
            exact = math.fsum(CLOSE[symbol].iloc[row - window + 1 : row + 1]) / window
            assert result[symbol].iloc[row] == pytest.approx(exact, rel=2e-15)


def test_the_simple_average_does_not_drift_after_a_spike() -> None:
    rng = np.random.default_rng(3)
    values = rng.uniform(1, 2, 100_000)
    values[1_000] = 1e15  # a running sum would lose the cents for ever
    result = ind.sma(one(values), 20)["A"].to_numpy()
    exact = np.array([math.fsum(values[end - 20 : end]) / 20 for end in range(99_000, 100_001)])
    np.testing.assert_allclose(result[98_999:], exact, rtol=1e-15)


@pytest.mark.parametrize("window", [2, 3, 20, 60])
def test_the_deviation_is_numpys_on_each_window(window: int) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(CLOSE.to_numpy(), window, axis=0)
    for ddof in (0, 1):
        np.testing.assert_allclose(
            ind.rolling_std(CLOSE, window, ddof=ddof).iloc[window - 1 :], windows.std(-1, ddof=ddof), rtol=1e-11
        )


def test_the_deviation_keeps_its_digits_on_a_large_level_and_is_zero_on_a_constant() -> None:
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 1024, 60).astype(float) / 1024  # exact beside 1e9
    np.testing.assert_allclose(ind.rolling_std(one(1e9 + noise), 20), ind.rolling_std(one(noise), 20), rtol=1e-9)
    assert (ind.rolling_std(one([0.1] * 50), 20)["A"].iloc[19:] == 0.0).all()


def test_bollinger_bands_use_the_population_deviation() -> None:
    bands = ind.bollinger(one([2, 4, 4, 4, 5, 5, 7, 9]), 8, 2)  # the textbook sample: mean 5, population deviation 2
    assert [band["A"].iloc[-1] for band in bands] == [1.0, 5.0, 9.0]


def test_macd_is_that_of_pandas() -> None:
    fast, slow = (wilder_by_pandas(CLOSE, 2 / (span + 1), span) for span in (12, 26))
    signal = wilder_by_pandas(fast - slow, 2 / 10, 9)
    result = ind.macd(CLOSE)
    pd.testing.assert_frame_equal(result.line, fast - slow, rtol=1e-10, atol=1e-11)
    pd.testing.assert_frame_equal(result.signal, signal, rtol=1e-10, atol=1e-11)
    pd.testing.assert_frame_equal(result.histogram, fast - slow - signal, rtol=1e-9, atol=1e-11)


def test_growth_and_momentum_are_shifts() -> None:
    pd.testing.assert_frame_equal(ind.roc(CLOSE, 20), CLOSE / CLOSE.shift(20) - 1)
    pd.testing.assert_frame_equal(ind.momentum(CLOSE), CLOSE.shift(21) / CLOSE.shift(252) - 1)
    pd.testing.assert_frame_equal(ind.change(CLOSE, 3), CLOSE - CLOSE.shift(3))
    pd.testing.assert_frame_equal(ind.lagged(CLOSE, 3), CLOSE.shift(3))


def test_growth_from_a_price_that_is_not_positive_is_missing() -> None:
    oil = one([10.0, -37.0, 10.0, 20.0])  # WTI on 20 April 2020
    np.testing.assert_array_equal(ind.roc(oil, 1)["A"].isna(), [True, False, True, False])
    np.testing.assert_array_equal(ind.log_returns(oil)["A"].isna(), [True, True, True, False])


def test_atr_is_wilders_smoothing_of_the_true_range() -> None:
    before = CLOSE.shift(1)
    spans = np.stack([(HIGH - LOW).to_numpy(), (HIGH - before).abs().to_numpy(), (LOW - before).abs().to_numpy()])
    true_range = pd.DataFrame(spans.max(axis=0), index=CLOSE.index, columns=CLOSE.columns)  # max keeps NaN: the first has none
    pd.testing.assert_frame_equal(ind.true_range(HIGH, LOW, CLOSE), true_range, rtol=1e-12)
    pd.testing.assert_frame_equal(ind.atr(HIGH, LOW, CLOSE, 14), wilder_by_pandas(true_range, 1 / 14, 14), rtol=1e-11)


def adx_by_wilders_worksheet(high: list[float], low: list[float], close: list[float], period: int) -> list[float]:
    """Wilder's own steps (1978, section IV): sums that give up a fourteenth each day, then the average of DX."""
    moves = []
    for day in range(1, len(close)):
        up, down = high[day] - high[day - 1], low[day - 1] - low[day]
        span = max(high[day], close[day - 1]) - min(low[day], close[day - 1])
        moves.append((up if up > down and up > 0 else 0.0, down if down > up and down > 0 else 0.0, span))
    sums = [sum(column) for column in zip(*moves[:period], strict=True)]
    directions = []
    for step in range(period - 1, len(moves)):
        if step >= period:
            sums = [total - total / period + move for total, move in zip(sums, moves[step], strict=True)]
        plus, minus = sums[0] / sums[2], sums[1] / sums[2]
        directions.append(100 * abs(plus - minus) / (plus + minus))
    values = [sum(directions[:period]) / period]
    for direction in directions[period:]:
        values.append((values[-1] * (period - 1) + direction) / period)
    return [math.nan] * (2 * period - 1) + values


def test_adx_is_the_same_whatever_factor_prices_are_adjusted_with() -> None:
    # Prices of whole cents, in which a high rises by as much as a low falls on many days: rounding must not choose a side.
    rng = np.random.default_rng(7)
    low = pd.DataFrame({"A": (np.cumsum(rng.integers(-4, 5, 2000)) + 9000) / 100})
    high, close = low + pd.DataFrame({"A": rng.integers(1, 9, 2000) / 100}), low + 0.01
    rises, falls = (high * 100).round().diff(), -(low * 100).round().diff()
    assert int(((rises == falls) & (rises > 0)).sum()["A"]) > 10
    as_traded = ind.adx(high, low, close, 14)
    for factor in (1 / 7, 0.25, 0.9837):
        adjusted = ind.adx(high * factor, low * factor, close * factor, 14)
        for name in ("adx", "plus", "minus"):
            pd.testing.assert_frame_equal(getattr(adjusted, name), getattr(as_traded, name), rtol=1e-9, atol=1e-9)


def test_adx_is_wilders_worksheet() -> None:
    result = ind.adx(HIGH, LOW, CLOSE, 14).adx
    for symbol in CLOSE:
        expected = adx_by_wilders_worksheet(HIGH[symbol].tolist(), LOW[symbol].tolist(), CLOSE[symbol].tolist(), 14)
        np.testing.assert_allclose(result[symbol], expected, rtol=1e-10)


def test_a_market_that_does_not_move_has_no_direction() -> None:
    flat = one([10.0] * 40)
    result = ind.adx(flat + 1, flat - 1, flat, 14)
    assert result.adx["A"].iloc[27:].eq(0).all()
    assert result.plus["A"].iloc[14:].eq(0).all()


def test_donchian_and_drawdown_are_the_windows_extremes() -> None:
    for window in (1, 2, 20, 55):
        channel = ind.donchian(HIGH, LOW, window)
        pd.testing.assert_frame_equal(channel.upper, HIGH.rolling(window).max(), check_exact=True)
        pd.testing.assert_frame_equal(channel.lower, LOW.rolling(window).min(), check_exact=True)
    pd.testing.assert_frame_equal(ind.drawdown(CLOSE, 60), CLOSE / CLOSE.rolling(60).max() - 1)
    pd.testing.assert_frame_equal(ind.drawdown(CLOSE), CLOSE / CLOSE.cummax() - 1)


def test_the_percentile_rank_is_scipys_mean_rank() -> None:
    values = CLOSE.round(0)  # many ties
    result = ind.percent_rank(values, 30)
    for row in range(29, len(values)):
        for symbol in values:
            window = values[symbol].iloc[row - 29 : row + 1].to_numpy()
            expected = stats.percentileofscore(window, window[-1], kind="mean") / 100
            assert result[symbol].iloc[row] == pytest.approx(expected, rel=1e-14)
    assert result.iloc[:29].isna().all(axis=None)


def test_the_z_score_is_scipys() -> None:
    result = ind.zscore(CLOSE, 20)
    for row in (19, 20, 150, 399):
        np.testing.assert_allclose(
            result.iloc[row], stats.zscore(CLOSE.iloc[row - 19 : row + 1].to_numpy(), ddof=1)[-1], rtol=1e-10
        )
    assert ind.zscore(one([3.0] * 30), 20)["A"].isna().all()


def test_realised_volatility_of_alternating_returns_by_hand() -> None:
    # log returns +x, -x, +x, -x: mean 0, sample variance 4x²/3; a year of 252
    step = 0.01
    close = one(100 * np.exp(np.cumsum([0, step, -step, step, -step])))
    assert ind.realised_volatility(close, 4)["A"].iloc[-1] == pytest.approx(step * math.sqrt(4 / 3 * 252), rel=1e-12)


INDICATORS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "sma": lambda x: ind.sma(x, 5),
    "ema": lambda x: ind.ema(x, 5),
    "rsi": lambda x: ind.rsi(x, 4),
    "upper": lambda x: ind.bollinger(x, 5, 2).upper,
    "macd": lambda x: ind.macd(x, 2, 4, 3).histogram,
    "roc": lambda x: ind.roc(x, 3),
    "momentum": lambda x: ind.momentum(x, 6, 2),
    "atr": lambda x: ind.atr(x * 1.01, x * 0.99, x, 4),
    "adx": lambda x: ind.adx(x * 1.01, x * 0.99, x, 3).adx,
    "donchian": lambda x: ind.donchian(x, x, 6).middle,
    "volatility": lambda x: ind.realised_volatility(x, 5),
    "zscore": lambda x: ind.zscore(x, 5),
    "rank": lambda x: ind.percent_rank(x, 6),
    "drawdown": lambda x: ind.drawdown(x, 5),
    "peak": lambda x: ind.drawdown(x),
}


@pytest.mark.parametrize("name", INDICATORS)
@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    values=arrays.arrays(
        float,
        st.tuples(st.integers(2, 40), st.integers(1, 3)),
        elements=st.one_of(st.floats(1e-3, 1e6), st.just(math.nan), st.just(7.0)),
    ),
    share=st.floats(0, 1),
)
def test_a_prefix_of_the_prices_gives_the_same_prefix_to_the_last_bit(name: str, values: np.ndarray, share: float) -> None:
    frame = pd.DataFrame(values, columns=list("ABC")[: values.shape[1]])
    rows = max(1, round(share * len(frame)))
    whole, part = INDICATORS[name](frame), INDICATORS[name](frame.iloc[:rows])
    np.testing.assert_array_equal(part.to_numpy(), whole.iloc[:rows].to_numpy())


@pytest.mark.parametrize("name", INDICATORS)
def test_windows_count_the_symbols_own_sessions(name: str) -> None:
    holes = CLOSE.mask(np.random.default_rng(5).random(CLOSE.shape) < 0.3)
    result = INDICATORS[name](holes)
    for symbol in holes:
        own = holes[[symbol]].dropna()
        expected = INDICATORS[name](own).reindex(holes.index)
        pd.testing.assert_frame_equal(result[[symbol]], expected, check_exact=True, check_freq=False)


@pytest.mark.parametrize("window", [0, -1, 2.0, True])
def test_a_window_that_is_no_number_of_sessions_is_refused(window: int) -> None:
    for compute in (ind.sma, ind.ema, ind.rsi, ind.roc, ind.lagged, ind.drawdown):
        with pytest.raises(InputError, match="is not a number of sessions"):
            compute(CLOSE, window)


def test_inputs_of_different_panels_are_refused() -> None:
    with pytest.raises(InputError, match="same sessions and symbols"):
        ind.atr(HIGH.iloc[1:], LOW, CLOSE, 14)


@pytest.mark.parametrize("name", INDICATORS)
def test_a_history_shorter_than_the_window_is_all_missing(name: str) -> None:
    rows = 0 if name == "peak" else 2  # the drawdown from the first session on has no warm-up
    assert INDICATORS[name](CLOSE.iloc[:rows]).isna().all(axis=None)
    assert ind.percent_rank(CLOSE, 500).isna().all(axis=None)
    assert ind.sma(CLOSE, 500).isna().all(axis=None)
