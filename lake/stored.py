"""Which names the lake holds, from which source, and how far: what an incremental ingest must know before it asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from config.tables import table_spec
from lake.query import literal, quoted
from lake.store import Lake

__all__ = ["StoredSpan", "stored_names", "stored_spans"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSpan:
    """What is stored of one name from one source.

    Parameters
    ----------
    first, last : date
        Oldest and newest session.
    calendar : str or None
        Of the newest row, where the table says it.
    """

    name: str
    source: str
    first: date
    last: date
    calendar: str | None


def stored_spans(
    lake: Lake, table: str, column: str, names: Sequence[str], *, interval: str | None = None
) -> dict[tuple[str, str], StoredSpan]:
    """First and last session of each (name, source), published or not.

    Parameters
    ----------
    table : str
        One with a column `source`; its event's date stands for the session where it has none.
    column : str
        The one that holds the names.
    interval : str, optional
        Of bars.
    """
    if not names:
        return {}
    spec = table_spec(table)
    day = "session" if "session" in spec.schema.names else spec.event_time
    calendar = "arg_max(calendar, session)" if table == "equity_bars" else "NULL"
    found = lake.sql_latest(
        f"SELECT {quoted(column)} AS name, source, min({day}) AS first, max({day}) AS last, {calendar} AS calendar "
        f"FROM {table} WHERE {_chosen(column, names, interval)} GROUP BY ALL",
        table,
    ).to_pylist()
    return {(row["name"], row["source"]): StoredSpan(**row) for row in found}


def stored_names(lake: Lake, table: str, column: str, source: str, *, interval: str | None = None) -> tuple[str, ...]:
    """The names that are stored from one source, sorted."""
    of = f"source = {literal(source)}" + ("" if interval is None else f" AND interval = {literal(interval)}")
    found = lake.sql_latest(f"SELECT DISTINCT {quoted(column)} AS name FROM {table} WHERE {of} ORDER BY 1", table)
    return tuple(found["name"].to_pylist())


def _chosen(column: str, names: Sequence[str], interval: str | None) -> str:
    listed = f"{quoted(column)} IN ({', '.join(map(literal, names))})"
    return listed if interval is None else f"{listed} AND interval = {literal(interval)}"
