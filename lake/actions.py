"""Splits and cash payments as known at a moment, one event a symbol and ex-date, whoever reported it.

1. `read_actions` reads the rows; `lake.adjustment` gives each to its company.
2. `agree` sums what one source reports for one ex-date (`_REPORTS`), refuses sources that disagree about amount (`_amounts`) or
   day (`_days`), and leaves one event.

Of sources that are ordered by the caller the first that reports an ex-date is believed instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from config.errors import QualityError
from lake.listings import NEAR_DAYS
from lake.query import connect

if TYPE_CHECKING:
    from lake.reading import Tables

__all__ = ["CASH_KINDS", "Events", "agree", "read_actions"]

CASH_KINDS = ("dividend", "special_dividend", "capital_gain")
_COLUMNS = ["symbol", "ex_date", "kind", "source", "value", "currency", "available_at", "ingest_id"]

# Vendors round: half a thousandth of the currency or a thousandth of an amount, a ten-thousandth of a ratio.
_SAME = (
    "abs(a.value - b.value) <= CASE a.what WHEN 'split' THEN 1e-4 * least(a.value, b.value) "
    "ELSE greatest(0.0005001, 1e-3 * least(a.value, b.value)) END"
)
# DISTINCT: on the day of a rename a source may tell one action under both letters.
_REPORTS = """
CREATE TEMP TABLE reports AS
WITH told AS (SELECT DISTINCT symbol, ex_date, source, kind, value FROM actions)
SELECT symbol, ex_date, source, what, coalesce(any_value(place), 0) AS place,
    CASE what WHEN 'split' THEN product(value) ELSE sum(value) END AS value
FROM (SELECT *, CASE kind WHEN 'split' THEN 'split' ELSE 'cash' END AS what FROM told) LEFT JOIN believed USING (source)
GROUP BY symbol, ex_date, source, what
"""
_AMOUNTS = f"""
SELECT a.symbol, a.what, a.ex_date, a.source, a.value, b.source, b.value
FROM reports a JOIN reports b USING (symbol, ex_date, what)
WHERE a.source < b.source AND a.place = b.place AND NOT ({_SAME})
ORDER BY ALL LIMIT 1
"""
_DAYS = f"""
SELECT a.symbol, a.what, a.ex_date, a.source, b.ex_date, b.source, a.place, b.place
FROM reports a JOIN reports b USING (symbol, what)
WHERE a.source <> b.source AND b.ex_date > a.ex_date AND b.ex_date - a.ex_date <= {NEAR_DAYS} AND a.value > 0 AND {_SAME}
    AND NOT EXISTS (FROM reports c WHERE (c.symbol, c.what, c.source, c.ex_date) = (a.symbol, a.what, a.source, b.ex_date))
    AND NOT EXISTS (FROM reports c WHERE (c.symbol, c.what, c.source, c.ex_date) = (b.symbol, b.what, b.source, a.ex_date))
ORDER BY ALL
"""
_EVENTS = """
SELECT symbol, ex_date, coalesce(max(value) FILTER (what = 'split'), 1.0) AS ratio,
    coalesce(max(value) FILTER (what = 'cash'), 0.0) AS cash
FROM (SELECT symbol, ex_date, what, arg_min(value, (place, source)) AS value FROM reports GROUP BY ALL)
GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """Splits and payments, one a symbol and ex-date, ascending.

    Parameters
    ----------
    symbols : ndarray of str, shape (n_events,)
    ex_dates : ndarray of datetime64[D], shape (n_events,)
    ratios : ndarray of shape (n_events,)
        New shares for one old; 1 where there was no split.
    cash : ndarray of shape (n_events,)
        Amount a share that trades on the ex-date; 0 where there was none.
    """

    symbols: npt.NDArray[Any]
    ex_dates: npt.NDArray[np.datetime64]
    ratios: npt.NDArray[np.float64]
    cash: npt.NDArray[np.float64]


def read_actions(
    snapshot: Tables,
    letters: Sequence[str],
    kinds: Sequence[str],
    *,
    as_of: datetime | None,
    action_source: str | Sequence[str] | None,
) -> pa.Table:
    """Actions of these kinds as known at `as_of`: symbol, ex_date, kind, source, value, currency, available_at,
    ingest_id."""
    where: dict[str, Any] = {"symbol": list(letters), "kind": list(kinds)}
    if action_source is not None:
        where["source"] = _ordered(action_source)
    return snapshot.read("corporate_actions", where=where, as_of=as_of, columns=_COLUMNS)


def agree(actions: pa.Table, action_source: str | Sequence[str] | None = None) -> Events:
    """One event a symbol and ex-date.

    Parameters
    ----------
    actions : pyarrow.Table
        As `read_actions`. All payments that one source reports for one ex-date are added up. One that it reports under two letters
        of the company (on the day of a rename) counts once.
    action_source : str or sequence of str, optional
        In this order the first source that reports an ex-date (or one within four days, with the same value) is believed. By
        default sources must agree: ratios to a ten-thousandth, amounts to half a thousandth of the currency or one of the amount.

    Notes
    -----
    A source without a word about an ex-date does not disagree. Rows are never deleted: an action that never was is revised to the
    ratio 1 or the amount 0.

    Raises
    ------
    QualityError
        A ratio is not positive, an amount is missing or negative, or sources disagree; the message names both.
    """
    with connect() as con:
        con.register("actions", actions)
        believed = [] if action_source is None else _ordered(action_source)
        con.register(
            "believed", pa.table({"source": pa.array(believed, pa.string()), "place": pa.array(range(len(believed)), pa.int64())})
        )
        _values(con)
        con.execute(_REPORTS)
        _days(con)
        _amounts(con)
        found = con.execute(_EVENTS).fetchnumpy()
    return Events(
        symbols=np.asarray(found["symbol"], dtype=object),
        ex_dates=np.asarray(found["ex_date"], dtype="datetime64[D]"),
        ratios=np.asarray(found["ratio"], dtype=np.float64),
        cash=np.asarray(found["cash"], dtype=np.float64),
    )


def _ordered(action_source: str | Sequence[str]) -> list[str]:
    return [action_source] if isinstance(action_source, str) else list(dict.fromkeys(action_source))


def _values(con: duckdb.DuckDBPyConnection) -> None:
    bad = con.execute(
        "SELECT symbol, kind, ex_date, source, value FROM actions WHERE value IS NULL OR NOT isfinite(value) "
        "OR value < 0 OR (kind = 'split' AND value = 0) ORDER BY ALL LIMIT 1"
    ).fetchone()
    twice = con.execute(
        "SELECT symbol, kind, ex_date, source, min(value), max(value) FROM actions GROUP BY ALL HAVING min(value) < max(value) "
        "ORDER BY ALL LIMIT 1"
    ).fetchone()
    if bad is None and twice is not None:
        symbol, kind, day, source, least, most = twice
        raise QualityError(
            f"{symbol}: {source} gives the {kind} of {day} under two letters as {least:g} and {most:g}",
            remedy="correct one of the corporate actions",
        )
    if bad is not None:
        symbol, kind, day, source, value = bad
        shown = "without a value" if value is None else f"{value:g}"
        raise QualityError(f"{symbol}: the {kind} of {day} from {source} is {shown}", remedy="correct the corporate action")


def _amounts(con: duckdb.DuckDBPyConnection) -> None:
    found = con.execute(_AMOUNTS).fetchone()
    if found is not None:
        symbol, what, day, one, its, other, others = found
        name = "split" if what == "split" else "cash"
        raise QualityError(
            f"{symbol}: {one} and {other} disagree about the {name} of {day}: {its:g} and {others:g}",
            remedy=f'correct one of the corporate actions, or choose whom to believe: action_source="{one}"',
        )


def _days(con: duckdb.DuckDBPyConnection) -> None:
    """One action that two sources date differently would be counted twice."""
    for symbol, what, day, one, other_day, other, place, other_place in con.execute(_DAYS).fetchall():
        if place == other_place:
            name = "split" if what == "split" else "payment"
            raise QualityError(
                f"{symbol}: {one} and {other} disagree about the day of a {name}: {day} and {other_day}",
                remedy=f'correct one of the corporate actions, or choose whom to believe: action_source="{one}"',
            )
        behind = (symbol, what, day, one) if place > other_place else (symbol, what, other_day, other)
        con.execute("DELETE FROM reports WHERE (symbol, what, ex_date, source) = (?, ?, ?, ?)", list(behind))
