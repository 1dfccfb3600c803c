"""The S column of EXECUTION_SCENARIOS.md, as far as this room covers it; the expected numbers are that file's."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import IntegrityError, LockHeldError, OrderRefused, PlanConflict, ServiceUnavailable, TradingHalted
from execution.journal import Journal
from execution.oms import run_plan
from execution.orders import OrderRequest, Quote
from execution.reconcile import halt_trading
from execution.simulated import SimulatedBroker
from tests.execution.world import PRICES, SESSION, TW, World, guard, make_world

EXACT = {"SPY": Decimal(80), "QQQ": Decimal(75), "TLT": Decimal(300)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def foreign(broker: SimulatedBroker, clock: FixedClock) -> None:
    """An order placed by somebody else, working because the market was closed when it came."""
    now = clock.now()
    clock.move_to(datetime(2026, 11, 20, 2, 0, tzinfo=UTC))
    broker.submit(OrderRequest(client_order_id="somebody-else", symbol="SPY", side="buy", quantity=Decimal(1)))
    clock.move_to(now)


def test_a_clean_rebalance_fills_three_orders_and_leaves_no_cash(world: World) -> None:
    outcome = world.run(world.plan(TW))
    assert world.count() == 3
    assert {order.state for order in outcome.orders} == {"filled"}
    assert world.held() == EXACT
    assert outcome.account.cash == 0


def test_the_same_plan_after_a_restart_sends_nothing(world: World) -> None:
    plan = world.plan(TW)
    world.run(plan)
    again = world.restart()
    outcome = again.run(plan)
    assert outcome.sent == ()
    assert again.count() == 3
    assert len(outcome.fills) == 3


def test_the_same_plan_id_with_other_targets_is_a_conflict(world: World) -> None:
    plan = world.plan(TW)
    other = world.plan({"SPY": 0.5})
    assert plan.plan_id == other.plan_id
    world.run(plan)
    with pytest.raises(PlanConflict, match="other content"):
        world.run(other)
    assert world.count() == 3


def test_an_answer_lost_after_acceptance_is_asked_for_and_not_resent(world: World) -> None:
    plan = world.plan(TW)
    world.broker.inject("lost_after_accept")
    outcome = world.run(plan)
    assert world.count() == 3
    assert {order.state for order in outcome.orders} == {"filled"}
    assert world.held() == EXACT


def test_an_order_lost_before_acceptance_is_sent_again_with_the_same_id(world: World) -> None:
    plan = world.plan(TW)
    world.broker.inject("lost_before_accept")
    outcome = world.run(plan)
    assert world.count() == 3
    assert outcome.sent == tuple(order.client_order_id for order in plan.orders)
    assert world.held() == EXACT


def test_an_order_lost_twice_is_unknown_and_halts_and_a_resumed_run_completes_it(world: World) -> None:
    plan = world.plan(TW)
    world.broker.inject("lost_before_accept", "lost_before_accept")
    with pytest.raises(TradingHalted, match="unknown"):
        world.run(plan)
    assert world.count() == 0
    with world.journal() as journal:
        assert [order.state for order in journal.orders()] == ["unknown", "planned", "planned"]
    with pytest.raises(TradingHalted, match="halted since"):
        world.run(plan)
    with world.journal() as journal:
        journal.resume("asked the broker: it has no such order")
    world.run(plan)
    assert world.count() == 3
    assert world.held() == EXACT


def test_an_unreadable_account_is_unavailable_and_nothing_is_sent(world: World) -> None:
    plan = world.plan(TW)
    for reads_before in range(4):
        broker = _Unreadable(world.broker, reads_before)
        with pytest.raises(ServiceUnavailable):
            world.run(plan, broker=broker)
        assert world.count() == 0
    world.run(plan)
    assert world.held() == EXACT


class _Unreadable:
    """Fails the reading that comes after so many good ones."""

    def __init__(self, broker: SimulatedBroker, good: int) -> None:
        self._broker, self._good = broker, good

    def __getattr__(self, name: str) -> Any:
        if name in ("account", "positions", "open_orders", "fills"):
            if self._good == 0:
                self._broker.inject("unreadable")
            self._good -= 1
        return getattr(self._broker, name)


def test_a_foreign_order_halts_with_an_explanation_and_stays_untouched(world: World) -> None:
    plan = world.plan(TW)
    foreign(world.broker, world.clock)
    with pytest.raises(TradingHalted, match="somebody-else .* is not ours"):
        world.run(plan)
    assert [order.client_order_id for order in world.broker.open_orders()] == ["somebody-else"]
    with pytest.raises(TradingHalted, match="halted since"):
        world.run(plan)


def test_a_holding_that_our_fills_do_not_explain_halts_until_it_is_adopted(world: World) -> None:
    world.broker.submit(OrderRequest(client_order_id="by-hand", symbol="SPY", side="buy", quantity=Decimal(3)))
    world.broker._db.execute("delete from fills")  # a transfer: a position without an execution
    plan = world.plan(TW)
    with pytest.raises(TradingHalted, match="SPY: ours 0, the broker's 3"):
        world.run(plan)
    with world.journal() as journal:
        journal.adopt({"SPY": Decimal(3)}, "transferred in on the 18th")
        journal.resume("adopted")
    world.run(plan)
    assert world.held() == EXACT


def test_a_leg_beyond_buying_power_is_rejected_once_and_a_rerun_sends_nothing(tmp_path: Path) -> None:
    world = make_world(tmp_path, multiplier=1)
    plan = world.plan(TW, equity=150_000, cash=150_000)  # what the account does not have
    outcome = world.run(plan, limits=guard(max_leverage=3.0))
    # QQQ 45,000 fits; SPY 60,000 on top does not; TLT 45,000 does.
    assert [order.request.symbol for order in outcome.rejected] == ["SPY"]
    assert "insufficient buying power" in outcome.rejected[0].reason
    count = world.count()
    again = world.restart(multiplier=1)
    assert again.run(plan, limits=guard(max_leverage=3.0)).sent == ()
    assert again.count() == count == 3


def test_a_rotation_sells_before_it_buys(tmp_path: Path) -> None:
    world = make_world(tmp_path, multiplier=1)
    first = world.run(world.plan({"SPY": 0.5, "QQQ": 0.5, "TLT": 0.0}))
    second = world.run(world.plan({"SPY": 0.4, "QQQ": 0.0, "TLT": 0.6}, session=date(2026, 11, 20)))
    sides = [order.request.side for order in (*first.orders, *second.orders)]
    assert sides == ["buy", "buy", "sell", "sell", "buy"]
    assert world.held() == {"SPY": Decimal(80), "TLT": Decimal(600)}


@pytest.mark.parametrize(
    ("rule", "risk", "targets"),
    [
        ("restricted", {"restricted": ["TLT"]}, TW),
        ("max_order_notional", {"max_order_notional": 39_999.0}, TW),
        ("max_order_qty", {"max_order_size": 299.0}, TW),
        ("concentration", {"max_concentration": 0.39}, TW),
        ("leverage", {"max_leverage": 0.99}, TW),
        ("short_not_allowed", {}, {"SPY": -0.1}),
        ("max_orders", {"max_orders_per_day": 2}, TW),
    ],
)
def test_each_pre_trade_rule_refuses_by_name_with_both_numbers(
    world: World, rule: str, risk: dict[str, Any], targets: dict[str, float]
) -> None:
    with pytest.raises(OrderRefused) as refusal:
        world.run(world.plan(targets), limits=guard(**risk))
    assert refusal.value.rule == rule
    assert world.count() == 0
    numbers = {
        "max_order_notional": ("40,000", "39,999"),
        "max_order_qty": ("300", "299"),
        "concentration": ("0.4", "0.39"),
        "leverage": ("1", "0.99"),
        "short_not_allowed": ("-20", "0"),
        "max_orders": ("3", "2"),
    }
    assert all(number in refusal.value.message for number in numbers.get(rule, ("TLT",)))


def test_exactly_on_the_limit_is_allowed(world: World) -> None:
    world.run(world.plan({"SPY": 0.6}), limits=guard(max_concentration=0.6, max_order_notional=60_000.0, max_order_size=120.0))
    assert world.held() == {"SPY": Decimal(120)}


@pytest.mark.parametrize(("age", "rule"), [(60, None), (61, "stale_price"), (-5, None), (-6, "clock_skew"), (None, "no_price")])
def test_a_price_must_be_there_and_neither_stale_nor_from_the_future(world: World, age: int | None, rule: str | None) -> None:
    plan = world.plan(TW)
    quotes = dict(plan.quotes)
    if age is None:
        del quotes["SPY"]
    else:
        quotes["SPY"] = Quote(price=PRICES["SPY"], at=world.clock.now() - timedelta(seconds=age))
    plan = replace(plan, quotes=quotes)
    if rule is None:
        world.run(plan)
        assert world.count() == 3
        return
    with pytest.raises(OrderRefused) as refusal:
        world.run(plan)
    assert refusal.value.rule == rule
    assert world.count() == 0


def test_a_symbol_without_a_price_cannot_be_planned(world: World) -> None:
    with pytest.raises(OrderRefused) as refusal:
        world.plan({"IWM": 0.1})
    assert refusal.value.rule == "no_price"


def test_a_clock_half_a_minute_off_is_refused(world: World) -> None:
    plan = world.plan(TW)
    ours = FixedClock(world.clock.now() + timedelta(seconds=30))
    with world.journal() as journal, pytest.raises(OrderRefused) as refusal:
        run_plan(plan, world.broker, journal, guard(), ours)
    assert refusal.value.rule == "clock_skew"
    assert world.count() == 0


def test_a_day_order_is_refused_while_the_market_is_closed(world: World) -> None:
    world.clock.move_to(datetime(2026, 11, 21, 15, 0, tzinfo=UTC))  # a Saturday
    with pytest.raises(OrderRefused) as refusal:
        world.run(world.plan(TW))
    assert refusal.value.rule == "market_closed"
    assert world.count() == 0


def test_a_halt_cancels_ours_and_leaves_the_foreign_order(world: World) -> None:
    world.clock.move_to(datetime(2026, 11, 19, 21, 0, tzinfo=UTC))  # the close of the session
    world.run(world.plan({"SPY": 0.4}, time_in_force="opg"))
    foreign(world.broker, world.clock)
    with world.journal() as journal:
        cancelled = halt_trading(world.broker, journal, "asked for")
        assert [order.state for order in journal.orders()] == ["canceled"]
    assert len(cancelled) == 1
    assert [order.client_order_id for order in world.broker.open_orders()] == ["somebody-else"]
    with pytest.raises(TradingHalted, match="asked for"):
        world.run(world.plan(TW, session=date(2026, 11, 20)))


def test_live_mode_on_a_paper_account_is_refused(world: World) -> None:
    plan = world.plan(TW, mode="live")
    with (
        Journal.open(world.folder / "live", "paper", clock=world.clock, mode="live") as journal,
        pytest.raises(OrderRefused) as refusal,
    ):
        run_plan(plan, world.broker, journal, guard(), world.clock)
    assert refusal.value.rule == "mode_mismatch"
    assert world.count() == 0


def test_the_journal_of_another_account_is_refused(world: World) -> None:
    with Journal.open(world.folder / "journal", "other", clock=world.clock):
        pass
    with pytest.raises(OrderRefused) as refusal:
        world.run(world.plan(TW))
    assert refusal.value.rule == "account_changed"
    with (
        Journal.open(world.folder / "journal", "other", clock=world.clock) as journal,
        pytest.raises(OrderRefused) as second,
    ):
        run_plan(world.plan(TW, account_id="other"), world.broker, journal, guard(), world.clock)
    assert second.value.rule == "account_changed"
    assert world.count() == 0


def test_every_byte_of_the_audit_table_counts(world: World) -> None:
    world.run(world.plan(TW))
    with Journal.read(world.folder / "journal") as journal:
        lines = journal.verify()
    assert lines == 1 + 1 + 3 + 3 + 3  # opened, plan, three sendings, three answers, three fills
    changes = [
        "update audit set body = replace(body, 'SPY', 'SPX') where seq = 2",
        "update audit set at = replace(at, '15:00', '15:01') where seq = 5",
        "update audit set kind = 'rejected' where kind = 'filled'",
        "delete from audit where seq = 4",
        f"delete from audit where seq = {lines}",
        "update fills set price = '499' where symbol = 'SPY'",
        "update plans set document = replace(document, 'snap', 'snop')",
        "delete from fills where symbol = 'TLT'",
        "update orders set state = 'planned' where symbol = 'SPY'",
        "update orders set quantity = '81' where symbol = 'SPY'",
    ]
    for number, change in enumerate(changes):
        copy = world.folder / f"edited-{number}"
        shutil.copytree(world.folder / "journal", copy)
        with closing(sqlite3.connect(copy / "journal.db")) as db, db:
            assert db.execute(change).rowcount >= 1
        with Journal.read(copy) as journal, pytest.raises(IntegrityError):
            journal.verify()
    with Journal.read(world.folder / "journal") as journal:
        assert journal.verify() == lines


def test_four_threads_run_one_plan_once_and_the_others_are_told_it_is_busy(world: World) -> None:
    plan = world.plan(TW)
    inside, refused, outcomes = threading.Event(), threading.Barrier(4), list[str]()

    def run(hold: bool) -> None:
        broker = SimulatedBroker(world.folder / "broker.db", "paper", clock=world.clock, convention=world.convention, multiplier=2)
        try:
            with Journal.open(world.folder / "journal", "paper", clock=world.clock) as journal:
                inside.set()
                if hold:
                    refused.wait(20)
                run_plan(plan, broker, journal, guard(), world.clock)
                outcomes.append("ran")
        except LockHeldError:
            outcomes.append("busy")
            refused.wait(20)
        finally:
            broker.close()

    threads = [threading.Thread(target=run, args=(n == 0,)) for n in range(4)]
    threads[0].start()
    assert inside.wait(10)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["busy", "busy", "busy", "ran"]
    assert world.count() == 3
    assert world.held() == EXACT


def test_the_session_of_the_plan_and_not_the_wall_clock_makes_its_id(world: World) -> None:
    first = world.plan(TW)
    world.clock.move_to(world.clock.now() + timedelta(minutes=7))
    assert world.plan(TW).plan_id == first.plan_id
    assert world.plan(TW, session=SESSION + timedelta(days=1)).plan_id != first.plan_id
