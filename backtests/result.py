"""What every engine returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from backtests.strategy import StrategySpec
from config.hashing import sha256_bytes

__all__ = ["ORDER_COLUMNS", "TRADE_COLUMNS", "BacktestResult"]

ORDER_COLUMNS = ("session", "symbol", "side", "quantity", "price", "fee")
TRADE_COLUMNS = ("symbol", "entry_session", "exit_session", "quantity", "entry_price", "exit_price", "fees", "pnl", "return")

_OFF_TIES = 1.0 + 1.2345e-10


@dataclass(frozen=True, kw_only=True)
class BacktestResult:
    """One run of one strategy.

    Parameters
    ----------
    spec : StrategySpec
    engine : {"vectorbt", "backtrader", "options"}
    equity : Series of shape (n_sessions,)
        Account value after each session's close, account currency.
    weights : DataFrame of shape (n_sessions, n_symbols)
        Targets as decided, at the close of each session.
    orders : DataFrame
        One row a fill: `session` (of the fill), `symbol`, `side` (buy, sell), `quantity` (positive), `price` (with slippage),
        `fee`.
    trades : DataFrame
        Closed round trips, first in first out; open positions are not trades.
    snapshot_id : str
        The lake snapshot read.
    data_kind : {"real", "modelled"}
    """

    spec: StrategySpec
    engine: Literal["vectorbt", "backtrader", "options"]
    equity: pd.Series
    weights: pd.DataFrame
    orders: pd.DataFrame
    trades: pd.DataFrame
    snapshot_id: str
    data_kind: Literal["real", "modelled"] = "real"

    @property
    def returns(self) -> pd.Series:
        """Simple session returns, one fewer than there are sessions."""
        return self.equity.pct_change(fill_method=None).iloc[1:]

    @property
    def orders_hash(self) -> str:
        """SHA-256 over the order list, quantities and prices to nine significant digits: equal lists have equal hashes.

        Rounding is moved off the ties of short decimals: an open of 2670.75 with 5 bps is 2672.085375, which engines that differ
        in the sixteenth digit would round to different ninth ones.
        """
        orders = self.orders
        days = pd.DatetimeIndex(orders["session"]).strftime("%Y-%m-%d")
        columns = zip(days, orders["symbol"], orders["side"], orders["quantity"], orders["price"], strict=True)
        lines = (
            f"{day},{symbol},{side},{quantity * _OFF_TIES:.9g},{price * _OFF_TIES:.9g}"
            for day, symbol, side, quantity, price in columns
        )
        return sha256_bytes("\n".join(lines).encode())
