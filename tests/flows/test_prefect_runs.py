"""The same flow object is plain Python without a server and a full Prefect run with one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import PrefectServer
from tests.flows.prefect_script import KEY

pytestmark = pytest.mark.prefect_server

ROOT = Path(__file__).resolve().parents[2]
PRICES = "Date,Open,High,Low,Close,Volume\n2018-12-24,10,11,9,10.5,100\n2018-12-26,10.5,12,10,11.5,200\n"


def run_script(folder: Path, server: PrefectServer, *, with_server: bool) -> dict[str, Any]:
    """The script's answer, run in a process of its own."""
    prices = folder / "X.csv"
    prices.write_text(PRICES)
    out = folder / f"{with_server}.json"
    environment = server.environment(folder / f"home-{with_server}")
    if not with_server:
        environment.pop("PREFECT_API_URL")
    mode = "with server" if with_server else "without"
    command = [sys.executable, "-m", "tests.flows.prefect_script", str(prices), str(out), mode]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(out.read_text())
    return answer


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, prefect_server: PrefectServer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The script's answers without and with the server."""
    folder = tmp_path_factory.mktemp("runs")
    return run_script(folder, prefect_server, with_server=False), run_script(folder, prefect_server, with_server=True)


def flow_runs(server: PrefectServer, flow: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.ask("flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
    return found


def task_runs(server: PrefectServer, flow_run_id: str) -> dict[str, dict[str, Any]]:
    question = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    return {run["name"]: run for run in server.ask("task_runs/filter", question)}


def test_without_a_server_the_flow_is_plain_python_and_with_one_the_result_is_the_same(both: Any) -> None:
    plain, served = both
    assert plain["report"]["rows"] == {"received": 2, "new": 2, "revised": 0, "unchanged": 0, "refused": 0}
    assert served["report"] == plain["report"]  # the snapshot id too: the same content in another lake
    assert plain["told"]["inside"] is False
    assert served["told"]["inside"] is True


def test_with_a_server_run_and_tasks_are_recorded_and_only_that_run(both: Any, prefect_server: PrefectServer) -> None:
    # The server is one for all tests of the session; no other ingests X, and the call without a server left no run.
    (run,) = [run for run in flow_runs(prefect_server, "ingest-equity") if run["parameters"]["symbols"] == ["X"]]
    assert run["state"]["type"] == "COMPLETED"
    tasks = task_runs(prefect_server, run["id"])
    assert run["name"] == "X, 2018-12-24 to 2018-12-26, from files"
    assert set(tasks) == {"fetch X from files", "store X", "publish"}
    assert all(task["state"]["type"] == "COMPLETED" for task in tasks.values())
    assert "vendor:files" in tasks["fetch X from files"]["tags"]


def test_the_report_is_a_table_on_the_page(both: Any, prefect_server: PrefectServer) -> None:
    artifacts = prefect_server.ask("artifacts/filter", {"artifacts": {"key": {"any_": ["ingest-equity"]}}})
    (artifact,) = [one for one in artifacts if both[1]["report"]["snapshot_id"] in one["description"]]
    assert artifact["type"] == "table"
    assert json.loads(artifact["data"])[0]["symbol"] == "X"


def test_only_transient_failures_are_repeated_either_way(both: Any, prefect_server: PrefectServer) -> None:
    for answer in both:
        assert answer["attempts"] == {"transient": 3, "final": 1}
        assert answer["told"]["failure"] == "never"
    (run,) = flow_runs(prefect_server, "retries")
    tasks = task_runs(prefect_server, run["id"])
    assert tasks["fails twice, then works"]["run_count"] == 3
    assert tasks["always wrong"]["run_count"] == 1


def test_a_wait_that_a_vendor_asks_for_is_kept_either_way(both: Any) -> None:
    for answer in both:
        (waited,) = answer["waited"]
        assert waited >= 1.2  # the step's own delay is a hundredth of a second


def test_what_was_refused_is_said_by_the_runs_final_state(both: Any, prefect_server: PrefectServer) -> None:
    (run,) = [run for run in flow_runs(prefect_server, "ingest-equity") if run["parameters"]["symbols"] == ["BAD", "X"]]
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Completed with refusals")
    assert run["state"]["message"] == ("completed with refusals: 1 rows new, 0 revised, 2 unchanged, 1 refused; 1 missing")
    plain, served = both
    assert served["partly"] == plain["partly"]  # the caller gets the report, with a server and without
    assert served["partly"]["names"]["missing"] == 1


def test_a_key_never_reaches_the_servers_database_and_one_typed_into_the_page_is_refused(
    both: Any, prefect_server: PrefectServer
) -> None:
    assert both[1]["macro"]["rows"]["new"] == 1200  # the run that was given the key did its work
    stored = prefect_server.stored_bytes()
    assert b"ingest-macro" in stored  # the database is the one that was written
    assert KEY.encode() not in stored
    assert "fred_api_key" in both[1]["refused"]
    assert "was stopped" in both[1]["refused"]


def test_what_hangs_is_timed_out_and_the_caller_is_told_in_our_words(both: Any, prefect_server: PrefectServer) -> None:
    _, served = both
    assert "the step hangs was stopped: it took longer than 0.4 seconds" in served["step"]
    assert served["hung"] == 2  # a timeout is transient: the one retry was used
    assert "the flow hanging-flow was stopped: it took longer than 0.4 seconds" in served["flow"]
    (run,) = flow_runs(prefect_server, "hanging-flow")
    assert run["state"]["name"] == "TimedOut"


def test_a_step_gets_the_very_objects_it_was_given(both: Any) -> None:
    assert [answer["same_objects"] for answer in both] == [True, True]


def test_a_vendors_limit_keeps_requests_apart(both: Any) -> None:
    assert both[1]["overlap"] == {"without a limit": True, "with a limit of one": False}
