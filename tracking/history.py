"""The registry's append-only history: who moved what, when, on which verdict; each entry carries the hash of the one before."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from config.clock import require_utc
from config.damage import is_damaged
from config.errors import IntegrityError, StorageError
from config.hashing import canonical_json, digest

__all__ = ["Entry", "History"]

GENESIS = "0" * 64
_SCHEMA = """
CREATE TABLE IF NOT EXISTS history (number INTEGER PRIMARY KEY, entry TEXT NOT NULL, hash TEXT NOT NULL UNIQUE);
CREATE TRIGGER IF NOT EXISTS history_keep BEFORE UPDATE ON history BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS history_stay BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One act.

    Parameters
    ----------
    number : int
        From 1, without gaps.
    at : str
        ISO, UTC.
    who, model : str
    action : {"registered", "moving", "moved", "removing", "removed"}
        A move is written before it is made and again when it is done, so that one cut short can be finished.
    version : str
    alias : str
        Empty for a registration.
    details : mapping
        Specification digest, outcome, evidence digest, verdict, reason.
    previous_hash, hash : str
        SHA-256; `hash` covers everything above and `previous_hash`.
    """

    number: int
    at: str
    who: str
    model: str
    action: str
    version: str
    alias: str
    details: Mapping[str, Any]
    previous_hash: str
    hash: str


class History:
    """A SQLite file beside the tracking store. Nothing is made until something is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(
        self, *, at: datetime, who: str, model: str, action: str, version: str, alias: str = "", details: Mapping[str, Any]
    ) -> Entry:
        """Add one entry, synced, and return it."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            last = connection.execute("SELECT number, hash FROM history ORDER BY number DESC LIMIT 1").fetchone() or (0, GENESIS)
            body = {
                "number": last[0] + 1,
                "at": require_utc(at, "History.append").isoformat(),
                "who": who,
                "model": model,
                "action": action,
                "version": version,
                "alias": alias,
                "details": dict(details),
                "previous_hash": last[1],
            }
            text = canonical_json(body)
            chained = digest(body)
            connection.execute("INSERT INTO history VALUES (?, ?, ?)", (last[0] + 1, text, chained))
            connection.execute("COMMIT")
        return Entry(**json.loads(text), hash=chained)

    def entries(self, model: str | None = None) -> list[Entry]:
        """All entries, oldest first, the whole chain verified.

        Raises
        ------
        IntegrityError
            An entry was changed, removed or inserted; the message names the first.
        """
        if not self.path.exists():
            return []
        with self._connection() as connection:
            rows = connection.execute("SELECT number, entry, hash FROM history ORDER BY number").fetchall()
        previous, entries = GENESIS, []
        for place, (number, text, chained) in enumerate(rows, start=1):
            body = json.loads(text)
            if number != place or body["number"] != place or body["previous_hash"] != previous or digest(body) != chained:
                raise IntegrityError(
                    f"entry {place} of the registry's history {self.path} does not fit its chain: it was edited outside quantrail",
                    remedy="restore the file from a backup; do not trade until it verifies",
                )
            previous = chained
            entries.append(Entry(**body, hash=chained))
        return [entry for entry in entries if model is None or entry.model == model]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(_SCHEMA)
                yield connection
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as problem:
            if is_damaged(problem):
                raise IntegrityError(
                    f"the registry's history {self.path} is damaged: {' '.join(str(problem).split())[:200]}",
                    remedy="restore it from a backup; do not trade until it verifies",
                ) from problem
            raise StorageError(
                f"the registry's history {self.path} cannot be used: {problem}", remedy=f"make {self.path.parent} writable"
            ) from problem
