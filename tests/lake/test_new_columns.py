"""A table that gains a nullable column keeps everything it had, and what was written before is still vouched for."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pyarrow as pa
import pytest

from config import tables
from config.errors import SchemaError
from config.tables import TableSpec
from lake import Lake
from lake.chain import add, rows_digest
from tests.lake.rows import BARS, NOW, bar, without_recorded_at

D1, D2, D3 = date(2023, 12, 28), date(2023, 12, 29), date(2024, 1, 2)
NEW = pa.field("vwap", pa.float64())


def _wider(*, place: int = 9, field: pa.Field = NEW) -> TableSpec:
    columns = list(BARS.columns)
    columns.insert(place, field)  # in the middle: the order in the stored table is another one
    return replace(BARS, columns=tuple(columns))


@pytest.fixture
def wider() -> TableSpec:
    """The table as a newer release has it, with a column more."""
    return _wider()


def _write(lake: Lake, spec: TableSpec, *rows: dict[str, object]) -> None:
    lake.write(spec, pa.Table.from_pylist(list(rows), schema=without_recorded_at(spec)), recorded_at=NOW)


def _release(monkeypatch: pytest.MonkeyPatch, spec: TableSpec) -> None:
    monkeypatch.setitem(tables.TABLES, "equity_bars", spec)


def test_old_rows_are_read_with_null_in_the_new_column_before_anything_is_written(
    lake: Lake, wider: TableSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(lake, BARS, bar("A", D1, 1.0), bar("A", D3, 3.0))
    before = lake.publish()
    _release(monkeypatch, wider)
    snapshot = lake.snapshot()
    assert snapshot.id == before.id
    for rows in (snapshot.read("equity_bars"), snapshot.read("equity_bars", start=D3), snapshot.stream("equity_bars").read_all()):
        assert rows.schema.equals(wider.schema)
        assert set(rows["vwap"].to_pylist()) == {None}
    assert snapshot.sql("select count(*) as n, count(vwap) as v from equity_bars").to_pylist() == [{"n": 2, "v": 0}]
    snapshot.verify("equity_bars")


def test_rows_with_and_without_the_column_stand_side_by_side_and_both_are_verified(
    lake: Lake, wider: TableSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(lake, BARS, bar("A", D1, 1.0), bar("A", D2, 2.0))
    old = lake.publish()
    _release(monkeypatch, wider)
    _write(lake, wider, bar("A", D2, 2.5, vwap=2.4), bar("A", D3, 3.0, vwap=2.9))
    new = lake.publish()
    assert new.read("equity_bars", columns=["close", "vwap"]).to_pylist() == [
        {"close": 1.0, "vwap": None},
        {"close": 2.5, "vwap": 2.4},
        {"close": 3.0, "vwap": 2.9},
    ]
    assert new.read("equity_bars", where={"vwap": [2.9]})["close"].to_pylist() == [3.0]
    assert new.read("equity_bars", as_of=NOW - timedelta(days=30), columns=["close"])["close"].to_pylist() == [1.0, 2.0, 3.0]
    new.verify("equity_bars")
    again = Lake(lake.root).snapshot(old.id)
    again.verify("equity_bars")
    assert again.read("equity_bars")["vwap"].to_pylist() == [None, None]
    assert again.tables["equity_bars"].table_id == new.tables["equity_bars"].table_id


def test_a_new_value_in_the_new_column_is_a_revision_and_null_again_is_none(
    lake: Lake, wider: TableSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(lake, BARS, bar("A", D1, 1.0), bar("B", D1, 1.0))
    _release(monkeypatch, wider)
    rows = pa.Table.from_pylist([bar("A", D1, 1.0, vwap=0.9), bar("B", D1, 1.0, vwap=None)], schema=without_recorded_at(wider))
    result = lake.write(wider, rows, recorded_at=NOW)
    assert (result.new, result.revised, result.unchanged) == (0, 1, 1)


def test_the_content_of_the_old_rows_counts_by_the_columns_they_were_written_with(
    lake: Lake, wider: TableSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(lake, BARS, bar("A", D1, 1.0))
    old = lake.publish().tables["equity_bars"].chain
    _release(monkeypatch, wider)
    _write(lake, wider, bar("A", D3, 3.0, vwap=2.9))
    # By hand: the sum of the old number and the digest of the new row over the new columns.
    schema = pa.schema([*wider.schema, pa.field("revision", pa.int32(), nullable=False)])
    row = bar("A", D3, 3.0, vwap=2.9) | {"revision": 0, "recorded_at": NOW}
    digest = rows_digest(pa.Table.from_pylist([row], schema=schema).to_batches(), schema, without=("recorded_at",))
    assert lake.publish().tables["equity_bars"].chain == add(old, digest)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec: replace(spec, columns=spec.columns[:-1]), "column calendar is absent now and string in the stored table"),
        (
            lambda spec: replace(spec, columns=(*spec.columns, pa.field("venue", pa.string(), nullable=False))),
            "column venue is string now and absent in the stored table",
        ),
        (
            lambda spec: replace(spec, columns=(*spec.columns[:-4], pa.field("volume", pa.int64()), *spec.columns[-3:])),
            "column volume is int64 now and double in the stored table",
        ),
    ],
    ids=["removed", "not nullable", "another type"],
)
def test_any_other_change_is_refused_when_writing_and_when_reading(
    lake: Lake, change: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(lake, BARS, bar("A", D1, 1.0))
    lake.publish()
    changed = change(BARS)  # type: ignore[operator]
    _release(monkeypatch, changed)
    row = {**bar("A", D2, 2.0), "venue": "X"}
    rows = pa.Table.from_pylist([row], schema=without_recorded_at(changed))
    with pytest.raises(SchemaError, match=said):
        lake.write(changed, rows, recorded_at=NOW)
    with pytest.raises(SchemaError, match=said):
        lake.snapshot().read("equity_bars")


def test_a_writer_of_the_old_columns_is_told_that_the_table_has_changed(
    lake: Lake, wider: TableSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(lake, wider, bar("A", D1, 1.0, vwap=1.0))
    with pytest.raises(SchemaError, match="column vwap is absent now and double in the stored table"):
        _write(lake, BARS, bar("A", D2, 2.0))


def test_two_writers_that_widen_at_once_both_get_their_rows_in(
    lake: Lake, wider: TableSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lake.writer as writer

    _write(lake, BARS, bar("A", D1, 1.0))
    widen = writer._widen

    def overtaken(*given: object) -> object:
        monkeypatch.setattr(writer, "_widen", widen)
        _write(Lake(lake.root), wider, bar("B", D1, 1.0, vwap=1.1))
        return widen(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "_widen", overtaken)
    _write(lake, wider, bar("C", D1, 1.0, vwap=1.2))
    _release(monkeypatch, wider)
    assert lake.publish().read("equity_bars", columns=["vwap"])["vwap"].to_pylist() == [None, 1.1, 1.2]
    lake.snapshot().verify("equity_bars")
