"""The engine of an ingest beside the least that could do the same: read the files, write the lake once."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from config.calendar import sessions
from config.clock import FixedClock
from config.settings import load_settings
from flows.ingest_equity import ingest_equity_flow
from flows.sources.base import Answer
from flows.sources.shape import bar_rows
from lake import open_lake

pytestmark = pytest.mark.bench

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
SYMBOLS, BARS = 500, 5_000


def make_files(folder: Path) -> None:
    """One CSV a symbol, prices to the cent."""
    folder.mkdir()
    days = sessions("2000-01-01", "2024-12-31")[-BARS:]
    chance = np.random.default_rng(1)
    for number in range(SYMBOLS):
        close = np.round(100 * np.exp(np.cumsum(chance.normal(0, 0.01, len(days)))), 2)
        frame = pd.DataFrame({"Date": days.strftime("%Y-%m-%d"), "Open": close, "High": close, "Low": close, "Close": close})
        frame.assign(Volume=1000 + number).to_csv(folder / f"S{number:03d}.csv", index=False)


def plain(folder: Path, home: Path) -> float:
    """CPU seconds of pandas.read_csv for each file and one write."""
    began = time.process_time()
    frames = [
        pd.read_csv(path, parse_dates=["Date"])
        .rename(columns=str.lower)
        .rename(columns={"date": "session"})
        .assign(symbol=path.stem)
        for path in sorted(folder.glob("*.csv"))
    ]
    rows, _ = bar_rows(pd.concat(frames, ignore_index=True), source="files", basis="as_traded", currency="USD", calendar="XNYS")
    answer = Answer(source="files", dataset="equity_bars", origin="x", request={}, payload=b"", rows=rows, names=())
    written = open_lake(load_settings({"home": str(home)})).write("equity_bars", answer.lake_rows(), recorded_at=NOW)
    assert written.new == SYMBOLS * BARS
    return time.process_time() - began


def engine(folder: Path, home: Path, at: datetime = NOW) -> float:
    """CPU seconds of the whole ingest: bytes kept, rules, flags, gaps, runs, snapshot."""
    began = time.process_time()
    report = ingest_equity_flow(source="files", path=str(folder), settings=load_settings({"home": str(home)}), clock=FixedClock(at))
    assert report.total.received == SYMBOLS * BARS
    return time.process_time() - began


def test_the_engine_beside_read_csv_and_one_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(tmp_path / "prices")
    least = plain(tmp_path / "prices", tmp_path / "plain")
    whole = engine(tmp_path / "prices", tmp_path / "engine")
    again = engine(tmp_path / "prices", tmp_path / "engine", NOW.replace(day=6))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with capsys.disabled():
        print(f"\n{SYMBOLS} files of {BARS} bars, CPU seconds: read_csv and one write {least:.1f}, ingest {whole:.1f} ", end="")
        print(f"(× {whole / least:.2f}), the same again {again:.1f}; peak memory of both {peak:.0f} MB")
    assert whole > 0


def test_memory_stays_flat_while_symbols_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source that answers one symbol at a time: five times the symbols are not five times the memory."""
    peaks = {}
    for count in (100, 500):
        script = (
            "import resource, sys\nfrom tests.flows.fake_vendor import FakeVendor, ramp, run\n"
            "class Vendor(FakeVendor):\n"
            "    def bars(self, symbols, start, end):\n"
            "        self.history = {name: bars for name in symbols}\n"
            "        return super().bars(symbols, start, end)\n"
            "bars = ramp('2020-01-02', '2024-12-31')\n"
            f"report = run(Vendor({{}}), [f'S{{n:03d}}' for n in range({count})])\n"
            f"assert report.total.new == {count} * len(bars)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
        )
        environment = {"QUANT_HOME": str(tmp_path / str(count)), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=True)
        peaks[count] = int(done.stdout)
    with capsys.disabled():
        print(f"\npeak memory of an ingest, MB by symbols of 1,258 bars: {peaks}")
    assert peaks[500] < 2 * peaks[100]
