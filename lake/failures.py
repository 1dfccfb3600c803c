"""Turn what the storage libraries raise into the errors of the house, worded for the person who runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.errors import IntegrityError, StorageError

__all__ = ["first_line", "refused_by_disk", "storage_errors"]

_DISK_FULL = ("no space left", "storagefull", "quota exceeded", "os error 28", "file too large", "os error 27")
_NOT_WRITABLE = ("permission denied", "read-only file system", "not a directory", "os error 13", "os error 20", "os error 30")


@contextmanager
def storage_errors(what: str, path: Path) -> Iterator[None]:
    """Word whatever the disk, delta-rs, DuckDB or Arrow refuse inside the block as a `StorageError`.

    Delta's commit conflict is let through: the writer answers it by trying again.

    Parameters
    ----------
    what : str
        What was being done: "write the table equity_bars".
    path : Path
        Where.

    Raises
    ------
    StorageError
        Disk full, folder not writable, or another refusal of the storage below.
    IntegrityError
        DuckDB cannot make sense of a file.
    """
    import duckdb
    import pyarrow as pa
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError:
        raise
    except (OSError, DeltaError, duckdb.IOException, duckdb.OutOfMemoryException, pa.ArrowException) as problem:
        raise StorageError(_wording(what, path, problem), remedy=_remedy(path, problem)) from problem
    except RuntimeError as problem:  # DuckDB's answer to Ctrl-C in the middle of a query
        if str(problem) != "Query interrupted":
            raise
        raise KeyboardInterrupt from problem
    except (duckdb.Error, UnicodeDecodeError) as problem:
        # A damaged Parquet footer comes as the root class; what a query of the user got wrong has classes of its own.
        if type(problem) not in (duckdb.Error, duckdb.InvalidInputException, duckdb.SerializationException, UnicodeDecodeError):
            raise
        raise IntegrityError(
            f"a file of the lake is damaged: {problem}", remedy="restore the folder from a backup, or ingest into a new home"
        ) from problem


def _wording(what: str, path: Path, problem: Exception) -> str:
    return f"cannot {what} in {path}: {first_line(problem)}"


def first_line(problem: Exception) -> str:
    """What a library said, in one line and without the Rust backtrace that delta-rs puts behind it."""
    said = re.split(r" 0: | stack backtrace", " ".join(str(problem).split()))[0]
    return said if len(said) <= 300 else f"{said[:297]}..."


def refused_by_disk(problem: Exception) -> bool:
    """Whether the disk refused (it is full, the folder is not writable), rather than what it holds being wrong."""
    text = str(problem).lower()
    return any(sign in text for sign in (*_DISK_FULL, *_NOT_WRITABLE))


def _remedy(path: Path, problem: Exception) -> str:
    text = str(problem).lower()
    if any(sign in text for sign in _DISK_FULL):
        return f"free space on the disk that holds {path} and run the same command again: what was acknowledged before is safe"
    if any(sign in text for sign in _NOT_WRITABLE):
        return f"make {path} a writable folder, or set QUANT_HOME to one"
    return "run the same command again: what was acknowledged before is safe"
