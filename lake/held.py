"""What one table holds at one version: its specification, its files, and whether older files lack newer columns."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from config.errors import IntegrityError, SchemaError
from config.tables import TABLES, TableSpec
from lake.delta import PHYSICAL, TableVersion, log_path, open_table, spec_of, version_state
from lake.failures import storage_errors
from lake.order import ascending, key_numbers, newest_of
from lake.parts import Part, between, list_parts, read_parts
from lake.place import Place, data_file, stamp
from lake.query import aware, scan

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["SINCE", "Held", "columns_to_add", "comparable", "held_at", "held_newest", "nothing", "stored_since", "widened"]

# Metadata of a stored column that came later than its table: the first version that has it.
SINCE = "quantrail.since"
_ROWS_AT_ONCE = 1 << 20
_MOST_KNOWN = 32  # versions of tables whose files this process remembers
_KNOWN: OrderedDict[tuple[str, str, TableVersion, str | None], Held] = OrderedDict()
_LOOKING = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """One table at one version.

    Parameters
    ----------
    at : TableVersion or None
        None where nothing was ever written.
    since : mapping of str to int
        For columns that the table did not have from the start: the first version that has them; a version that does not have
        one yet counts as a later one.
    """

    spec: TableSpec
    place: Place
    at: TableVersion | None
    parts: tuple[Part, ...]
    since: dict[str, int]

    @property
    def revised(self) -> bool:
        """Whether some key has more than one version."""
        return self.at is not None and self.at.revised > 0

    def files(self, parts: Sequence[Part] | None = None) -> list[str]:
        """The files as DuckDB takes them."""
        return [data_file(self.place, part.name) for part in (self.parts if parts is None else parts)]

    def source(self, parts: Sequence[Part] | None = None) -> str:
        """A FROM item with every column of the specification; a column that a file is too old to have is NULL."""
        return widened(self.spec, scan(self.files(parts), differ=bool(self.since)), bool(self.since))

    def parts_of(self, start: date | datetime | None, end: date | datetime | None) -> list[Part]:
        """The files that a read from `start` to `end` has to look at.

        A file outside the range may hold a revision that takes a row out of it: of the files outside, those stay that hold
        revisions of event times which a file inside holds too.
        """
        days = "session" if "session" in self.spec.schema.names else self.spec.event_time
        inside = list(self.parts)
        for low, high in ((start, None), (None, end)):
            bound = low if low is not None else high
            column = self.spec.event_time if isinstance(bound, datetime) else days
            if bound is not None and comparable(self.spec, column, bound):
                inside = between(inside, column, low, high)
        if not self.revised:
            return inside
        names = {part.name for part in inside}
        outside = [part for part in self.parts if part.name not in names and part.bounds.get("revision", (0, 1))[1] > 0]
        event = self.spec.event_time
        bounds = [part.bounds.get(event) for part in inside]
        if event in self.spec.key and all(bounds):
            lows, highs = [pair[0] for pair in bounds if pair], [pair[1] for pair in bounds if pair]
            outside = between(outside, event, min(lows), max(highs)) if bounds else []
        return [*inside, *outside]

    def whole(self, schema: pa.Schema, *, as_of: datetime | None) -> pa.Table:
        """The newest version of every key available at `as_of`, in key order, without a sort of what already lies in order."""
        needed = dict.fromkeys((*schema.names, *self.spec.key))
        if as_of is not None:
            as_of = aware(as_of)
            needed["available_at"] = None
        if self.revised:
            needed["revision"] = None
        known = {field.name: field for field in (*self.spec.schema, *PHYSICAL)}
        parts = self.parts if as_of is None else between(self.parts, "available_at", high=as_of)
        rows = read_parts(self.place, parts, [known[name] for name in needed])
        if as_of is not None:
            available = pc.less_equal(rows["available_at"], pa.scalar(as_of, rows.schema.field("available_at").type))
            if not pc.all(available).as_py():
                rows = rows.filter(available)
        return self.newest_in_order(rows, schema)

    def newest_in_order(self, rows: pa.Table, schema: pa.Schema) -> pa.Table:
        """Of rows as `read_parts` gives them, those columns of the newest version of each key, in key order."""
        numbers = key_numbers(rows, self.spec.key)
        order = ascending(numbers)
        if self.revised:
            order = newest_of(numbers, rows["revision"].to_numpy(), order)
        return _placed(rows, schema, order)


def comparable(spec: TableSpec, column: str, bound: date | datetime) -> bool:
    """Whether a bound is of the column's own kind: a time for times, a day for days."""
    return bool(pa.types.is_timestamp(spec.schema.field(column).type)) == isinstance(bound, datetime)


def _placed(rows: pa.Table, schema: pa.Schema, order: np.ndarray[Any, np.dtype[np.int64]] | None) -> pa.Table:
    """Those columns of the rows in that order, text as plain strings; column by column, to hold few copies."""
    if order is None:
        return pa.table([rows.column(field.name).cast(field.type) for field in schema], schema=schema)
    cuts = range(0, len(order), _ROWS_AT_ONCE)
    columns = []
    for field in schema:
        column = rows.column(field.name)
        column = (column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column).combine_chunks()
        taken = [pc.take(column, order[cut : cut + _ROWS_AT_ONCE], boundscheck=False).cast(field.type) for cut in cuts]
        columns.append(pa.chunked_array(taken, field.type))
    return pa.table(columns, schema=schema)


def widened(spec: TableSpec, source: str, differ: bool) -> str:
    """A FROM item whose columns are the specification's, the columns that no file has as NULL."""
    if not differ:
        return source
    none = ", ".join(f'NULL::{_SQL_TYPES[str(field.type)]} AS "{field.name}"' for field in (*spec.schema, *PHYSICAL))
    return f"(SELECT * FROM {source} UNION ALL BY NAME SELECT * FROM (SELECT {none}) WHERE false)"


_SQL_TYPES = {
    "string": "VARCHAR",
    "double": "DOUBLE",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}


def columns_to_add(spec: TableSpec, table: DeltaTable) -> tuple[pa.Field, ...]:
    """Nullable columns of the specification that the stored table does not have yet.

    Raises
    ------
    SchemaError
        A column was removed, has another type, or is new and may not be NULL.
    """
    grows = not spec.name.startswith("features/")  # the version of a feature set names its columns
    partitions = {column for column, _ in spec.partition_by}
    found = {field.name: field.type for field in pa.schema(table.schema()) if field.name not in partitions}
    wanted = {field.name: field for field in (*spec.schema, *PHYSICAL)}
    added = []
    for name in {**wanted, **found}:
        field = wanted.get(name)
        if grows and field is not None and name not in found and field.nullable and name not in spec.key:
            added.append(field)
        elif field is None or found.get(name) != field.type:
            now, stored = "absent" if field is None else field.type, found.get(name, "absent")
            raise SchemaError(
                f"table {spec.name}: column {name} is {now} now and {stored} in the stored table",
                remedy="ingest into a new home, or give the changed table another name",
            )
    return tuple(added)


def nothing(spec: TableSpec, place: Place) -> Held:
    """A table that holds nothing."""
    return Held(spec=spec, place=place, at=None, parts=(), since={})


def held_newest(root: Place, name: str) -> Held:
    """A fixed table at its newest version."""
    table = open_table(root / name)
    if table is None:
        return nothing(TABLES[name], root / name)
    return _held(TABLES[name], root / name, table, version_state(root / name, table))


def held_at(root: Place, name: str, at: TableVersion, *, again: bool = False) -> Held:
    """A table at the version that a snapshot names.

    What a version holds never changes, so a process looks it up once, and then only whether that version's log entry is still
    the same file or object; with `again` it reads the log once more.

    Raises
    ------
    IntegrityError
        The table is gone, or is another one than the snapshot was taken of.
    """
    entry = stamp(log_path(root / name, at.version))
    asked = (str(root), name, at, entry)
    with _LOOKING:
        found = None if again else _KNOWN.get(asked)
        if found is not None and found.spec == TABLES.get(name, found.spec):
            _KNOWN.move_to_end(asked)
            return replace(found, place=root / name)
    with storage_errors(f"open the table {name} at version {at.version}", root / name):
        table = open_table(root / name, at.version)
    if table is None:
        raise IntegrityError(f"the table {name} in {root} is gone", remedy="restore the folder from a backup")
    state = version_state(root / name, table)
    if (state.table_id, state.chain) != (at.table_id, at.chain):
        raise IntegrityError(
            f"the table {name} in {root} is not the one the snapshot was taken of (version {at.version})",
            remedy="restore the folder from a backup, or publish and read a new snapshot",
        )
    held = _held(spec_of(name, table), root / name, table, at)
    if entry is not None:
        with _LOOKING:
            _KNOWN[asked] = held
            while len(_KNOWN) > _MOST_KNOWN:
                _KNOWN.popitem(last=False)
    return held


def _held(spec: TableSpec, place: Place, table: DeltaTable, at: TableVersion) -> Held:
    since = stored_since(table) | {field.name: at.version + 1 for field in columns_to_add(spec, table)}
    return Held(spec=spec, place=place, at=at, parts=tuple(list_parts(spec, table)), since=since)


def stored_since(table: DeltaTable) -> dict[str, int]:
    """The columns that came later than the table, and the first version that has each."""
    fields = ((field.name, field.metadata or {}) for field in table.schema().fields)
    return {name: int(metadata[SINCE]) for name, metadata in fields if SINCE in metadata}
