"""Turn frames that sources have read into rows of the lake's tables, with their clocks; what has no place is refused row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from config.calendar import session_closes
from flows.sources.base import RefusedRow, answer_schema
from flows.sources.edge import checked

__all__ = ["ACTIONS_DATASET", "BARS_DATASET", "BAR_FIELDS", "MACRO_DATASET", "bar_rows", "empty_rows", "table_of"]

ACTIONS_DATASET = "corporate_actions"
BARS_DATASET = "equity_bars"
MACRO_DATASET = "macro_observations"
BAR_FIELDS = ("open", "high", "low", "close", "volume")


def table_of(dataset: str, columns: Mapping[str, Any], length: int) -> pa.Table:
    """Make rows of `dataset` from arrays, or from single values that every row shares.

    NaN and NaT become NULL: the lake stores an absence as an absence.
    """
    schema = answer_schema(dataset)

    def column(field: pa.Field) -> pa.Array:
        given = columns[field.name]
        if given is None or isinstance(given, str | float | int):
            return pa.repeat(pa.scalar(given, type=field.type), length)
        if isinstance(given, pd.DatetimeIndex) and given.tz is not None:
            given = given.tz_convert(None).as_unit("us").to_numpy()  # moments in UTC, which is the column's time zone
        return pa.array(given, type=field.type, from_pandas=True)

    return pa.table([column(field) for field in schema], schema=schema)


def empty_rows(dataset: str) -> pa.Table:
    """No rows of `dataset`."""
    return answer_schema(dataset).empty_table()


def bar_rows(
    frame: pd.DataFrame,
    *,
    source: str,
    basis: str,
    currency: str | pd.Series,
    calendar: str,
    describe: Callable[[Any], str] = lambda label: f"row {label}",
    interval: str = "1d",
    complete_at: pd.Series | None = None,
) -> tuple[pa.Table, tuple[RefusedRow, ...]]:
    """Bars as rows of `equity_bars`.

    A bar is known when it is complete, `event_time` and `available_at`: a daily one at its session's close on `calendar` (half
    days included), an intraday one at `complete_at`.
    A row that is none (no symbol, no session, a price that is no number) is refused by `flows.sources.edge`; a day on which the
    exchange did not trade is refused (``not_a_session``).

    Parameters
    ----------
    frame : DataFrame
        Columns `symbol`, `session` (naive midnights) and any of open, high, low, close, volume; an absent one is NULL.
    source, basis, currency, calendar : str
    describe : callable
        Words the place of a row from its index label, for the reason of a refusal.
    interval : str
    complete_at : Series, optional
        The moment each intraday bar is complete, aware, index as `frame`.
    """
    frame, fit, unfit = checked(frame, describe=describe, plain=plain_row)
    currency = currency if isinstance(currency, str) else currency.loc[fit]
    complete_at = None if complete_at is None else complete_at.loc[fit]
    days = pd.DatetimeIndex(frame["session"])
    unique = pd.DatetimeIndex(days.unique())
    closes = session_closes(unique, calendar)[unique.get_indexer(days)]
    placed = np.asarray(closes.notna())
    refused = tuple(
        RefusedRow(
            symbol=str(row["symbol"]),
            rule="not_a_session",
            reason=f"{describe(label)}: {pd.Timestamp(row['session']).date()} is not a session of {calendar}",
            raw=plain_row(row),
        )
        for label, row in frame.loc[~placed].iterrows()
    )
    kept = frame.loc[placed]
    moments = closes[placed] if complete_at is None else pd.DatetimeIndex(complete_at.loc[placed]).tz_convert("UTC")
    columns: dict[str, Any] = {
        "symbol": kept["symbol"].astype(str).to_numpy(dtype=object),
        "interval": interval,
        "event_time": moments,
        "available_at": moments,
        "source": source,
        "session": days[placed].date,
        "basis": basis,
        "currency": currency if isinstance(currency, str) else currency.loc[placed].to_numpy(dtype=object),
        "calendar": calendar,
    }
    for name in BAR_FIELDS:
        columns[name] = kept[name].to_numpy(dtype=np.float64) if name in kept else None
    return table_of(BARS_DATASET, columns, len(kept)), (*unfit, *refused)


def plain_row(row: pd.Series) -> dict[str, Any]:
    """A row as plain values that JSON takes: dates as text, absences as None."""

    def plain(value: Any) -> Any:
        if value is None or value is pd.NaT or (isinstance(value, float) and not np.isfinite(value)):
            return None if not isinstance(value, float) or np.isnan(value) else str(value)
        if isinstance(value, pd.Timestamp):
            return value.date().isoformat() if value.tzinfo is None and value == value.normalize() else value.isoformat()
        return value.item() if isinstance(value, np.generic) else value

    return {str(name): plain(value) for name, value in row.items()}
