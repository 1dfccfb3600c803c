"""Files that appear whole or not at all and are on the disk before anyone is told so."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["make_folder", "sync", "write_whole"]


def sync(path: Path) -> None:
    """Force a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each forced to the disk."""
    missing = [folder, *folder.parents]
    missing = missing[: next(n for n, parent in enumerate(missing) if parent.is_dir())]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync(made.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write `path` so that a reader, or a crash, meets the old content or the new one and nothing between.

    A temporary file beside it is written, forced to the disk, and renamed over it; then the folder is forced.
    """
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)
