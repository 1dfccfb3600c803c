"""What an ingest writes beside the data: refused rows, gaps against the calendar, what was asked and what came."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from config.hashing import canonical_json, digest, short
from config.tables import TABLES
from flows.ingest_report import RowCounts
from flows.sources.base import Answer

if TYPE_CHECKING:
    from lake.store import Lake

__all__ = ["bring_gaps_up_to_date", "quarantine_unread", "record_runs"]


def quarantine_unread(lake: Lake, answer: Answer, recorded_at: datetime) -> None:
    """Keep the rows that the source itself could not read or place. A row's id is its content: refused again, it is the same."""
    rows: dict[str, dict[str, Any]] = {}
    for row in answer.refused:
        raw = canonical_json(dict(row.raw))
        row_id = digest({"table": answer.dataset, "rule": row.rule, "origin": answer.origin, "row": raw})
        rows[row_id] = {
            "row_id": row_id,
            "state": "held",
            "refused_at": recorded_at,
            "table_name": answer.dataset,
            "symbol": row.symbol,
            "rule": row.rule,
            "reason": row.reason,
            "raw": raw,
        }
    if rows:
        lake.write("quarantine", _table("quarantine", list(rows.values()), recorded_at, answer.ingest_id), recorded_at=recorded_at)


def record_runs(lake: Lake, stored: Sequence[tuple[Answer, RowCounts]], started_at: datetime) -> None:
    """One row an answer in `ingest_runs`: what was asked, what came, what became of it."""
    rows: dict[str, dict[str, Any]] = {}
    for answer, counts in stored:
        run_id = short(digest({"ingest_id": answer.ingest_id, "started_at": started_at}))
        changed = counts.new or counts.revised
        rows[run_id] = {
            "run_id": run_id,
            "started_at": started_at,
            "source": answer.source,
            "dataset": answer.dataset,
            "request": canonical_json(dict(answer.request)),
            "origin": answer.origin,
            "response_sha256": answer.response_sha256,
            "response_bytes": len(answer.payload),
            **{f"rows_{name}": number for name, number in counts.as_dict().items()},
            "outcome": "completed with refusals" if counts.refused else "completed" if changed else "unchanged",
            "message": "; ".join(answer.notes) or None,
            "ingest_id": answer.ingest_id,
        }
    if rows:
        lake.write("ingest_runs", _table("ingest_runs", list(rows.values()), started_at), recorded_at=started_at)


def bring_gaps_up_to_date(lake: Lake, answers: Sequence[Answer], recorded_at: datetime, calendar: str) -> int:
    """Compare the daily bars of the symbols in `answers` with the calendar; return how many sessions are missing now."""
    from lake.gaps import record_gaps

    bars = [answer for answer in answers if answer.dataset == "equity_bars"]
    symbols = sorted({symbol for answer in bars for symbol in answer.rows.column("symbol").unique().to_pylist()})
    if not symbols:
        return 0
    record_gaps(lake, calendar=calendar, recorded_at=recorded_at, ingest_id=bars[-1].ingest_id, symbols=symbols)
    where = {"dataset": "equity_bars", "state": "missing", "symbol": symbols}
    return int(lake.read_latest("gaps", where=where, columns=["session"]).num_rows)


def _table(name: str, rows: list[dict[str, Any]], available_at: datetime, ingest_id: str | None = None) -> pa.Table:
    schema = pa.schema([field for field in TABLES[name].schema if field.name != "recorded_at"])
    shared = {"available_at": available_at, **({} if ingest_id is None else {"ingest_id": ingest_id})}
    return pa.Table.from_pylist([{**row, **shared} for row in rows], schema=schema)
