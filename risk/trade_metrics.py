"""Metrics of what was traded: win rate, profit factor, expectancy, turnover, time in the market."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from config.errors import QualityError

__all__ = ["exposure", "trade_statistics", "turnover"]


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
    """Traded notional a year, buys and sales together, as a multiple of the mean equity.

    Parameters
    ----------
    orders : DataFrame
        Fills: `quantity` (positive) and `price`; `multiplier` (units of the underlying a contract, 1 when absent).
    """
    years = (len(equity) - 1) / sessions_per_year
    if years <= 0:
        return math.nan
    return float(_notional(orders).sum() / float(equity.mean()) / years)


def exposure(sessions: pd.DatetimeIndex, orders: pd.DataFrame) -> float:
    """Share of sessions at whose close some position was held."""
    if not len(orders) or not len(sessions):
        return 0.0
    signed = orders["quantity"].to_numpy(dtype=np.float64) * np.where(orders["side"].to_numpy() == "buy", 1.0, -1.0)
    moves = pd.DataFrame({"session": pd.DatetimeIndex(orders["session"]), "symbol": orders["symbol"].to_numpy(), "signed": signed})
    changes = moves.pivot_table(index="session", columns="symbol", values="signed", aggfunc="sum", fill_value=0.0)
    held = changes.cumsum().reindex(sessions, method="ffill").fillna(0.0).to_numpy()
    # Quantities that were bought and sold again leave rounding behind; it is no position.
    scale = np.abs(signed).max()
    return float((np.abs(held) > 1e-9 * scale).any(axis=1).mean())


def _notional(orders: pd.DataFrame) -> pd.Series:
    if not len(orders):
        return pd.Series(dtype=np.float64)
    multiplier = orders["multiplier"] if "multiplier" in orders.columns else 1.0
    return (orders["quantity"].abs() * orders["price"].abs() * multiplier).astype(np.float64)
