"""Maintenance changes files, never rows: same ids, same reads, nothing taken that something needs."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from config.errors import InputError, IntegrityError, LockHeldError
from lake import Lake
from lake.maintenance import compact
from lake.repair import repair
from lake.snapshot import point_at
from lake.vacuum import Sizes, drop_snapshots, survey, sweep
from tests.lake.rows import NOW, bar, bars, days, macro, vintage

D1, D2 = date(2023, 12, 29), date(2024, 1, 2)
HOUR = timedelta(hours=1)


@pytest.fixture
def written(lake: Lake) -> Lake:
    """Two years of three symbols in seven batches with revisions, published after each; macro observations beside them."""
    for n in range(7):
        rows = [bar(name, day, float(n)) for name in ("C", "A", "B") for day in days(date(2023, 12, 28), 6 + n)]
        lake.write("equity_bars", bars(rows), recorded_at=NOW + timedelta(days=n))
        lake.publish()
    lake.write("macro_observations", macro([vintage(D1, D2, 1.0)]), recorded_at=NOW)
    lake.publish()
    return lake


def _files(lake: Lake, table: str = "equity_bars") -> set[str]:
    return set(DeltaTable(lake.root / table).file_uris())


def _on_disk(lake: Lake, table: str = "equity_bars") -> set[str]:
    return {str(path) for path in (lake.root / table).rglob("*.parquet") if "_delta_log" not in str(path)}


def _later(hours: float = 48) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def _sizes(lake: Lake, table: str = "equity_bars", hours: float = 48) -> Sizes:
    return next(one for one in survey(lake, now=_later(hours), safe_age=HOUR) if one.table == table)


def test_compaction_leaves_one_file_a_partition_and_every_answer_as_it_was(written: Lake) -> None:
    names = written.snapshots()
    moments = [None, NOW, NOW + timedelta(days=3)]
    before = {name: [written.snapshot(name).read("equity_bars", as_of=at) for at in moments] for name in names}
    assert len(_files(written)) > 2
    result = compact(written, "equity_bars", at=NOW)
    assert (result.files_before, result.files_after) == (len(_files(written)) + result.files_before - 2, 2)
    assert written.publish().id == names[0]
    for name in names:
        snapshot = Lake(written.root).snapshot(name)
        snapshot.verify("equity_bars")
        for at, rows in zip(moments, before[name], strict=True):
            assert snapshot.read("equity_bars", as_of=at).equals(rows)
    assert compact(written, "equity_bars", at=NOW).version is None


def test_after_compaction_the_newest_snapshot_reads_the_new_files_under_its_old_id(written: Lake) -> None:
    old = written.snapshot()
    rows = old.read("equity_bars")
    version = compact(written, "equity_bars", at=NOW).version
    moved = point_at(written.root, written.tables())
    assert moved == written.snapshots()[:2]  # the one before has other macro observations, and the same bars
    now = Lake(written.root).snapshot()
    assert (now.id, now.parent) == (old.id, old.parent)
    assert now.tables["equity_bars"].version == version != old.tables["equity_bars"].version
    assert now.read("equity_bars").equals(rows)
    assert old.read("equity_bars").equals(rows)  # a reader that began before goes on
    now.verify("equity_bars")
    assert point_at(written.root, written.tables()) == ()


def test_a_dry_run_changes_no_file(written: Lake) -> None:
    before = sorted(path for path in written.root.rglob("*"))
    result = compact(written, "equity_bars", at=NOW, apply=False)
    assert result.files_after < result.files_before
    assert result.version is None
    assert sorted(path for path in written.root.rglob("*")) == before


def test_compaction_is_committed_on_top_of_a_writer_that_was_quicker(written: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    import lake.maintenance as maintenance

    commit, rivals = maintenance._commit, []

    def overtaken(*given: object) -> object:
        if not rivals:
            rivals.append(Lake(written.root).write("equity_bars", bars([bar("NEW", date(2022, 1, 3), 1.0)]), recorded_at=NOW))
        return commit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(maintenance, "_commit", overtaken)
    result = compact(written, "equity_bars", at=NOW)
    assert result.version == rivals[0].version + 1
    assert result.files_after == 3  # the two years, and the writer's
    snapshot = written.publish()
    assert "NEW" in snapshot.read("equity_bars")["symbol"].to_pylist()
    snapshot.verify("equity_bars")


def test_compaction_that_loses_every_race_says_so_and_changes_nothing(written: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    import lake.maintenance as maintenance

    monkeypatch.setattr(maintenance, "_commit", lambda *given: None)
    before = _files(written)
    with pytest.raises(LockHeldError, match="in each of 3 attempts; it was not compacted"):
        compact(Lake(written.root, write_attempts=3), "equity_bars", at=NOW)
    assert _files(written) == before


def test_files_that_another_tool_laid_out_are_laid_out_anew(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", D1, 1.0)]), recorded_at=NOW)
    lake.write("equity_bars", bars([bar("B", D1, 1.0)]), recorded_at=NOW)
    name = lake.publish().id
    DeltaTable(lake.root / "equity_bars").optimize.compact()
    assert compact(lake, "equity_bars", at=NOW).version is not None
    assert lake.publish().id == name
    lake.snapshot().verify("equity_bars")


def test_every_published_snapshot_is_kept_by_default(written: Lake) -> None:
    names = written.snapshots()
    before = [written.snapshot(name).read("equity_bars") for name in names]
    assert len(names) > 3
    compact(written, "equity_bars", at=NOW)
    point_at(written.root, written.tables())
    found = survey(written, now=_later(), safe_age=HOUR)
    sweep(written, found)
    assert written.snapshots() == names
    for name, rows in zip(names, before, strict=True):
        written.snapshot(name).verify("equity_bars")
        assert written.snapshot(name).read("equity_bars").equals(rows)


def test_what_no_snapshot_and_no_version_needs_is_deleted_and_counted(written: Lake) -> None:
    names = written.snapshots()
    compact(written, "equity_bars", at=NOW)
    point_at(written.root, written.tables())
    keep = names[3]
    rows = written.snapshot(keep).read("equity_bars")
    assert drop_snapshots(written, keep=(keep,), before=_later(), apply=False) == tuple(
        name for name in names if name not in (names[0], keep)
    )
    assert written.snapshots() == names
    drop_snapshots(written, keep=(keep,), before=_later(), apply=True)
    assert Lake(written.root).snapshots() == (names[0], keep)
    sizes = _sizes(written)
    on_disk = _on_disk(written)
    needed = _files(written) | set(DeltaTable(written.root / "equity_bars", version=_version(written, keep)).file_uris())
    assert {str(written.root / "equity_bars" / name) for name in sizes.removable} == on_disk - needed
    assert sizes.live + sizes.kept + sizes.old == sum(os.path.getsize(path) for path in on_disk)
    assert sweep(written, [sizes]) == sizes.old > 0
    assert _on_disk(written) == needed
    assert written.snapshot(keep).read("equity_bars").equals(rows)
    written.snapshot().verify("equity_bars")
    assert written.write("equity_bars", bars([bar("Z", D2, 1.0)]), recorded_at=NOW).new == 1


def _version(lake: Lake, name: str) -> int:
    return lake.snapshot(name).tables["equity_bars"].version


def test_snapshots_younger_than_the_retention_stay(written: Lake) -> None:
    names = written.snapshots()
    oldest = written.root / "snapshots" / f"{names[-1]}.json"
    long_ago = (datetime.now(UTC) - timedelta(days=100)).timestamp()
    os.utime(oldest, (long_ago, long_ago))
    before = datetime.now(UTC) - timedelta(days=30)
    assert drop_snapshots(written, keep=(), before=before, apply=True) == (names[-1],)
    assert written.snapshots() == names[:-1]


def test_a_running_writers_files_and_a_readers_of_a_moment_ago_are_not_touched(written: Lake) -> None:
    latest = written._newest("equity_bars")
    orphan = written.root / "equity_bars" / "year=2024" / "part-of-a-running-writer.parquet"
    orphan.write_bytes(b"half")
    drop_snapshots(written, keep=(), before=_later(), apply=True)
    compact(written, "equity_bars", at=datetime(2001, 1, 1, tzinfo=UTC))  # the log's own clock counts, not what a caller says
    point_at(written.root, written.tables())
    now = survey(written, now=_later(0.5), safe_age=HOUR)
    assert [one.removable for one in now] == [() for _ in now]
    assert next(one for one in now if one.table == "equity_bars").orphans == 4
    sweep(written, now)
    assert latest.read("equity_bars").num_rows > 0
    old = _sizes(written)
    assert "year=2024/part-of-a-running-writer.parquet" in old.removable
    sweep(written, [old])
    assert not orphan.exists()


def test_a_safe_age_that_would_take_a_running_writers_files_is_refused(written: Lake) -> None:
    with pytest.raises(InputError, match="running writers"):
        survey(written, now=_later(), safe_age=timedelta(minutes=5))


def test_nothing_is_deleted_when_the_log_does_not_say_what_is_needed(written: Lake) -> None:
    (written.root / "equity_bars" / "_delta_log" / f"{1:020d}.json").unlink()
    with pytest.raises(IntegrityError, match="damaged"):
        survey(written, now=_later())


# After a power cut.


def _last_entry(lake: Lake) -> Path:
    return sorted((lake.root / "equity_bars" / "_delta_log").glob("*.json"))[-1]


@pytest.mark.parametrize("left", ["half", "zeros", "zeros behind", "one byte"])
def test_an_unfinished_last_entry_locks_the_table_and_repair_opens_it_again(written: Lake, left: str) -> None:
    name = written.snapshot().id
    rows = written.read_latest("equity_bars")
    written.write("equity_bars", bars([bar("CUT", D2, 1.0)]), recorded_at=NOW)
    entry = _last_entry(written)
    whole = entry.read_bytes()
    half = whole[: len(whole) // 2]
    entry.write_bytes({"half": half, "zeros": bytes(len(whole)), "zeros behind": half + bytes(100), "one byte": whole[:1]}[left])
    with pytest.raises(IntegrityError, match="damaged") as caught:
        written.read_latest("equity_bars")
    assert "quant data maintain --repair" in str(caught.value.remedy)
    planned = repair(written, apply=False)
    assert [(one.table, one.file, one.moved_to) for one in planned] == [("equity_bars", entry.name, None)]
    assert entry.exists()
    done = repair(written, apply=True)
    assert Path(str(done[0].moved_to)).read_bytes() != b""
    assert written.read_latest("equity_bars").equals(rows)
    assert written.publish().id == name
    assert written.write("equity_bars", bars([bar("CUT", D2, 1.0)]), recorded_at=NOW).new == 1
    written.publish().verify("equity_bars")
    assert repair(written, apply=True) == ()


def test_an_entry_that_a_published_snapshot_names_is_damage_and_is_left_alone(written: Lake) -> None:
    entry = _last_entry(written)
    entry.write_bytes(entry.read_bytes()[:-40])
    with pytest.raises(IntegrityError, match="a published snapshot names it"):
        repair(written, apply=True)
    assert entry.exists()


def test_damage_in_the_middle_of_an_entry_is_no_power_cut(written: Lake) -> None:
    written.write("equity_bars", bars([bar("X", D2, 1.0)]), recorded_at=NOW)
    entry = _last_entry(written)
    first, *rest = entry.read_bytes().splitlines(keepends=True)
    entry.write_bytes(b"".join([first[:-10] + b"\n", *rest]))
    with pytest.raises(IntegrityError, match="in its middle"):
        repair(written, apply=True)


def test_a_checkpoint_that_breaks_off_is_taken_aside_and_the_log_read_from_its_entries(lake: Lake) -> None:
    for n in range(25):
        lake.write("equity_bars", bars([bar(f"S{n:02d}", D2, 1.0)]), recorded_at=NOW)
    log = lake.root / "equity_bars" / "_delta_log"
    checkpoint = next(log.glob("*.checkpoint.parquet"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(IntegrityError):
        lake.read_latest("equity_bars")
    assert {one.file for one in repair(lake, apply=True)} == {checkpoint.name, "_last_checkpoint"}
    assert lake.read_latest("equity_bars").num_rows == 25


def test_rows_of_a_foreign_writer_are_not_compacted_into_ours(written: Lake) -> None:
    table = DeltaTable(written.root / "equity_bars")
    write_deltalake(table, pa.table(table.to_pyarrow_table()), mode="append")
    with pytest.raises(IntegrityError, match="was not written by quantrail"):
        compact(written, "equity_bars", at=NOW)
