"""A real Prefect server on loopback, with a home and a database of its own, for the tests that need one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.ui import prefect_server_environment


@dataclass(frozen=True)
class PrefectServer:
    """Where the server is, and how to ask it."""

    api_url: str
    home: Path

    def environment(self, quant_home: Path, **more: str) -> dict[str, str]:
        """What a client process needs."""
        mine = {
            "PREFECT_HOME": str(self.home / "client"),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "DO_NOT_TRACK": "true",
            "QUANT_HOME": str(quant_home),
        }
        outside = ("QUANT_", "PREFECT_", "FRED_", "TRADIER_", "POLYGON_", "ALPACA_", "MLFLOW_")
        return {**{k: v for k, v in os.environ.items() if not k.startswith(outside)}, **mine, **more}

    def ask(self, path: str, question: dict[str, Any] | None = None) -> Any:
        """POST a question to the API and return the answer."""
        request = urllib.request.Request(
            f"{self.api_url}/{path}", data=json.dumps(question or {}).encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def stored_bytes(self) -> bytes:
        """Every byte of the server's database, the write-ahead log included."""
        return b"".join(path.read_bytes() for path in sorted(self.home.glob("prefect.db*")))


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Start a server; stop it after the last test."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = PrefectServer(f"http://127.0.0.1:{port}/api", home)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        **prefect_server_environment(home, server.api_url),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"{server.api_url}/health", timeout=2):
                    break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"the Prefect server did not start: {(home / 'server.log').read_text()[-2000:]}")
                time.sleep(0.2)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
