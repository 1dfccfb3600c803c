"""The two pages: both answer, both are gone afterwards, and a taken port is said."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from config.errors import InputError, ServiceUnavailable, StorageError
from config.settings import load_settings
from flows import ui
from flows.ui import start_pages

SCRIPT = """
from config.settings import load_settings
from flows.ui import start_pages
pages = start_pages(load_settings())
print(pages.prefect.url, pages.mlflow.url, pages.prefect.process.pid, pages.mlflow.process.pid, flush=True)
pages.wait()
"""


def group_is_gone(leader: int) -> bool:
    """Whether no process of that group is left."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.prefect_server
def test_both_pages_answer_until_the_process_is_asked_to_end_and_then_nothing_of_them_is_left() -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        prefect, mlflow, *leaders = process.stdout.readline().split()
        assert "workflowType=machine_learning" in mlflow
        for url in (prefect, mlflow):
            with urllib.request.urlopen(url, timeout=10) as page:
                assert page.status == 200
                assert b"<!doctype html" in page.read(200).lower()
        # The page must ask this server, not the default port.
        with urllib.request.urlopen(f"{prefect}/ui-settings", timeout=10) as told:
            assert f"{prefect}/api".encode() in told.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    until = time.monotonic() + 10
    while time.monotonic() < until and not all(group_is_gone(int(leader)) for leader in leaders):
        time.sleep(0.1)
    assert all(group_is_gone(int(leader)) for leader in leaders)
    for url in (prefect, mlflow):
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=2)


@pytest.mark.parametrize("setting", ["ui.prefect_port", "ui.mlflow_port"])
def test_a_taken_port_is_said_with_its_setting_and_nothing_is_started(setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} \\({setting}\\)"):
            start_pages(load_settings({setting: port}))
    assert not load_settings().home_path.exists()


def test_a_server_that_ends_at_once_is_reported_with_the_end_of_its_log_and_the_other_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = ui._start

    def start(name: str, module: list[str], environment: object, folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
        # Prefect's place is taken by a program that fails, MLflow's by one that waits.
        stand_in = [
            "timeit",
            "-n",
            "1",
            "-r",
            "1",
            "raise SystemExit('no such table')" if name == "prefect" else "import time; time.sleep(60)",
        ]
        process, log = real(name, stand_in, {}, folder)
        started.append(process)
        return process, log

    monkeypatch.setattr(ui, "_start", start)
    with pytest.raises(ServiceUnavailable, match=r"Prefect server at [\s\S]*ended with code 1[\s\S]*no such table"):
        start_pages(load_settings())
    assert len(started) == 2
    assert all(group_is_gone(process.pid) for process in started)


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.write_text("")
    with pytest.raises(StorageError, match="set QUANT_HOME"):
        start_pages(load_settings({"home": file}))
