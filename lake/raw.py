"""The bytes of every answer a source gave, kept under their own SHA-256."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from config.errors import InputError, IntegrityError, UnknownNameError
from config.hashing import sha256_bytes
from lake.failures import storage_errors
from lake.files import write_whole

__all__ = ["RawStore"]


@dataclass(frozen=True, slots=True)
class RawStore:
    """A folder of answers, each in a file named by its hash. Storing the same bytes twice stores them once.

    Parameters
    ----------
    folder : Path
        Made when the first answer is stored.
    """

    folder: Path

    def put(self, data: bytes) -> str:
        """Store bytes; return their SHA-256 (64 hex digits).

        On return they are on the disk. A damaged file of the same name is replaced.

        Raises
        ------
        StorageError
            Disk full, or the folder cannot be written.
        """
        name = sha256_bytes(data)
        path = self.folder / name
        with storage_errors("store a source's answer", self.folder):
            if not (path.is_file() and path.stat().st_size == len(data) and sha256_bytes(path.read_bytes()) == name):
                write_whole(path, data)
        return name

    def get(self, name: str) -> bytes:
        """Return the bytes whose SHA-256 is `name`, verified.

        Raises
        ------
        InputError
            `name` is not 64 hex digits.
        UnknownNameError
            Nothing is stored under that hash.
        IntegrityError
            The file no longer has the bytes its name promises.
        StorageError
            It cannot be read.
        """
        path = self._path(name)
        if not path.is_file():
            raise UnknownNameError(
                f"no answer with SHA-256 {name} is stored in {self.folder}",
                remedy="ingest it again, or look in the lake it came from",
            )
        with storage_errors("read a source's answer", self.folder):
            data = path.read_bytes()
        found = sha256_bytes(data)
        if found != name:
            raise IntegrityError(
                f"{path} is damaged: its bytes have SHA-256 {found}",
                remedy="restore the file from a backup, or ingest that answer again",
            )
        return data

    def __contains__(self, name: str) -> bool:
        return self._path(name).is_file()

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", name):
            raise InputError(f"{name!r} is not a SHA-256: 64 lower-case hex digits")
        return self.folder / name
