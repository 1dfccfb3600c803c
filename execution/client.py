"""A small trading client over any broker: account, one market order, a whole portfolio, each through plan, guard and journal.

1. `open_simulated` opens the account that the settings name; `open_client` puts a client on it.
2. `OrderClient.place_market_order` and `.execute_portfolio_trades` fetch prices, make a plan and hand it to `run_plan`.
3. `OrderRiskManager.validate_order` asks the same guard without sending.

With the simulated gateway, prices come from the lake unless a price source is given, and the market's time is that of its newest
bar: an order given then waits for the next opening, as in every other engine, and `SimulatedBroker.on_session` fills it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from config.clock import Clock, FixedClock, SystemClock
from config.errors import InputError, OrderRefused, UnknownNameError
from config.settings import Settings
from execution.broker import Broker
from execution.guard import Guard, GuardContext, GuardLimits
from execution.hours import ExchangeHours
from execution.journal import Journal, JournalOrder, account_folder
from execution.oms import PlanOutcome, run_plan
from execution.orders import MarketClock, OrderRequest, Quote, Side, TimeInForce, decimal_of
from execution.plan import Plan, PlanLimits, make_order_plan, make_plan
from execution.simulated import SimulatedBroker

__all__ = ["OrderClient", "OrderRiskManager", "PriceSource", "lake_prices", "open_client", "open_simulated", "system_clock"]

PriceSource = Callable[[Sequence[str]], Mapping[str, Quote]]


def open_simulated(settings: Settings, *, clock: Clock, multiplier: int = 1) -> SimulatedBroker:
    """The simulated account of the settings: ``<home>/execution/<account>/simulated.db``, made when missing."""
    path = account_folder(settings.home_path, settings.execution.account) / "simulated.db"
    return SimulatedBroker(
        path,
        settings.execution.account,
        clock=clock,
        convention=settings.trading_convention(),
        initial_cash=settings.execution.initial_cash,
        multiplier=multiplier,
        hours=ExchangeHours(settings.data.calendar),
    )


def lake_prices(settings: Settings) -> PriceSource:
    """The newest close of each symbol in the newest published snapshot, with the moment its bar was complete."""

    def prices(symbols: Sequence[str]) -> Mapping[str, Quote]:
        from lake import open_lake

        try:
            snapshot = open_lake(settings).snapshot(None)
        except UnknownNameError:
            return {}
        if "equity_bars" not in snapshot.tables:
            return {}
        wanted = ["symbol", "event_time", "close"]
        rows = snapshot.read("equity_bars", where={"symbol": list(symbols), "interval": ["1d"]}, columns=wanted).to_pylist()
        newest: dict[str, Quote] = {}
        for row in rows:
            known = newest.get(row["symbol"])
            if row["close"] is not None and (known is None or row["event_time"] > known.at):
                newest[row["symbol"]] = Quote(price=decimal_of(row["close"], row["symbol"]), at=row["event_time"])
        return newest

    return prices


class OrderClient:
    """What users of the earlier system call a client. Every order goes through plan, guard and journal.

    Parameters
    ----------
    broker : Broker
    prices : callable
        Symbols to quotes; a symbol without a price is left out.
    clock : FixedClock or Clock
        A `FixedClock` is moved to the newest quote: the simulated market's time.
    """

    def __init__(self, broker: Broker, settings: Settings, *, prices: PriceSource, clock: Clock) -> None:
        self.broker = broker
        self.settings = settings
        self._prices = prices
        self._clock = clock
        self.guard = Guard(GuardLimits.from_settings(settings.risk))

    def get_account_info(self) -> dict[str, Any]:
        """The account in plain numbers: gateway, mode, cash, equity, buying_power and positions by symbol."""
        account = self.broker.account()
        return {
            "account_id": account.account_id,
            "gateway": account.gateway,
            "mode": account.mode,
            "cash": float(account.cash),
            "equity": float(account.equity),
            "portfolio_value": float(account.equity),
            "buying_power": float(account.buying_power),
            "trading_blocked": account.trading_blocked,
            "positions": {position.symbol: float(position.quantity) for position in self.broker.positions()},
        }

    def place_market_order(self, symbol: str, qty: Decimal | float, side: str) -> dict[str, Any]:
        """Send one market order.

        Returns
        -------
        dict
            client_order_id, order_id, symbol, side, quantity, status, filled_quantity, filled_price (None before a fill), reason.

        Raises
        ------
        OrderRefused, TradingHalted, ServiceUnavailable
            See `execution.oms.run_plan`.
        """
        request = _request(symbol, qty, side)
        outcome = self._run("manual", lambda label, at: self._manual(request, label, at))
        return _told(outcome)[0]

    def execute_portfolio_trades(self, target_weights: Mapping[str, float]) -> list[dict[str, Any]]:
        """Trade to target weights (fractions of equity; held symbols that are not named stay); one dict an order, as above."""
        outcome = self._run("portfolio", lambda label, at: self._portfolio(target_weights, label, at))
        return _told(outcome)

    def quotes(self, symbols: Sequence[str]) -> dict[str, Quote]:
        """Prices of these symbols, of everything held and of what is working; the simulated market is set to them."""
        held = [position.symbol for position in self.broker.positions()]
        working = [order.symbol for order in self.broker.open_orders()]
        found = dict(self._prices(sorted({*symbols, *held, *working})))
        if isinstance(self._clock, FixedClock) and found:
            self._clock.move_to(max([self._clock.at, *(quote.at for quote in found.values())]))
        if isinstance(self.broker, SimulatedBroker):
            for symbol, quote in found.items():
                self.broker.on_quote(symbol, quote.price)
        return found

    def check(self, request: OrderRequest) -> None:
        """Ask the guard about an order without sending it; raises as `Guard.check` does."""
        quotes = self.quotes([request.symbol])
        self.guard.check(
            [request],
            GuardContext(
                account=self.broker.account(),
                positions={position.symbol: position.quantity for position in self.broker.positions()},
                open_orders=self.broker.open_orders(),
                quotes=quotes,
                market=self.broker.clock(),
                now=self._clock.now(),
            ),
        )

    def time_in_force(self, market: MarketClock) -> TimeInForce:
        """Now, while the market is open; else for the next opening (or the close just gone, by the convention ``same_close``)."""
        if market.is_open:
            return "day"
        return "cls" if self.settings.convention.fill == "same_close" else "opg"

    def _run(self, strategy: str, make: Callable[[str, str], Plan]) -> PlanOutcome:
        account = self.broker.account()
        folder = self._folder(account.account_id)
        with Journal.open(folder, account.account_id, clock=self._clock, mode=account.mode) as journal:
            label = f"{strategy}-{1 + sum(plan.strategy == strategy for plan in journal.plans())}"
            plan = make(label, account.account_id)
            return run_plan(plan, self.broker, journal, self.guard, self._clock)

    def _folder(self, account_id: str) -> Path:
        return account_folder(self.settings.home_path, account_id)

    def _manual(self, request: OrderRequest, label: str, account_id: str) -> Plan:
        quotes = self.quotes([request.symbol])
        account, market = self.broker.account(), self.broker.clock()
        return make_order_plan(
            account_id=account_id,
            mode=account.mode,
            label=label,
            session=market.at.date(),
            orders=[(request.symbol, request.side, request.quantity)],
            positions=self.broker.positions(),
            prices=quotes,
            equity=account.equity,
            cash=account.cash,
            time_in_force=self.time_in_force(market),
        )

    def _portfolio(self, weights: Mapping[str, float], label: str, account_id: str) -> Plan:
        quotes = self.quotes(list(weights))
        account, market = self.broker.account(), self.broker.clock()
        return make_plan(
            account_id=account_id,
            mode=account.mode,
            strategy="portfolio",
            version=label,
            session=market.at.date(),
            targets=weights,
            positions=self.broker.positions(),
            prices=quotes,
            equity=account.equity,
            cash=account.cash,
            snapshot_id="",
            convention=self.settings.trading_convention(),
            time_in_force=self.time_in_force(market),
            limits=PlanLimits.from_settings(self.settings.risk),
        )


class OrderRiskManager:
    """Answers whether an order would pass the guard, without sending it."""

    def __init__(self, client: OrderClient) -> None:
        self._client = client

    def validate_order(self, symbol: str, qty: Decimal | float, side: str, type: str = "market") -> tuple[bool, str]:
        """Whether the order would be sent, and why not.

        Returns
        -------
        tuple of (bool, str)
            The reason starts with the rule's name; it is empty when the order is valid.

        Raises
        ------
        ServiceUnavailable
            The account cannot be read; that is not an answer about the order.
        """
        if type != "market":
            return False, f"order_type: {type} orders are not sent yet, only market orders are"
        try:
            request = _request(symbol, qty, side, in_force=self._client.time_in_force(self._client.broker.clock()))
            self._client.check(request)
        except OrderRefused as refusal:
            words = refusal.message
            return False, words if words.startswith(refusal.rule) else f"{refusal.rule}: {words}"
        except InputError as wrong:
            return False, f"input: {wrong.message}"
        return True, ""


def open_client(settings: Settings, *, prices: PriceSource | None, clock: Clock | None) -> OrderClient:
    """A client on the simulated broker, by settings alone."""
    source = prices if prices is not None else lake_prices(settings)
    time = clock if clock is not None else FixedClock(_EPOCH)
    return OrderClient(open_simulated(settings, clock=time), settings, prices=source, clock=time)


# Before any bar; the first quote moves the simulated market's clock on.
_EPOCH = datetime.fromisoformat("1970-01-02T00:00:00+00:00")


def system_clock(clock: Clock | None) -> Clock:
    """The clock given, else the machine's: a real broker's market keeps real time."""
    return clock if clock is not None else SystemClock()


def _request(symbol: str, qty: Decimal | float, side: str, *, in_force: TimeInForce = "day") -> OrderRequest:
    if side not in ("buy", "sell"):
        raise InputError(f"side {side!r} is neither buy nor sell")
    quantity = decimal_of(qty, f"quantity of {symbol}")
    return OrderRequest(
        client_order_id="validate", symbol=symbol, side=cast("Side", side), quantity=quantity, time_in_force=in_force
    )


def _told(outcome: PlanOutcome) -> list[dict[str, Any]]:
    return [_told_one(order, outcome) for order in outcome.orders]


def _told_one(order: JournalOrder, outcome: PlanOutcome) -> dict[str, Any]:
    fills = [fill for fill in outcome.fills if fill.client_order_id == order.request.client_order_id]
    filled = sum((fill.quantity for fill in fills), Decimal(0))
    paid = sum((fill.quantity * fill.price for fill in fills), Decimal(0))
    return {
        "client_order_id": order.request.client_order_id,
        "order_id": order.order_id,
        "symbol": order.request.symbol,
        "side": order.request.side,
        "quantity": float(order.request.quantity),
        "status": order.state,
        "filled_quantity": float(filled),
        "filled_price": float(paid / filled) if filled else None,
        "reason": order.reason,
    }
