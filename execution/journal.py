"""The write-ahead journal: what we mean to send is on the disk before it is on the wire, and every line is chained to the last.

1. `Journal.open` takes the writer's lock of the account and opens SQLite (WAL, synchronous=FULL).
2. Every change is one transaction: the row and its line in the audit table (`_audited`), each line hashing the one before.
3. `verify` recomputes the chain and compares the tables with it.

A plan goes planned → sending → accepted → filled (or canceled, expired, rejected); *unknown* when nobody could say.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, cast

from config.clock import Clock
from config.damage import is_damaged
from config.errors import InputError, IntegrityError, OrderRefused, PlanConflict, StorageError, UnknownNameError
from config.hashing import canonical_json, sha256_bytes
from config.locks import exclusive
from execution.orders import TERMINAL_STATUSES, Fill, Mode, OrderRequest, OrderState, Side, TimeInForce, exact, signed
from execution.plan import Plan

__all__ = ["Halt", "Journal", "JournalOrder", "JournalState", "account_folder"]

JournalState = Literal["planned", "sending", "accepted", "partially_filled", "filled", "canceled", "expired", "rejected", "unknown"]

_SCHEMA = """
create table if not exists meta (key text primary key, value text not null) strict;
create table if not exists plans (
    plan_id text primary key, digest text not null, strategy text not null, session text not null, document text not null
) strict;
create table if not exists orders (
    client_order_id text primary key, plan_id text not null references plans(plan_id), seq integer not null,
    symbol text not null, side text not null, quantity text not null, order_type text not null, time_in_force text not null,
    part integer not null, state text not null, order_id text not null, filled text not null, reason text not null
) strict;
create table if not exists fills (
    execution_id text primary key, client_order_id text not null, symbol text not null, side text not null,
    quantity text not null, price text not null, fee text not null, at text not null, session text not null, reference text
) strict;
create table if not exists adopted (symbol text primary key, quantity text not null) strict;
create table if not exists audit (
    seq integer primary key, at text not null, kind text not null, body text not null, prev text not null, hash text not null
) strict;
"""
_GENESIS = "0" * 64
_STATES = frozenset({"sending", "accepted", "partially_filled", "filled", "canceled", "expired", "rejected", "unknown"})


def account_folder(home: Path, account_id: str) -> Path:
    """The folder of an account's journal: ``<home>/execution/<account>``.

    Raises
    ------
    InputError
        The account's name cannot be a folder's.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", account_id):
        raise InputError(f"account {account_id!r} cannot name a folder", remedy="use letters, digits, dot, dash and underscore")
    return home / "execution" / account_id


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalOrder:
    """An order as the journal knows it."""

    plan_id: str
    request: OrderRequest
    state: JournalState
    order_id: str
    filled: Decimal
    reason: str

    @property
    def done(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.state in TERMINAL_STATUSES


@dataclass(frozen=True, kw_only=True, slots=True)
class Halt:
    """A latched halt: since when, and why."""

    at: str
    reason: str


class Journal:
    """One account's journal. Made by `Journal.open` (writes, one at a time) or `Journal.read` (looks only)."""

    def __init__(self, connection: sqlite3.Connection, folder: Path, clock: Clock | None) -> None:
        self._db = connection
        self.folder = folder
        self._clock = clock

    @classmethod
    @contextmanager
    def open(cls, folder: Path, account_id: str, *, clock: Clock, mode: Mode = "paper") -> Iterator[Journal]:
        """Open for writing, alone.

        Parameters
        ----------
        folder : Path
            See `account_folder`.

        Raises
        ------
        LockHeldError
            Another process or thread trades this account right now.
        OrderRefused
            ``account_changed`` or ``mode_mismatch``: the journal in this folder is another account's, or of the other mode.
        """
        with exclusive(folder / "writer.lock", f"account {account_id}"):
            connection = _connect(folder / "journal.db")
            try:
                connection.executescript(_SCHEMA)
                journal = cls(connection, folder, clock)
                journal._claim(account_id, mode)
                yield journal
            finally:
                connection.close()

    @classmethod
    @contextmanager
    def read(cls, folder: Path) -> Iterator[Journal]:
        """Open for reading, beside a writer if there is one.

        Raises
        ------
        UnknownNameError
            There is no journal in that folder.
        """
        path = folder / "journal.db"
        if not path.is_file():
            raise UnknownNameError(f"no journal in {folder}", remedy="nothing has been traded in this account yet")
        connection = _connect(path)
        connection.execute("pragma query_only=on")
        try:
            yield cls(connection, folder, None)
        finally:
            connection.close()

    # Reading

    @property
    def account_id(self) -> str:
        """The account this journal belongs to."""
        return self._meta("account_id") or ""

    @property
    def mode(self) -> Mode:
        """Paper or live."""
        return cast("Mode", self._meta("mode"))

    @property
    def halted(self) -> Halt | None:
        """The latched halt, if there is one."""
        stored = self._meta("halt")
        return Halt(**json.loads(stored)) if stored else None

    def plan(self, plan_id: str) -> Plan | None:
        """The stored plan of that id."""
        row = self._db.execute("select document from plans where plan_id = ?", (plan_id,)).fetchone()
        return Plan.from_dict(json.loads(row[0])) if row else None

    def plans(self) -> tuple[Plan, ...]:
        """Every plan, oldest first."""
        rows = self._db.execute("select document from plans order by rowid").fetchall()
        return tuple(Plan.from_dict(json.loads(row[0])) for row in rows)

    def last_targets(self, strategy: str) -> dict[str, Decimal] | None:
        """The targets last planned for each symbol of a strategy; None before its first plan."""
        rows = self._db.execute("select document from plans where strategy = ? order by session, rowid", (strategy,)).fetchall()
        if not rows:
            return None
        targets: dict[str, Decimal] = {}
        for (document,) in rows:
            targets.update({symbol: Decimal(weight) for symbol, weight in json.loads(document)["targets"].items()})
        return targets

    def orders(self, plan_id: str | None = None) -> tuple[JournalOrder, ...]:
        """The orders of a plan, or all of them, in the order of sending."""
        where, arguments = ("where o.plan_id = ?", (plan_id,)) if plan_id else ("", ())
        rows = self._db.execute(
            f"select o.* from orders o join plans p using (plan_id) {where} order by p.rowid, o.seq",
            arguments,
        ).fetchall()
        return tuple(_order(row) for row in rows)

    def order(self, client_order_id: str) -> JournalOrder | None:
        """One order by its client id."""
        row = self._db.execute("select * from orders where client_order_id = ?", (client_order_id,)).fetchone()
        return _order(row) if row else None

    def fills(self) -> tuple[Fill, ...]:
        """Every fill, in the order in which they were booked."""
        return tuple(_fill(row) for row in self._db.execute("select * from fills order by rowid").fetchall())

    def last_fill_at(self) -> datetime | None:
        """The moment of the newest fill booked."""
        row = self._db.execute("select max(at) as at from fills").fetchone()
        return datetime.fromisoformat(row["at"]) if row["at"] else None

    def book(self) -> dict[str, Decimal]:
        """What we must hold by our own fills and what was adopted; nothing at nought."""
        with exact():
            held = {row["symbol"]: Decimal(row["quantity"]) for row in self._db.execute("select * from adopted").fetchall()}
            for fill in self.fills():
                held[fill.symbol] = held.get(fill.symbol, Decimal(0)) + signed(fill.side, fill.quantity)
        return {symbol: quantity for symbol, quantity in held.items() if quantity != 0}

    def sent_on(self, day: date) -> frozenset[str]:
        """The client ids of the orders that went out on that UTC day."""
        rows = self._db.execute(
            "select distinct json_extract(body, '$.client_order_id') from audit where kind = 'sending' and at like ?",
            (f"{day.isoformat()}%",),
        ).fetchall()
        return frozenset(str(row[0]) for row in rows)

    def audit(self) -> tuple[dict[str, Any], ...]:
        """The audit lines: seq, at, kind, body."""
        rows = self._db.execute("select seq, at, kind, body, hash from audit order by seq").fetchall()
        return tuple({**dict(row), "body": json.loads(row["body"])} for row in rows)

    # Writing

    def record_plan(self, plan: Plan) -> bool:
        """Store a plan and its orders, all in one step; False when exactly this plan is there already.

        Raises
        ------
        PlanConflict
            The id was used before with other content.
        """
        row = self._db.execute("select digest from plans where plan_id = ?", (plan.plan_id,)).fetchone()
        if row is not None:
            if row["digest"] != plan.digest:
                raise PlanConflict(
                    f"plan {plan.plan_id} of {plan.strategy} for {plan.session} is stored with digest {row['digest'][:12]}, "
                    f"this one has {plan.digest[:12]}",
                    remedy="run the stored plan again (Journal.plan), or plan the next session",
                )
            return False
        document = plan.as_dict()
        with self._audited("plan", document):
            self._db.execute(
                "insert into plans values (?, ?, ?, ?, ?)",
                (plan.plan_id, plan.digest, plan.strategy, plan.session.isoformat(), canonical_json(document)),
            )
            self._db.executemany(
                "insert into orders values (?, ?, ?, ?, ?, ?, ?, ?, ?, 'planned', '', '0', '')",
                [
                    (
                        o.client_order_id,
                        plan.plan_id,
                        seq,
                        o.symbol,
                        o.side,
                        f"{o.quantity:f}",
                        o.order_type,
                        o.time_in_force,
                        o.part,
                    )
                    for seq, o in enumerate(plan.orders)
                ],
            )
        return True

    def mark(self, client_order_id: str, state: JournalState, *, reason: str = "") -> None:
        """Note our own step with an order: *sending* before the wire, *unknown* when nobody can say."""
        with self._audited(state, {"client_order_id": client_order_id, "reason": reason}):
            changed = self._db.execute(
                "update orders set state = ?, reason = ? where client_order_id = ?", (state, reason, client_order_id)
            )
            if changed.rowcount != 1:
                raise UnknownNameError(f"order {client_order_id} is in no plan of account {self.account_id}")

    def record_state(self, state: OrderState) -> None:
        """Note what the broker says about an order of ours; the same again writes nothing."""
        known = self.order(state.client_order_id)
        if known is None:
            raise UnknownNameError(f"order {state.client_order_id} is in no plan of account {self.account_id}")
        if (known.state, known.order_id, known.filled) == (state.status, state.order_id, state.filled_quantity):
            return
        body = {"client_order_id": state.client_order_id, "order_id": state.order_id, "reason": state.reason}
        filled = f"{state.filled_quantity:f}"
        with self._audited(state.status, {**body, "filled": filled}):
            self._db.execute(
                "update orders set state = ?, order_id = ?, filled = ?, reason = ? where client_order_id = ?",
                (state.status, state.order_id, filled, state.reason, state.client_order_id),
            )

    def record_fill(self, fill: Fill) -> bool:
        """Book a fill; False when its execution id is booked already.

        Raises
        ------
        IntegrityError
            The broker now tells another story under the same execution id.
        """
        row = self._db.execute("select * from fills where execution_id = ?", (fill.execution_id,)).fetchone()
        if row is not None:
            if _fill(row) != fill:
                raise IntegrityError(
                    f"execution {fill.execution_id} is booked as {_fill(row)}, the broker now says {fill}",
                    remedy="compare with the broker's statement before trading on",
                )
            return False
        values = _fill_values(fill)
        with self._audited("fill", values):
            self._db.execute(f"insert into fills values ({', '.join('?' * len(values))})", tuple(values.values()))
        return True

    def adopt(self, positions: Mapping[str, Decimal], reason: str) -> None:
        """Take holdings that did not come from our own orders into the book, on a person's word."""
        if not reason.strip():
            raise InputError("adopting positions needs a reason")
        book = self.book()
        with exact():
            missing = {s: positions.get(s, Decimal(0)) - book.get(s, Decimal(0)) for s in sorted({*positions, *book})}
        changes = {symbol: str(quantity) for symbol, quantity in missing.items() if quantity != 0}
        with self._audited("adopt", {"changes": changes, "reason": reason}), exact():
            for symbol, quantity in changes.items():
                row = self._db.execute("select quantity from adopted where symbol = ?", (symbol,)).fetchone()
                total = Decimal(quantity) + (Decimal(row["quantity"]) if row else Decimal(0))
                self._db.execute("insert or replace into adopted values (?, ?)", (symbol, str(total)))

    def halt(self, reason: str) -> None:
        """Latch a halt; a halt that is latched keeps its first reason, and the new one goes to the audit."""
        with self._audited("halt", {"reason": reason}) as at:
            if self.halted is None:
                self._put_meta("halt", canonical_json({"at": at, "reason": reason}))

    def resume(self, reason: str) -> None:
        """Lift the halt; the reason is kept.

        Raises
        ------
        InputError
            No reason given.
        """
        if not reason.strip():
            raise InputError("resuming needs a reason; it is kept in the audit", remedy="say what was found and put right")
        with self._audited("resume", {"reason": reason}):
            self._db.execute("delete from meta where key = 'halt'")

    def note(self, kind: str, body: Mapping[str, Any]) -> None:
        """Write a line that changes nothing: a refusal, a reconciliation."""
        with self._audited(kind, dict(body)):
            pass

    def verify(self) -> int:
        """Recompute the chain and compare plans and fills with it; the number of lines.

        Raises
        ------
        IntegrityError
            A line was edited, removed or added, or a plan or fill is not what its line says.
        """
        previous, count = _GENESIS, 0
        plans: dict[str, str] = {}
        fills: dict[str, str] = {}
        states: dict[str, str] = {}
        for row in self._db.execute("select * from audit order by seq").fetchall():
            count += 1
            expected = _line_hash(row["seq"], row["at"], row["kind"], row["body"], previous)
            if row["seq"] != count or row["prev"] != previous or row["hash"] != expected:
                raise IntegrityError(f"{self.folder / 'journal.db'}: audit line {row['seq']} is not what it was when written")
            previous = row["hash"]
            body = json.loads(row["body"])
            if row["kind"] == "plan":
                plans[body["plan_id"]] = row["body"]
            elif row["kind"] == "fill":
                fills[body["execution_id"]] = row["body"]
            elif row["kind"] in _STATES:
                states[body["client_order_id"]] = row["kind"]
        if self._meta("head") != (previous if count else None):
            raise IntegrityError(f"{self.folder / 'journal.db'}: the audit ends at line {count}, lines behind it are gone")
        try:
            same = self._told() == (plans, fills, {order.client_order_id: order for order in self._planned(plans)}, states)
        except (ValueError, ArithmeticError, KeyError, TypeError):  # text that is no number, date or document any more
            same = False
        if not same:
            raise IntegrityError(f"{self.folder / 'journal.db'}: plans, orders or fills differ from their audit lines")
        return count

    # Inside

    def _told(self) -> tuple[dict[str, str], dict[str, str], dict[str, OrderRequest], dict[str, str]]:
        """What the tables say: plans, fills, orders, and the states of those that left *planned*."""
        plans = {row["plan_id"]: row["document"] for row in self._db.execute("select * from plans").fetchall()}
        fills = {fill.execution_id: canonical_json(_fill_values(fill)) for fill in self.fills()}
        orders = {order.request.client_order_id: order for order in self.orders()}
        states = {name: order.state for name, order in orders.items() if order.state != "planned"}
        return plans, fills, {name: order.request for name, order in orders.items()}, cast("dict[str, str]", states)

    @staticmethod
    def _planned(plans: Mapping[str, str]) -> Iterator[OrderRequest]:
        for document in plans.values():
            yield from Plan.from_dict(json.loads(document)).orders

    def _claim(self, account_id: str, mode: Mode) -> None:
        found, found_mode = self._meta("account_id"), self._meta("mode")
        if found is None:
            with self._audited("open", {"account_id": account_id, "mode": mode}):
                self._put_meta("account_id", account_id)
                self._put_meta("mode", mode)
            return
        if found != account_id:
            raise OrderRefused(
                f"the journal in {self.folder} belongs to account {found}, not {account_id}",
                rule="account_changed",
                remedy="one folder an account; check execution.account",
            )
        if found_mode != mode:
            raise OrderRefused(f"the journal in {self.folder} is for {found_mode}, not {mode}", rule="mode_mismatch")

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("select value from meta where key = ?", (key,)).fetchone()
        return None if row is None else str(row["value"])

    def _put_meta(self, key: str, value: str) -> None:
        self._db.execute("insert or replace into meta values (?, ?)", (key, value))

    @contextmanager
    def _audited(self, kind: str, body: dict[str, Any]) -> Iterator[str]:
        """One transaction: the change the block makes, and its line in the chain."""
        if self._clock is None:
            raise StorageError("this journal was opened for reading")
        at = self._clock.now().isoformat()
        text = canonical_json(body)
        try:
            self._db.execute("begin immediate")
            try:
                yield at
                last = self._db.execute("select seq, hash from audit order by seq desc limit 1").fetchone()
                seq, previous = (last["seq"] + 1, last["hash"]) if last else (1, _GENESIS)
                line = _line_hash(seq, at, kind, text, previous)
                self._db.execute("insert into audit values (?, ?, ?, ?, ?, ?)", (seq, at, kind, text, previous, line))
                self._put_meta("head", line)
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")
        except sqlite3.OperationalError as problem:
            raise StorageError(f"{self.folder / 'journal.db'}: {problem}", remedy="free the disk; nothing was sent") from problem


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        connection.row_factory = sqlite3.Row
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        connection.execute("pragma foreign_keys=on")
    except (OSError, sqlite3.Error) as problem:
        if is_damaged(problem):
            raise IntegrityError(f"{path} is damaged: {problem}", remedy="restore it from a backup before trading on") from problem
        raise StorageError(f"cannot open {path}: {problem}", remedy=f"make {path.parent} writable, or set QUANT_HOME") from problem
    return connection


def _line_hash(seq: int, at: str, kind: str, body: str, previous: str) -> str:
    return sha256_bytes(canonical_json([seq, at, kind, body, previous]).encode())


def _order(row: sqlite3.Row) -> JournalOrder:
    request = OrderRequest(
        client_order_id=row["client_order_id"],
        symbol=row["symbol"],
        side=cast("Side", row["side"]),
        quantity=Decimal(row["quantity"]),
        order_type=row["order_type"],
        time_in_force=cast("TimeInForce", row["time_in_force"]),
        part=row["part"],
    )
    return JournalOrder(
        plan_id=row["plan_id"],
        request=request,
        state=row["state"],
        order_id=row["order_id"],
        filled=Decimal(row["filled"]),
        reason=row["reason"],
    )


def _fill_values(fill: Fill) -> dict[str, str | None]:
    values = asdict(fill)
    values.update({name: str(values[name]) for name in ("quantity", "price", "fee")})
    values["at"], values["session"] = fill.at.isoformat(), fill.session.isoformat()
    values["reference"] = None if fill.reference is None else str(fill.reference)
    return values


def _fill(row: sqlite3.Row) -> Fill:
    return Fill(
        execution_id=row["execution_id"],
        client_order_id=row["client_order_id"],
        symbol=row["symbol"],
        side=cast("Side", row["side"]),
        quantity=Decimal(row["quantity"]),
        price=Decimal(row["price"]),
        fee=Decimal(row["fee"]),
        at=datetime.fromisoformat(row["at"]),
        session=date.fromisoformat(row["session"]),
        reference=None if row["reference"] is None else Decimal(row["reference"]),
    )
