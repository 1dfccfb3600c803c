"""Write a batch into a table: one path for every writer, safe when several write at once.

1. `conform` (lake.batch) checks the batch against the table's specification.
2. `_merge` lets DuckDB compare it with the newest version of each key: new, revised or unchanged.
3. `_commit` adds the rows as the child of exactly the version that was compared with, or not at all.
4. When another writer was quicker, `write_rows` starts again from 2 on what is stored now, after a short random wait.
5. `sync_commit` (lake.delta) forces the commit to the disk; only then is the caller told.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from config.clock import require_utc
from config.errors import InputError, LockHeldError, SchemaError
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
    data_files,
    open_table,
    sync_commit,
    version_state,
)
from lake.failures import storage_errors
from lake.place import Place, data_file
from lake.query import connect, literal, names, newest, quoted, scan

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["WriteResult", "write_rows"]

# A write adds a file to each partition it touches; at this many it rewrites those partitions, old rows and new, as one file each.
FILES_PER_PARTITION = 8
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
            state = None
            if table is not None:
                _check_same_columns(spec, table)
                state = version_state(path, table)
            merged = _merge(path, spec, batch, table, state, recorded_at)
            revised = merged.filter(pc.greater(merged["revision"], 0)).num_rows
            counts = {"new": merged.num_rows - revised, "revised": revised, "unchanged": batch.num_rows - merged.num_rows}
            if merged.num_rows == 0 and state is not None:
                return WriteResult(table=spec.name, **counts, version=state.version, attempts=attempt)
            try:
                version = _commit(path, spec, merged, table, state, revised)
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
    path: Place, spec: TableSpec, batch: pa.Table, table: DeltaTable | None, state: TableVersion | None, recorded_at: datetime
) -> pa.Table:
    """The rows of the batch that are to be stored, with their clocks, revision and partition, in key order."""
    con = connect()
    con.register("batch", batch)
    stored = _stored(con, path, spec, batch, table, state)
    changed = " OR ".join(f"b.{quoted(column)} IS DISTINCT FROM s.{quoted(column)}" for column in spec.values) or "false"
    available = "b.available_at"
    if not spec.quotes_vintages:
        # The old value was the known one until now; and no version of a fact becomes available before the one it replaces.
        later = f"greatest(b.available_at, {literal(recorded_at)}, s.available_at)"
        available = f"CASE WHEN s.revision IS NULL THEN b.available_at ELSE {later} END"
    columns = [f"b.{quoted(field.name)}" for field in spec.columns]
    clocks = [f"{available} AS available_at", f"{literal(recorded_at)} AS recorded_at", "b.ingest_id"]
    physical = [
        "coalesce(s.revision + 1, 0)::INTEGER AS revision",
        f"{1 if table is None else table.version() + 1}::BIGINT AS written_in",
    ]
    partitions = [f"{expression} AS {quoted(column)}" for column, expression in spec.partition_by]
    same = " AND ".join(f"b.{quoted(column)} = s.{quoted(column)}" for column in spec.key)
    merged = con.sql(
        f"WITH kept AS (SELECT {', '.join(columns + clocks + physical)} FROM batch b LEFT JOIN ({stored}) s ON {same} "
        f"WHERE s.revision IS NULL OR {changed}) "
        f"SELECT {', '.join(['*', *partitions])} FROM kept ORDER BY {names(spec.key)}"
    ).to_arrow_table()
    return merged.cast(_physical_schema(spec, merged.schema))


def _stored(con: Any, path: Place, spec: TableSpec, batch: pa.Table, table: DeltaTable | None, state: TableVersion | None) -> str:
    """A query for the newest stored version of each key of the batch."""
    files = [] if table is None else data_files(path, table)
    if not files or state is None:
        con.register("nothing", _empty(spec))
        return "SELECT * FROM nothing"
    columns = names((*spec.key, *spec.values, "available_at", "revision"))
    range_of_batch = ""
    if spec.event_time in spec.key:  # a key lies at one event time, so files and row groups outside the batch's are skipped
        span = pc.min_max(batch[spec.event_time]).as_py()
        column = quoted(spec.event_time)
        range_of_batch = f" WHERE {column} BETWEEN {literal(span['min'])} AND {literal(span['max'])}"
    source = f"(SELECT {columns} FROM {scan(files)}{range_of_batch})"
    same = " AND ".join(f"n.{quoted(column)} = batch.{quoted(column)}" for column in spec.key)
    return f"SELECT n.* FROM ({newest(spec, source, revised=state.revised > 0)}) n SEMI JOIN batch ON {same}"


def _empty(spec: TableSpec) -> pa.Table:
    return pa.schema([*spec.schema, *PHYSICAL]).empty_table()


def _physical_schema(spec: TableSpec, merged: pa.Schema) -> pa.Schema:
    partitions = [pa.field(column, merged.field(column).type) for column, _ in spec.partition_by]
    return pa.schema([*spec.schema, *PHYSICAL, *partitions])


def _commit(
    path: Place, spec: TableSpec, merged: pa.Table, table: DeltaTable | None, state: TableVersion | None, revised: int
) -> int:
    """Add the rows as the next version of what they were compared with; return that version.

    With no commit retries delta-rs refuses as soon as anything was committed in between, whatever it touched. So a commit's
    chain and revisions always continue its true predecessor, and equal keys cannot be added twice.

    Raises
    ------
    CommitFailedError
        Another writer was quicker; nothing was written.
    """
    from deltalake import CommitProperties, WriterProperties, write_deltalake
    from deltalake.exceptions import CommitFailedError

    if table is None or state is None:
        table = create_table(path, spec, merged.schema)
        state = version_state(path, table)
        if state.version != 0:
            raise CommitFailedError("another process has created and filled the table")
    digest = rows_digest(merged.to_batches(), pa.schema([*spec.schema, PHYSICAL[0]]), without=("recorded_at",))
    said = {
        CHAIN: add(state.chain, digest),
        BATCH: digest,
        ROWS: str(state.rows + merged.num_rows),
        REVISED: str(state.revised + revised),
    }
    full = _full_partitions(path, spec, table, merged)
    write_deltalake(
        table,
        merged if full is None else _with_stored(spec, merged, full),
        mode="append" if full is None else "overwrite",
        predicate=None if full is None else _predicate(spec, merged),
        commit_properties=CommitProperties(custom_metadata=said, max_commit_retries=0),
        writer_properties=WriterProperties(compression="ZSTD"),
    )
    return state.version + 1


def _check_same_columns(spec: TableSpec, table: DeltaTable) -> None:
    partitions = [column for column, _ in spec.partition_by]
    found = {field.name: field.type for field in pa.schema(table.schema()) if field.name not in partitions}
    wanted = {field.name: field.type for field in (*spec.schema, *PHYSICAL)}
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            now, stored = wanted.get(name, "absent"), found.get(name, "absent")
            raise SchemaError(
                f"table {spec.name}: column {name} is {now} now and {stored} in the stored table",
                remedy="ingest into a new home, or give the changed table another name",
            )


def _full_partitions(path: Place, spec: TableSpec, table: DeltaTable, merged: pa.Table) -> list[str] | None:
    """The stored files of the touched partitions when one of them has too many; None when a new file beside them will do."""
    touched = _touched(spec, merged)
    actions = pa.table(table.get_add_actions(flatten=True))
    held = [()] * actions.num_rows
    if spec.partition_by:
        held = list(zip(*(actions[f"partition.{column}"].to_pylist() for column, _ in spec.partition_by), strict=True))
    counts = Counter(held)
    if all(counts[partition] < FILES_PER_PARTITION for partition in touched):
        return None
    paths = actions["path"].to_pylist()
    return [data_file(path, file) for file, partition in zip(paths, held, strict=True) if partition in touched]


def _touched(spec: TableSpec, merged: pa.Table) -> set[tuple[Any, ...]]:
    """The partitions of the rows: a tuple of values for each; one empty tuple for a table without partitions."""
    columns = [column for column, _ in spec.partition_by]
    if not columns:
        return {()}
    distinct = merged.select(columns).group_by(columns).aggregate([])
    return set(zip(*(distinct[column].to_pylist() for column in columns), strict=True))


def _predicate(spec: TableSpec, merged: pa.Table) -> str | None:
    """The touched partitions; nothing for a table without any, which is then replaced as a whole."""
    values = list(zip(*sorted(_touched(spec, merged)), strict=True))
    terms = [f"{column} IN ({', '.join(map(literal, values[n]))})" for n, (column, _) in enumerate(spec.partition_by)]
    return " AND ".join(terms) or None


def _with_stored(spec: TableSpec, merged: pa.Table, files: Sequence[str]) -> pa.RecordBatchReader:
    """Stored rows of those files and the merged ones, by partition and key."""
    con = connect()
    con.register("merged", merged)
    partitions = [f"{expression} AS {quoted(column)}" for column, expression in spec.partition_by]
    plain = [field.name for field in (*spec.schema, *PHYSICAL)]
    columns = ", ".join([names(plain), *partitions])
    order = names([*(column for column, _ in spec.partition_by), *spec.key, "revision"])
    reader = con.sql(
        f"SELECT {columns} FROM {scan(files)} UNION ALL SELECT {columns} FROM merged ORDER BY {order}"
    ).to_arrow_reader(100_000)

    def batches() -> Any:
        yield from (batch.cast(merged.schema) for batch in reader)
        con.close()

    return pa.RecordBatchReader.from_batches(merged.schema, batches())
