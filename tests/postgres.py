"""A real PostgreSQL on loopback for the tests, from the machine's own packages, as a user that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

PASSWORD = "a-password-that-must-not-be-shown"
_NUMBERS = count()


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest there is."""
    named = shutil.which("initdb")
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parts[-3]))
    found = Path(named) if named else (packaged[-1] if packaged else None)
    return None if found is None else found.parent


def unprivileged() -> str | None:
    """The user to run it as: PostgreSQL refuses root. None where this user will do."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


@dataclass(frozen=True)
class Postgres:
    """A running server; its one user is `quantrail`, who has to give the password."""

    port: int
    process: subprocess.Popen[bytes] = field(repr=False)

    def address(self, database: str, *, password: str = PASSWORD, scheme: str = "postgresql") -> str:
        """The address of a database, with the password in it."""
        return f"{scheme}://quantrail:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database; return its name."""
        name = f"test_{next(_NUMBERS)}"
        self.ask("postgres", f"CREATE DATABASE {name}")
        return name

    def ask(self, database: str, query: str) -> list[tuple[object, ...]]:
        """Run one statement past our own code."""
        import psycopg2

        connection = psycopg2.connect(self.address(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(query)
                return [] if cursor.description is None else cursor.fetchall()
        finally:
            connection.close()


@contextmanager
def postgres_server(folder: Path) -> Iterator[Postgres]:
    """Make a cluster with the binaries in `folder` and serve it; take it away on the way out."""
    user = unprivileged()
    home = Path(tempfile.mkdtemp(prefix="quantrail-postgres-"))
    try:
        (home / "password").write_text(PASSWORD)
        if user is not None:
            for path in (home, home / "password"):
                shutil.chown(path, user)
        data = home / "data"
        made = [str(folder / "initdb"), "-D", str(data), "-U", "quantrail", "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"]
        subprocess.run([*made, f"--pwfile={home / 'password'}"], cwd=home, user=user, check=True, capture_output=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "32MB",
        }
        command = [str(folder / "postgres"), "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=home, user=user, stdout=log, stderr=subprocess.STDOUT)
        try:
            server = Postgres(port, process)
            _until_it_answers(server, home / "log")
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown; SIGTERM waits for every client to go
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _until_it_answers(server: Postgres, log: Path) -> None:
    import psycopg2

    until = time.monotonic() + 60
    while True:
        try:
            server.ask("postgres", "SELECT 1")
            return
        except psycopg2.OperationalError as problem:
            if server.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start: {problem}\n{log.read_text()[-2000:]}") from problem
            time.sleep(0.1)
