"""Compaction: one file in key order for each partition of a table. No row changes, no snapshot's id does, no reader notices.

1. `compact` reads the files of each partition that has several (`_scattered`) and writes their rows as one.
2. It commits that as a change of files only, with the content number of the version before it. When a writer was quicker, the
   same files are committed on top of what is stored now, as long as the files they replace are still part of it (`_still_there`).
3. `lake.snapshot.point_at` lets the published snapshots of that very content read the new files.
"""

from __future__ import annotations

import random
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from config.errors import LockHeldError
from config.tables import TABLES, TableSpec
from lake.delta import BATCH, CHAIN, REVISED, ROWS, open_table, spec_of, sync_commit, version_state
from lake.failures import storage_errors
from lake.held import columns_to_add
from lake.layout import in_one, write_actions
from lake.parts import Part, add_action, list_parts, remove_action, write_part

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from lake.store import Lake

__all__ = ["Compaction", "compact"]

_OURS = re.compile(r"(.*/)?part-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.parquet")
_LONGEST_WAIT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """What became of a table's files.

    Parameters
    ----------
    table : str
    files_before, files_after, bytes_before, bytes_after : int
        Of the newest version.
    version : int or None
        The version that the compaction made; None when there was nothing to do.
    """

    table: str
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    version: int | None


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """A partition's new file, and what it takes the place of."""

    replaced: tuple[Part, ...]
    actions: tuple[Any, ...]


def compact(lake: Lake, table: str, *, at: datetime, apply: bool = True) -> Compaction:
    """Make one file of each partition of a table that has several.

    Parameters
    ----------
    lake : Lake
    table : str
        A stored table's name.
    at : datetime
        The present moment, aware; it is written into the log.
    apply : bool
        False counts only.

    Raises
    ------
    LockHeldError
        Writers were quicker in every attempt; nothing was changed.
    SchemaError
        The table's declared columns are not the stored ones.
    StorageError, IntegrityError
        As when reading.
    """
    place = lake.root / table
    chance = random.Random()
    with storage_errors(f"compact the table {table}", place):
        opened = open_table(place)
        if opened is None:
            return Compaction(table=table, files_before=0, files_after=0, bytes_before=0, bytes_after=0, version=None)
        spec = spec_of(table, opened)
        before = list_parts(spec, opened)
        scattered = _scattered(spec, opened, before)
        if not apply or not scattered:
            after = len(before) - sum(len(parts) - 1 for parts in scattered)
            size = sum(part.size for part in before)
            return Compaction(
                table=table, files_before=len(before), files_after=after, bytes_before=size, bytes_after=size, version=None
            )
        rewritten = [_rewrite(lake, spec, opened, parts, at) for parts in scattered]
        for attempt in range(1, lake.write_attempts + 1):
            there = [one for one in rewritten if _still_there(one, list_parts(spec, opened))]
            if not there:  # writers have rewritten all of it themselves
                return _counted(table, spec, before, opened, None)
            version = _commit(lake, spec, opened, there)
            now = open_table(place)
            assert now is not None
            if version is not None:
                return _counted(table, spec, before, now, version)
            opened = now
            time.sleep(chance.uniform(0, min(_LONGEST_WAIT_SECONDS, 0.01 * 2**attempt)))
    raise LockHeldError(
        f"writers of the table {table} were quicker in each of {lake.write_attempts} attempts; it was not compacted",
        remedy="run the same command again when less is written",
    )


def _scattered(spec: TableSpec, table: DeltaTable, parts: Sequence[Part]) -> list[list[Part]]:
    """The files of each partition that has several, or one that another writer laid out."""
    held: dict[tuple[Any, ...], list[Part]] = defaultdict(list)
    for part in parts:
        held[part.partition].append(part)
    # A column that the table is to gain has to be stored first; its next write does that.
    ready = spec.name not in TABLES or not columns_to_add(spec, table)
    return [found for found in held.values() if len(found) > 1 or not _OURS.fullmatch(found[0].name)] if ready else []


def _rewrite(lake: Lake, spec: TableSpec, table: DeltaTable, parts: Sequence[Part], at: datetime) -> _Rewritten:
    place, partition = lake.root / spec.name, parts[0].partition
    rows = in_one(place, spec, parts)
    name, size = write_part(place, spec, rows, partition)
    added = add_action(spec, rows, name, size, partition, at=at, changes=False)
    return _Rewritten(tuple(parts), (added, *(remove_action(spec, part, at=at, changes=False) for part in parts)))


def _still_there(rewritten: _Rewritten, parts: Sequence[Part]) -> bool:
    names = {part.name for part in parts}
    return all(part.name in names for part in rewritten.replaced)


def _commit(lake: Lake, spec: TableSpec, table: DeltaTable, rewritten: Sequence[_Rewritten]) -> int | None:
    """Commit as the child of the opened version, with its content number; None when another writer was quicker."""
    from deltalake.exceptions import CommitFailedError

    place = lake.root / spec.name
    state = version_state(place, table)
    said = {CHAIN: state.chain, BATCH: f"{0:064x}", ROWS: str(state.rows), REVISED: str(state.revised)}
    try:
        write_actions(table, spec, [action for one in rewritten for action in one.actions], said)
    except CommitFailedError as problem:
        now = open_table(place)
        if now is None or now.version() == state.version:
            raise OSError(f"the commit was refused: {problem}") from problem
        return None
    compacted = open_table(place, state.version + 1)
    assert compacted is not None
    compacted.create_checkpoint()  # whoever opens this version has no log to read
    sync_commit(place, state.version + 1)
    return state.version + 1


def _counted(table: str, spec: TableSpec, before: Sequence[Part], now: DeltaTable, version: int | None) -> Compaction:
    after = list_parts(spec, now)
    return Compaction(
        table=table,
        files_before=len(before),
        files_after=len(after),
        bytes_before=sum(part.size for part in before),
        bytes_after=sum(part.size for part in after),
        version=version,
    )
