"""Reading tables at given versions: rows as Arrow, whole or streamed, SQL over all of them, and the check of their content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

import duckdb
import pyarrow as pa

from config.errors import InputError, IntegrityError, StorageError, UnknownNameError, did_you_mean
from config.tables import TABLES, TableSpec
from lake.bucket import on_disk
from lake.chain import EMPTY, add, rows_digest
from lake.delta import PHYSICAL, TableVersion, data_files, open_table, spec_of, version_state
from lake.failures import first_line, storage_errors
from lake.place import Place
from lake.query import check_columns, connect, filters, names, newest, quoted, scan

__all__ = ["BOOKKEEPING", "Tables"]

BOOKKEEPING = frozenset({"ingest_runs", "quarantine", "flags", "gaps"})
_STREAMED_ROWS = 122_880  # DuckDB's own row group
Moment = date | datetime


class Tables(ABC):
    """What can be asked of a set of tables at fixed versions. `Snapshot` pins them; `Lake.read_latest` takes the newest."""

    __slots__ = ()
    root: Place
    tables: Mapping[str, TableVersion]
    cache: dict[str, Any]

    @abstractmethod
    def pinned(self, table: str) -> TableVersion | None:
        """The version to read; None for a table that holds nothing here."""

    def read(
        self,
        table: str,
        *,
        where: Mapping[str, Any] | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        as_of: datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return, for each key, the newest version available at `as_of`.

        Parameters
        ----------
        table : str
            A fixed table, or ``features/<set version>``. A fixed table that holds nothing yet gives no rows, with its
            schema; a name that is no table is an error.
        where : mapping, optional
            Column to value or list of values; None stands for NULL. It is asked of the newest version, not of older ones.
        start, end : date or datetime, optional
            Both included. A date is compared with `session` where the table has that column, else with the event time; a
            datetime with the event time.
        as_of : datetime, optional
            Only rows with `available_at <= as_of`; without it the newest of all.
        columns : sequence of str, optional
            Which, and in which order; all by default.

        Returns
        -------
        pyarrow.Table
            Sorted by key; the same call on the same state gives the same values in the same order.

        Raises
        ------
        UnknownNameError
            No such table or column.
        IntegrityError
            A file of the state is gone or damaged.
        StorageError
            The storage cannot be read.
        """
        spec, schema, query = self._query(table, where, start, end, as_of, columns)
        if query is None:
            return schema.empty_table()
        with self._reading(spec.name), connect() as con:
            return con.sql(query).to_arrow_table().cast(schema)

    def stream(
        self,
        table: str,
        *,
        where: Mapping[str, Any] | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        as_of: datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.RecordBatchReader:
        """Return the rows of `read`, in the same order, a batch at a time: for what does not fit in memory."""
        spec, schema, query = self._query(table, where, start, end, as_of, columns)

        def batches() -> Iterator[pa.RecordBatch]:
            if query is None:
                return
            with self._reading(spec.name), connect() as con:
                for batch in con.sql(query).to_arrow_reader(_STREAMED_ROWS):
                    yield batch.cast(schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def sql(self, query: str, *, as_of: datetime | None = None) -> pa.Table:
        """Run one DuckDB SELECT in which every table is a view of the newest version of each key (available at `as_of`).

        A feature table's view is quoted: ``select * from "features/<set version>"``. The columns are those of the table's
        schema. Rows come in the order that the query asks for; without ORDER BY in none.

        Raises
        ------
        InputError
            It is not one SELECT (nothing is written through here), or DuckDB does not accept it; the message is DuckDB's.
        IntegrityError, StorageError
            As in `read`.
        """
        self._require_select(query)
        with self._reading("the query's tables"), connect() as con:
            for name in sorted({*TABLES, *self.tables}):
                if name in query:
                    self._make_view(con, name, as_of)
            try:
                return con.sql(query).to_arrow_table()
            except (duckdb.ProgrammingError, duckdb.DataError) as problem:
                raise InputError(f"DuckDB does not accept the query: {problem}", remedy=f"tables: {self._listing()}") from problem

    def _require_select(self, query: str) -> None:
        try:
            statements = duckdb.extract_statements(query)
        except duckdb.Error as problem:
            raise InputError(f"DuckDB does not accept the query: {problem}", remedy=f"tables: {self._listing()}") from problem
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            kinds = ", ".join(str(statement.type).rpartition(".")[2] for statement in statements) or "nothing"
            raise InputError(f"a query is one SELECT, this is {kinds}", remedy=f"select from: {self._listing()}")

    def ingest_ids(self, table: str, where: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """The ingests whose rows are in the newest version of the table's keys, sorted."""
        found = self.read(table, where=where, columns=["ingest_id"])["ingest_id"].unique()
        return tuple(sorted(str(one) for one in found.to_pylist()))

    def verify(self, table: str) -> None:
        """Read every row of the table, old versions too, and compare with the content that its commits recorded.

        Raises
        ------
        IntegrityError
            A row was changed, added or lost outside `lake.write`, or a file is damaged.
        """
        spec, at, files = self._files(table)
        if at is None:
            return
        files = on_disk(files, again=True)
        schema = pa.schema([*spec.schema, PHYSICAL[0]])
        chain = EMPTY
        with self._reading(spec.name), connect() as con:
            written = con.sql(f"SELECT DISTINCT written_in FROM {scan(files)} ORDER BY 1").fetchall()
            for (version,) in written:
                rows = con.sql(
                    f"SELECT {names(schema.names)} FROM {scan(files)} WHERE written_in = {version} ORDER BY {names(spec.key)}"
                )
                chain = add(chain, rows_digest(rows.to_arrow_reader(_STREAMED_ROWS), schema, without=("recorded_at",)))
        if chain != at.chain:
            raise IntegrityError(
                f"table {table} in {self.root} (version {at.version}) does not hold the rows that were written to it",
                remedy="restore the folder from a backup, or ingest into a new home",
            )

    def _query(
        self,
        table: str,
        where: Mapping[str, Any] | None,
        start: Moment | None,
        end: Moment | None,
        as_of: datetime | None,
        columns: Sequence[str] | None,
    ) -> tuple[TableSpec, pa.Schema, str | None]:
        """The specification, the schema of the answer, and the query; no query where the table holds nothing."""
        spec, at, files = self._files(table)
        wanted = tuple(spec.schema.names) if columns is None else tuple(columns)
        check_columns(spec, wanted)
        schema = pa.schema([spec.schema.field(name) for name in wanted])
        condition = filters(spec, where, start, end)
        if at is None or not files:
            return spec, schema, None
        rows = newest(spec, scan(files), as_of=as_of, revised=at.revised > 0)
        return spec, schema, f"SELECT {names(wanted)} FROM ({rows}){condition} ORDER BY {names(spec.key)}"

    def _files(self, table: str) -> tuple[TableSpec, TableVersion | None, list[str]]:
        """What a table is, the version to read, and that version's files; pinned versions are looked up once."""
        if table in self.cache:
            found: tuple[TableSpec, TableVersion | None, list[str]] = self.cache[table]
            return found
        at = self.pinned(table)
        if at is None and table not in TABLES:
            raise UnknownNameError(
                f"no table is called {table!r} here", remedy=did_you_mean(table, tuple(sorted({*TABLES, *self.tables})))
            )
        if table in BOOKKEEPING:
            return _newest_files(self.root, table)
        if at is None:
            return TABLES[table], None, []
        self.cache[table] = answer = _files_at(self.root, table, at)
        return answer

    def _make_view(self, con: duckdb.DuckDBPyConnection, name: str, as_of: datetime | None) -> None:
        spec, at, files = self._files(name)
        if at is None or not files:
            con.register(name, spec.schema.empty_table())
            return
        rows = newest(spec, scan(files), as_of=as_of, revised=at.revised > 0)
        con.execute(f"CREATE VIEW {quoted(name)} AS SELECT {names(spec.schema.names)} FROM ({rows})")

    def _listing(self) -> str:
        return ", ".join(sorted({*TABLES, *self.tables}))

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """A file that a state names and that cannot be read is damage, not a passing fault."""
        try:
            with storage_errors(f"read {what}", self.root):
                yield
        except StorageError as problem:
            if isinstance(problem.__cause__, duckdb.IOException):
                raise IntegrityError(
                    f"a file of the lake is gone or damaged: {problem.__cause__}",
                    remedy="restore the folder from a backup, or ingest into a new home",
                ) from problem.__cause__
            raise
        except duckdb.Error as problem:  # the query is ours, so what does not fit it is the file
            raise IntegrityError(
                f"a file of the lake is damaged: {first_line(problem)}",
                remedy="restore the folder from a backup, or ingest into a new home",
            ) from problem


def _newest_files(root: Place, name: str) -> tuple[TableSpec, TableVersion | None, list[str]]:
    table = open_table(root / name)
    if table is None:
        return TABLES[name], None, []
    return TABLES[name], version_state(root / name, table), data_files(root / name, table)


def _files_at(root: Place, name: str, at: TableVersion) -> tuple[TableSpec, TableVersion | None, list[str]]:
    with storage_errors(f"open the table {name} at version {at.version}", root / name):
        table = open_table(root / name, at.version)
    if table is None:
        raise IntegrityError(f"the table {name} in {root} is gone", remedy="restore the folder from a backup")
    spec = spec_of(name, table)
    assert spec is not None
    found = version_state(root / name, table)
    if (found.table_id, found.chain) != (at.table_id, at.chain):
        raise IntegrityError(
            f"the table {name} in {root} is not the one the snapshot was taken of (version {at.version})",
            remedy="restore the folder from a backup, or publish and read a new snapshot",
        )
    return spec_of(name, table), at, data_files(root / name, table)
