"""Start the Prefect page and the MLflow page on loopback, wait until both answer, and stop both on the way out.

1. `start_pages` picks ports (`_port`), starts each server in a process group of its own (`_start`) and waits (`_until_healthy`).
2. `Pages.wait` blocks until SIGINT or SIGTERM, or until a server dies; `Pages.stop` ends both and everything they started.
3. A guard process (`_Guard`) does the same when this process is killed and can do nothing any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any
from urllib.parse import urlparse

from config.addresses import without_password
from config.errors import ConfigError, InputError, ServiceUnavailable, StorageError
from config.progress import SILENT, Progress
from config.settings import Settings

__all__ = ["Page", "Pages", "prefect_database", "prefect_server_environment", "start_pages"]

_POLL_SECONDS = 0.2
# Its standard input ends when the process that holds the other end is gone, however it went.
_GUARD = """
import os, signal, sys, time
groups = [int(line) for line in sys.stdin]
for number in (signal.SIGTERM, signal.SIGKILL):
    for group in groups:
        try:
            os.killpg(group, number)
        except OSError:
            pass
    time.sleep(3)
"""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One server.

    Parameters
    ----------
    url : str
        To open in a browser.
    address : str
        What programs are told: ``PREFECT_API_URL`` or ``MLFLOW_TRACKING_URI``.
    process : Popen or None
        None: the server is not ours (a tracking address that is already a server).
    log : Path or None
        Where it writes what it has to say.
    """

    name: str
    url: str
    address: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    log: Path | None = None


class _Guard:
    """A small process that ends the servers' process groups as soon as this process is gone."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """Take a server on, the leader of its group."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # someone ended the guard: the servers are still ours to stop
                self._process.stdin.write(f"{process.pid}\n".encode())
                self._process.stdin.flush()

    def dismiss(self) -> None:
        """End the guard without its having done anything; the servers are stopped."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


@dataclass
class Pages:
    """The servers that were started. A context manager: leaving it stops them."""

    prefect: Page
    mlflow: Page
    _guard: _Guard = field(repr=False)
    _stopping: threading.Event = field(default_factory=threading.Event, repr=False)

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def wait(self) -> None:
        """Block until SIGINT or SIGTERM; then stop both. Call it from the main thread.

        Raises
        ------
        ServiceUnavailable
            A server ended by itself; the other was stopped.
        """

        def asked(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._stopping.set()

        before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while not self._stopping.wait(_POLL_SECONDS):
                for page in (self.prefect, self.mlflow):
                    if page.process is not None and page.process.poll() is not None:
                        raise _died(page)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.stop()

    def stop(self) -> None:
        """Stop both servers and everything they started. Calling it again does nothing."""
        _stop([page.process for page in (self.prefect, self.mlflow) if page.process is not None])
        self._guard.dismiss()


def start_pages(settings: Settings, *, progress: Progress = SILENT, wait_seconds: float = 90.0) -> Pages:
    """Start both servers and wait until both answer.

    Parameters
    ----------
    settings : Settings
        ``ui.host``, ``ui.prefect_port``, ``ui.mlflow_port`` (0: a free one). When the tracking address is already a server,
        that one is shown and none is started.
    wait_seconds : float
        For both together.

    Raises
    ------
    InputError
        A port is taken.
    ServiceUnavailable
        A server ended, or did not answer in time; the message holds the end of its log.
    StorageError
        The home folder cannot be written.
    """
    from tracking.store import open_store

    host = settings.ui.host
    prefect_port = _port(host, settings.ui.prefect_port, "ui.prefect_port")
    mlflow_port = _port(host, settings.ui.mlflow_port, "ui.mlflow_port")
    folder = settings.home_path / "ui"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (settings.home_path / "prefect").mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise StorageError(f"cannot write {folder}: {problem.strerror}", remedy="make it writable, or set QUANT_HOME") from problem
    started: list[Page] = []
    guard = _Guard()
    deadline = time.monotonic() + wait_seconds
    try:
        progress.stage("start the Prefect page")
        started.append(_start_prefect(settings, host, prefect_port, folder, guard))
        progress.stage("start the MLflow page")
        if urlparse(settings.tracking_uri).scheme in ("http", "https"):
            shown = without_password(settings.tracking_uri)
            started.append(Page(name="MLflow", url=shown, address=shown))
        else:
            backend = open_store(settings).uri
            started.append(_start_mlflow(settings, backend, host, mlflow_port, folder, guard))
        _until_healthy(started[0], f"{started[0].address}/health", deadline)
        if started[1].process is not None:
            _until_healthy(started[1], f"{started[1].address}/health", deadline)
    except BaseException:
        _stop([page.process for page in started if page.process is not None])
        guard.dismiss()
        raise
    return Pages(prefect=started[0], mlflow=started[1], _guard=guard)


def prefect_server_environment(home: Path, api_url: str, database: str = "") -> dict[str, str]:
    """What a Prefect server of ours needs in its environment: its own folder and database, its address, no telemetry.

    Parameters
    ----------
    database : str
        Its database's address (`prefect_database`); empty means SQLite in `home`.
    """
    return {
        "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(home)),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database or f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        # Without it the page asks port 4200, wherever the server listens.
        "PREFECT_API_URL": api_url,
        "PREFECT_UI_API_URL": api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT__SERVER_FINAL": "1",
        "DO_NOT_TRACK": "true",
    }


def prefect_database(settings: Settings) -> str:
    """The address of the Prefect server's database with the driver that Prefect needs; empty for its SQLite file.

    Raises
    ------
    ConfigError
        It is neither PostgreSQL nor SQLite.
    """
    # The second name is the one that Prefect 2 gave it.
    address = settings.ui.prefect_database or os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "")
    scheme, _, rest = address.partition("://")
    if scheme in ("postgres", "postgresql", "postgresql+asyncpg"):
        return f"postgresql+asyncpg://{rest}"
    if address and scheme != "sqlite+aiosqlite":
        raise ConfigError(
            f"ui.prefect_database is {without_password(address)}, which Prefect cannot use",
            remedy="give postgresql+asyncpg://user:password@host/database in PREFECT_SERVER_DATABASE_CONNECTION_URL, or nothing",
        )
    return address


def _start_prefect(settings: Settings, host: str, port: int, folder: Path, guard: _Guard) -> Page:
    url = f"http://{host}:{port}"
    command = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", host, "--port", str(port)]
    environment = prefect_server_environment(settings.home_path / "prefect", f"{url}/api", prefect_database(settings))
    process, log = _start("prefect", [*command, "--log-level", "warning"], environment, folder)
    guard.watch(process)
    return Page(name="Prefect", url=url, address=f"{url}/api", process=process, log=log)


def _start_mlflow(settings: Settings, backend: str, host: str, port: int, folder: Path, guard: _Guard) -> Page:
    url = f"http://{host}:{port}"
    command = ["mlflow", "server", "--host", host, "--port", str(port), "-w", "1"]
    stores = ["--artifacts-destination", settings.artifacts_path]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": backend,  # not among the arguments, which every user of the machine can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # otherwise ten processes and 2.5 GB
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    process, log = _start("mlflow", [*command, *stores], environment, folder)
    guard.watch(process)
    # The page opens in another mode unless its own address, behind the #, says otherwise.
    page = f"{url}/#/experiments?workflowType=machine_learning"
    return Page(name="MLflow", url=page, address=url, process=process, log=log)


def _start(name: str, module: list[str], environment: Mapping[str, str], folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start ``python -m module``, in a session of its own, so that stopping reaches what it starts in turn."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, log


def _port(host: str, wanted: int, setting: str) -> int:
    """The port to listen on: as set when it is free, any free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError as problem:
            raise InputError(
                f"cannot listen on {host}:{wanted} ({setting}): {problem.strerror}",
                remedy=f"set {setting} to another port, or to 0 for a free one",
            ) from problem
        return int(probe.getsockname()[1])


def _until_healthy(page: Page, health: str, deadline: float) -> None:
    while time.monotonic() < deadline:
        if page.process is not None and page.process.poll() is not None:
            raise _died(page)
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(health, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(_POLL_SECONDS)
    raise ServiceUnavailable(f"the {page.name} server at {page.url} did not answer in time", remedy=_end_of(page.log))


def _died(page: Page) -> ServiceUnavailable:
    code: Any = page.process.returncode if page.process is not None else "unknown"
    return ServiceUnavailable(f"the {page.name} server at {page.url} ended with code {code}", remedy=_end_of(page.log))


def _end_of(log: Path | None) -> str:
    if log is None or not log.is_file():
        return "it left no log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"the end of {log}: {without_password(' / '.join(lines[-3:])) or 'empty'}"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End the process groups: asked first, then made to."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        until = time.monotonic() + patience
        while time.monotonic() < until and any(_alive(process) for process in processes):
            time.sleep(0.05)
        if not any(_alive(process) for process in processes):
            return


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of the process's group is left."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
