"""`quant data maintain`: a dry run by default, safe beside four writers, and what a run or a plan names is kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from config.clock import FixedClock
from config.errors import InputError
from config.settings import Settings, load_settings
from flows.maintain import maintain_flow, referenced_snapshots
from lake import Lake, open_lake
from tests.flows.demo_home import QUANT, environment
from tests.lake.rows import NOW, bar, bars, days

HOUSE = Path(__file__).parents[2]
D2 = date(2024, 1, 2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(overrides={"home": str(tmp_path / "home")})


def _fill(settings: Settings, batches: int) -> Lake:
    lake = open_lake(settings)
    for n in range(batches):
        lake.write("equity_bars", bars([bar(f"S{n}", day, float(n)) for day in days(D2, 30)]), recorded_at=NOW)
        lake.publish()
    return lake


def _later() -> FixedClock:
    return FixedClock(datetime.now(UTC) + timedelta(days=3))


def test_a_dry_run_says_what_it_would_do_and_does_nothing(settings: Settings) -> None:
    lake = _fill(settings, 5)
    before = {path: path.stat().st_mtime_ns for path in lake.root.rglob("*") if path.is_file()}
    report = maintain_flow(settings=settings, clock=_later())
    assert {path: path.stat().st_mtime_ns for path in lake.root.rglob("*") if path.is_file()} == before
    assert [(one.table, one.files_before, one.files_after) for one in report.compactions] == [("equity_bars", 5, 1)]
    assert (report.applied, report.removed_bytes, report.kept) == (False, 0, 5)


def test_maintenance_without_a_retention_keeps_every_snapshot_readable(settings: Settings) -> None:
    lake = _fill(settings, 5)
    names = lake.snapshots()
    rows = {name: lake.snapshot(name).read("equity_bars") for name in names}
    report = maintain_flow(True, settings=settings, clock=_later())
    assert report.dropped == ()
    assert report.moved == names[:1]
    assert Lake(lake.root).snapshots() == names
    for name in names:
        snapshot = Lake(lake.root).snapshot(name)
        snapshot.verify("equity_bars")
        assert snapshot.read("equity_bars").equals(rows[name])


def test_a_retention_keeps_what_a_run_names_and_frees_the_rest(settings: Settings) -> None:
    from tracking.store import open_store

    lake = _fill(settings, 5)
    newest, *_, named, _ = lake.snapshots()
    store = open_store(settings)
    store.client.create_run(store.experiment("research"), tags={"snapshot_id": named})
    deleted = store.client.create_run(store.experiment("given up"), tags={"snapshot_id": newest})
    store.client.delete_run(deleted.info.run_id)
    assert referenced_snapshots(settings) == {named, newest}
    rows = lake.snapshot(named).read("equity_bars")
    clock = _later()
    planned = maintain_flow(keep_days=1, settings=settings, clock=clock)
    report = maintain_flow(True, keep_days=1, settings=settings, clock=clock)
    assert report.dropped == planned.dropped
    assert len(report.dropped) == 3
    assert report.kept == planned.kept == 2
    again = Lake(lake.root)
    assert again.snapshots() == (newest, named)
    assert again.snapshot(named).read("equity_bars").equals(rows)
    again.snapshot(named).verify("equity_bars")
    assert report.removed_bytes > 0


def test_a_retention_keeps_what_only_a_trial_names(settings: Settings) -> None:
    from tracking.ledger import Trial, TrialLedger

    lake = _fill(settings, 5)
    newest, *_, tried = lake.snapshots()
    rows = lake.snapshot(tried).read("equity_bars")
    trial = Trial(params={"fast": 5}, spec_digest="s", sharpe_per_session=0.1, total_return=0.1, trades=1)
    TrialLedger(settings).record_many(
        family="sma", symbols=["S0"], convention_digest="c", trials=[trial], snapshot_id=tried, recorded_at=NOW
    )
    report = maintain_flow(True, keep_days=1, settings=settings, clock=_later())
    assert len(report.dropped) == 3
    again = Lake(lake.root)
    assert again.snapshots() == (newest, tried)
    assert again.snapshot(tried).read("equity_bars").equals(rows)
    again.snapshot(tried).verify("equity_bars")


@pytest.mark.parametrize(
    ("wrong", "said"), [({"keep_days": -1}, "keep_days is -1"), ({"safe_age_hours": 0.5}, "would take running writers' files")]
)
def test_what_could_do_harm_is_refused_before_anything_is_done(settings: Settings, wrong: dict[str, float], said: str) -> None:
    _fill(settings, 2)
    with pytest.raises(InputError, match=said):
        maintain_flow(True, settings=settings, **wrong)  # type: ignore[arg-type]
    assert len(list((open_lake(settings).root / "equity_bars").rglob("part-*.parquet"))) == 2  # type: ignore[union-attr]


def test_an_empty_lake_needs_no_maintenance(settings: Settings) -> None:
    report = maintain_flow(True, settings=settings)
    assert (report.compactions, report.sizes, report.kept) == ((), (), 0)


def test_the_verb_is_a_dry_run_speaks_json_and_repairs(settings: Settings) -> None:
    lake = _fill(settings, 3)

    def quant(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*QUANT, "data", "maintain", *words]
        return subprocess.run(command, env=environment(settings.home_path), capture_output=True, text=True, check=False)

    dry = quant("--json")
    assert dry.returncode == 0, dry.stderr
    document = json.loads(dry.stdout)
    assert (document["applied"], document["tables"][0]["files_before"], document["tables"][0]["files_after"]) == (False, 3, 1)
    lake.write("equity_bars", bars([bar("CUT", D2, 1.0)]), recorded_at=NOW)
    entry = sorted((Path(str(lake.root)) / "equity_bars" / "_delta_log").glob("*.json"))[-1]
    entry.write_bytes(entry.read_bytes()[:90])
    locked = quant()
    assert locked.returncode == 3
    assert "quant data maintain --repair" in " ".join(locked.stderr.split())
    assert "would be taken aside" in quant("--repair").stdout
    assert "moved to" in quant("--repair", "--apply").stdout
    assert Lake(lake.root).read_latest("equity_bars").num_rows == 90


def _beside(settings: Settings, *, batches: int, writers: int) -> None:
    """Writers, and this process maintaining and reading, until the writers are done."""
    lake = open_lake(settings)
    command = [sys.executable, "-m", "tests.lake.writer_process", str(lake.root)]
    started = [
        subprocess.Popen([*command, f"w{n}", str(batches)], cwd=HOUSE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(writers)
    ]
    maintained = 0
    while any(writer.poll() is None for writer in started):
        report = maintain_flow(True, keep_days=0 if maintained % 2 else None, settings=settings)
        maintained += bool(report.moved)
        if lake.has_snapshot():
            counts = lake.snapshot().sql("select symbol, count(*) as n from equity_bars group by all")["n"].to_pylist()
            assert set(counts) <= {50}  # whole batches only
        time.sleep(0.05)
    said = [writer.communicate() for writer in started]
    assert [(writer.returncode, err) for writer, (_, err) in zip(started, said, strict=True)] == [(0, "")] * writers
    maintain_flow(True, settings=settings)
    assert maintained > 0
    told = {line.split()[1] for out, _ in said for line in out.splitlines() if line.startswith("row")}
    final = lake.publish()
    final.verify("equity_bars")
    held = final.sql("select symbol, count(*) as n from equity_bars group by all").to_pylist()
    assert {row["symbol"]: row["n"] for row in held} == dict.fromkeys(told, 50)
    assert len(told) == batches * writers


def test_maintenance_beside_two_writers_loses_nothing(settings: Settings) -> None:
    _beside(settings, batches=6, writers=2)


@pytest.mark.slow
def test_maintenance_beside_four_writers_loses_nothing(settings: Settings) -> None:
    _beside(settings, batches=60, writers=4)


@pytest.mark.slow
def test_a_killed_maintenance_leaves_everything_readable(settings: Settings) -> None:
    lake = _fill(settings, 7)
    names = lake.snapshots()
    rows = {name: lake.snapshot(name).read("equity_bars") for name in names}
    for kill in range(12):
        lake.write("equity_bars", bars([bar(f"K{kill}", D2, 1.0)]), recorded_at=NOW)
        command = [*QUANT, "data", "maintain", "--apply"]
        process = subprocess.Popen(
            command, env=environment(settings.home_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        process.stderr.readline()  # it has begun
        time.sleep(0.02 * kill)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        again = Lake(lake.root)
        assert again.read_latest("equity_bars").num_rows == 7 * 30 + kill + 1
        assert again.publish().read("equity_bars").num_rows == 7 * 30 + kill + 1
        for name in names:
            assert again.snapshot(name).read("equity_bars").equals(rows[name])
    again.snapshot().verify("equity_bars")
