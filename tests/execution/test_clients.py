"""The earlier system's names on the simulated broker, and what a connection to Interactive Brokers says when there is none."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from config.clock import FixedClock
from config.errors import ConfigError, OrderRefused, ServiceUnavailable
from config.settings import Settings, load_settings
from config.tables import TABLES
from execution.alpaca_client import create_alpaca_client, create_alpaca_risk_manager
from execution.client import OrderClient
from execution.ib_client import IbkrConnection, create_ibkr_client
from execution.orders import Quote
from execution.simulated import Bar, SimulatedBroker
from tests.execution.world import NOW, PRICES

NO_COSTS = {"convention.slippage_bps": 0.0, "convention.fee_bps": 0.0}


def prices(symbols: Sequence[str]) -> dict[str, Quote]:
    return {symbol: Quote(price=PRICES[symbol], at=NOW) for symbol in symbols if symbol in PRICES}


@pytest.fixture
def client() -> Iterator[OrderClient]:
    """By settings alone, prices handed over, at ten in the morning in New York."""
    made = create_alpaca_client(paper=True, settings=load_settings(NO_COSTS), prices=prices, clock=FixedClock(NOW))
    yield made
    assert isinstance(made.broker, SimulatedBroker)
    made.broker.close()


def test_account_order_and_portfolio_on_the_simulated_gateway(client: OrderClient) -> None:
    assert client.get_account_info() == {
        "account_id": "paper",
        "gateway": "simulated",
        "mode": "paper",
        "cash": 100_000.0,
        "equity": 100_000.0,
        "portfolio_value": 100_000.0,
        "buying_power": 100_000.0,
        "trading_blocked": False,
        "positions": {},
    }
    order = client.place_market_order("SPY", 10, "buy")
    assert (order["status"], order["filled_quantity"], order["filled_price"]) == ("filled", 10.0, 500.0)
    orders = client.execute_portfolio_trades({"SPY": 0.4, "QQQ": 0.3, "TLT": 0.3})
    assert [(o["side"], o["symbol"], o["quantity"]) for o in orders] == [
        ("buy", "QQQ", 75.0),
        ("buy", "SPY", 70.0),
        ("buy", "TLT", 300.0),
    ]
    info = client.get_account_info()
    assert info["positions"] == {"QQQ": 75.0, "SPY": 80.0, "TLT": 300.0}
    assert info["cash"] == 0.0
    assert client.execute_portfolio_trades({"SPY": 0.4, "QQQ": 0.3, "TLT": 0.3}) == []


def test_each_call_by_hand_is_an_order_of_its_own(client: OrderClient) -> None:
    first, second = client.place_market_order("SPY", 10, "buy"), client.place_market_order("SPY", 10, "buy")
    assert first["client_order_id"] != second["client_order_id"]
    assert client.get_account_info()["positions"] == {"SPY": 20.0}


def test_the_risk_manager_names_the_rule_and_sends_nothing(client: OrderClient) -> None:
    manager = create_alpaca_risk_manager(client)
    assert manager.validate_order("SPY", 10, "buy", "market") == (True, "")
    for arguments, rule in [
        (("SPY", 201, "buy", "market"), "concentration"),
        (("SPY", 1, "sell", "market"), "short_not_allowed"),
        (("IWM", 1, "buy", "market"), "no_price"),
        (("SPY", 1, "buy", "limit"), "order_type"),
        (("SPY", -1, "buy", "market"), "input"),
        (("SPY", 1, "hold", "market"), "input"),
        (("SPY", 2_000_000, "buy", "market"), "max_order_qty"),
    ]:
        valid, reason = manager.validate_order(*arguments)
        assert not valid
        assert reason.startswith(rule)
    with pytest.raises(OrderRefused):
        client.place_market_order("SPY", 201, "buy")
    assert client.get_account_info()["positions"] == {}


def test_it_trades_on_the_lakes_newest_close_and_fills_at_the_next_open() -> None:
    settings = load_settings()
    _bars(settings, "SPX", [(date(2018, 12, 27), 2488.83), (date(2018, 12, 28), 2485.74)])
    client = create_alpaca_client(settings=settings)
    order = client.place_market_order("SPX", 10, "buy")
    assert (order["status"], order["filled_quantity"], order["filled_price"]) == ("accepted", 0.0, None)
    assert isinstance(client.broker, SimulatedBroker)
    assert client.broker.clock().at == datetime(2018, 12, 28, 21, 0, tzinfo=UTC)
    assert client.broker.marks() == {"SPX": Decimal("2485.74")}
    client.broker.on_session(date(2018, 12, 31), {"SPX": Bar(open=Decimal("2498.94"), close=Decimal("2506.85"))})
    # 10 × 2498.94 × 1.0005 and a fee of 10 bp on it.
    paid = Decimal(10) * Decimal("2498.94") * Decimal("1.0005") * Decimal("1.001")
    assert client.broker.account().cash == Decimal(100_000) - paid
    client.broker.close()


def test_a_symbol_whose_last_bar_is_old_is_stale_beside_a_newer_one() -> None:
    settings = load_settings()
    _bars(settings, "OLD", [(date(2018, 12, 27), 10.0)])
    _bars(settings, "NEW", [(date(2018, 12, 28), 10.0)])
    client = create_alpaca_client(settings=settings)
    with pytest.raises(OrderRefused) as refusal:
        client.execute_portfolio_trades({"OLD": 0.5, "NEW": 0.5})
    assert refusal.value.rule == "stale_price"
    assert client.broker.open_orders() == ()


def test_without_any_price_an_order_is_refused_by_name() -> None:
    client = create_alpaca_client()
    with pytest.raises(OrderRefused) as refusal:
        client.place_market_order("SPY", 10, "buy")
    assert refusal.value.rule == "no_price"


def _bars(settings: Settings, symbol: str, closes: list[tuple[date, float]]) -> None:
    from lake import open_lake

    rows = []
    for session, close in closes:
        at = datetime(session.year, session.month, session.day, 21, 0, tzinfo=UTC)
        rows.append(
            {
                "symbol": symbol,
                "interval": "1d",
                "event_time": at,
                "source": "test",
                "session": session,
                "open": None,
                "high": None,
                "low": None,
                "close": close,
                "volume": None,
                "basis": "as_traded",
                "currency": "USD",
                "calendar": "XNYS",
                "available_at": at,
                "ingest_id": "test",
            }
        )
    schema = pa.schema([field for field in TABLES["equity_bars"].schema if field.name != "recorded_at"])
    lake = open_lake(settings)
    lake.write("equity_bars", pa.Table.from_pylist(rows, schema=schema), recorded_at=NOW - timedelta(days=1))
    lake.publish()


def test_the_interactive_brokers_name_is_simulated_by_settings_too() -> None:
    client = create_ibkr_client(port=7496, prices=prices, clock=FixedClock(NOW))
    assert client.get_account_info()["gateway"] == "simulated"


def test_nothing_listening_is_unavailable_and_says_where() -> None:
    settings = load_settings({"execution.gateway": "ibkr", "execution.timeout_seconds": 1.0})
    with pytest.raises(ServiceUnavailable, match="127.0.0.1:9 within 1 s"):
        create_ibkr_client(port=9, settings=settings)


def test_a_listener_that_never_answers_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ServiceUnavailable, match="within 0.3 s"):
        IbkrConnection("127.0.0.1", silent.getsockname()[1], client_id=17, timeout_seconds=0.3)
    assert not [thread for thread in threading.enumerate() if thread.name == "ibkr"]


def test_it_connects_from_inside_a_running_event_loop_too() -> None:
    async def inside() -> None:
        with pytest.raises(ServiceUnavailable):
            IbkrConnection("127.0.0.1", 9, client_id=17, timeout_seconds=1.0)

    asyncio.run(inside())


def test_a_gateway_of_the_other_house_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="an Alpaca client was asked for"):
        create_alpaca_client(settings=load_settings({"execution.gateway": "ibkr"}))
    with pytest.raises(ConfigError, match="an Interactive Brokers client was asked for"):
        create_ibkr_client(settings=load_settings({"execution.gateway": "alpaca"}))


def test_importing_the_clients_imports_neither_house_nor_pandas() -> None:
    code = (
        "import sys, execution.ib_client, execution.alpaca_client, execution.oms\n"
        "print([name for name in ('ib_insync', 'alpaca', 'pandas', 'deltalake', 'exchange_calendars') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
