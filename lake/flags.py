"""Name the rows that are stored although they break a rule of lesser severity; the same row and rule are named once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa

from config.tables import TABLES, TableSpec
from lake.query import connect, literal, names, quoted
from lake.store import Lake
from lake.writer import WriteResult

__all__ = ["SUBJECT", "flag"]

# The column by which people name what a row is about.
SUBJECT: Mapping[str, str] = {
    "equity_bars": "symbol",
    "corporate_actions": "symbol",
    "option_quotes": "underlying",
    "macro_observations": "series",
    "cot_positions": "market_code",
    "universe_membership": "symbol",
    "gaps": "symbol",
}
# What a row of a table with many rows to a subject and moment is told apart by, put before the reason.
_DETAIL: Mapping[str, str] = {"option_quotes": "occ_symbol", "cot_positions": "category", "macro_observations": "vintage"}


def flag(lake: Lake, spec: TableSpec, flagged: pa.Table, *, recorded_at: datetime) -> WriteResult:
    """Store flags in the table `flags`.

    Parameters
    ----------
    lake : Lake
    spec : TableSpec
        The table the rows are stored in.
    flagged : pyarrow.Table
        Its rows with `rule` and `reason`, as `lake.quality.split` and `series_flags` give them.
    recorded_at : datetime
        The moment of the flagging, aware.

    Returns
    -------
    WriteResult
        `new` counts rows never flagged by that rule before; a row's later values do not make it another row.
    """
    target = TABLES["flags"]
    schema = pa.schema([column for column in target.schema if column.name != "recorded_at"])
    subject, detail = SUBJECT.get(spec.name, spec.key[0]), _DETAIL.get(spec.name)
    key = ", ".join(f"coalesce({quoted(column)}::VARCHAR, '')" for column in spec.key)
    reason = f"{quoted(detail)}::VARCHAR || ': ' || reason" if detail else "reason"
    source = "source" if "source" in flagged.column_names else "''"
    with connect() as con:
        con.register("flagged", flagged)
        rows = con.sql(
            f"SELECT sha256(concat_ws(chr(31), {literal(spec.name)}, rule, {key})) AS row_id, {literal(spec.name)} AS table_name, "
            f"{quoted(subject)} AS symbol, {quoted(spec.event_time)}::TIMESTAMPTZ AS event_time, {source} AS source, rule, "
            f"{reason} AS reason, {literal(recorded_at)} AS available_at, ingest_id FROM flagged "
            f"QUALIFY row_number() OVER (PARTITION BY rule, {names(spec.key)} ORDER BY reason) = 1 ORDER BY row_id"
        ).to_arrow_table()
    return lake.write(target, rows.cast(schema), recorded_at=recorded_at)
