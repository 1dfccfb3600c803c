"""The A column, as far as it is built: alpaca-py's real client against a loopback server that speaks Alpaca's REST."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import ConfigError, OrderRefused, PlanConflict, RateLimited, ServiceUnavailable, TradingHalted
from config.settings import Settings, load_settings
from execution.alpaca_client import create_alpaca_client, create_alpaca_risk_manager
from execution.alpaca_gateway import AlpacaBroker, connect_alpaca
from execution.journal import Journal
from execution.oms import PlanOutcome, run_plan
from execution.orders import Quote
from execution.plan import Plan, make_plan
from execution.reconcile import reconcile
from tests.execution.fake_alpaca import FakeAlpaca, serve
from tests.execution.world import FREE, NOW, PRICES, TW, guard

KEYS = {"ALPACA_API_KEY": "key-that-must-not-show", "ALPACA_API_SECRET": "secret-that-must-not-show"}
EXACT = {"SPY": Decimal(80), "QQQ": Decimal(75), "TLT": Decimal(300)}


@dataclass
class Place:
    """The service, the gateway before it, and an account's journal."""

    service: FakeAlpaca
    settings: Settings
    broker: AlpacaBroker
    folder: Path
    clock: FixedClock

    def plan(self, targets: dict[str, float], held: dict[str, Decimal] | None = None, **changes: Any) -> Plan:
        given: dict[str, Any] = {
            "account_id": self.service.number,
            "strategy": "tw",
            "version": "v1",
            "session": date(2026, 11, 19),
            "targets": targets,
            "positions": held or {},
            "prices": {symbol: Quote(price=price, at=NOW) for symbol, price in PRICES.items()},
            "equity": 100_000,
            "cash": 100_000,
            "snapshot_id": "snap",
            "convention": FREE,
            "time_in_force": "day",
        }
        return make_plan(**{**given, **changes})

    def run(self, plan: Plan, **risk: Any) -> PlanOutcome:
        self.waits = list[float]()
        with Journal.open(self.folder, self.service.number, clock=self.clock) as journal:
            return run_plan(plan, self.broker, journal, guard(**risk), self.clock, sleep=self.waits.append)


def settings_for(url: str, home: Path) -> Settings:
    given = {"home": str(home), "execution.gateway": "alpaca", "execution.alpaca_url": url, "execution.timeout_seconds": 0.5}
    return load_settings(given, environ=KEYS)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    service = FakeAlpaca()
    with serve(service) as url:
        settings = settings_for(url, tmp_path)
        broker = connect_alpaca(settings)
        yield Place(service, settings, broker, tmp_path / "journal", FixedClock(NOW))
        broker._client._session.close()


def test_a_clean_rebalance_and_again_after_a_restart(place: Place) -> None:
    plan = place.plan(TW)
    outcome = place.run(plan)
    assert place.service.held == EXACT
    assert outcome.account.cash == 0
    assert {order.state for order in outcome.orders} == {"filled"}
    assert [fill.price for fill in outcome.fills] == [PRICES[fill.symbol] for fill in outcome.fills]
    place.broker = connect_alpaca(place.settings)
    assert place.run(plan).sent == ()
    assert len(place.service.orders) == 3
    with pytest.raises(PlanConflict):
        place.run(place.plan({"SPY": 0.1}))
    assert len(place.service.orders) == 3
    place.broker._client._session.close()


@pytest.mark.parametrize("fault", ["lost_after", "lost_before", "504", "json", "empty"])
def test_an_answer_that_is_not_one_is_asked_for_and_no_order_is_doubled(place: Place, fault: str) -> None:
    place.service.faults.append(("POST", "/v2/orders", fault))
    outcome = place.run(place.plan(TW))
    assert len(place.service.orders) == 3
    assert place.service.held == EXACT
    assert {order.state for order in outcome.orders} == {"filled"}
    posts = place.service.requests.count("POST /v2/orders")
    assert posts == (3 if fault == "lost_after" else 4)  # a lost answer is asked for; an order that never came goes again
    assert len({body["client_order_id"] for body in place.service.bodies}) == 3


def test_a_hanging_answer_is_given_up_after_the_timeout(place: Place) -> None:
    place.service.faults.append(("POST", "/v2/orders", "hang"))
    started = time.monotonic()
    place.run(place.plan(TW))
    assert time.monotonic() - started < 120  # it would hang for 180 s; the rest is a busy machine's allowance
    assert len(place.service.orders) == 3
    assert place.service.held == EXACT


def test_alpacas_own_retry_is_off_and_429_waits_as_asked(place: Place) -> None:
    place.service.faults.extend([("POST", "/v2/orders", "429")] * 2)
    place.run(place.plan(TW))
    assert place.waits == [1.0, 2.0]
    assert len(place.service.orders) == 3
    place.service.always["GET", "/v2/account"] = "429"
    with pytest.raises(RateLimited):
        place.broker.account()


@pytest.mark.parametrize("path", ["/v2/positions", "/v2/account", "/v2/orders", "/v2/account/activities/FILL", "/v2/clock"])
@pytest.mark.parametrize("fault", ["503", "html", "json", "empty"])
def test_what_cannot_be_read_is_unavailable_and_never_flat(place: Place, path: str, fault: str) -> None:
    place.service.always["GET", path] = fault
    with pytest.raises(ServiceUnavailable):
        place.run(place.plan(TW))
    assert place.service.orders == []
    assert "POST /v2/orders" not in place.service.requests


def test_an_answer_that_nobody_can_find_out_about_halts(place: Place) -> None:
    place.service.faults.append(("POST", "/v2/orders", "lost_after"))
    place.service.always["GET", "/v2/orders:by_client_order_id"] = "html"  # a 404 that is not Alpaca's own
    plan = place.plan(TW)
    with pytest.raises(TradingHalted, match="unknown"):
        place.run(plan)
    assert len(place.service.orders) == 1
    place.service.always.clear()
    with Journal.open(place.folder, place.service.number, clock=place.clock) as journal:
        journal.resume("Alpaca's page shows the order, filled")
    place.run(plan)
    assert len(place.service.orders) == 3
    assert place.service.held == EXACT


def test_a_foreign_order_halts(place: Place) -> None:
    place.service.orders.append(
        {"id": "f", "client_order_id": "by-hand", "symbol": "SPY", "side": "buy", "qty": "1", "filled_qty": "0", "status": "new"}
    )
    with pytest.raises(TradingHalted, match="by-hand .* not ours"):
        place.run(place.plan(TW))
    assert "POST /v2/orders" not in place.service.requests


def test_insufficient_buying_power_is_a_rejection_once(place: Place) -> None:
    place.service.multiplier = 1
    plan = place.plan(TW, equity=150_000, cash=150_000)
    outcome = place.run(plan, max_leverage=3.0)
    assert [(order.request.symbol, order.reason) for order in outcome.rejected] == [
        ("SPY", "insufficient buying power (403, code 40310000)")
    ]
    posts = place.service.requests.count("POST /v2/orders")
    assert place.run(plan, max_leverage=3.0).sent == ()
    assert place.service.requests.count("POST /v2/orders") == posts == 3


def test_a_fraction_goes_out_as_text_with_nine_decimals(place: Place) -> None:
    place.run(place.plan({"SPY": 0.333}))
    assert [body["qty"] for body in place.service.bodies] == ["66.600000000"]
    assert place.broker.positions()[0].quantity == Decimal("66.6")


def test_a_blocked_account_is_refused(place: Place) -> None:
    place.service.account_extra["trading_blocked"] = True
    with pytest.raises(OrderRefused) as refusal:
        place.run(place.plan(TW))
    assert refusal.value.rule == "blocked"
    assert place.service.orders == []


def test_a_live_account_behind_a_paper_journal_is_refused(place: Place) -> None:
    place.service.number = "123456789"
    with (
        Journal.open(place.folder, "123456789", clock=place.clock) as journal,
        pytest.raises(OrderRefused) as refusal,
    ):
        run_plan(place.plan(TW), place.broker, journal, guard(), place.clock)
    assert refusal.value.rule == "mode_mismatch"


def test_fills_are_read_over_several_pages(place: Place) -> None:
    place.run(place.plan(TW))
    template = place.service.activities[0]
    place.service.activities += [{**template, "id": f"20261120100000000::{n:04d}"} for n in range(3, 250)]
    assert len(place.broker.fills(None)) == 250


def test_executions_that_are_listed_late_are_waited_for_and_are_no_drift(place: Place) -> None:
    place.service.unlisted = 3
    outcome = place.run(place.plan(TW))
    assert place.waits != []
    assert len(outcome.fills) == 3
    place.service.unlisted = 10**9
    with pytest.raises(ServiceUnavailable, match="not listed yet"):
        place.run(place.plan({"SPY": 0.0}, {"SPY": Decimal(80)}, session=date(2026, 11, 20)))
    place.service.unlisted = 0
    with Journal.open(place.folder, place.service.number, clock=place.clock) as journal:
        assert journal.halted is None
        reconcile(place.broker, journal)
        assert len(journal.fills()) == 4
        assert journal.book() == place.service.held


def test_buys_wait_for_the_sales_that_pay_for_them(place: Place) -> None:
    place.service.multiplier = 1
    place.run(place.plan({"SPY": 0.5, "QQQ": 0.5}))
    place.service.slow = 3
    held = {"SPY": Decimal(100), "QQQ": Decimal(125)}
    place.run(place.plan({"SPY": 0.5, "QQQ": 0.0, "TLT": 0.5}, held, cash=0, session=date(2026, 11, 20)))
    assert place.service.held == {"SPY": Decimal(100), "TLT": Decimal(500)}
    assert place.waits == [0.1, 0.2, 0.5]


def test_short_positions_are_negative(place: Place) -> None:
    place.service.held["SPY"] = Decimal(-5)
    assert place.broker.positions()[0].quantity == Decimal(-5)


def test_a_cancellation_that_comes_too_late_is_no_error(place: Place) -> None:
    place.run(place.plan({"SPY": 0.1}))
    place.broker.cancel(place.service.orders[0]["client_order_id"])
    assert place.service.orders[0]["status"] == "filled"
    place.service.orders[0]["status"] = "new"
    place.broker.cancel(place.service.orders[0]["client_order_id"])
    assert place.service.orders[0]["status"] == "canceled"


def test_refused_keys_are_a_configuration_error_that_shows_no_key(place: Place) -> None:
    place.service.always["GET", "/v2/account"] = "401"
    with pytest.raises(ConfigError, match="ALPACA_API_KEY") as problem:
        place.broker.account()
    assert "must-not-show" not in str(problem.value)


def test_nothing_listening_is_unavailable(tmp_path: Path) -> None:
    broker = connect_alpaca(settings_for("http://127.0.0.1:9", tmp_path))
    with pytest.raises(ServiceUnavailable, match="no answer"):
        broker.account()


def test_missing_keys_are_named_and_live_is_refused() -> None:
    settings = load_settings({"execution.gateway": "alpaca"}, environ={"ALPACA_API_KEY": "key-that-must-not-show"})
    with pytest.raises(ConfigError, match="ALPACA_API_SECRET is not set") as problem:
        create_alpaca_client(settings=settings)
    assert "must-not-show" not in str(problem.value)
    with pytest.raises(ConfigError, match="live orders need arming"):
        create_alpaca_client(paper=False, settings=settings)


def test_the_earlier_names_work_on_alpaca(place: Place) -> None:
    def prices(symbols: Any) -> dict[str, Quote]:
        return {symbol: Quote(price=PRICES[symbol], at=NOW) for symbol in symbols}

    client = create_alpaca_client(paper=True, settings=place.settings, prices=prices, clock=FixedClock(NOW))
    info = client.get_account_info()
    assert (info["gateway"], info["cash"], info["mode"]) == ("alpaca", 100_000.0, "paper")
    order = client.place_market_order("SPY", 10, "buy")
    assert (order["status"], order["filled_quantity"], order["filled_price"]) == ("filled", 10.0, 500.0)
    assert create_alpaca_risk_manager(client).validate_order("SPY", 10_000, "buy", "market")[0] is False
    assert place.service.held == {"SPY": Decimal(10)}
