"""The seven conventions of docs/conventions.md, each calculated by hand on five bars, on both engines."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import pandas as pd
import pytest

from backtests.strategy import View
from config.conventions import Convention
from config.errors import InputError
from risk.metrics import performance
from tests.backtests.market import ENGINES, Scripted, small_view

OPENS = [100.0, 102.0, 101.0, 105.0, 104.0]
CLOSES = [101.0, 103.0, 100.0, 106.0, 105.0]
IN_AND_OUT = Scripted(weights=((0.0, 1.0, 1.0, 0.0, 1.0),))
FREE = Convention(slippage_bps=0.0, fee_bps=0.0)


@pytest.fixture(params=list(ENGINES))
def run(request: pytest.FixtureRequest) -> Any:
    return ENGINES[request.param]


@pytest.fixture
def view() -> View:
    return small_view([OPENS], [CLOSES])


def test_1_a_decision_fills_at_the_next_open_with_slippage_and_one_on_the_last_bar_does_not(run: Any, view: View) -> None:
    orders = run(IN_AND_OUT, view).orders
    # Decided on bar 1, filled at the open of bar 2: 101 × 1.0005; decided on bar 3, filled on bar 4: 104 × 0.9995.
    assert orders["session"].tolist() == [view.sessions[2], view.sessions[4]]
    assert orders["side"].tolist() == ["buy", "sell"]
    assert orders["price"].tolist() == pytest.approx([101.0505, 103.948], rel=1e-12)


def test_2_all_in_buys_cash_over_price_with_fee_and_leaves_no_debt(run: Any, view: View) -> None:
    result = run(IN_AND_OUT, view)
    assert result.orders["quantity"].iloc[0] == pytest.approx(100_000 / (101.0505 * 1.001), rel=1e-12)
    # After the close of bar 2 everything is in the shares, at 100.
    assert result.equity.iloc[2] == pytest.approx(100_000 / (101.0505 * 1.001) * 100.0, rel=1e-12)


def test_2_a_weight_is_of_equity_at_the_fill_and_only_a_change_of_weight_trades(run: Any, view: View) -> None:
    half = run(Scripted(weights=((0.5, 0.5, 0.5, math.nan, 0.5),)), view).orders
    # Half of 100,000 at the open of 102, whatever the price does afterwards.
    assert half["quantity"].tolist() == pytest.approx([50_000 / 102.0], rel=1e-12)


def test_2_without_fractions_a_quantity_is_rounded_towards_zero(run: Any, view: View) -> None:
    result = run(IN_AND_OUT, view, convention=Convention(fractional=False))
    # 100,000 / (101.0505 × 1.001) = 988.61…
    assert result.orders["quantity"].tolist() == [988.0, 988.0]
    cash = 100_000 - 988 * 101.0505 * 1.001
    assert result.equity.iloc[2] == pytest.approx(cash + 988 * 100.0, rel=1e-12)


def test_3_fees_are_ten_basis_points_of_the_notional_on_both_sides(run: Any, view: View) -> None:
    result = run(IN_AND_OUT, view)
    quantity = 100_000 / (101.0505 * 1.001)
    assert result.orders["fee"].tolist() == pytest.approx([quantity * 101.0505 * 0.001, quantity * 103.948 * 0.001], rel=1e-9)
    assert result.equity.iloc[-1] == pytest.approx(quantity * 103.948 * 0.999, rel=1e-12)
    trade = result.trades.iloc[0]
    assert trade["pnl"] == pytest.approx(quantity * 103.948 * 0.999 - 100_000, rel=1e-9)
    assert trade["return"] == pytest.approx(103.948 * 0.999 / (101.0505 * 1.001) - 1, rel=1e-9)


def test_4_idle_cash_earns_its_rate_by_session(run: Any, view: View) -> None:
    convention = Convention(slippage_bps=0.0, fee_bps=0.0, cash_interest_ann=0.252)  # 0.001 a session
    idle = run(Scripted(weights=((0.0,) * 5,)), view, convention=convention)
    assert idle.equity.tolist() == pytest.approx([100_000 * 1.001**n for n in range(5)], rel=1e-12)
    half = run(Scripted(weights=((0.5,) * 5,)), view, convention=convention)
    # Bar 1: 100,100 in cash, half of it buys at 102; the other half goes on earning from bar 2 on.
    shares = 50_050 / 102
    assert half.orders["quantity"].tolist() == pytest.approx([shares], rel=1e-12)
    assert half.orders["price"].tolist() == pytest.approx([102.0], rel=1e-12)
    assert half.equity.tolist()[1:] == pytest.approx([50_050 * 1.001**n + shares * CLOSES[n + 1] for n in range(4)], rel=1e-12)


def test_5_volatility_and_sharpe_use_252_sessions_and_ddof_one_over_n_minus_one_returns(run: Any, view: View) -> None:
    result = run(IN_AND_OUT, view)
    equity = result.equity.tolist()
    returns = [after / before - 1 for before, after in itertools.pairwise(equity)]
    assert len(result.returns) == len(returns) == 4
    numbers = performance(result.equity, result.trades, result.orders, Convention())
    assert numbers["volatility_ann"] == pytest.approx(math.sqrt(252) * statistics.stdev(returns), rel=1e-9)
    assert numbers["sharpe"] == pytest.approx(math.sqrt(252) * statistics.mean(returns) / statistics.stdev(returns), rel=1e-9)
    assert numbers["cagr"] == pytest.approx((equity[-1] / equity[0]) ** (252 / 4) - 1, rel=1e-9)


def test_6_the_risk_free_rate_is_taken_off_by_session_and_is_zero_unless_set(run: Any, view: View) -> None:
    result = run(IN_AND_OUT, view)
    excess = [value - 0.0252 / 252 for value in result.returns]
    numbers = performance(result.equity, result.trades, result.orders, Convention(risk_free_ann=0.0252))
    assert numbers["sharpe"] == pytest.approx(math.sqrt(252) * statistics.mean(excess) / statistics.stdev(excess), rel=1e-9)
    assert Convention().risk_free_ann == 0.0


def test_7_an_open_position_is_marked_at_the_last_close_without_a_fee_and_is_no_trade(run: Any, view: View) -> None:
    result = run(Scripted(weights=((1.0,) * 5,)), view)
    quantity = 100_000 / (102 * 1.0005 * 1.001)
    assert result.equity.iloc[-1] == pytest.approx(quantity * 105.0, rel=1e-12)
    assert len(result.orders) == 1
    assert len(result.trades) == 0
    assert math.isnan(performance(result.equity, result.trades, result.orders, Convention())["win_rate"])


def test_same_close_fills_at_the_close_it_is_decided_on_also_on_the_last_bar(run: Any, view: View) -> None:
    result = run(IN_AND_OUT, view, convention=Convention(fill="same_close"))
    assert result.orders["session"].tolist() == [view.sessions[1], view.sessions[3], view.sessions[4]]
    assert result.orders["price"].tolist() == pytest.approx([103 * 1.0005, 106 * 0.9995, 105 * 1.0005], rel=1e-12)
    # Bought at 103 with costs, worth 103 at that same close.
    assert result.equity.iloc[1] == pytest.approx(100_000 / (1.0005 * 1.001), rel=1e-12)


def test_closes_only_data_cannot_fill_at_the_open_and_says_what_to_do(run: Any) -> None:
    closes_only = small_view([[math.nan] * 5], [CLOSES])
    with pytest.raises(InputError, match="A has closing prices only") as refusal:
        run(IN_AND_OUT, closes_only)
    assert "same_close" in str(refusal.value)
    bought = run(IN_AND_OUT, closes_only, convention=Convention(fill="same_close")).orders
    assert bought["price"].iloc[0] == pytest.approx(103 * 1.0005)


def test_sales_pay_for_purchases_of_the_same_session(run: Any) -> None:
    view = small_view([[10.0] * 4, [20.0] * 4], [[10.0] * 4, [20.0] * 4])
    switch = Scripted(weights=((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 1.0, 1.0)))
    orders = run(switch, view, convention=FREE).orders
    # B comes second by name and first by need: all of A is sold, and all of the proceeds buy B.
    assert list(zip(orders["symbol"], orders["side"], orders["quantity"], strict=True)) == [
        ("A", "buy", pytest.approx(10_000.0)),
        ("A", "sell", pytest.approx(10_000.0)),
        ("B", "buy", pytest.approx(5_000.0)),
    ]
    back = Scripted(weights=((0.0, 1.0, 1.0, 1.0), (1.0, 0.0, 0.0, 0.0)))
    assert run(back, view, convention=FREE).orders["symbol"].tolist() == ["B", "B", "A"]


def test_purchases_go_from_the_smallest_to_the_largest_and_the_last_is_cut_to_the_cash(run: Any) -> None:
    view = small_view([[10.0] * 3, [20.0] * 3], [[10.0] * 3, [20.0] * 3])
    orders = run(Scripted(weights=((0.7,) * 3, (0.3,) * 3)), view).orders
    assert orders["symbol"].tolist() == ["B", "A"]
    spent = 30_000 / 20 * 20 * 1.0005 * 1.001
    assert orders["quantity"].tolist() == pytest.approx([30_000 / 20, (100_000 - spent) / (10 * 1.0005 * 1.001)], rel=1e-12)


def test_a_halted_symbol_is_not_traded_and_keeps_its_last_known_value(run: Any) -> None:
    nan = math.nan
    view = small_view([[100.0, 100.0, nan, nan, 90.0]], [[100.0, 110.0, nan, nan, 95.0]])
    orders = run(Scripted(weights=((1.0, 0.0, nan, nan, nan),)), view, convention=FREE)
    # Bought at 100; the sale decided on bar 1 waits for the first open after it, on bar 4.
    assert orders.orders["session"].tolist() == [view.sessions[1], view.sessions[4]]
    assert orders.orders["price"].tolist() == [100.0, 90.0]
    assert orders.equity.tolist() == pytest.approx([100_000, 110_000, 110_000, 110_000, 90_000])


def test_a_symbol_that_lists_late_is_bought_at_its_first_open(run: Any) -> None:
    nan = math.nan
    view = small_view([[50.0] * 5, [nan, nan, nan, 20.0, 25.0]], [[50.0] * 5, [nan, nan, nan, 20.0, 30.0]])
    result = run(Scripted(weights=((0.5,) * 5, (0.5,) * 5)), view, convention=FREE)
    assert result.orders["session"].tolist() == [view.sessions[1], view.sessions[3]]
    assert result.orders["quantity"].tolist() == pytest.approx([1_000.0, 2_500.0])
    assert result.equity.tolist() == pytest.approx([100_000] * 4 + [125_000])


def test_a_wish_withdrawn_before_it_could_be_filled_leaves_no_order(run: Any) -> None:
    nan = math.nan
    view = small_view([[100.0, nan, nan, 100.0, 100.0]], [[100.0, nan, nan, 100.0, 100.0]])
    assert len(run(Scripted(weights=((1.0, 0.0, 0.0, 0.0, 0.0),)), view).orders) == 0


@pytest.mark.parametrize("field", ["next_open", "same_close"])
def test_no_trade_at_all_gives_a_flat_account(run: Any, view: View, field: Any) -> None:
    result = run(Scripted(weights=((math.nan,) * 5,)), view, convention=Convention(fill=field))
    assert result.equity.tolist() == [100_000.0] * 5
    assert result.orders.empty
    assert result.trades.empty
    assert isinstance(result.orders["session"].dtype, type(pd.Series(view.sessions).dtype))
