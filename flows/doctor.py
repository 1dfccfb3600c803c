"""Looks at this machine and says, check by check, what is well, what is not, and what to do about it.

1. `check_python` and `check_versions`: the interpreter and the pinned packages.
2. `check_keys`: which credentials are in the environment, never their values.
3. `check_home`: the home folder can be written and has room.
4. `check_lake`: a lake in a bucket answers, can be written, and refuses a second put of the same name.
5. `check_clock`: the machine's clock against the file system's and against reason.
6. `check_servers` and `check_databases`: the Prefect and MLflow addresses, where they are set, answer; passwords are not shown.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from config.addresses import without_password
from config.clock import Clock
from config.errors import QuantError
from config.settings import NAMED_VARIABLES, Settings

__all__ = ["Checkup", "examine"]

ROOM_NEEDED_BYTES = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkup:
    """One check: what was looked at, what was found, and the remedy where it is not well."""

    name: str
    state: Literal["ok", "note", "problem"]
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def examine(settings: Settings, clock: Clock) -> list[Checkup]:
    """Run every check; a failing one never hides the others."""
    return [
        *check_python(),
        *check_versions(),
        *check_keys(settings),
        *check_home(settings),
        *check_lake(settings),
        *check_clock(clock),
        *check_servers(settings),
        *check_databases(settings),
    ]


def check_python() -> Iterator[Checkup]:
    """The interpreter is the one this release was tested with; a newer one is worth a note."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        yield Checkup(name="python", state="ok", found=found)
    else:
        yield Checkup(name="python", state="note", found=found, remedy="tested with Python 3.11; use it if something fails")


def _pins() -> dict[str, str]:
    """Exactly pinned direct dependencies, by name."""
    pins: dict[str, str] = {}
    for requirement in metadata.requires("quantrail") or []:
        name, pinned, version = requirement.partition("==")
        if pinned and ";" not in requirement and "*" not in version:
            pins[name.strip()] = version.strip()
    return pins


def check_versions() -> Iterator[Checkup]:
    """The pinned packages are installed at the versions this release was tested with."""
    try:
        pins = _pins()
    except metadata.PackageNotFoundError:
        yield Checkup(name="quantrail", state="problem", found="not installed", remedy="install it: uv pip install -e .")
        return
    wrong = []
    for name, wanted in pins.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if found != wanted:
            wrong.append(f"{name} is {found}, wanted {wanted}")
    if wrong:
        yield Checkup(name="packages", state="problem", found="; ".join(wrong), remedy="run the README's set-up command again")
    else:
        yield Checkup(name="packages", state="ok", found=f"all {len(pins)} pinned packages as wanted")


def check_keys(settings: Settings) -> Iterator[Checkup]:
    """Which credentials are present; a missing one is no fault, and no value is ever shown."""
    for variable, path in NAMED_VARIABLES.items():
        if path[0] != "credentials":
            continue
        present = getattr(settings.credentials, path[1]) is not None
        yield Checkup(
            name=variable,
            state="ok" if present else "note",
            found="present" if present else "not set",
            remedy="" if present else "not needed for the demo; export it to use this service",
        )


def check_home(settings: Settings) -> Iterator[Checkup]:
    """The home folder can be made and written."""
    home = settings.home_path
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(b"probe")
    except OSError as problem:
        yield Checkup(
            name="home", state="problem", found=f"{home}: {problem.strerror}", remedy="make it writable, or set QUANT_HOME"
        )
        return
    yield Checkup(name="home", state="ok", found=str(home))
    free = shutil.disk_usage(home).free
    enough = free >= ROOM_NEEDED_BYTES
    yield Checkup(
        name="disk",
        state="ok" if enough else "problem",
        found=f"{free / 1e9:.1f} GB free",
        remedy="" if enough else f"free at least {ROOM_NEEDED_BYTES / 1e9:.0f} GB, or set QUANT_HOME to another disk",
    )


def check_lake(settings: Settings) -> Iterator[Checkup]:
    """A bucket answers, can be written with the credentials that are set, and keeps the promise that commits rest on."""
    from lake import open_lake
    from lake.bucket import Bucket

    root = open_lake(settings).root
    if not isinstance(root, Bucket):
        yield Checkup(name="lake", state="ok", found=f"{root}: a folder of this machine")
        return
    try:
        root.require_conditional_put()
    except QuantError as problem:
        yield Checkup(name="lake", state="problem", found=problem.message, remedy=problem.remedy or "")
    else:
        yield Checkup(name="lake", state="ok", found=f"{root} answers and takes writes")


def check_clock(clock: Clock) -> Iterator[Checkup]:
    """The clock is not behind the release it runs, nor far from the file system's."""
    now = clock.now()
    with tempfile.NamedTemporaryFile() as probe:
        written = os.stat(probe.name).st_mtime
    skew = abs(now.timestamp() - written)
    newest_source = Path(__file__).stat().st_mtime
    if now.timestamp() < newest_source - timedelta(days=1).total_seconds() or skew > 5:
        yield Checkup(
            name="clock",
            state="problem",
            found=f"{now:%Y-%m-%d %H:%M:%S} UTC, {skew:.1f} s from the file system's, older than this installation",
            remedy="set the clock (timedatectl set-ntp true): orders and data are stamped with it",
        )
    else:
        yield Checkup(name="clock", state="ok", found=f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _answers(address: str) -> str | None:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(address, timeout=3) as answer:
            return None if answer.status < 400 else f"answers {answer.status}"
    except (urllib.error.URLError, OSError, ValueError) as problem:
        return f"does not answer ({getattr(problem, 'reason', problem)})"


def check_servers(settings: Settings) -> Iterator[Checkup]:
    """Addresses that are set answer; without one everything runs as plain Python on local files."""
    prefect_address = os.environ.get("PREFECT_API_URL", "")
    pages = {
        "prefect": (
            prefect_address,
            f"{prefect_address.rstrip('/')}/health",
            "unset PREFECT_API_URL, or start the pages: quant ui",
        ),
        "mlflow": (
            settings.tracking_uri if settings.tracking_uri.startswith("http") else "",
            f"{settings.tracking_uri.rstrip('/')}/health",
            "unset MLFLOW_TRACKING_URI, or start that server",
        ),
    }
    for name, (address, health, remedy) in pages.items():
        if name == "mlflow" and settings.tracking_uri.startswith("postgres"):
            continue  # `check_databases` looks there
        if not address:
            yield Checkup(name=name, state="ok", found="no server set: runs locally")
            continue
        failure = _answers(health)
        found = f"{without_password(address)} {failure or 'answers'}"
        yield Checkup(name=name, state="problem" if failure else "ok", found=found, remedy=remedy if failure else "")


def check_databases(settings: Settings) -> Iterator[Checkup]:
    """PostgreSQL databases that are set for MLflow and for the Prefect server let us in."""
    from flows.ui import prefect_database

    addresses = {"mlflow database": settings.tracking_uri}
    try:
        addresses["prefect database"] = prefect_database(settings)
    except QuantError as problem:
        yield Checkup(name="prefect database", state="problem", found=problem.message, remedy=problem.remedy or "")
    for name, address in addresses.items():
        if not address.startswith("postgres"):
            continue
        failure = _refuses(address)
        yield Checkup(
            name=name,
            state="problem" if failure else "ok",
            found=f"{without_password(address)} {failure or 'answers'}",
            remedy="check host, database, user and password in the environment, and that the server runs" if failure else "",
        )


def _refuses(address: str) -> str | None:
    """Log in to PostgreSQL and out again; what went wrong, or None."""
    import asyncio

    import asyncpg

    async def log_in() -> None:
        scheme, _, rest = address.partition("://")
        connection = await asyncpg.connect(f"{scheme.partition('+')[0]}://{rest}", timeout=5)
        await connection.close()

    try:
        asyncio.run(log_in())
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as problem:
        return f"refuses ({without_password(str(problem)) or type(problem).__name__})"
    return None
