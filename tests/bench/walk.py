"""Made-up daily bars for the benches: a seeded random walk, one a symbol, on real XNYS sessions. No price in it is real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa

from config.calendar import sessions
from config.tables import TABLES

__all__ = ["Walk", "make_walk", "vintages"]

_LAST_BEFORE = date(2024, 12, 31)
_FIRST_AFTER, _LAST_AFTER = date(2025, 1, 1), date(2026, 6, 30)


def _batch_schema(table: str) -> pa.Schema:
    return pa.schema([field for field in TABLES[table].schema if field.name != "recorded_at"])


@dataclass(frozen=True, kw_only=True)
class Walk:
    """The bars of `symbols` on `days`, of which the first `loaded` are history and the others come one a day.

    Parameters
    ----------
    close : ndarray of shape (n_days, n_symbols)
        US dollars.
    """

    symbols: tuple[str, ...]
    days: tuple[date, ...]
    loaded: int
    close: np.ndarray
    spread: np.ndarray
    volume: np.ndarray

    def bars(self, rows: Sequence[int], *, revised: int = 0, ingest: str = "load") -> pa.Table:
        """A batch of every symbol's bars on those days, symbol by symbol; the first `revised` symbols a cent dearer."""
        order = np.asarray(rows)
        count, n = len(order), len(self.symbols)
        close = np.round(self.close[order].T, 4)
        close[:revised] += 0.01
        spread = self.spread[order].T
        complete = np.array([self.days[i] for i in order], "datetime64[us]") + np.timedelta64(21, "h")
        event = pa.array(np.tile(complete, n)).cast(pa.timestamp("us", tz="UTC"))
        session = np.array([self.days[i] for i in order], "datetime64[D]")

        def word(text: str) -> pa.Array:
            return pa.DictionaryArray.from_arrays(np.zeros(count * n, np.int32), pa.array([text])).cast(pa.string())

        codes = np.repeat(np.arange(n, dtype=np.int32), count)
        columns = {
            "symbol": pa.DictionaryArray.from_arrays(codes, pa.array(self.symbols)).cast(pa.string()),
            "interval": word("1d"),
            "event_time": event,
            "source": word("walk"),
            "session": pa.array(np.tile(session, n)),
            "open": (close - spread / 4).ravel(),
            "high": (close + spread).ravel(),
            "low": (close - spread).ravel(),
            "close": close.ravel(),
            "volume": self.volume[order].T.ravel(),
            "basis": word("as_traded"),
            "currency": word("USD"),
            "calendar": word("XNYS"),
            "available_at": event,
            "ingest_id": word(ingest),
        }
        return pa.table(columns, schema=_batch_schema("equity_bars"))


def make_walk(*, bars: int, symbols: int, updates: int, rng: np.random.Generator) -> Walk:
    """History of `bars` bars in all up to the end of 2024, and `updates` sessions after it."""
    loaded = bars // symbols
    first = _LAST_BEFORE - timedelta(days=int(loaded * 1.46) + 30)
    before = [day.date() for day in sessions(first, _LAST_BEFORE, "XNYS")][-loaded:]
    after = [day.date() for day in sessions(_FIRST_AFTER, _LAST_AFTER, "XNYS")][:updates]
    days = (*before, *after)
    shape = (len(days), symbols)
    close = 50 * np.exp(np.cumsum(rng.normal(0.0002, 0.012, shape), axis=0))
    spread = np.round(close * rng.uniform(0.002, 0.02, shape), 4)
    volume = rng.integers(10_000, 5_000_000, shape).astype(float)
    names = tuple(f"S{n:04d}" for n in range(symbols))
    return Walk(symbols=names, days=days, loaded=len(before), close=close, spread=spread, volume=volume)


def vintages(days: Sequence[date], *, series: int, rng: np.random.Generator) -> pa.Table:
    """Macro observations: `series` monthly series, each period released a month on and revised twice, a month apart."""
    months = sorted({day.replace(day=1) for day in days})
    rows = []
    for n in range(series):
        for period in months:
            value = float(rng.normal(100, 5))
            for release in range(3):
                vintage = period + timedelta(days=32 + 30 * release)
                rows.append(
                    {
                        "series": f"M{n:03d}",
                        "period": period,
                        "vintage": vintage,
                        "source": "walk",
                        "value": value + release / 10,
                        "unit": "index",
                        "vintage_kind": "published",
                        "available_at": datetime(vintage.year, vintage.month, vintage.day, 13, 30, tzinfo=UTC),
                        "ingest_id": "load",
                    }
                )
    return pa.Table.from_pylist(rows, schema=_batch_schema("macro_observations"))
