"""Filtered reads that want a large share of a table: by Arrow, without a sort and without a comparison of every revision.

1. `key_filter` says whether a read's conditions are of the kind that Arrow answers exactly as DuckDB does: words of text columns of
   the key, and days or times of the table's own.
2. `is_broad` estimates the share of rows that it wants: from the files' bounds, and from one file's words.
3. `read_broad` reads file by file, keeps what can be part of the answer, and leaves order and revisions to `lake.order`.

DuckDB answers the others: where few rows are wanted it reads less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from config.tables import TableSpec
from lake.bucket import on_disk
from lake.delta import PHYSICAL
from lake.held import Held, comparable
from lake.parts import Part, between, read_parts
from lake.query import aware

__all__ = ["KeyFilter", "is_broad", "key_filter", "read_broad"]

_FEW_WORDS = 16  # of the column by which files are ordered: DuckDB leaps to them
_LARGE_SHARE = 0.15
_DAY = timedelta(days=1)
Bound = date | datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFilter:
    """Conditions on text columns of the key, and on days or times.

    Parameters
    ----------
    words : mapping of str to pyarrow.Array
        Column and the values that are wanted.
    bounds : tuple of (str, low or None, high or None)
        Columns of days or times, both ends included.
    """

    words: Mapping[str, pa.Array]
    bounds: tuple[tuple[str, Bound | None, Bound | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """What has to be read to answer it."""
        return tuple(dict.fromkeys((*self.words, *(column for column, _, _ in self.bounds))))

    def wanted(self, rows: pa.Table) -> pa.ChunkedArray | None:
        """Which rows have the words; None for all."""
        mask = None
        for column, values in self.words.items():
            mask = _both(mask, _has(rows[column], values))
        return mask

    def inside(self, rows: pa.Table) -> pa.ChunkedArray | None:
        """Which rows lie within the bounds; None for all."""
        mask = None
        for column, low, high in self.bounds:
            kind = rows.schema.field(column).type
            if low is not None:
                mask = _both(mask, pc.greater_equal(rows[column], pa.scalar(low, kind)))
            if high is not None:
                mask = _both(mask, pc.less_equal(rows[column], pa.scalar(high, kind)))
        return mask


def key_filter(spec: TableSpec, where: Mapping[str, Any] | None, start: Bound | None, end: Bound | None) -> KeyFilter | None:
    """The conditions as Arrow can ask them; None where DuckDB has to."""
    words: dict[str, pa.Array] = {}
    for column, value in (where or {}).items():
        values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
        text = pa.types.is_string(spec.schema.field(column).type)
        if column not in spec.key or not text or not all(isinstance(one, str) for one in values):
            return None
        words[column] = pa.array(values, pa.string())
    bounds: list[tuple[str, Bound | None, Bound | None]] = []
    for low, high in ((start, None), (None, end)):
        bound = low if low is not None else high
        if bound is None:
            continue
        column = spec.event_time if isinstance(bound, datetime) or "session" not in spec.schema.names else "session"
        if not comparable(spec, column, bound) or spec.schema.field(column).nullable:
            return None
        moment = aware(bound) if isinstance(bound, datetime) else bound
        bounds.append((column, moment if low is not None else None, moment if low is None else None))
    return KeyFilter(words=words, bounds=tuple(bounds))


def is_broad(held: Held, asked: KeyFilter, parts: Sequence[Part]) -> bool:
    """Whether the read wants a large share of the rows in these files."""
    if len(asked.words.get(held.spec.key[0], range(_FEW_WORDS))) < _FEW_WORDS:
        return False
    share = sum(part.rows * _share(part, asked) for part in parts) / max(sum(part.rows for part in parts), 1)
    if share >= _LARGE_SHARE and asked.words:
        largest = max(parts, key=lambda part: part.rows)
        sample = read_parts(held.place, [largest], [held.spec.schema.field(column) for column in asked.words])
        share *= (pc.sum(asked.wanted(sample)).as_py() or 0) / max(sample.num_rows, 1)
    return share >= _LARGE_SHARE


def read_broad(held: Held, asked: KeyFilter, parts: Sequence[Part], schema: pa.Schema, *, as_of: datetime | None) -> pa.Table:
    """The newest version of every key that the filter wants, available at `as_of`, in key order; parameters as of `Held.whole`.

    All versions of a key have its words, so those are asked of every version. A revision may move a row out of the bounds, so
    those are asked of the newest version only; until then a row that lies outside stays if it is a revision.
    """
    needed = dict.fromkeys((*schema.names, *held.spec.key, *asked.columns))
    if as_of is not None:
        as_of = aware(as_of)
        needed["available_at"] = None
        parts = between(parts, "available_at", high=as_of)
    if held.revised:
        needed["revision"] = None
    known = {field.name: field for field in (*held.spec.schema, *PHYSICAL)}
    fields = [known[name] for name in needed]
    kept = [read_parts(held.place, (), fields)]
    on_disk(held.files(parts))  # a bucket's files are fetched several at once
    for part in parts:
        rows = read_parts(held.place, [part], fields)
        mask = asked.wanted(rows)
        if as_of is not None:
            mask = _both(mask, pc.less_equal(rows["available_at"], pa.scalar(as_of, rows.schema.field("available_at").type)))
        inside = None if all(_within(part, *bound) for bound in asked.bounds) else asked.inside(rows)
        if inside is not None and held.revised:
            inside = pc.or_kleene(inside, pc.greater(rows["revision"], 0))
        mask = _both(mask, inside)
        kept.append(rows if mask is None or pc.all(mask, skip_nulls=False).as_py() else rows.filter(mask))
    found = held.newest_in_order(pa.concat_tables(kept), pa.schema([held.spec.schema.field(n) for n in _with(schema, asked)]))
    outside = asked.inside(found) if held.revised else None
    if outside is not None:
        found = found.filter(outside)
    return found.select(schema.names)


def _with(schema: pa.Schema, asked: KeyFilter) -> tuple[str, ...]:
    """The columns of the answer, and the bounded ones."""
    return tuple(dict.fromkeys((*schema.names, *(column for column, _, _ in asked.bounds))))


def _within(part: Part, column: str, low: Bound | None, high: Bound | None) -> bool:
    """Whether every row of the file lies within the bounds, by what the log says of it."""
    known = part.bounds.get(column)
    if known is None:
        return False
    lowest, highest = known
    if isinstance(highest, datetime) and high is not None:  # the log's bounds of times are cut off
        return bool((low is None or lowest >= low) and not between([part], column, high))
    return bool((low is None or lowest >= low) and (high is None or highest <= high))


def _share(part: Part, asked: KeyFilter) -> float:
    """About which share of a file's rows lies within the bounds, as if they were spread evenly."""
    share = 1.0
    for column, low, high in asked.bounds:
        if column not in part.bounds:
            return 0.0
        lowest, highest = part.bounds[column]
        span = (highest - lowest) / _DAY + 1
        inside = ((highest if high is None else min(highest, high)) - (lowest if low is None else max(lowest, low))) / _DAY + 1
        share = min(share, share + inside / span - 1)  # a bound takes away from one end, the next from the other
    return max(share, 0.0)


def _has(column: pa.ChunkedArray, values: pa.Array) -> pa.ChunkedArray:
    """Which rows of a dictionary-encoded column have one of the values: each word is looked at once."""
    chunks = [pc.take(pc.is_in(chunk.dictionary, value_set=values), chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(chunks, pa.bool_())


def _both(one: pa.ChunkedArray | None, other: pa.ChunkedArray | None) -> pa.ChunkedArray | None:
    if one is None or other is None:
        return other if one is None else one
    return pc.and_kleene(one, other)
