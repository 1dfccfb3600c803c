"""Metrics against vectorbt, SciPy, hand calculations and the published reference numbers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from config.conventions import REFERENCE, Convention
from config.errors import InputError, QualityError
from risk import metrics
from tests.risk.reference import buy_and_hold_equity, crossover, nasdaq, reference_equity

NO_TRADES = pd.DataFrame({"pnl": pd.Series(dtype=float)})
NO_ORDERS = pd.DataFrame({name: pd.Series(dtype=float) for name in ("session", "symbol", "side", "quantity", "price", "fee")})


def equity_of(*values: float) -> pd.Series:
    return pd.Series(values, index=pd.bdate_range("2020-01-01", periods=len(values)))


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    # 503 returns: (1 - 0.95) * 503 is far from a whole number, where libraries round differently.
    return np.random.default_rng(7).standard_t(4, 503) * 0.01 + 0.0004


def test_buy_and_hold_on_nasdaq_has_the_published_numbers() -> None:
    numbers = metrics.performance(buy_and_hold_equity(), NO_TRADES, NO_ORDERS, REFERENCE)
    assert numbers["final_equity"] == pytest.approx(300094.596971, abs=1e-6)
    assert numbers["sharpe"] == pytest.approx(0.3439471908, abs=1e-10)
    assert numbers["max_drawdown"] == pytest.approx(0.7793238629, abs=1e-10)


def test_sma_20_50_on_nasdaq_has_the_published_numbers() -> None:
    prices = nasdaq()
    opens, closes = prices["Open"].to_numpy(), prices["Close"].to_numpy()
    equity, trades = reference_equity(crossover(20, 50, closes), opens, closes)
    numbers = metrics.performance(pd.Series(equity, index=prices.index), NO_TRADES, NO_ORDERS, REFERENCE)
    assert numbers["final_equity"] == pytest.approx(257842.817736, abs=1e-6)
    assert numbers["sharpe"] == pytest.approx(0.3834865421, abs=1e-10)
    assert numbers["max_drawdown"] == pytest.approx(0.5339133010, abs=1e-10)
    assert trades == 46


def test_ratios_equal_those_of_vectorbt(sample: np.ndarray) -> None:
    import vectorbt  # noqa: F401  registers the accessor

    series = pd.Series(sample, index=pd.bdate_range("2019-01-01", periods=sample.size))
    witness = series.vbt.returns(freq="D", year_freq="252D")
    assert metrics.total_return(sample) == pytest.approx(witness.total(), rel=1e-12)
    assert metrics.cagr(sample) == pytest.approx(witness.annualized(), rel=1e-12)
    assert metrics.volatility(sample) == pytest.approx(witness.annualized_volatility(), rel=1e-12)
    assert metrics.sharpe(sample) == pytest.approx(witness.sharpe_ratio(), rel=1e-12)
    assert metrics.sortino(sample) == pytest.approx(witness.sortino_ratio(), rel=1e-12)
    assert metrics.omega(sample) == pytest.approx(witness.omega_ratio(), rel=1e-12)
    assert metrics.calmar(sample) == pytest.approx(witness.calmar_ratio(), rel=1e-9)
    assert metrics.max_drawdown(sample) == pytest.approx(-witness.max_drawdown(), rel=1e-9)


def test_tail_measures_equal_those_of_skfolio(sample: np.ndarray) -> None:
    from skfolio import measures

    assert metrics.value_at_risk(sample) == pytest.approx(measures.value_at_risk(sample), rel=1e-12)
    assert metrics.conditional_value_at_risk(sample) == pytest.approx(measures.cvar(sample), rel=1e-12)
    assert metrics.conditional_value_at_risk(sample, 0.99) == pytest.approx(measures.cvar(sample, beta=0.99), rel=1e-12)


def test_moments_equal_those_of_scipy(sample: np.ndarray) -> None:
    from scipy import stats

    assert metrics.skewness(sample) == pytest.approx(stats.skew(sample), rel=1e-12)
    assert metrics.excess_kurtosis(sample) == pytest.approx(stats.kurtosis(sample), rel=1e-12)


def test_growth_counts_years_in_sessions() -> None:
    # 100 grows to 121 over 504 returns, two years of 252 sessions: 10 % a year.
    equity = np.full(505, 100.0)
    equity[-1] = 121.0
    assert metrics.cagr(equity[1:] / equity[:-1] - 1.0) == pytest.approx(0.10, rel=1e-12)


def test_ratios_of_four_returns_worked_by_hand() -> None:
    # Mean 0.01; deviations .01 -.03 .03 -.01: squares sum to .002, ddof 1 deviation √(.002/3).
    returns = [0.02, -0.02, 0.04, 0.0]
    assert metrics.sharpe(returns, 1.0) == pytest.approx(0.01 / math.sqrt(0.002 / 3))
    # One loss of .02 among four sessions: downside √(.0004/4) = .01.
    assert metrics.sortino(returns, 1.0) == pytest.approx(1.0)
    assert metrics.omega(returns) == pytest.approx(0.06 / 0.02)
    # A quarter of four sessions is the worst one.
    assert metrics.value_at_risk(returns, 0.75) == pytest.approx(0.02)
    # The worst 1.5 sessions: (-.02 + half of 0) / 1.5.
    assert metrics.conditional_value_at_risk(returns, 1 - 1.5 / 4) == pytest.approx(0.02 / 1.5)


def test_risk_free_rate_is_taken_off_each_session() -> None:
    returns = np.array([0.02, -0.02, 0.04, 0.0])
    assert metrics.sharpe(returns, 252.0, 0.0252) == pytest.approx(metrics.sharpe(returns - 0.0001, 252.0))
    assert metrics.sortino(returns, 252.0, 0.0252) == pytest.approx(metrics.sortino(returns - 0.0001, 252.0))


def test_drawdown_depth_and_length_worked_by_hand() -> None:
    # Peak 120, down to 90 (25 %), under the peak for three closes, then a new peak and two closes below that.
    equity = np.array([100.0, 120, 110, 90, 100, 130, 120, 125])
    returns = equity[1:] / equity[:-1] - 1.0
    assert metrics.max_drawdown(returns) == pytest.approx(0.25)
    assert metrics.max_drawdown_sessions(returns) == 3
    assert metrics.max_drawdown_sessions([0.01, 0.02]) == 0
    assert metrics.max_drawdown_sessions([-0.01, 0.001, 0.001, 0.001]) == 4


def test_an_account_that_never_moved_has_sharpe_zero_and_no_shape() -> None:
    numbers = metrics.performance(equity_of(100.0, 100.0, 100.0), NO_TRADES, NO_ORDERS, REFERENCE)
    assert numbers["sharpe"] == numbers["sortino"] == numbers["volatility_ann"] == numbers["max_drawdown"] == 0.0
    for name in ("calmar", "omega", "skew", "excess_kurtosis", "win_rate", "profit_factor", "expectancy"):
        assert math.isnan(numbers[name]), name


def test_a_constant_gain_has_no_sharpe_ratio() -> None:
    growth = 100.0 * 1.001 ** np.arange(300)
    numbers = metrics.performance(equity_of(*growth), NO_TRADES, NO_ORDERS, REFERENCE)
    assert math.isnan(numbers["sharpe"])
    assert math.isnan(numbers["sortino"])
    assert numbers["cagr"] == pytest.approx(1.001**252 - 1)


def test_one_session_has_a_value_and_no_returns() -> None:
    numbers = metrics.performance(equity_of(100.0), NO_TRADES, NO_ORDERS, REFERENCE)
    assert numbers["final_equity"] == 100.0
    assert numbers["total_return"] == numbers["max_drawdown"] == 0.0
    for name in ("cagr", "volatility_ann", "sharpe", "sortino", "var_95", "cvar_95", "best_session", "turnover_ann"):
        assert math.isnan(numbers[name]), name


def test_two_sessions_have_a_return_and_no_deviation() -> None:
    numbers = metrics.performance(equity_of(100.0, 101.0), NO_TRADES, NO_ORDERS, REFERENCE)
    assert numbers["total_return"] == pytest.approx(0.01)
    assert math.isnan(numbers["volatility_ann"])
    assert math.isnan(numbers["sharpe"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -5.0])
def test_equity_without_a_positive_value_is_refused_with_its_session(bad: float) -> None:
    with pytest.raises(QualityError, match="2020-01-03"):
        metrics.performance(equity_of(100.0, 101.0, bad, 102.0), NO_TRADES, NO_ORDERS, REFERENCE)


def test_empty_and_unordered_equity_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        metrics.checked_equity(pd.Series(dtype=float))
    with pytest.raises(QualityError, match="ascending"):
        metrics.checked_equity(equity_of(1.0, 2.0).iloc[::-1])


def test_returns_with_nan_are_refused_with_their_place() -> None:
    with pytest.raises(QualityError, match=r"\(1,\)"):
        metrics.sharpe([0.1, math.nan])
    with pytest.raises(InputError, match="array"):
        metrics.sharpe(0.1)
    with pytest.raises(InputError, match="level"):
        metrics.value_at_risk([0.1], 1.0)


def test_sessions_per_year_scale_the_yearly_numbers(sample: np.ndarray) -> None:
    equity = equity_of(*(100.0 * np.concatenate([[1.0], np.cumprod(1 + sample)])))
    daily = metrics.performance(equity, NO_TRADES, NO_ORDERS, REFERENCE)
    crypto = metrics.performance(equity, NO_TRADES, NO_ORDERS, Convention(sessions_per_year=365.0))
    assert crypto["sharpe"] == pytest.approx(daily["sharpe"] * math.sqrt(365 / 252))
    assert 1 + crypto["cagr"] == pytest.approx((1 + daily["cagr"]) ** (365 / 252))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 40)), elements=st.floats(-0.2, 0.2)))
def test_a_matrix_gives_what_its_rows_give(matrix: np.ndarray) -> None:
    for metric in (metrics.sharpe, metrics.sortino, metrics.cagr, metrics.max_drawdown, metrics.omega, metrics.volatility):
        np.testing.assert_allclose(metric(matrix), [metric(row) for row in matrix], rtol=1e-9, atol=1e-12)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(arrays(np.float64, st.integers(2, 60), elements=st.floats(-0.5, 0.5)))
def test_drawdown_is_a_fraction_and_tail_loss_is_no_less_than_value_at_risk(returns: np.ndarray) -> None:
    assert 0.0 <= metrics.max_drawdown(returns) < 1.0
    assert metrics.conditional_value_at_risk(returns) >= metrics.value_at_risk(returns) - 1e-12
