"""Closed round trips from a list of fills, first in first out: the same for every engine."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import pandas as pd

from backtests.result import ORDER_COLUMNS, TRADE_COLUMNS

__all__ = ["order_frame", "round_trips"]

_DUST = 1e-9  # relative: a remainder this small is rounding, not a lot
_TEXT = ("symbol", "side")


def order_frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """Fills as a frame with `ORDER_COLUMNS` and fixed types, also when there are none."""
    frame = pd.DataFrame(rows, columns=list(ORDER_COLUMNS))
    kinds = {name: "datetime64[ns]" if name == "session" else object if name in _TEXT else "float64" for name in ORDER_COLUMNS}
    return frame.astype(kinds)


def round_trips(orders: pd.DataFrame) -> pd.DataFrame:
    """Match sales with purchases, first in first out.

    Parameters
    ----------
    orders : DataFrame
        `ORDER_COLUMNS`, in the order of the fills; long only.

    Returns
    -------
    DataFrame
        `TRADE_COLUMNS`, one row a matched lot, in the order of the exits. `fees` are both sides', in proportion to the
        quantity; `pnl` is after fees; `return` is pnl over the entry's cost with its fee. What is still held is no trade.
    """
    lots: dict[str, deque[list[Any]]] = defaultdict(deque)
    trades: list[tuple[Any, ...]] = []
    for session, symbol, side, quantity, price, fee in orders.itertuples(index=False, name=None):
        if side == "buy":
            lots[symbol].append([session, quantity, price, fee / quantity])
            continue
        left, exit_fee = quantity, fee / quantity
        while lots[symbol] and left > quantity * _DUST:
            lot = lots[symbol][0]
            matched = min(left, lot[1])
            fees = matched * (lot[3] + exit_fee)
            pnl = matched * (price - lot[2]) - fees
            cost = matched * (lot[2] + lot[3])
            trades.append((symbol, lot[0], session, matched, lot[2], price, fees, pnl, pnl / cost))
            left -= matched
            lot[1] -= matched
            if lot[1] <= matched * _DUST:
                lots[symbol].popleft()
    frame = pd.DataFrame(trades, columns=list(TRADE_COLUMNS))
    days = ("entry_session", "exit_session")
    kinds = {name: "datetime64[ns]" if name in days else object if name == "symbol" else "float64" for name in TRADE_COLUMNS}
    return frame.astype(kinds)
