"""Write a batch into a table: one path for every writer, safe when several write at once.

1. `conform` (lake.batch) checks the batch against the table's specification.
2. `_merge` lets DuckDB compare it with the newest version of each key: new, revised or unchanged.
3. `_commit` adds the rows, in files as `lake.layout` says, as the child of exactly the version that was compared with, or not
   at all.
4. When another writer was quicker, `write_rows` starts again from 2 on what is stored now, after a short random wait.
5. `sync_commit` (lake.delta) forces the commit to the disk; only then is the caller told.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from config.clock import require_utc
from config.errors import InputError, LockHeldError
from config.tables import TableSpec
from lake.batch import conform
from lake.chain import add, rows_digest
from lake.delta import (
    BATCH,
    CHAIN,
    PHYSICAL,
    REVISED,
    ROWS,
    TableVersion,
    create_table,
    open_table,
    sync_commit,
    version_state,
)
from lake.failures import storage_errors
from lake.held import SINCE, columns_to_add, stored_since, widened
from lake.layout import commit
from lake.order import ascending, key_numbers
from lake.parts import Part, between, list_parts
from lake.place import Place, data_file
from lake.query import connect, literal, names, newest, quoted, scan

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["WriteResult", "write_rows"]

_DIGESTED_ROWS = 122_880
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.02, 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteResult:
    """What became of a batch.

    Parameters
    ----------
    table : str
    new, revised, unchanged : int
        Rows whose key was not stored, was stored with other values, was stored with equal values.
    version : int or None
        The table's Delta version that holds them; None when the table has never been written.
    attempts : int
        How often the write was tried; more than 1 when other writers were quicker.
    changed : pyarrow.Table or None
        The key, `ingest_id` and `revision` (0: new) of each row that was stored, in key order; None when none was.
    """

    table: str
    new: int = 0
    revised: int = 0
    unchanged: int = 0
    version: int | None = None
    attempts: int = 1
    changed: pa.Table | None = field(default=None, repr=False, compare=False)


def write_rows(path: Place, spec: TableSpec, rows: pa.Table, *, recorded_at: datetime, attempts: int) -> WriteResult:
    """Write a batch into the table in folder `path`; see `lake.store.Lake.write`."""
    from deltalake.exceptions import CommitFailedError

    try:
        recorded_at = require_utc(recorded_at, "recorded_at")
    except ValueError as problem:
        raise InputError(str(problem)) from None
    batch = conform(rows, spec)
    if batch.num_rows == 0:
        table = open_table(path)
        return WriteResult(table=spec.name, version=None if table is None else table.version())
    chance = random.Random()
    for attempt in range(1, attempts + 1):
        with storage_errors(f"write the table {spec.name}", path):
            table = open_table(path)
            state = None if table is None else version_state(path, table)
            try:
                if table is not None and (new_columns := columns_to_add(spec, table)):
                    table = _widen(path, table, new_columns)
                    state = version_state(path, table)
                parts = [] if table is None else list_parts(spec, table)
                merged = _merge(path, spec, batch, table, state, parts, recorded_at)
                revised = merged.filter(pc.greater(merged["revision"], 0)).num_rows
                counts = {"new": merged.num_rows - revised, "revised": revised, "unchanged": batch.num_rows - merged.num_rows}
                if merged.num_rows == 0 and state is not None:
                    return WriteResult(table=spec.name, **counts, version=state.version, attempts=attempt)
                version = _commit(path, spec, merged, table, state, parts, revised, recorded_at)
            except CommitFailedError as problem:
                _retry_or_raise(path, spec, state, problem)
                time.sleep(chance.uniform(0, min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt)))
                continue
            sync_commit(path, version)
        changed = merged.select([*spec.key, "ingest_id", "revision"])
        return WriteResult(table=spec.name, **counts, version=version, attempts=attempt, changed=changed)
    raise LockHeldError(
        f"other writers of the table {spec.name} in {path} were quicker in each of {attempts} attempts; nothing was written",
        remedy="run the same command again, or raise lake.write_attempts",
    )


def _retry_or_raise(path: Place, spec: TableSpec, state: TableVersion | None, problem: Exception) -> None:
    """A refused commit is a lost race only if the table has moved on; otherwise the storage refused it."""
    now = open_table(path)
    if now is None or now.version() == (0 if state is None else state.version):
        raise OSError(f"the commit was refused: {problem}") from problem


def _merge(
    path: Place,
    spec: TableSpec,
    batch: pa.Table,
    table: DeltaTable | None,
    state: TableVersion | None,
    parts: Sequence[Part],
    recorded_at: datetime,
) -> pa.Table:
    """The rows of the batch that are to be stored, with their clocks, revision and partition, in key order."""
    parts = _overlapping(spec, batch, parts)
    version = 1 if table is None else table.version() + 1
    if not parts or state is None:
        return _all_new(spec, batch, recorded_at, version)
    stored = _stored(path, spec, batch, parts, state, later=table is not None and bool(stored_since(table)))
    changed = " OR ".join(f"b.{quoted(column)} IS DISTINCT FROM s.{quoted(column)}" for column in spec.values) or "false"
    # The old value was the known one until now; and no version of a fact becomes available before the one it replaces. A vintage
    # that its source named keeps its clock; one that was assumed (a publication lag over one file) does not.
    later = f"greatest(b.available_at, {literal(recorded_at)}, s.available_at)"
    dated = "b.vintage_kind = 'published'" if "vintage_kind" in spec.schema.names else "true"
    own_clock = f"s.revision IS NULL OR {dated}" if spec.quotes_vintages else "s.revision IS NULL"
    available = f"CASE WHEN {own_clock} THEN b.available_at ELSE {later} END"
    columns = [f"b.{quoted(field.name)}" for field in spec.columns]
    clocks = [f"{available} AS available_at", f"{literal(recorded_at)} AS recorded_at", "b.ingest_id"]
    physical = ["coalesce(s.revision + 1, 0)::INTEGER AS revision", f"{version}::BIGINT AS written_in"]
    partitions = [f"{expression} AS {quoted(column)}" for column, expression in spec.partition_by]
    same = " AND ".join(f"b.{quoted(column)} = s.{quoted(column)}" for column in spec.key)
    query = (
        f"WITH kept AS (SELECT {', '.join(columns + clocks + physical)} FROM batch b LEFT JOIN ({stored}) s ON {same} "
        f"WHERE s.revision IS NULL OR {changed}) SELECT {', '.join(['*', *partitions])} FROM kept"
    )
    with connect() as con:
        con.register("batch", batch)
        merged = con.sql(query).to_arrow_table()
    merged = merged.cast(_physical_schema(spec, merged.schema))
    order = ascending(key_numbers(merged, spec.key))
    return merged if order is None else merged.take(order)


def _all_new(spec: TableSpec, batch: pa.Table, recorded_at: datetime, version: int) -> pa.Table:
    """The batch as it is stored where none of its keys can be stored yet: no comparison, and no copy of its columns."""
    rows = batch.num_rows
    added = {
        "recorded_at": pa.repeat(pa.scalar(recorded_at, spec.schema.field("recorded_at").type), rows),
        PHYSICAL[0].name: pa.repeat(pa.scalar(0, PHYSICAL[0].type), rows),
        PHYSICAL[1].name: pa.repeat(pa.scalar(version, PHYSICAL[1].type), rows),
    }
    schema = pa.schema([*spec.schema, *PHYSICAL])
    whole = pa.table([added[field.name] if field.name in added else batch.column(field.name) for field in schema], schema=schema)
    if spec.partition_by:
        expressions = ", ".join(f"{expression} AS {quoted(column)}" for column, expression in spec.partition_by)
        with connect() as con:
            con.register("batch", batch)
            found = con.sql(f"SELECT {expressions} FROM batch").to_arrow_table()
        for column, _ in spec.partition_by:
            whole = whole.append_column(column, found[column])
    return whole.cast(_physical_schema(spec, whole.schema))


def _overlapping(spec: TableSpec, batch: pa.Table, parts: Sequence[Part]) -> Sequence[Part]:
    """The stored files that may hold a key of the batch: a key lies at one event time, where that is part of it."""
    if spec.event_time not in spec.key:
        return parts
    span = pc.min_max(batch[spec.event_time]).as_py()
    return between(parts, spec.event_time, span["min"], span["max"])


def _stored(path: Place, spec: TableSpec, batch: pa.Table, parts: Sequence[Part], state: TableVersion, *, later: bool) -> str:
    """A query for the newest stored version of each key of the batch; `later`: some columns came later than some files."""
    columns = names((*spec.key, *spec.values, "available_at", "revision"))
    range_of_batch = ""
    if spec.event_time in spec.key:  # row groups outside the batch's range are skipped too
        span = pc.min_max(batch[spec.event_time]).as_py()
        column = quoted(spec.event_time)
        range_of_batch = f" WHERE {column} BETWEEN {literal(span['min'])} AND {literal(span['max'])}"
    files = scan([data_file(path, part.name) for part in parts], differ=later)
    source = f"(SELECT {columns} FROM {widened(spec, files, later)}{range_of_batch})"
    same = " AND ".join(f"n.{quoted(column)} = batch.{quoted(column)}" for column in spec.key)
    return f"SELECT n.* FROM ({newest(spec, source, revised=state.revised > 0)}) n SEMI JOIN batch ON {same}"


def _physical_schema(spec: TableSpec, merged: pa.Schema) -> pa.Schema:
    partitions = [pa.field(column, merged.field(column).type) for column, _ in spec.partition_by]
    return pa.schema([*spec.schema, *PHYSICAL, *partitions])


def _commit(
    path: Place,
    spec: TableSpec,
    merged: pa.Table,
    table: DeltaTable | None,
    state: TableVersion | None,
    parts: Sequence[Part],
    revised: int,
    recorded_at: datetime,
) -> int:
    """Add the rows as the next version of what they were compared with; return that version.

    With no commit retries delta-rs refuses as soon as anything was committed in between, whatever it touched. So a commit's
    chain and revisions always continue its true predecessor, and equal keys cannot be added twice.

    Raises
    ------
    CommitFailedError
        Another writer was quicker; nothing was written.
    """
    from deltalake.exceptions import CommitFailedError

    if table is None or state is None:
        table = create_table(path, spec, merged.schema)
        state = version_state(path, table)
        if state.version != 0:
            raise CommitFailedError("another process has created and filled the table")
    digest = rows_digest(merged.to_batches(_DIGESTED_ROWS), pa.schema([*spec.schema, PHYSICAL[0]]), without=("recorded_at",))
    said = {
        CHAIN: add(state.chain, digest),
        BATCH: digest,
        ROWS: str(state.rows + merged.num_rows),
        REVISED: str(state.revised + revised),
    }
    commit(path, spec, table, parts, merged, said=said, at=recorded_at)
    return state.version + 1


def _widen(path: Place, table: DeltaTable, columns: Sequence[pa.Field]) -> DeltaTable:
    """Give the stored table new nullable columns, in a commit of its own; rows stored before have NULL there.

    Each column says since which version it exists, so that earlier rows are still verified by the columns they were written with.
    Concurrent writers of the old columns lose the race, open the table again, and are told that it has changed.
    """
    from deltalake import CommitProperties, Field

    version = table.version() + 1
    since = {SINCE: str(version)}
    added = [Field.from_arrow(column.with_metadata(since)) for column in columns]
    table.alter.add_columns(added, commit_properties=CommitProperties(max_commit_retries=0))
    sync_commit(path, version)
    wider = open_table(path)
    assert wider is not None
    return wider
