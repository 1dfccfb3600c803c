"""The guard by itself: what reduces is not held back, what works already counts, and a closed market ages no price."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from config.errors import OrderRefused
from execution.guard import GuardContext
from execution.orders import Account, MarketClock, OrderRequest, OrderState, Quote
from tests.execution.world import NOW, PRICES, guard

FRIDAY_CLOSE = datetime(2026, 11, 20, 21, 0, tzinfo=UTC)


def order(side: str, symbol: str, quantity: int, **changes: Any) -> OrderRequest:
    given = {"client_order_id": f"{side}-{symbol}", "symbol": symbol, "side": side, "quantity": Decimal(quantity)}
    return OrderRequest(**{**given, **changes})


def working(side: Any, symbol: str, quantity: int, name: str = "resting") -> OrderState:
    return OrderState(
        client_order_id=name,
        order_id="1",
        symbol=symbol,
        side=side,
        quantity=Decimal(quantity),
        filled_quantity=Decimal(0),
        status="accepted",
    )


def context(**changes: Any) -> GuardContext:
    account = Account(
        account_id="paper",
        gateway="simulated",
        mode="paper",
        cash=Decimal(100_000),
        equity=Decimal(100_000),
        buying_power=Decimal(100_000),
        multiplier=Decimal(1),
    )
    given: dict[str, Any] = {
        "account": account,
        "positions": {},
        "open_orders": (),
        "quotes": {symbol: Quote(price=price, at=NOW) for symbol, price in PRICES.items()},
        "market": MarketClock(at=NOW, is_open=True, previous_close=NOW - timedelta(hours=18)),
        "now": NOW,
    }
    return GuardContext(**{**given, **changes})


def rule_of(orders: list[OrderRequest], found: GuardContext, **risk: Any) -> str | None:
    try:
        guard(**risk).check(orders, found)
    except OrderRefused as refusal:
        return refusal.rule
    return None


def test_what_only_reduces_is_not_held_back_by_concentration_or_leverage() -> None:
    held = context(positions={"SPY": Decimal(300), "IWM": Decimal(5)})  # 150,000 on 100,000, and one without a price
    assert rule_of([order("sell", "SPY", 10)], held, max_concentration=0.5) is None
    assert rule_of([order("buy", "SPY", 1)], held, max_concentration=0.5) == "concentration"
    assert rule_of([order("buy", "TLT", 1)], held) == "no_price"


def test_leverage_counts_what_is_held_what_works_and_what_is_ordered() -> None:
    # 60,000 held, 20,000 working, 20,000 ordered: exactly 1; one share more is beyond.
    found = context(positions={"SPY": Decimal(120)}, open_orders=(working("buy", "QQQ", 50),))
    assert rule_of([order("buy", "TLT", 200)], found) is None
    assert rule_of([order("buy", "TLT", 201)], found) == "leverage"


def test_a_sale_beyond_the_holding_is_a_short_sale_and_covering_is_not() -> None:
    held = context(positions={"SPY": Decimal(10), "QQQ": Decimal(-10)})
    assert rule_of([order("sell", "SPY", 10)], held) is None
    assert rule_of([order("sell", "SPY", 11)], held) == "short_not_allowed"
    assert rule_of([order("sell", "SPY", 11)], held, short_allowed=True) is None
    assert rule_of([order("buy", "QQQ", 10)], held) is None


def test_an_order_beside_a_working_one_is_a_duplicate_but_for_its_own_plan() -> None:
    found = context(open_orders=(working("buy", "SPY", 1),))
    assert rule_of([order("buy", "SPY", 1)], found) == "duplicate"
    assert rule_of([order("sell", "SPY", 1)], found) == "duplicate"
    assert rule_of([order("buy", "QQQ", 1)], found) is None
    ours = context(open_orders=(working("buy", "SPY", 1),), together=frozenset({"resting"}))
    assert rule_of([order("buy", "SPY", 1)], ours) is None
    assert rule_of([order("buy", "SPY", 1), order("buy", "SPY", 1)], context()) == "duplicate"


def test_orders_of_the_day_count_each_id_once() -> None:
    sent = context(sent_today=frozenset({"a", "b", "buy-SPY"}))
    assert rule_of([order("buy", "SPY", 1)], sent, max_orders_per_day=3) is None
    assert rule_of([order("buy", "QQQ", 1)], sent, max_orders_per_day=3) == "max_orders"


def test_over_a_weekend_the_last_close_is_fresh_for_the_next_opening_and_an_older_one_is_not() -> None:
    sunday = FRIDAY_CLOSE + timedelta(days=2)
    market = MarketClock(at=sunday, is_open=False, previous_close=FRIDAY_CLOSE)
    waiting = [order("buy", "SPY", 1, time_in_force="opg")]
    for moment, rule in [
        (FRIDAY_CLOSE, None),
        (FRIDAY_CLOSE - timedelta(seconds=60), None),
        (FRIDAY_CLOSE - timedelta(seconds=61), "stale_price"),
    ]:
        quotes = {"SPY": Quote(price=Decimal(500), at=moment)}
        assert rule_of(waiting, context(market=market, now=sunday, quotes=quotes)) == rule
    fresh = {"SPY": Quote(price=Decimal(500), at=FRIDAY_CLOSE)}
    assert rule_of([order("buy", "SPY", 1)], context(market=market, now=sunday, quotes=fresh)) == "market_closed"
    # While the market is open, an order for the opening is priced by the present, not by the last close.
    assert rule_of(waiting, context(quotes={"SPY": Quote(price=Decimal(500), at=NOW - timedelta(seconds=61))})) == "stale_price"


@pytest.mark.parametrize(("seconds", "rule"), [(5, None), (-5, None), (6, "clock_skew"), (-6, "clock_skew")])
def test_the_two_clocks_may_differ_by_five_seconds(seconds: int, rule: str | None) -> None:
    market = MarketClock(at=NOW + timedelta(seconds=seconds), is_open=True, previous_close=None)
    assert rule_of([order("buy", "SPY", 1)], context(market=market)) == rule


def test_no_orders_are_always_allowed() -> None:
    assert rule_of([], context(account=None)) is None
