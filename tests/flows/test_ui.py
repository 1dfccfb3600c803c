"""The two pages: both answer, both are gone afterwards, and a taken port is said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError, ServiceUnavailable, StorageError
from config.settings import load_settings
from flows import ui
from flows.ui import start_pages
from tests.flows.demo_home import QUANT, environment, quant

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


def processes_of(home: Path) -> list[str]:
    """The command lines of all processes that were started with that home folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if f"QUANT_HOME={home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def ask(url: str, question: dict[str, object]) -> Any:
    request = urllib.request.Request(url, data=json.dumps(question).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


@pytest.mark.prefect_server
@pytest.mark.skipif(sys.platform != "linux", reason="looks for left processes in /proc")
def test_quant_ui_shows_what_another_shell_runs_and_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    home = tmp_path / "home"
    shell = environment(home)
    process = subprocess.Popen([*QUANT, "ui", "--json"], env=shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        printed = ""
        while not printed.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, "it ended before it printed its addresses"
            printed += line
        told = json.loads(printed)
        api, tracking = told["prefect"]["PREFECT_API_URL"], told["mlflow"]["MLFLOW_TRACKING_URI"]
        for url in (told["prefect"]["url"], told["mlflow"]["url"]):
            with urllib.request.urlopen(url, timeout=20) as page:
                assert page.status == 200
                assert b"<!doctype html" in page.read(200).lower()

        words = ("ingest", "equity", "--symbols", "SP500", "--start", "2018-12-24", "--json")
        said = quant(home, *words, env={"PREFECT_API_URL": api, "PREFECT_HOME": str(tmp_path / "client")})
        assert said.code == 0, said.err
        assert said.document["rows"]["new"] == 5  # 24, 26, 27, 28 and 31 December
        (run,) = ask(f"{api}/flow_runs/filter", {})
        assert (run["name"], run["state"]["type"]) == ("SP500, 2018-12-24 to the last day", "COMPLETED")
        found = ask(f"{tracking}/api/2.0/mlflow/experiments/search", {"max_results": 10})
        assert [one["name"] for one in found["experiments"]] == ["Default"]

        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=90) in (0, 130)
    finally:
        process.kill()
        process.communicate()
    assert processes_of(home) == []


@pytest.mark.prefect_server
def test_both_pages_answer_until_the_process_is_killed_and_then_nothing_of_them_is_left() -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        prefect, mlflow, *leaders = process.stdout.readline().split()
        assert mlflow.endswith("/#/experiments?workflowType=machine_learning")
        for url in (prefect, mlflow):
            with urllib.request.urlopen(url, timeout=10) as page:
                assert page.status == 200
                assert b"<!doctype html" in page.read(200).lower()
        # The page must ask this server, not the default port.
        with urllib.request.urlopen(f"{prefect}/ui-settings", timeout=10) as told:
            assert f"{prefect}/api".encode() in told.read()
        process.send_signal(signal.SIGKILL)  # it cannot stop them any more: the guard does
        assert process.wait(timeout=90) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    until = time.monotonic() + 60
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
