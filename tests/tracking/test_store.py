"""The store is made once, in a stated place, quietly; what cannot be written is a clear error."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from config.errors import InputError, IntegrityError, StorageError
from config.settings import Settings, load_settings
from tracking.store import open_store, prepare_store_in_background


def test_telemetry_is_off_and_artefacts_are_in_the_stated_place(shared_store: Settings) -> None:
    store = open_store(shared_store)
    experiment = store.client.get_experiment(store.experiment("store-place"))
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert Path(unquote(urlparse(experiment.artifact_location).path)) == shared_store.home_path / "mlflow" / "artifacts"
    assert store.experiment("store-place") == experiment.experiment_id


def test_a_file_store_becomes_sqlite_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    with caplog.at_level(logging.WARNING, logger="quantrail.tracking"):
        store = open_store(load_settings())
    assert store.uri == f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    assert (tmp_path / "mlruns" / "mlflow.db").is_file()
    assert "no longer serves file stores" in caplog.text


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StorageError, match="cannot make the folder"):
        open_store(load_settings({"home": str(tmp_path / "home")}))


def test_a_file_that_is_no_database_is_damage_and_not_a_passing_fault(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"this is no database, and long enough to be looked at" * 40)
    with pytest.raises(IntegrityError, match="tracking store .* is damaged: .*file is not a database"):
        open_store(load_settings({"tracking.uri": f"sqlite:///{tmp_path / 'broken.db'}", "home": str(tmp_path)}))


def test_a_deleted_experiment_says_how_to_get_it_back(shared_store: Settings) -> None:
    store = open_store(shared_store)
    store.client.delete_experiment(store.experiment("gone"))
    with pytest.raises(InputError, match="mlflow experiments restore"):
        store.experiment("gone")


def test_preparing_in_the_background_hands_on_its_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StorageError):
        prepare_store_in_background(load_settings({"home": str(tmp_path / "home")})).result(timeout=60)


def test_preparing_in_the_background_makes_the_store(home_settings: Settings) -> None:
    prepare_store_in_background(home_settings).result(timeout=120)
    assert (home_settings.home_path / "mlflow" / "mlflow.db").is_file()


def _first_touch(home: str, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    open_store(load_settings({"home": home})).experiment("both")


@pytest.mark.slow
def test_processes_that_touch_a_new_store_at_once_all_succeed(home_settings: Settings) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_first_touch, args=(str(home_settings.home_path), barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(180)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def _open(home: str) -> None:
    open_store(load_settings({"home": home}))


@pytest.mark.slow
def test_a_store_whose_making_was_killed_is_made_again(home_settings: Settings) -> None:
    context = multiprocessing.get_context("spawn")
    folder = home_settings.home_path / "mlflow"
    cut_short = 0
    for extra in (0.0, 0.1, 0.3, 0.6, 0.9, 1.2):
        worker = context.Process(target=_open, args=(str(home_settings.home_path),))
        worker.start()
        while worker.is_alive() and not list(folder.glob("mlflow.db*")):
            time.sleep(0.005)
        time.sleep(extra)
        worker.kill()
        worker.join()
        cut_short += (folder / "mlflow.db.unfinished").exists()
    assert cut_short > 0
    assert open_store(home_settings).experiment("after the kills")
