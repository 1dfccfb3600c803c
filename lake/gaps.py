"""Sessions that a symbol should have and has not, between its first bar and its last, against the exchange's calendar."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from config.calendar import sessions
from config.tables import TABLES
from lake.query import connect
from lake.store import Lake
from lake.writer import WriteResult

__all__ = ["missing_sessions", "record_gaps"]


def missing_sessions(bars: pa.Table, calendar: str) -> pa.Table:
    """Find the sessions of the calendar without a bar, for each symbol and source between its first and last bar.

    Parameters
    ----------
    bars : pyarrow.Table
        `symbol`, `source` and `session`.
    calendar : str
        Exchange calendar, such as ``XNYS``.

    Returns
    -------
    pyarrow.Table
        `symbol`, `source`, `session`, sorted; no rows where nothing is missing.
    """
    span = pc.min_max(bars["session"]).as_py()
    days = [] if span["min"] is None else list(sessions(span["min"], span["max"], calendar).date)
    with connect() as con:
        con.register("bars", bars)
        con.register("calendar", pa.table({"session": pa.array(days, pa.date32())}))
        return con.sql(
            "WITH life AS (SELECT symbol, source, min(session) AS first, max(session) AS last FROM bars GROUP BY ALL) "
            "SELECT l.symbol, l.source, c.session FROM life l JOIN calendar c ON c.session BETWEEN l.first AND l.last "
            "ANTI JOIN bars b ON b.symbol = l.symbol AND b.source = l.source AND b.session = c.session ORDER BY ALL"
        ).to_arrow_table()


def record_gaps(
    lake: Lake,
    *,
    calendar: str,
    recorded_at: datetime,
    ingest_id: str,
    dataset: str = "equity_bars",
    interval: str = "1d",
    symbols: Sequence[str] | None = None,
) -> WriteResult:
    """Compare the newest bars with the calendar and bring the table `gaps` up to date.

    A missing session gets the state ``missing``; one that was missing and has come since gets ``filled``. Bars are read at
    the newest committed version, so this may run before the ingest's snapshot is published.

    Parameters
    ----------
    symbols : sequence of str, optional
        Only these; all by default.

    Returns
    -------
    WriteResult
        `new` counts gaps never seen before, `revised` those whose state changed.
    """
    chosen = {} if symbols is None else {"symbol": list(symbols)}
    bars = lake.read_latest(dataset, where={"interval": interval, **chosen}, columns=["symbol", "source", "session"])
    known = lake.read_latest(
        "gaps", where={"dataset": dataset, "state": "missing", **chosen}, columns=["symbol", "source", "session"]
    )
    with connect() as con:
        con.register("missing", missing_sessions(bars, calendar))
        con.register("known", known)
        con.register("bars", bars)
        states = con.sql(
            "SELECT *, 'missing' AS state FROM missing UNION ALL "
            "SELECT k.*, 'filled' AS state FROM known k SEMI JOIN bars b USING (symbol, source, session)"
        ).to_arrow_table()
    count = states.num_rows
    rows = pa.table(
        {
            "dataset": pa.array([dataset] * count, pa.string()),
            **{name: states[name] for name in ("symbol", "session", "source", "state")},
            "available_at": pa.array([recorded_at] * count, pa.timestamp("us", tz="UTC")),
            "ingest_id": pa.array([ingest_id] * count, pa.string()),
        }
    )
    return lake.write(TABLES["gaps"], rows, recorded_at=recorded_at)
