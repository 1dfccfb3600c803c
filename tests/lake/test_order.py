"""Key order by numbers is the order that sorting the keys themselves gives (Python's sort of tuples, text by its UTF-8 bytes)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake import Lake
from lake.layout import FILES_OF_A_SIZE, with_same_size
from lake.order import ascending, key_numbers, newest_of, repeats
from lake.parts import Part, between
from tests.lake.rows import NOW, bar, bars, days

NAMES = ("name", "at", "day", "n")
TYPES = (pa.string(), pa.timestamp("us", tz="UTC"), pa.date32(), pa.int64())
TEXTS = st.one_of(st.sampled_from(["A", "B", "BRK.B", "é", "Z", "z", "", "A\0", "日本", "😀", "\uffff"]), st.text(max_size=6))
MOMENTS = st.one_of(
    st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive
    st.integers(0, 400).map(lambda n: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=n)),
)
ROWS = st.lists(st.tuples(TEXTS, MOMENTS, st.dates(), st.integers(-(2**40), 2**40)), max_size=40)


def _table(rows: list[tuple[Any, ...]], chunk: int) -> pa.Table:
    schema = pa.schema(list(zip(NAMES, TYPES, strict=True)))
    parts = [rows[n : n + chunk] for n in range(0, len(rows), chunk)]
    columns = [dict(zip(NAMES, zip(*part, strict=True), strict=True)) for part in parts]
    return pa.concat_tables([schema.empty_table(), *(pa.table(column, schema=schema) for column in columns)])


def _encoded(table: pa.Table) -> pa.Table:
    """Every chunk with a dictionary of its own."""
    batches = [batch.set_column(0, "name", batch.column("name").dictionary_encode()) for batch in table.to_batches()]
    return pa.Table.from_batches(batches) if batches else table


def _bytes(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (row[0].encode("utf-8", "surrogatepass"), *row[1:])


@given(rows=ROWS, chunk=st.integers(1, 9), encode=st.booleans())
@settings(derandomize=True, deadline=None, max_examples=150)
def test_the_numbers_sort_as_the_keys_do(rows: list[tuple[Any, ...]], chunk: int, encode: bool) -> None:
    table = _table(rows, chunk)
    numbers = key_numbers(_encoded(table) if encode else table, NAMES)
    order = ascending(numbers)
    found = list(range(len(rows))) if order is None else order.tolist()
    assert found == sorted(range(len(rows)), key=lambda n: _bytes(rows[n]))
    assert len(set(numbers.tolist())) == len({_bytes(row) for row in rows})


@pytest.mark.parametrize("chunk", [7, 1000])
def test_a_span_too_wide_for_one_number_is_ranked(chunk: int) -> None:
    rng = np.random.default_rng(7)
    rows = [
        (
            f"S{rng.integers(400):03d}",
            datetime(1, 1, 1, tzinfo=UTC) + timedelta(seconds=int(rng.integers(300_000_000_000)), microseconds=int(m)),
            date(1, 1, 1) + timedelta(days=int(rng.integers(3_000_000))),
            int(rng.integers(-(2**62), 2**62)),
        )
        for m in rng.integers(0, 3, 500)
    ]
    order = ascending(key_numbers(_table(rows, chunk), NAMES))
    assert order is not None
    assert order.tolist() == sorted(range(len(rows)), key=lambda n: _bytes(rows[n]))


@given(pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=30, unique=True))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_of_each_key_the_highest_revision_is_kept(pairs: list[tuple[int, int]]) -> None:
    numbers = np.array([key for key, _ in pairs], np.int64)
    revisions = np.array([revision for _, revision in pairs], np.int32)
    order = ascending(numbers) if len(pairs) else None
    kept = newest_of(numbers, revisions, order)
    found = [pairs[n] for n in (range(len(pairs)) if kept is None else kept.tolist())]
    best = {key: max(revision for one, revision in pairs if one == key) for key, _ in pairs}
    assert found == sorted(best.items())
    assert len(repeats(numbers, order)) == len(pairs) - len(best)


# Few files, and a row rewritten a few times in its life.


def test_a_table_written_to_a_thousand_times_keeps_few_files_and_rewrites_each_row_a_few_times() -> None:
    parts: list[Part] = []
    rewritten = 0
    for n in range(1000):
        joined = with_same_size(parts, 1000)
        rewritten += sum(part.rows for part in joined)
        rows = 1000 + sum(part.rows for part in joined)
        parts = [part for part in parts if part not in joined] + [Part(name=str(n), partition=(), rows=rows, size=0, bounds={})]
        assert len(parts) < FILES_OF_A_SIZE * 4
    assert sum(part.rows for part in parts) == 1_000_000
    assert rewritten / 1_000_000 < 4  # eight times as many rows, one rewriting more


def test_a_file_without_known_bounds_is_never_dropped() -> None:
    known = Part(name="a", partition=(), rows=1, size=1, bounds={"day": (date(2024, 1, 1), date(2024, 1, 31))})
    unknown = Part(name="b", partition=(), rows=1, size=1, bounds={})
    assert between([known, unknown], "day", date(2024, 2, 1)) == [unknown]
    assert between([known, unknown], "day", None, date(2024, 1, 1)) == [known, unknown]
    moment = datetime(2024, 1, 1, 12, tzinfo=UTC)
    coarse = Part(name="c", partition=(), rows=1, size=1, bounds={"at": (moment, moment)})  # milliseconds, cut off
    assert between([coarse], "at", moment + timedelta(microseconds=900)) == [coarse]
    assert between([coarse], "at", moment + timedelta(milliseconds=2)) == []


def test_a_revision_that_moves_a_row_out_of_the_asked_days_is_not_overlooked(lake: Lake) -> None:
    first, other = date(2022, 6, 1), date(2024, 6, 3)
    lake.write("equity_bars", bars([bar("A", first, 1.0)]), recorded_at=NOW)
    # The same key (its event time), told to be of another session, which lies in another year's file.
    moved = bar("A", first, 1.0) | {"session": other}
    assert lake.write("equity_bars", bars([moved]), recorded_at=NOW).revised == 1
    lake.write("equity_bars", bars([bar("B", day, 1.0) for day in days(first, 3)]), recorded_at=NOW)
    snapshot = lake.publish()
    assert snapshot.read("equity_bars", start=first, end=first)["symbol"].to_pylist() == ["B"]
    assert snapshot.read("equity_bars", start=other, end=other)["symbol"].to_pylist() == ["A"]
    assert snapshot.read("equity_bars", start=other, end=other, as_of=NOW - timedelta(days=1)).num_rows == 0
