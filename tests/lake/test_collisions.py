"""Writers that collide lose nothing and double nothing; a writer that is killed leaves whole states behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from config.errors import LockHeldError
from lake import Lake
from lake.delta import open_table
from tests.lake.rows import NOW, bar, bars, macro, vintage
from tests.lake.writer_process import ROWS

HOUSE = Path(__file__).parents[2]


def _start(lake: Lake, name: str, batches: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.lake.writer_process", str(lake.root), name, str(batches), *more]
    return subprocess.Popen(command, cwd=HOUSE, stdout=subprocess.PIPE, text=True)


def _counts(lake: Lake, name: str | None = None) -> Counter[str]:
    return Counter(lake.snapshot(name).read("equity_bars", columns=["symbol"])["symbol"].to_pylist())


def test_processes_that_write_the_same_table_lose_and_double_nothing(lake: Lake) -> None:
    writers = [_start(lake, name, 6, "common") for name in ("a", "b", "c")]
    said = [writer.communicate(timeout=120)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    expected = {f"{name}-{n:04d}": ROWS for name in ("a", "b", "c", "common") for n in range(6)}
    assert _counts(lake) == expected
    # Each common row was new to exactly one of the three, and unchanged to the two others.
    told = [line.split() for text in said for line in text.splitlines() if line.startswith("row")]
    assert sum(int(new) for _, _, new, _ in told) == sum(expected.values())
    assert sum(int(unchanged) for *_, unchanged in told) == 2 * 6 * ROWS
    lake.snapshot().verify("equity_bars")
    for text in said:  # every id that anyone was told is there and whole
        for name in (line.split()[1] for line in text.splitlines() if line.startswith("published")):
            assert set(_counts(lake, name).values()) == {ROWS}


def test_threads_share_a_lake_on_different_tables_and_read_whole_batches(lake: Lake) -> None:
    problems: list[BaseException] = []
    seen: set[int] = set()

    def guarded(work: object) -> threading.Thread:
        def run() -> None:
            try:
                work()  # type: ignore[operator]
            except BaseException as problem:  # noqa: BLE001 - handed to the test below
                problems.append(problem)

        return threading.Thread(target=run)

    def write_bars() -> None:
        for n in range(8):
            lake.write("equity_bars", bars([bar(f"{n}-{k}", date(2024, 1, 2), 1.0) for k in range(20)]), recorded_at=NOW)
            lake.publish()

    def write_macro() -> None:
        for n in range(8):
            lake.write("macro_observations", macro([vintage(date(2000 + n, 1, 1), date(2024, 1, 2), 1.0)]), recorded_at=NOW)
            lake.publish()

    def read() -> None:
        for _ in range(15):
            seen.add(lake.read_latest("equity_bars").num_rows)

    threads = [guarded(work) for work in (write_bars, write_macro, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert seen <= {20 * n for n in range(9)}
    assert lake.publish().read("equity_bars").num_rows == 160
    assert lake.snapshot().read("macro_observations").num_rows == 8


def test_a_writer_that_loses_every_race_says_so_and_writes_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write("equity_bars", bars([bar("A", date(2024, 1, 2), 1.0)]), recorded_at=NOW)
    import lake.writer as writer

    merge, rivals = writer._merge, iter(range(100))

    def overtaken(*given: object) -> object:
        merged = merge(*given)  # type: ignore[arg-type]
        monkeypatch.setattr(writer, "_merge", merge)
        Lake(lake.root).write("equity_bars", bars([bar(f"R{next(rivals)}", date(2024, 1, 2), 1.0)]), recorded_at=NOW)
        monkeypatch.setattr(writer, "_merge", overtaken)
        return merged

    monkeypatch.setattr(writer, "_merge", overtaken)
    mine = bars([bar("MINE", date(2020, 1, 2), 1.0)])  # even in another partition
    with pytest.raises(LockHeldError, match="in each of 3 attempts; nothing was written"):
        Lake(lake.root, write_attempts=3).write("equity_bars", mine, recorded_at=NOW)
    assert lake.read_latest("equity_bars")["symbol"].to_pylist() == ["A", "R0", "R1", "R2"]
    monkeypatch.setattr(writer, "_merge", merge)
    assert Lake(lake.root, write_attempts=1).write("equity_bars", mine, recorded_at=NOW).new == 1


def test_an_acknowledged_write_has_been_forced_to_the_disk(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def recording(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recording)
    lake.write("equity_bars", bars([bar("A", date(2023, 1, 3), 1.0), bar("A", date(2024, 1, 2), 1.0)]), recorded_at=NOW)
    table = open_table(lake.root / "equity_bars")
    assert table is not None
    folder = lake.root / "equity_bars"
    needed = {*table.file_uris(), str(folder / "year=2023"), str(folder), str(folder / "_delta_log"), str(lake.root)}
    needed |= {str(folder / "_delta_log" / f"{version:020d}.json") for version in (0, 1)}
    assert needed <= set(synced)
    synced.clear()
    snapshot = lake.publish()
    # Whoever committed it: the writer may have died before it synced.
    assert set(table.file_uris()) <= set(synced)
    assert any(name.startswith(str(lake.root / "snapshots" / ".tmp-")) for name in synced)
    assert str(lake.root / "snapshots") in synced
    assert (lake.root / "snapshots" / f"{snapshot.id}.json").exists()


class _Killable:
    """Processes that write to files of their own, so that none waits for a reader of its pipe."""

    def __init__(self, lake: Lake, folder: Path) -> None:
        self.lake, self.folder = lake, folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> _Killable:
        return self

    def __exit__(self, *given: object) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def start(self, name: str, *words: str) -> None:
        with (self.folder / name).open("wb") as out, (self.folder / f"{name}.err").open("wb") as err:
            command = [sys.executable, "-m", words[0], str(self.lake.root), *words[1:]]
            self.running[name] = subprocess.Popen(command, cwd=HOUSE, stdout=out, stderr=err)

    def kill(self, name: str) -> list[str]:
        """Kill it with -9; return the whole lines it had said. It must not have ended, or complained, by itself."""
        process = self.running.pop(name)
        assert process.poll() is None, (self.folder / f"{name}.err").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (self.folder / f"{name}.err").read_text() == ""
        return (self.folder / name).read_text().rpartition("\n")[0].splitlines()


@pytest.mark.slow
def test_fifty_kills_among_four_writers_and_a_maintainer_lose_nothing_that_was_acknowledged(lake: Lake, tmp_path: Path) -> None:
    chance = random.Random(20260101)
    acknowledged: set[str] = set()
    published: set[str] = set()
    rounds = 0
    with _Killable(lake, tmp_path) as processes:
        for kill in range(50):
            for n in range(4):
                if not any(name.startswith(f"w{n}-") for name in processes.running):
                    processes.start(f"w{n}-{kill}", "tests.lake.writer_process", f"w{n}-{kill}", "1000")
            if not any(name.startswith("m-") for name in processes.running):
                processes.start(f"m-{kill}", "tests.lake.maintainer_process")
            until = time.monotonic() + chance.uniform(0.2, 3.0)
            while time.monotonic() < until:  # a reader beside them, in this process
                if lake.has_snapshot():
                    assert set(_counts(lake).values()) <= {ROWS}, "a reader saw a part of a batch"
            hit = "m-" if kill % 5 == 4 else f"w{chance.randrange(4)}-"  # every fifth kill hits the maintainer
            victim = next(name for name in processes.running if name.startswith(hit))
            said = processes.kill(victim)
            rounds += sum(line.startswith("round") for line in said)
            acknowledged |= {line.split()[1] for line in said if line.startswith("row")}
            published |= {line.split()[1] for line in said if line.startswith("published")}
            newest = lake.publish()
            counts = _counts(lake, newest.id)
            assert set(counts.values()) <= {ROWS}
            assert acknowledged <= set(counts)
            if kill % 10 == 9:
                newest.verify("equity_bars")
        for name in list(processes.running):
            acknowledged |= {line.split()[1] for line in processes.kill(name) if line.startswith("row")}
    final = lake.publish()
    final.verify("equity_bars")
    assert acknowledged <= set(_counts(lake, final.id))
    assert len(acknowledged) >= 50
    assert rounds > 0
    assert published <= set(lake.snapshots())
    for name in published:
        assert set(_counts(lake, name).values()) == {ROWS}


def test_a_writer_that_died_after_making_the_table_leaves_nothing_that_is_published(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lake.writer as writer

    def die(*given: object, **more: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "rows_digest", die)
    with pytest.raises(KeyboardInterrupt):
        lake.write("equity_bars", bars([bar("A", date(2024, 1, 2), 1.0)]), recorded_at=NOW)
    monkeypatch.undo()
    assert lake.publish().tables == {}
    assert lake.read_latest("equity_bars").num_rows == 0
    assert lake.write("equity_bars", bars([bar("A", date(2024, 1, 2), 1.0)]), recorded_at=NOW).new == 1
    lake.publish().verify("equity_bars")
