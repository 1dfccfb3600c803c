"""Parity: whether two runs of one strategy sent the same orders and earned the same money, session by session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtests.result import BacktestResult
from config.errors import InputError

__all__ = ["Parity", "compare"]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two results agree.

    Parameters
    ----------
    engines : tuple of (str, str)
    tolerance : float
        Relative, for equity, quantities, prices and fees.
    max_relative_equity_difference : float
        Over all sessions.
    orders_left, orders_right : int
    trades_left, trades_right : int
    first_difference : str or None
        The first order that differs, else the first session whose equity does, in words.
    equal : bool
        Same orders and trades, equity within the tolerance in every session.
    """

    engines: tuple[str, str]
    tolerance: float
    max_relative_equity_difference: float
    orders_left: int
    orders_right: int
    trades_left: int
    trades_right: int
    first_difference: str | None
    equal: bool


def compare(left: BacktestResult, right: BacktestResult, tolerance: float = 1e-9) -> Parity:
    """Compare two results over the same sessions.

    Parameters
    ----------
    left, right : BacktestResult
        Orders of one session are compared by symbol, whatever order they were sent in.
    tolerance : float
        Relative.

    Raises
    ------
    InputError
        Other sessions, or a tolerance that is not positive.
    """
    if not tolerance > 0.0:
        raise InputError(f"tolerance = {tolerance!r} is not positive", remedy="use 1e-9")
    if not left.equity.index.equals(right.equity.index):
        raise InputError(
            f"the results cover other sessions: {_span(left.equity)} and {_span(right.equity)}", remedy="run both on one view"
        )
    here, there = left.equity.to_numpy(dtype=np.float64), right.equity.to_numpy(dtype=np.float64)
    difference = np.abs(here - there) / np.maximum(np.abs(here), np.abs(there))
    worst = float(difference.max()) if not np.isnan(difference).any() else float("nan")
    first = _first_order(left.orders, right.orders, tolerance) or _first_trade(left.trades, right.trades, tolerance)
    if first is None and not worst <= tolerance:
        row = int(np.argmax(~(difference <= tolerance)))
        first = f"equity at {left.equity.index[row]:%Y-%m-%d}: {here[row]!r} and {there[row]!r}"
    return Parity(
        engines=(left.engine, right.engine),
        tolerance=tolerance,
        max_relative_equity_difference=worst,
        orders_left=len(left.orders),
        orders_right=len(right.orders),
        trades_left=len(left.trades),
        trades_right=len(right.trades),
        first_difference=first,
        equal=first is None,
    )


def _first_order(left: pd.DataFrame, right: pd.DataFrame, tolerance: float) -> str | None:
    keys, numbers = ["session", "symbol", "side"], ["quantity", "price", "fee"]
    return _first_row(
        "order", _sorted(left, ["session", "symbol"]), _sorted(right, ["session", "symbol"]), keys, numbers, tolerance
    )


def _first_trade(left: pd.DataFrame, right: pd.DataFrame, tolerance: float) -> str | None:
    keys = ["exit_session", "symbol", "entry_session"]
    numbers = ["quantity", "entry_price", "exit_price"]
    return _first_row("trade", _sorted(left, keys), _sorted(right, keys), keys, numbers, tolerance)


def _sorted(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return frame.sort_values(by, kind="stable").reset_index(drop=True)


def _first_row(
    what: str, left: pd.DataFrame, right: pd.DataFrame, keys: list[str], numbers: list[str], tolerance: float
) -> str | None:
    shared = min(len(left), len(right))
    same = pd.Series(True, index=range(shared))
    for column in keys:
        same &= left[column].iloc[:shared] == right[column].iloc[:shared]
    for column in numbers:
        same &= np.isclose(left[column].iloc[:shared], right[column].iloc[:shared], rtol=tolerance, atol=0.0)
    if not same.all():
        row = int(np.argmin(same.to_numpy()))
        return f"{what} {row + 1}: {_words(left, row, keys + numbers)} and {_words(right, row, keys + numbers)}"
    if len(left) != len(right):
        longer, name = (left, "left") if len(left) > len(right) else (right, "right")
        return f"{what} {shared + 1}, on the {name} only: {_words(longer, shared, keys + numbers)}"
    return None


def _words(frame: pd.DataFrame, row: int, columns: list[str]) -> str:
    values = (frame[column].iloc[row] for column in columns)
    return " ".join(
        f"{value:%Y-%m-%d}" if isinstance(value, pd.Timestamp) else value if isinstance(value, str) else f"{value:.12g}"
        for value in values
    )


def _span(equity: pd.Series) -> str:
    return f"{len(equity)} from {equity.index[0]:%Y-%m-%d} to {equity.index[-1]:%Y-%m-%d}" if len(equity) else "none"
