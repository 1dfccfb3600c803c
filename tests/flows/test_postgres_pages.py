"""The pages and the doctor with PostgreSQL behind them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from config.clock import SystemClock
from config.errors import ConfigError, ServiceUnavailable
from config.settings import load_settings
from flows.doctor import check_databases, check_lake, examine
from flows.ui import prefect_database, start_pages
from tests.lake.s3_server import BUCKET, s3_server
from tests.postgres import PASSWORD, Postgres

ROOT = Path(__file__).resolve().parents[2]
PRICES = "Date,Open,High,Low,Close,Volume\n2018-12-24,10,11,9,10.5,100\n2018-12-26,10.5,12,10,11.5,200\n"
RUN = """
import sys
from flows.ingest_equity import ingest_equity_flow
print(ingest_equity_flow(["X"], source="files", path=sys.argv[1], symbol="X", basis="as_traded").snapshot_id)
"""


def _ask(url: str, question: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, data=json.dumps(question).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.prefect_server
def test_a_flow_completes_and_leaves_its_artifact_in_postgresql(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect, mlflow = postgres.new_database(), postgres.new_database()
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", postgres.address(prefect))  # the driver is put in for us
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.address(mlflow))
    prices = tmp_path / "X.csv"
    prices.write_text(PRICES)
    with start_pages(load_settings()) as pages:
        for page in (pages.prefect, pages.mlflow):
            assert page.process is not None
            words = Path(f"/proc/{page.process.pid}/cmdline").read_bytes()
            assert PASSWORD.encode() not in words
        env = {**os.environ, "PREFECT_API_URL": pages.prefect.address}
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(prices)], env=env, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stderr
        runs = _ask(f"{pages.prefect.address}/flow_runs/filter", {})
        assert "COMPLETED" in {run["state_type"] for run in runs}
        found = _ask(f"{pages.mlflow.address}/api/2.0/mlflow/experiments/search", {"max_results": 5})
        assert [one["name"] for one in found["experiments"]] == ["Default"]
    # The outside witness: the same, asked in SQL past Prefect and MLflow.
    assert ("COMPLETED",) in postgres.ask(prefect, "SELECT state_type::text FROM flow_run WHERE parent_task_run_id IS NULL")
    tables = [json.loads(json.loads(str(data))) for (data,) in postgres.ask(prefect, "SELECT data::text FROM artifact")]
    assert [(row["symbol"], row["outcome"], row["received"]) for table in tables for row in table] == [("X", "stored", 2)]
    assert postgres.ask(mlflow, "SELECT name FROM experiments") == [("Default",)]
    home = load_settings().home_path
    assert not list(home.rglob("prefect.db"))
    assert not [path for path in home.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.prefect_server
def test_a_prefect_database_that_refuses_is_said_without_the_password(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", postgres.address("no_such_database"))
    with pytest.raises(ServiceUnavailable, match="Prefect server") as refused, start_pages(load_settings(), wait_seconds=60):
        pass
    assert "no_such_database" in str(refused.value)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", ""),
        ("postgresql://a:b@h:1/p", "postgresql+asyncpg://a:b@h:1/p"),
        ("postgres://a@h/p", "postgresql+asyncpg://a@h/p"),
        ("postgresql+asyncpg://a@h/p?ssl=require", "postgresql+asyncpg://a@h/p?ssl=require"),
        ("sqlite+aiosqlite:////x/prefect.db", "sqlite+aiosqlite:////x/prefect.db"),
    ],
)
def test_the_prefect_server_is_told_the_driver_it_needs(given: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_DATABASE_CONNECTION_URL", raising=False)
    assert prefect_database(load_settings({"ui.prefect_database": given})) == told


def test_a_database_that_prefect_cannot_use_is_refused_without_the_password() -> None:
    with pytest.raises(ConfigError, match=r"ui\.prefect_database is mysql://a:[*]{3}@h/p"):
        prefect_database(load_settings({"ui.prefect_database": "mysql://a:secret@h/p"}))


def test_the_doctor_logs_in_and_shows_no_password(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.address("postgres"))
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", postgres.address("postgres", password="wrong-one"))
    checks = {check.name: check for check in check_databases(load_settings())}
    shown = f"postgresql://quantrail:***@127.0.0.1:{postgres.port}/postgres"
    assert (checks["mlflow database"].state, checks["mlflow database"].found) == ("ok", f"{shown} answers")
    assert checks["prefect database"].state == "problem"
    assert "password authentication failed" in checks["prefect database"].found
    said = json.dumps([check.as_dict() for check in examine(load_settings(), SystemClock())])
    assert PASSWORD not in said
    assert "wrong-one" not in said


def test_the_doctor_looks_into_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lake.bucket._RETRIES", 1)
    (folder,) = check_lake(load_settings())
    assert folder.state == "ok"
    monkeypatch.setenv("QUANT_LAKE__PATH", f"s3://{BUCKET}/doctor")
    with s3_server() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        (well,) = check_lake(load_settings())
        assert (well.state, well.found) == ("ok", f"s3://{BUCKET}/doctor answers and takes writes")
        server.forget_conditions()
        (forgetful,) = check_lake(load_settings())
        assert forgetful.state == "problem"
        assert "put only if absent" in forgetful.found
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        (refused,) = check_lake(load_settings())
        assert "set AWS_ACCESS_KEY_ID" in refused.remedy
