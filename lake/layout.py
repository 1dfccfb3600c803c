"""How a table's rows lie in files: each new batch a file a partition, few files of each size, every file in key order.

A write adds one file to each partition it touches. When a partition then holds `FILES_OF_A_SIZE` files of about one size, they
become one file, in the same commit; that file may be the last of the next size, and so on. So a row is rewritten a few times in
its life, however long the table is written to, and a day's update costs the same all year. `lake.maintenance` makes one file of
each partition.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from config.tables import TableSpec
from lake.delta import PHYSICAL
from lake.order import ascending, key_numbers
from lake.parts import Part, add_action, read_parts, remove_action, write_part
from lake.place import Place

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["FILES_OF_A_SIZE", "commit", "in_one", "with_same_size"]

FILES_OF_A_SIZE = 8
_SMALLEST_ROWS = 4096  # files with fewer rows count as being of one size


def commit(
    place: Place,
    spec: TableSpec,
    table: DeltaTable,
    parts: Sequence[Part],
    rows: pa.Table,
    *,
    said: Mapping[str, str],
    at: datetime,
) -> None:
    """Commit rows as the next version of the opened table, or not at all.

    Parameters
    ----------
    parts : sequence of Part
        The files of the opened version.
    rows : pyarrow.Table
        In key order, with the physical and the partition columns.
    said : mapping
        What the commit says about the content.
    at : datetime
        When; it is written into the log, where it means nothing.

    Raises
    ------
    CommitFailedError
        Another writer has made that version. The files stay, named by no version, until maintenance takes them away.
    """
    held: dict[tuple[Any, ...], list[Part]] = defaultdict(list)
    for part in parts:
        held[part.partition].append(part)
    actions: list[Any] = []
    for partition, new in _by_partition(spec, rows):
        joined = with_same_size(held[partition], new.num_rows)
        together = in_one(place, spec, joined, new) if joined else new
        name, size = write_part(place, spec, together, partition)
        actions.append(add_action(spec, together, name, size, partition, at=at))
        actions += [remove_action(spec, part, at=at) for part in joined]
    write_actions(table, spec, actions, said)


def write_actions(table: DeltaTable, spec: TableSpec, actions: Sequence[Any], said: Mapping[str, str]) -> None:
    """Write the next log entry of the opened table; refused as soon as another writer has made it."""
    from deltalake import CommitProperties

    table.create_write_transaction(
        list(actions),
        "append",
        table.schema(),
        partition_by=[column for column, _ in spec.partition_by],
        commit_properties=CommitProperties(custom_metadata=dict(said), max_commit_retries=0),
    )


def _by_partition(spec: TableSpec, rows: pa.Table) -> Iterator[tuple[tuple[Any, ...], pa.Table]]:
    """The rows of each partition, still in key order and without the partition columns."""
    columns = [column for column, _ in spec.partition_by]
    if not columns:
        yield (), rows
        return
    distinct = rows.select(columns).group_by(columns).aggregate([]).sort_by([(column, "ascending") for column in columns])
    plain = rows.drop_columns(columns)
    if distinct.num_rows == 1:
        yield tuple(distinct.to_pylist()[0].values()), plain
        return
    for values in distinct.to_pylist():
        mask = None
        for column in columns:
            here = pc.equal(rows[column], values[column])
            mask = here if mask is None else pc.and_(mask, here)
        yield tuple(values.values()), plain.filter(mask)


def with_same_size(parts: Sequence[Part], rows: int) -> list[Part]:
    """The files that are to become one with a new file of so many rows; none while there are few of its size."""
    joined: list[Part] = []
    while True:
        size = _size(rows)
        alike = [part for part in parts if part not in joined and _size(part.rows) <= size]
        if len(alike) + 1 < FILES_OF_A_SIZE:
            return joined
        joined += alike
        rows += sum(part.rows for part in alike)


def _size(rows: int) -> int:
    """0 for the smallest, one more for each eightfold."""
    size, most = 0, _SMALLEST_ROWS
    while rows >= most:
        size, most = size + 1, most * FILES_OF_A_SIZE
    return size


def in_one(place: Place, spec: TableSpec, parts: Sequence[Part], more: pa.Table | None = None) -> pa.Table:
    """The rows of these files, and others, in the order of key and revision."""
    fields = [*spec.schema, *PHYSICAL]
    stored = read_parts(place, parts, fields)
    if more is not None:
        stored = pa.concat_tables([stored, more.cast(stored.schema)])
    order = ascending(key_numbers(stored, (*spec.key, "revision")))
    return stored if order is None else stored.unify_dictionaries().take(order)
