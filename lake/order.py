"""Key order without a sort of strings: each row's key becomes one whole number, whose order is the key's.

1. `key_numbers` gives each key column ascending codes (`_codes`) and joins them, the first column most significant.
2. `ascending` sorts those numbers; rows that come in a few sorted runs, as they do from a lake's files, are merged, not sorted.
3. `newest_of` keeps, of rows that share a key, the one with the highest revision.

The order is DuckDB's own: text by its UTF-8 bytes, times and days by their value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["ascending", "key_numbers", "newest_of", "repeats"]

Numbers = npt.NDArray[np.int64]
_MOST = 1 << 62
_UNITS_OF_TIME = (86_400_000_000, 1_000_000, 1_000)  # microseconds in a day, a second, a millisecond


def key_numbers(table: pa.Table, key: Sequence[str]) -> Numbers:
    """One number a row: less, equal or greater as the rows' keys are.

    Parameters
    ----------
    table : pyarrow.Table
        Holds the columns of `key`, without NULLs: text (plain or dictionary-encoded), days, times or whole numbers.

    Returns
    -------
    ndarray of int64, shape (n_rows,)
    """
    joined = np.zeros(table.num_rows, np.int64)
    if table.num_rows == 0:
        return joined
    count = 1
    for column in key:
        codes, span = _codes(table.column(column))
        if count * span >= _MOST:
            codes, span = _coarser(codes)
        if count * span >= _MOST:
            joined, count = _ranks(joined)
        if count * span >= _MOST:
            codes, span = _ranks(codes)
        if span > 1:
            joined = codes if count == 1 else joined * span + codes
        count *= span
    return joined


def ascending(numbers: Numbers) -> Numbers | None:
    """Positions of the rows in ascending order, equal ones as they come; None when they are in order already."""
    if (numbers[1:] >= numbers[:-1]).all():
        return None
    return np.argsort(numbers, kind="stable")


def repeats(numbers: Numbers, order: Numbers | None) -> Numbers:
    """Positions of rows whose key a row before them (in order) has too."""
    placed = numbers if order is None else numbers[order]
    again = np.flatnonzero(placed[1:] == placed[:-1]) + 1
    return again if order is None else order[again]


def newest_of(numbers: Numbers, revisions: npt.NDArray[Any], order: Numbers | None) -> Numbers | None:
    """Positions, in key order, of the row with the highest revision of each key; None for all rows as they are."""
    placed = numbers if order is None else numbers[order]
    same = placed[1:] == placed[:-1]
    if not same.any():
        return order
    shared = np.concatenate(([False], same)) | np.concatenate((same, [False]))  # rows of keys that have several
    where = np.flatnonzero(shared)
    rows = where if order is None else order[where]
    rows = rows[np.lexsort((revisions[rows], numbers[rows]))]
    last = np.append(numbers[rows][1:] != numbers[rows][:-1], True)
    whole = np.arange(len(numbers), dtype=np.int64) if order is None else order.copy()
    whole[where] = rows
    kept = np.ones(len(numbers), bool)
    kept[where] = last
    return whole[kept]


def _codes(column: pa.ChunkedArray) -> tuple[Numbers, int]:
    """Ascending codes of one column, from 0, and how many there may be."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_dictionary(kind):
        return _text_codes(column)
    whole = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    values = column.cast(whole).to_numpy().astype(np.int64, copy=False)
    lowest = int(values.min())
    span = int(values.max()) - lowest + 1
    return (values - lowest if lowest else values), span


def _text_codes(column: pa.ChunkedArray) -> tuple[Numbers, int]:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries()
    words = encoded.chunk(0).dictionary
    sorting = pc.array_sort_indices(words).to_numpy()
    ranks = np.empty(len(words), np.int64)
    ranks[sorting] = np.arange(len(words))
    indices = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    return ranks[indices[0] if len(indices) == 1 else np.concatenate(indices)], len(words)


def _coarser(codes: Numbers) -> tuple[Numbers, int]:
    """The same order in a coarser unit, where every value is a whole number of it."""
    for unit in _UNITS_OF_TIME:
        if not (codes % unit).any():
            codes = codes // unit
            break
    return codes, int(codes.max()) + 1


def _ranks(numbers: Numbers) -> tuple[Numbers, int]:
    found, ranks = np.unique(numbers, return_inverse=True)
    return ranks.astype(np.int64, copy=False), len(found)
