"""Closed streams, full disks, interruptions, two processes at once, damaged files: the command line meets them all."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.flows.demo_home import QUANT, Said, environment, quant
from tests.flows.home_facts import account, ledger, numbers, registered_versions

Demo = tuple[Path, dict[str, Any]]
PAPER = "paper-*"


def started(home: Path, *words: str) -> subprocess.Popen[str]:
    home.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [*QUANT, *words], cwd=home.parent, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> Said:
    out, err = process.communicate(timeout=300)
    return Said(process.returncode, out, err)


def shell(home: Path, line: str) -> Said:
    """Run a line of shell in which ``$QUANT`` stands for the command."""
    home.parent.mkdir(parents=True, exist_ok=True)
    python, _, code = QUANT
    env = environment(home) | {"PYTHON": python, "CODE": code}
    done = subprocess.run(
        ["bash", "-c", line.replace("$QUANT", '"$PYTHON" -c "$CODE"')],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$QUANT features ls >&-", 0),
        ("$QUANT features ls 2>&-", 0),
        ("$QUANT features ls <&- >&- 2>&-", 0),
        ("$QUANT features ls | head -1; exit ${PIPESTATUS[1]}", 0),
        ("$QUANT features ls > /dev/full", 5),
        ("$QUANT features ls --json > /dev/full", 5),
        ("$QUANT data ls --json > /dev/full", 1),
    ],
)
def test_closed_and_full_streams_give_no_traceback(tmp_path: Path, line: str, code: int) -> None:
    said = shell(tmp_path / "home", line)
    assert "Traceback" not in said.err
    assert "Exception ignored" not in said.err
    assert said.code == code, said.err


def test_a_deleted_current_folder_is_named(tmp_path: Path) -> None:
    said = shell(
        tmp_path / "home",
        f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && unset QUANT_HOME && $QUANT data ls",
    )
    assert said.code == 5
    assert "current folder was deleted" in said.err


def test_without_writable_caches_they_go_into_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from config.caches import place_caches

    for name in ("PREFECT_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QUANT_HOME", str(tmp_path / "quant"))
    monkeypatch.setenv("HOME", str(tmp_path))
    place_caches()
    assert "PREFECT_HOME" not in os.environ
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PREFECT_HOME", "mine")
    monkeypatch.setenv("MPLCONFIGDIR", "")
    monkeypatch.delenv("MPLCONFIGDIR")
    place_caches()
    assert os.environ["PREFECT_HOME"] == "mine"
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "quant" / "cache" / "matplotlib")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A finished demo that nothing disturbed."""
    home = tmp_path_factory.mktemp("calm") / "home"
    said = quant(home, "demo", "--json")
    assert said.code == 0, said.err
    return home, said.document


@pytest.mark.slow
def test_interrupted_it_says_so_and_goes_on_from_there(calm: Demo, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for seconds in (3, 8, 14):
        process = started(home, "demo", "--json")
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        said = ended(process)
        assert said.code == 130, said.err
        assert "interrupted" in said.err
        assert "Traceback" not in said.err
    assert numbers(quant(home, "demo", "--json").document) == numbers(calm[1])


@pytest.mark.slow
def test_two_processes_at_once_lose_and_double_nothing(calm: Demo, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = started(home, "demo", "--json")
    until = time.monotonic() + 120
    while not (home / "locks" / "demo.lock").exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.5)
    ingest, second = started(home, "ingest", "equity", "--source", "bundled", "--json"), quant(home, "demo", "--json")
    assert (second.code, second.document["error"]["kind"]) == (5, "LockHeldError")
    beside = ended(ingest)
    assert beside.code == 0, beside.err
    said = ended(first)
    assert said.code == 0, said.err
    assert numbers(said.document) == numbers(calm[1])

    counted = len(ledger(home)["trials"])
    pair = [
        started(home, "backtest", "sma_crossover", "--symbols", "NASDAQ", "--set", f"fast={f}", "--set", "slow=77", "--json")
        for f in (11, 13)
    ]
    logged = [ended(process) for process in pair]
    assert [one.code for one in logged] == [0, 0], logged
    assert len({one.document["run_id"] for one in logged}) == 2
    assert len(ledger(home)["trials"]) == counted + 2
    assert ledger(home)["whole"]

    before = account(home)
    traded = [ended(process) for process in [started(home, "trade", "buy_and_hold", "--json") for _ in range(2)]]
    assert {one.code for one in traded} <= {0, 5}
    assert 0 in {one.code for one in traded}
    assert all(one.document["error"]["kind"] == "LockHeldError" for one in traded if one.code == 5)
    assert account(home) == before


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of that size; skips where mounting is not permitted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a file system of a given size needs mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_the_disk_fills_at_many_points_and_with_more_room_the_demo_completes(calm: Demo, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "64k"):
        for size in ("64k", "1m", "5m", "12m", "20m", "30m", "48m"):
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
            said = quant(disk / "home", "demo", "--json")
            assert (said.code, said.document["error"]["kind"]) == (5, "StorageError"), (size, said.err)
            assert said.document["error"]["remedy"]
            assert "Traceback" not in said.err
        subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
        said = quant(disk / "home", "demo", "--json")
        assert said.code == 0, said.err
        assert numbers(said.document) == numbers(calm[1])
        assert account(disk / "home") == account(calm[0])
        assert ledger(disk / "home") == ledger(calm[0])
        assert registered_versions(disk / "home") == registered_versions(calm[0])
        assert quant(disk / "home", "data", "verify", "--json").document["problems"] == 0


@pytest.mark.slow
def test_on_a_read_only_disk_it_says_what_to_do(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        said = quant(disk / "home", "demo", "--json")
        assert (said.code, said.document["error"]["kind"]) == (5, "StorageError")
        assert "QUANT_HOME" in said.document["error"]["remedy"]


def moved(calm_home: Path, home: Path) -> Path:
    """A copy of a finished home; MLflow keeps full paths, so they are put right."""
    shutil.copytree(calm_home, home)
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as connection, connection:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location"), ("model_versions", "source")):
            connection.execute(f"update {table} set {column} = replace({column}, ?, ?)", (str(calm_home), str(home)))
    return home


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        "lake/equity_bars/year=2010/*.parquet",
        "lake/equity_bars/_delta_log/*2.json",
        "lake/snapshots/NEWEST",
        "mlflow/mlflow.history.db",
        "trials/returns/*.parquet",
        f"execution/{PAPER}/journal.db",
    ],
)
def test_one_damaged_file_is_named_or_healed_and_never_changes_a_number(calm: Demo, tmp_path: Path, pattern: str) -> None:
    home = moved(calm[0], tmp_path / "home")
    for file in sorted(home.glob(pattern))[:1]:
        content = bytearray(file.read_bytes())
        for place in range(0, len(content), max(1, len(content) // 20)):
            content[place] ^= 0xFF
        file.write_bytes(content)
    said = quant(home, "demo", "--json")
    assert "Traceback" not in said.err
    if said.code == 0:
        assert numbers(said.document) == numbers(calm[1])
    else:
        assert said.code in (3, 5), said.err
        assert said.document["error"]["remedy"]
