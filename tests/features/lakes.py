"""Small lakes for the tests, written through the lake's own door."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from config.calendar import session_closes
from config.settings import Settings, load_settings
from config.tables import table_spec
from lake import Lake, open_lake

RECORDED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def at(day: str, clock: str = "12:00") -> datetime:
    """A moment, UTC."""
    return datetime.combine(date.fromisoformat(day), time.fromisoformat(clock), tzinfo=UTC)


def settings_in(folder: Path) -> Settings:
    return load_settings({"home": str(folder)}, environ={})


def lake_in(folder: Path) -> Lake:
    return open_lake(settings_in(folder))


def put(lake: Lake, table: str, rows: list[dict[str, Any]], *, recorded_at: datetime = RECORDED, ingest_id: str = "test") -> None:
    """Write rows given as dictionaries; columns left out are NULL."""
    schema = pa.schema([field for field in table_spec(table).schema if field.name != "recorded_at"])
    filled = [{field.name: {"ingest_id": ingest_id, **row}.get(field.name) for field in schema} for row in rows]
    lake.write(table, pa.Table.from_pylist(filled, schema=schema), recorded_at=recorded_at)


def bars(
    symbol: str,
    closes: dict[str, float],
    *,
    source: str = "one",
    basis: str = "as_traded",
    volume: float | None = 100.0,
    closes_only: bool = False,
    available: datetime | None = None,
) -> list[dict[str, Any]]:
    """Daily bars: open half a point under the close, high and low one point around it. Off the calendar: complete at 23:00 UTC."""
    days = pd.DatetimeIndex(list(closes))
    ends = session_closes(days)
    rows = []
    for day, end, close in zip(days, ends, closes.values(), strict=True):
        moment = end.to_pydatetime() if end is not pd.NaT else at(f"{day:%Y-%m-%d}", "23:00")
        row = {
            "symbol": symbol,
            "interval": "1d",
            "event_time": moment,
            "source": source,
            "session": day.date(),
            "close": close,
            "basis": basis,
            "currency": "USD",
            "calendar": "XNYS",
            "available_at": available or moment,
        }
        if not closes_only:
            row |= {"open": close - 0.5, "high": close + 1, "low": close - 1, "volume": volume}
        rows.append(row)
    return rows


def split(symbol: str, ex_date: str, value: float, *, source: str = "one", available: datetime | None = None) -> dict[str, Any]:
    """A split, announced ten days before unless said otherwise."""
    day = date.fromisoformat(ex_date)
    announced = datetime.combine(day, time(12), tzinfo=UTC) - timedelta(days=10)
    return {
        "symbol": symbol,
        "ex_date": day,
        "kind": "split",
        "source": source,
        "value": value,
        "available_at": available or announced,
    }


def action(
    symbol: str,
    ex_date: str,
    kind: str,
    value: float | None = None,
    *,
    new_symbol: str | None = None,
    source: str = "one",
    available: datetime | None = None,
) -> dict[str, Any]:
    """A corporate action, known from noon (UTC) of its ex-date unless said otherwise."""
    return {
        "symbol": symbol,
        "ex_date": date.fromisoformat(ex_date),
        "kind": kind,
        "source": source,
        "value": value,
        "new_symbol": new_symbol,
        "available_at": available or at(ex_date),
    }


def observation(
    series: str, period: str, value: float | None, available: datetime, *, vintage: str | None = None, source: str = "one"
) -> dict[str, Any]:
    """One vintage of one period."""
    return {
        "series": series,
        "period": date.fromisoformat(period),
        "vintage": date.fromisoformat(vintage) if vintage else available.date(),
        "source": source,
        "value": value,
        "unit": "index",
        "vintage_kind": "published",
        "available_at": available,
    }
