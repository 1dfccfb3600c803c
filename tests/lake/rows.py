"""Small batches for the tests of the lake."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from config.tables import TABLES, TableSpec

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
BARS = TABLES["equity_bars"]
MACRO = TABLES["macro_observations"]


def without_recorded_at(spec: TableSpec) -> pa.Schema:
    """The columns that a batch has."""
    return pa.schema([field for field in spec.schema if field.name != "recorded_at"])


def bar(symbol: str, session: date, close: float | None, **others: Any) -> dict[str, Any]:
    """One daily bar, complete and available at 21:00 UTC of its session."""
    complete = datetime(session.year, session.month, session.day, 21, tzinfo=UTC)
    row: dict[str, Any] = {
        "symbol": symbol,
        "interval": "1d",
        "event_time": complete,
        "source": "test",
        "session": session,
        "open": close,
        "high": close,
        "low": close,
        "close": close,
        "volume": 100.0,
        "basis": "as_traded",
        "currency": "USD",
        "calendar": "XNYS",
        "available_at": complete,
        "ingest_id": "first",
    }
    return row | others


def bars(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """A batch of bars."""
    return pa.Table.from_pylist(list(rows), schema=without_recorded_at(BARS))


def days(first: date, count: int) -> list[date]:
    """Calendar days from `first`."""
    return [first + timedelta(days=n) for n in range(count)]


def vintage(period: date, vintage: date, value: float | None, **others: Any) -> dict[str, Any]:
    """One macro observation, available at 13:30 UTC of its vintage."""
    row: dict[str, Any] = {
        "series": "CPIAUCSL",
        "period": period,
        "vintage": vintage,
        "source": "test",
        "value": value,
        "unit": "index",
        "vintage_kind": "published",
        "available_at": datetime(vintage.year, vintage.month, vintage.day, 13, 30, tzinfo=UTC),
        "ingest_id": "first",
    }
    return row | others


def macro(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """A batch of macro observations."""
    return pa.Table.from_pylist(list(rows), schema=without_recorded_at(MACRO))
