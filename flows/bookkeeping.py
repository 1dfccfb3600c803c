"""What an ingest writes beside the data: refused and flagged rows, what was asked and what came, gaps against the calendars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from config.hashing import canonical_json, digest, short
from config.tables import TABLES
from flows.ingest_report import RowCounts
from flows.sources.base import Answer

if TYPE_CHECKING:
    from config.tables import TableSpec
    from lake.quality import Split
    from lake.store import Lake

__all__ = ["STARTED", "AnswerRun", "check_gaps", "flag_stored", "mark_interrupted", "open_gaps", "quarantine_unread", "record_runs"]

STARTED = "started"
"""`ingest_runs.outcome` of an answer whose rows are being written; of a run that was killed it stays, until the next one
finds it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerRun:
    """One row of `ingest_runs`: what was asked, what came, what became of it. It holds no payload and no rows.

    Parameters
    ----------
    counts : RowCounts or None
        None while the rows are being written.
    """

    ingest_id: str
    source: str
    dataset: str
    request: str
    origin: str
    response_sha256: str
    response_bytes: int
    notes: tuple[str, ...]
    counts: RowCounts | None = None

    @classmethod
    def of(cls, answer: Answer) -> AnswerRun:
        """Of an answer whose rows are about to be written."""
        return cls(
            ingest_id=answer.ingest_id,
            source=answer.source,
            dataset=answer.dataset,
            request=canonical_json(dict(answer.request)),
            origin=answer.origin,
            response_sha256=answer.response_sha256,
            response_bytes=len(answer.payload),
            notes=answer.notes,
        )

    def done(self, counts: RowCounts, *notes: str) -> AnswerRun:
        """The same, with what became of its rows."""
        return replace(self, counts=counts, notes=(*self.notes, *notes))

    @property
    def outcome(self) -> str:
        """In a word or three."""
        if self.counts is None:
            return STARTED
        changed = self.counts.new or self.counts.revised
        return "completed with refusals" if self.counts.refused else "completed" if changed else "unchanged"

    def row(self, started_at: datetime) -> dict[str, Any]:
        """As stored."""
        return {
            "run_id": short(digest({"ingest_id": self.ingest_id, "started_at": started_at})),
            "started_at": started_at,
            "source": self.source,
            "dataset": self.dataset,
            "request": self.request,
            "origin": self.origin,
            "response_sha256": self.response_sha256,
            "response_bytes": self.response_bytes,
            **{f"rows_{name}": number for name, number in (self.counts or RowCounts()).as_dict().items()},
            "outcome": self.outcome,
            "message": "; ".join(self.notes) or None,
            "ingest_id": self.ingest_id,
        }


def record_runs(lake: Lake, runs: Iterable[AnswerRun], started_at: datetime) -> None:
    """One row an answer in `ingest_runs`; of several about one answer the last counts."""
    rows = {row["run_id"]: row for row in (run.row(started_at) for run in runs)}
    if rows:
        lake.write("ingest_runs", _table("ingest_runs", list(rows.values()), started_at), recorded_at=started_at)


def mark_interrupted(lake: Lake, dataset_table: str, recorded_at: datetime) -> int:
    """Find answers whose writing was cut off by a kill, check their symbols' gaps again, and call them interrupted.

    Returns
    -------
    int
        How many there were. Their rows are in the lake whole or not at all; what lacks is asked again as if never asked.
    """
    columns = [field.name for field in TABLES["ingest_runs"].schema if field.name != "recorded_at"]
    tables = [dataset_table, *(["corporate_actions"] if dataset_table == "equity_bars" else [])]
    cut = lake.read_latest("ingest_runs", where={"outcome": STARTED, "dataset": tables}, columns=columns)
    if not cut.num_rows:
        return 0
    ids = cut["ingest_id"].to_pylist()
    if dataset_table == "equity_bars":
        stored = lake.read_latest(dataset_table, where={"ingest_id": ids}, columns=["symbol", "source", "interval"])
        for group in stored.group_by(["source", "interval"]).aggregate([("symbol", "distinct")]).to_pylist():
            check_gaps(lake, group["symbol_distinct"], recorded_at, ids[-1], source=group["source"], interval=group["interval"])
    said = pa.array(["interrupted"] * cut.num_rows, pa.string())
    place = cut.schema.get_field_index("outcome")
    lake.write("ingest_runs", cut.set_column(place, cut.schema.field(place), said), recorded_at=recorded_at)
    return int(cut.num_rows)


def quarantine_unread(lake: Lake, answers: Iterable[Answer], recorded_at: datetime) -> None:
    """Keep the rows that a source itself could not read or place. A row's id is its content: refused again, it is the same."""
    rows: dict[str, dict[str, Any]] = {}
    for answer in answers:
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
                "ingest_id": answer.ingest_id,
            }
    if not rows:
        return
    released = lake.read_latest("quarantine", where={"row_id": list(rows), "state": "released"}, columns=["row_id"])
    for row_id in released["row_id"].to_pylist():  # somebody has looked at it and decided: it is not held again
        del rows[row_id]
    if rows:
        lake.write("quarantine", _table("quarantine", list(rows.values()), recorded_at), recorded_at=recorded_at)


def flag_stored(lake: Lake, spec: TableSpec, parts: Split, recorded_at: datetime) -> None:
    """Name the accepted rows that break a rule of lesser severity, by themselves or among the rows that came with them.

    Corporate actions that are stored by now explain a step of the price. It is done before the rows are written: killed in
    between, the next run brings the same rows and finds the same flags.
    """
    from lake.flags import flag
    from lake.quality import series_flags

    actions = None
    if spec.name == "equity_bars" and parts.accepted.num_rows:
        symbols = parts.accepted["symbol"].unique().to_pylist()
        actions = lake.read_latest("corporate_actions", where={"symbol": symbols})
    lesser, key = parts.flagged, list(spec.key)
    if lesser.num_rows and parts.refused.num_rows:  # what was set apart since for another reason is not stored
        lesser = lesser.join(parts.accepted.select(key), key, join_type="left semi").select(lesser.column_names)
    found = [lesser, series_flags(parts.accepted, spec, actions=actions)]
    flagged = pa.concat_tables([one for one in found if one.num_rows] or found[:1])
    if flagged.num_rows:
        flag(lake, spec, flagged, recorded_at=recorded_at)


def check_gaps(
    lake: Lake,
    symbols: Sequence[str],
    recorded_at: datetime,
    ingest_id: str,
    *,
    source: str,
    interval: str = "1d",
    start: date | None = None,
    calendar: str | None = None,
) -> int:
    """Compare the bars of `symbols` from `source` with their calendars from `start` on; return how many gaps were filled."""
    from lake.gaps import update_gaps

    found = update_gaps(
        lake,
        calendar=calendar,
        recorded_at=recorded_at,
        ingest_id=ingest_id,
        interval=interval,
        symbols=symbols,
        source=source,
        start=start,
    )
    return found.filled


def open_gaps(lake: Lake, symbols: Sequence[str], interval: str = "1d") -> int:
    """How many sessions of `symbols` are missing now."""
    from lake.gaps import MISSING, gap_dataset

    where = {"dataset": gap_dataset(interval), "state": MISSING, "symbol": list(symbols)}
    return int(lake.read_latest("gaps", where=where, columns=["session"]).num_rows) if symbols else 0


def _table(name: str, rows: list[dict[str, Any]], available_at: datetime) -> pa.Table:
    schema = pa.schema([field for field in TABLES[name].schema if field.name != "recorded_at"])
    return pa.Table.from_pylist([{"available_at": available_at, **row} for row in rows], schema=schema)
