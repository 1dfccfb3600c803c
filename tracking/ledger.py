"""The ledger of trials: every configuration ever evaluated, counted once, never forgotten.

1. `TrialLedger.record_many` names each trial (`_identify`) and, holding the index's write lock, finds those it has not seen.
2. It writes their returns to one Parquet file, synced and renamed (`_write_returns`).
3. It adds the index rows and the batch in the same transaction; a kill before that leaves an orphan file, which the next
   writer removes (`_sweep`), and no trial.

The index is a SQLite file whose tables refuse updates and deletes.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.clock import require_utc
from config.damage import is_damaged
from config.errors import IntegrityError, QualityError, StorageError
from config.hashing import canonical_json, digest, sha256_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from config.settings import Settings

__all__ = ["Trial", "TrialLedger"]

BUSY_SECONDS = 120.0
SESSIONS_KEY = b"quantrail.sessions"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
  batch_id TEXT PRIMARY KEY, recorded_at TEXT NOT NULL, trials INTEGER NOT NULL, returns_sha256 TEXT
);
CREATE TABLE IF NOT EXISTS trials (
  number INTEGER PRIMARY KEY,
  evaluation TEXT NOT NULL UNIQUE,
  configuration TEXT NOT NULL,
  family TEXT NOT NULL,
  symbols_key TEXT NOT NULL,
  symbols TEXT NOT NULL,
  params TEXT NOT NULL,
  convention_digest TEXT NOT NULL,
  spec_digest TEXT NOT NULL,
  snapshot_id TEXT NOT NULL,
  sharpe_per_session REAL,
  total_return REAL,
  trades INTEGER NOT NULL,
  has_returns INTEGER NOT NULL,
  batch_id TEXT NOT NULL REFERENCES batches(batch_id)
);
CREATE INDEX IF NOT EXISTS trials_by_symbols ON trials (symbols_key, family, configuration, number);
CREATE TRIGGER IF NOT EXISTS trials_keep BEFORE UPDATE ON trials BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS trials_stay BEFORE DELETE ON trials BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS batches_keep BEFORE UPDATE ON batches BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS batches_stay BEFORE DELETE ON batches BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One configuration, evaluated.

    Parameters
    ----------
    params : mapping
        The strategy's parameters; with family, symbols and convention they name the configuration. Whatever else was chosen
        (a start date, a universe rule) belongs here too, else it is not counted as a choice.
    spec_digest : str
        SHA-256 of the strategy's specification.
    sharpe_per_session : float
        Mean over deviation (ddof 1) of the session returns, *not* annualised; NaN where undefined (it never traded).
    total_return : float
        Fraction.
    trades : int
        Closed round trips.
    returns : Series of shape (n_sessions,), optional
        Simple session returns, index `session`; kept for the probability of backtest overfitting.
    """

    params: Mapping[str, Any]
    spec_digest: str
    sharpe_per_session: float
    total_return: float
    trades: int
    returns: pd.Series | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class _Named:
    evaluation: str
    configuration: str
    params: str
    trial: Trial


class TrialLedger:
    """Counts every configuration ever evaluated, whoever asked and for whatever reason.

    A *configuration* is family, parameters, symbols and convention. Evaluated twice on one lake snapshot it is recorded
    once. Evaluated again on newer data it is recorded again, but still *counts* once: it is the same guess looked at later,
    not another guess. `sharpes` and `returns_matrix` give its newest evaluation.

    Parameters
    ----------
    settings : Settings
        The ledger lives in ``<home>/trials``; nothing is made until something is recorded.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home_path / "trials"
        self._index = self.folder / "ledger.db"
        self._returns = self.folder / "returns"

    def record_many(
        self,
        *,
        family: str,
        symbols: Sequence[str],
        convention_digest: str,
        trials: Iterable[Trial],
        snapshot_id: str,
        recorded_at: datetime,
    ) -> int:
        """Add trials; safe with several processes, and killed at any moment.

        Parameters
        ----------
        family : str
            The kind of rule (``sma``); one family's trials are what its search tried.
        symbols : sequence of str
            Order does not matter.
        convention_digest : str
            SHA-256 of the trading convention.
        trials : iterable of Trial
        snapshot_id : str
            The lake snapshot they were evaluated on.
        recorded_at : datetime
            Aware, UTC.

        Returns
        -------
        int
            How many of them were new.

        Raises
        ------
        QualityError
            A trial's returns have duplicate or unordered sessions.
        StorageError
            The folder cannot be written, or the disk is full; nothing was recorded.
        """
        moment = require_utc(recorded_at, "TrialLedger.record_many").isoformat()
        named = _identify(family, tuple(symbols), convention_digest, snapshot_id, trials)
        if not named:
            return 0
        self._make()
        with self._connection() as connection, _transaction(connection):
            seen = _known(connection, list(named))
            new = [item for key, item in named.items() if key not in seen]
            if not new:
                return 0
            self._sweep(connection)
            batch_id = sha256_bytes("\n".join(item.evaluation for item in new).encode())[:32]
            returns_sha = self._write_returns(batch_id, new)
            connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", (batch_id, moment, len(new), returns_sha))
            common = (family, _symbols_key(symbols), json.dumps(sorted(set(symbols))))
            connection.executemany(
                "INSERT INTO trials (evaluation, configuration, family, symbols_key, symbols, params, convention_digest,"
                " spec_digest, snapshot_id, sharpe_per_session, total_return, trades, has_returns, batch_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_row(item, common, convention_digest, snapshot_id, batch_id) for item in new],
            )
        return len(new)

    def count(self, symbols: Sequence[str], family: str | None = None, *, snapshot_id: str | None = None) -> int:
        """How many different configurations were ever tried on exactly these symbols (of one family, or of all)."""
        where, values = _filter(symbols, family, snapshot_id)
        found = self._query(f"SELECT count(DISTINCT configuration) FROM trials WHERE {where}", values)
        return int(found[0][0]) if found else 0

    def sharpes(
        self, symbols: Sequence[str], family: str | None = None, *, snapshot_id: str | None = None
    ) -> npt.NDArray[np.float64]:
        """Sharpe ratios *per session* of those configurations, newest evaluation of each, in order of first recording.

        Configurations whose Sharpe is undefined (no variance) are counted by `count` but absent here.

        Returns
        -------
        ndarray of shape (n_defined,)
        """
        import numpy as np

        rows = self._newest(symbols, family, snapshot_id, "sharpe_per_session")
        return np.array([row[0] for row in rows if row[0] is not None], dtype=np.float64)

    def returns_matrix(self, symbols: Sequence[str], family: str | None = None, *, snapshot_id: str | None = None) -> pd.DataFrame:
        """Session returns of those configurations, newest evaluation of each.

        Returns
        -------
        DataFrame of shape (n_sessions, n_configurations)
            Index `session`; columns are specification digests, in order of first recording; NaN where a configuration has no
            return for a session. Trials recorded without returns have no column.

        Raises
        ------
        IntegrityError
            A returns file is missing or is not the one that was recorded.
        """
        import pandas as pd

        rows = self._newest(symbols, family, snapshot_id, "evaluation, spec_digest, batch_id", "has_returns = 1")
        wanted: dict[str, list[str]] = {}
        for evaluation, _, batch_id in rows:
            wanted.setdefault(batch_id, []).append(evaluation)
        pieces = [self._read_returns(batch_id, evaluations) for batch_id, evaluations in wanted.items()]
        if not pieces:
            return pd.DataFrame(index=pd.DatetimeIndex([], name="session"), dtype="float64")
        whole = pieces[0] if len(pieces) == 1 else pd.concat(pieces, axis=1).sort_index()
        whole = whole[[evaluation for evaluation, _, _ in rows]]
        whole.columns = pd.Index([spec_digest for _, spec_digest, _ in rows], name="configuration")
        return whole.rename_axis(index="session")

    def parameters(self, symbols: Sequence[str], family: str | None = None) -> dict[str, dict[str, Any]]:
        """The parameters of those configurations by specification digest: what the columns of `returns_matrix` mean."""
        rows = self._newest(symbols, family, None, "spec_digest, params")
        return {spec_digest: json.loads(params) for spec_digest, params in rows}

    def snapshots(self) -> frozenset[str]:
        """The lake snapshots on which anything was ever evaluated."""
        return frozenset(row[0] for row in self._query("SELECT DISTINCT snapshot_id FROM trials", ()))

    def _make(self) -> None:
        try:
            self._returns.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise _unwritable(self.folder, problem) from problem

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._index, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'batches_stay'").fetchone():
                    connection.executescript(_SCHEMA)
                yield connection
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as problem:
            raise _unwritable(self.folder, problem) from problem

    def _query(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if not self._index.exists():
            return []
        with self._connection() as connection:
            return connection.execute(sql, values).fetchall()

    def _newest(
        self, symbols: Sequence[str], family: str | None, snapshot_id: str | None, columns: str, also: str = "1"
    ) -> list[tuple[Any, ...]]:
        where, values = _filter(symbols, family, snapshot_id)
        return self._query(
            f"SELECT {columns} FROM trials JOIN (SELECT max(number) AS newest, min(number) AS first FROM trials"
            f" WHERE {where} AND {also} GROUP BY configuration) ON number = newest ORDER BY first",
            values,
        )

    def _sweep(self, connection: sqlite3.Connection) -> None:
        """Remove files of writers that died before their commit; the write lock is held, so nobody is writing one now."""
        known = {row[0] for row in connection.execute("SELECT batch_id FROM batches WHERE returns_sha256 IS NOT NULL")}
        for entry in os.scandir(self._returns):
            if entry.name.removesuffix(".parquet") not in known:
                os.unlink(entry.path)

    def _write_returns(self, batch_id: str, new: list[_Named]) -> str | None:
        """One row a trial; the sessions are in the schema's metadata. Returns the file's SHA-256."""
        import numpy as np
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        series = [(item.evaluation, item.trial.returns) for item in new if item.trial.returns is not None]
        if not series:
            return None
        sessions = _union_of_sessions([values for _, values in series])
        matrix = np.empty((len(series), len(sessions)))
        for row, (_, values) in enumerate(series):
            same = len(values.index) == len(sessions)  # the union is a superset
            matrix[row] = values.to_numpy(dtype=np.float64) if same else values.reindex(sessions).to_numpy(dtype=np.float64)
        days = json.dumps([day.strftime("%Y-%m-%d") for day in pd.DatetimeIndex(sessions)])
        table = pa.table(
            {
                "trial": pa.array([evaluation for evaluation, _ in series]),
                "returns": pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), max(len(sessions), 1)),
            }
        ).replace_schema_metadata({SESSIONS_KEY: days.encode()})
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="lz4", use_dictionary=False, write_statistics=False, row_group_size=1024)
        content = memoryview(buffer.getvalue())
        _write_synced(self._returns / f"{batch_id}.parquet", content)
        return sha256_bytes(content)

    def _read_returns(self, batch_id: str, evaluations: list[str]) -> pd.DataFrame:
        import numpy as np
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._returns / f"{batch_id}.parquet"
        recorded = self._query("SELECT returns_sha256 FROM batches WHERE batch_id = ?", (batch_id,))[0][0]
        try:
            content = path.read_bytes()
        except OSError as problem:
            raise IntegrityError(
                f"the ledger's returns file {path} cannot be read: {problem.strerror}", remedy="restore it from a backup"
            ) from problem
        if sha256_bytes(content) != recorded:
            raise IntegrityError(
                f"the ledger's returns file {path} is not the one recorded ({str(recorded)[:16]}…)",
                remedy="restore it from a backup",
            )
        table = pq.read_table(pa.BufferReader(content))
        sessions = pd.DatetimeIndex(json.loads(table.schema.metadata[SESSIONS_KEY]), name="session").as_unit("us")
        matrix = np.concatenate([chunk.flatten().to_numpy() for chunk in table["returns"].chunks]).reshape(table.num_rows, -1)
        frame = pd.DataFrame(matrix.T, index=sessions, columns=table["trial"].to_pylist())
        return frame[evaluations]


def _symbols_key(symbols: Sequence[str]) -> str:
    return digest(sorted(set(symbols)))


def _identify(
    family: str, symbols: tuple[str, ...], convention_digest: str, snapshot_id: str, trials: Iterable[Trial]
) -> dict[str, _Named]:
    """Each trial under its evaluation's name; a configuration met twice in one batch is kept once."""
    key = _symbols_key(symbols)
    named: dict[str, _Named] = {}
    for trial in trials:
        params = canonical_json(dict(trial.params))
        configuration = sha256_bytes(f"{family}\x00{key}\x00{convention_digest}\x00{params}".encode())
        evaluation = sha256_bytes(f"{configuration}\x00{snapshot_id}".encode())
        named.setdefault(evaluation, _Named(evaluation, configuration, params, trial))
    return named


def _known(connection: sqlite3.Connection, evaluations: list[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(evaluations), 500):
        part = evaluations[start : start + 500]
        marks = ",".join("?" * len(part))
        found.update(row[0] for row in connection.execute(f"SELECT evaluation FROM trials WHERE evaluation IN ({marks})", part))
    return found


def _row(item: _Named, common: tuple[str, str, str], convention_digest: str, snapshot_id: str, batch_id: str) -> tuple[Any, ...]:
    trial = item.trial
    return (
        item.evaluation,
        item.configuration,
        *common,
        item.params,
        convention_digest,
        trial.spec_digest,
        snapshot_id,
        float(trial.sharpe_per_session) if math.isfinite(trial.sharpe_per_session) else None,
        float(trial.total_return) if math.isfinite(trial.total_return) else None,
        int(trial.trades),
        int(trial.returns is not None),
        batch_id,
    )


def _filter(symbols: Sequence[str], family: str | None, snapshot_id: str | None) -> tuple[str, tuple[Any, ...]]:
    clauses, values = ["symbols_key = ?"], [_symbols_key(symbols)]
    for column, wanted in (("family", family), ("snapshot_id", snapshot_id)):
        if wanted is not None:
            clauses.append(f"{column} = ?")
            values.append(wanted)
    return " AND ".join(clauses), tuple(values)


def _union_of_sessions(series: list[pd.Series]) -> pd.Index:
    """The sorted union of the sessions; equal indexes (the usual case) are checked once each."""
    import pandas as pd

    union: pd.Index = series[0].index
    checked: set[int] = set()
    for values in series:
        if id(values.index) in checked:
            continue
        checked.add(id(values.index))
        if not (values.index.is_unique and values.index.is_monotonic_increasing and isinstance(values.index, pd.DatetimeIndex)):
            raise QualityError(
                "a trial's returns need ascending, unique sessions as their index", remedy="sort and deduplicate them"
            )
        if not values.index.equals(union):
            union = union.union(values.index)
    return union


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write_synced(path: Path, content: memoryview) -> None:
    """Write, sync, rename, sync the folder: after this the file survives a power cut."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unwritable(folder: Path, problem: Exception) -> StorageError | IntegrityError:
    if is_damaged(problem):
        return IntegrityError(
            f"the ledger of trials in {folder} is damaged: {problem}",
            remedy="restore ledger.db from a backup",
        )
    return StorageError(
        f"the ledger of trials in {folder} cannot be used: {problem}",
        remedy=f"make {folder} writable with free space, or set QUANT_HOME",
    )
