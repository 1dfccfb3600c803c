"""What every engine reads before it trades: the strategy's checked targets and the prices of the convention.

1. `decide` asks the strategy and refuses anything that is not a matrix of weights.
2. `trading_prices` picks the prices that orders are filled at and positions are valued at.
3. `specification` writes the small document that names the strategy version.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtests.strategy import Strategy, StrategySpec, View
from config.conventions import Convention
from config.errors import InputError, QualityError

__all__ = ["FloatArray", "TradingPrices", "decide", "interest_factors", "specification", "trading_prices"]

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_SUM_SLACK = 1e-9


def decide(strategy: Strategy, view: View) -> pd.DataFrame:
    """Ask the strategy for its targets and check them.

    Returns
    -------
    DataFrame of shape (n_sessions, n_symbols)
        Fractions of equity decided at each session's close, float64; NaN: no opinion, keep what is held.

    Raises
    ------
    InputError
        Another shape, index or columns than the view's; a weight that is infinite, below 0 or above 1 (the engines hold
        long or flat positions without borrowing); held weights of one session that add up to more than 1. The message names
        the strategy, the session, the symbol and the value.
    """
    targets = strategy.targets(view)
    if not isinstance(targets, pd.DataFrame):
        raise InputError(
            f"strategy {strategy.name}: targets() returned a {type(targets).__name__}, not a DataFrame",
            remedy="return one row a session and one column a symbol",
        )
    if not targets.index.equals(view.sessions) or tuple(map(str, targets.columns)) != view.symbols:
        raise InputError(
            f"strategy {strategy.name}: targets() has shape {targets.shape}, the view has ({len(view.sessions)}, "
            f"{len(view.symbols)}); rows must be the view's sessions and columns its symbols, in order",
            remedy="build the weights on view.close's own index and columns",
        )
    try:
        weights = targets.astype(np.float64)
    except (TypeError, ValueError) as problem:
        raise InputError(f"strategy {strategy.name}: targets() holds values that are no numbers: {problem}") from problem
    _check_weights(strategy.name, weights)
    return weights


def _check_weights(name: str, weights: pd.DataFrame) -> None:
    values = weights.to_numpy()
    wrong = np.isinf(values) | (values < 0.0) | (values > 1.0 + _SUM_SLACK)
    if wrong.any():
        row, column = (int(place[0]) for place in np.nonzero(wrong))
        raise InputError(
            f"strategy {name}: weight {float(values[row, column])!r} for {weights.columns[column]} at "
            f"{weights.index[row]:%Y-%m-%d} is not a fraction between 0 and 1",
            remedy="short and leveraged positions are not supported; NaN means no opinion",
        )
    held = weights.ffill().fillna(0.0).to_numpy().sum(axis=1)
    if (held > 1.0 + _SUM_SLACK).any():
        row = int(np.argmax(held > 1.0 + _SUM_SLACK))
        raise InputError(
            f"strategy {name}: the weights held at {weights.index[row]:%Y-%m-%d} add up to {held[row]:.6g}, more than 1",
            remedy="scale them down; NaN keeps the last weight, it does not sell",
        )


@dataclass(frozen=True, kw_only=True)
class TradingPrices:
    """The prices of one run, arrays of shape (n_sessions, n_symbols).

    Parameters
    ----------
    fill : ndarray
        Before slippage; NaN where the symbol cannot be traded that session.
    valuation : ndarray
        What a position is worth at the moment of the fills: the fill price, else the last price known before it.
    mark : ndarray
        What a position is worth after the close: the close, else the last price known (the session's open among them, where
        orders are filled at it). 1.0 before a symbol's first price, when there can be no position.
    decision_lag : int
        Sessions between a decision and the first session it may be filled in: 1 (next open) or 0 (same close).
    """

    fill: FloatArray
    valuation: FloatArray
    mark: FloatArray
    decision_lag: int


def trading_prices(view: View, convention: Convention) -> TradingPrices:
    """Prices by the convention; a symbol without a price in a session is not traded in it and keeps its last known value.

    Raises
    ------
    InputError
        The convention fills at the open, and a symbol with closes has no opens at all. An empty view.
    QualityError
        A price is zero, negative or infinite.
    """
    close = view.close.to_numpy(dtype=np.float64)
    if close.size == 0:
        raise InputError("the view has no sessions or no symbols: nothing to trade", remedy="widen the dates or the symbols")
    _check_prices(view, close, "close")
    if convention.fill == "same_close":
        mark = view.close.ffill().fillna(1.0).to_numpy(dtype=np.float64)
        return TradingPrices(fill=close, valuation=mark, mark=mark, decision_lag=0)
    opens = view.panel.open.to_numpy(dtype=np.float64)
    _check_prices(view, opens, "open")
    for column, symbol in enumerate(view.symbols):
        if np.isnan(opens[:, column]).all() and not np.isnan(close[:, column]).all():
            raise InputError(
                f"{symbol} has closing prices only: it cannot be filled at the next open",
                remedy="use a convention with fill: same_close (optimistic; every result on it says so), or a source with opens",
            )
    known = view.close.fillna(view.panel.open).ffill()
    before = known.shift(1).fillna(1.0).to_numpy(dtype=np.float64)
    mark = known.fillna(1.0).to_numpy(dtype=np.float64)
    return TradingPrices(fill=opens, valuation=np.where(np.isnan(opens), before, opens), mark=mark, decision_lag=1)


def _check_prices(view: View, prices: FloatArray, name: str) -> None:
    wrong = np.isinf(prices) | (prices <= 0.0)
    if wrong.any():
        row, column = (int(place[0]) for place in np.nonzero(wrong))
        raise QualityError(
            f"{view.symbols[column]}: {name} {float(prices[row, column])!r} at {view.sessions[row]:%Y-%m-%d} is no positive price",
            remedy="correct it at the source or leave it missing (NaN); `quant data check` lists such rows",
        )


def interest_factors(sessions: int, convention: Convention) -> FloatArray:
    """What one unit of cash, untouched since the first session, has grown to at each session; shape (n_sessions,).

    Interest of `cash_interest_ann / sessions_per_year` is credited before each session's open on the cash held after the
    session before.
    """
    rate = convention.cash_interest_ann / convention.sessions_per_year
    return np.asarray((1.0 + rate) ** np.arange(sessions), dtype=np.float64)


def specification(strategy: Strategy, view: View, convention: Convention) -> StrategySpec:
    """The document that names this strategy version."""
    return StrategySpec(
        name=strategy.name, family=strategy.family, params=strategy.params, symbols=view.symbols, convention=convention
    )
