"""Locks between processes, exclusive or held together, that the kernel lets go of when their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from config.errors import LockHeldError, StorageError

__all__ = ["exclusive", "together"]


@contextmanager
def exclusive(path: Path, what: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    Parameters
    ----------
    path : Path
        The lock file; its folder is made when missing. The file stays, the lock does not.
    what : str
        What the lock guards, for the message: "a demo", "the journal of account X".
    wait_seconds : float
        How long to wait for another holder before giving up.

    Raises
    ------
    LockHeldError
        Another process holds it.
    StorageError
        The folder cannot be written.
    """
    handle = _opened(path)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(handle, 64, 0).decode(errors="replace").strip() or "unknown"
                    raise LockHeldError(
                        f"another process (pid {holder}) is running {what} in {path.parent}",
                        remedy="wait until it has ended, or set QUANT_HOME to another folder",
                    ) from None
                time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def together(path: Path, alone: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` together with others while the block runs.

    Parameters
    ----------
    path : Path
        The lock file; its folder is made when missing.
    alone : callable
        Called before the block where nobody else holds the lock; who comes meanwhile waits until it has returned.

    Raises
    ------
    StorageError
        The folder cannot be written.
    """
    handle = _opened(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(handle, fcntl.LOCK_SH)
        else:
            alone()
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as problem:
        raise StorageError(
            f"cannot write the lock file {path}: {problem.strerror}", remedy=f"make {path.parent} writable, or set QUANT_HOME"
        ) from problem
