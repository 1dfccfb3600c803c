"""What every test gets: a home folder of its own, no settings from outside, no Prefect address, no way off this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.postgres import Postgres


def pytest_configure() -> None:
    """Lead whatever speaks HTTP to a proxy that is not there, loopback excepted.

    pytest-socket watches Python's own sockets only: curl (yfinance), Rust (obstore, delta-rs) and child processes go past it. They
    all heed these variables. A test that wants a proxy of its own sets them itself.
    """
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ[name] = os.environ[name.lower()] = "http://127.0.0.1:9"
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each test's lake, runs and journals in its own folder, and the machine's settings out."""
    for name in list(os.environ):
        if name.startswith(
            (
                "QUANT_",
                "PREFECT_API",
                "MLFLOW_TRACKING",
                "ALPACA_",
                "FRED_API",
                "TRADIER_",
                "POLYGON_",
                "AWS_",
                "PREFECT_SERVER_DATABASE",
            )
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("QUANT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; skips where it is not there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the checkout: this test needs real recordings that are not ours to ship")
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished demo, run once: its home folder and what it printed. Tests that use it share an xdist group."""
    from tests.flows.demo_home import quant

    home = tmp_path_factory.mktemp("demo") / "home"
    said = quant(home, "demo", "--json")
    assert said.code == 0, said.err
    return home, said.document


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL on loopback; skips where none is installed."""
    from tests.postgres import binaries, postgres_server

    folder = binaries()
    if folder is None:
        pytest.skip("no PostgreSQL on this machine (no initdb on the PATH or in /usr/lib/postgresql): apt-get install postgresql")
    with postgres_server(folder) as server:
        yield server
