"""Hold what is stored to the rules again, over whole tables: how many rows of each symbol break which, with an example.

1. `_breaking` finds the rows that break a rule by themselves, in one scan.
2. `_among_neighbours` finds those that break one about their series, whole histories at once.
3. `stored_breaks` counts both by subject and rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from config.tables import TableSpec
from lake.flags import SUBJECT
from lake.quality import closed_days
from lake.query import connect, literal, quoted
from lake.reading import Tables
from lake.rules import SERIES, Rule, rules_for

__all__ = ["stored_breaks"]

_SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("severity", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("first_event", pa.string()),
        pa.field("last_event", pa.string()),
        pa.field("example", pa.string()),
    ]
)


def stored_breaks(state: Tables, spec: TableSpec, *, symbols: Sequence[str] | None = None) -> pa.Table:
    """Count the current rows of a table that break a rule, whatever its severity.

    Parameters
    ----------
    state : Snapshot
    spec : TableSpec
    symbols : sequence of str, optional
        Only these symbols, series, underlyings or markets.

    Returns
    -------
    pyarrow.Table
        `symbol`, `rule`, `severity`, `rows`, `first_event`, `last_event`, `example` (the reason of the newest such row), sorted.
    """
    subject = quoted(SUBJECT.get(spec.name, spec.key[0]))
    chosen = f" WHERE {subject} IN ({', '.join(map(literal, symbols))})" if symbols else ""
    rows = f"(SELECT * FROM {quoted(spec.name)}{chosen})"
    # The writer itself refuses NULL in a key or a clock, and order within an answer is gone once stored.
    rules = [rule for rule in rules_for(spec) if rule.scope != "answer" and rule.name not in ("value_missing", "not_a_session")]
    found = [
        _breaking(state, spec, subject, rows, [rule for rule in rules if rule.scope == "row"]),
        _among_neighbours(state, spec, subject, rows, [rule for rule in rules if rule.scope == "series"]),
        _on_closed_days(state, spec, subject, rows),
    ]
    with connect() as con:
        con.register("found", pa.concat_tables(found))
        return con.sql("SELECT * FROM found ORDER BY symbol, rule, severity").to_arrow_table().cast(_SCHEMA)


def _counted(spec: TableSpec, subject: str, rules: Sequence[Rule], source: str) -> str:
    """One SELECT a rule over `source`, together counted by subject, rule and severity."""
    event = quoted(spec.event_time)
    has_source = "source" in spec.schema.names
    each = [
        f"SELECT {subject} AS symbol, {literal(rule.name)} AS rule, "
        f"{rule.severity_sql() if has_source else literal(rule.severity)} AS severity, {event} AS event, {rule.reason} AS reason "
        f"FROM {source} WHERE {rule.breaks}"
        for rule in rules
    ]
    return (
        "SELECT symbol, rule, severity, count(*) AS rows, min(event)::VARCHAR AS first_event, max(event)::VARCHAR AS last_event, "
        f"arg_max(reason, event) AS example FROM ({' UNION ALL '.join(each)}) GROUP BY symbol, rule, severity"
    )


def _breaking(state: Tables, spec: TableSpec, subject: str, rows: str, rules: Sequence[Rule]) -> pa.Table:
    if not rules:
        return _SCHEMA.empty_table()
    any_of = " OR ".join(f"({rule.breaks})" for rule in rules)
    query = f"WITH suspects AS MATERIALIZED (SELECT * FROM {rows} WHERE {any_of}) {_counted(spec, subject, rules, 'suspects')}"
    return state.sql(query).cast(_SCHEMA)


def _among_neighbours(state: Tables, spec: TableSpec, subject: str, rows: str, rules: Sequence[Rule]) -> pa.Table:
    series = SERIES.get(spec.name)
    if series is None or not rules:
        return _SCHEMA.empty_table()
    seen = series.sql.format(rows=rows, actions="corporate_actions")
    return state.sql(f"WITH seen AS MATERIALIZED ({seen}) {_counted(spec, subject, rules, 'seen')}").cast(_SCHEMA)


def _on_closed_days(state: Tables, spec: TableSpec, subject: str, rows: str) -> pa.Table:
    rule = next((rule for rule in rules_for(spec) if rule.name == "not_a_session"), None)
    if rule is None:
        return _SCHEMA.empty_table()
    days = state.sql(f"SELECT DISTINCT calendar, session FROM {rows} WHERE calendar IS NOT NULL")
    closed = closed_days(days, None)
    if closed is None or not closed.num_rows:
        return _SCHEMA.empty_table()
    listed = ", ".join(f"({literal(row['calendar'])}, {literal(row['session'])})" for row in closed.to_pylist())
    named = f"WITH closed_days AS (SELECT * FROM (VALUES {listed}) v(calendar, session)) "
    return state.sql(named + _counted(spec, subject, [rule], rows)).cast(_SCHEMA)
