"""Metrics of what was traded: win rate, profit factor, expectancy, turnover, time in the market."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from config.errors import InputError, QualityError
from config.instruments import parse_occ

__all__ = ["exposure", "notional", "trade_statistics", "turnover"]

FloatArray = npt.NDArray[np.float64]


def trade_statistics(trades: pd.DataFrame) -> dict[str, float]:
    """Win rate, profit factor and expectancy of closed round trips.

    Parameters
    ----------
    trades : DataFrame
        `pnl` in account currency after fees; one row a closed trade.

    Returns
    -------
    dict of str to float
        `trades`; `win_rate` (a trade that ends at zero is no win); `profit_factor` (gross profit over gross loss, NaN without
        a losing trade); `expectancy` (mean `pnl`, account currency). NaN without trades.
    """
    pnl = trades["pnl"].to_numpy(dtype=np.float64) if len(trades) else np.empty(0)
    if np.isnan(pnl).any():
        row = trades.iloc[int(np.isnan(pnl).argmax())]
        raise QualityError(f"a closed trade has no profit or loss: {row.to_dict()}", remedy="every closed trade needs `pnl`")
    losses = float(-pnl[pnl < 0].sum())
    return {
        "trades": float(pnl.size),
        "win_rate": float((pnl > 0).mean()) if pnl.size else math.nan,
        "profit_factor": float(pnl[pnl > 0].sum()) / losses if losses > 0 else math.nan,
        "expectancy": float(pnl.mean()) if pnl.size else math.nan,
    }


def turnover(equity: pd.Series, orders: pd.DataFrame, sessions_per_year: float = 252.0) -> float:
    """Traded notional a year, buys and sales together, as a multiple of the mean equity; NaN where `notional` is unknown.

    Parameters
    ----------
    orders : DataFrame
        Fills, as for `notional`.
    """
    years = (len(equity) - 1) / sessions_per_year
    if years <= 0:
        return math.nan
    return float(notional(orders).sum(skipna=False) / float(equity.mean()) / years)


def notional(orders: pd.DataFrame) -> pd.Series:
    """Account currency that changed hands in each fill, positive.

    Parameters
    ----------
    orders : DataFrame
        `symbol`, `quantity` and `price`; `multiplier` (units of the underlying a contract) where contracts are traded.

    Returns
    -------
    Series of shape (n_orders,)
        NaN for an option contract whose multiplier is not given: it is mostly 100, but not always.
    """
    multiplier: pd.Series | float | FloatArray
    if "multiplier" in orders.columns:
        multiplier = orders["multiplier"]
    else:
        multiplier = np.array([1.0 if _expiry(symbol) is None else math.nan for symbol in orders["symbol"]], dtype=np.float64)
    return (orders["quantity"].astype(np.float64).abs() * orders["price"].astype(np.float64).abs() * multiplier).astype(np.float64)


def exposure(sessions: pd.DatetimeIndex, orders: pd.DataFrame) -> float:
    """Share of sessions at whose close some position was held, as far as the fills tell.

    An option contract is held until the session before its expiry at the latest; shares delivered by an exercise are seen only if
    they are among the fills.
    """
    if not len(orders) or not len(sessions):
        return 0.0
    signed = orders["quantity"].to_numpy(dtype=np.float64) * np.where(orders["side"].to_numpy() == "buy", 1.0, -1.0)
    moves = pd.DataFrame({"session": pd.DatetimeIndex(orders["session"]), "symbol": orders["symbol"].to_numpy(), "signed": signed})
    changes = moves.pivot_table(index="session", columns="symbol", values="signed", aggfunc="sum", fill_value=0.0)
    held = changes.cumsum().reindex(sessions, method="ffill").fillna(0.0)
    for symbol in held.columns:
        expiry = _expiry(symbol)
        if expiry is not None:
            held.loc[expiry:, symbol] = 0.0
    # Quantities that were bought and sold again leave rounding behind; it is no position.
    dust = 1e-9 * float(np.abs(signed).max())
    return float((held.abs().to_numpy() > dust).any(axis=1).mean())


def _expiry(symbol: object) -> pd.Timestamp | None:
    """Expiry of an option symbol, None for anything else."""
    try:
        return pd.Timestamp(parse_occ(str(symbol)).expiry)
    except InputError:
        return None
