"""Keep refused rows as they came, with the rule that refused them; the same row refused again is stored once."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import pyarrow as pa

from config.hashing import canonical_json, digest
from config.tables import TABLES, TableSpec
from lake.store import Lake
from lake.writer import WriteResult

__all__ = ["quarantine"]

_SUBJECTS = ("symbol", "occ_symbol", "series", "market")


def quarantine(lake: Lake, spec: TableSpec, refused: pa.Table, *, recorded_at: datetime) -> WriteResult:
    """Store refused rows in the table `quarantine`.

    Parameters
    ----------
    lake : Lake
    spec : TableSpec
        The table they were meant for.
    refused : pyarrow.Table
        The second part of `lake.quality.split`: the rows, `rule` and `reason`.
    recorded_at : datetime
        The moment of the refusal, aware.

    Returns
    -------
    WriteResult
        `new` counts rows never refused by that rule before.

    Raises
    ------
    StorageError
        As `Lake.write`.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in refused.to_pylist():
        rule, reason, ingest_id = one.pop("rule"), one.pop("reason"), one.pop("ingest_id")
        raw = {name: _plain(value) for name, value in one.items()}
        # The clocks are left out: the same bad row in a later answer is the same bad row.
        facts = {name: value for name, value in raw.items() if name != "available_at"}
        row_id = digest({"table": spec.name, "rule": rule, "row": facts})
        rows.setdefault(
            row_id,
            {
                "row_id": row_id,
                "state": "held",
                "refused_at": recorded_at,
                "table_name": spec.name,
                "symbol": next((raw[name] for name in _SUBJECTS if raw.get(name) is not None), None),
                "rule": rule,
                "reason": reason,
                "raw": canonical_json(raw),
                "available_at": recorded_at,
                "ingest_id": ingest_id or "unknown",
            },
        )
    target = TABLES["quarantine"]
    schema = pa.schema([field for field in target.schema if field.name != "recorded_at"])
    return lake.write(target, pa.Table.from_pylist(list(rows.values()), schema=schema), recorded_at=recorded_at)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity; they are kept as words."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
