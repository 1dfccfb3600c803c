"""A read of many names, or of a long time, gives what DuckDB gives for it row by row; what a process remembers is never stale."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.errors import IntegrityError
from lake import Lake
from lake.broad import is_broad, key_filter
from lake.maintenance import compact
from tests.lake.rows import BARS, NOW, bar, bars, days, macro, vintage

FIRST = date(2023, 11, 1)
EARLY = datetime(2023, 12, 1, tzinfo=UTC)  # before the bars of some windows
NAMES = [f"S{n:02d}" for n in range(40)]
MANY = [*NAMES[::2], "NOT-THERE"]


@pytest.fixture(scope="module")
def revised(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Forty names, two years' files, two sources and intervals, and revisions, some of which move a row to another session."""
    chance = random.Random(20260101)
    lake = Lake(tmp_path_factory.mktemp("broad") / "lake")
    span = days(FIRST, 120)
    for n, cut in enumerate((span[:60], span[40:90], span[30:])):
        rows = []
        for name in NAMES:
            for day in cut:
                row = bar(name, day, float(n if chance.random() < 0.2 else 0), source=chance.choice(["one", "two"]))
                if n and chance.random() < 0.05:
                    row["session"] = chance.choice(span)
                rows.append(row | {"interval": "1h"} if chance.random() < 0.3 else row)
        lake.write("equity_bars", bars(rows), recorded_at=NOW + timedelta(days=n))
    lake.publish()
    return lake


def _asked() -> list[dict[str, Any]]:
    middle, late = date(2023, 12, 20), date(2024, 2, 1)
    noon = datetime(2023, 12, 20, 21, tzinfo=UTC)
    return [
        {"where": {"symbol": MANY}},
        {"where": {"symbol": MANY, "source": "one"}},
        {"where": {"source": ["one"], "interval": ["1d", "1h"]}},
        {"start": middle},
        {"end": late},
        {"start": middle, "end": late},
        {"start": noon},
        {"end": noon, "where": {"symbol": MANY}},
        {"start": middle, "end": noon + timedelta(days=40)},
        {"start": middle, "where": {"symbol": MANY}, "columns": ["close", "symbol"]},
    ]


@pytest.mark.parametrize("asked", _asked(), ids=lambda asked: " ".join(asked))
@pytest.mark.parametrize("as_of", [None, NOW, NOW + timedelta(days=1), EARLY])
def test_a_broad_read_gives_what_duckdb_gives(revised: Lake, asked: dict[str, Any], as_of: datetime | None) -> None:
    snapshot = revised.snapshot()
    limits = {name: asked.get(name) for name in ("where", "start", "end")}
    held = snapshot._held("equity_bars")
    assert held.revised
    arrow = key_filter(BARS, **limits)
    assert arrow is not None
    assert is_broad(held, arrow, held.parts_of(limits["start"], limits["end"]))
    found = snapshot.read("equity_bars", **asked, as_of=as_of)
    witness = snapshot.stream("equity_bars", **asked, as_of=as_of).read_all()  # by DuckDB, always
    assert found.schema == witness.schema
    assert found.to_pylist() == witness.to_pylist()
    assert found.num_rows > 0 or as_of == EARLY


@pytest.mark.parametrize(
    "asked",
    [
        {"start": date(2020, 1, 1), "end": date(2020, 12, 31)},
        {"start": datetime(2020, 1, 1, tzinfo=UTC)},
        {"where": {"series": [f"M{n:02d}" for n in range(20)]}, "end": date(2020, 6, 30)},
    ],
    ids=["days", "a time", "names and a day"],
)
@pytest.mark.parametrize("as_of", [None, datetime(2020, 9, 1, tzinfo=UTC)])
def test_a_table_of_periods_without_sessions_is_read_by_its_periods(
    lake: Lake, asked: dict[str, Any], as_of: datetime | None
) -> None:
    rows = [
        vintage(period, period + timedelta(days=lag), float(lag), series=f"M{n:02d}")
        for n in range(24)
        for period in days(date(2019, 11, 1), 460)[::30]
        for lag in (20, 50)
    ]
    lake.write("macro_observations", macro(rows), recorded_at=NOW)
    snapshot = lake.publish()
    found = snapshot.read("macro_observations", **asked, as_of=as_of)
    wanted = set(asked.get("where", {}).get("series", [row["series"] for row in rows]))
    first = asked.get("start", date.min)
    last = asked.get("end", date.max)
    expected = [  # by hand: every vintage is a key of its own
        (row["series"], row["period"], row["vintage"])
        for row in rows
        if row["series"] in wanted
        and (first.date() if isinstance(first, datetime) else first) <= row["period"] <= last
        and (as_of is None or row["available_at"] <= as_of)
    ]
    assert list(zip(*(found[name].to_pylist() for name in ("series", "period", "vintage")), strict=True)) == sorted(expected)
    assert expected


@pytest.mark.parametrize(
    "asked",
    [
        {"where": {"symbol": "S01"}},
        {"where": {"symbol": []}},
        {"where": {"close": 1.0}},
        {"where": {"symbol": [*NAMES, None]}},
        {"start": date(2024, 1, 10), "end": date(2024, 1, 10)},
    ],
    ids=["one name", "no name", "a value", "a NULL", "one day"],
)
def test_a_narrow_read_is_left_to_duckdb(revised: Lake, asked: dict[str, Any]) -> None:
    snapshot = revised.snapshot()
    arrow = key_filter(BARS, asked.get("where"), asked.get("start"), asked.get("end"))
    held = snapshot._held("equity_bars")
    assert arrow is None or not is_broad(held, arrow, held.parts)
    assert snapshot.read("equity_bars", **asked).to_pylist() == snapshot.stream("equity_bars", **asked).read_all().to_pylist()


def test_a_lake_made_anew_under_the_same_name_is_not_read_from_memory(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", FIRST, 1.0)]), recorded_at=NOW)
    old = lake.publish()
    assert Lake(lake.root).snapshot(old.id).read("equity_bars")["close"].to_pylist() == [1.0]
    kept = (Path(str(lake.root)) / "snapshots" / f"{old.id}.json").read_bytes()
    shutil.rmtree(str(lake.root))
    lake.write("equity_bars", bars([bar("A", FIRST, 2.0)]), recorded_at=NOW)
    assert lake.publish().read("equity_bars")["close"].to_pylist() == [2.0]
    (Path(str(lake.root)) / "snapshots" / f"{old.id}.json").write_bytes(kept)
    with pytest.raises(IntegrityError, match="not the one the snapshot was taken of"):
        Lake(lake.root).snapshot(old.id).read("equity_bars")
    shutil.rmtree(str(Path(str(lake.root)) / "equity_bars"))
    with pytest.raises(IntegrityError, match="is gone"):
        Lake(lake.root).snapshot().read("equity_bars")


def test_a_log_damaged_after_a_read_is_met_by_verify(lake: Lake) -> None:
    for n in range(3):
        lake.write("equity_bars", bars([bar("A", FIRST + timedelta(days=n), 1.0)]), recorded_at=NOW)
    snapshot = lake.publish()
    assert snapshot.read("equity_bars").num_rows == 3
    snapshot.verify("equity_bars")
    entry = Path(str(lake.root)) / "equity_bars" / "_delta_log" / f"{1:020d}.json"
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="damaged"):
        snapshot.verify("equity_bars")
    entry.write_bytes(whole)
    snapshot.verify("equity_bars")
    last = entry.with_name(f"{3:020d}.json")
    last.write_bytes(last.read_bytes()[:50])
    with pytest.raises(IntegrityError, match="damaged"):
        Lake(lake.root).snapshot().read("equity_bars")


def test_columns_and_files_of_every_version_are_remembered_apart(lake: Lake) -> None:
    names = []
    for n in range(40):  # more than are remembered
        lake.write("equity_bars", bars([bar(f"S{n}", FIRST, float(n))]), recorded_at=NOW)
        names.append(lake.publish().id)
    compact(lake, "equity_bars", at=NOW)
    for n in (0, 39, 20, 0, 5):
        assert Lake(lake.root).snapshot(names[n]).read("equity_bars").num_rows == n + 1
