"""kill -9 at random moments of an ingest, again and again: what comes out is what an undisturbed ingest leaves."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from config.settings import load_settings
from lake import open_lake
from tests.flows.killed_ingest import SYMBOLS

ROOT = Path(__file__).resolve().parents[2]
BARS = ["symbol", "session", "event_time", "close", "source", "available_at"]


def started(home: Path, day: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.flows.killed_ingest", f"2026-01-{day:02d}T12:00:00"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "QUANT_HOME": str(home)}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    process.stdout.close()
    return process


def left(home: Path) -> dict[str, Any]:
    """Everything an ingest leaves but its own moments and counts."""
    lake = open_lake(load_settings({"home": str(home)}))
    snapshot = lake.snapshot()
    return {
        "bars": snapshot.read("equity_bars", columns=BARS).to_pylist(),
        "actions": snapshot.read("corporate_actions", columns=["symbol", "ex_date", "kind", "value"]).to_pylist(),
        "gaps": lake.read_latest("gaps", columns=["symbol", "session", "state"]).to_pylist(),
        "quarantine": lake.read_latest("quarantine", columns=["row_id"]).to_pylist(),
    }


@pytest.mark.slow
def test_an_ingest_that_is_killed_again_and_again_ends_as_if_it_had_never_been(tmp_path: Path) -> None:
    began = time.monotonic()
    calm = started(tmp_path / "calm", 5)
    assert calm.wait(timeout=300) == 0
    whole = time.monotonic() - began
    chance = random.Random(20260105)
    kills = 0
    for day in range(6, 28):
        process = started(tmp_path / "killed", day)
        try:  # what was stored is not asked for again, so a run gets shorter from kill to kill
            process.wait(timeout=chance.uniform(0.0, whole / (2 + kills)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        if kills == 8:
            break
    process = started(tmp_path / "killed", 29)
    assert process.wait(timeout=300) == 0
    assert kills == 8
    assert left(tmp_path / "killed") == left(tmp_path / "calm")
    lake = open_lake(load_settings({"home": str(tmp_path / "killed")}))
    runs = {row["ingest_id"]: row for row in lake.read_latest("ingest_runs").to_pylist()}
    for table in ("equity_bars", "corporate_actions"):
        for ingest_id in lake.snapshot().ingest_ids(table):  # every row can be traced to the bytes it came from
            assert lake.raw.get(runs[ingest_id]["response_sha256"])
    assert not [row for row in runs.values() if row["outcome"] == "started"]
    assert {row["symbol"] for row in lake.read_latest("equity_bars", columns=["symbol"]).to_pylist()} == set(SYMBOLS)
