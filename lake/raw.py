"""The bytes of every answer a source gave, kept under their own SHA-256."""

from __future__ import annotations

import re
from dataclasses import dataclass

from config.errors import InputError, IntegrityError, UnknownNameError
from config.hashing import sha256_bytes
from lake.bucket import Bucket
from lake.failures import storage_errors
from lake.place import Place, read, write

__all__ = ["RawStore"]


@dataclass(frozen=True, slots=True)
class RawStore:
    """A folder of answers, each in a file (or object) named by its hash. Storing the same bytes twice stores them once.

    Parameters
    ----------
    folder : Path or Bucket
        Made when the first answer is stored.
    """

    folder: Place

    def put(self, data: bytes) -> str:
        """Store bytes; return their SHA-256 (64 hex digits).

        On return they are safe. A damaged file of the same name is replaced.

        Raises
        ------
        StorageError
            Disk full, or the folder cannot be written.
        """
        name = sha256_bytes(data)
        path = self.folder / name
        with storage_errors("store a source's answer", self.folder):
            if isinstance(path, Bucket) and path.write_new(data):
                return name
            kept = read(path)
            if kept is None or sha256_bytes(kept) != name:
                write(path, data)
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
        with storage_errors("read a source's answer", self.folder):
            data = read(path)
        if data is None:
            raise UnknownNameError(
                f"no answer with SHA-256 {name} is stored in {self.folder}",
                remedy="ingest it again, or look in the lake it came from",
            )
        found = sha256_bytes(data)
        if found != name:
            raise IntegrityError(
                f"{path} is damaged: its bytes have SHA-256 {found}",
                remedy="restore the file from a backup, or ingest that answer again",
            )
        return data

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def _path(self, name: str) -> Place:
        if not re.fullmatch(r"[0-9a-f]{64}", name):
            raise InputError(f"{name!r} is not a SHA-256: 64 lower-case hex digits")
        return self.folder / name
