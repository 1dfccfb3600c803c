"""The adjusted read beside the plain read of the same bars and columns, in one run.

`QUANT_BENCH_BARS` sets how many bars (5,000,000 by default, of 1,000 symbols). Each symbol pays four dividends a year and is split
twice. CPU seconds of the whole process (threads included), the least of several taken in turns; each read opens the lake anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from config.tables import TABLES
from lake import Lake
from lake.adjustment import Adjust, adjusted_bars
from tests.bench.walk import Walk, make_walk

BARS = int(os.environ.get("QUANT_BENCH_BARS", "5000000"))
SYMBOLS = 1000
COLUMNS = ("symbol", "session", "event_time", "open", "high", "low", "close", "volume")
NOW = datetime(2026, 7, 1, tzinfo=UTC)


def actions_of(walk: Walk) -> pa.Table:
    """Dividends of about a quarter of one per cent every 63 sessions, a split of two for one on two days."""
    schema = pa.schema([field for field in TABLES["corporate_actions"].schema if field.name != "recorded_at"])
    days, shared = len(walk.days), {"source": "bench", "ingest_id": "load"}
    rows = []
    for place, symbol in enumerate(walk.symbols):
        told = [(row, "dividend", 0.0025 * float(walk.close[row - 1, place])) for row in range(20 + place % 40, days, 63)]
        told += [(days // 3, "split", 2.0), (2 * days // 3, "split", 2.0)]
        for row, kind, value in told:
            day = walk.days[row]
            known = datetime(day.year, day.month, day.day, 14, tzinfo=UTC)
            rows.append({"symbol": symbol, "ex_date": day, "kind": kind, "value": value, "available_at": known, **shared})
    return pa.Table.from_pylist(rows, schema=schema)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root: Path = tmp_path_factory.mktemp("adjusted-bench")
    walk = make_walk(bars=BARS, symbols=SYMBOLS, updates=0, rng=np.random.default_rng(20260101))
    held = Lake(root / "lake")
    held.write("equity_bars", walk.bars(range(len(walk.days))), recorded_at=NOW)
    held.write("corporate_actions", actions_of(walk), recorded_at=NOW)
    held.publish()
    return held


def cpu(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


@pytest.mark.bench
def test_the_adjusted_read_beside_the_plain_read(lake: Lake) -> None:
    symbols = lake.snapshot().read("equity_bars", columns=["symbol"])["symbol"].unique().to_pylist()

    def plain() -> pa.Table:
        return lake.snapshot().read("equity_bars", where={"symbol": symbols, "interval": ["1d"]}, columns=COLUMNS)

    def adjusted(adjust: Adjust) -> pa.Table:
        return adjusted_bars(lake.snapshot(), symbols, adjust=adjust, columns=COLUMNS)

    rounds = [(cpu(plain), cpu(lambda: adjusted("splits")), cpu(lambda: adjusted("total"))) for _ in range(4)]
    read, splits, total = (min(one[at] for one in rounds) for at in range(3))
    print(f"\n{BARS:,} bars, plain read            {read:7.3f} CPU s")
    for name, spent in (("splits", splits), ("total", total)):
        print(f"adjusted for {name:<8} {spent:7.3f} CPU s   ratio {spent / read:5.2f}")
    found = adjusted("total")
    assert found.num_rows == plain().num_rows
    assert not found["close"].equals(plain()["close"])
    assert total < 2 * read
