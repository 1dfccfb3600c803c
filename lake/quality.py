"""Part the rows that may be stored from those that may not, and name the stored ones that break a lesser rule.

1. `split` lets DuckDB find the first refusing rule each row breaks (`_judged`), then rows that share a key with another
   (`_repeats`), then the rules of lesser severity that the accepted rows break (`_marked`, `_out_of_order`).
2. `series_flags` looks at rows with their neighbours in time: jumps, repeats, changes of unit.
3. `lake.quarantine.quarantine` stores the refused rows, `lake.flags.flag` names the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from config.calendar import sessions
from config.errors import InputError
from config.tables import TABLES, TableSpec
from lake.batch import shape
from lake.query import connect, names, quoted
from lake.rules import RULES, SERIES, Rule, rules_for

__all__ = ["RULES", "Rule", "Split", "closed_days", "rules_for", "series_flags", "split"]


@dataclass(frozen=True, slots=True)
class Split:
    """A batch in two parts, and what is to be said of the first.

    Parameters
    ----------
    accepted : pyarrow.Table
        Rows that break no refusing rule, in the batch's order, in the shape that `Lake.write` takes.
    refused : pyarrow.Table
        The others, with two columns more: `rule` and `reason`.
    flagged : pyarrow.Table
        Accepted rows that break a rule of severity `flag`, once for each such rule, with `rule` and `reason`.
    """

    accepted: pa.Table
    refused: pa.Table
    flagged: pa.Table


def split(rows: pa.Table, spec: TableSpec, *, calendar: str | None = None) -> Split:
    """Part the rows that may be stored from those that may not.

    Parameters
    ----------
    rows : pyarrow.Table
        As for `Lake.write`; here NULLs and repeated keys are refused row by row, not with the whole batch.
    spec : TableSpec
    calendar : str, optional
        Exchange calendar (``XNYS``) that the rows' sessions must be on; without it rows with a `calendar` of their own are held
        to that.

    Raises
    ------
    SchemaError
        A column is missing, unknown or of another type.
    """
    batch = shape(rows, spec)
    rules = tuple(rule for rule in rules_for(spec, calendar=calendar) if not _cannot_break(rule, batch))
    with connect() as con:
        closed = closed_days(batch, calendar)
        if closed is not None:
            con.register("closed_days", closed)
        if closed is None or not closed.num_rows:
            rules = tuple(rule for rule in rules if rule.name != "not_a_session")
        broken, suspect = _judged(con, batch, rules)
        refused = _marked(con, batch, broken, rules, "refuse")
        fine = batch if not broken.size else batch.filter(pa.array(_without(batch.num_rows, broken)))
        accepted, repeated = _repeats(con, fine, spec)
        lesser = _marked(con, batch, suspect, rules, "flag")
        if repeated.num_rows and lesser.num_rows:  # of equal rows one is stored, so its flag stays; of conflicting ones none is
            lesser = lesser.join(accepted.select(spec.key), list(spec.key), join_type="left semi").select(lesser.column_names)
        flagged = [lesser, _out_of_order(con, accepted, spec)]
    return Split(accepted, pa.concat_tables([refused, repeated]), pa.concat_tables(flagged))


def _cannot_break(rule: Rule, batch: pa.Table) -> bool:
    """Arrow knows how many NULLs a column has, so that demand costs nothing where there are none."""
    if rule.name != "value_missing":
        return False
    column = rule.breaks.removesuffix(" IS NULL").strip('"')
    return bool(batch.column(column).null_count == 0)


def closed_days(batch: pa.Table, calendar: str | None) -> pa.Table | None:
    """The pairs of calendar and session in the batch that are no sessions; None where the table has none to check."""
    if "session" not in batch.column_names or (calendar is None and "calendar" not in batch.column_names):
        return None
    columns = ["session"] if calendar is not None else ["calendar", "session"]
    found = batch.select(columns).group_by(columns, use_threads=False).aggregate([]).drop_null()
    named = [calendar] if calendar is not None else found["calendar"].unique().to_pylist()
    parts = []
    for name in named:
        days = found if calendar is not None else found.filter(pc.equal(found["calendar"], name))
        days = days.append_column("named", pa.array([name] * days.num_rows, pa.string()))
        parts.append(days.filter(pc.invert(pc.is_in(days["session"], value_set=_open_sessions(days["session"], name)))))
    if not parts:
        return pa.table({"calendar": pa.array([], pa.string()), "session": pa.array([], pa.date32())})
    closed = pa.concat_tables(parts)
    return pa.table({"calendar": closed["named"], "session": closed["session"]})


def _open_sessions(days: pa.ChunkedArray, calendar: str) -> pa.Array:
    """Sessions of the calendar over the span of `days`, and every day that lies outside of what the calendar knows.

    A calendar that does not exist has none.
    """
    span = pc.min_max(days).as_py()
    if span["min"] is None:
        return pa.array([], pa.date32())
    try:
        known = sessions(date.min, date.max, calendar)
    except InputError:
        return pa.array([], pa.date32())
    found = known[(known >= pd.Timestamp(span["min"])) & (known <= pd.Timestamp(span["max"]))]
    outside = days.filter(pc.or_(pc.less(days, known[0].date()), pc.greater(days, known[-1].date())))
    return pa.concat_arrays([pa.array(found.date, pa.date32()), outside.combine_chunks()])


def _judged(con: duckdb.DuckDBPyConnection, batch: pa.Table, rules: Sequence[Rule]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows that break a refusing rule, and of the others that break a lesser one: one scan for both."""
    refusing = [c for rule in rules if rule.scope == "row" and (c := rule.condition("refuse"))]
    lesser = [c for rule in rules if rule.scope == "row" and (c := rule.condition("flag"))]
    if batch.num_rows == 0 or not (refusing or lesser):
        return np.array([], np.int64), np.array([], np.int64)
    con.register("batch", batch.append_column("ordinal", pa.array(np.arange(batch.num_rows))))
    refused, flagged = " OR ".join(refusing) or "false", " OR ".join(lesser) or "false"
    found = con.sql(
        f"SELECT ordinal, coalesce({refused}, false) AS refused FROM batch WHERE ({refused}) OR ({flagged}) ORDER BY ordinal"
    ).to_arrow_table()
    ordinals, broken = found["ordinal"].to_numpy(), found["refused"].to_numpy().astype(bool)
    return ordinals[broken], ordinals[~broken]


def _marked(
    con: duckdb.DuckDBPyConnection, batch: pa.Table, ordinals: np.ndarray, rules: Sequence[Rule], severity: str
) -> pa.Table:
    """The rows at these positions with rule and reason: the first refusing rule, or every flagging one."""
    assert severity in ("refuse", "flag")
    schema = pa.schema([*batch.schema, pa.field("rule", pa.string()), pa.field("reason", pa.string())])
    if not ordinals.size:
        return schema.empty_table()
    suspects = batch.take(pa.array(ordinals))
    con.register("suspects", suspects.append_column("ordinal", pa.array(ordinals)))
    tried = []
    for number, rule in enumerate(rules):
        condition = rule.condition("refuse" if severity == "refuse" else "flag") if rule.scope == "row" else None
        if condition is not None:
            tried.append(
                f"SELECT ordinal, {number} AS nth, '{rule.name}' AS rule, {rule.reason} AS reason FROM suspects WHERE {condition}"
            )
    first = "QUALIFY row_number() OVER (PARTITION BY ordinal ORDER BY nth) = 1" if severity == "refuse" else ""
    found = con.sql(
        f"SELECT ordinal, rule, reason FROM ({' UNION ALL '.join(tried)}) {first} ORDER BY ordinal, nth"
    ).to_arrow_table()
    rows = batch.take(found["ordinal"])
    return pa.table([*rows.columns, found["rule"].cast(pa.string()), found["reason"].cast(pa.string())], schema=schema)


def _without(length: int, ordinals: np.ndarray) -> np.ndarray:
    kept = np.ones(length, dtype=bool)
    kept[ordinals] = False
    return kept


def _repeats(con: duckdb.DuckDBPyConnection, rows: pa.Table, spec: TableSpec) -> tuple[pa.Table, pa.Table]:
    """Rows that share a key: of equal ones the first stays; of different ones none, since nobody can say which is right."""
    schema = pa.schema([*rows.schema, pa.field("rule", pa.string()), pa.field("reason", pa.string())])
    key, whole = names(spec.key), names([*spec.key, *spec.values])
    if rows.num_rows < 2 or not _keys_may_repeat(con, rows, spec):
        return rows, schema.empty_table()
    con.register("fine", rows.append_column("ordinal", pa.array(np.arange(rows.num_rows))))
    found = con.sql(
        f"WITH alike AS (SELECT * FROM fine SEMI JOIN (SELECT {key} FROM fine GROUP BY ALL HAVING count(*) > 1) USING ({key})), "
        f"counted AS (SELECT ordinal, count(*) OVER (PARTITION BY {key}) AS alike, "
        f"count(*) OVER (PARTITION BY {whole}) AS equal, row_number() OVER (PARTITION BY {key} ORDER BY ordinal) AS nth "
        "FROM alike) "
        "SELECT ordinal, CASE WHEN alike > equal THEN 'key_in_conflict' ELSE 'row_repeated' END AS rule, "
        "CASE WHEN alike > equal THEN alike || ' rows of the batch share this key with different values' "
        "ELSE 'an equal row came before it in the batch' END AS reason FROM counted WHERE alike > equal OR nth > 1 ORDER BY ordinal"
    ).to_arrow_table()
    if not found.num_rows:
        return rows, schema.empty_table()
    repeated = rows.take(found["ordinal"])
    refused = pa.table([*repeated.columns, found["rule"].cast(pa.string()), found["reason"].cast(pa.string())], schema=schema)
    return rows.filter(pa.array(_without(rows.num_rows, found["ordinal"].to_numpy()))), refused


def _keys_may_repeat(con: duckdb.DuckDBPyConnection, rows: pa.Table, spec: TableSpec) -> bool:
    """Whether two rows have the same hash of their keys; rows in the order of their keys are seen to differ without one."""
    if _in_strict_order(rows, [column for column in spec.key if column != "source"]):
        return False
    con.register("keyed", rows.select(spec.key))
    hashes = np.sort(con.sql(f"SELECT hash({names(spec.key)}) AS h FROM keyed").fetchnumpy()["h"])
    return bool((hashes[1:] == hashes[:-1]).any())


def _in_strict_order(rows: pa.Table, key: Sequence[str]) -> bool:
    """Whether each row's key comes after the one before it."""
    above = np.zeros(rows.num_rows - 1, dtype=bool)
    equal = ~above
    for column in key:
        values = rows.column(column).combine_chunks()
        if values.null_count:
            return False
        low, high = values.slice(0, len(values) - 1), values.slice(1)
        same = pc.equal(low, high).to_numpy(zero_copy_only=False)
        if not same.all():
            above |= equal & pc.less(low, high).to_numpy(zero_copy_only=False)
            equal &= same
            if not (above | equal).all():
                return False
    return bool(above.all())


def _out_of_order(con: duckdb.DuckDBPyConnection, rows: pa.Table, spec: TableSpec) -> pa.Table:
    """Rows that break a rule about the order in which the answer gave them."""
    schema = pa.schema([*rows.schema, pa.field("rule", pa.string()), pa.field("reason", pa.string())])
    rules = [rule for rule in RULES.get(spec.name, ()) if rule.scope == "answer"]
    if not rules or rows.num_rows < 2:
        return schema.empty_table()
    series = [column for column in spec.key if column != spec.event_time]
    moments = rows.column(spec.event_time).combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
    if not _series_in_several_runs(rows.select(series), np.diff(moments) < 0):
        return schema.empty_table()
    con.register("answered", rows.append_column("ordinal", pa.array(np.arange(rows.num_rows))))
    within = names(series)
    seen = (
        f"WITH stepped AS (SELECT *, lag({quoted(spec.event_time)}) OVER (PARTITION BY {within} ORDER BY ordinal) "
        f"AS previous_ordinal_time FROM answered), seen AS (SELECT *, coalesce(bool_and({quoted(spec.event_time)} < "
        f"previous_ordinal_time) OVER (PARTITION BY {within}), false) AS newest_first FROM stepped) "
    )
    tried = " UNION ALL ".join(
        f"SELECT ordinal, '{rule.name}' AS rule, {rule.reason} AS reason FROM seen WHERE {rule.breaks}" for rule in rules
    )
    found = con.sql(f"{seen}{tried} ORDER BY ordinal").to_arrow_table()
    marked = rows.take(found["ordinal"])
    return pa.table([*marked.columns, found["rule"].cast(pa.string()), found["reason"].cast(pa.string())], schema=schema)


def _series_in_several_runs(series: pa.Table, backwards: np.ndarray) -> bool:
    """Whether time falls back within a series: where the rows between two steps back (a run) share none, it does not."""
    if not backwards.any():
        return False
    runs = pa.array(np.concatenate([[0], np.cumsum(backwards)]))
    in_runs = series.append_column("run", runs).group_by([*series.column_names, "run"]).aggregate([])
    return bool(in_runs.num_rows > in_runs.group_by(series.column_names).aggregate([]).num_rows)


def series_flags(rows: pa.Table, spec: TableSpec, *, actions: pa.Table | None = None) -> pa.Table:
    """Rows that break a rule about their neighbours in time, among the rows given.

    Parameters
    ----------
    rows : pyarrow.Table
        Accepted rows of one table; the more of each series, the better a jump is told from a lively market.
    spec : TableSpec
    actions : pyarrow.Table, optional
        Rows of `corporate_actions` that explain a step of the price.

    Returns
    -------
    pyarrow.Table
        Columns of `rows`, `rule`, `reason`; once for each rule of severity `flag` that a row breaks.
    """
    schema = pa.schema([*rows.schema, pa.field("rule", pa.string()), pa.field("reason", pa.string())])
    series = SERIES.get(spec.name)
    tried = [
        f"SELECT {names(rows.column_names)}, '{rule.name}' AS rule, {rule.reason} AS reason FROM seen WHERE {condition}"
        for rule in RULES.get(spec.name, ())
        if rule.scope == "series" and (condition := rule.condition("flag"))
    ]
    if series is None or not tried or rows.num_rows == 0:
        return schema.empty_table()
    with connect() as con:
        con.register("given", rows)
        con.register("told_actions", TABLES["corporate_actions"].schema.empty_table() if actions is None else actions)
        seen = series.sql.format(rows="given", actions="told_actions")
        found = con.sql(f"WITH seen AS ({seen}) {' UNION ALL '.join(tried)} ORDER BY {names(spec.key)}, rule").to_arrow_table()
    return found.cast(schema)
