"""The search: every valid combination, counted, with the numbers of the runs themselves."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from backtests.equity_vectorbt import run_vectorised
from backtests.search import SearchResult, run_search
from backtests.strategy import View
from config.errors import ConfigError, InputError, UnknownNameError
from tests.backtests.market import index_view

WINDOWS = range(5, 204, 9)


@pytest.fixture(scope="module")
def nasdaq() -> View:
    return index_view("nasdaq")


@pytest.fixture(scope="module")
def search(nasdaq: View) -> SearchResult:
    return run_search("sma_crossover", {"fast": WINDOWS, "slow": WINDOWS}, nasdaq)


def test_the_253_pairs_on_nasdaq_have_the_published_best(search: SearchResult) -> None:
    assert len(search.table) == 253
    assert search.skipped == 23 * 23 - 253
    assert "not below slow" in str(search.skipped_because)
    assert search.best.params == {"fast": 32, "slow": 176}
    assert search.table["sharpe"].iloc[search.best_row] == pytest.approx(0.589913, abs=5e-7)


def test_a_row_of_the_table_is_the_run_of_that_configuration(search: SearchResult, nasdaq: View) -> None:
    for row in (0, 100, search.best_row, 252):
        alone = run_vectorised(search.strategies[row], nasdaq)
        numbers = search.table.iloc[row]
        returns = alone.returns.tolist()
        assert numbers["final_equity"] == pytest.approx(alone.equity.iloc[-1], rel=1e-12)
        assert numbers["sharpe"] == pytest.approx(math.sqrt(252) * statistics.fmean(returns) / statistics.stdev(returns), rel=1e-9)
        assert numbers["max_drawdown"] == pytest.approx((1 - alone.equity / alone.equity.cummax()).max(), rel=1e-9)
        assert numbers["trades"] == len(alone.trades)
        assert numbers["orders"] == len(alone.orders)
        np.testing.assert_allclose(search.returns[row], alone.returns, atol=1e-12)
        assert search.spec(row).digest == alone.spec.digest


def test_returns_are_sessions_by_configurations(search: SearchResult, nasdaq: View) -> None:
    assert search.returns.shape == (len(nasdaq.sessions) - 1, 253)
    assert search.returns.to_numpy().dtype == np.float64


def test_a_dotted_name_reaches_into_a_part(nasdaq: View) -> None:
    short = View(panel=nasdaq.panel.upto(nasdaq.sessions[120]))
    found = run_search("combo", {"momentum.sma_crossover.fast": [3, 5], "momentum.sma_crossover.slow": np.array([10, 20])}, short)
    assert [strategy.params["momentum"]["sma_crossover"] for strategy in found.strategies] == [
        {"fast": 3, "slow": 10},
        {"fast": 3, "slow": 20},
        {"fast": 5, "slow": 10},
        {"fast": 5, "slow": 20},
    ]


def test_a_wrong_grid_is_refused_with_the_reason(nasdaq: View) -> None:
    with pytest.raises(ConfigError, match="no parameter 'fats'"):
        run_search("sma_crossover", {"fats": [1, 2]}, nasdaq)
    with pytest.raises(UnknownNameError):
        run_search("sma", {"fast": [1, 2]}, nasdaq)
    with pytest.raises(InputError, match="no values for slow"):
        run_search("sma_crossover", {"fast": [1], "slow": []}, nasdaq)
    with pytest.raises(InputError, match="100 combinations, more than the limit of 99"):
        run_search("sma_crossover", {"fast": range(10), "slow": range(10)}, nasdaq, limit=99)
