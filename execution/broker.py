"""The one protocol that every gateway keeps: simulated, Alpaca, Interactive Brokers."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from execution.orders import Account, Fill, MarketClock, OrderRequest, OrderState, Position

__all__ = ["Broker"]


class Broker(Protocol):
    """An account at a broker.

    Notes
    -----
    Every reading method raises `ServiceUnavailable` when the answer is missing or cannot be read: a book that cannot be read is
    never an empty book. `submit` raises it when it is *not known* whether the order exists (the caller asks by id), and
    `RateLimited` when it is known that it does not. A rejection is an answer: an `OrderState`, not an exception.
    """

    def account(self) -> Account:
        """The account."""
        ...

    def positions(self) -> tuple[Position, ...]:
        """Everything held, by symbol; nothing held at nought."""
        ...

    def open_orders(self) -> tuple[OrderState, ...]:
        """Every working order of the account, ours or not, oldest first."""
        ...

    def order_by_client_id(self, client_order_id: str) -> OrderState | None:
        """The order with our id, in whatever state; None only when the broker says that it has none."""
        ...

    def submit(self, request: OrderRequest) -> OrderState:
        """Send an order. The same client id again returns the order that is there."""
        ...

    def cancel(self, client_order_id: str) -> None:
        """Ask for a cancellation; an order that is already done stays as it is."""
        ...

    def fills(self, since: datetime | None) -> tuple[Fill, ...]:
        """Executions at or after `since` (None: all), oldest first. Ids may come twice; the journal books each once."""
        ...

    def clock(self) -> MarketClock:
        """The broker's clock."""
        ...
