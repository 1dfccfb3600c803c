"""A lake in a bucket is a lake: the same rows, the same ids, nothing lost between writers, and clear words when the store fails."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError, IntegrityError, StorageError, UnknownNameError
from config.settings import load_settings
from lake import Lake, open_lake
from lake.bucket import Bucket, BucketFile, on_disk
from lake.failures import first_line
from lake.maintenance import compact
from lake.repair import repair
from lake.snapshot import point_at
from lake.vacuum import drop_snapshots, survey, sweep
from tests.lake.bucket_writer import ROWS
from tests.lake.rows import NOW, bar, bars, days, macro, vintage
from tests.lake.s3_server import BUCKET, S3Server, s3_server

DAY = date(2024, 1, 2)
HOUSE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """One server for the tests that do not end it."""
    with s3_server() as running:
        yield running


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its key in the environment and a prefix of the test's own as the lake."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUANT_LAKE__PATH", f"s3://{BUCKET}/{uuid.uuid4().hex}/lake")
    return server


@pytest.fixture
def stored(s3: S3Server) -> Lake:
    """A lake in the bucket with two symbols, published."""
    lake = open_lake(load_settings())
    lake.write("equity_bars", bars([bar(symbol, DAY, 1.0) for symbol in ("A", "B")]), recorded_at=NOW)
    lake.publish()
    return lake


def _bucket(lake: Lake) -> Bucket:
    assert isinstance(lake.root, Bucket)
    return lake.root


def _fill(lake: Lake) -> list[str]:
    """The same history in any lake: new rows, unchanged ones, a revision, another table. The ids that were published."""
    ids = []
    first = [bar(symbol, day, 1.5) for symbol in ("A", "B") for day in days(date(2023, 12, 28), 8)]
    lake.write("equity_bars", bars(first), recorded_at=NOW)
    ids.append(lake.publish().id)
    again = lake.write("equity_bars", bars(first[:5]), recorded_at=NOW)
    assert (again.new, again.unchanged) == (0, 5)
    ids.append(lake.publish().id)
    revised = lake.write("equity_bars", bars([bar("A", DAY, 2.5)]), recorded_at=NOW + timedelta(days=1))
    assert (revised.new, revised.revised) == (0, 1)
    lake.write("macro_observations", macro([vintage(DAY, date(2024, 2, 1), 3.0)]), recorded_at=NOW)
    ids.append(lake.publish().id)
    return ids


def test_a_bucket_holds_the_same_rows_under_the_same_ids_as_a_folder(s3: S3Server, tmp_path: Path) -> None:
    remote, local = open_lake(load_settings()), Lake(tmp_path / "lake")
    ids = _fill(remote)
    assert ids == _fill(local)
    assert ids[0] == ids[1] != ids[2]
    assert remote.snapshots() == local.snapshots() == (ids[2], ids[0])
    for name in ids:
        for moment in (None, NOW, NOW + timedelta(hours=12)):
            assert remote.snapshot(name).read("equity_bars", as_of=moment) == local.snapshot(name).read("equity_bars", as_of=moment)
        remote.snapshot(name).verify("equity_bars")
    assert remote.snapshot(ids[2][:8]).parent == ids[0]
    assert remote.snapshot().sql("select count(*) n from macro_observations").to_pylist() == [{"n": 1}]
    assert not (tmp_path / "home" / "lake").exists()
    # The outside witness: Delta's own reader sees the 17 rows, old version of the revised one included.
    from deltalake import DeltaTable

    table = _bucket(remote) / "equity_bars"
    foreign = DeltaTable(table.address, storage_options=table.delta_options).to_pyarrow_table()
    assert sorted(foreign["close"].to_pylist()) == [1.5] * 16 + [2.5]


def test_many_small_writes_are_read_back_whole(stored: Lake) -> None:
    for n in range(10):  # past the number of files at which a partition is rewritten
        stored.write("equity_bars", bars([bar(f"S{n}", DAY, float(n))]), recorded_at=NOW)
    snapshot = stored.publish()
    snapshot.verify("equity_bars")
    closes = snapshot.read("equity_bars", columns=["symbol", "close"]).to_pylist()
    assert {row["symbol"]: row["close"] for row in closes} == {"A": 1.0, "B": 1.0, **{f"S{n}": float(n) for n in range(10)}}


def test_answers_are_kept_in_the_bucket_and_healed(stored: Lake) -> None:
    # The hash of "abc" is published in FIPS 180-2, appendix B.1.
    name = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert name not in stored.raw
    with pytest.raises(UnknownNameError, match="no answer with SHA-256"):
        stored.raw.get(name)
    assert stored.raw.put(b"abc") == stored.raw.put(b"abc") == name
    assert name in stored.raw
    (_bucket(stored) / "raw" / name).write(b"abd")
    with pytest.raises(IntegrityError, match="is damaged"):
        stored.raw.get(name)
    stored.raw.put(b"abc")
    assert stored.raw.get(name) == b"abc"


def test_what_is_not_there_is_said(s3: S3Server) -> None:
    lake = open_lake(load_settings())
    assert not lake.has_snapshot()
    assert lake.snapshots() == ()
    assert lake.tables() == {}
    assert lake.read_latest("equity_bars").num_rows == 0
    with pytest.raises(UnknownNameError, match="no published snapshot"):
        lake.snapshot()
    lake.write("equity_bars", bars([bar("A", DAY, 1.0)]), recorded_at=NOW)
    lake.publish()
    with pytest.raises(UnknownNameError, match="no snapshot is called 'zzz'"):
        lake.snapshot("zzz")


def test_a_publisher_that_died_between_its_two_puts_has_published(stored: Lake) -> None:
    root, first = _bucket(stored), stored.snapshot()
    (root / "snapshots" / f"{first.id}.json").remove()
    assert stored.snapshot() == stored.snapshot(first.id) == stored.snapshot(first.id[:6]) == first
    stored.write("equity_bars", bars([bar("C", DAY, 1.0)]), recorded_at=NOW)
    second = stored.publish()
    assert (root / "snapshots" / f"{first.id}.json").exists()  # the next publisher made it before it went on
    assert second.parent == first.id
    assert stored.snapshot(first.id).read("equity_bars").num_rows == 2


def test_publishers_that_meet_follow_each_other(stored: Lake) -> None:
    start, problems = threading.Barrier(3), []

    def work(name: str) -> None:
        try:
            lake = Lake(stored.root, 100)
            for n in range(2):
                start.wait(30)
                lake.write("equity_bars", bars([bar(f"{name}{n}", DAY, 1.0)]), recorded_at=NOW)
                held = lake.publish().read("equity_bars", columns=["symbol"])["symbol"].to_pylist()
                assert f"{name}{n}" in held
        except BaseException as problem:  # noqa: BLE001 - handed to the test below
            problems.append(problem)
            start.abort()

    threads = [threading.Thread(target=work, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    ids = stored.snapshots()
    assert len(set(ids)) == len(ids)
    assert [stored.snapshot(name).parent for name in ids] == [*ids[1:], None]
    rows = [stored.snapshot(name).tables["equity_bars"].rows for name in ids]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] == 2 + 3 * 2


@pytest.mark.parametrize("of", ["_delta_log", "/row/", "/snapshots/", "/equity_bars/year"])
def test_a_lost_answer_doubles_nothing(stored: Lake, s3: S3Server, of: str) -> None:
    s3.lose_answer(of)
    rows = bars([bar("C", DAY, 1.0)])
    result = stored.write("equity_bars", rows, recorded_at=NOW)
    assert result.new + result.unchanged == 1
    snapshot = stored.publish()
    assert stored.write("equity_bars", rows, recorded_at=NOW).unchanged == 1
    assert stored.publish() == snapshot
    assert snapshot.read("equity_bars")["symbol"].to_pylist() == ["A", "B", "C"]
    snapshot.verify("equity_bars")
    assert len(stored.snapshots()) == 2


def _keys(place: Bucket, ends: str) -> list[str]:
    import obstore

    store, prefix = place.object
    return [one["path"] for one in obstore.list(store, prefix).collect() if one["path"].endswith(ends)]


def _data(lake: Lake) -> list[Bucket]:
    root = _bucket(lake)
    return [Bucket(f"s3://{BUCKET}/{key}", root.kept_in) for key in _keys(root / "equity_bars", ".parquet")]


def test_damage_in_the_bucket_is_found_though_a_good_copy_is_kept(stored: Lake) -> None:
    snapshot = stored.snapshot()
    assert snapshot.read("equity_bars").num_rows == 2
    (file,) = _data(stored)
    good = file.read()
    assert good is not None
    file.write(good[:200] + bytes(len(good) - 400) + good[-200:])
    with pytest.raises(IntegrityError):
        snapshot.verify("equity_bars")
    file.write(good)
    snapshot.verify("equity_bars")
    file.remove()
    with pytest.raises(IntegrityError, match="is gone"):
        snapshot.verify("equity_bars")


def test_damage_in_the_log_or_the_row_is_damage_not_an_empty_lake(stored: Lake) -> None:
    root = _bucket(stored)
    row = root / "snapshots" / "row" / f"{1:020d}.json"
    good = row.read()
    assert good is not None
    row.write(good.replace(b'"rows":2', b'"rows":3'))
    with pytest.raises(IntegrityError, match=r"row/0{19}1\.json is damaged"):
        stored.snapshot()
    row.write(good)
    (root / "equity_bars" / "_delta_log" / f"{1:020d}.json").write(b'{"commitInfo": {"time')
    with pytest.raises((IntegrityError, StorageError), match="equity_bars"):
        stored.read_latest("equity_bars")


def test_files_are_fetched_once_and_the_oldest_go_when_there_are_too_many(stored: Lake) -> None:
    stored.snapshot().read("equity_bars")
    (file,) = _data(stored)
    kept = file.kept_at
    assert kept.read_bytes() == file.read()
    file.remove()
    assert stored.snapshot().read("equity_bars").num_rows == 2  # not asked for again
    small = Bucket(f"{stored.root}/other.parquet", file.kept_in, kept_bytes=10)
    small.write(b"x" * 100)
    on_disk([BucketFile.of(small)])
    assert kept.exists()  # too much is held, but both were read today
    yesterday = time.time() - 25 * 3600
    os.utime(kept, (yesterday, yesterday))
    on_disk([BucketFile.of(small)], again=True)
    assert not kept.exists()
    assert small.kept_at.read_bytes() == b"x" * 100
    assert [path.name for path in file.kept_in.rglob("*") if path.is_file()] == [small.name]


def test_a_file_larger_than_one_request_comes_whole(stored: Lake) -> None:
    root = _bucket(stored)
    large = Bucket(f"{root}/large.parquet", root.kept_in)
    data = random.Random(1).randbytes(12_000_000)  # put in parts of five megabytes, and read in chunks of four
    large.write(data)
    (path,) = on_disk([BucketFile.of(large)])
    assert Path(path).read_bytes() == data
    assert Path(path).is_relative_to(load_settings().home_path / "cache" / "lake")


def test_maintenance_of_a_bucket_changes_files_and_no_answer(stored: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        stored.write(
            "equity_bars", bars([bar(symbol, DAY, 2.0 + n) for symbol in ("A", f"S{n}")]), recorded_at=NOW + timedelta(days=n)
        )
        stored.publish()
    ids = stored.snapshots()
    before = {name: stored.snapshot(name).read("equity_bars") for name in ids}
    compacted = compact(stored, "equity_bars", at=NOW)
    assert compacted.files_after == 1
    assert compacted.files_before > 1
    assert stored.publish().id == ids[0]
    assert point_at(stored.root, stored.tables()) == (ids[0],)
    assert stored.snapshots() == ids
    later = datetime.now(UTC) + timedelta(days=2)
    assert set(drop_snapshots(stored, keep=[ids[1]], before=later, apply=True)) == set(ids[2:])
    assert sweep(stored, survey(stored, now=later)) > 0
    shutil.rmtree(load_settings().home_path / "cache")  # what is read now comes from what the bucket still holds
    assert stored.snapshots() == ids[:2]
    for name in ids[:2]:
        again = Lake(stored.root).snapshot(name)
        again.verify("equity_bars")
        assert again.read("equity_bars") == before[name]
    with pytest.raises(UnknownNameError):
        stored.snapshot(ids[2])
    # A store that refuses in the middle of it is told as everywhere else.
    monkeypatch.setattr("lake.bucket._RETRIES", 1)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="set AWS_ACCESS_KEY_ID"):
        survey(stored, now=later)


def test_what_is_left_of_a_dead_writer_goes_and_a_dropped_parent_harms_nothing(stored: Lake) -> None:
    for n in range(3):
        stored.write("equity_bars", bars([bar(f"S{n}", DAY, 1.0)]), recorded_at=NOW)
        stored.publish()
    third, second, _, first = stored.snapshots()
    orphan = _bucket(stored) / "equity_bars" / "year=2024" / "part-of-a-dead-writer.parquet"
    orphan.write(b"half a file")
    assert repair(stored, apply=True) == ()  # a put is whole or is not
    assert "year=2024/part-of-a-dead-writer.parquet" not in survey(stored, now=datetime.now(UTC))[0].removable
    later = datetime.now(UTC) + timedelta(days=2)
    drop_snapshots(stored, keep=[first], before=later, apply=True)
    left = survey(stored, now=later)
    assert (left[0].orphans, left[0].removable) == (len(b"half a file"), ("year=2024/part-of-a-dead-writer.parquet",))
    sweep(stored, left)
    assert not orphan.exists()
    again = Lake(stored.root)
    assert again.snapshots() == (third, first)
    assert again.snapshot().parent == second  # as it was published; nothing follows it
    with pytest.raises(UnknownNameError, match=f"no snapshot is called '{second}'"):
        again.snapshot(second)
    again.write("equity_bars", bars([bar("NEXT", DAY, 1.0)]), recorded_at=NOW)
    following = again.publish()
    assert (following.parent, again.snapshots()) == (third, (following.id, third, first))
    for name in again.snapshots():
        Lake(stored.root).snapshot(name).verify("equity_bars")


def test_maintenance_that_dies_between_its_two_puts_leaves_every_snapshot_readable(
    stored: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lake.snapshot as snapshots

    stored.write("equity_bars", bars([bar("C", DAY, 1.0)]), recorded_at=NOW)
    name = stored.publish().id
    compact(stored, "equity_bars", at=NOW)

    def die(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(snapshots, "_settle", die)
        with pytest.raises(KeyboardInterrupt):
            point_at(stored.root, stored.tables())
    assert stored.snapshot().tables["equity_bars"].version == 3  # the row has it, its own file has not
    later = datetime.now(UTC) + timedelta(days=2)
    drop_snapshots(stored, keep=[], before=later, apply=True)
    assert sweep(stored, survey(stored, now=later)) > 0  # the files of before
    stored.write("equity_bars", bars([bar("D", DAY, 1.0)]), recorded_at=NOW)
    assert stored.publish().parent == name
    shutil.rmtree(load_settings().home_path / "cache", ignore_errors=True)
    again = Lake(stored.root).snapshot(name)  # not the newest any more: by its own file
    assert again.read("equity_bars")["symbol"].to_pylist() == ["A", "B", "C"]
    again.verify("equity_bars")


def _wrong(monkeypatch: pytest.MonkeyPatch, server: S3Server, what: str) -> tuple[str, ...]:
    """Break one thing; return what the message must say."""
    if what == "bucket":
        monkeypatch.setenv("QUANT_LAKE__PATH", "s3://no-such-bucket/lake")
        return ("no-such-bucket", "NoSuchBucket", "make the bucket, or correct lake.path")
    if what == "key":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONGWRONG1")
        return ("InvalidAccessKeyId", BUCKET, "set AWS_ACCESS_KEY_ID")
    if what == "secret":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-of-that-key")
        return ("SignatureDoesNotMatch", BUCKET, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    return ("127.0.0.1:1", BUCKET, "check AWS_ENDPOINT_URL", "safe")


def _acts(lake: Lake) -> list[Any]:
    return [
        lambda: lake.write("equity_bars", bars([bar("A", DAY, 1.0)]), recorded_at=NOW),
        lambda: lake.read_latest("equity_bars"),
        lake.publish,
        lake.snapshot,
        lake.tables,
        lambda: lake.raw.put(b"an answer"),
        lambda: lake.raw.get("0" * 64),
    ]


@pytest.mark.parametrize("what", ["bucket", "key", "secret", "endpoint"])
def test_a_store_that_refuses_is_named_with_the_remedy_and_without_a_key(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("lake.bucket._RETRIES", 1)
    says = _wrong(monkeypatch, s3, what)
    for act in _acts(open_lake(load_settings())):
        with pytest.raises(StorageError) as refused:
            act()
        text = str(refused.value)
        for part in says:
            assert part in text, text
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert os.environ[name] not in text
        assert refused.value.__suppress_context__  # what the library said, keys and all, is not printed below ours


def test_a_server_that_goes_away_loses_nothing_that_it_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lake.bucket._RETRIES", 1)
    monkeypatch.setenv("QUANT_LAKE__PATH", f"s3://{BUCKET}/lake")
    with s3_server() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        lake = open_lake(load_settings())
        lake.write("equity_bars", bars([bar("A", DAY, 1.0)]), recorded_at=NOW)
        snapshot = lake.publish()
        server.forget_conditions()
        with pytest.raises(StorageError, match=r"(?s)overwrites what it was asked to put only if absent.*use a store that honours"):
            lake.write("macro_observations", macro([vintage(DAY, date(2024, 2, 1), 3.0)]), recorded_at=NOW)
        assert lake.tables().keys() == {"equity_bars"}
        os.kill(server.process.pid, signal.SIGSTOP)  # it takes connections and does not answer
        done = threading.Thread(target=os.kill, args=(server.process.pid, signal.SIGCONT))
        done.start()
        lake.write("equity_bars", bars([bar("B", DAY, 1.0)]), recorded_at=NOW)
        done.join()
        assert lake.publish().read("equity_bars")["symbol"].to_pylist() == ["A", "B"]
        server.stop()
        for act in _acts(lake):
            with pytest.raises(StorageError, match=r"(?s)cannot .*s3://.*check AWS_ENDPOINT_URL .*run the same command again"):
                act()
        with pytest.raises(StorageError, match=r"cannot read a file in s3://"):
            on_disk([BucketFile.of(_bucket(lake) / "gone.parquet")])
        assert snapshot.id


def test_what_the_cloud_says_is_shown_without_the_key_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    # The body in the form of AWS's own page on error responses, with a made-up key.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMADEUPMADEUP0001")
    body = (
        'Server returned non-2xx status code: 403 Forbidden: <?xml version="1.0" encoding="UTF-8"?>\n<Error>'
        "<Code>SignatureDoesNotMatch</Code><Message>The signature for AKIAMADEUPMADEUP0001 does not match</Message>"
        "<AWSAccessKeyId>AKIAMADEUPMADEUP0001</AWSAccessKeyId><StringToSign>GET\n\n20240101/us-east-1</StringToSign></Error>"
    )
    assert first_line(OSError(body)) == (
        "the store answered 403 Forbidden, SignatureDoesNotMatch: The signature for *** does not match"
    )


@pytest.mark.parametrize(
    "path",
    ["s3://", "s3:///lake", "s3://UPPER/lake", "s3://key:secret@bucket/lake", "s3://bucket/a//b", "s3://bucket/a%20b", "gs://b/l"],
)
def test_an_address_that_is_no_bucket_is_refused_without_showing_a_secret(path: str) -> None:
    with pytest.raises(ConfigError, match=r"lake\.path") as refused:
        load_settings({"lake.path": path})
    assert "secret" not in str(refused.value)


def _start(name: str, batches: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.lake.bucket_writer", name, str(batches)]
    return subprocess.Popen(command, cwd=HOUSE, stdout=subprocess.PIPE, text=True)


def _symbols(lake: Lake, name: str | None = None) -> Counter[str]:
    return Counter(lake.snapshot(name).read("equity_bars", columns=["symbol"])["symbol"].to_pylist())


@pytest.mark.slow
def test_four_processes_that_write_and_publish_lose_and_double_nothing(s3: S3Server) -> None:
    writers = [_start(name, 10) for name in "abcd"]
    said = [writer.communicate(timeout=240)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0]
    lake = open_lake(load_settings())
    expected = {f"{name}-{n:04d}": ROWS for name in ("a", "b", "c", "d", "common") for n in range(10)}
    assert _symbols(lake) == expected
    told = [line.split() for text in said for line in text.splitlines() if line.startswith("row")]
    assert sum(int(new) for _, _, new, _ in told) == sum(expected.values())
    assert sum(int(unchanged) for *_, unchanged in told) == 3 * 10 * ROWS
    lake.snapshot().verify("equity_bars")
    ids = lake.snapshots()
    acknowledged = {line.split()[1] for text in said for line in text.splitlines() if line.startswith("published")}
    assert acknowledged <= set(ids)
    assert [lake.snapshot(name).parent for name in ids] == [*ids[1:], None]
    for name in ids:
        assert set(_symbols(lake, name).values()) == {ROWS}


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_whole_states(s3: S3Server) -> None:
    acknowledged: set[str] = set()
    for kill in range(12):
        writer = _start(f"k{kill:02d}", 100)
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(1 + kill % 4)]
        time.sleep(0.013 * kill)
        writer.kill()
        lines += writer.communicate()[0].splitlines()
        acknowledged |= {line.split()[1] for line in lines if line.startswith("row")}
        lake = open_lake(load_settings())
        lake.publish().verify("equity_bars")
        counts = _symbols(lake)
        assert set(counts.values()) == {ROWS}
        assert acknowledged <= set(counts)
    ids = lake.snapshots()
    assert [lake.snapshot(name).parent for name in ids] == [*ids[1:], None]
