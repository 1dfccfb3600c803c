"""A scheduled deployment fires by itself; a day without a session is skipped; what was refused, failed or late is told."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import InputError
from config.settings import load_settings
from flows.alerts import alerts_of
from flows.ingest_equity import ingest_equity_flow
from flows.schedules import apply_schedules, daily_ingest_flow, deployments, scheduled_day, serve_schedules
from flows.sources.base import DATASETS, source_names
from flows.worker import run_worker
from lake import open_lake
from tests.flows.conftest import PrefectServer

ROOT = Path(__file__).resolve().parents[2]


def test_the_daily_ingest_is_about_the_new_york_date_of_its_clock_and_repeats_without_effect() -> None:
    # 2019-01-01 02:00 UTC is still the evening of 31 December in New York, a session.
    clock = FixedClock(datetime(2019, 1, 1, 2, tzinfo=UTC))
    done = daily_ingest_flow(symbols=["SP500"], series=["BAA"], lookback_days=10, clock=clock)
    assert done.as_of == date(2018, 12, 31)
    bars, macro = done.reports
    # Sessions from 21 to 31 December 2018: 21, 24, 26, 27, 28, 31.
    assert bars.total.new == 6
    assert [outcome.outcome for outcome in macro.names] == ["missing"]  # monthly: no period starts in those days
    again = daily_ingest_flow(symbols=["SP500"], series=["BAA"], lookback_days=10, clock=clock)
    assert again.reports[0].total.unchanged == 6
    assert again.reports[0].snapshot_id == bars.snapshot_id


def test_a_day_without_a_session_is_skipped_with_the_reason() -> None:
    done = daily_ingest_flow("2018-12-25")
    assert done.reports == ()
    assert done.skipped == "2018-12-25 is not a session of XNYS"
    assert not open_lake(load_settings()).tables()


def test_the_deployments_run_on_the_exchanges_days_in_its_zone_and_name_their_flows_by_module() -> None:
    research, ingest, watch, tidy = deployments(lookback_days=10)
    for made, active in ((research, True), (ingest, False)):
        (schedule,) = made.schedules
        assert (schedule.schedule.cron, schedule.schedule.timezone) == ("30 18 * * 1,2,3,4,5", "America/New_York")
        assert schedule.active is active  # the chain begins with the ingest: both would ask every source twice
        assert made.parameters == {"lookback_days": 10}
    assert [one.schedule.cron for one in watch.schedules] == ["0 8 * * 1,2,3,4,5", "0 21 * * 1,2,3,4,5"]
    assert research.entrypoint == "flows.daily.daily_research_flow"
    assert ingest.entrypoint == "flows.schedules.daily_ingest_flow"
    assert watch.entrypoint == "flows.schedules.watch_data_flow"
    assert ([one.schedule.cron for one in tidy.schedules], tidy.parameters) == (["0 6 * * 6"], {"apply": True})
    assert tidy.entrypoint == "flows.maintain.maintain_flow"


def test_another_exchange_has_its_own_zone_and_a_market_that_never_closes_every_day() -> None:
    (tokyo,) = deployments(settings=load_settings({"data.calendar": "XTKS", "daily.at": "16:05"}))[0].schedules
    assert (tokyo.schedule.cron, tokyo.schedule.timezone) == ("5 16 * * 1,2,3,4,5", "Asia/Tokyo")
    (always,) = deployments(settings=load_settings({"data.calendar": "24/7", "daily.at": "00:30"}))[0].schedules
    assert (always.schedule.cron, always.schedule.timezone) == ("30 0 * * 1,2,3,4,5,6,0", "UTC")


@pytest.mark.parametrize(
    ("calendar", "now", "day"),
    [
        ("XNYS", datetime(2019, 1, 1, 2, tzinfo=UTC), date(2018, 12, 31)),  # the evening of a session in New York
        ("XNYS", datetime(2018, 12, 31, 20, tzinfo=UTC), date(2018, 12, 28)),  # 15:00: still open, so the Friday before
        ("XNYS", datetime(2018, 12, 24, 18, 30, tzinfo=UTC), date(2018, 12, 24)),  # a half day, closed at 13:00
        ("XNYS", datetime(2018, 12, 25, 23, tzinfo=UTC), date(2018, 12, 25)),  # Christmas, which `closed` then skips
        ("24/7", datetime(2018, 12, 31, 0, 30, tzinfo=UTC), date(2018, 12, 30)),
        ("XTKS", datetime(2018, 12, 28, 7, tzinfo=UTC), date(2018, 12, 28)),  # 16:00 in Tokyo, after the close
    ],
)
def test_a_run_is_about_the_newest_session_that_has_closed_by_its_start(calendar: str, now: datetime, day: date) -> None:
    assert scheduled_day(FixedClock(now), calendar) == day


def test_what_came_while_nothing_ran_is_there_after_the_next_run(tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    head = "symbol,date,open,high,low,close,volume\n"
    rows = [f"A,2018-12-{d},10,11,9,10.{d},100\n" for d in (20, 21, 24, 26, 27, 28, 31)]
    settings = load_settings({"data.equity": ["files"], "daily.datasets": ["equity"], "home": tmp_path / "home"})
    file.write_text(head + "".join(rows[:1]))
    first = ingest_equity_flow(["A"], path=str(file), settings=settings)
    assert first.total.new == 1
    file.write_text(head + "".join(rows))
    after = ingest_equity_flow(["A"], None, "2018-12-31", path=str(file), settings=settings)
    assert (after.total.new, after.total.unchanged, after.gaps) == (6, 1, 0)


def test_refused_rows_and_a_failed_dataset_are_told_and_the_other_datasets_are_ingested(tmp_path: Path) -> None:
    settings = load_settings({"data.macro": ["files"], "home": tmp_path / "home"})
    clock = FixedClock(datetime(2019, 1, 1, 2, tzinfo=UTC))
    with pytest.raises(InputError, match="path"):  # the source of files is told no file
        daily_ingest_flow(symbols=["SP500"], lookback_days=10, settings=settings, clock=clock)
    assert open_lake(settings).snapshot().read("equity_bars").num_rows == 6
    (told,) = alerts_of(settings)
    assert (told.alert.kind, told.alert.dataset, told.alert.day) == ("failed", "macro", "2018-12-31")
    assert told.at == "2019-01-01T02:00:00+00:00"


@pytest.mark.parametrize("act", [apply_schedules, serve_schedules, run_worker])
def test_without_a_server_scheduling_says_how_to_get_one(act: Any) -> None:
    with pytest.raises(InputError, match="quant ui"):
        act()


def settled_in(folder: Path, server: PrefectServer) -> dict[str, str]:
    """The environment of a process in `folder`, whose settings come from the file there and from nowhere else."""
    folder.mkdir()
    (folder / "quantrail.yaml").write_text("home: ./mine\n")
    told = server.environment(folder / "mine") | {"PYTHONPATH": str(ROOT)}
    del told["QUANT_HOME"]
    return told


@pytest.mark.prefect_server
def test_a_scheduled_deployment_fires_and_completes(prefect_server: PrefectServer, tmp_path: Path) -> None:
    home = tmp_path / "served" / "mine"
    environment = settled_in(home.parent, prefect_server)
    with (tmp_path / "serve.log").open("wb") as log:
        serving = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.schedule_script"],
            env=environment,
            cwd=home.parent,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        states: dict[str, dict[str, Any]] = {}
        until = time.monotonic() + 100
        while time.monotonic() < until and {state["type"] for state in states.values()} != {"COMPLETED"}:
            assert serving.poll() is None, (tmp_path / "serve.log").read_text()[-3000:]
            time.sleep(0.5)
            states = {}
            for name in ("open", "closed"):
                question = {"deployments": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 1}
                for run in prefect_server.ask("flow_runs/filter", question):
                    assert run["auto_scheduled"]
                    states[name] = run["state"]
            if len(states) < 2:
                states["waiting"] = {"type": "WAITING"}
        assert {name: (state["type"], state["name"]) for name, state in states.items()} == {
            "open": ("COMPLETED", "Completed with refusals"),  # one of its two series is nobody's
            "closed": ("COMPLETED", "Skipped"),
        }, (tmp_path / "serve.log").read_text()[-3000:]
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(timeout=90)
    rows = open_lake(load_settings({"home": home})).snapshot().read("equity_bars", columns=["session"])
    assert rows.num_rows == 5031  # every session of 1999-2018: counted with exchange_calendars and in the file


@pytest.mark.prefect_server
def test_a_worker_does_what_its_pool_hands_out(prefect_server: PrefectServer, tmp_path: Path) -> None:
    home = tmp_path / "worked" / "mine"
    command = [sys.executable, "-m", "tests.flows.worker_script"]
    environment = settled_in(home.parent, prefect_server)
    done = subprocess.run(command, env=environment, cwd=home.parent, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    question = {"deployments": {"name": {"any_": ["after-the-close"]}}}
    (run,) = prefect_server.ask("flow_runs/filter", question)
    assert run["state"]["type"] == "COMPLETED", done.stderr[-3000:]
    assert (run["name"], run["work_pool_name"]) == ("research of 2018-12-31", "quantrail")
    made = prefect_server.ask("deployments/filter", {**question, "sort": "CREATED_DESC"})
    assert {one["entrypoint"] for one in made} == {"flows.daily.daily_research_flow", "flows.schedules.daily_ingest_flow"}
    for deployment in made:
        assert deployment["paused"] is True
        (schedule,) = deployment["schedules"]
        assert schedule["schedule"]["timezone"] == "America/New_York"
        assert schedule["active"] is ("daily-research" in deployment["tags"])
    limits = [(one["name"], one["limit"]) for one in prefect_server.ask("v2/concurrency_limits/filter")]
    assert sorted(one for one in limits if one[1] == load_settings().data.requests_at_once) == [
        (f"tag:vendor:{source}", 2) for source in sorted({name for of in DATASETS for name in source_names(of)})
    ]
    rows = open_lake(load_settings({"home": home})).snapshot().read("equity_bars", columns=["session"])
    assert rows.num_rows == 5031
