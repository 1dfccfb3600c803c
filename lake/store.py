"""The lake: write rows with three clocks, publish exact states, read them back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from config.errors import InputError
from config.settings import Settings
from config.tables import TABLES, TableSpec, table_spec
from lake.delta import TableVersion, open_table, table_names, version_state
from lake.place import Place, find
from lake.raw import RawStore
from lake.reading import Tables
from lake.snapshot import Snapshot, load, newest_name, newest_versions, publish, published
from lake.writer import WriteResult, write_rows

__all__ = ["Lake", "open_lake"]

_MISREAD = frozenset("%[]\\|^")  # measured with deltalake 1.6.6: decoded twice, or a panic


@dataclass(frozen=True, slots=True)
class _Newest(Tables):
    """Every table at its newest committed version, published or not."""

    root: Place
    tables: Mapping[str, TableVersion]
    cache: dict[str, Any] = field(default_factory=dict)

    def pinned(self, table: str) -> TableVersion | None:
        return self.tables.get(table)


@dataclass(frozen=True, slots=True)
class Lake:
    """A folder of tables, on this machine or in a bucket. It holds no connection and no lock, so threads may share it and
    processes open their own.

    Parameters
    ----------
    root : Path or Bucket
        A folder is made by the first write; a bucket must be there.
    write_attempts : int
        How often a write that lost a race is tried again.
    """

    root: Place
    write_attempts: int = 20

    @property
    def raw(self) -> RawStore:
        """The bytes of every source's answer, by their hash."""
        return RawStore(self.root / "raw")

    def write(self, table: str | TableSpec, rows: pa.Table, *, recorded_at: datetime) -> WriteResult:
        """Store a batch: new keys, and revisions of keys whose values changed. Unchanged rows make no new version.

        A row whose values equal the newest version of its key (NULL equals NULL, NaN equals NaN; clocks and provenance
        columns do not count) is unchanged. With other values it is stored as that key's next version; unless the source
        quotes vintages itself, its `available_at` is then never before `recorded_at`. On return the rows are on the disk.
        The whole batch is stored, or nothing of it.

        Parameters
        ----------
        table : str or TableSpec
            A fixed table's name; the specification for a feature table (`config.tables.feature_table`).
        rows : pyarrow.Table
            The table's columns, `available_at` and `ingest_id`; one row a key. Times are aware.
        recorded_at : datetime
            The moment of this write, aware.

        Raises
        ------
        SchemaError
            Columns, types, NULLs or repeated keys are not the table's; nothing was written.
        UnknownNameError
            No table has that name.
        LockHeldError
            Other writers were quicker in every attempt; nothing was written.
        StorageError
            Disk full or folder not writable; what was acknowledged before is safe.
        """
        spec = table if isinstance(table, TableSpec) else table_spec(table)
        if not re.fullmatch(r"[a-z][a-z0-9_]*|features/[A-Za-z0-9][A-Za-z0-9._-]*", spec.name):
            raise InputError(f"{spec.name!r} cannot be a table's name: letters, digits, _ . - (after 'features/')")
        misread = sorted(_MISREAD & set(str(self.root)))
        if misread:
            raise InputError(
                f"the lake's folder {self.root} has {' '.join(misread)} in its path, which the Delta library cannot handle",
                remedy="set QUANT_HOME to another folder",
            )
        return write_rows(self.root / spec.name, spec, rows, recorded_at=recorded_at, attempts=self.write_attempts)

    def publish(self) -> Snapshot:
        """Name the newest state of every data table and return it; when nothing changed, the newest snapshot as it is.

        Bookkeeping tables (`ingest_runs`, `quarantine`, `flags`, `gaps`) are no part of the state.

        Raises
        ------
        LockHeldError
            Another process has been publishing for a minute.
        StorageError
            The snapshot file cannot be written.
        """
        return publish(self.root)

    def snapshot(self, name: str | None = None) -> Snapshot:
        """Return the newest published snapshot, or the one with that id (an unambiguous beginning will do).

        Raises
        ------
        UnknownNameError
            Nothing is published yet, or nothing under that id.
        IntegrityError
            Its file is damaged.
        """
        return load(self.root, name)

    def has_snapshot(self) -> bool:
        """Whether a newest snapshot is named, so that `snapshot` has something to read."""
        return newest_name(self.root) is not None

    def snapshots(self) -> tuple[str, ...]:
        """Return the ids of all published snapshots, the newest first."""
        return published(self.root)

    def read_latest(
        self,
        table: str,
        *,
        where: Mapping[str, Any] | None = None,
        start: date | datetime | None = None,
        end: date | datetime | None = None,
        as_of: datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read a table's newest committed version, published or not: the way to read the bookkeeping tables.

        Research reads a snapshot instead, whose id names what was read. Parameters, order and errors are those of
        `Snapshot.read`.
        """
        return self._newest(table).read(table, where=where, start=start, end=end, as_of=as_of, columns=columns)

    def sql_latest(self, query: str, table: str) -> pa.Table:
        """Run one SELECT over one table at its newest committed version, published or not: for counts and spans of what is stored.

        Errors are those of `Snapshot.sql`.
        """
        return self._newest(table).sql(query)

    def tables(self) -> dict[str, TableVersion]:
        """Return the newest committed version of every table that holds rows, bookkeeping tables too."""
        return newest_versions(self.root, table_names(self.root))

    def _newest(self, table: str) -> _Newest:
        at = self._version(table) if table in TABLES or table in table_names(self.root) else None
        return _Newest(self.root, {} if at is None else {table: at})

    def _version(self, name: str) -> TableVersion | None:
        table = open_table(self.root / name)
        return None if table is None else version_state(self.root / name, table)


def open_lake(settings: Settings) -> Lake:
    """Open the lake of these settings. Nothing is made until something is written."""
    home = settings.home_path
    root = find(settings.lake_address, kept_in=home / "cache" / "lake", kept_bytes=int(settings.lake.cache_gb * 1e9))
    return Lake(root, settings.lake.write_attempts)
