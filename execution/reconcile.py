"""Bring the journal to what the broker says, before anything is sent; what cannot be explained halts.

1. `reconcile` reads account and positions, with fills before and after, until no fill came in between (`_read`).
2. It books fills, each execution id once (`_book_fills`), and asks for every order of ours that is not done (`_refresh`).
3. An order that the broker calls filled while its executions are not listed yet is late news, not drift (`_late`): it waits.
4. A working order that is not ours, a fill of an order that is not ours, an order of ours that the broker has lost, or
   holdings that our own fills do not explain: `halt` is latched and `TradingHalted` raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import NoReturn

from config.errors import OrderRefused, ServiceUnavailable, TradingHalted
from execution.broker import Broker
from execution.journal import Journal
from execution.orders import Account, Fill, OrderState

__all__ = ["Reconciliation", "halt_trading", "reconcile", "stop"]

_ROUNDS = 5
# Fills can be reported out of order; each is booked once, so asking again for a day costs nothing.
_OVERLAP = timedelta(days=1)
_WAITS_SECONDS = (0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciliation:
    """The broker's book, now also the journal's."""

    account: Account
    positions: dict[str, Decimal]
    open_orders: tuple[OrderState, ...]
    new_fills: tuple[Fill, ...]


def reconcile(broker: Broker, journal: Journal, *, sleep: Callable[[float], None] = time.sleep) -> Reconciliation:
    """Compare journal and broker and book what is new.

    Parameters
    ----------
    sleep : callable
        How to wait for executions that the broker has not listed yet.

    Raises
    ------
    TradingHalted
        Something cannot be explained; the halt is latched.
    OrderRefused
        ``account_changed``, ``mode_mismatch``: this is not the account of this journal.
    ServiceUnavailable
        The broker could not be read, or its executions stay behind its orders; nothing is concluded from that.
    """
    account = broker.account()
    _same_account(account, journal)
    new: tuple[Fill, ...] = ()
    for wait in (*_WAITS_SECONDS, None):
        later, positions, working = _read(broker, journal)
        new += later
        _refresh(broker, journal)
        late = _late(journal)
        if not late:
            break
        if wait is None:
            raise ServiceUnavailable(
                f"account {journal.account_id}: order {late[0]} is filled and its executions are not listed yet", remedy="run again"
            )
        sleep(wait)
    foreign = [order for order in working if journal.order(order.client_order_id) is None]
    if foreign:
        first = foreign[0]
        stop(
            journal,
            f"account {account.account_id}: order {first.client_order_id or first.order_id} ({first.side} {first.quantity} "
            f"{first.symbol}) is working and is not ours",
        )
    book = journal.book()
    drift = {s: (book.get(s, Decimal(0)), positions.get(s, Decimal(0))) for s in sorted({*book, *positions})}
    wrong = {symbol: pair for symbol, pair in drift.items() if pair[0] != pair[1]}
    if wrong:
        words = ", ".join(f"{symbol}: ours {ours}, the broker's {theirs}" for symbol, (ours, theirs) in wrong.items())
        stop(journal, f"account {account.account_id}: holdings that our fills do not explain: {words}")
    return Reconciliation(account=account, positions=positions, open_orders=working, new_fills=new)


def halt_trading(broker: Broker, journal: Journal, reason: str) -> tuple[str, ...]:
    """Latch a halt, then cancel what is ours and working; the client ids cancelled. Foreign orders stay as they are."""
    journal.halt(reason)
    ours = [order for order in broker.open_orders() if journal.order(order.client_order_id) is not None]
    for order in ours:
        broker.cancel(order.client_order_id)
    _refresh(broker, journal, halt_on_loss=False)
    return tuple(order.client_order_id for order in ours)


def stop(journal: Journal, reason: str) -> NoReturn:
    """Latch a halt and raise it."""
    journal.halt(reason)
    raise TradingHalted(f"halted: {reason}", remedy="find the cause, put it right, then resume with a reason")


def _same_account(account: Account, journal: Journal) -> None:
    if account.account_id != journal.account_id:
        raise OrderRefused(
            f"the broker's account is {account.account_id}, the journal's {journal.account_id}",
            rule="account_changed",
            remedy="check the keys and execution.account",
        )
    if account.mode != journal.mode:
        raise OrderRefused(
            f"account {account.account_id} is a {account.mode} account, the journal is for {journal.mode}", rule="mode_mismatch"
        )


def _read(broker: Broker, journal: Journal) -> tuple[tuple[Fill, ...], dict[str, Decimal], tuple[OrderState, ...]]:
    """Fills, positions and working orders that belong together: read again when a fill came in between."""
    new = _book_fills(broker, journal)
    for _ in range(_ROUNDS):
        positions = {position.symbol: position.quantity for position in broker.positions() if position.quantity != 0}
        working = broker.open_orders()
        later = _book_fills(broker, journal)
        new += later
        if not later:
            return new, positions, working
    raise ServiceUnavailable(
        f"account {journal.account_id}: fills kept coming while positions were read, {_ROUNDS} times", remedy="run again"
    )


def _book_fills(broker: Broker, journal: Journal) -> tuple[Fill, ...]:
    booked: list[Fill] = []
    newest = journal.last_fill_at()
    since = None if newest is None else newest - _OVERLAP
    for fill in broker.fills(since):
        if journal.order(fill.client_order_id) is None:
            stop(
                journal,
                f"execution {fill.execution_id} ({fill.side} {fill.quantity} {fill.symbol}) is of an order that is not ours",
            )
        if journal.record_fill(fill):
            booked.append(fill)
    return tuple(booked)


def _late(journal: Journal) -> tuple[str, ...]:
    """Orders of which the broker says more is filled than it has listed executions for."""
    booked: dict[str, Decimal] = {}
    for fill in journal.fills():
        booked[fill.client_order_id] = booked.get(fill.client_order_id, Decimal(0)) + fill.quantity
    orders = [(order.request.client_order_id, order.filled) for order in journal.orders()]
    return tuple(name for name, filled in orders if filled > booked.get(name, Decimal(0)))


def _refresh(broker: Broker, journal: Journal, *, halt_on_loss: bool = True) -> None:
    """Ask for every order of ours that went out and is not done."""
    for order in journal.orders():
        if order.done or order.state == "planned":
            continue
        known = broker.order_by_client_id(order.request.client_order_id)
        if known is not None:
            journal.record_state(known)
        elif order.state in ("accepted", "partially_filled") and halt_on_loss:
            stop(journal, f"order {order.request.client_order_id} was accepted, and the broker now has no such order")
