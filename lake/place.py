"""Where tables lie: a folder of this machine (`Path`) or a place in a bucket (`Bucket`), and the acts in which the two differ.

On this machine a file appears whole by a rename and is forced to the disk. In a bucket a put does both; there is nothing to sync
and no folder to make.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from config.addresses import object_store
from lake.bucket import Bucket, BucketFile
from lake.files import make_folder, write_whole

__all__ = ["Place", "data_file", "delta_at", "find", "holds_table", "prepare", "read", "stamp", "tables_in", "write"]

Place = Path | Bucket
# What lies in a lake beside its tables.
_NOT_TABLES = frozenset({"snapshots", "raw", "features"})


def find(address: str, *, kept_in: Path, kept_bytes: int) -> Place:
    """The place at an address: ``s3://bucket/prefix``, or a folder.

    Parameters
    ----------
    kept_in, kept_bytes
        For a bucket: where its files are kept on this machine, and how many bytes of them.
    """
    if object_store(address) is None:
        return Path(address)
    return Bucket(address.rstrip("/"), kept_in, kept_bytes)


def read(place: Place) -> bytes | None:
    """The bytes of a file or object; None where there is none."""
    if isinstance(place, Bucket):
        return place.read()
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None


def stamp(place: Place) -> str | None:
    """What tells a file or object from another one under its name, without reading it; None where there is none."""
    if isinstance(place, Bucket):
        return place.stamp()
    try:
        about = place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return f"{about.st_ino} {about.st_mtime_ns} {about.st_ctime_ns} {about.st_size}"


def write(place: Place, data: bytes) -> None:
    """Write a file or object whole, over any other of that name; on return it is safe."""
    if isinstance(place, Bucket):
        place.write(data)
    else:
        write_whole(place, data)


def delta_at(table: Place) -> tuple[str | Path, dict[str, str] | None]:
    """A table's address and the options with which delta-rs opens it."""
    return (table.address, table.delta_options) if isinstance(table, Bucket) else (table, None)


def holds_table(table: Place) -> bool:
    """False where certainly no table was ever made; a bucket is only asked when the table is opened."""
    return isinstance(table, Bucket) or (table / "_delta_log").is_dir()


def tables_in(root: Place) -> list[str]:
    """Every table that has a folder in the lake, sorted; feature tables as ``features/<version>``."""
    if isinstance(root, Bucket):
        top = root.folders()
        features = (root / "features").folders() if "features" in top else []
        return sorted([*(name for name in top if name not in _NOT_TABLES), *(f"features/{name}" for name in features)])
    logs = [*root.glob("*/_delta_log"), *root.glob("features/*/_delta_log")]
    return sorted(log.parent.relative_to(root).as_posix() for log in logs)


def data_file(table: Place, name: str) -> str:
    """A table's data file, by the name that its log gives, as `lake.query.scan` takes it."""
    if isinstance(table, Bucket):
        return BucketFile.of(table / unquote(name))
    return str(table / unquote(name))


def prepare(table: Place) -> None:
    """Make a table's folder; of a bucket, see to it that two writers cannot undo each other."""
    if isinstance(table, Bucket):
        table.require_conditional_put()
    else:
        make_folder(table)
