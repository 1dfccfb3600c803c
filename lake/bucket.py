"""A folder of the lake that is a prefix of a bucket in an object store, and the files of it that are kept on this machine.

1. `Bucket` reads, lists, puts and puts-if-absent small objects (log entries, snapshots, answers) through obstore.
2. `Bucket.delta_options` tells delta-rs to commit by the same conditional put: of two writers of one version one is refused.
3. `on_disk` fetches Parquet files, which never change once written, into a folder of this machine, where DuckDB reads them.
4. `_make_room` takes away what was not read for a day when the folder has outgrown its bound.

Credentials and endpoint come from the environment (AWS_*), are read by the libraries themselves, and are kept nowhere.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from config.errors import IntegrityError, StorageError
from config.hashing import sha256_bytes
from lake.failures import object_errors, storage_errors

__all__ = ["Bucket", "BucketFile", "on_disk"]

_RETRIES, _PATIENCE_SECONDS = 5, 30
_FETCHED_AT_ONCE = 8
_CHUNK_BYTES = 4 << 20
_KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place in a bucket; `/` leads deeper, as with a `Path`.

    Parameters
    ----------
    address : str
        ``s3://bucket/prefix``.
    kept_in : Path
        The folder of this machine for the files that were read.
    kept_bytes : int
        How large that folder may grow before what was not read for a day is taken away.
    """

    address: str
    kept_in: Path = field(compare=False)
    kept_bytes: int = field(default=20_000_000_000, compare=False)

    def __truediv__(self, name: str) -> Bucket:
        return Bucket(f"{self.address}/{name}", self.kept_in, self.kept_bytes)

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def delta_options(self) -> dict[str, str]:
        """What delta-rs is told besides what it reads from the environment itself."""
        endpoint, region = _endpoint(), _region()
        options = {
            "conditional_put": "etag",
            "region": region,
            "max_retries": str(_RETRIES),
            "retry_timeout": f"{_PATIENCE_SECONDS}s",
            "allow_http": str(endpoint.startswith("http://")).lower(),
        }
        return options | ({"endpoint_url": endpoint} if endpoint else {})

    def read(self) -> bytes | None:
        """The whole object; None where there is none.

        Raises
        ------
        StorageError
            The store does not answer or refuses.
        """
        import obstore

        with self._asking("read"):
            try:
                return bytes(obstore.get(*self.object).bytes())
            except FileNotFoundError as problem:
                if not_a_bucket(problem):
                    raise
                return None

    def write(self, data: bytes) -> None:
        """Put the whole object, over any other of that name. On return the store has it."""
        import obstore

        with self._asking("write"):
            obstore.put(*self.object, data)

    def write_new(self, data: bytes) -> bool:
        """Put the whole object if there is none of that name; False where there is one. Of several who try at once, one succeeds.

        A put whose answer was lost is asked again by the library, and meets its own object: False then does not mean that
        another process wrote it. Whoever needs to know reads it back.
        """
        import obstore

        with self._asking("write"):
            try:
                obstore.put(*self.object, data, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def exists(self) -> bool:
        """Whether there is an object of that name."""
        return self.stamp() is not None

    def stamp(self) -> str | None:
        """What tells the object from another one of that name: endpoint, tag, time and size; None where there is none."""
        import obstore

        with self._asking("find"):
            try:
                about = obstore.head(*self.object)
            except FileNotFoundError as problem:
                if not_a_bucket(problem):
                    raise
                return None
        return f"{_endpoint()} {about['e_tag']} {about['last_modified']} {about['size']}"

    def remove(self) -> None:
        """Delete the object; nothing happens where there is none."""
        import obstore

        with self._asking("delete"), suppress(FileNotFoundError):
            obstore.delete(*self.object)

    def files(self) -> list[str]:
        """The names of the objects right under this place, sorted."""
        objects: Sequence[Any] = self._listing()["objects"]
        return sorted(one["path"].rpartition("/")[2] for one in objects)

    def folders(self) -> list[str]:
        """The names of the places right under this one, sorted."""
        return sorted(one.rstrip("/").rpartition("/")[2] for one in self._listing()["common_prefixes"])

    def require_conditional_put(self) -> None:
        """Refuse a store that lets a second put of a name succeed where it was asked not to: its writers would undo each other.

        Raises
        ------
        StorageError
            It does; or it does not answer or refuses.
        """
        probe = self / f"probe-{uuid.uuid4().hex}"
        first = probe.write_new(b"first")
        second = probe.write_new(b"second")
        kept = probe.read()
        probe.remove()
        if second or kept != b"first":
            raise StorageError(
                f"the object store of {self} overwrites what it was asked to put only if absent (If-None-Match): of two writers "
                f"one would undo the other's commit (first put {first}, second put {second})",
                remedy="use a store that honours conditional writes (AWS S3, Google Cloud Storage, Cloudflare R2, a current MinIO)",
            )

    def _listing(self) -> Any:
        import obstore

        store, prefix = self.object
        with self._asking("list objects"):
            return obstore.list_with_delimiter(store, prefix or None)

    @property
    def object(self) -> tuple[Any, str]:
        """obstore's client of the bucket, and the key."""
        bucket, key = self._parts
        return _store(bucket, _endpoint(), _region(), _identity()), key

    @property
    def kept_at(self) -> Path:
        """Where this file is kept on this machine."""
        bucket, key = self._parts
        return self.kept_in / sha256_bytes(f"{_endpoint()}/{bucket}".encode())[:16] / key

    @property
    def _parts(self) -> tuple[str, str]:
        parts = self.address.removeprefix("s3://").partition("/")
        return parts[0], parts[2]

    @contextmanager
    def _asking(self, act: str) -> Iterator[None]:
        with object_errors(act, self.address):
            yield


class BucketFile(str):
    """The address of a data file in a bucket, with the bucket that knows where it is kept on this machine."""

    bucket: Bucket

    @classmethod
    def of(cls, bucket: Bucket) -> BucketFile:
        """The file at this place."""
        file = cls(bucket.address)
        file.bucket = bucket
        return file


def on_disk(files: Sequence[str], *, again: bool = False) -> list[str]:
    """Paths of this machine for a table's files: those of a bucket are fetched, and kept; others are as they are.

    A data file is never written twice under one name, so one that is kept is not asked for again.

    Parameters
    ----------
    files : sequence of str
        Paths, or `BucketFile`s.
    again : bool
        Fetch what is kept already, to see what the store holds now.

    Raises
    ------
    StorageError
        The store does not answer or refuses, or this machine's disk is full.
    IntegrityError
        A file is gone from the store.
    """
    remote = [file.bucket for file in files if isinstance(file, BucketFile)]
    if not remote:
        return list(files)
    missing = [one for one in remote if again or not _touch(one.kept_at)]
    if missing:
        with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
            list(pool.map(_fetch, missing))
        _make_room(remote[0].kept_in, remote[0].kept_bytes)
    return [str(file.bucket.kept_at) if isinstance(file, BucketFile) else file for file in files]


def _touch(path: Path) -> bool:
    """Note that a kept file is read now; False where it is not kept."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _fetch(file: Bucket) -> None:
    """Keep a file on this machine: it appears whole, with the length that the store promised, or not at all."""
    import obstore

    path = file.kept_at
    with storage_errors("keep a file of the bucket", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            with object_errors("read a file", file.address):
                try:
                    answer = obstore.get(*file.object)
                except FileNotFoundError as problem:
                    if not_a_bucket(problem):
                        raise
                    raise IntegrityError(
                        f"the file {file} is gone", remedy="restore it from a backup of the bucket, or ingest into a new lake"
                    ) from None
                chunks = answer.stream(min_chunk_size=_CHUNK_BYTES)
            length = _copy(chunks, stream, file, path)
        if length != answer.meta["size"]:
            raise StorageError(
                f"{file}: {length} bytes came of {answer.meta['size']}", remedy="run the same command again: nothing was lost"
            )
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def _copy(chunks: Iterator[Any], stream: BinaryIO, file: Bucket, path: Path) -> int:
    """Write what comes, and force it to the disk; return how many bytes there were. Either side may fail, each in its own words."""
    length = 0
    while True:
        with object_errors("read a file", file.address):
            chunk = next(chunks, None)
        if chunk is None:
            break
        with storage_errors("keep a file of the bucket", path.parent):
            stream.write(chunk)
        length += len(chunk)
    with storage_errors("keep a file of the bucket", path.parent):
        stream.flush()
        os.fsync(stream.fileno())
    return length


def _make_room(folder: Path, most_bytes: int) -> None:
    """Take away what was read longest ago, while the folder holds more than it may; what was read today stays, a reader may have
    it open."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process makes room too
            state = path.stat()
            if path.is_file():
                found.append((state.st_mtime, state.st_size, path))
    held = sum(size for _, size, _ in found)
    for read_at, size, path in sorted(found):
        if held <= most_bytes or time.time() - read_at < _KEPT_SECONDS:
            return
        with suppress(FileNotFoundError):
            if path.stat().st_mtime == read_at:
                path.unlink()
                held -= size


def not_a_bucket(problem: Exception) -> bool:
    """Whether the store says that the bucket itself is not there: it says so with the same class as of an object."""
    return "NoSuchBucket" in str(problem)


def _endpoint() -> str:
    """The endpoint as the environment names it; empty for the cloud's own."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "").rstrip("/")


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


@lru_cache(maxsize=16)
def _store(bucket: str, endpoint: str, region: str, identity: str) -> Any:
    """A client of a bucket; `identity` (a digest) makes another one when the environment names other credentials."""
    del identity
    from obstore.store import S3Store

    return S3Store(
        bucket,
        region=region,
        **({"endpoint": endpoint} if endpoint else {}),
        client_options={"allow_http": endpoint.startswith("http://"), "connect_timeout": "5s"},
        retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_PATIENCE_SECONDS)},
    )


def _identity() -> str:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return sha256_bytes("\0".join(os.environ.get(name, "") for name in names).encode())
