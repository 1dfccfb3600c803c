"""Keep refused rows as they came, with the rule that refused them, and put them into their table when somebody says so.

1. `quarantine` stores refused rows; the same row refused again is stored once, and one that was released stays released.
2. `find` lists them; `plan` says what the release of each would do, or why it cannot be put into its table.
3. `release` writes the rows as they came, then records in quarantine by whom, when and why (`Release`).
4. `readmit` lets a released row through when a later answer brings it again.

Killed between the two writes of 3, the row is stored and still held; releasing it again finds it stored and records the release.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from config.errors import InputError, UnknownNameError
from config.hashing import canonical_json, digest
from config.locks import exclusive
from config.tables import TABLES, TableSpec
from lake.quality import Split
from lake.store import Lake
from lake.writer import WriteResult

__all__ = ["Release", "find", "plan", "quarantine", "readmit", "release"]

_SUBJECTS = ("symbol", "occ_symbol", "series", "market_code")
_LOCK_WAIT_SECONDS = 60.0
_TARGET = TABLES["quarantine"]
_SCHEMA = pa.schema([field for field in _TARGET.schema if field.name != "recorded_at"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """What releasing one row of quarantine does.

    Parameters
    ----------
    held : dict
        The row of the table `quarantine`.
    effect : {"new", "revises", "already stored", "cannot"}
        A new key; another value of a stored key, known from the release on; nothing, since it is stored; or it cannot be put in.
    why : str or None
        Why it cannot.
    row : dict or None
        The row as its table takes it.
    """

    held: dict[str, Any]
    effect: Literal["new", "revises", "already stored", "cannot"]
    why: str | None = None
    row: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        shown = {name: self.held[name] for name in ("row_id", "table_name", "symbol", "rule", "reason", "state")}
        return {**shown, "effect": self.effect, "why": self.why}


def quarantine(lake: Lake, spec: TableSpec, refused: pa.Table, *, recorded_at: datetime) -> WriteResult:
    """Store refused rows in the table `quarantine`.

    Parameters
    ----------
    lake : Lake
    spec : TableSpec
        The table they were meant for.
    refused : pyarrow.Table
        The second part of `lake.quality.split`: the rows, `rule` and `reason`.
    recorded_at : datetime
        The moment of the refusal, aware.

    Returns
    -------
    WriteResult
        `new` counts rows never refused by that rule before.

    Raises
    ------
    StorageError
        As `Lake.write`.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in refused.to_pylist():
        rule, reason, ingest_id = one.pop("rule"), one.pop("reason"), one.pop("ingest_id")
        raw = {name: _plain(value) for name, value in one.items()}
        row_id = digest({"table": spec.name, "rule": rule, "row": _facts(raw)})
        rows.setdefault(
            row_id,
            {
                "row_id": row_id,
                "state": "held",
                "refused_at": recorded_at,
                "table_name": spec.name,
                "symbol": next((raw[name] for name in _SUBJECTS if raw.get(name) is not None), None),
                "rule": rule,
                "reason": reason,
                "raw": canonical_json(raw),
                "available_at": recorded_at,
                "ingest_id": ingest_id or "unknown",
            },
        )
    with _alone(lake):
        let_go = lake.read_latest("quarantine", where={"row_id": list(rows), "state": "released"}, columns=["row_id"])
        for row_id in let_go["row_id"].to_pylist():
            del rows[row_id]
        return lake.write(_TARGET, pa.Table.from_pylist(list(rows.values()), schema=_SCHEMA), recorded_at=recorded_at)


def readmit(lake: Lake, spec: TableSpec, parts: Split) -> Split:
    """Move refused rows that were released before, whatever rule they break now, to the accepted ones.

    Of several with one key the one released last is let through; none is where an accepted row has its key.
    """
    if not parts.refused.num_rows:
        return parts
    released = lake.read_latest("quarantine", where={"table_name": spec.name, "state": "released"}, columns=["raw", "released_at"])
    if not released.num_rows:
        return parts
    when = {digest(_facts(json.loads(row["raw"]))): row["released_at"] for row in released.to_pylist()}
    rows = parts.refused.drop(["rule", "reason"]).to_pylist()
    known = [digest(_facts({k: _plain(v) for k, v in row.items() if k != "ingest_id"})) for row in rows]
    taken = (
        {_key(spec, row) for row in parts.accepted.select(list(spec.key)).to_pylist()}
        if any(one in when for one in known)
        else set()
    )
    let_through: dict[tuple[Any, ...], int] = {}
    for number, (row, its) in enumerate(zip(rows, known, strict=True)):
        key = _key(spec, row)
        if its in when and key not in taken and (key not in let_through or when[known[let_through[key]]] < when[its]):
            let_through[key] = number
    if not let_through:
        return parts
    chosen = set(let_through.values())
    back = parts.refused.take(pa.array(sorted(chosen))).select(parts.accepted.column_names)
    left = parts.refused.take(pa.array([n for n in range(len(rows)) if n not in chosen], pa.int64()))
    return Split(pa.concat_tables([parts.accepted, back]), left, parts.flagged)


def find(
    lake: Lake,
    row_ids: Sequence[str] = (),
    *,
    table: str | None = None,
    symbol: str | None = None,
    rule: str | None = None,
    state: str | None = "held",
) -> list[dict[str, Any]]:
    """Rows of quarantine: those with these ids (unambiguous beginnings will do), or all that fit the filters, newest first.

    Raises
    ------
    UnknownNameError
        No row has such an id.
    InputError
        Several rows begin with it.
    """
    where = {"table_name": table, "symbol": symbol, "rule": rule, "state": state}
    rows = lake.read_latest("quarantine", where={name: value for name, value in where.items() if value is not None}).to_pylist()
    if row_ids:
        rows = [_one(rows, row_id) for row_id in dict.fromkeys(row_ids)]
    return sorted(rows, key=lambda row: (row["refused_at"], row["row_id"]), reverse=True)


def _one(rows: Sequence[dict[str, Any]], row_id: str) -> dict[str, Any]:
    near = [row for row in rows if row["row_id"].startswith(row_id)]
    if len(near) == 1:
        return near[0]
    if near:
        raise InputError(f"{len(near)} rows of quarantine begin with {row_id!r}", remedy="give more digits")
    raise UnknownNameError(f"no held row of quarantine is called {row_id!r}", remedy="quant data quarantine lists them")


def plan(lake: Lake, rows: Iterable[dict[str, Any]]) -> list[Release]:
    """Say what releasing each of these rows of quarantine would do; nothing is written."""
    planned = [_read_back(row) for row in rows]
    for name in {one.held["table_name"] for one in planned if one.row is not None}:
        spec = TABLES[name]
        mine = [n for n, one in enumerate(planned) if one.row is not None and one.held["table_name"] == name]
        stored = _stored(lake, spec, [planned[n].row or {} for n in mine])
        seen: set[tuple[Any, ...]] = set()
        for n in mine:
            row = planned[n].row or {}
            key = _key(spec, row)
            old = stored.get(key)
            if key in seen:
                planned[n] = replace(planned[n], effect="cannot", row=None, why="another row of this release has the same key")
            elif old is not None:
                same = all(old[column] == row[column] for column in spec.values)
                planned[n] = replace(planned[n], effect="already stored" if same else "revises")
            seen.add(key)
    return planned


def _stored(lake: Lake, spec: TableSpec, rows: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The stored rows with the keys of these."""
    where = {column: sorted({row[column] for row in rows}) for column in spec.key if column != spec.event_time}
    span = [row[spec.event_time] for row in rows]
    bounds = {"start": min(span), "end": max(span)} if isinstance(span[0], datetime) or "session" not in spec.schema.names else {}
    found = lake.read_latest(spec.name, where=where, columns=[*spec.key, *spec.values], **bounds)
    wanted = {_key(spec, row) for row in rows}
    return {_key(spec, row): row for row in found.to_pylist() if _key(spec, row) in wanted}


def _read_back(held: dict[str, Any]) -> Release:
    """The raw row as its table takes it, or why it cannot be one."""

    def cannot(why: str) -> Release:
        return Release(held=held, effect="cannot", why=why)

    if held["state"] == "released":
        return cannot(f"it was released at {held['released_at']} by {held['released_by']}")
    spec = TABLES.get(held["table_name"])
    if spec is None:
        return cannot(f"there is no table {held['table_name']}")
    raw = json.loads(held["raw"])
    row: dict[str, Any] = {"ingest_id": held["ingest_id"]}
    lacking = [field.name for field in spec.schema if field.name not in raw and field.name not in ("recorded_at", "ingest_id")]
    if lacking:
        return cannot(
            f"it never became a row of {spec.name} (no {', '.join(lacking[:4])}): correct it at its source and ingest again"
        )
    for field in spec.schema:
        if field.name in ("recorded_at", "ingest_id"):
            continue
        value = raw[field.name]
        if value is None and (field.name in spec.key or not field.nullable):
            return cannot(f"{field.name} is missing, and every row of {spec.name} has one")
        try:
            row[field.name] = None if value is None else _typed(value, field.type)
        except (ValueError, TypeError):
            return cannot(f"{field.name} is {value!r}, which is no {field.type}")
    return Release(held=held, effect="new", row=row)


def release(
    lake: Lake, planned: Sequence[Release], *, by: str, reason: str, recorded_at: datetime
) -> tuple[dict[str, WriteResult], int]:
    """Write the rows into their tables and record their release; those that cannot be put in stay held.

    Parameters
    ----------
    planned : sequence of Release
        As `plan` gave them.
    by, reason : str
        Who, and why.
    recorded_at : datetime
        The moment of the release, aware. A row of a new key keeps the `available_at` it came with; one that revises a stored
        value counts as known from now on.

    Returns
    -------
    written : dict of str to WriteResult
        By table.
    released : int
        How many rows are released now.

    Raises
    ------
    InputError
        No name or no reason.
    """
    if not by.strip() or not reason.strip():
        raise InputError("a release says by whom and why", remedy='pass --reason "…"')
    chosen = [one for one in planned if one.row is not None]
    written: dict[str, WriteResult] = {}
    with _alone(lake):
        for name in sorted({one.held["table_name"] for one in chosen}):
            spec = TABLES[name]
            schema = pa.schema([field for field in spec.schema if field.name != "recorded_at"])
            rows = [one.row for one in chosen if one.held["table_name"] == name]
            written[name] = lake.write(spec, pa.Table.from_pylist(rows, schema=schema), recorded_at=recorded_at)
        marks = [
            {**one.held, "state": "released", "released_at": recorded_at, "released_by": by, "release_reason": reason}
            for one in chosen
        ]
        lake.write(_TARGET, pa.Table.from_pylist(marks, schema=_SCHEMA), recorded_at=recorded_at)
    return written, len(chosen)


@contextmanager
def _alone(lake: Lake) -> Iterator[None]:
    """Between looking which rows are released and writing, no other process of this machine releases or holds one."""
    if isinstance(lake.root, Path):
        with exclusive(lake.root / "snapshots" / ".quarantine.lock", "a change of quarantine", wait_seconds=_LOCK_WAIT_SECONDS):
            yield
    else:
        yield


def _facts(raw: dict[str, Any]) -> dict[str, Any]:
    """What makes the row this row: the clocks are left out, since the same bad row in a later answer is the same bad row."""
    return {name: value for name, value in json.loads(canonical_json(raw)).items() if name != "available_at"}


def _key(spec: TableSpec, row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in spec.key)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity; they are kept as words."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _typed(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return moment
    if pa.types.is_date(kind):
        return date.fromisoformat(value)
    if pa.types.is_floating(kind):
        if isinstance(value, str | bool) or not math.isfinite(value):
            raise ValueError("no number")
        return float(value)
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
