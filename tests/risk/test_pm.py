"""Risk and portfolio managers: closed forms, skfolio beside, refusals."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import InputError, QualityError
from config.settings import load_settings
from risk.pm import create_portfolio_manager, create_risk_manager

MANAGER = create_risk_manager(max_drawdown=0.2, max_volatility=0.15)


def two_assets(mean_a: float, mean_b: float, dev_a: float, dev_b: float, correlation: float) -> pd.DataFrame:
    """Session returns whose sample moments are exactly these, yearly."""
    raw = np.random.default_rng(0).standard_normal((253, 2))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    shape = np.linalg.cholesky(np.array([[dev_a**2, correlation * dev_a * dev_b], [correlation * dev_a * dev_b, dev_b**2]]))
    return pd.DataFrame(white @ shape.T / math.sqrt(252) + np.array([mean_a, mean_b]) / 252, columns=["A", "B"])


def test_limits_left_out_are_those_of_the_settings() -> None:
    chosen = load_settings({"risk.max_drawdown": 0.1, "risk.max_volatility": 0.3})
    manager = create_risk_manager(settings=chosen)
    assert (manager.max_drawdown, manager.max_volatility) == (0.1, 0.3)
    manager = create_risk_manager(max_drawdown=0.4, settings=chosen)
    assert (manager.max_drawdown, manager.max_volatility) == (0.4, 0.3)


def test_position_size_worked_by_hand() -> None:
    assert MANAGER.calculate_position_size(100_000, 0.30) == pytest.approx(50_000)
    assert MANAGER.calculate_position_size(100_000, 0.15) == 100_000
    assert MANAGER.calculate_position_size(100_000, 0.05) == 100_000  # never above the capital
    assert MANAGER.calculate_position_size(0, 0.3) == 0


@pytest.mark.parametrize("volatility", [0.0, -0.1, math.nan, math.inf])
def test_a_volatility_that_is_none_is_refused(volatility: float) -> None:
    with pytest.raises(InputError, match="positive"):
        MANAGER.calculate_position_size(100_000, volatility)


def test_limits_and_capital_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="max_drawdown"):
        create_risk_manager(0.0, 0.1)
    with pytest.raises(InputError, match="volatility"):
        create_risk_manager(0.1, -0.1)
    with pytest.raises(InputError, match="capital"):
        MANAGER.calculate_position_size(-1.0, 0.1)


@settings(derandomize=True, deadline=None)
@given(st.floats(0, 1e12), st.floats(1e-6, 10))
def test_position_size_is_between_nothing_and_the_capital(capital: float, volatility: float) -> None:
    size = MANAGER.calculate_position_size(capital, volatility)
    assert 0.0 <= size <= capital
    # The invested part's volatility, on the whole capital, is within the limit.
    assert size * volatility <= 0.15 * capital * (1 + 1e-12)


def test_drawdown_check_worked_by_hand() -> None:
    equity = pd.Series([100.0, 120, 90, 100], index=pd.bdate_range("2020-01-01", periods=4))
    check = MANAGER.check_drawdown(equity)
    assert check.worst == pytest.approx(0.25)
    assert check.current == pytest.approx(1 / 6)
    assert check.within_limit
    assert check.peak_session == pd.Timestamp("2020-01-02")
    assert not MANAGER.check_drawdown(equity.iloc[:3]).within_limit
    with pytest.raises(QualityError, match="2020-01-03"):
        MANAGER.check_drawdown(equity.where(equity != 90.0))


def test_two_assets_with_a_binding_target_in_closed_form() -> None:
    # Two assets and a binding target leave one answer: a 15 % target between 10 % and 20 % is half and half.
    manager = create_portfolio_manager(MANAGER)
    found = manager.optimize_portfolio(two_assets(0.10, 0.20, 0.10, 0.30, 0.2), 0.15)
    assert found.weights["A"] == pytest.approx(0.5, abs=1e-7)
    assert found.expected_return_ann == pytest.approx(0.15, abs=1e-9)
    # .25·.01 + .25·.09 + 2·.25·.2·.1·.3 = .028
    assert found.volatility_ann == pytest.approx(math.sqrt(0.028), abs=1e-7)
    assert found.invested_fraction == pytest.approx(0.15 / math.sqrt(0.028), abs=1e-6)


def test_two_assets_of_least_variance_in_closed_form() -> None:
    # Target not binding: w_A = (σ_B² - ρσ_Aσ_B) / (σ_A² + σ_B² - 2ρσ_Aσ_B) = (.09 - .006) / (.10 - .012).
    found = create_portfolio_manager(MANAGER).optimize_portfolio(two_assets(0.10, 0.20, 0.10, 0.30, 0.2), 0.05)
    assert found.weights["A"] == pytest.approx(0.084 / 0.088, abs=1e-6)
    assert found.weights.sum() == pytest.approx(1.0)


def test_no_short_position_where_the_unbounded_answer_has_one() -> None:
    # With correlation .9 the unbounded least-variance weight of B is negative: (.01 - .027) / (.10 - .054) < 0.
    found = create_portfolio_manager(MANAGER).optimize_portfolio(two_assets(0.10, 0.20, 0.10, 0.30, 0.9), 0.05)
    assert found.weights["B"] == pytest.approx(0.0, abs=1e-9)
    assert found.volatility_ann == pytest.approx(0.10, abs=1e-9)


def test_twenty_assets_equal_skfolio() -> None:
    from skfolio.optimization import MeanRisk

    returns = pd.DataFrame(np.random.default_rng(0).normal(0.0004, 0.01, (1000, 20)))
    found = create_portfolio_manager(MANAGER).optimize_portfolio(returns, 0.20)
    witness = MeanRisk(min_return=0.20 / 252).fit(returns).weights_
    np.testing.assert_allclose(found.weights, witness, atol=5e-4)
    # No worse than the other solver's answer.
    assert found.volatility_ann <= math.sqrt(witness @ returns.cov().to_numpy() @ witness * 252) * (1 + 1e-6)


def test_the_best_symbols_own_return_can_be_asked_for() -> None:
    found = create_portfolio_manager(MANAGER).optimize_portfolio(two_assets(0.10, 0.20, 0.10, 0.30, 0.2), 0.20)
    assert found.weights["B"] == pytest.approx(1.0, abs=1e-6)


def test_one_symbol_gets_everything() -> None:
    found = create_portfolio_manager(MANAGER).optimize_portfolio(two_assets(0.10, 0.20, 0.10, 0.30, 0.2)[["A"]], 0.05)
    assert found.weights.to_dict() == {"A": 1.0}
    assert found.volatility_ann == pytest.approx(0.10)


def test_a_target_out_of_reach_names_the_range() -> None:
    with pytest.raises(InputError, match=r"0\.1000 to 0\.2000"):
        create_portfolio_manager(MANAGER).optimize_portfolio(two_assets(0.10, 0.20, 0.10, 0.30, 0.2), 0.21)


def test_missing_returns_are_refused_by_name() -> None:
    returns = two_assets(0.10, 0.20, 0.10, 0.30, 0.2)
    returns.iloc[3, 1] = math.nan
    with pytest.raises(QualityError, match="return of B on 3"):
        create_portfolio_manager(MANAGER).optimize_portfolio(returns, 0.1)
    with pytest.raises(InputError, match="at least two sessions"):
        create_portfolio_manager(MANAGER).optimize_portfolio(returns.iloc[:1], 0.1)
