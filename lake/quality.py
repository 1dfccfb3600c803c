"""Declared rules that a row must meet before it is stored; a row that breaks one is kept aside with the rule and the reason.

1. `rules_for` lists a table's rules: what every table demands (`_general`), then its own (`RULES`), then the calendar's.
2. `split` lets DuckDB find the first rule each row breaks, then (`_repeats`) rows that share a key with another.
3. `quarantine` (lake.quarantine) stores the refused rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from config.calendar import sessions
from config.tables import TableSpec
from lake.batch import shape
from lake.query import connect, names, quoted

__all__ = ["RULES", "Rule", "Split", "rules_for", "split"]

# Vendors that adjust prices round them: a high may be below a close in the last digits only.
_ROUNDING = "1e-9"
_AT_KNOWN_TIME = frozenset({"equity_bars", "option_quotes", "macro_observations", "cot_positions"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One demand on a row.

    Parameters
    ----------
    name : str
        Stable, as stored in quarantine.
    refuses : str
        SQL over the row's columns: true where the row is refused. NULL counts as false.
    reason : str
        SQL for the sentence that says why, with the values.
    """

    name: str
    refuses: str
    reason: str


@dataclass(frozen=True, slots=True)
class Split:
    """A batch in two parts.

    Parameters
    ----------
    accepted : pyarrow.Table
        Rows that break no rule, in the batch's order, in the shape that `Lake.write` takes.
    refused : pyarrow.Table
        The others, with two columns more: `rule` and `reason`.
    """

    accepted: pa.Table
    refused: pa.Table


def _not_positive(column: str) -> Rule:
    return Rule("price_not_positive", f"{column} <= 0", f"'{column} is ' || {column}")


def _negative(column: str) -> Rule:
    return Rule("negative_value", f"{column} < 0", f"'{column} is ' || {column}")


RULES: dict[str, tuple[Rule, ...]] = {
    "equity_bars": (
        Rule("close_missing", "close IS NULL", "'the bar has no close'"),
        *(_not_positive(column) for column in ("open", "high", "low", "close")),
        Rule("high_below_low", f"high * (1 + {_ROUNDING}) < low", "'high ' || high || ' is below low ' || low"),
        Rule(
            "high_below_price",
            f"high * (1 + {_ROUNDING}) < greatest(open, close)",
            "'high ' || high || ' is below ' || greatest(open, close) || ', the higher of open and close'",
        ),
        Rule(
            "low_above_price",
            f"low * (1 - {_ROUNDING}) > least(open, close)",
            "'low ' || low || ' is above ' || least(open, close) || ', the lower of open and close'",
        ),
        _negative("volume"),
    ),
    "corporate_actions": (
        Rule(
            "ratio_not_positive",
            "kind = 'split' AND (value IS NULL OR value <= 0)",
            "'a split of ' || coalesce(value::VARCHAR, 'no ratio')",
        ),
        Rule(
            "dividend_negative",
            "kind = 'dividend' AND (value IS NULL OR value < 0)",
            "'a dividend of ' || coalesce(value::VARCHAR, 'no amount')",
        ),
    ),
    "option_quotes": (
        _not_positive("strike"),
        Rule("price_not_positive", "multiplier <= 0", "'multiplier is ' || multiplier"),
        *(_negative(column) for column in ("bid", "ask", "last", "bid_size", "ask_size", "volume", "open_interest")),
        Rule("bid_above_ask", "bid > ask", "'bid ' || bid || ' is above ask ' || ask"),
        Rule("quoted_after_expiry", "session > expiry", "'quoted on ' || session || ', expired on ' || expiry"),
        Rule("unknown_right", "\"right\" NOT IN ('C', 'P', 'call', 'put')", "'right is ' || \"right\""),
    ),
}


def rules_for(spec: TableSpec, *, calendar: str | None = None) -> tuple[Rule, ...]:
    """The rules of a table, in the order in which they are tried."""
    own = (*_general(spec), *RULES.get(spec.name, ()))
    if calendar is None or "session" not in spec.schema.names:
        return own
    closed = Rule(
        "not_a_session",
        "session NOT IN (SELECT session FROM open_sessions)",
        f"session || ' is no session of the calendar {calendar}'",
    )
    return (*own, closed)


def _general(spec: TableSpec) -> tuple[Rule, ...]:
    """What every table demands: nothing missing that must be there, finite numbers, no event later than its publication."""
    rules: list[Rule] = []
    for field in spec.schema:
        column = quoted(field.name)
        if field.name != "recorded_at" and (not field.nullable or field.name in spec.key):
            rules.append(Rule("value_missing", f"{column} IS NULL", f"'{field.name} is missing'"))
    # A feature that is still warming up is NaN; elsewhere a missing number is NULL.
    warms_up = spec.name.startswith("features/")
    for field in spec.columns:
        if pa.types.is_floating(field.type):
            column = quoted(field.name)
            rules.append(
                Rule(
                    "not_finite",
                    f"isinf({column})" if warms_up else f"isinf({column}) OR isnan({column})",
                    f"'{field.name} is ' || {column}",
                )
            )
    if spec.name in _AT_KNOWN_TIME:  # dividends and memberships are announced ahead of their day
        event = quoted(spec.event_time)
        rules.append(
            Rule(
                "known_before_it_happened",
                f"{event}::TIMESTAMPTZ > available_at",
                f"'{spec.event_time} ' || {event} || ' is after available_at ' || available_at",
            )
        )
    return tuple(rules)


def split(rows: pa.Table, spec: TableSpec, *, calendar: str | None = None) -> Split:
    """Part the rows that may be stored from those that may not.

    Parameters
    ----------
    rows : pyarrow.Table
        As for `Lake.write`; here NULLs and repeated keys are refused row by row, not with the whole batch.
    spec : TableSpec
    calendar : str, optional
        Exchange calendar (``XNYS``) that the rows' sessions must be on.

    Raises
    ------
    SchemaError
        A column is missing, unknown or of another type.
    """
    batch = shape(rows, spec)
    rules = rules_for(spec, calendar=calendar)
    with connect() as con:
        con.register("batch", batch.append_column("ordinal", pa.array(np.arange(batch.num_rows))))
        if calendar is not None and "session" in batch.column_names:
            con.register("open_sessions", _open_sessions(batch["session"], calendar))
        broken = _first_broken(con, rules, batch.num_rows)
        fine = batch.filter(pc.is_null(broken["rule"]))
        repeats = _repeats(con, fine, spec)
    accepted = fine.filter(pc.is_null(repeats["rule"]))
    refused = [_marked(batch, broken), _marked(fine, repeats)]
    return Split(accepted, pa.concat_tables(refused))


def _open_sessions(days: pa.ChunkedArray, calendar: str) -> pa.Table:
    span = pc.min_max(days).as_py()
    found = sessions(span["min"], span["max"], calendar) if span["min"] is not None else pd.DatetimeIndex([])
    return pa.table({"session": pa.array(found.date, pa.date32())})


def _first_broken(con: duckdb.DuckDBPyConnection, rules: tuple[Rule, ...], rows: int) -> pa.Table:
    """For each row the first rule it breaks, and why; NULL for none."""
    if not rules or rows == 0:
        return _none(rows)
    number = " ".join(f"WHEN {rule.refuses} THEN {n}" for n, rule in enumerate(rules))
    reason = " ".join(f"WHEN {n} THEN {rule.reason}" for n, rule in enumerate(rules))
    named = " ".join(f"WHEN {n} THEN '{rule.name}'" for n, rule in enumerate(rules))
    return con.sql(
        f"WITH judged AS (SELECT *, CASE {number} END AS broken FROM batch) "
        f"SELECT CASE broken {named} END AS rule, CASE broken {reason} END AS reason FROM judged ORDER BY ordinal"
    ).to_arrow_table()


def _repeats(con: duckdb.DuckDBPyConnection, rows: pa.Table, spec: TableSpec) -> pa.Table:
    """Rows that share a key: of equal ones the first stays; of different ones none, since nobody can say which is right."""
    keys = rows.select(spec.key).group_by(list(spec.key)).aggregate([])
    if keys.num_rows == rows.num_rows:
        return _none(rows.num_rows)
    con.register("fine", rows.append_column("ordinal", pa.array(np.arange(rows.num_rows))))
    key, whole = names(spec.key), names([*spec.key, *spec.values])
    return con.sql(
        f"WITH counted AS (SELECT ordinal, count(*) OVER (PARTITION BY {key}) AS alike, "
        f"count(*) OVER (PARTITION BY {whole}) AS equal, row_number() OVER (PARTITION BY {key} ORDER BY ordinal) AS nth FROM fine) "
        "SELECT CASE WHEN alike > equal THEN 'key_in_conflict' WHEN nth > 1 THEN 'row_repeated' END AS rule, "
        "CASE WHEN alike > equal THEN alike || ' rows of the batch share this key with different values' "
        "WHEN nth > 1 THEN 'an equal row came before it in the batch' END AS reason FROM counted ORDER BY ordinal"
    ).to_arrow_table()


def _marked(rows: pa.Table, verdict: pa.Table) -> pa.Table:
    refused = pc.is_valid(verdict["rule"])
    marked = rows.append_column("rule", verdict["rule"].cast(pa.string()))
    return marked.append_column("reason", verdict["reason"].cast(pa.string())).filter(refused)


def _none(rows: int) -> pa.Table:
    return pa.table({"rule": pa.nulls(rows, pa.string()), "reason": pa.nulls(rows, pa.string())})
