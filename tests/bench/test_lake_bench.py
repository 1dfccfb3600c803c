"""The lake beside a folder of Parquet, in one run: first load, a year of daily updates, and every kind of read.

The bars are a seeded random walk (`tests.bench.walk`). `QUANT_BENCH_BARS` sets how many are loaded first (5,000,000 by default),
`QUANT_BENCH_DAYS` how many daily updates follow (250). Each day brings 1,000 new bars and the day before once more, two of its
bars revised; the folder, which knows no revisions, gets the new bars only. Reads are measured alternately, ours and the peer's,
in CPU seconds of the whole process (threads included), the least of several; every read opens the snapshot, or the files,
anew, in an engine that has been started.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from config.tables import TABLES
from lake import Lake
from lake.maintenance import compact
from lake.quality import split
from lake.snapshot import point_at
from tests.bench.folder import Folder
from tests.bench.walk import Walk, make_walk, vintages

BARS = int(os.environ.get("QUANT_BENCH_BARS", "5000000"))
DAYS = int(os.environ.get("QUANT_BENCH_DAYS", "250"))
SYMBOLS = 1000
REVISED = 2
PANEL = ("symbol", "session", "open", "high", "low", "close", "volume")
JOIN = (
    "SELECT b.symbol, b.event_time, b.close, m.value FROM {bars} b "
    "ASOF JOIN (SELECT available_at, value FROM {macro} WHERE series = 'M003') m ON b.event_time >= m.available_at"
)


def _cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    before = time.process_time()
    answer = work()
    return time.process_time() - before, answer


def _beside(ours: Callable[[], Any], peer: Callable[[], Any], *, rounds: int) -> tuple[float, float]:
    """The least CPU seconds of each, measured in turns."""
    pairs = [(_cpu(ours)[0], _cpu(peer)[0]) for _ in range(rounds)]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def _say(what: str, ours: float, peer: float, bound: float | None = None) -> float:
    limit = "" if bound is None else f"   (target {bound})"
    print(f"{what:<44} {ours:8.3f} CPU s   peer {peer:8.3f}   ratio {ours / peer:5.2f}{limit}")
    return ours / peer


@dataclass
class Stage:
    """What the measurements share."""

    lake: Lake
    folder: Folder
    walk: Walk
    updates: list[float]
    peer_updates: list[float]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Load, update every day, and maintain; prints what that costs."""
    root = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(20260101)
    walk = make_walk(bars=BARS, symbols=SYMBOLS, updates=DAYS, rng=rng)
    macro = vintages(walk.days, series=20, rng=rng)
    lake, folder = Lake(root / "lake"), Folder(root / "folder")
    folder.root.mkdir()
    now = datetime(2025, 1, 1, 12, tzinfo=UTC)
    bars = walk.bars(range(walk.loaded))
    print(f"\n{bars.num_rows:,} bars of {SYMBOLS} symbols ({bars.nbytes / 1e6:,.0f} MB as Arrow), then {DAYS} daily updates")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peer, _ = _cpu(lambda: folder.load(bars, macro))
    wall = time.perf_counter()
    ours, _ = _cpu(lambda: lake.write("equity_bars", bars, recorded_at=now))
    _say("first load", ours, peer)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"  {time.perf_counter() - wall:.1f} s of wall time; peak memory {peak / 1e3:,.0f} MB before, {after / 1e3:,.0f} MB after"
    )
    lake.write("macro_observations", macro, recorded_at=now)
    lake.publish()
    stage = Stage(lake, folder, walk, [], [])
    for n in range(walk.loaded, len(walk.days)):
        day = datetime.combine(walk.days[n], datetime.min.time(), UTC) + timedelta(hours=22)
        batch = pa.concat_tables([walk.bars([n]), walk.bars([n - 1], revised=REVISED, ingest="again")])
        again = walk.bars([n])
        stage.updates.append(_cpu(lambda: (lake.write("equity_bars", batch, recorded_at=day), lake.publish()))[0])  # noqa: B023
        stage.peer_updates.append(_cpu(lambda: folder.update(again, f"day-{n:05d}"))[0])  # noqa: B023
    return stage


def _reads(stage: Stage, *, rounds: int) -> dict[str, tuple[float, float]]:
    walk, folder = stage.walk, stage.folder
    symbol, day = walk.symbols[500], walk.days[-20]
    columns = ", ".join(PANEL)
    every = ", ".join(name for name in TABLES["equity_bars"].schema.names if name != "recorded_at")
    late = datetime(2025, 6, 30, 22, tzinfo=UTC)

    def ours() -> Any:
        return Lake(stage.lake.root).snapshot()

    def join() -> pa.Table:
        return ours().sql(JOIN.format(bars="equity_bars", macro="macro_observations"))

    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "one symbol": (lambda: ours().read("equity_bars", where={"symbol": symbol}), lambda: folder.history(symbol)),
        "one day": (lambda: ours().read("equity_bars", start=day, end=day), lambda: folder.cross_section(day)),
        "panel, in key order": (
            lambda: ours().read("equity_bars", columns=PANEL),
            lambda: folder.panel(columns, ordered=True),
        ),
        "panel, the folder's in no order": (
            lambda: ours().read("equity_bars", columns=PANEL),
            lambda: folder.panel(columns, ordered=False),
        ),
        "every column, in key order": (lambda: ours().read("equity_bars"), lambda: folder.panel(every, ordered=True)),
        "as-of read beside our plain read": (
            lambda: ours().read("equity_bars", columns=PANEL, as_of=late),
            lambda: ours().read("equity_bars", columns=PANEL),
        ),
        "point-in-time join with macro vintages": (join, lambda: folder.ask(JOIN.format(bars=folder.bars, macro=folder.macro))),
    }
    return {name: _beside(*pair, rounds=rounds) for name, pair in pairs.items()}


def _maintain(lake: Lake) -> None:
    for name in lake.tables():
        compact(lake, name, at=datetime(2026, 1, 1, tzinfo=UTC))
    point_at(lake.root, lake.tables())


@pytest.mark.bench
def test_the_update_of_a_day_costs_the_same_all_year(stage: Stage) -> None:
    first, last = float(np.median(stage.updates[:20])), float(np.median(stage.updates[-20:]))
    means = float(np.mean(stage.updates[:20])), float(np.mean(stage.updates[-20:]))
    print(
        f"a day's update: first 20 {means[0]:.3f} CPU s, last 20 {means[1]:.3f}: ratio {means[1] / means[0]:.2f} "
        f"(medians {first:.3f}, {last:.3f})"
    )
    _say("an average day's update, folder's file beside", float(np.mean(stage.updates)), float(np.mean(stage.peer_updates)))
    assert means[1] / means[0] < 1.3


@pytest.mark.bench
def test_no_read_is_slower_than_one_and_a_half_times_the_folder(stage: Stage) -> None:
    print("before maintenance")
    for name, pair in _reads(stage, rounds=2).items():
        _say(name, *pair)
    spent, _ = _cpu(lambda: _maintain(stage.lake))
    for year in {day.year for day in stage.walk.days[stage.walk.loaded :]}:
        stage.folder.compact(year)
    print(f"after maintenance ({spent:.2f} CPU s)")
    found = {name: _say(name, *pair, 1.5) for name, pair in _reads(stage, rounds=5).items()}
    assert {name: round(ratio, 2) for name, ratio in found.items() if ratio > 1.5} == {}


@pytest.mark.bench
def test_a_read_gives_what_the_folder_gives(stage: Stage) -> None:
    snapshot, day = stage.lake.snapshot(), stage.walk.days[-20]
    theirs = stage.folder.history("S0500")
    assert snapshot.read("equity_bars", where={"symbol": "S0500"}, columns=theirs.column_names).to_pylist() == theirs.to_pylist()
    whole = snapshot.read("equity_bars", columns=["symbol", "session", "close", "volume"])
    peer = stage.folder.panel("symbol, session, close, volume", ordered=True)
    assert whole["symbol"].combine_chunks().equals(peer["symbol"].combine_chunks())
    assert whole["session"].combine_chunks().equals(peer["session"].combine_chunks())
    assert whole["volume"].combine_chunks().equals(peer["volume"].combine_chunks())
    dearer = np.flatnonzero(whole["close"].to_numpy() != peer["close"].to_numpy())
    assert len(dearer) == REVISED * DAYS
    first = snapshot.read("equity_bars", start=day, end=day, columns=["close"], as_of=datetime(2025, 1, 1, 12, tzinfo=UTC))
    assert first.num_rows == 0


@pytest.mark.bench
def test_five_million_rows_are_validated_in_two_cpu_seconds(stage: Stage) -> None:
    bars = stage.walk.bars(range(stage.walk.loaded))
    spent, found = min(
        (_cpu(lambda: split(bars, TABLES["equity_bars"], calendar="XNYS")) for _ in range(3)), key=lambda one: one[0]
    )
    print(f"validation of {bars.num_rows:,} rows: {spent:.2f} CPU s (target 2)")
    assert found.accepted.num_rows == bars.num_rows
    assert spent < 2.0
