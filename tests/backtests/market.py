"""Markets, scripted strategies and a plain reference loop for the tests of the engines."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from backtests.equity_event import run_event
from backtests.equity_vectorbt import run_vectorised
from backtests.strategy import View
from config.conventions import REFERENCE, Convention
from features.panel import MarketPanel

ENGINES = {"vectorised": run_vectorised, "event": run_event}


def package_folder(package: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def index_view(name: str = "nasdaq") -> View:
    """NASDAQ or S&P 500 daily bars 1999–2018, from arch.data."""
    bars = pd.read_csv(package_folder("arch") / "data" / name / f"{name}.csv.gz", parse_dates=["Date"]).set_index("Date")
    bars.index.name = "session"
    return view_from(bars["Open"].to_frame(name.upper()), bars["Close"].to_frame(name.upper()))


def view_from(opens: pd.DataFrame, closes: pd.DataFrame, features: dict[str, pd.DataFrame] | None = None) -> View:
    """A view with these prices; high, low and volume are not used by any strategy here."""
    high = pd.DataFrame(np.fmax(opens, closes), index=closes.index, columns=closes.columns)
    low = pd.DataFrame(np.fmin(opens, closes), index=closes.index, columns=closes.columns)
    panel = MarketPanel(open=opens, high=high, low=low, close=closes, volume=closes * np.nan)
    return View(panel=panel, features=features or {})


def small_view(opens: Sequence[Sequence[float]], closes: Sequence[Sequence[float]]) -> View:
    """A hand-made market: one list a symbol (A, B, C, …), weekdays from 2024-01-01."""
    names = [chr(ord("A") + n) for n in range(len(closes))]
    days = pd.bdate_range("2024-01-01", periods=len(closes[0]), name="session")
    frames = (pd.DataFrame(dict(zip(names, rows, strict=True)), index=days, dtype=float) for rows in (opens, closes))
    return view_from(*frames)


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """Decides what it is told: one tuple of weights a symbol."""

    name: ClassVar[str] = "scripted"
    family: ClassVar[str] = "scripted"
    features: ClassVar[tuple[str, ...]] = ()
    macro: ClassVar[tuple[str, ...]] = ()
    role: ClassVar[Literal["candidate", "benchmark"]] = "candidate"

    weights: tuple[tuple[float, ...], ...]

    @property
    def params(self) -> dict[str, Any]:
        """The weights; NaN as text."""
        return {"weights": [[str(weight) for weight in symbol] for symbol in self.weights]}

    @property
    def warm_up(self) -> int:
        """None."""
        return 0

    def targets(self, view: View) -> pd.DataFrame:
        """The script, cut to the view."""
        rows = np.array(self.weights, dtype=float).T[: len(view.sessions)]
        return pd.DataFrame(rows, index=view.sessions, columns=view.close.columns)


def ten_line_loop(opens: Sequence[float], closes: Sequence[float], wanted: Sequence[float]) -> tuple[list[float], int]:
    """All in or out of one symbol under the reference convention: equity after each close, and the number of fills."""
    cash, shares, equity, fills = 100_000.0, 0.0, [], 0
    for t, (price, close) in enumerate(zip(opens, closes, strict=True)):
        want = wanted[t - 1] if t else 0.0
        if want and not shares:
            shares, cash, fills = cash / (price * 1.0005 * 1.001), 0.0, fills + 1
        elif not want and shares:
            shares, cash, fills = 0.0, shares * price * 0.9995 * 0.999, fills + 1
        equity.append(cash + shares * close)
    return equity, fills


def portfolio_loop(
    view: View, weights: pd.DataFrame, convention: Convention = REFERENCE
) -> tuple[list[float], list[tuple[Any, ...]]]:
    """docs/conventions.md for several symbols in plain Python: equity after each close, and fills (row, symbol, quantity)."""
    opens, closes = view.panel.open.to_numpy(), view.close.to_numpy()
    lag = 1 if convention.fill == "next_open" else 0
    fill = opens if lag else closes
    cash, rate = convention.initial_cash, convention.cash_interest_ann / convention.sessions_per_year
    symbols = range(closes.shape[1])
    held, opinion, acted, last = [0.0] * len(symbols), [0.0] * len(symbols), [0.0] * len(symbols), [0.0] * len(symbols)
    equity, fills = [], []
    for t in range(len(closes)):
        cash *= 1 + rate if t else 1
        for s in symbols:
            if t >= lag and not np.isnan(weights.iat[t - lag, s]):
                opinion[s] = weights.iat[t - lag, s]
            if not np.isnan(fill[t, s]):
                last[s] = fill[t, s]
        worth = cash + sum(held[s] * last[s] for s in symbols)
        todo = [s for s in symbols if opinion[s] != acted[s] and not np.isnan(fill[t, s])]
        for s in sorted(todo, key=lambda s: opinion[s] * worth - held[s] * last[s]):
            quantity = opinion[s] * worth / fill[t, s] - held[s]
            price = fill[t, s] * (1 + convention.slippage if quantity > 0 else 1 - convention.slippage)
            quantity = min(quantity, cash / (price * (1 + convention.fee)))
            quantity = quantity if convention.fractional else float(np.trunc(quantity))
            cash -= quantity * price + abs(quantity) * price * convention.fee
            held[s], acted[s] = held[s] + quantity, opinion[s]
            if abs(quantity) * price > 1e-9 * worth:
                fills.append((t, view.symbols[s], quantity))
        for s in symbols:
            if not np.isnan(closes[t, s]):
                last[s] = closes[t, s]
        equity.append(cash + sum(held[s] * last[s] for s in symbols))
    return equity, fills
