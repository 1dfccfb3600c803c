"""Runs, artefacts and the registry on a real PostgreSQL; what it refuses is said without the password."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError, InputError, ServiceUnavailable
from config.settings import Settings, load_settings
from tests.postgres import PASSWORD, Postgres
from tests.tracking.results import Result, spec
from tests.tracking.samples import evidence
from tracking import create_backtest_tracker, create_model_registry
from tracking.gates import evaluate
from tracking.registry import _history_file
from tracking.store import CONNECT_SECONDS, open_store

HOUSE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    """A database that the tests of this module share; making MLflow's tables costs a second."""
    return postgres.new_database()


@pytest.fixture
def settings(postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home of the test's own whose runs are in PostgreSQL, by the name that MLflow's users know."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.address(database))
    return load_settings()


def test_a_run_and_a_version_come_back_from_postgresql(settings: Settings, postgres: Postgres, database: str) -> None:
    about = spec("sma_on_postgresql")
    shown = evidence(strategy=about.name, spec_digest=about.digest)
    tracker = create_backtest_tracker("on-postgresql", settings)
    logged = tracker.log_result(Result(about), {"sharpe": (0.5, 0.1, 0.9)}, shown, picture=False)
    key = tracker.run_key(spec_digest=about.digest, snapshot_id=Result(about).snapshot_id, engine=Result(about).engine)
    found = create_backtest_tracker("on-postgresql", settings).find_run(key)
    assert found is not None
    assert (found.run_id, found.metrics["sharpe_low"]) == (logged.run_id, 0.1)
    assert found.document("spec") == about.as_dict()
    assert found.is_whole()
    verdict = evaluate(shown, "paper")
    registry = create_model_registry(settings)
    version = registry.register(about.as_dict(), found.run_id, shown, verdict)
    held = registry.promote(about.name, version, "paper", verdict, "A. Person")
    assert (held.run_id, held.spec) == (found.run_id, about.as_dict())
    # The outside witness: the rows, asked for in SQL past MLflow and past us.
    asked = f"SELECT key, value FROM latest_metrics WHERE run_uuid = '{found.run_id}' ORDER BY key"
    assert postgres.ask(database, asked) == [("sharpe", 0.5), ("sharpe_high", 0.9), ("sharpe_low", 0.1)]
    assert ("paper", 1) in postgres.ask(
        database, f"SELECT alias, version FROM registered_model_aliases WHERE name = '{about.name}'"
    )
    # Files stay in the home folder, and no file of it holds the password.
    files = [path for path in settings.home_path.rglob("*") if path.is_file()]
    assert any(path.name == "spec.json" for path in files)
    assert not (settings.home_path / "mlflow" / "mlflow.db").exists()
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


@pytest.mark.slow
def test_processes_that_open_a_new_database_at_once_make_it_once(postgres: Postgres, tmp_path: Path) -> None:
    name = postgres.new_database()
    script = (
        "from config.settings import load_settings; from tracking.store import open_store; "
        "print(open_store(load_settings()).experiment('one'))"
    )
    running = []
    for home in ("a", "b"):  # two machines: nothing is shared but the database
        env = {**os.environ, "QUANT_HOME": str(tmp_path / home), "MLFLOW_TRACKING_URI": postgres.address(name)}
        command = [sys.executable, "-c", script]
        running.append(subprocess.Popen(command, cwd=HOUSE, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert {out.strip() for out, _ in said} == {"1"}
    assert postgres.ask(name, "SELECT count(*) FROM experiments WHERE name = 'one'") == [(1,)]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda pg: pg.address("test_0", password="not-the-password"), "password authentication failed"),
        (lambda pg: pg.address("no_such_database"), 'database "no_such_database" does not exist'),
        (lambda pg: pg.address("test_0").replace(f":{pg.port}/", ":1/"), "Connection refused"),
    ],
)
def test_a_database_that_refuses_is_named_with_the_remedy_and_without_the_password(
    postgres: Postgres, wrong: Any, says: str
) -> None:
    address = wrong(postgres)
    with pytest.raises(ServiceUnavailable, match=says) as refused:
        open_store(load_settings({"tracking.uri": address}))
    text = str(refused.value)
    assert "postgresql://quantrail:***@127.0.0.1" in text
    assert "MLFLOW_TRACKING_URI" in text
    assert PASSWORD not in text
    assert "not-the-password" not in text


def test_a_server_that_takes_connections_and_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    assert CONNECT_SECONDS <= 10
    monkeypatch.setattr("tracking.store.CONNECT_SECONDS", 2)  # libpq's least
    with socket.create_server(("127.0.0.1", 0)) as silent:
        held: list[socket.socket] = []
        taker = threading.Thread(target=lambda: held.append(silent.accept()[0]))
        taker.start()
        with pytest.raises(ServiceUnavailable, match="the tracking database postgresql://.* failed"):
            open_store(load_settings({"tracking.uri": f"postgresql://someone@127.0.0.1:{silent.getsockname()[1]}/runs"}))
        taker.join()
        held[0].close()


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ConfigError, match=r"(?s)psycopg2.*not installed.*pip install 'quantrail\[postgres\]'") as refused:
        open_store(load_settings({"tracking.uri": "postgresql://someone:a-secret@db.example/runs"}))
    assert "a-secret" not in str(refused.value)


def test_the_history_belongs_to_the_database_and_not_to_who_asks_it(settings: Settings) -> None:
    files = {
        _history_file(f"postgresql{driver}://{who}db.example:5432/runs{more}", settings)
        for driver, who, more in (("", "", ""), ("", "a:old@", ""), ("+psycopg2", "b:new@", "?sslmode=require"))
    }
    assert len(files) == 1
    assert _history_file("postgresql://db.example:5432/others", settings) not in files


def test_a_password_in_a_file_is_refused_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "quantrail.yaml"
    for key, section in (("tracking.uri", "tracking: {uri: "), ("ui.prefect_database", "ui: {prefect_database: ")):
        file.write_text(f'{section}"postgresql://someone:a-secret@db.example/runs"}}\n')
        monkeypatch.setenv("QUANT_CONFIG", str(file))
        with pytest.raises(ConfigError, match=key) as refused:
            load_settings()
        assert "a-secret" not in str(refused.value)
        file.write_text(f'{section}"postgresql://someone@db.example/runs"}}\n')  # the password comes from PGPASSWORD or ~/.pgpass
        assert load_settings() is not None


def test_a_deleted_experiment_is_named_without_the_password(settings: Settings) -> None:
    store = open_store(settings)
    store.client.delete_experiment(store.experiment("to be deleted"))
    with pytest.raises(InputError, match="was deleted in postgresql://quantrail:[*]{3}@") as refused:
        store.experiment("to be deleted")
    assert PASSWORD not in str(refused.value)
    assert PASSWORD not in repr(store)
    assert PASSWORD not in repr(settings)
