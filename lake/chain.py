"""A table's content in one number: the sum of the digests of every batch of rows ever written to it.

A sum does not depend on the order of the batches, so parallel writers of different keys that finish in another order leave the
same number. (Batches that share keys do not commute: which of their rows are new depends on who came first.)
Rows are never removed, so a table's number never comes back to an earlier value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["EMPTY", "add", "rows_digest"]

EMPTY = "0" * 64
_MODULUS = 1 << 256


def add(chain: str, batch: str) -> str:
    """The content number after a batch with that digest was written (both 64 hex digits)."""
    return f"{(int(chain, 16) + int(batch, 16)) % _MODULUS:064x}"


def rows_digest(batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, without: tuple[str, ...] = ()) -> str:
    """SHA-256 (64 hex digits) of rows in a stated order.

    Equal rows give equal digests in every process and however they are cut into record batches: a column contributes its
    name and type, which values are missing, and the bytes of those that are not. NaN has one form.

    Parameters
    ----------
    batches : iterable of RecordBatch
        Rows in the order that counts (the caller sorts by key).
    schema : Schema
        Names the columns, and their order.
    without : tuple of str
        Columns that do not count.
    """
    columns = {field.name: _ColumnDigest(field) for field in schema if field.name not in without}
    for batch in batches:
        for name, column in columns.items():
            column.update(batch.column(name))
    whole = hashlib.sha256()
    for column in columns.values():
        whole.update(column.digest())
    return whole.hexdigest()


class _ColumnDigest:
    """Digests one column chunk by chunk; the cuts between chunks leave no trace."""

    def __init__(self, field: pa.Field) -> None:
        self.kind = field.type
        self.head = f"{field.name}\x00{field.type}\x00".encode()
        self.parts = [hashlib.sha256() for _ in range(3)]  # missing, lengths, values

    def update(self, values: pa.Array) -> None:
        missing, lengths, content = self.parts
        missing.update(_numpy(pc.is_null(values).cast(pa.uint8())).tobytes())
        if pa.types.is_string(self.kind):
            filled = pc.fill_null(values.cast(pa.string()), "")
            offsets = np.frombuffer(filled.buffers()[1], np.int32)[filled.offset : filled.offset + len(filled) + 1]
            lengths.update(np.diff(offsets).astype("<i4").tobytes())
            data = filled.buffers()[2]
            if data is not None and len(offsets):
                content.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])
            return
        content.update(_fixed_width(values, self.kind))

    def digest(self) -> bytes:
        return hashlib.sha256(self.head + b"".join(part.digest() for part in self.parts)).digest()


def _fixed_width(values: pa.Array, kind: pa.DataType) -> bytes:
    if pa.types.is_floating(kind):
        numbers = _numpy(pc.fill_null(values, 0.0)).astype("<f8")
        return bytes(np.where(np.isnan(numbers), np.float64("nan"), numbers).astype("<f8").tobytes())
    whole = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    return bytes(_numpy(pc.fill_null(values.cast(whole), 0)).astype("<i8").tobytes())


def _numpy(values: pa.Array) -> Any:
    return values.to_numpy(zero_copy_only=False)
