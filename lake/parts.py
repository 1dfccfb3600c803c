"""A table's Parquet files: written in key order, listed with their bounds, read whole as Arrow.

1. `write_part` writes the rows of one partition as one file, safe on the disk or in the bucket before any commit names it.
2. `list_parts` says of each file of a version which partition, how many rows and which values it holds; `between` drops those
   that hold nothing in a range.
3. `read_parts` gives their rows as Arrow, text as dictionaries, which is how key order comes cheap (`lake.order`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from config.errors import IntegrityError
from config.tables import TableSpec
from lake.bucket import on_disk
from lake.place import Place, data_file, write

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction, RemoveAction

__all__ = ["Part", "add_action", "between", "check_bytes", "list_parts", "read_parts", "remove_action", "write_part"]

# Small enough that one symbol's rows lie in one or two of a year's groups, large enough that a whole file costs no more for it.
_ROWS_A_GROUP = 65_536
_LONGEST_BOUND = 64  # characters of text that a commit's log entry repeats
_TRUNCATED = timedelta(milliseconds=1)  # delta-rs writes bounds of times so coarsely


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One data file of a table's version.

    Parameters
    ----------
    name : str
        Its path inside the table, as the log gives it.
    partition : tuple
        Values of the partition columns, in the table's order; empty for a table without partitions.
    rows, size : int
        How many rows; how many bytes.
    bounds : mapping of str to (lowest, highest)
        Of the columns whose range is known.
    """

    name: str
    partition: tuple[Any, ...]
    rows: int
    size: int
    bounds: Mapping[str, tuple[Any, Any]]


def list_parts(spec: TableSpec, table: DeltaTable) -> list[Part]:
    """The files of the opened version, by name."""
    found = pa.table(table.get_add_actions(flatten=True))
    bounded = [name for name in _bounded(spec) if f"min.{name}" in found.column_names and f"max.{name}" in found.column_names]
    wanted = ["path", "num_records", "size_bytes", *(f"partition.{column}" for column, _ in spec.partition_by)]
    wanted += [f"{end}.{name}" for name in bounded for end in ("min", "max")]
    parts = []
    for row in found.select(wanted).to_pylist():
        bounds = {name: (row[f"min.{name}"], row[f"max.{name}"]) for name in bounded}
        parts.append(
            Part(
                name=row["path"],
                partition=tuple(row[f"partition.{column}"] for column, _ in spec.partition_by),
                rows=row["num_records"] or 0,
                size=row["size_bytes"],
                bounds={name: pair for name, pair in bounds.items() if None not in pair},
            )
        )
    return sorted(parts, key=lambda part: part.name)


def _bounded(spec: TableSpec) -> tuple[str, ...]:
    """Columns whose bounds are worth a place in the log."""
    columns = dict.fromkeys((*spec.key, spec.event_time, "available_at", "revision", "written_in"))
    if "session" in spec.schema.names:
        columns["session"] = None
    return tuple(columns)


def between(parts: Sequence[Part], column: str, low: Any = None, high: Any = None) -> list[Part]:
    """The files that may hold a value of the column from `low` to `high`, both included (None: no bound)."""
    return [part for part in parts if _overlaps(part.bounds.get(column), low, high)]


def _overlaps(bounds: tuple[Any, Any] | None, low: Any, high: Any) -> bool:
    if bounds is None:
        return True
    lowest, highest = bounds
    if isinstance(highest, datetime):
        highest += _TRUNCATED
    return not ((low is not None and highest < low) or (high is not None and lowest > high))


def write_part(place: Place, spec: TableSpec, rows: pa.Table, partition: Sequence[Any]) -> tuple[str, int]:
    """Write rows, in the order given, as a new file of that partition; return its name in the table and its size in bytes.

    On return the file is safe. Nobody reads it until a commit names it.
    """
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(
        rows,
        sink,
        compression="zstd",
        row_group_size=_ROWS_A_GROUP,
        use_dictionary=[field.name for field in rows.schema if not pa.types.is_floating(field.type)],
        store_schema=False,
        write_page_checksum=True,
    )
    data = sink.getvalue()
    folders = [f"{column}={value}" for (column, _), value in zip(spec.partition_by, partition, strict=True)]
    name = "/".join([*folders, f"part-{uuid.uuid4()}.parquet"])
    where = place
    for step in name.split("/"):
        where = where / step
    write(where, data.to_pybytes())
    return name, data.size


def add_action(
    spec: TableSpec, rows: pa.Table, name: str, size: int, partition: Sequence[Any], *, at: datetime, changes: bool = True
) -> AddAction:
    """What the log says of a new file; `changes` says whether the commit brings rows, or only keeps them in another way."""
    from deltalake.transaction import AddAction

    lowest, highest = {}, {}
    for column in _bounded(spec):
        least, most = _span(rows.column(column))
        if least is not None and _fits(least) and _fits(most):
            lowest[column], highest[column] = _plain(least), _plain(most)
    stats = {"numRecords": rows.num_rows, "minValues": lowest, "maxValues": highest, "nullCount": dict.fromkeys(lowest, 0)}
    values = {column: str(value) for (column, _), value in zip(spec.partition_by, partition, strict=True)}
    return AddAction(name, size, values, int(at.timestamp() * 1000), changes, json.dumps(stats))


def remove_action(spec: TableSpec, part: Part, *, at: datetime, changes: bool = True) -> RemoveAction:
    """What the log says of a file that another has taken the place of."""
    from deltalake.transaction import RemoveAction

    values = {column: str(value) for (column, _), value in zip(spec.partition_by, part.partition, strict=True)}
    return RemoveAction(part.name, changes, int(at.timestamp() * 1000), part.size, values)


def _span(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """The lowest and the highest value; of dictionaries, of all their words."""
    words = column
    if pa.types.is_dictionary(column.type):
        words = pa.chunked_array([chunk.dictionary for chunk in column.chunks], column.type.value_type)
    span = pc.min_max(words).as_py()
    return span["min"], span["max"]


def _fits(value: Any) -> bool:
    return not isinstance(value, str) or len(value) <= _LONGEST_BOUND


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if isinstance(value, date) else value


def read_parts(place: Place, parts: Sequence[Part | str], fields: Sequence[pa.Field]) -> pa.Table:
    """The rows of these files, one file after the other, in the order in which they were written.

    Text columns come dictionary-encoded; a column that a file does not have is NULL.

    Raises
    ------
    IntegrityError
        A file is gone or damaged.
    """
    import pyarrow.parquet as pq

    schema = pa.schema([_encoded(field) for field in fields])
    text = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    names = [part if isinstance(part, str) else data_file(place, part.name) for part in parts]
    tables = [schema.empty_table()]
    for name, file in zip(names, on_disk(names), strict=True):
        try:
            with pq.ParquetFile(file, read_dictionary=text) as opened:
                held = set(opened.schema_arrow.names)
                rows = opened.read(columns=[field.name for field in schema if field.name in held])
            columns = [rows[f.name] if f.name in held else pa.nulls(rows.num_rows, f.type) for f in schema]
            tables.append(pa.table([column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema))
        except (FileNotFoundError, IsADirectoryError, pa.ArrowException, OSError, UnicodeDecodeError) as problem:
            if isinstance(problem, PermissionError):
                raise
            raise IntegrityError(
                f"the file {name} of the lake is gone or damaged: {problem}",
                remedy="restore the folder from a backup, or ingest into a new home",
            ) from problem
    return pa.concat_tables(tables)


def check_bytes(file: str) -> None:
    """Read a file against the checksums inside it: they cover `recorded_at` too, which no content number does.

    Raises
    ------
    IntegrityError
        A page of it is damaged.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            for _ in opened.iter_batches():
                pass
    except (pa.ArrowException, OSError) as problem:
        raise IntegrityError(
            f"the file {file} of the lake is gone or damaged: {problem}",
            remedy="restore the folder from a backup, or ingest into a new home",
        ) from problem


def _encoded(field: pa.Field) -> pa.Field:
    return field.with_type(pa.dictionary(pa.int32(), pa.string())) if pa.types.is_string(field.type) else field
