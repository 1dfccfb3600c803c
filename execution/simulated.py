"""The simulated broker: an account in one SQLite file, driven by quotes or daily bars, that can be stopped and started.

Two ways to drive it, by the time in force of the orders:

- `on_quote` sets a symbol's market; a *day* order sent while the market is open is filled there at once.
- `on_session` plays one daily bar of every symbol: orders that wait for the opening (*opg*, and *day* orders sent while the
  market was closed) are filled at the open, sales first, then buys in the order in which they came (`_open`); what is left
  expires; closes become the marks; interest is paid. A *cls* order is filled at the close of the session played last, which is
  the optimistic convention ``same_close``.

Prices move against us and fees are charged as `costs` says. All arithmetic is exact Decimal; nothing is random. A fill that
cash no longer covers, because the market opened away from the price it was sized at, is cut to what cash covers; so the cash of
an account with multiplier 1 never goes below nought. Only market orders are taken.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal, cast

from config.clock import Clock
from config.conventions import REFERENCE, Convention
from config.errors import ConfigError, InputError, IntegrityError, OrderRefused, ServiceUnavailable, StorageError
from config.hashing import digest
from execution.costs import CostModel
from execution.hours import ExchangeHours, MarketHours
from execution.orders import (
    Account,
    Fill,
    MarketClock,
    OrderRequest,
    OrderState,
    Position,
    Side,
    Status,
    decimal_of,
    exact,
    round_down,
    signed,
)

__all__ = ["Bar", "Fault", "SimulatedBroker"]

Fault = Literal["lost_before_accept", "lost_after_accept", "unreadable"]

_SCHEMA = """
create table if not exists meta (key text primary key, value text not null) strict;
create table if not exists orders (
    seq integer primary key, client_order_id text not null unique, order_id text not null, symbol text not null,
    side text not null, quantity text not null, time_in_force text not null, status text not null, filled text not null,
    reason text not null
) strict;
create table if not exists fills (
    seq integer primary key, execution_id text not null unique, client_order_id text not null, symbol text not null,
    side text not null, quantity text not null, price text not null, fee text not null, at text not null, session text not null,
    reference text not null
) strict;
create table if not exists positions (symbol text primary key, quantity text not null, average_price text not null) strict;
create table if not exists marks (symbol text primary key, price text not null) strict;
create table if not exists sessions (session text primary key, digest text not null, cash text not null, equity text not null,
    interest text not null) strict;
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One symbol's session as far as fills need it. `open` is None where the source has closes only."""

    open: Decimal | None
    close: Decimal


class SimulatedBroker:
    """A paper account on this machine; keeps `execution.broker.Broker`.

    Parameters
    ----------
    path : Path
        The account's file; made when missing, continued when there.
    account : str
        Account id.
    clock : Clock
    convention : Convention
        Costs when `costs` is not given, whole or fractional shares, interest on cash.
    initial_cash : Decimal or float, optional
        For a new account; from the convention when not given. An existing account keeps its own.
    multiplier : int
        1: a cash account, no borrowing, no short sale. 2: exposure up to twice equity when an order is sent.
    hours : MarketHours, optional
        The New York Stock Exchange's when not given.

    Raises
    ------
    OrderRefused
        ``account_changed``: the file is another account's.
    ConfigError
        The file was made with another multiplier.
    """

    gateway = "simulated"

    def __init__(
        self,
        path: Path,
        account: str,
        *,
        clock: Clock,
        convention: Convention = REFERENCE,
        costs: CostModel | None = None,
        initial_cash: Decimal | float | None = None,
        multiplier: int = 1,
        hours: MarketHours | None = None,
    ) -> None:
        if multiplier < 1:
            raise InputError(f"multiplier {multiplier} is below 1")
        self._path, self._account_id, self._clock = path, account, clock
        self._convention = convention
        self._costs = costs if costs is not None else CostModel.from_convention(convention)
        self._hours: MarketHours = hours if hours is not None else ExchangeHours()
        self._multiplier = Decimal(multiplier)
        self._faults: deque[Fault] = deque()
        cash = decimal_of(convention.initial_cash if initial_cash is None else initial_cash, "initial_cash")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        except (OSError, sqlite3.Error) as problem:
            raise StorageError(f"cannot open {path}: {problem}", remedy="make the folder writable, or set QUANT_HOME") from problem
        self._db.row_factory = sqlite3.Row
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=full")
        self._db.executescript(_SCHEMA)
        with self._transaction():
            self._claim(cash)

    def close(self) -> None:
        """Let go of the file; the account stays as it is."""
        self._db.close()

    # The protocol

    def account(self) -> Account:
        """The account, valued at the last marks."""
        self._readable()
        with self._transaction(), exact():
            equity, gross = self._equity(), self._gross(self._positions())
            return Account(
                account_id=self._account_id,
                gateway=self.gateway,
                mode="paper",
                cash=self._cash(),
                equity=equity,
                buying_power=self._multiplier * equity - gross,
                multiplier=self._multiplier,
            )

    def positions(self) -> tuple[Position, ...]:
        """What is held."""
        self._readable()
        rows = self._db.execute("select * from positions order by symbol").fetchall()
        return tuple(Position(symbol=r[0], quantity=_number(r[1]), average_price=_number(r[2])) for r in rows)

    def open_orders(self) -> tuple[OrderState, ...]:
        """The working orders."""
        self._readable()
        return tuple(_state(row) for row in self._working())

    def order_by_client_id(self, client_order_id: str) -> OrderState | None:
        """The order with that id."""
        self._readable()
        row = self._order_row(client_order_id)
        return _state(row) if row is not None else None

    def submit(self, request: OrderRequest) -> OrderState:
        """Take an order: rejected, filled at once, or waiting. The same id again returns what is there."""
        fault = self._faults.popleft() if self._faults and self._faults[0] != "unreadable" else None
        if fault == "lost_before_accept":
            raise ServiceUnavailable("the connection was lost before the order arrived (injected)")
        with self._transaction(), exact():
            if self._order_row(request.client_order_id) is None:
                self._take(request)
            state = _state(cast("sqlite3.Row", self._order_row(request.client_order_id)))
        if fault == "lost_after_accept":
            raise ServiceUnavailable("the connection was lost before the answer came (injected)")
        return state

    def cancel(self, client_order_id: str) -> None:
        """Cancel a working order; one that is done stays as it is."""
        with self._transaction():
            row = self._order_row(client_order_id)
            if row is None:
                raise InputError(f"account {self._account_id} has no order {client_order_id}")
            if row["status"] in ("accepted", "partially_filled"):
                self._finish(row, "canceled", "canceled on request")

    def fills(self, since: datetime | None) -> tuple[Fill, ...]:
        """Executions at or after `since`."""
        self._readable()
        rows = self._db.execute("select * from fills order by seq").fetchall()
        found = tuple(_fill(row) for row in rows)
        return found if since is None else tuple(fill for fill in found if fill.at >= since)

    def clock(self) -> MarketClock:
        """The injected clock, with the exchange's hours."""
        now = self._clock.now()
        return MarketClock(at=now, is_open=self._hours.is_open(now), previous_close=self._hours.previous_close(now))

    # What drives it

    def on_quote(self, symbol: str, price: Decimal | float) -> None:
        """Set a symbol's market."""
        with self._transaction():
            self._mark(symbol, _price(price, symbol))

    def on_session(self, session: date, bars: Mapping[str, Bar]) -> tuple[Fill, ...]:
        """Play one session; the fills it made.

        The same session with the same bars again changes nothing and returns the same fills, so a paper session that was
        killed can simply be played again.

        Raises
        ------
        InputError
            The session is before the last one played, or was played with other bars.
        """
        day = session.isoformat()
        content = digest({s: [None if b.open is None else str(b.open), str(b.close)] for s, b in sorted(bars.items())})
        with self._transaction(), exact():
            row = self._db.execute("select digest from sessions where session = ?", (day,)).fetchone()
            if row is not None:
                if row["digest"] != content:
                    raise InputError(f"session {session} of account {self._account_id} was played with other bars")
                return self._fills_on(session)
            last = self._last_session()
            if last is not None and day < last:
                raise InputError(f"session {session} is before {last}, the last one played in account {self._account_id}")
            self._open(session, bars)
            for symbol, bar in bars.items():
                self._mark(symbol, _price(bar.close, symbol))
            interest = self._pay_interest()
            values = (day, content, str(self._cash()), str(self._equity()), str(interest))
            self._db.execute("insert into sessions values (?, ?, ?, ?, ?)", values)
            return self._fills_on(session)

    def equity_by_session(self) -> dict[date, Decimal]:
        """Cash plus positions at the marks, after each session played: the broker's own statement."""
        rows = self._db.execute("select session, equity from sessions order by session").fetchall()
        return {date.fromisoformat(row["session"]): _number(row["equity"]) for row in rows}

    def interest_by_session(self) -> dict[date, Decimal]:
        """Interest paid on cash in each session played."""
        rows = self._db.execute("select session, interest from sessions order by session").fetchall()
        return {date.fromisoformat(row["session"]): _number(row["interest"]) for row in rows}

    def marks(self) -> dict[str, Decimal]:
        """The last market price of each symbol."""
        return {r["symbol"]: _number(r["price"]) for r in self._db.execute("select * from marks order by symbol").fetchall()}

    def inject(self, *faults: Fault) -> None:
        """Queue faults for tests: each is met by the next submission, *unreadable* by the next reading."""
        self._faults.extend(faults)

    # Inside

    def _take(self, request: OrderRequest) -> None:
        reason = self._refusal(request)
        row = self._db.execute("select coalesce(max(seq), 0) + 1 from orders").fetchone()
        quantity = f"{request.quantity:f}"
        self._db.execute(
            "insert into orders values (?, ?, ?, ?, ?, ?, ?, ?, '0', ?)",
            (
                row[0],
                request.client_order_id,
                f"sim-{row[0]:08d}",
                request.symbol,
                request.side,
                quantity,
                request.time_in_force,
                "rejected" if reason else "accepted",
                reason,
            ),
        )
        if reason:
            return
        order = cast("sqlite3.Row", self._order_row(request.client_order_id))
        now = self._clock.now()
        if request.time_in_force == "day" and self._hours.is_open(now):
            self._execute(order, self.marks()[request.symbol], now, now.date())
        elif request.time_in_force == "cls":
            session = date.fromisoformat(cast("str", self._last_session()))
            self._execute(order, self.marks()[request.symbol], now, session)

    def _refusal(self, request: OrderRequest) -> str:
        """Why an order is not taken; empty when it is."""
        if request.order_type != "market":
            return f"{request.order_type} orders are not simulated, only market orders are"
        mark = self.marks().get(request.symbol)
        if mark is None:
            return f"no market in {request.symbol}"
        if request.time_in_force == "cls" and self._last_session() is None:
            return "no session has been played whose close could be had"
        if not self._convention.fractional and request.quantity != request.quantity.to_integral_value():
            held = self._positions().get(request.symbol, Decimal(0))
            if signed(request.side, request.quantity) != -held:
                return f"quantity {request.quantity} is not whole, and this account takes whole shares"
        return self._lacks(request)

    def _lacks(self, request: OrderRequest) -> str:
        """Buying power: the book with every working order and this one filled must stay within multiplier × equity."""
        marks, book = self.marks(), self._positions()
        cost, before = Decimal(0), self._gross(book)
        mine = [(request.symbol, request.side, request.quantity)]
        for symbol, side, quantity in [(r["symbol"], r["side"], _number(r["quantity"])) for r in self._working()] + mine:
            price = self._costs.fill_price(side, marks[symbol])
            cost += quantity * abs(price - marks[symbol]) + self._costs.fee(quantity, price)
            book[symbol] = book.get(symbol, Decimal(0)) + signed(side, quantity)
        if book[request.symbol] < 0 and request.side == "sell" and self._multiplier == 1:
            return f"a short sale of {request.symbol} needs a margin account"
        gross, room = self._gross(book), self._multiplier * self._equity() - cost
        if gross > room and gross > before:
            return f"insufficient buying power: the book would be {gross:.2f}, {room:.2f} is there"
        return ""

    def _open(self, session: date, bars: Mapping[str, Bar]) -> None:
        """Fill what waits for the opening, sales first; whatever cannot be filled expires."""
        waiting = sorted(self._working(), key=lambda row: (row["side"] != "sell", row["seq"]))
        if not waiting:
            return
        at = self._hours.opening(session)
        for row in waiting:
            bar = bars.get(row["symbol"])
            if bar is None:
                self._finish(row, "expired", f"no bar of {row['symbol']} on {session}")
            elif bar.open is None:
                self._finish(row, "expired", f"no opening price of {row['symbol']} on {session}: the source has closes only")
            else:
                self._execute(row, _price(bar.open, row["symbol"]), at, session)

    def _execute(self, order: sqlite3.Row, market: Decimal, at: datetime, session: date) -> None:
        """Fill an order at the market, moved against us; cut to the cash there is."""
        side, wanted = cast("Side", order["side"]), Decimal(order["quantity"])
        price = self._costs.fill_price(side, market)
        quantity = self._affordable(order["symbol"], side, wanted, price)
        if quantity <= 0:
            self._finish(order, "canceled", f"insufficient cash at {price:f}: nothing could be bought")
            return
        fee = self._costs.fee(quantity, price)
        self._put("cash", str(self._cash() - signed(side, quantity) * price - fee))
        self._hold(order["symbol"], signed(side, quantity), price)
        seq = self._db.execute("select coalesce(max(seq), 0) + 1 from fills").fetchone()[0]
        text = (order["client_order_id"], order["symbol"], side, f"{quantity:f}", str(price), str(fee), at.isoformat())
        values = (seq, f"sim-{self._account_id}-{seq:08d}", *text, session.isoformat(), str(market))
        self._db.execute("insert into fills values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        reason = "" if quantity == wanted else f"cut to the cash there was at {price:f}"
        self._db.execute(
            "update orders set status = ?, filled = ?, reason = ? where seq = ?",
            ("canceled" if reason else "filled", f"{quantity:f}", reason, order["seq"]),
        )

    def _affordable(self, symbol: str, side: Side, wanted: Decimal, price: Decimal) -> Decimal:
        """What of a buy a cash account can pay; a margin account and a sale are filled in full."""
        if side == "sell" or self._multiplier > 1:
            return wanted
        cash = self._cash()
        if wanted * price + self._costs.fee(wanted, price) <= cash:
            return wanted
        most = (cash - self._costs.per_order_usd) / (price + self._costs.variable_fee(price))
        return min(wanted, round_down(max(most, Decimal(0)), fractional=self._convention.fractional))

    def _hold(self, symbol: str, change: Decimal, price: Decimal) -> None:
        row = self._db.execute("select * from positions where symbol = ?", (symbol,)).fetchone()
        have = _number(row["quantity"]) if row else Decimal(0)
        average = _number(row["average_price"]) if row else Decimal(0)
        then = have + change
        if then == 0:
            self._db.execute("delete from positions where symbol = ?", (symbol,))
            return
        if have == 0 or (have > 0) != (then > 0):
            average = price
        elif abs(then) > abs(have):
            # An average is a ratio: rounded, so that it does not grow by digits with every fill. Cash does not depend on it.
            average = ((have * average + change * price) / then).quantize(Decimal("1e-12"))
        self._db.execute("insert or replace into positions values (?, ?, ?)", (symbol, f"{then:f}", str(average)))

    def _pay_interest(self) -> Decimal:
        """One session's share of the yearly rate, on cash that is there (nothing is charged on cash that is not)."""
        rate = decimal_of(self._convention.cash_interest_ann, "cash_interest_ann")
        year = decimal_of(self._convention.sessions_per_year, "sessions_per_year")
        interest = (max(self._cash(), Decimal(0)) * rate / year).quantize(Decimal("1e-12"))
        if interest != 0:
            self._put("cash", str(self._cash() + interest))
        return interest

    def _claim(self, cash: Decimal) -> None:
        found = self._get("account_id")
        if found is None:
            for key, value in (("account_id", self._account_id), ("cash", str(cash)), ("multiplier", str(self._multiplier))):
                self._put(key, value)
        elif found != self._account_id:
            raise OrderRefused(f"{self._path} is account {found}, not {self._account_id}", rule="account_changed")
        elif self._get("multiplier") != str(self._multiplier):
            raise ConfigError(f"{self._path} was made with multiplier {self._get('multiplier')}, not {self._multiplier}")

    def _readable(self) -> None:
        if self._faults and self._faults[0] == "unreadable":
            self._faults.popleft()
            raise ServiceUnavailable("the account could not be read (injected)")

    def _equity(self) -> Decimal:
        marks = self.marks()
        return self._cash() + sum((quantity * marks[symbol] for symbol, quantity in self._positions().items()), Decimal(0))

    def _gross(self, book: Mapping[str, Decimal]) -> Decimal:
        marks = self.marks()
        return sum((abs(quantity) * marks[symbol] for symbol, quantity in book.items()), Decimal(0))

    def _positions(self) -> dict[str, Decimal]:
        return {row["symbol"]: _number(row["quantity"]) for row in self._db.execute("select * from positions").fetchall()}

    def _working(self) -> list[sqlite3.Row]:
        return self._db.execute("select * from orders where status in ('accepted', 'partially_filled') order by seq").fetchall()

    def _order_row(self, client_order_id: str) -> sqlite3.Row | None:
        found = self._db.execute("select * from orders where client_order_id = ?", (client_order_id,)).fetchone()
        return cast("sqlite3.Row | None", found)

    def _finish(self, order: sqlite3.Row, status: Status, reason: str) -> None:
        self._db.execute("update orders set status = ?, reason = ? where seq = ?", (status, reason, order["seq"]))

    def _fills_on(self, session: date) -> tuple[Fill, ...]:
        rows = self._db.execute("select * from fills where session = ? order by seq", (session.isoformat(),)).fetchall()
        return tuple(_fill(row) for row in rows)

    def _last_session(self) -> str | None:
        row = self._db.execute("select max(session) from sessions").fetchone()
        return cast("str | None", row[0])

    def _mark(self, symbol: str, price: Decimal) -> None:
        self._db.execute("insert or replace into marks values (?, ?)", (symbol, str(price)))

    def _cash(self) -> Decimal:
        return _number(cast("str", self._get("cash")))

    def _get(self, key: str) -> str | None:
        row = self._db.execute("select value from meta where key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _put(self, key: str, value: str) -> None:
        self._db.execute("insert or replace into meta values (?, ?)", (key, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")
        except sqlite3.OperationalError as problem:
            raise StorageError(f"{self._path}: {problem}", remedy="free the disk or wait for the other process") from problem


def _number(text: str) -> Decimal:
    """A number out of the file.

    Raises
    ------
    IntegrityError
        The file is damaged.
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        raise IntegrityError(
            f"the simulated account's file holds {text!r} where a number belongs", remedy="restore broker.db from a backup"
        ) from None


def _price(value: Decimal | float, symbol: str) -> Decimal:
    price = decimal_of(value, f"price of {symbol}")
    if price <= 0:
        raise InputError(f"price of {symbol}: {price} is not a price")
    return price


def _state(row: sqlite3.Row) -> OrderState:
    return OrderState(
        client_order_id=row["client_order_id"],
        order_id=row["order_id"],
        symbol=row["symbol"],
        side=cast("Side", row["side"]),
        quantity=_number(row["quantity"]),
        filled_quantity=_number(row["filled"]),
        status=cast("Status", row["status"]),
        reason=row["reason"],
    )


def _fill(row: sqlite3.Row) -> Fill:
    return Fill(
        execution_id=row["execution_id"],
        client_order_id=row["client_order_id"],
        symbol=row["symbol"],
        side=cast("Side", row["side"]),
        quantity=_number(row["quantity"]),
        price=_number(row["price"]),
        fee=_number(row["fee"]),
        at=datetime.fromisoformat(row["at"]),
        session=date.fromisoformat(row["session"]),
        reference=_number(row["reference"]),
    )
