"""Compares bars that a source gave again with those stored from it: a difference means that its history is another now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from config.tables import table_spec
from flows.sources.base import Answer

if TYPE_CHECKING:
    from lake.store import Lake

__all__ = ["Compared", "compare_overlap"]

_TABLE = "equity_bars"
# Vendors go on counting a session's volume after its close: that is a revision of one bar, and says nothing about the others.
_REVISED_ALONE = ("volume",)


@dataclass(kw_only=True, slots=True)
class Compared:
    """What a comparison found.

    Parameters
    ----------
    differing : dict of str to str
        Symbol to what differs, in words, with the first difference.
    """

    differing: dict[str, str] = field(default_factory=dict)


def compare_overlap(lake: Lake, answers: Sequence[Answer], windows: Mapping[str, tuple[date, date | None]]) -> Compared:
    """Find the symbols whose stored bars are not those that came.

    A stored bar differs when one of its values does, however little, or when the answer has bars of its symbol but no longer
    this one. Another volume alone is no difference: such a bar is stored as a revision of that one. A symbol with rows that could
    not be read is not said to lack a bar.

    Parameters
    ----------
    windows : mapping of str to (date, date or None)
        In which each symbol was asked again.
    """
    bars = [answer for answer in answers if answer.dataset == _TABLE and any(name in windows for name in answer.names)]
    if not bars:
        return Compared()
    came = pa.concat_tables([answer.rows for answer in bars])
    symbols = [symbol for symbol in came["symbol"].unique().to_pylist() if symbol in windows]
    if not symbols:
        return Compared()
    spec = table_spec(_TABLE)
    where = {
        "symbol": symbols,
        "source": came["source"].unique().to_pylist(),
        "interval": came["interval"].unique().to_pylist(),
    }
    known = lake.read_latest(
        _TABLE, where=where, start=min(windows[symbol][0] for symbol in symbols), columns=[*spec.key, *spec.values]
    )
    excused = {str(row.symbol) for answer in bars for row in answer.refused}
    return Compared(differing=_differences(known, came, {symbol: windows[symbol] for symbol in symbols}, excused))


def _differences(
    known: pa.Table, came: pa.Table, windows: Mapping[str, tuple[date, date | None]], excused: set[str]
) -> dict[str, str]:
    from lake.query import connect, quoted

    spec = table_spec(_TABLE)
    values = [name for name in spec.values if name != "session" and name not in _REVISED_ALONE]
    asked = pa.table(
        {
            "symbol": pa.array(list(windows), pa.string()),
            "first": pa.array([first for first, _ in windows.values()], pa.date32()),
            "last": pa.array([last for _, last in windows.values()], pa.date32()),
        }
    )
    same = " AND ".join(f"k.{quoted(name)} = c.{quoted(name)}" for name in spec.key)
    other = " OR ".join(f"k.{quoted(name)} IS DISTINCT FROM c.{quoted(name)}" for name in values)
    columns = ", ".join(
        f"k.{quoted(name)} AS {quoted('was_' + name)}, c.{quoted(name)} AS {quoted('is_' + name)}" for name in values
    )
    with connect() as con:
        con.register("known", known)
        con.register("came", came)
        con.register("asked", asked)
        found = con.sql(
            f"SELECT k.symbol, k.session, c.symbol IS NULL AS gone, ({other}) AS differs, {columns} "
            "FROM known k JOIN asked a ON a.symbol = k.symbol AND k.session BETWEEN a.first AND coalesce(a.last, k.session) "
            f"LEFT JOIN came c ON {same} ORDER BY k.symbol, k.event_time"
        ).to_arrow_table()
    compared = pc.value_counts(found["symbol"]).to_pylist()
    of_symbol = {one["values"]: one["counts"] for one in compared}
    differing: dict[str, list[dict[str, Any]]] = {}
    for row in found.filter(pc.or_(found["gone"], found["differs"])).to_pylist():
        if not (row["gone"] and row["symbol"] in excused):
            differing.setdefault(row["symbol"], []).append(row)
    return {symbol: _in_words(rows, of_symbol[symbol], values) for symbol, rows in differing.items()}


def _in_words(rows: Sequence[Mapping[str, Any]], compared: int, values: Sequence[str]) -> str:
    first = rows[0]
    if first["gone"]:
        what = f"the bar of {first['session']} is no longer there"
    else:
        name = next(name for name in values if first[f"was_{name}"] != first[f"is_{name}"])
        what = f"{name} of {first['session']} was {first[f'was_{name}']} and is {first[f'is_{name}']}"
    return f"{len(rows)} of {compared} stored bars that were asked again differ: {what}"
