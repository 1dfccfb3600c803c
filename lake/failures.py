"""Turn what the storage libraries raise into the errors of the house, worded for the person who runs it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from config.addresses import without_password
from config.errors import IntegrityError, QuantError, StorageError

__all__ = ["first_line", "object_errors", "refused_by_storage", "storage_errors"]

_DISK_FULL = ("no space left", "storagefull", "quota exceeded", "os error 28", "file too large", "os error 27")
_NOT_WRITABLE = ("permission denied", "read-only file system", "not a directory", "os error 13", "os error 20", "os error 30")
# What object stores and the libraries that ask them say, and what can be done about it.
_NO_BUCKET = ("nosuchbucket",)
_NO_CREDENTIALS = (
    "invalidaccesskeyid",
    "signaturedoesnotmatch",
    "accessdenied",
    "expiredtoken",
    "invalidtoken",
    "403 forbidden",
    "401 unauthorized",
    "credential",
    "169.254.169.254",  # no key in the environment: the libraries then ask the machine's own metadata service
    "permission denied",
)
_NO_ANSWER = ("error sending request", "timed out", "connection refused", "connection reset", "http error", "generic s3 error")
_SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SECRET_TAGS = re.compile(r"<(AWSAccessKeyId|StringToSign|StringToSignBytes|CanonicalRequest\w*|SignatureProvided)>.*?</\1>", re.S)


@contextmanager
def storage_errors(what: str, path: Any) -> Iterator[None]:
    """Word whatever the disk, delta-rs, DuckDB or Arrow refuse inside the block as a `StorageError`.

    Delta's commit conflict is let through: the writer answers it by trying again.

    Parameters
    ----------
    what : str
        What was being done: "write the table equity_bars".
    path : Path or Bucket
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

    refusals: tuple[type[Exception], ...] = (
        OSError,
        DeltaError,
        duckdb.IOException,
        duckdb.OutOfMemoryException,
        pa.ArrowException,
    )
    if _in_object_store(path):
        from obstore.exceptions import BaseError

        refusals = (*refusals, BaseError)
    try:
        yield
    except CommitFailedError:
        raise
    except refusals as problem:
        if _in_object_store(path) and not isinstance(problem, duckdb.Error):
            # What the library said may name the key it was refused with, so it does not travel along.
            raise StorageError(_wording(what, path, problem), remedy=_remedy(path, problem)) from None
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


@contextmanager
def object_errors(what: str, address: str) -> Iterator[None]:
    """Word whatever an object store or the way to it refuses inside the block as a `StorageError`, without credentials.

    Raises
    ------
    StorageError
        No such bucket, credentials that are wrong or may not do this, no answer.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except QuantError:
        raise
    except (OSError, BaseError) as problem:
        raise StorageError(_wording(what, address, problem), remedy=_remedy(address, problem)) from None


def _in_object_store(place: object) -> bool:
    return str(place).startswith("s3://")


def _wording(what: str, path: object, problem: Exception) -> str:
    return f"cannot {what} in {path}: {first_line(problem)}"


def first_line(problem: Exception) -> str:
    """What a library said, in one line, without the Rust backtrace that delta-rs puts behind it and without credentials."""
    plain = _without_credentials(re.sub(r"\s*↳", ":", re.sub(r"\x1b\[\d+m", "", str(problem))))
    said = re.split(r" 0: | stack backtrace| Debug source:", " ".join(plain.split()))[0]
    answer = re.search(r"status code: (\d+[^<:]*):.*?<Code>(\w+)</Code>(?:\s*<Message>([^<]*)</Message>)?", said)
    if answer:
        said = f"the store answered {answer[1].strip()}, {answer[2]}: {answer[3] or 'no more said'}"
    return said if len(said) <= 400 else f"{said[:397]}..."


def _without_credentials(text: str) -> str:
    text = _SECRET_TAGS.sub("", text)
    for name in _SECRET_VARIABLES:
        value = os.environ.get(name)
        if value:
            text = text.replace(value, "***")
    return without_password(text)


def refused_by_storage(problem: Exception) -> bool:
    """Whether the disk or the object store refused (full, not writable, no answer), rather than what it holds being wrong."""
    text = str(problem).lower()
    return any(sign in text for sign in (*_DISK_FULL, *_NOT_WRITABLE, *_NO_BUCKET, *_NO_CREDENTIALS, *_NO_ANSWER))


def _remedy(path: object, problem: Exception) -> str:
    text = str(problem).lower()
    if _in_object_store(path):
        return _remedy_in_object_store(text)
    if any(sign in text for sign in _DISK_FULL):
        return f"free space on the disk that holds {path} and run the same command again: what was acknowledged before is safe"
    if any(sign in text for sign in _NOT_WRITABLE):
        return f"make {path} a writable folder, or set QUANT_HOME to one"
    return "run the same command again: what was acknowledged before is safe"


def _remedy_in_object_store(text: str) -> str:
    if any(sign in text for sign in _NO_BUCKET):
        return "make the bucket, or correct lake.path (QUANT_LAKE__PATH)"
    if any(sign in text for sign in _NO_CREDENTIALS):
        return (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, AWS_REGION) to credentials that may list, "
            "read and write this bucket"
        )
    again = "run the same command again: what was acknowledged before is safe"
    if any(sign in text for sign in _NO_ANSWER):
        return f"check AWS_ENDPOINT_URL and the network, then {again}"
    return again
