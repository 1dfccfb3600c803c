"""Pre-trade rules: each has a name, and a refusal gives the two numbers. Exactly on a limit is allowed.

1. `Guard.check` looks at the account and the clocks (`_check_account`, `_check_clock`).
2. Then at each order by itself (`_check_order`), and at its price (`_check_price`).
3. Then at the book as it would be when everything is filled (`_check_book`); what only reduces a position is never held back
   by concentration or leverage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from config.errors import OrderRefused
from config.settings import RiskSettings
from execution.orders import Account, MarketClock, OrderRequest, OrderState, Quote, decimal_of, exact, signed

__all__ = ["Guard", "GuardContext", "GuardLimits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardLimits:
    """The limits; fractions of equity unless the name says otherwise. See section `risk` of the settings."""

    max_order_quantity: Decimal
    max_order_notional_usd: Decimal
    max_leverage: Decimal
    max_concentration: Decimal
    max_orders: int
    price_age_seconds: float
    clock_skew_seconds: float
    short_allowed: bool
    restricted: frozenset[str]

    @classmethod
    def from_settings(cls, risk: RiskSettings) -> GuardLimits:
        """From section `risk` of the settings."""
        return cls(
            max_order_quantity=decimal_of(risk.max_order_size, "risk.max_order_size"),
            max_order_notional_usd=decimal_of(risk.max_order_notional, "risk.max_order_notional"),
            max_leverage=decimal_of(risk.max_leverage, "risk.max_leverage"),
            max_concentration=decimal_of(risk.max_concentration, "risk.max_concentration"),
            max_orders=risk.max_orders_per_day,
            price_age_seconds=risk.price_age_seconds,
            clock_skew_seconds=risk.clock_skew_seconds,
            short_allowed=risk.short_allowed,
            restricted=frozenset(symbol.upper() for symbol in risk.restricted),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardContext:
    """What the rules look at: the broker's own statements, our clock, what was sent already today (client ids), and which
    orders belong together (those of one plan do not count as duplicates of each other)."""

    account: Account
    positions: Mapping[str, Decimal]
    open_orders: Sequence[OrderState]
    quotes: Mapping[str, Quote]
    market: MarketClock
    now: datetime
    sent_today: frozenset[str] = frozenset()
    together: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks orders against limits."""

    limits: GuardLimits

    def check(self, orders: Sequence[OrderRequest], context: GuardContext) -> None:
        """Pass, or refuse all of them.

        Raises
        ------
        OrderRefused
            With `rule`: blocked, clock_skew, market_closed, max_orders, duplicate, restricted, no_price, stale_price,
            max_order_qty, max_order_notional, short_not_allowed, concentration, leverage.
        """
        if not orders:
            return
        self._check_account(orders, context)
        self._check_clock(orders, context)
        for order in orders:
            self._check_order(order, context)
        self._check_book(orders, context)

    def _check_account(self, orders: Sequence[OrderRequest], context: GuardContext) -> None:
        if context.account.trading_blocked:
            raise OrderRefused(f"account {context.account.account_id}: its broker has blocked trading", rule="blocked")
        total = len(context.sent_today | {order.client_order_id for order in orders})
        if total > self.limits.max_orders:
            _refuse("max_orders", f"{total} orders on {context.now.date()}", total, self.limits.max_orders)
        ids = [order.client_order_id for order in orders]
        if len(set(ids)) != len(ids):
            raise OrderRefused(f"{len(ids)} orders carry {len(set(ids))} different ids", rule="duplicate")

    def _check_clock(self, orders: Sequence[OrderRequest], context: GuardContext) -> None:
        skew = abs((context.now - context.market.at).total_seconds())
        if skew > self.limits.clock_skew_seconds:
            _refuse("clock_skew", "our clock and the broker's differ, seconds", skew, self.limits.clock_skew_seconds)
        late = [order.symbol for order in orders if order.time_in_force == "day"]
        if late and not context.market.is_open:
            raise OrderRefused(
                f"{late[0]}: a day order at {context.market.at.isoformat()}, when the market is closed",
                rule="market_closed",
                remedy="wait for the opening, or send it for the opening (time in force opg)",
            )

    def _check_order(self, order: OrderRequest, context: GuardContext) -> None:
        if order.symbol.upper() in self.limits.restricted:
            raise OrderRefused(f"{order.symbol} is on the restricted list", rule="restricted", remedy="see risk.restricted")
        for other in context.open_orders:
            if other.symbol == order.symbol and other.client_order_id not in context.together | {order.client_order_id}:
                raise OrderRefused(
                    f"{order.symbol}: order {other.client_order_id} ({other.side} {other.quantity}) is working already",
                    rule="duplicate",
                    remedy="let it finish or cancel it",
                )
        price = self._check_price(order, context)
        if order.quantity > self.limits.max_order_quantity:
            _refuse("max_order_qty", f"{order.side} {order.symbol}, shares", order.quantity, self.limits.max_order_quantity)
        with exact():
            notional = order.quantity * price
        if notional > self.limits.max_order_notional_usd:
            _refuse("max_order_notional", f"{order.side} {order.symbol}", notional, self.limits.max_order_notional_usd)

    def _check_price(self, order: OrderRequest, context: GuardContext) -> Decimal:
        """The price, when it is one to trade on. While the market is closed no price can be newer than its last close."""
        quote = context.quotes.get(order.symbol)
        if quote is None:
            raise OrderRefused(f"{order.symbol}: no price", rule="no_price", remedy="ingest the symbol or pass its quote")
        ahead = (quote.at - context.now).total_seconds()
        if ahead > self.limits.clock_skew_seconds:
            _refuse("clock_skew", f"{order.symbol}: its price is from the future, seconds", ahead, self.limits.clock_skew_seconds)
        closed = order.time_in_force != "day" and not context.market.is_open and context.market.previous_close is not None
        reference = context.market.previous_close if closed and context.market.previous_close else context.now
        age = (reference - quote.at).total_seconds()
        if age > self.limits.price_age_seconds:
            _refuse("stale_price", f"{order.symbol}: age of its price, seconds", age, self.limits.price_age_seconds)
        return quote.price

    def _check_book(self, orders: Sequence[OrderRequest], context: GuardContext) -> None:
        with exact():
            before = dict(context.positions)
            after = dict(before)
            for working in context.open_orders:
                if working.client_order_id not in {order.client_order_id for order in orders}:
                    rest = signed(working.side, working.quantity - working.filled_quantity)
                    after[working.symbol] = after.get(working.symbol, Decimal(0)) + rest
            for order in orders:
                after[order.symbol] = after.get(order.symbol, Decimal(0)) + signed(order.side, order.quantity)
            self._check_positions(orders, before, after, context)

    def _check_positions(
        self,
        orders: Sequence[OrderRequest],
        before: Mapping[str, Decimal],
        after: Mapping[str, Decimal],
        context: GuardContext,
    ) -> None:
        equity = context.account.equity
        if equity <= 0:
            raise OrderRefused(f"equity is {equity}; nothing can be opened on it", rule="leverage")
        grown = False
        for symbol in sorted({order.symbol for order in orders}):
            held, then = before.get(symbol, Decimal(0)), after[symbol]
            if then < 0 and then < held and not self.limits.short_allowed:
                _refuse("short_not_allowed", f"{symbol}: position after the order", then, Decimal(0))
            if abs(then) <= abs(held) and (then >= 0) == (held >= 0):
                continue
            grown = True
            share = abs(then) * context.quotes[symbol].price
            if share > self.limits.max_concentration * equity:
                _refuse("concentration", f"{symbol}: fraction of equity", share / equity, self.limits.max_concentration)
        if not grown:
            return
        missing = sorted(symbol for symbol, quantity in after.items() if quantity != 0 and symbol not in context.quotes)
        if missing:
            raise OrderRefused(
                f"{missing[0]} is held and has no price; leverage cannot be computed", rule="no_price", remedy="pass its quote too"
            )
        gross = sum(
            (abs(quantity) * context.quotes[symbol].price for symbol, quantity in after.items() if quantity != 0), Decimal(0)
        )
        if gross > self.limits.max_leverage * equity:
            _refuse("leverage", "gross exposure, fraction of equity", gross / equity, self.limits.max_leverage)


def _refuse(rule: str, what: str, value: Decimal | float | int, limit: Decimal | float | int) -> None:
    words = f"{rule}: {what}: {_shown(value)} is beyond the limit {_shown(limit)}"
    raise OrderRefused(words, rule=rule, remedy="see section risk of the settings")


def _shown(value: Decimal | float | int) -> str:
    return f"{value:.10g}" if isinstance(value, float) else f"{value:,f}" if isinstance(value, int) else f"{+value:,.10g}"
