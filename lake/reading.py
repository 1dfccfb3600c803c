"""Reading tables at given versions: rows as Arrow, whole or streamed, SQL over all of them, and the check of their content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from itertools import groupby, pairwise
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from config.errors import InputError, IntegrityError, StorageError, UnknownNameError, did_you_mean
from config.tables import TABLES
from lake.broad import is_broad, key_filter, read_broad
from lake.bucket import on_disk
from lake.chain import EMPTY, add, rows_digest
from lake.delta import PHYSICAL, TableVersion
from lake.failures import first_line, storage_errors
from lake.held import Held, held_at, held_newest, nothing, widened
from lake.parts import check_bytes
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
        held, schema = self._asked(table, columns)
        condition = filters(held.spec, where, start, end)
        if not held.parts:
            return schema.empty_table()
        with self._reading(held.spec.name):
            if not condition:
                return held.whole(schema, as_of=as_of)
            asked = key_filter(held.spec, where, start, end)
            if asked is not None and (parts := held.parts_of(start, end)) and is_broad(held, asked, parts):
                return read_broad(held, asked, parts, schema, as_of=as_of)
            with connect() as con:
                return con.sql(_query(held, schema, condition, start, end, as_of)).to_arrow_table().cast(schema)

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
        held, schema = self._asked(table, columns)
        condition = filters(held.spec, where, start, end)

        def batches() -> Iterator[pa.RecordBatch]:
            if not held.parts:
                return
            with self._reading(held.spec.name), connect() as con:
                for batch in con.sql(_query(held, schema, condition, start, end, as_of)).to_arrow_reader(_STREAMED_ROWS):
                    yield batch.cast(schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def versions(self, table: str, *, where: Mapping[str, Any] | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return every version of each key that was ever written: sorted by key, of one key the oldest first.

        As of a moment the last of those with `available_at` up to it counts. `where` is asked of each version by itself; errors
        are those of `read`.
        """
        held, schema = self._asked(table, columns)
        condition = filters(held.spec, where)
        if not held.parts:
            return schema.empty_table()
        with self._reading(held.spec.name), connect() as con:
            order = f"ORDER BY {names(held.spec.key)}, revision"
            return con.sql(f"SELECT {names(schema.names)} FROM {held.source()}{condition} {order}").to_arrow_table().cast(schema)

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
        held = self._held(table, again=True)
        if held.at is None or not held.parts:
            return
        files = on_disk(held.files(), again=True)
        with self._reading(held.spec.name), connect() as con:
            for file in files:
                check_bytes(file)
            chain = _content(con, held, files)
        if chain != held.at.chain:
            raise IntegrityError(
                f"table {table} in {self.root} (version {held.at.version}) does not hold the rows that were written to it",
                remedy="restore the folder from a backup, or ingest into a new home",
            )

    def _asked(self, table: str, columns: Sequence[str] | None) -> tuple[Held, pa.Schema]:
        """What the table holds, and the schema of the answer."""
        held = self._held(table)
        wanted = tuple(held.spec.schema.names) if columns is None else tuple(columns)
        check_columns(held.spec, wanted)
        return held, pa.schema([held.spec.schema.field(name) for name in wanted])

    def _held(self, table: str, *, again: bool = False) -> Held:
        """What a table holds at the version to read; pinned versions are looked up once, unless `again`."""
        if table in self.cache and not again:
            found: Held = self.cache[table]
            return found
        at = self.pinned(table)
        if at is None and table not in TABLES:
            raise UnknownNameError(
                f"no table is called {table!r} here", remedy=did_you_mean(table, tuple(sorted({*TABLES, *self.tables})))
            )
        if table in BOOKKEEPING:
            return held_newest(self.root, table)
        if at is None:
            return nothing(TABLES[table], self.root / table)
        self.cache[table] = answer = held_at(self.root, table, at, again=again)
        return answer

    def _make_view(self, con: duckdb.DuckDBPyConnection, name: str, as_of: datetime | None) -> None:
        held = self._held(name)
        if not held.parts:
            con.register(name, held.spec.schema.empty_table())
            return
        rows = newest(held.spec, held.source(), as_of=as_of, revised=held.revised)
        con.execute(f"CREATE TEMP VIEW {quoted(name)} AS SELECT {names(held.spec.schema.names)} FROM ({rows})")

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


def _query(held: Held, schema: pa.Schema, condition: str, start: Moment | None, end: Moment | None, as_of: datetime | None) -> str:
    near = held.parts_of(start, end) or held.parts[:1]  # a window beyond every file: one of them says so
    rows = newest(held.spec, held.source(near), as_of=as_of, revised=held.revised)
    return f"SELECT {names(schema.names)} FROM ({rows}){condition} ORDER BY {names(held.spec.key)}"


def _content(con: duckdb.DuckDBPyConnection, held: Held, files: Sequence[str]) -> str:
    """The content number of all rows: each version's in key order, with the columns that the table had then."""
    source = widened(held.spec, scan(files, differ=bool(held.since)), bool(held.since))
    every = pa.schema([*held.spec.schema, *PHYSICAL])
    rows = con.sql(f"SELECT {names(every.names)} FROM {source} ORDER BY written_in, {names(held.spec.key)}")
    chain = EMPTY
    for version, batches in _by_version(rows.to_arrow_reader(_STREAMED_ROWS)):
        then = pa.schema([*(f for f in held.spec.schema if held.since.get(f.name, 0) <= version), PHYSICAL[0]])
        chain = add(chain, rows_digest(batches, then, without=("recorded_at",)))
    return chain


def _by_version(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Iterator[pa.RecordBatch]]]:
    """Rows ordered by `written_in`, parted where it changes."""

    def pieces() -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in batches:
            versions = batch.column("written_in").to_numpy()
            cuts = [0, *(np.flatnonzero(versions[1:] != versions[:-1]) + 1).tolist(), len(versions)]
            for first, last in pairwise(cuts):
                if last > first:
                    yield int(versions[first]), batch.slice(first, last - first)

    for version, group in groupby(pieces(), key=lambda piece: piece[0]):
        yield version, (piece for _, piece in group)
