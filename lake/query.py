"""The SQL by which DuckDB reads a table's files: the newest version of each key as of a moment, filtered and in key order."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

from config.clock import require_utc
from config.errors import InputError, UnknownNameError, did_you_mean
from config.tables import TableSpec
from lake.bucket import on_disk

__all__ = ["aware", "connect", "filters", "literal", "names", "newest", "quoted", "scan"]


_ENGINES: dict[int, duckdb.DuckDBPyConnection] = {}
_STARTING = threading.Lock()


def connect() -> duckdb.DuckDBPyConnection:
    """A DuckDB connection of one's own, in memory: one for each call, so threads never share one, nor what they register.

    The engine behind it is started once a process, which costs 15 ms of CPU; a forked child starts its own. Times are UTC,
    nothing is downloaded, and no file's bytes are kept from one query to the next.
    """
    with _STARTING:
        engine = _ENGINES.get(os.getpid())
        if engine is None:
            settings = {
                "TimeZone": "UTC",
                "autoinstall_known_extensions": "false",
                "enable_external_file_cache": "false",
                "temp_directory": str(Path(tempfile.gettempdir()) / f"quantrail-duckdb-{os.getpid()}"),
            }
            engine = _ENGINES[os.getpid()] = duckdb.connect(":memory:", config=settings)
        return engine.cursor()


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def names(columns: Sequence[str], prefix: str = "") -> str:
    """Identifiers, comma-separated, each with a table's alias before it when one is given."""
    return ", ".join(f"{prefix}{quoted(column)}" for column in columns)


def literal(value: Any) -> str:
    """A plain Python value as an SQL literal.

    Raises
    ------
    InputError
        A type that no column has, or a naive time.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime):  # before date: a datetime is one
        return f"TIMESTAMPTZ '{aware(value).isoformat(sep=' ', timespec='microseconds')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, int | float):
        return f"'{value!r}'::DOUBLE" if isinstance(value, float) else repr(value)
    if hasattr(value, "item"):  # a NumPy scalar
        return literal(value.item())
    raise InputError(f"cannot look for {value!r}: a {type(value).__name__} is no value of a column")


def aware(moment: datetime) -> datetime:
    """The moment in UTC; a naive one is refused."""
    try:
        return require_utc(moment, "lake")
    except ValueError as problem:
        raise InputError(str(problem)) from None


def scan(files: Sequence[str], *, differ: bool = False) -> str:
    """A FROM item over exactly these files; those of a bucket are fetched, and kept on this machine.

    With `differ` files may lack columns that others have; those are NULL.
    """
    listed = ", ".join(literal(_no_glob(file)) for file in on_disk(files))
    return f"read_parquet([{listed}], hive_partitioning=false{', union_by_name=true' if differ else ''})"


def _no_glob(file: str) -> str:
    """DuckDB takes *, ? and [ in a path for patterns; in brackets they stand for themselves."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in file)


def newest(spec: TableSpec, source: str, *, as_of: datetime | None = None, revised: bool = True) -> str:
    """A query for the newest version of each key among the rows available at `as_of` (both ends known: `available_at <= as_of`).

    Only keys that have a revision are looked at twice, so a table without revisions costs nothing more than its scan.
    """
    known = "" if as_of is None else f" WHERE available_at <= {literal(as_of)}"
    if not revised:
        return f"SELECT * FROM {source}{known}"
    both = f"{known} AND" if known else " WHERE"
    same = " AND ".join(f"r.{quoted(column)} = l.{quoted(column)}" for column in spec.key)
    return (
        f"SELECT r.* FROM (SELECT * FROM {source}{known}) r ANTI JOIN "
        f"(SELECT {names(spec.key)}, max(revision) AS revision FROM {source}{both} revision > 0 GROUP BY ALL) l "
        f"ON {same} AND r.revision < l.revision"
    )


def filters(
    spec: TableSpec,
    where: Mapping[str, Any] | None = None,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
) -> str:
    """A WHERE clause (empty when there is nothing to filter).

    Parameters
    ----------
    where : mapping, optional
        Column to value, or to a list of values; None stands for NULL.
    start, end : date or datetime, optional
        Both included. A date is compared with the table's session where it has one; a datetime with its event time.

    Raises
    ------
    UnknownNameError
        The table has no such column.
    """
    terms: list[str] = []
    for column, value in (where or {}).items():
        check_columns(spec, (column,))
        terms.append(_is_one_of(quoted(column), value))
    terms += [_bound(spec, sign, moment) for sign, moment in ((">=", start), ("<=", end)) if moment is not None]
    return f" WHERE {' AND '.join(terms)}" if terms else ""


def check_columns(spec: TableSpec, columns: Sequence[str]) -> None:
    """Refuse a column that the table does not have."""
    known = tuple(spec.schema.names)
    for column in columns:
        if column not in known:
            raise UnknownNameError(f"table {spec.name} has no column {column!r}", remedy=did_you_mean(column, known))


def _is_one_of(column: str, value: Any) -> str:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        value = [value]
    found = [literal(one) for one in value if one is not None]
    terms = [f"{column} IN ({', '.join(found)})"] if found else []
    if any(one is None for one in value):
        terms.append(f"{column} IS NULL")
    return f"({' OR '.join(terms)})" if terms else "false"


def _bound(spec: TableSpec, sign: str, moment: date | datetime) -> str:
    column = spec.event_time
    if isinstance(moment, datetime):
        return f"{quoted(column)}::TIMESTAMPTZ {sign} {literal(moment)}"
    if "session" in spec.schema.names:
        column = "session"
    return f"{quoted(column)}::DATE {sign} {literal(moment)}"
