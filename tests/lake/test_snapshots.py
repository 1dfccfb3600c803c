"""A snapshot id names an exact state, is the same in every lake with that content, and is noticed when damaged."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from config.errors import IntegrityError, UnknownNameError
from config.hashing import digest
from config.tables import TABLES
from lake import Lake
from lake.chain import rows_digest
from tests.lake.rows import BARS, NOW, bar, bars, macro, vintage, without_recorded_at

D1, D2 = date(2023, 12, 29), date(2024, 1, 2)


def _fill(lake: Lake, recorded_at: datetime) -> str:
    lake.write("equity_bars", bars([bar("A", D1, 1.25), bar("B", D2, 2.5)]), recorded_at=recorded_at)
    lake.write("equity_bars", bars([bar("C", D2, 3.0)]), recorded_at=recorded_at)
    lake.write("macro_observations", macro([vintage(date(2024, 1, 1), date(2024, 2, 13), 308.4)]), recorded_at=recorded_at)
    return lake.publish().id


def _run(moment: datetime, name: str) -> pa.Table:
    row = dict.fromkeys(("source", "dataset", "request", "origin", "response_sha256", "outcome"), "x")
    counts = dict.fromkeys(("response_bytes", "rows_received", "rows_new", "rows_revised", "rows_unchanged", "rows_refused"), 0)
    clocks = {"available_at": moment, "ingest_id": "first", "started_at": moment, "run_id": name, "message": None}
    return pa.Table.from_pylist([{**row, **counts, **clocks}], schema=without_recorded_at(TABLES["ingest_runs"]))


def test_the_same_ingests_into_two_lakes_give_the_same_id(tmp_path: Path) -> None:
    here = _fill(Lake(tmp_path / "a"), NOW)
    script = (
        "import sys, pathlib, datetime; from lake import Lake; from tests.lake.rows import NOW; "
        "from tests.lake.test_snapshots import _fill; "
        "print(_fill(Lake(pathlib.Path(sys.argv[1])), NOW + datetime.timedelta(days=77)))"
    )
    there = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "b")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here


def test_the_order_in_which_ingests_of_different_keys_finish_does_not_matter(tmp_path: Path) -> None:
    batches = [bars([bar("A", D1, 1.0), bar("A", D2, 2.0)]), bars([bar("B", D2, 3.0)]), bars([bar("C", D1, 4.0)])]
    ids = set()
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1)), ("c", (1, 2, 0))):
        lake = Lake(tmp_path / name)
        for n in order:
            lake.write("equity_bars", batches[n], recorded_at=NOW)
        ids.add(lake.publish().id)
    assert len(ids) == 1


@pytest.mark.parametrize("change", [{"close": 1.5}, {"symbol": "Z"}, {"ingest_id": "other"}, {"close": None}, {"currency": "EUR"}])
def test_any_other_content_gives_another_id(tmp_path: Path, change: dict[str, object]) -> None:
    ids = set()
    for name, others in (("a", {}), ("b", change)):
        lake = Lake(tmp_path / name)
        lake.write("equity_bars", bars([bar("A", D1, 1.0) | others]), recorded_at=NOW)
        ids.add(lake.publish().id)
    assert len(ids) == 2


def test_the_digest_of_rows_is_the_documented_one() -> None:
    # By hand, from the description in lake/chain.py: for each column its name and type, then the digests of which values are
    # missing, of the strings' lengths, and of the bytes; all of them digested again.
    schema = pa.schema([pa.field("s", pa.string()), pa.field("x", pa.float64()), pa.field("d", pa.date32())])
    rows = pa.table({"s": ["ab", None], "x": [1.5, None], "d": [date(1970, 1, 2), date(1970, 1, 3)]}, schema=schema)

    def column(name: str, kind: str, missing: bytes, lengths: bytes, content: bytes) -> bytes:
        parts = b"".join(hashlib.sha256(part).digest() for part in (missing, lengths, content))
        return hashlib.sha256(f"{name}\0{kind}\0".encode() + parts).digest()

    expected = hashlib.sha256(
        column("s", "string", b"\0\1", struct.pack("<2i", 2, 0), b"ab")
        + column("x", "double", b"\0\1", b"", struct.pack("<2d", 1.5, 0.0))
        + column("d", "date32[day]", b"\0\0", b"", struct.pack("<2q", 1, 2))
    ).hexdigest()
    assert rows_digest(rows.to_batches(), schema) == expected
    assert rows_digest([*rows.slice(0, 1).to_batches(), *rows.slice(1).to_batches()], schema) == expected
    assert rows_digest(rows.to_batches(), schema, without=("d",)) != expected


def test_an_id_reads_the_same_rows_after_everything_that_came_later(lake: Lake) -> None:
    first = _fill(lake, NOW)
    before = {name: lake.snapshot(first).read(name) for name in ("equity_bars", "macro_observations", "corporate_actions")}
    for n in range(12):  # revisions, new keys, and rewritten partitions
        lake.write("equity_bars", bars([bar("B", D2, 10.0 + n), bar(f"N{n}", D2, 1.0)]), recorded_at=NOW + timedelta(days=n))
    lake.write("macro_observations", macro([vintage(date(2024, 1, 1), date(2024, 2, 13), 0.0)]), recorded_at=NOW)
    newest = lake.publish()
    assert lake.snapshots() == (newest.id, first)
    assert newest.parent == first
    for name, rows in before.items():
        again = Lake(lake.root).snapshot(first).read(name)
        assert again.equals(rows)
        assert rows_digest(again.to_batches(), again.schema) == rows_digest(rows.to_batches(), rows.schema)
    assert newest.read("equity_bars").num_rows == 15


def test_bookkeeping_changes_no_id_and_is_read_at_its_newest(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", D1, 1.0)]), recorded_at=NOW)
    lake.write("ingest_runs", _run(NOW, "run-1"), recorded_at=NOW)
    before = lake.publish()
    assert set(before.tables) == {"equity_bars"}
    lake.write("ingest_runs", _run(NOW + timedelta(days=1), "run-2"), recorded_at=NOW + timedelta(days=1))
    assert lake.publish() == before
    assert lake.read_latest("ingest_runs")["run_id"].to_pylist() == ["run-1", "run-2"]
    assert before.read("ingest_runs")["run_id"].to_pylist() == ["run-1", "run-2"]
    assert before.sql("select count(*) as n from ingest_runs")["n"].to_pylist() == [2]
    assert set(lake.tables()) == {"equity_bars", "ingest_runs"}


def test_a_reader_sees_what_was_published_and_the_latest_read_what_was_written(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", D1, 1.0)]), recorded_at=NOW)
    lake.publish()
    lake.write("equity_bars", bars([bar("B", D1, 1.0)]), recorded_at=NOW)
    assert lake.snapshot().read("equity_bars").num_rows == 1
    assert lake.read_latest("equity_bars").num_rows == 2


def test_lineage_of_a_snapshot(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", D1, 1.0), bar("B", D1, 1.0, ingest_id="second")]), recorded_at=NOW)
    snapshot = lake.publish()
    assert snapshot.ingest_ids("equity_bars") == ("first", "second")
    assert snapshot.ingest_ids("equity_bars", {"symbol": "B"}) == ("second",)
    assert snapshot.id == digest({"equity_bars": snapshot.table_hash("equity_bars")})[:16]
    assert json.loads(json.dumps(snapshot.as_dict()))["tables"]["equity_bars"]["rows"] == 2
    with pytest.raises(UnknownNameError, match="holds no table"):
        snapshot.table_hash("equity_bar")


def test_snapshots_are_found_by_the_beginning_of_their_id(lake: Lake) -> None:
    with pytest.raises(UnknownNameError, match="no published snapshot"):
        lake.snapshot()
    name = _fill(lake, NOW)
    assert lake.snapshot(name[:6]).id == name
    with pytest.raises(UnknownNameError, match=f"(?s)'{name[:-1]}x'.*did you mean {name}"):
        lake.snapshot(name[:-1] + "x")
    with pytest.raises(UnknownNameError):
        lake.snapshot("../../etc/passwd")


def test_an_empty_lake_can_be_published(lake: Lake) -> None:
    snapshot = lake.publish()
    assert snapshot.tables == {}
    assert snapshot.read("equity_bars").schema.equals(BARS.schema)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "version"])
def test_a_damaged_snapshot_file_is_refused(lake: Lake, damage: str) -> None:
    name = _fill(lake, NOW)
    path = lake.root / "snapshots" / f"{name}.json"
    text = path.read_text()
    changed = {
        "flip": text.replace("equity", "equitz"),
        "cut": text[:-20],
        "empty": "",
        "version": text.replace('"version":2', '"version":1'),
    }
    assert changed[damage] != text
    path.write_text(changed[damage])
    with pytest.raises(IntegrityError, match="is damaged"):
        lake.snapshot(name)


def test_a_damaged_pointer_is_refused_and_the_snapshots_stay_readable(lake: Lake) -> None:
    name = _fill(lake, NOW)
    (lake.root / "snapshots" / "NEWEST").write_text("nonsense")
    with pytest.raises(IntegrityError, match="NEWEST is damaged"):
        lake.snapshot()
    assert lake.snapshot(name).read("equity_bars").num_rows == 3
    (lake.root / "snapshots" / "NEWEST").unlink()
    assert lake.publish().id == name


def _data_file(lake: Lake) -> Path:
    return Path(sorted(DeltaTable(lake.root / "equity_bars").file_uris())[0])


def test_a_lost_or_cut_data_file_is_an_integrity_error(lake: Lake) -> None:
    snapshot = lake.snapshot(_fill(lake, NOW))
    path = _data_file(lake)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match=path.name):
        snapshot.read("equity_bars")
    with pytest.raises(IntegrityError, match=path.name):
        snapshot.stream("equity_bars").read_all()
    path.unlink()
    with pytest.raises(IntegrityError, match=path.name):
        snapshot.sql("select * from equity_bars")


def test_verify_notices_a_changed_value_in_a_whole_file(lake: Lake) -> None:
    snapshot = lake.snapshot(_fill(lake, NOW))
    snapshot.verify("equity_bars")
    path = _data_file(lake)
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.set_column(rows.column_names.index("close"), "close", pa.array([9.0] * rows.num_rows)), path)
    with pytest.raises(IntegrityError, match="does not hold the rows that were written"):
        snapshot.verify("equity_bars")


def test_a_table_made_anew_is_not_taken_for_the_old_one(lake: Lake) -> None:
    import shutil

    name = _fill(lake, NOW)
    shutil.rmtree(lake.root / "equity_bars")
    lake.write("equity_bars", bars([bar("A", D1, 1.25), bar("B", D2, 2.5)]), recorded_at=NOW)
    lake.write("equity_bars", bars([bar("C", D2, 3.0)]), recorded_at=NOW)
    with pytest.raises(IntegrityError, match="is not the one the snapshot was taken of"):
        lake.snapshot(name).read("equity_bars")


def test_rows_that_another_tool_added_are_not_published(lake: Lake) -> None:
    _fill(lake, NOW)
    table = DeltaTable(lake.root / "equity_bars")
    write_deltalake(table, table.to_pyarrow_table(), mode="append")
    with pytest.raises(IntegrityError, match="was not written by quantrail"):
        lake.publish()


def test_another_tools_compaction_changes_no_id(lake: Lake) -> None:
    for n in range(4):
        lake.write("equity_bars", bars([bar(f"S{n}", D2, 1.0)]), recorded_at=NOW)
    name = lake.publish().id
    DeltaTable(lake.root / "equity_bars").optimize.compact()
    assert lake.publish().id == name
    lake.write("equity_bars", bars([bar("T", D2, 1.0)]), recorded_at=NOW)
    after = lake.publish()
    assert after.read("equity_bars").num_rows == 5
    after.verify("equity_bars")


def test_a_log_entry_cut_off_by_a_power_failure_loses_no_acknowledged_row(lake: Lake) -> None:
    name = _fill(lake, NOW)
    (lake.root / "equity_bars" / "_delta_log" / f"{3:020d}.json").write_bytes(b"")
    assert lake.publish().id == name
    assert lake.write("equity_bars", bars([bar("D", D2, 3.0)]), recorded_at=NOW).new == 1
    assert lake.publish().read("equity_bars")["symbol"].to_pylist() == ["A", "B", "C", "D"]
