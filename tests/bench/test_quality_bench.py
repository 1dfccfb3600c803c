"""Five million daily bars: how long the rules take at the gate, among neighbours, and over a stored table."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from config.calendar import session_closes, sessions
from config.clock import FixedClock
from config.settings import load_settings
from config.tables import TABLES
from flows.checking import check_quality
from flows.inventory import list_tables
from lake import open_lake
from lake.quality import series_flags, split

BARS = TABLES["equity_bars"]
SYMBOLS, SESSIONS = 1_000, 5_000


def _five_million() -> pa.Table:
    rng = np.random.default_rng(20260101)
    days = sessions("2004-01-02", "2030-01-01")[:SESSIONS]
    complete = session_closes(days).tz_convert(None).as_unit("us").to_numpy()
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, (SYMBOLS, SESSIONS)), axis=1)), 4) + 0.01
    opened = close * (1 + rng.normal(0, 0.005, close.shape))
    rows, moment = close.size, pa.array(np.tile(complete, SYMBOLS), pa.timestamp("us", tz="UTC"))
    numbers = {"open": opened, "high": np.maximum(opened, close) * 1.01, "low": np.minimum(opened, close) * 0.99, "close": close}
    columns = {name: pa.array(values.ravel()) for name, values in numbers.items()}
    columns |= {"volume": pa.array(rng.integers(1, 10**6, rows).astype(float)), "event_time": moment, "available_at": moment}
    columns["symbol"] = pa.array(np.repeat(np.array([f"S{n:04d}" for n in range(SYMBOLS)], dtype=object), SESSIONS), pa.string())
    columns["session"] = pa.array(np.tile(days.to_numpy().astype("datetime64[D]"), SYMBOLS), pa.date32())
    same = {"interval": "1d", "source": "test", "basis": "as_traded", "currency": "USD", "calendar": "XNYS", "ingest_id": "first"}
    columns |= {name: pa.repeat(pa.scalar(value, pa.string()), rows) for name, value in same.items()}
    schema = pa.schema([field for field in BARS.schema if field.name != "recorded_at"])
    return pa.table([columns[field.name] for field in schema], schema=schema)


@pytest.mark.bench
def test_five_million_bars_are_judged_in_two_cpu_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _five_million()
    spent: dict[str, float] = {}

    def measured(what: str, began: float) -> None:
        spent[what] = time.process_time() - began

    began = time.process_time()
    parted = split(rows, BARS)
    measured("split", began)
    assert (parted.accepted.num_rows, parted.refused.num_rows, parted.flagged.num_rows) == (rows.num_rows, 0, 0)
    began = time.process_time()
    series_flags(parted.accepted, BARS)
    measured("series_flags", began)
    lake = open_lake(load_settings({"lake.path": str(tmp_path / "lake")}))
    lake.write(BARS, rows, recorded_at=datetime(2026, 1, 2, tzinfo=UTC))
    lake.publish()
    settings = load_settings({"lake.path": str(tmp_path / "lake")})
    began = time.process_time()
    check_quality(settings)
    measured("data check", began)
    began = time.process_time()
    listed = list_tables(settings, FixedClock(datetime(2026, 1, 2, tzinfo=UTC)), symbols=True)
    measured("data ls --symbols", began)
    assert listed["tables"][0]["current"] == rows.num_rows
    with capsys.disabled():
        print("\n5 M bars, CPU seconds: " + ", ".join(f"{what} {seconds:.2f}" for what, seconds in spent.items()))
    assert spent["split"] < 2.0
