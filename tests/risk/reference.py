"""The reference convention as a plain loop, and the real prices it runs on: an outside witness for the statistics."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

# The published grid: windows 5, 14, ..., 203, fast below slow.
WINDOWS = tuple(range(5, 204, 9))
PAIRS = tuple((fast, slow) for fast in WINDOWS for slow in WINDOWS if fast < slow)


@cache
def nasdaq() -> pd.DataFrame:
    """NASDAQ composite 1999-2018, the file inside the `arch` distribution, read without importing it."""
    spec = find_spec("arch")
    assert spec is not None
    assert spec.origin is not None
    return pd.read_csv(Path(spec.origin).parent / "data" / "nasdaq" / "nasdaq.csv.gz", index_col=0, parse_dates=True)


def reference_equity(target: np.ndarray, opens: np.ndarray, closes: np.ndarray) -> tuple[np.ndarray, int]:
    """Decide at the close, fill at the next open with 5 bps of slippage and 10 bps of fee, all in or flat; closed trades."""
    cash, held, wanted, trades, equity = 100_000.0, 0.0, 0.0, 0, np.empty(closes.size)
    for t in range(closes.size):
        if t and target[t - 1] != wanted:
            wanted = target[t - 1]
            if wanted:
                held, cash = cash / (opens[t] * 1.0005 * 1.001), 0.0
            else:
                cash, held, trades = held * opens[t] * 0.9995 * 0.999, 0.0, trades + 1
        equity[t] = cash + held * closes[t]
    return equity, trades


def crossover(fast: int, slow: int, closes: np.ndarray) -> np.ndarray:
    """1 from the session the fast mean crosses above the slow one to the session it crosses below; no crossing, no position."""
    series = pd.Series(closes)
    gap = (series.rolling(fast).mean() / series.rolling(slow).mean() - 1.0).to_numpy()
    above, below = gap > 1e-9, gap < -1e-9
    state = np.full(closes.size, np.nan)
    known = ~np.isnan(gap[:-1])
    state[1:][known & above[1:] & ~above[:-1]] = 1.0
    state[1:][known & below[1:] & ~below[:-1]] = 0.0
    return pd.Series(state).ffill().fillna(0.0).to_numpy()


@cache
def grid_returns() -> pd.DataFrame:
    """Session returns of the 253 pairs, one column a pair."""
    prices = nasdaq()
    opens, closes = prices["Open"].to_numpy(), prices["Close"].to_numpy()
    equity = {f"{fast}/{slow}": reference_equity(crossover(fast, slow, closes), opens, closes)[0] for fast, slow in PAIRS}
    return pd.DataFrame(equity, index=prices.index).pct_change(fill_method=None).iloc[1:]


def buy_and_hold_equity() -> pd.Series:
    """Bought at the second session's open, held to the end."""
    prices = nasdaq()
    equity, _ = reference_equity(np.ones(len(prices)), prices["Open"].to_numpy(), prices["Close"].to_numpy())
    return pd.Series(equity, index=prices.index)
