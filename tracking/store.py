"""Opens the MLflow store: made once, under a lock, with its artefacts in a stated place and its telemetry off.

1. `_address` turns the setting into an absolute address (a file store, which MLflow no longer serves, becomes SQLite).
2. `open_store` imports MLflow (`import_mlflow`), and builds the client while holding a lock (`_creation`): two processes that
   both create the tables would break each other. The lock is a file beside an SQLite database, and an advisory lock inside a
   PostgreSQL one, which other machines see too. A new SQLite database is made aside and renamed (`_make_database`).
3. `Store.experiment` finds or makes an experiment, with an explicit artefact location.

A new SQLite store costs about 5 CPU seconds, four of which are imports that any use of MLflow pays; `prepare_store` can pay
them in a thread while other work runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from config.addresses import without_password
from config.damage import is_damaged
from config.errors import ConfigError, InputError, IntegrityError, QuantError, ServiceUnavailable, StorageError
from config.locks import exclusive
from config.settings import Settings

__all__ = ["Store", "import_mlflow", "mlflow_errors", "open_store", "prepare_store", "prepare_store_in_background"]

LOCK_SECONDS = 120.0
CONNECT_SECONDS = 10
_SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")
_CREATION = 0x7175616E74  # the advisory lock's number: "quant"

logger = logging.getLogger("quantrail.tracking")


@dataclass(frozen=True, slots=True)
class Store:
    """An open MLflow store.

    Parameters
    ----------
    client : mlflow.MlflowClient
    uri : str
        Its absolute address, with the password where it has one: for MLflow; `shown` is for people.
    artifacts : str or None
        Where artefacts go; None leaves it to a tracking server.
    """

    client: Any
    uri: str = field(repr=False)
    artifacts: str | None

    @property
    def shown(self) -> str:
        """The address without its password."""
        return without_password(self.uri)

    def experiment(self, name: str) -> str:
        """The id of the experiment, made when missing; safe when two processes make it at once.

        Raises
        ------
        InputError
            The name is empty, or belongs to a deleted experiment.
        """
        if not name.strip():
            raise InputError("an experiment needs a name")
        with mlflow_errors(self.uri):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                found = self._make_experiment(name)
        if found.lifecycle_stage != "active":
            raise InputError(
                f"experiment {name!r} was deleted in {self.shown}",
                remedy=f"restore it (mlflow experiments restore -x {found.experiment_id}) or use another name",
            )
        return str(found.experiment_id)

    def _make_experiment(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            made = self.client.create_experiment(name, artifact_location=self.artifacts)
        except MlflowException:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return found
        return self.client.get_experiment(made)


def import_mlflow() -> Any:
    """Import MLflow with its telemetry off, unless the user's environment says otherwise."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    import mlflow

    # It logs each database error with its traceback before raising it; `mlflow_errors` words what is raised.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Word the errors of MLflow and of its database as ours: a store that fails is a `StorageError` or `ServiceUnavailable`."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    shown = without_password(uri)
    try:
        yield
    except QuantError:
        raise
    except (MlflowException, SQLAlchemyError, OSError) as problem:
        text = without_password(" ".join(str(problem).split()))[:400]
        if getattr(problem, "error_code", "") in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"):
            raise InputError(f"MLflow ({shown}) refused: {text}") from problem
        if urlparse(uri).scheme in _SERVERS:
            raise ServiceUnavailable(f"the tracking server {shown} failed: {text}", remedy="check MLFLOW_TRACKING_URI") from problem
        if not uri.startswith("sqlite"):
            raise ServiceUnavailable(
                f"the tracking database {shown} failed: {text}",
                remedy="check that the server runs and that MLFLOW_TRACKING_URI names its host, database, user and password",
            ) from problem
        if is_damaged(problem):
            raise IntegrityError(
                f"the tracking store {shown} is damaged: {text}",
                remedy="restore it from a backup, or set QUANT_HOME to a new folder",
            ) from problem
        raise StorageError(
            f"the tracking store {shown} failed: {text}", remedy="make its folder writable with free space, or set QUANT_HOME"
        ) from problem


def open_store(settings: Settings) -> Store:
    """Open the store that the settings name, making it when missing.

    Raises
    ------
    StorageError
        The folder or the database cannot be written.
    ServiceUnavailable
        A tracking server, or the database it is, does not answer or refuses.
    ConfigError
        The database's driver is not installed.
    """
    uri, artifacts = _address(settings)
    _require_driver(uri)
    database = _sqlite_file(uri)
    if database is not None:
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise StorageError(
                f"cannot make the folder of the tracking store {database}: {problem.strerror}",
                remedy=f"make {database.parent} writable, or set QUANT_HOME",
            ) from problem
    is_server = urlparse(uri).scheme in _SERVERS
    mlflow = import_mlflow()
    with mlflow_errors(uri), _creation(uri, database, settings), _quiet():
        if database is not None and not database.exists():
            _make_database(mlflow, database)
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        if not is_server:
            client.get_experiment_by_name("Default")  # the first question opens the database
    return Store(client, uri, artifacts)


@contextmanager
def _creation(uri: str, database: Path | None, settings: Settings) -> Iterator[None]:
    """Keep others from making the store's tables at the same time; a tracking server sees to that itself."""
    what = "the creation of the tracking store"
    if database is not None:
        with exclusive(database.parent / ".mlflow.lock", what, wait_seconds=LOCK_SECONDS):
            yield
    elif uri.startswith("postgresql"):
        with _advisory_lock(uri):
            yield
    elif urlparse(uri).scheme in _SERVERS:
        yield
    else:
        with exclusive(settings.home_path / "locks" / ".mlflow.lock", what, wait_seconds=LOCK_SECONDS):
            yield


@contextmanager
def _advisory_lock(uri: str) -> Iterator[None]:
    """Hold PostgreSQL's own lock, which ends with the connection: so a holder that is killed holds nothing.

    MLflow asks a database that does not answer again for many minutes; the connection made here gives up early instead.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    with engine.connect() as connection:
        connection.execute(text(f"SET lock_timeout = '{int(LOCK_SECONDS)}s'"))
        connection.execute(text(f"SELECT pg_advisory_lock({_CREATION})"))
        yield


def prepare_store(settings: Settings) -> None:
    """Make the store and pay for its imports, so that the next `open_store` in this process is quick. Idempotent."""
    open_store(settings)


def prepare_store_in_background(settings: Settings) -> Future[None]:
    """Run `prepare_store` in a thread.

    Returns
    -------
    Future
        ``.result()`` waits for it and raises what it raised. Start it before work that waits on disk or runs in C (an ingest).
    """
    import threading

    # requests hides a warning of urllib3 while it is imported, by a filter that another thread's imports may undo: import it alone.
    import requests  # noqa: F401

    future: Future[None] = Future()

    def work() -> None:
        try:
            prepare_store(settings)
        except BaseException as problem:  # noqa: BLE001  handed to whoever asks for the result
            future.set_exception(problem)
        else:
            future.set_result(None)

    threading.Thread(target=work, name="prepare-tracking-store", daemon=True).start()
    return future


def _make_database(mlflow: Any, database: Path) -> None:
    """Make the tables in a file beside, then rename: a kill between two of MLflow's migrations would leave a store that no later
    start can open."""
    unfinished = database.with_name(f"{database.name}.unfinished")
    for leftover in database.parent.glob(f"{unfinished.name}*"):
        leftover.unlink()
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{unfinished}").get_experiment_by_name("Default")
    unfinished.replace(database)
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _require_driver(uri: str) -> None:
    """Refuse a PostgreSQL address early when nothing here speaks to PostgreSQL."""
    scheme = urlparse(uri).scheme
    if not scheme.startswith("postgresql"):
        return
    driver = scheme.partition("+")[2] or "psycopg2"
    if find_spec(driver) is None:
        raise ConfigError(
            f"the tracking address {without_password(uri)} needs the package {driver}, which is not installed",
            remedy="pip install 'quantrail[postgres]'",
        )


def _address(settings: Settings) -> tuple[str, str | None]:
    """The store's absolute address and the place of its artefacts."""
    uri = settings.tracking_uri
    if uri.startswith("postgres://"):  # as hosting companies write it; SQLAlchemy takes the long name only
        uri = uri.replace("postgres://", "postgresql://", 1)
    parsed = urlparse(uri)
    if parsed.scheme in _SERVERS:
        return uri, settings.tracking.artifacts or None
    if parsed.scheme in ("", "file"):
        folder = Path(unquote(parsed.path or uri)).expanduser().absolute()
        mapped = f"sqlite:///{folder / 'mlflow.db'}"
        logger.warning("MLflow no longer serves file stores: %s is kept in %s instead", without_password(uri), mapped)
        return mapped, _location(settings.tracking.artifacts or str(folder / "artifacts"))
    database = _sqlite_file(uri)
    if database is not None:
        uri = f"sqlite:///{database}"
    return uri, _location(settings.artifacts_path)


def _location(artifacts: str) -> str:
    return artifacts if "://" in artifacts else Path(artifacts).expanduser().absolute().as_uri()


def _sqlite_file(uri: str) -> Path | None:
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).expanduser().absolute()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's and alembic's notes (not their warnings) off standard error while the store opens."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
