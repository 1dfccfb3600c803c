"""Which of a lake's files something still needs, and taking away the others.

1. `survey` reads each table's log (`_history`) and lists its folder (`_listed`), and says of every data file what needs it: the
   newest version, a published snapshot, nothing (an old version that no snapshot names), or no log entry at all (an orphan: its
   writer died, or lost a race).
2. `drop_snapshots` forgets published snapshots that are older than a stated age, not referred to, and not the newest.
3. `sweep` deletes what nothing has needed for longer than a safe age. A writer's unfinished files are younger than that, and so
   is what a reader of a moment ago may still be reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from config.errors import InputError, IntegrityError
from lake.bucket import Bucket
from lake.delta import log_path, open_table, table_names
from lake.failures import storage_errors
from lake.place import Place, read
from lake.snapshot import forget, load, newest_name, published, published_at

if TYPE_CHECKING:
    from lake.store import Lake

__all__ = ["SAFE_AGE", "SHORTEST_SAFE_AGE", "Sizes", "drop_snapshots", "survey", "sweep"]

SAFE_AGE = timedelta(days=1)
SHORTEST_SAFE_AGE = timedelta(hours=1)  # no writer takes so long from its first file to its commit


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """One table's files, by what needs them; bytes.

    Parameters
    ----------
    live, kept, old, orphans : int
        Of the newest version; of versions that only snapshots name; of versions that nothing names; of no version.
    live_files : int
    removable : tuple of str
        Names of old files and orphans that nothing has needed for longer than the safe age.
    removable_bytes : int
    """

    table: str
    live: int
    kept: int
    old: int
    orphans: int
    live_files: int
    removable: tuple[str, ...] = field(repr=False)
    removable_bytes: int


def survey(lake: Lake, *, now: datetime, safe_age: timedelta = SAFE_AGE, without: Collection[str] = ()) -> list[Sizes]:
    """The sizes of every table, bookkeeping tables too, by name.

    Parameters
    ----------
    now : datetime
        The present moment, aware.
    safe_age : timedelta
        At least an hour.
    without : collection of str
        Published snapshots to leave out of account, as if they were dropped.

    Raises
    ------
    IntegrityError
        A log entry or a snapshot's file is gone or damaged: then nothing can be called superfluous.
    """
    if safe_age < SHORTEST_SAFE_AGE:
        raise InputError(f"a safe age of {safe_age} would take the files of running writers", remedy="give at least an hour")
    pinned: dict[str, set[int]] = {}
    for name in published(lake.root):
        if name not in without:
            for table, at in load(lake.root, name).tables.items():
                pinned.setdefault(table, set()).add(at.version)
    return [_sizes(lake.root, table, pinned.get(table, set()), now - safe_age) for table in table_names(lake.root)]


def _sizes(root: Place, name: str, pinned: Collection[int], before: datetime) -> Sizes:
    place = root / name
    with storage_errors(f"look through the files of {name}", place):
        listed = {file: (size, modified) for file, size, modified in _listed(place)}
        table = open_table(place)
        newest = -1 if table is None else table.version()
        live, kept, left = _history(place, newest, pinned)
    groups: dict[str, int] = dict.fromkeys(("live", "kept", "old", "orphans"), 0)
    removable = []
    for file, (size, modified) in listed.items():
        group = "live" if file in live else "kept" if file in kept else "old" if file in left else "orphans"
        groups[group] += size
        if group in ("old", "orphans") and max(modified, left.get(file, modified)) < before:
            removable.append(file)
    return Sizes(
        table=name,
        **groups,
        live_files=len(live),
        removable=tuple(sorted(removable)),
        removable_bytes=sum(listed[file][0] for file in removable),
    )


def _history(place: Place, newest: int, pinned: Collection[int]) -> tuple[set[str], set[str], dict[str, datetime]]:
    """The newest version's files; those of the pinned versions; and every other file of the log, with when it was last needed."""
    live: set[str] = set()
    kept: set[str] = set()
    left: dict[str, datetime] = {}
    for version in range(newest + 1):
        entry = read(log_path(place, version))
        if entry is None:
            raise IntegrityError(
                f"the log entry {log_path(place, version)} is gone: which files are needed is not known",
                remedy="restore the folder from a backup; nothing was removed",
            )
        added, removed, moment = _changes(entry, str(log_path(place, version)))
        live = (live - removed) | added
        left.update(dict.fromkeys(removed, moment))
        if version in pinned:
            kept |= live
    return live, kept, {file: moment for file, moment in left.items() if file not in live | kept}


def _changes(entry: bytes, where: str) -> tuple[set[str], set[str], datetime]:
    """What one log entry adds and removes, and when it was written."""
    added, removed, moment = set(), set(), datetime.min.replace(tzinfo=UTC)
    for line in entry.splitlines():
        try:
            action: dict[str, Any] = json.loads(line)
        except ValueError as problem:
            raise IntegrityError(f"the log entry {where} is damaged: {problem}", remedy="quant data maintain --repair") from problem
        if "add" in action:
            added.add(unquote(action["add"]["path"]))
        elif "remove" in action:
            removed.add(unquote(action["remove"]["path"]))
        elif "commitInfo" in action:
            moment = datetime.fromtimestamp(action["commitInfo"]["timestamp"] / 1000, UTC)
    return added, removed, moment


def _listed(place: Place) -> Iterator[tuple[str, int, datetime]]:
    """Every data file in a table's folder, with its size and when it was written; its log is left out."""
    if isinstance(place, Bucket):
        import obstore

        store, prefix = place.object
        for chunk in obstore.list(store, prefix + "/"):
            for one in chunk:
                name = one["path"].removeprefix(prefix + "/")
                if not name.startswith("_delta_log/"):
                    yield name, one["size"], one["last_modified"]
        return
    for folder, folders, files in os.walk(place):
        folders[:] = [one for one in folders if not (Path(folder) == place and one.startswith("_"))]
        for file in files:
            path = Path(folder) / file
            try:
                about = path.stat()
            except FileNotFoundError:  # a writer's temporary file, renamed since
                continue
            yield path.relative_to(place).as_posix(), about.st_size, datetime.fromtimestamp(about.st_mtime, UTC)


def sweep(lake: Lake, sizes: Sequence[Sizes]) -> int:
    """Delete what a survey found removable; return how many bytes that was."""
    for one in sizes:
        place = lake.root / one.table
        with storage_errors(f"remove files of {one.table}", place):
            for name in one.removable:
                file = place
                for step in name.split("/"):
                    file = file / step
                if isinstance(file, Bucket):
                    file.remove()
                else:
                    file.unlink(missing_ok=True)
    return sum(one.removable_bytes for one in sizes)


def drop_snapshots(lake: Lake, *, keep: Collection[str], before: datetime, apply: bool) -> tuple[str, ...]:
    """Forget published snapshots that were published before a moment, are not in `keep`, and are not the newest.

    Returns
    -------
    tuple of str
        Their ids; with `apply` false, what they would be.
    """
    newest = newest_name(lake.root)
    names = published(lake.root)
    dropped = tuple(name for name in names if name != newest and name not in keep and published_at(lake.root, name) < before)
    if apply and dropped:
        forget(lake.root, dropped)
    return dropped
