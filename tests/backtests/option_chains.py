"""Small option chains for the engine's tests: one written by hand, one from the model, one real."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtests.options.chain import ChainBook

CLOSE_UTC = pd.Timedelta(hours=21, minutes=15)  # 16:15 in New York, in winter


def rows_of(quotes: list[tuple[str, str, str, float, float, float]], **constant: Any) -> pd.DataFrame:
    """Rows of `option_quotes` from (session, expiry, right, strike, bid, ask)."""
    frame = pd.DataFrame(quotes, columns=["session", "expiry", "right", "strike", "bid", "ask"])
    frame["session"], frame["expiry"] = pd.to_datetime(frame["session"]), pd.to_datetime(frame["expiry"])
    frame["quote_time"] = frame["available_at"] = (frame["session"] + CLOSE_UTC).dt.tz_localize("UTC")
    root = constant.get("underlying", "TEST")
    frame["occ_symbol"] = [
        f"{root}{e:%y%m%d}{r}{round(k * 1000):08d}"
        for e, r, k in zip(frame["expiry"], frame["right"], frame["strike"], strict=True)
    ]
    defaults = {"underlying": root, "multiplier": 100.0, "style": "european", "settlement": "pm_cash", "data_kind": "real"}
    return frame.assign(**{**defaults, **constant})


def bars_of(prices: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Bars from {session: (open, close)}."""
    index = pd.DatetimeIndex(list(prices), name="session")
    return pd.DataFrame(list(prices.values()), index=index, columns=["open", "close"])


def modelled(
    start: str, end: str, seed: int = 7, *, drift: float = 0.0, volatility: float = 0.01
) -> tuple[ChainBook, pd.DataFrame]:
    """A modelled chain over a random walk that is known to its seed, and the walk's bars."""
    from config.calendar import session_closes, sessions
    from flows.sources.chain_model import ChainModel
    from flows.sources.modelled_options import ChainInputs, build_chain

    days = sessions(date.fromisoformat(start), date.fromisoformat(end))
    rng = np.random.default_rng(seed)
    close = 2000.0 * np.exp(np.cumsum(rng.normal(drift, volatility, len(days))))
    index = np.clip(16.0 + np.cumsum(rng.normal(0.0, 0.7, len(days))), 9.5, 40.0)
    inputs = ChainInputs(
        underlying="WALK",
        volatility_series="WALKVOL",
        close=pd.Series(close, index=days),
        index=pd.Series(index, index=days),
        known_at=pd.DatetimeIndex(session_closes(days) + pd.Timedelta(minutes=15)),
        first=days[0],
        ingest_ids=(),
    )
    opens = np.concatenate([[2000.0], close[:-1] * np.exp(rng.normal(0.0, volatility / 2, len(days) - 1))])
    return ChainBook.from_rows(build_chain(inputs, ChainModel()).rows), pd.DataFrame({"open": opens, "close": close}, index=days)


def real_spxw(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The SPXW chain of January 2018 as rows, and its underlying's prices as bars without opens."""
    raw = pd.read_csv(folder / "options" / "spxw_2018-01.csv.gz")
    raw = raw.assign(
        day=pd.to_datetime(raw["quote_date"], format="%m/%d/%Y"), end=pd.to_datetime(raw["expiration"], format="%m/%d/%Y")
    )
    right = np.where(raw["option_type"] == "call", "C", "P")
    quotes = list(zip(raw["day"], raw["end"], right, raw["strike"].astype(float), raw["bid"], raw["ask"], strict=True))
    close = raw.groupby("day")["underlying_price"].last()
    close.index = pd.DatetimeIndex(close.index, name="session")
    return rows_of(quotes, underlying="SPXW"), pd.DataFrame({"open": np.nan, "close": close})
