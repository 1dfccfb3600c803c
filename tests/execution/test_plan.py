"""Sizing by hand: weights, rounding, the cash floor, exits, crossing zero, changes of target."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.conventions import REFERENCE, Convention
from config.errors import InputError
from execution.costs import CostModel
from execution.orders import Quote, client_order_id, exact, signed
from execution.plan import Plan, PlanLimits, make_plan, plan_id
from tests.execution.world import FREE, NOW, PRICES

DAY = date(2026, 11, 19)


def plan(targets: Any, held: Any = None, **changes: Any) -> Plan:
    given: dict[str, Any] = {
        "account_id": "paper",
        "strategy": "s",
        "version": "v",
        "session": DAY,
        "targets": targets,
        "positions": held or {},
        "prices": {symbol: Quote(price=price, at=NOW) for symbol, price in PRICES.items()},
        "equity": 100_000,
        "cash": 100_000,
        "snapshot_id": "snap",
        "convention": FREE,
    }
    return make_plan(**{**given, **changes})


def legs(made: Plan) -> list[tuple[str, str, Decimal]]:
    return [(order.side, order.symbol, order.quantity) for order in made.orders]


def test_fractions_are_rounded_down_to_nine_decimals_or_whole_shares() -> None:
    # 100,000 / 3 / 500 = 66.666…
    assert legs(plan({"SPY": Decimal(1) / 3})) == [("buy", "SPY", Decimal("66.666666666"))]
    assert legs(plan({"SPY": Decimal(1) / 3}, convention=Convention(fractional=False))) == [("buy", "SPY", Decimal(66))]


def test_from_flat_to_all_in_is_the_conventions_quantity() -> None:
    # docs/conventions.md, 2: cash / (fill × (1 + fee)) = 100,000 / (500 × 1.0005 × 1.001) = 199.70039...
    quantity = plan({"SPY": 1.0}, convention=REFERENCE).orders[0].quantity
    with exact():
        bought = Decimal(100_000) / (Decimal(500) * Decimal("1.0005") * Decimal("1.001"))
        assert Decimal(0) <= bought - quantity < Decimal("1e-9")


def test_sales_come_first_and_a_crossing_of_zero_is_two_orders() -> None:
    made = plan({"SPY": -0.1, "QQQ": 0.2, "TLT": 0.1}, {"SPY": Decimal(10), "QQQ": Decimal(-5)}, cash=97_000)
    # SPY: sell 10 held, sell 20 short. QQQ: buy 5 back, buy 50. TLT: buy 100.
    assert legs(made) == [
        ("sell", "SPY", Decimal(10)),
        ("sell", "SPY", Decimal(20)),
        ("buy", "QQQ", Decimal(5)),
        ("buy", "QQQ", Decimal(50)),
        ("buy", "TLT", Decimal(100)),
    ]
    assert len({order.client_order_id for order in made.orders}) == 5


def test_a_small_change_is_left_out_and_a_small_exit_is_not() -> None:
    limits = PlanLimits(min_notional_usd=Decimal(600))
    held = {"SPY": Decimal(1), "QQQ": Decimal(74)}
    # QQQ 74 to 75 is 400; the exit from SPY is 500.
    assert legs(plan({"SPY": 0.0, "QQQ": 0.3}, held, limits=limits)) == [("sell", "SPY", Decimal(1))]


def test_no_opinion_keeps_what_is_held_and_an_unchanged_target_is_not_traded() -> None:
    held = {"SPY": Decimal(1), "QQQ": Decimal(1)}
    assert legs(plan({"SPY": None, "QQQ": float("nan")}, held)) == []
    assert legs(plan({"SPY": 0.4, "TLT": 0.1}, held, previous={"SPY": 0.4, "TLT": 0.0})) == [("buy", "TLT", Decimal(100))]


def test_an_exit_sells_exactly_what_is_held() -> None:
    held = {"SPY": Decimal("1.123456789012")}
    assert legs(plan({"SPY": 0.0}, held, convention=Convention(fractional=False))) == [("sell", "SPY", held["SPY"])]


def test_a_buffer_stays_in_cash() -> None:
    limits = PlanLimits(cash_buffer=Decimal("0.1"))
    assert legs(plan({"SPY": 1.0}, limits=limits)) == [("buy", "SPY", Decimal(180))]


def test_targets_beyond_one_are_meant_and_are_not_cut() -> None:
    assert legs(plan({"SPY": 1.5})) == [("buy", "SPY", Decimal(300))]


def test_a_plan_survives_storage_and_its_digest_sees_every_change() -> None:
    made = plan({"SPY": 0.4, "QQQ": 0.123456789})
    assert Plan.from_dict(made.as_dict()) == made
    assert Plan.from_dict(made.as_dict()).digest == made.digest
    others = [
        plan({"SPY": 0.4, "QQQ": 0.12345678}),
        plan({"SPY": 0.4, "QQQ": 0.123456789}, snapshot_id="other"),
        plan({"SPY": 0.4, "QQQ": 0.123456789}, run_id="run"),
        plan({"SPY": 0.4, "QQQ": 0.123456789}, cash=99_999),
    ]
    assert len({made.digest, *(other.digest for other in others)}) == 5
    assert {other.plan_id for other in others} == {made.plan_id}


def test_the_plan_id_does_not_move_with_holdings_prices_or_targets() -> None:
    """After a crash half the plan may be held already: the same decision must still have the same id, so that it conflicts."""
    ids = {
        plan({"SPY": 0.4}).plan_id,
        plan({"SPY": 0.4}, {"SPY": Decimal(80)}, cash=60_000).plan_id,
        plan({"SPY": 0.1}, prices={"SPY": Quote(price=Decimal(501), at=NOW)}).plan_id,
    }
    assert ids == {plan_id("paper", "s", "v", DAY)}


def test_ids_depend_on_what_they_are_for_and_nothing_else() -> None:
    assert plan_id("a", "s", "v", DAY) == plan_id("a", "s", "v", DAY)
    assert len({plan_id("a", "s", "v", DAY), plan_id("b", "s", "v", DAY), plan_id("a", "s", "w", DAY)}) == 3
    ids = {client_order_id(*given) for given in [("a", "s", "p", "SPY", 1), ("a", "s", "p", "SPY", 2), ("a", "s", "q", "SPY", 1)]}
    assert len(ids) == 3
    assert all(len(name) <= 48 for name in ids)  # Alpaca takes 128 characters, an IBKR order reference about 50


@pytest.mark.parametrize(
    "bad", [{"equity": 0}, {"equity": float("nan")}, {"cash": float("inf")}, {"targets": {"SPY": float("inf")}}]
)
def test_numbers_that_are_none_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        plan(**{"targets": {"SPY": 0.1}, **bad})


_share = st.integers(0, 1000)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    weights=st.tuples(_share, _share, _share).filter(lambda w: 0 < sum(w) <= 1000),
    held=st.tuples(_share, _share, _share),
    cash=st.integers(0, 10**7),
    fee=st.integers(0, 100),
    slip=st.integers(0, 100),
    per_order=st.integers(0, 3),
    fractional=st.booleans(),
)
def test_cash_stays_above_nought_after_fees_and_slippage(
    weights: tuple[int, ...], held: tuple[int, ...], cash: int, fee: int, slip: int, per_order: int, fractional: bool
) -> None:
    symbols = sorted(PRICES)
    positions = {symbol: Decimal(quantity) for symbol, quantity in zip(symbols, held, strict=True)}
    money = Decimal(cash) / 100
    equity = money + sum(quantity * PRICES[symbol] for symbol, quantity in positions.items())
    if equity <= 0:
        return
    costs = CostModel(fee_bps=Decimal(fee), slippage_bps=Decimal(slip), per_order_usd=Decimal(per_order))
    targets = {symbol: Decimal(weight) / 1000 for symbol, weight in zip(symbols, weights, strict=True)}
    made = plan(targets, positions, equity=equity, cash=money, costs=costs, convention=Convention(fractional=fractional))
    with exact():
        for order in made.orders:
            price = costs.fill_price(order.side, PRICES[order.symbol])
            money -= signed(order.side, order.quantity) * price + costs.fee(order.quantity, price)
            positions[order.symbol] += signed(order.side, order.quantity)
    buys = [order for order in made.orders if order.side == "buy"]
    assert money >= 0 or not buys
    assert all(quantity >= 0 for quantity in positions.values())
    assert [order.side for order in made.orders] == sorted((order.side for order in made.orders), reverse=True)
