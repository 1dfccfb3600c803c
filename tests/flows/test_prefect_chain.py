"""Every research flow as a Prefect run: the same numbers as the plain call, named runs and tasks, tables to read, no secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import PrefectServer
from tests.flows.prefect_chain_script import KEY

pytestmark = pytest.mark.prefect_server

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {
    "FRED_API_KEY": "fred-secret-1f0e2d3c",
    "TRADIER_API_KEY": "tradier-secret-4b5a6978",
    "POLYGON_API_KEY": "polygon-secret-87969a5b",
    "ALPACA_API_KEY": "alpaca-key-c4d3e2f1",
    "ALPACA_API_SECRET": "alpaca-secret-0a1b2c3d",
}


def run_script(folder: Path, server: PrefectServer, *, with_server: bool) -> dict[str, Any]:
    """The script's answer, run in a process of its own."""
    name = "served" if with_server else "plain"
    out = folder / f"{name}.json"
    environment = server.environment(folder / name, **SECRETS, PREFECT_HOME=str(folder / "client"))
    if not with_server:
        environment.pop("PREFECT_API_URL")
    command = [sys.executable, "-m", "tests.flows.prefect_chain_script", str(out)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(out.read_text())
    return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def both(folder: Path, prefect_server: PrefectServer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answers without and with the server."""
    return run_script(folder, prefect_server, with_server=False), run_script(folder, prefect_server, with_server=True)


def the_run(server: PrefectServer, name: str) -> dict[str, Any]:
    """The first flow run of that name."""
    question = {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_ASC"}
    found: dict[str, Any] = server.ask("flow_runs/filter", question)[0]
    return found


def tasks_of(server: PrefectServer, flow_run: dict[str, Any]) -> dict[str, str]:
    """State by name of a flow run's task runs; a subflow's own entry carries the subflow's name."""
    question = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
    return {run["name"]: run["state"]["type"] for run in server.ask("task_runs/filter", question)}


def table(server: PrefectServer, key: str) -> tuple[list[dict[str, Any]], str]:
    """The newest artifact of that key: its rows and the text above them."""
    question = {"artifacts": {"key": {"any_": [key]}}, "sort": "UPDATED_DESC"}
    newest, *_ = server.ask("artifacts/filter", question)
    assert newest["type"] == "table"
    return json.loads(newest["data"]), newest["description"]


def test_every_flow_gives_the_same_numbers_either_way(both: Any) -> None:
    plain, served = both
    assert served == plain  # snapshot ids, order ids and hashes, equities, the drift's residual
    assert plain["paper"]["orders"]
    assert plain["paper"]["residual"] == 0.0
    assert plain["daily"]["paper"][0]["outcome"] == "traded"


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("SP500, 2018-09-04 to the last day, from modelled", {"fetch SP500 from modelled", "store SP500", "publish"}),
        ("core features of SP500", {"compute SP500"}),
        (
            "buy_and_hold, sma_crossover on SP500 (chain)",
            {
                "load SP500",
                "backtest buy_and_hold",
                "record buy_and_hold",
                "backtest sma_crossover",
                "record sma_crossover",
            },
        ),
        (
            "CoveredCallsStrategy on SP500 (chain)",
            {"load options on SP500", "backtest CoveredCallsStrategy on SP500", "record CoveredCallsStrategy"},
        ),
        ("buy_and_hold on paper, the last 3 sessions", {"session 2018-12-26", "session 2018-12-27", "session 2018-12-28"}),
        ("ingest of 2018-12-31", set()),
        ("research of 2018-12-31", {"find-paper-strategies", "find due sessions of buy_and_hold"}),
    ],
)
def test_a_run_and_its_tasks_are_named_for_what_they_did(
    both: Any, prefect_server: PrefectServer, name: str, tasks: set[str]
) -> None:
    run = the_run(prefect_server, name)
    assert run["state"]["type"] == "COMPLETED"
    found = tasks_of(prefect_server, run)
    assert tasks <= set(found)
    assert set(found.values()) <= {"COMPLETED"}


def test_the_daily_chain_is_one_run_with_its_parts_below_it(both: Any, prefect_server: PrefectServer) -> None:
    parent = the_run(prefect_server, "research of 2018-12-31")
    question = {"flow_runs": {"parent_flow_run_id": {"any_": [parent["id"]]}}}
    below = {run["name"] for run in prefect_server.ask("flow_runs/filter", question)}
    assert below == {"ingest of 2018-12-31", "core features of SP500", "buy_and_hold on paper, to 2018-12-31, the last session"}


def test_results_are_tables_on_the_page(both: Any, prefect_server: PrefectServer) -> None:
    plain, _ = both
    rows, about = table(prefect_server, "equity-backtest")
    assert {row["strategy"] for row in rows} >= {"buy_and_hold"}
    assert "chain" in about or "paper" in about
    rows, about = table(prefect_server, "build-features")
    assert len(rows) == len(plain["features"]["features"])
    assert plain["features"]["set_version"] in about
    rows, _ = table(prefect_server, "options-backtest")
    assert [row["data"] for row in rows] == ["modelled"]
    rows, about = table(prefect_server, "paper-session-buy-and-hold")
    assert "unexplained 0.00" in about
    assert "journal and broker agree" in about
    rows, _ = table(prefect_server, "daily-research")
    assert rows == plain["daily"]["paper"]


def test_no_credential_reaches_the_servers_database_and_no_result_is_stored(
    both: Any, folder: Path, prefect_server: PrefectServer
) -> None:
    stored = prefect_server.stored_bytes()
    assert b"research of 2018-12-31" in stored  # the database is the one that was written
    for secret in (KEY, *SECRETS.values()):
        assert secret.encode() not in stored
    for home in (folder / "client", prefect_server.home):
        kept = [path for path in home.rglob("*") if path.is_file() and "storage" in path.parts]
        assert kept == []
