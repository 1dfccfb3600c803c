"""Reads a vectorbt portfolio, duck-typed, into our own tables: equity, orders and closed trades."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from config.conventions import Convention
from config.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["portfolio_metrics", "portfolio_tables"]

_NEEDED = ("value", "orders", "trades")


def portfolio_tables(portfolio: Any) -> dict[str, pd.DataFrame]:
    """Equity, orders and closed trades of a portfolio.

    Parameters
    ----------
    portfolio : vectorbt.Portfolio
        Of one column, or grouped into one account.

    Returns
    -------
    dict of str to DataFrame
        ``equity`` (session, equity); ``orders`` and ``trades`` with the columns of `backtests/result.py`. The trade still open
        at the end is no closed trade and is left out (vectorbt counts it).

    Raises
    ------
    InputError
        The object is no portfolio, or holds several accounts.
    """
    missing = [name for name in _NEEDED if not hasattr(portfolio, name)]
    if missing:
        raise InputError(
            f"a {type(portfolio).__name__} is no vectorbt portfolio: it has no {', '.join(missing)}",
            remedy="pass what vectorbt.Portfolio.from_signals or from_orders returned",
        )
    value = portfolio.value()
    if getattr(value, "ndim", 1) == 2:
        if value.shape[1] != 1:
            raise InputError(
                f"the portfolio holds {value.shape[1]} accounts; one run logs one",
                remedy="log portfolio[column] in a run each, or build it with group_by=True and cash_sharing=True",
            )
        value = value.iloc[:, 0]
    equity = value.rename("equity").rename_axis("session").reset_index()
    with warnings.catch_warnings():
        # vectorbt 1.2 builds these tables with keywords that pandas 3.1 deprecates; nobody here can mend it.
        warnings.filterwarnings("ignore", message="The inplace keyword")
        orders, trades = portfolio.orders.records_readable, portfolio.trades.records_readable
    return {"equity": equity, "orders": _orders(orders), "trades": _trades(trades)}


def portfolio_metrics(tables: dict[str, pd.DataFrame], convention: Convention) -> dict[str, float]:
    """The headline numbers of those tables, by `risk.metrics.performance`."""
    from risk.metrics import performance

    equity = tables["equity"].set_index("session")["equity"]
    return performance(equity, tables["trades"], tables["orders"], convention)


def _orders(readable: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "session": pd.DatetimeIndex(readable["Timestamp"]),
            "symbol": readable["Column"].astype(str).to_numpy(),
            "side": readable["Side"].str.lower().to_numpy(),
            "quantity": readable["Size"].to_numpy(dtype=float),
            "price": readable["Price"].to_numpy(dtype=float),
            "fee": readable["Fees"].to_numpy(dtype=float),
        }
    )


def _trades(readable: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    closed = readable[readable["Status"] == "Closed"]
    return pd.DataFrame(
        {
            "symbol": closed["Column"].astype(str).to_numpy(),
            "entry_session": pd.DatetimeIndex(closed["Entry Timestamp"]),
            "exit_session": pd.DatetimeIndex(closed["Exit Timestamp"]),
            "quantity": closed["Size"].to_numpy(dtype=float),
            "entry_price": closed["Avg Entry Price"].to_numpy(dtype=float),
            "exit_price": closed["Avg Exit Price"].to_numpy(dtype=float),
            "fees": (closed["Entry Fees"] + closed["Exit Fees"]).to_numpy(dtype=float),
            "pnl": closed["PnL"].to_numpy(dtype=float),
            "return": closed["Return"].to_numpy(dtype=float),
        }
    )
