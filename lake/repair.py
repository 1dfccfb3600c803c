"""After a power cut: take aside what it left unfinished in a table's log, so that the table opens again.

delta-rs names a log entry before its bytes are on the disk, and `lake.write` acknowledges only after it has forced them there. So a
last entry that is empty, or breaks off, was never acknowledged. An empty one is passed over by itself; one that breaks off keeps
the table from opening, and so may a checkpoint. They are moved to ``damaged/`` in the lake, never deleted.

What cannot be an interrupted write (an entry damaged in its middle, one that a published snapshot names, one with others after it)
is left alone: that is damage, which only a backup cures.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.errors import IntegrityError
from lake.delta import log_path, table_names
from lake.failures import storage_errors
from lake.files import make_folder, sync
from lake.snapshot import load, published

if TYPE_CHECKING:
    from lake.store import Lake

__all__ = ["Repair", "repair"]

_ENTRY = re.compile(r"\d{20}\.json")
_CHECKPOINT = re.compile(r"\d{20}\.checkpoint.*\.parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """One file that a power cut left unfinished.

    Parameters
    ----------
    table : str
    file : str
        Its name in the table's log.
    why : str
    moved_to : str or None
        None in a dry run.
    """

    table: str
    file: str
    why: str
    moved_to: str | None = None


def repair(lake: Lake, *, apply: bool) -> tuple[Repair, ...]:
    """Find, and with `apply` take aside, log entries and checkpoints that a power cut left unfinished.

    In a bucket there are none: a put is whole or is not.

    Raises
    ------
    IntegrityError
        A last entry is damaged in a way that no interrupted write leaves, or a published snapshot names it.
    """
    if not isinstance(lake.root, Path):
        return ()
    newest: dict[str, int] = {}
    for name in published(lake.root):
        for table, at in load(lake.root, name).tables.items():
            newest[table] = max(newest.get(table, -1), at.version)
    found: list[Repair] = []
    for table in table_names(lake.root):
        with storage_errors(f"repair the log of {table}", lake.root / table):
            unfinished = _unfinished(lake.root, table, newest.get(table, -1))
            found += [_aside(lake.root, one) if apply else one for one in unfinished]
    return tuple(found)


def _unfinished(root: Path, table: str, named: int) -> list[Repair]:
    log = root / table / "_delta_log"
    entries = sorted(name for name in os.listdir(log) if _ENTRY.fullmatch(name))
    found = []
    if entries:
        version = int(entries[-1].removesuffix(".json"))
        why = _breaks_off(log_path(root / table, version))  # type: ignore[arg-type]
        if why is not None and version <= named:
            raise IntegrityError(
                f"the log entry {log / entries[-1]} {why}, and a published snapshot names it: it was acknowledged",
                remedy="restore the folder from a backup",
            )
        if why is not None:
            found.append(Repair(table=table, file=entries[-1], why=why))
    why = "is no whole Parquet file; the log entries say the same"
    checkpoints = [name for name in sorted(os.listdir(log)) if _CHECKPOINT.fullmatch(name) and not _is_parquet(log / name)]
    found += [Repair(table=table, file=name, why=why) for name in checkpoints]
    pointer = log / "_last_checkpoint"
    if pointer.exists() and (not _is_json(pointer) or checkpoints):
        found.append(Repair(table=table, file=pointer.name, why="names no whole checkpoint; it is only a shortcut"))
    return found


def _breaks_off(entry: Path) -> str | None:
    """How the entry is unfinished; None for a whole one, and for an empty one, which nothing stumbles over.

    Raises
    ------
    IntegrityError
        It is damaged before its end.
    """
    data = entry.read_bytes()
    text = data.rstrip(b"\0")
    if not text:
        return None if not data else "is all zeros"
    *before, last = text.splitlines()
    for line in before:
        if not _parses(line):
            raise IntegrityError(
                f"the log entry {entry} is damaged in its middle, which no interrupted write leaves",
                remedy="restore the folder from a backup",
            )
    if not _parses(last):
        return "breaks off"
    return "ends in zeros" if len(text) < len(data) else None


def _parses(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _is_json(file: Path) -> bool:
    return _parses(file.read_bytes())


def _is_parquet(file: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_table(file)
    except (pa.ArrowException, OSError):
        return False
    return True


def _aside(root: Path, one: Repair) -> Repair:
    source = root / one.table / "_delta_log" / one.file
    folder = root / "damaged"
    make_folder(folder)
    name = f"{one.table.replace('/', '-')}-{one.file}"
    target = folder / name
    number = 1
    while target.exists():
        number += 1
        target = folder / f"{name}.{number}"
    os.replace(source, target)
    sync(folder)
    sync(source.parent)
    return Repair(table=one.table, file=one.file, why=one.why, moved_to=str(target))
