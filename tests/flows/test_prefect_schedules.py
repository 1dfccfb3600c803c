"""A scheduled deployment fires by itself; a day without a session is skipped and says so."""

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
from flows.schedules import apply_schedules, daily_ingest_flow, deployments, serve_schedules
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


def test_the_deployment_runs_on_weekdays_in_new_york_and_names_its_flow_by_module() -> None:
    research, ingest = deployments(lookback_days=10)
    for made, active in ((research, True), (ingest, False)):
        (schedule,) = made.schedules
        assert (schedule.schedule.cron, schedule.schedule.timezone) == ("30 18 * * 1-5", "America/New_York")
        assert schedule.active is active  # the chain begins with the ingest: both would ask every source twice
        assert made.parameters == {"lookback_days": 10}
    assert research.entrypoint == "flows.daily.daily_research_flow"
    assert ingest.entrypoint == "flows.schedules.daily_ingest_flow"


@pytest.mark.parametrize("act", [apply_schedules, serve_schedules, run_worker])
def test_without_a_server_scheduling_says_how_to_get_one(act: Any) -> None:
    with pytest.raises(InputError, match="quant ui"):
        act()


@pytest.mark.prefect_server
def test_a_scheduled_deployment_fires_and_completes(prefect_server: PrefectServer, tmp_path: Path) -> None:
    home = tmp_path / "served"
    with (tmp_path / "serve.log").open("wb") as log:
        serving = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.schedule_script"],
            env=prefect_server.environment(home),
            cwd=ROOT,
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
            "open": ("COMPLETED", "Completed"),
            "closed": ("COMPLETED", "Skipped"),
        }, (tmp_path / "serve.log").read_text()[-3000:]
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(timeout=20)
    rows = open_lake(load_settings({"home": home})).snapshot().read("equity_bars", columns=["session"])
    assert rows.num_rows == 5031  # every session of 1999-2018: counted with exchange_calendars and in the file


@pytest.mark.prefect_server
def test_a_worker_does_what_its_pool_hands_out(prefect_server: PrefectServer, tmp_path: Path) -> None:
    home = tmp_path / "worked"
    command = [sys.executable, "-m", "tests.flows.worker_script"]
    environment = prefect_server.environment(home)
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
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
        assert schedule["active"] is ("research" in deployment["tags"])
    limits = [(one["name"], one["limit"]) for one in prefect_server.ask("v2/concurrency_limits/filter")]
    assert sorted(one for one in limits if one[1] == load_settings().data.requests_at_once) == [
        (f"tag:vendor:{source}", 2) for source in ("bundled", "files", "modelled")
    ]
    rows = open_lake(load_settings({"home": home})).snapshot().read("equity_bars", columns=["session"])
    assert rows.num_rows == 5031
