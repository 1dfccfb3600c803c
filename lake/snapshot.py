"""Exact states of the lake: small published files, named by a digest of what the tables hold.

1. `publish` collects each data table's newest version (`_collect`), in such a way that states are published in order: in a folder
   under a lock (`_publish_in_folder`), in a bucket by who puts the next of a numbered row first (`_publish_in_bucket`).
2. `_sync` forces what they are made of to the disk, whoever wrote it.
3. `snapshot_id` digests the tables' chains; the file is written whole (`lake.files.write_whole`), then the pointer to the newest.
4. `load` reads a file back and verifies it; `Snapshot` reads the tables at exactly its versions.

The bookkeeping tables (`ingest_runs`, `quarantine`, `flags`, `gaps`) say what happened in *this* lake, at wall-clock times. They
are no part of a snapshot's state: its id does not cover them, and reading them through a snapshot gives their newest version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.errors import InputError, IntegrityError, LockHeldError, UnknownNameError, did_you_mean
from config.hashing import canonical_json, digest, short
from config.locks import exclusive
from lake.bucket import Bucket
from lake.delta import TableVersion, open_table, sync_commit, table_names, version_state
from lake.failures import storage_errors
from lake.files import write_whole
from lake.place import Place
from lake.reading import BOOKKEEPING, Tables

__all__ = [
    "Snapshot",
    "forget",
    "load",
    "newest_name",
    "newest_versions",
    "point_at",
    "publish",
    "published",
    "published_at",
    "snapshot_id",
]

_FORMAT = 1
_PUBLISH_WAIT_SECONDS = 60.0
_PUBLISH_ATTEMPTS = 200
_READ_AT_ONCE = 8
_LOST = "restore it from a backup; or delete it and NEWEST beside it, and run any ingest again: equal rows get the same id"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Snapshot(Tables):
    """One exact, published state of every data table.

    Parameters
    ----------
    id : str
        16 hex digits: the same rows (clock `recorded_at` aside) give the same id, in any lake.
    tables : mapping of str to TableVersion
        The data tables that hold rows, and the version of each.
    parent : str or None
        The snapshot published before this one; in a bucket it may have been dropped since. Nothing is looked up by it there.
    """

    root: Place
    id: str
    tables: Mapping[str, TableVersion]
    parent: str | None = None
    cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def pinned(self, table: str) -> TableVersion | None:
        """The version this snapshot reads; None for a table it does not hold."""
        return self.tables.get(table)

    def __repr__(self) -> str:
        held = ", ".join(f"{name}@{at.version}" for name, at in sorted(self.tables.items()))
        return f"Snapshot({self.id}: {held})"

    def table_hash(self, table: str) -> str:
        """The content of one table, 64 hex digits: equal rows (`recorded_at` aside), equal hash.

        Raises
        ------
        UnknownNameError
            The snapshot holds no such table.
        """
        if table not in self.tables:
            raise UnknownNameError(
                f"snapshot {self.id} holds no table {table!r}", remedy=did_you_mean(table, tuple(sorted(self.tables)))
            )
        return self.tables[table].chain

    def as_dict(self) -> dict[str, Any]:
        """Id, parent and every table's version, id, chain and row counts, for lineage and for JSON."""
        return {"id": self.id, "parent": self.parent, "tables": {name: asdict(at) for name, at in sorted(self.tables.items())}}


def snapshot_id(tables: Mapping[str, TableVersion]) -> str:
    """The id of a state: the first 16 hex digits of the digest of the tables' chains."""
    return short(digest({name: at.chain for name, at in tables.items()}))


def publish(root: Place) -> Snapshot:
    """Name the newest state of every data table; see `lake.store.Lake.publish`."""
    if isinstance(root, Bucket):
        return _publish_in_bucket(root)
    folder = root / "snapshots"
    with (
        storage_errors("publish a snapshot", folder),
        exclusive(folder / ".lock", "a publication", wait_seconds=_PUBLISH_WAIT_SECONDS),
    ):
        return _publish_in_folder(root)


def _publish_in_folder(root: Path) -> Snapshot:
    """Under the lock: the file, then the pointer to it."""
    tables = _collect(root)
    name, newest = snapshot_id(tables), newest_name(root)
    if name == newest:
        return load(root)
    _sync(root, tables, {} if newest is None else load(root, newest).tables)
    if not _file(root, name).exists():
        write_whole(_file(root, name), _document(name, newest, tables))
    write_whole(root / "snapshots" / "NEWEST", name.encode())
    return load(root, name)


def _document(name: str, parent: str | None, tables: Mapping[str, TableVersion]) -> bytes:
    """The snapshot's file: its content and the digest of that."""
    content = {"format": _FORMAT, "id": name, "parent": parent, "tables": {n: asdict(at) for n, at in sorted(tables.items())}}
    return canonical_json({**content, "sha256": digest(content)}).encode()


def _collect(root: Place) -> dict[str, TableVersion]:
    return newest_versions(root, [name for name in table_names(root) if name not in BOOKKEEPING])


def newest_versions(root: Place, names: Sequence[str]) -> dict[str, TableVersion]:
    """The newest version of each of these tables that holds rows; a bucket is asked for several at once."""

    def newest(name: str) -> TableVersion | None:
        table = open_table(root / name)
        return None if table is None else version_state(root / name, table)

    if isinstance(root, Bucket):
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            found = list(pool.map(newest, names))
    else:
        found = [newest(name) for name in names]
    # A table made by a writer that died before its first row is not there yet.
    return {name: at for name, at in zip(names, found, strict=True) if at is not None and at.rows}


def _sync(root: Path, tables: Mapping[str, TableVersion], before: Mapping[str, TableVersion]) -> None:
    """Force every commit since the last snapshot to the disk: its writer may have died between committing and syncing."""
    for name, at in tables.items():
        first = before[name].version + 1 if name in before and before[name].table_id == at.table_id else 0
        for version in range(first, at.version + 1):
            sync_commit(root / name, version)


def point_at(root: Place, at: Mapping[str, TableVersion]) -> tuple[str, ...]:
    """Let published snapshots read other versions of the same content, as maintenance laid them out; return their ids.

    A snapshot's id is its content's, so it stays. Only the newest snapshot is changed in a bucket, by a place in the row of its
    own; on this machine every one of that content.

    Parameters
    ----------
    at : mapping of str to TableVersion
        Tables and the version to read, where the snapshot names a version of the same table with the same content number.
    """
    if isinstance(root, Bucket):
        number, newest = _row_end(root)
        if newest is None:
            return ()
        moved = _moved(newest, at)
        if moved is None or not _in_row(root, number + 1).write_new(moved):
            _settle(root, newest)
            return ()  # nothing to move, or another publisher was quicker: the next maintenance will do it
        _settle(root, _parsed(root, _in_row(root, number + 1), moved))
        return (newest.id,)
    folder = root / "snapshots"
    changed = []
    with (
        storage_errors("publish a snapshot", folder),
        exclusive(folder / ".lock", "a publication", wait_seconds=_PUBLISH_WAIT_SECONDS),
    ):
        for name in published(root):
            moved = _moved(load(root, name), at)
            if moved is not None:
                write_whole(_file(root, name), moved)
                changed.append(name)
    return tuple(changed)


def published_at(root: Place, name: str) -> datetime:
    """When a snapshot's file was written: at its publication, or since then by maintenance."""
    if isinstance(root, Bucket):
        import obstore

        moment: datetime = obstore.head(*_own_file(root, name).object)["last_modified"]
        return moment
    return datetime.fromtimestamp(_file(root, name).stat().st_mtime, UTC)


def forget(root: Place, names: Collection[str]) -> None:
    """Take published snapshots away; those that remain stay readable, in the same order. The newest cannot be forgotten."""
    if newest_name(root) in names:
        raise InputError("the newest snapshot cannot be forgotten")
    if isinstance(root, Bucket):
        for number in _row(root):
            place = _in_row(root, number)
            data = place.read()
            if data is not None and _parsed(root, place, data).id in names:
                place.remove()
        for name in names:
            _own_file(root, name).remove()
        return
    folder = root / "snapshots"
    with (
        storage_errors("forget a snapshot", folder),
        exclusive(folder / ".lock", "a publication", wait_seconds=_PUBLISH_WAIT_SECONDS),
    ):
        kept = [name for name in published(root) if name not in names]
        for name, parent in zip(
            kept, [*kept[1:], None], strict=True
        ):  # the links first: whatever happens then, what remains can be found
            snapshot = load(root, name)
            if snapshot.parent != parent:
                write_whole(_file(root, snapshot.id), _document(snapshot.id, parent, snapshot.tables))
        for name in names:
            _file(root, name).unlink(missing_ok=True)


def _moved(snapshot: Snapshot, at: Mapping[str, TableVersion]) -> bytes | None:
    tables = dict(snapshot.tables)
    for name, now in at.items():
        then = tables.get(name)
        if then is not None and (then.table_id, then.chain) == (now.table_id, now.chain):
            tables[name] = now
    return None if tables == dict(snapshot.tables) else _document(snapshot.id, snapshot.parent, tables)


def published(root: Place) -> tuple[str, ...]:
    """Ids of the published snapshots, the newest first."""
    if isinstance(root, Bucket):
        return _published_in_bucket(root)
    found: list[str] = []
    name = newest_name(root)
    while name is not None:
        found.append(name)
        name = load(root, name).parent
    return tuple(found)


def load(root: Place, name: str | None = None) -> Snapshot:
    """Read a published snapshot: the newest, or the one with that id (or an unambiguous beginning of it)."""
    if isinstance(root, Bucket):
        return _load_from_bucket(root, name)
    if name is None:
        name = newest_name(root)
        if name is None and any((root / "snapshots").glob("*.json")):
            raise IntegrityError(
                f"{root / 'snapshots' / 'NEWEST'} is gone: which snapshot is the newest is not known",
                remedy="run any ingest again: it publishes the newest state and names it there",
            )
        if name is None:
            raise _nothing_published(root)
        if not _file(root, name).exists():
            raise IntegrityError(f"the newest snapshot's file {_file(root, name)} is gone", remedy=_LOST)
    path = _file(root, name)
    if not re.fullmatch(r"[0-9a-f]{16}", name) or not path.exists():  # only a beginning has to be looked for among all
        path = _file(root, _whole_name(root, name, sorted(one.stem for one in (root / "snapshots").glob("*.json"))))
    with storage_errors("read a snapshot", path):
        return _parsed(root, path, path.read_bytes())


def _nothing_published(root: Place) -> UnknownNameError:
    return UnknownNameError(f"the lake in {root} has no published snapshot", remedy="ingest something first: quant ingest --help")


def _parsed(root: Place, place: Place, data: bytes | None) -> Snapshot:
    """The snapshot that a file, or an object of the row, holds, when it is intact."""
    try:
        content = json.loads(data or b"")
        promised = content.pop("sha256")
        tables = {table: TableVersion(**at) for table, at in content["tables"].items()}
        called = content["id"] if re.fullmatch(r"\d{20}", place.stem) else place.stem
        intact = promised == digest(content) and content["id"] == called == snapshot_id(tables)
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise IntegrityError(f"the snapshot file {place} is damaged", remedy=_LOST)
    return Snapshot(root=root, id=content["id"], tables=tables, parent=content["parent"])


def newest_name(root: Place) -> str | None:
    """The id of the newest snapshot: in the pointer to it, in a bucket at the end of the row; None where there is none."""
    if isinstance(root, Bucket):
        newest = _row_end(root)[1]
        return None if newest is None else newest.id
    pointer = root / "snapshots" / "NEWEST"
    with storage_errors("find the newest snapshot", pointer):
        if not pointer.exists():
            return None
        name = pointer.read_text(encoding="ascii", errors="replace")
    if not re.fullmatch(r"[0-9a-f]{16}", name):
        raise IntegrityError(
            f"{pointer} is damaged: it holds {name[:40]!r}",
            remedy="write the newest snapshot's id into it, or delete it and publish again",
        )
    return name


def _whole_name(root: Place, name: str, known: list[str]) -> str:
    known = sorted(set(known))
    if name in known:
        return name
    near = [one for one in known if name and one.startswith(name)]
    if len(near) == 1:
        return near[0]
    if near:
        raise UnknownNameError(f"{len(near)} snapshots begin with {name!r}", remedy=f"give more digits: {', '.join(near[:5])}")
    raise UnknownNameError(f"no snapshot is called {name!r} in {root}", remedy=did_you_mean(name, known))


def _file(root: Path, name: str) -> Path:
    return root / "snapshots" / f"{name}.json"


def _publish_in_bucket(root: Bucket) -> Snapshot:
    """Without a lock: the whole snapshot is put, if absent, as the next of a numbered row; then under its id.

    Of several publishers one gets the number; the others look at the tables again. So the row is the order of publication, its
    last object is the newest snapshot, and each snapshot's parent is the one before it. A publisher that dies between the two
    puts leaves the newest without a file of its own; the next one makes it before it goes on (`_row_end`), and who asks for the
    id meanwhile finds it in the row.
    """
    for _ in range(_PUBLISH_ATTEMPTS):
        number, newest = _row_end(root)
        if newest is not None:
            _settle(root, newest)
        tables = _collect(root)
        name = snapshot_id(tables)
        if newest is not None and name == newest.id:
            return newest
        document = _document(name, None if newest is None else newest.id, tables)
        if _in_row(root, number + 1).write_new(document):
            _own_file(root, name).write_new(document)
            return _parsed(root, _in_row(root, number + 1), document)
    raise LockHeldError(
        f"other publishers in {root} were quicker in each of {_PUBLISH_ATTEMPTS} attempts; nothing was published",
        remedy="run the same command again",
    )


def _settle(root: Bucket, newest: Snapshot) -> None:
    """Let the newest snapshot's own file say what the row says, before anything follows it in the row.

    Whoever put it there, or maintenance, may have died before that. A file that names later versions is left: who is late does not
    undo what maintenance has done since.
    """
    place = _own_file(root, newest.id)
    data = place.read()
    if data is None:
        place.write_new(_document(newest.id, newest.parent, newest.tables))
        return
    try:
        stored = _parsed(root, place, data).tables
    except IntegrityError:  # the row's is whole, and takes its place
        stored = {}
    if any(name not in stored or stored[name].version < at.version for name, at in newest.tables.items()):
        place.write(_document(newest.id, newest.parent, newest.tables))


def _row_end(root: Bucket) -> tuple[int, Snapshot | None]:
    """The number of the newest publication and the snapshot it made; 0 and None before the first."""
    numbers = _row(root)
    if not numbers:
        return 0, None
    place = _in_row(root, numbers[-1])
    return numbers[-1], _parsed(root, place, place.read())


def _row(root: Bucket) -> list[int]:
    found = (root / "snapshots" / "row").files()
    return sorted(int(name.removesuffix(".json")) for name in found if re.fullmatch(r"\d{20}\.json", name))


def _in_row(root: Bucket, number: int) -> Bucket:
    return root / "snapshots" / "row" / f"{number:020d}.json"


def _own_file(root: Bucket, name: str) -> Bucket:
    return root / "snapshots" / f"{name}.json"


def _load_from_bucket(root: Bucket, name: str | None) -> Snapshot:
    newest = _row_end(root)[1]
    if name is None:
        if newest is None:
            raise _nothing_published(root)
        return newest
    files = [file.removesuffix(".json") for file in (root / "snapshots").files() if file.endswith(".json")]
    name = _whole_name(root, name, [*files, *([] if newest is None else [newest.id])])
    if newest is not None and name == newest.id:
        return newest
    place = _own_file(root, name)
    return _parsed(root, place, place.read())


def _published_in_bucket(root: Bucket) -> tuple[str, ...]:
    places = [_in_row(root, number) for number in reversed(_row(root))]
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        documents = list(pool.map(Bucket.read, places))
    found = (_parsed(root, place, data).id for place, data in zip(places, documents, strict=True))
    return tuple(dict.fromkeys(found))  # one that was laid out anew stands in the row twice
