"""The books of an options run as frames: orders, closed round trips, positions, events, cash flows."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtests.options.broker import Event, Fill, Ledger
from backtests.options.engine import Books
from backtests.result import TRADE_COLUMNS, BacktestResult
from backtests.strategy import StrategySpec
from backtests.trades import order_frame

__all__ = ["POSITION_COLUMNS", "OptionsResult", "build_result", "option_round_trips"]

POSITION_COLUMNS = (
    "symbol", "quantity", "entry_session", "entry_price", "entry_reason", "exit_session", "exit_price", "exit_reason",
)  # fmt: skip
EVENT_COLUMNS = ("session", "symbol", "event", "quantity", "price", "reason")
FLOW_COLUMNS = ("session", "symbol", "kind", "amount")


@dataclass(frozen=True, kw_only=True)
class OptionsResult(BacktestResult):
    """A run of the options engine.

    `orders` holds fills: contracts by OCC symbol with the price a share, shares by the underlying's symbol. `trades` holds
    closed round trips, expiries and deliveries included, quantity negative where the entry was a sale; `pnl` counts the
    multiplier.

    Parameters
    ----------
    positions : DataFrame
        One row a lot of contracts, open ones too (`exit_session` NaT): entry, exit and the reason of each.
    events : DataFrame
        In order: decisions, refusals, cancellations, expiries, exercises, assignments, each with its reason.
    cash_flows : DataFrame
        Every movement of cash: fills before fees, fees, settlements, interest; with the marks they are the change of equity.
    marks : DataFrame
        Session, symbol and the mark of every position held.
    mark_kinds : dict
        How many option marks were quoted, stale (no quote that session) or floored (lifted to intrinsic value).
    notes : tuple of str
        What a reader of the result should know.
    """

    positions: pd.DataFrame
    events: pd.DataFrame
    cash_flows: pd.DataFrame
    marks: pd.DataFrame
    mark_kinds: dict[str, int]
    notes: tuple[str, ...] = ()


def build_result(spec: StrategySpec, books: Books, *, snapshot_id: str, notes: tuple[str, ...]) -> OptionsResult:
    """Turn the books into the result."""
    broker, ledger = books.broker, books.broker.ledger
    underlying = broker.book.underlying
    orders = [
        (fill.session, fill.symbol, "buy" if fill.quantity > 0 else "sell", abs(fill.quantity), fill.price, fill.fee)
        for fill in ledger.fills
        if fill.kind == "fill"
    ]
    closed, lots = option_round_trips(ledger.fills)
    weights = pd.DataFrame({underlying: books.overlay.underlying_weight}, index=books.equity.index, dtype="float64")
    kinds = {kind: ledger.mark_kinds.get(kind, 0) for kind in ("quoted", "stale", "floored")}
    return OptionsResult(
        spec=spec,
        engine="options",
        equity=books.equity,
        weights=weights,
        orders=order_frame(orders),
        trades=closed,
        snapshot_id=snapshot_id,
        data_kind=broker.book.data_kind,
        positions=_positions(lots, underlying, ledger.log),
        events=pd.DataFrame([_plain(event) for event in ledger.log], columns=list(EVENT_COLUMNS)),
        cash_flows=pd.DataFrame(broker.reconciliation.flows, columns=list(FLOW_COLUMNS)),
        marks=_marks(ledger),
        mark_kinds=kinds,
        notes=notes,
    )


def option_round_trips(fills: list[Fill]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Match exits with entries, first in first out, long and short.

    Returns
    -------
    trades : DataFrame
        `TRADE_COLUMNS`; `return` is pnl over the entry's value with its fee.
    lots : list of dict
        Every lot, matched or still open (`exit_session` None), with the kind of its exit.
    """
    open_lots: dict[str, deque[list[Any]]] = defaultdict(deque)
    trades: list[tuple[Any, ...]] = []
    lots: list[dict[str, Any]] = []
    for fill in fills:
        left, fee = fill.quantity, fill.fee / abs(fill.quantity)
        queue = open_lots[fill.symbol]
        while queue and left and np.sign(queue[0][1]) != np.sign(left):
            lot = queue[0]
            matched = min(abs(left), abs(lot[1])) * np.sign(lot[1])
            fees = abs(matched) * (lot[3] + fee)
            gain = matched * (fill.price - lot[2]) * fill.multiplier - fees
            cost = abs(matched) * (lot[2] * fill.multiplier + lot[3])
            trades.append(
                (fill.symbol, lot[0], fill.session, matched, lot[2], fill.price, fees, gain, gain / cost if cost else np.nan)
            )
            lots.append(_lot(fill.symbol, lot, matched, fill))
            left += matched
            lot[1] -= matched
            if abs(lot[1]) <= 1e-9 * abs(matched):
                queue.popleft()
            if abs(left) <= 1e-9 * abs(fill.quantity):
                left = 0.0
        if left:
            queue.append([fill.session, left, fill.price, fee])
    lots += [_lot(symbol, lot, lot[1], None) for symbol, queue in open_lots.items() for lot in queue]
    frame = pd.DataFrame(trades, columns=list(TRADE_COLUMNS))
    days = ("entry_session", "exit_session")
    kinds = {name: "datetime64[ns]" if name in days else object if name == "symbol" else "float64" for name in TRADE_COLUMNS}
    return frame.astype(kinds), lots


def _lot(symbol: str, lot: list[Any], quantity: float, fill: Fill | None) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "quantity": float(quantity),
        "entry_session": lot[0],
        "entry_price": lot[2],
        "exit_session": pd.NaT if fill is None else fill.session,
        "exit_price": np.nan if fill is None else fill.price,
        "exit_kind": "open" if fill is None else fill.kind,
    }


def _positions(lots: list[dict[str, Any]], underlying: str, log: list[Event]) -> pd.DataFrame:
    """Option lots with the reason of entry and exit: that of the last decision on the contract before each."""
    rows = []
    for lot in lots:
        if lot["symbol"] == underlying:
            continue
        kind = lot["exit_kind"]
        exit_reason = _reason(log, lot["symbol"], lot["exit_session"]) if kind == "fill" else kind
        rows.append({**lot, "entry_reason": _reason(log, lot["symbol"], lot["entry_session"]), "exit_reason": exit_reason})
    frame = pd.DataFrame(rows, columns=list(POSITION_COLUMNS))
    return frame.sort_values(["entry_session", "symbol"], kind="stable", ignore_index=True)


def _reason(log: list[Event], symbol: str, before: pd.Timestamp) -> str:
    found = [event.reason for event in log if event.symbol == symbol and event.event == "decided" and event.session < before]
    return found[-1] if found else ""


def _plain(event: Event) -> tuple[Any, ...]:
    return (event.session, event.symbol, event.event, event.quantity, event.price, event.reason)


def _marks(ledger: Ledger) -> pd.DataFrame:
    rows = [(session, symbol, mark) for session, marks in ledger.marks.items() for symbol, mark in marks.items()]
    return pd.DataFrame(rows, columns=["session", "symbol", "mark"])
