"""Panels for the tests: random walks with every field and macro series, and the real index files that ship with arch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from config.calendar import sessions
from features.catalogue import feature_set
from features.panel import MarketPanel

FIELDS = ("open", "high", "low", "close", "volume")


def walk(rows: int, symbols: int, *, seed: int = 0) -> MarketPanel:
    """A complete panel: geometric walks on real sessions, with every macro series the catalogue reads."""
    rng = np.random.default_rng(seed)
    index = sessions("1999-01-04", "2018-12-31")[:rows]
    names = [f"S{number}" for number in range(symbols)]

    def frame(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, index=index, columns=names)

    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.012, (rows, symbols)), axis=0))
    start = close * np.exp(rng.normal(0, 0.004, close.shape))
    high = np.maximum(start, close) * np.exp(np.abs(rng.normal(0, 0.004, close.shape)))
    low = np.minimum(start, close) * np.exp(-np.abs(rng.normal(0, 0.004, close.shape)))
    macro = {
        name: pd.Series(50 * np.exp(np.cumsum(rng.normal(0, 0.01, rows))), index=index, name=name)
        for name in feature_set("core").macro
    }
    return MarketPanel(
        open=frame(start),
        high=frame(high),
        low=frame(low),
        close=frame(close),
        volume=frame(rng.uniform(1e6, 9e6, close.shape)),
        macro=macro,
    )


def with_holes(panel: MarketPanel, *, seed: int = 1) -> MarketPanel:
    """The same panel with symbols that list late, stop early and miss single sessions."""
    rng = np.random.default_rng(seed)
    rows, symbols = panel.close.shape
    missing = rng.random((rows, symbols)) < 0.02
    for column in range(symbols):
        missing[: column * rows // 10, column] = True
        missing[rows - column * rows // 20 :, column] = True
    frames = {name: getattr(panel, name).mask(missing) for name in FIELDS}
    return MarketPanel(**frames, macro=panel.macro)


def only(panel: MarketPanel, symbol: str) -> MarketPanel:
    """One symbol, on its own sessions."""
    there = panel.close[symbol].notna()
    frames = {name: getattr(panel, name).loc[there, [symbol]] for name in FIELDS}
    return MarketPanel(**frames, macro={name: series[there] for name, series in panel.macro.items()})


def arch_file(path: str) -> pd.DataFrame:
    """A data file of the installed arch package, read without importing it."""
    spec = importlib.util.find_spec("arch")
    assert spec is not None
    assert spec.origin is not None
    frame = pd.read_csv(Path(spec.origin).parent / "data" / path, na_values=["."])
    frame.index = pd.DatetimeIndex(pd.to_datetime(frame.pop("Date"), format="%m/%d/%Y"), name="session")
    return frame


def real_panel() -> MarketPanel:
    """NASDAQ 1999-2018 as traded, VIX, WTI, core CPI and Moody's yields, along its sessions (some days or two months late)."""
    bars = arch_file("nasdaq/nasdaq.csv.gz")
    vix = arch_file("vix/vix.csv.gz")["vix"]
    oil = arch_file("wti/wti.csv.gz")["DCOILWTICO"]
    prices = arch_file("core_cpi/core-cpi.csv.gz")["CPILFESL"]
    yields = arch_file("default/default.csv.gz")

    def laid(series: pd.Series, lag: pd.DateOffset) -> pd.Series:
        moved = pd.Series(series.to_numpy(dtype=float), index=series.index + lag).dropna()
        return moved.reindex(bars.index, method="ffill", tolerance=pd.Timedelta(days=70))

    month = pd.DateOffset(months=2)
    macro = {
        "VIXCLS": laid(vix, pd.DateOffset(days=1)),
        "DCOILWTICO": laid(oil, pd.DateOffset(days=9)),
        "AAA": laid(yields["AAA"], month),
        "BAA": laid(yields["BAA"], month),
        "CPILFESL": laid(prices, month),
        **{f"CPILFESL@-{back}M": laid(prices.shift(back), month) for back in (3, 12, 15)},
    }
    frames = {name: bars[[name.title()]].astype(float).set_axis(["NASDAQ"], axis=1) for name in FIELDS}
    return MarketPanel(**frames, macro=macro)
