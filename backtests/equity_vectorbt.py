"""Equity backtests on vectorbt: whole histories at once, one configuration or hundreds as columns of one call.

1. `decide` and `trading_prices` (backtests/decisions.py) give checked targets and the convention's prices.
2. `_orders_wanted` turns targets into the rare cells in which an order is sent: where the wanted weight differs from the one
   last acted on, at the first session with a price.
3. `_simulate` hands all cells to `vectorbt.Portfolio.from_orders` in one call; its Rust engine needs no compilation.
4. `run_vectorised` turns one portfolio into a `BacktestResult`, `run_many` many into a matrix of equities.

What vectorbt would do otherwise, and does not here: fill at the close of the deciding session, value positions at the close
when sizing at the open, annualise on 365 days, count the open position as a trade. Its portfolios are reference cycles; they
are collected before the next block is built.

Cash interest is exact: prices are divided by what idle cash has grown to, so that cash neither earns nor loses in that unit;
orders are fractions of equity and costs fractions of notional, so nothing else changes, and values are multiplied back.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from backtests.decisions import FloatArray, TradingPrices, decide, interest_factors, specification, trading_prices
from backtests.result import BacktestResult
from backtests.strategy import Strategy, View
from backtests.trades import order_frame, round_trips
from config.caches import place_caches
from config.conventions import REFERENCE, Convention
from config.errors import InputError
from config.progress import SILENT, Progress

if TYPE_CHECKING:
    from backtests.equity_flow import equity_backtest_flow as equity_backtest_flow

__all__ = ["Engine", "ManyResults", "equity_backtest_flow", "run_many", "run_vectorised"]

Engine = Literal["auto", "rust", "numba"]
_CELLS_PER_CALL = 2_000_000  # about 16 MB a matrix; vectorbt holds some ten of them


def __getattr__(name: str) -> Any:
    """Import the flow (backtests/equity_flow.py) when it is asked for: Prefect costs two seconds, the engine does not need it."""
    if name == "equity_backtest_flow":
        from backtests.equity_flow import equity_backtest_flow

        return equity_backtest_flow
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True, kw_only=True)
class ManyResults:
    """Many configurations over the same market.

    Parameters
    ----------
    equity : DataFrame of shape (n_sessions, n_configurations)
        Account value after each session's close; columns are the positions of the strategies in the call.
    trades : ndarray of shape (n_configurations,)
        Closed round trips, first in first out.
    orders : ndarray of shape (n_configurations,)
        Fills.
    """

    equity: pd.DataFrame
    trades: np.ndarray[Any, np.dtype[np.int64]]
    orders: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def returns(self) -> pd.DataFrame:
        """Simple session returns, shape (n_sessions - 1, n_configurations)."""
        return self.equity.pct_change(fill_method=None).iloc[1:]


def run_vectorised(
    strategy: Strategy,
    view: View,
    *,
    convention: Convention = REFERENCE,
    snapshot_id: str = "",
    data_kind: Literal["real", "modelled"] = "real",
    engine: Engine = "auto",
) -> BacktestResult:
    """Backtest one strategy over the whole view.

    Parameters
    ----------
    strategy : Strategy
    view : View
        Prices and features. A symbol without a price in a session is not traded in it: the order waits for the first session
        with one, and the position keeps its last known value.
    convention : Convention
    snapshot_id : str
        Recorded in the result; by default the panel's.
    engine : {"auto", "rust", "numba"}
        vectorbt's; "auto" takes Rust, which starts cold in milliseconds where Numba compiles for 15 seconds.

    Raises
    ------
    InputError
        As `decide` and `trading_prices`.

    Notes
    -----
    Several symbols share the cash. In one session sales come before purchases, then purchases from the smallest to the
    largest; a purchase is cut to what the cash allows with its costs. Weights are of the equity at the moment of the fills.
    """
    prices = trading_prices(view, convention)
    weights = decide(strategy, view)
    wanted = _orders_wanted(weights.to_numpy(), prices)
    values, records = _simulate([wanted], prices, view.sessions, convention, engine)
    orders = _order_table(records, view, interest_factors(len(view.sessions), convention))
    return BacktestResult(
        spec=specification(strategy, view, convention),
        engine="vectorbt",
        equity=pd.Series(values[:, 0], index=view.sessions, name="equity"),
        weights=weights,
        orders=orders,
        trades=round_trips(orders),
        snapshot_id=snapshot_id or view.panel.snapshot_id,
        data_kind=data_kind,
    )


def run_many(
    strategies: Sequence[Strategy],
    view: View,
    *,
    convention: Convention = REFERENCE,
    engine: Engine = "auto",
    progress: Progress = SILENT,
) -> ManyResults:
    """Backtest many configurations over the same market, as columns of few vectorbt calls.

    Each has an account of its own. Memory: a block holds about two million cells (sessions × symbols × configurations);
    blocks are collected before the next one.

    Returns
    -------
    ManyResults
        In the order of `strategies`.
    """
    if not strategies:
        raise InputError("no configurations were given", remedy="widen the grid")
    prices = trading_prices(view, convention)
    sessions = len(view.sessions)
    block = max(1, _CELLS_PER_CALL // (sessions * len(view.symbols)))
    equity = np.empty((sessions, len(strategies)))
    trades = np.zeros(len(strategies), dtype=np.int64)
    orders = np.zeros(len(strategies), dtype=np.int64)
    progress.stage("backtests", len(strategies))
    for start in range(0, len(strategies), block):
        part = strategies[start : start + block]
        wanted = [_orders_wanted(decide(strategy, view).to_numpy(), prices) for strategy in part]
        values, records = _simulate(wanted, prices, view.sessions, convention, engine)
        here = slice(start, start + len(part))
        equity[:, here] = values
        orders[here] = np.bincount(records["col"] // len(view.symbols), minlength=len(part))
        trades[here] = _closed_counts(records, view, len(part), interest_factors(sessions, convention))
        if start + block < len(strategies):
            gc.collect()
        progress.advance(len(part))
    return ManyResults(equity=pd.DataFrame(equity, index=view.sessions), trades=trades, orders=orders)


def _orders_wanted(weights: FloatArray, prices: TradingPrices) -> FloatArray:
    """Weights to trade to, in the session of the fill; NaN where no order is sent. Shape (n_sessions, n_symbols).

    An order is sent in the first session with a price in which the wanted weight (the last opinion) differs from the one last
    acted on; so a decision on the last bar, or before a symbol's first price, waits.
    """
    wanted = pd.DataFrame(weights).ffill().shift(prices.decision_lag).fillna(0.0).to_numpy(dtype=np.float64)
    tradable = ~np.isnan(prices.fill)
    orders = np.full_like(wanted, np.nan)
    for column in range(wanted.shape[1]):
        rows = np.flatnonzero(tradable[:, column])
        weight = wanted[rows, column]
        changed = weight != np.concatenate([[0.0], weight[:-1]])
        orders[rows[changed], column] = weight[changed]
    return orders


def _simulate(
    wanted: Sequence[FloatArray], prices: TradingPrices, sessions: pd.DatetimeIndex, convention: Convention, engine: Engine
) -> tuple[FloatArray, Any]:
    """Run every configuration in one call: account values (n_sessions, n_configurations) and vectorbt's order records."""
    place_caches()
    import vectorbt as vbt

    symbols, configurations = prices.fill.shape[1], len(wanted)
    grown = interest_factors(len(sessions), convention)
    matrices = (prices.fill, prices.valuation, prices.mark)
    fill, valuation, mark = (np.tile(frame / grown[:, None], (1, configurations)) for frame in matrices)
    size = np.concatenate(list(wanted), axis=1)
    columns = pd.RangeIndex(symbols * configurations)
    shared = symbols > 1
    portfolio = vbt.Portfolio.from_orders(
        pd.DataFrame(mark, index=sessions, columns=columns),
        size=size,
        size_type="targetpercent",
        direction="longonly",
        price=fill,
        val_price=valuation,
        fees=convention.fee,
        slippage=convention.slippage,
        size_granularity=np.nan if convention.fractional else 1.0,
        init_cash=convention.initial_cash,
        group_by=np.repeat(np.arange(configurations), symbols) if shared else None,
        cash_sharing=shared,
        call_seq="auto" if shared else None,
        update_value=False,
        ffill_val_price=True,
        max_orders=max(int(np.count_nonzero(~np.isnan(size))), 1),
        freq="1D",
        engine=engine,
    )
    values = np.asarray(portfolio.value(engine=engine), dtype=np.float64).reshape(len(sessions), configurations)
    records = portfolio.order_records.copy()
    del portfolio
    gc.collect(1)  # the portfolio is a reference cycle, and young; a full collection costs a quarter of a second
    return values * grown[:, None], records


def _order_table(records: Any, view: View, grown: FloatArray, first_column: int = 0) -> pd.DataFrame:
    """vectorbt's order records as fills in currency, in the order they were executed."""
    rows = [
        (
            view.sessions[row],
            view.symbols[column - first_column],
            "sell" if side else "buy",
            size,
            price * grown[row],
            fee * grown[row],
        )
        for column, row, size, price, fee, side in zip(
            *(records[name].tolist() for name in ("col", "idx", "size", "price", "fees", "side")), strict=True
        )
    ]
    return order_frame(sorted(rows, key=lambda order: order[0]))


def _closed_counts(records: Any, view: View, configurations: int, grown: FloatArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Closed round trips of each configuration.

    Where every sale empties the position that one purchase made, a sale is a round trip; only the others are matched lot by lot.
    """
    symbols = len(view.symbols)
    owner = records["col"] // symbols
    counts = np.bincount(owner[records["side"] == 1], minlength=configurations)
    order = np.lexsort((records["idx"], records["col"]))
    column, side, size = records["col"][order], records["side"][order], records["size"][order]
    first = np.concatenate([[True], column[1:] != column[:-1]]) if len(column) else np.zeros(0, dtype=bool)
    before = np.concatenate([[0.0], size[:-1]]) if len(size) else size
    simple = np.where(first, side == 0, side != np.concatenate([[1], side[:-1]]) if len(side) else side == 0)
    simple &= (side == 0) | np.isclose(size, before, rtol=1e-9, atol=0.0)
    for configuration in np.unique(column[~simple] // symbols):
        mine = records[owner == configuration]
        counts[configuration] = len(round_trips(_order_table(mine, view, grown, int(configuration) * symbols)))
    return np.asarray(counts, dtype=np.int64)
