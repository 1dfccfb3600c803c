"""The nouns of trading: requests, states, fills, positions, accounts; frozen, in Decimal, checked when they are made."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from typing import Literal

from config.clock import require_utc
from config.errors import InputError
from config.hashing import digest

__all__ = [
    "LIVE_STATUSES",
    "TERMINAL_STATUSES",
    "Account",
    "Fill",
    "MarketClock",
    "Mode",
    "OrderRequest",
    "OrderState",
    "Position",
    "Quote",
    "Side",
    "Status",
    "TimeInForce",
    "client_order_id",
    "decimal_of",
    "exact",
    "round_down",
    "signed",
]

Side = Literal["buy", "sell"]
Mode = Literal["paper", "live"]
OrderType = Literal["market", "limit", "stop", "stop_limit", "trailing_stop"]
TimeInForce = Literal["day", "opg", "cls"]
Status = Literal["accepted", "partially_filled", "filled", "canceled", "expired", "rejected"]

TERMINAL_STATUSES: frozenset[str] = frozenset({"filled", "canceled", "expired", "rejected"})
LIVE_STATUSES: frozenset[str] = frozenset({"accepted", "partially_filled"})

# Nine decimals is what Alpaca takes; IBKR and the simulated broker take no more.
QUANTITY_STEP = Decimal("0.000000001")


@contextmanager
def exact() -> Iterator[None]:
    """Compute with 60 digits, so that sums and products of prices, quantities and rates are exact and cash is conserved."""
    with decimal.localcontext() as context:
        context.prec = 60
        yield


def decimal_of(value: Decimal | float | int | str, what: str) -> Decimal:
    """Read a finite number as Decimal; a float by its shortest text, so that 0.1 is 0.1.

    Raises
    ------
    InputError
        Not a number, or NaN, or infinite.
    """
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        raise InputError(f"{what}: {value!r} is not a number") from None
    if not number.is_finite():
        raise InputError(f"{what}: {value!r} is not a finite number", remedy="find out where the missing value comes from")
    return number


def round_down(quantity: Decimal, *, fractional: bool) -> Decimal:
    """Round towards zero: to nine decimals, or to whole shares."""
    with exact():
        return quantity.quantize(QUANTITY_STEP if fractional else Decimal(1), rounding=ROUND_DOWN).normalize() + Decimal(0)


def signed(side: Side, quantity: Decimal) -> Decimal:
    """Quantity with the sign of its effect on the position."""
    return quantity if side == "buy" else -quantity


def client_order_id(account: str, strategy: str, plan: str, symbol: str, part: int) -> str:
    """The id we give an order: a digest of what it is for, so the same intention always carries the same id."""
    return f"qt-{digest([account, strategy, plan, symbol, part])[:28]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """A price and the moment it was observed (UTC)."""

    price: Decimal
    at: datetime

    def __post_init__(self) -> None:
        price = decimal_of(self.price, "Quote.price")
        if price <= 0:
            raise InputError(f"Quote.price: {price} is not a price", remedy="leave the symbol out where there is no price")
        object.__setattr__(self, "price", price)
        object.__setattr__(self, "at", require_utc(self.at, "Quote.at"))


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderRequest:
    """What we ask of a broker.

    Parameters
    ----------
    client_order_id : str
        Ours; see `client_order_id`. A resend carries the same one.
    symbol : str
    side : {"buy", "sell"}
    quantity : Decimal
        Shares, positive.
    order_type : {"market", ...}
    time_in_force : {"day", "opg", "cls"}
        For the rest of the session, for the next opening, for the close.
    part : int
        1 but for an order that crosses zero, which is two.
    """

    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    order_type: OrderType = "market"
    time_in_force: TimeInForce = "day"
    part: int = 1

    def __post_init__(self) -> None:
        quantity = decimal_of(self.quantity, f"order {self.symbol} quantity")
        if quantity <= 0:
            raise InputError(f"order {self.side} {self.symbol}: quantity {quantity} is not positive")
        if self.side not in ("buy", "sell"):
            raise InputError(f"order {self.symbol}: side {self.side!r} is neither buy nor sell")
        object.__setattr__(self, "quantity", quantity)


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderState:
    """What the broker says about an order. `reason` words a rejection, an expiry or a cancellation."""

    client_order_id: str
    order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    filled_quantity: Decimal
    status: Status
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill:
    """One execution; `execution_id` is the broker's and is booked once.

    Parameters
    ----------
    price : Decimal
        What was paid or received a share, with spread and slippage, without the fee.
    reference : Decimal or None
        The market's price before spread and slippage, where the broker knows it (the simulated one does).
    fee : Decimal
        Account currency, positive.
    session : date
        The session it happened in.
    """

    execution_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    at: datetime
    session: date
    reference: Decimal | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Shares held: long positive, short negative."""

    symbol: str
    quantity: Decimal
    average_price: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """The account as its broker states it. `buying_power`: what may still be bought, before costs."""

    account_id: str
    gateway: str
    mode: Mode
    cash: Decimal
    equity: Decimal
    buying_power: Decimal
    multiplier: Decimal
    trading_blocked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketClock:
    """The broker's time, whether its market is open, and when it last closed (None: not known)."""

    at: datetime
    is_open: bool
    previous_close: datetime | None
