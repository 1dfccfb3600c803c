"""Histories that a vendor adjusted must come whole: appended to after its next adjustment they would hold a return that never was.

1. `readjusted` compares an answer with the stored bars it would be joined to: where they meet, prices must be the same.
2. `keep_whole` is asked before an answer is written, and sets apart what would join two states of an adjustment.
3. `refuse_mixed_adjustments` is asked on each read of such bars, and finds what came into the lake some other way: an overlap whose
   prices were all revised by one factor, beside older bars that were not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from config.errors import QualityError
from lake.query import connect

if TYPE_CHECKING:
    from lake.quality import Split
    from lake.reading import Tables
    from lake.store import Lake

__all__ = ["keep_whole", "readjusted", "refuse_mixed_adjustments"]

RULE = "adjustment_not_continued"

_REMEDY = "fetch the symbol's whole history again in one ingest (from its first session on), or ingest prices as traded"
_SAME = 1e-6  # relative; vendors compute in single precision
_ONE_FACTOR = 2e-4  # relative; vendors round adjusted prices
_JOINED = ("symbol", "source", "interval", "event_time", "close")

# One row a symbol and source of the answer: does the lake hold bars before and after it, and how much do the first and the last
# bar that both have differ?
_MEETING = """
WITH span AS (SELECT symbol, source, interval, min(event_time) AS first, max(event_time) AS last FROM incoming GROUP BY ALL),
shared AS (
    SELECT symbol, source, interval, count(*) AS bars, arg_min(i.close / s.close, event_time) AS first_ratio,
        arg_max(i.close / s.close, event_time) AS last_ratio, min(event_time) AS meets
    FROM incoming i JOIN stored s USING (symbol, source, interval, event_time) GROUP BY ALL
), beside AS (
    SELECT symbol, source, interval, count(*) FILTER (event_time < first) AS older, count(*) FILTER (event_time > last) AS newer
    FROM stored JOIN span USING (symbol, source, interval) GROUP BY ALL
)
SELECT symbol, source, coalesce(bars, 0), first_ratio, last_ratio, older, newer, meets
FROM beside LEFT JOIN shared USING (symbol, source, interval) WHERE older > 0 OR newer > 0 ORDER BY ALL
"""

# Bars revised at one moment, as they were before it: the ratio of the oldest, how far the others' lie from it, and whether the bar
# itself moved as one.
_REVISED = f"""
WITH ratio AS (
    SELECT symbol, source, event_time, n.close / o.close AS ratio,
        list_filter([n.open / o.open, n.high / o.high, n.low / o.low], lambda r: r IS NOT NULL) AS others
    FROM revised n JOIN before o USING (symbol, source, event_time)
), oldest AS (
    SELECT symbol, source, min(event_time) AS first, arg_min(ratio, event_time) AS factor, arg_min(others, event_time) AS prices
    FROM ratio GROUP BY ALL
)
SELECT symbol, source, first, factor, count(*) FILTER (abs(ratio / factor - 1) <= {_ONE_FACTOR}) AS alike,
    len(prices) > 0 AND len(list_filter(prices, lambda r: abs(r / factor - 1) > {_ONE_FACTOR})) = 0 AS as_one
FROM ratio JOIN oldest USING (symbol, source) WHERE abs(factor - 1) > {_SAME}
GROUP BY ALL ORDER BY ALL
"""


def readjusted(stored: pa.Table, incoming: pa.Table) -> Mapping[str, str]:
    """Symbols of an answer that may not be joined to the stored bars, and why.

    Parameters
    ----------
    stored, incoming : pyarrow.Table
        Rows of `equity_bars`, of basis vendor_adjusted: symbol, source, interval, event_time, close.

    Returns
    -------
    mapping of str to str
        A symbol whose stored history reaches beyond the answer on one side is listed when the bar at which the two meet on that
        side has another price, or when they have no bar in common, so that nobody can tell. An answer that holds the whole stored
        span takes its place, and is never listed.
    """
    with connect() as con:
        con.register("stored", stored.select(list(_JOINED)))
        con.register("incoming", incoming.select(list(_JOINED)))
        meetings = con.execute(_MEETING).fetchall()
    found: dict[str, str] = {}
    for symbol, source, bars, first, last, older, newer, meets in meetings:
        if not bars:
            found[symbol] = (
                f"{symbol} of {source}: the answer has no bar in common with the {older + newer} stored ones that the vendor "
                "adjusted: whether the adjustment is the same cannot be told"
            )
            continue
        ratio = next((r for r, beyond in ((first, older), (last, newer)) if beyond and not abs(r - 1) <= _SAME), None)
        if ratio is not None:
            found[symbol] = (
                f"{symbol} of {source}: the vendor's adjustment has changed: where the answer meets the stored bars "
                f"({meets:%Y-%m-%d}) prices are {ratio:.6g} times what they were; joined, they would show a return that never was"
            )
    return found


def keep_whole(lake: Lake, parts: Split) -> Split:
    """Move bars that a vendor adjusted, and that do not continue the stored ones, from the accepted to the refused.

    They are refused with the rule ``adjustment_not_continued`` and the reason of `readjusted`, whole symbols at a time.
    """
    found = _unfit(lake, parts.accepted)
    if not found:
        return parts
    listed = pa.array(list(found), pa.string())
    here = pc.and_(pc.is_in(parts.accepted["symbol"], value_set=listed), pc.equal(parts.accepted["basis"], "vendor_adjusted"))
    apart = parts.accepted.filter(here)
    reasons = pa.array([f"{found[symbol]}; {_REMEDY}" for symbol in apart["symbol"].to_pylist()], pa.string())
    apart = apart.append_column("rule", pa.repeat(pa.scalar(RULE), apart.num_rows)).append_column("reason", reasons)
    unmarked = pc.invert(pc.is_in(parts.flagged["symbol"], value_set=listed))
    return replace(
        parts,
        accepted=parts.accepted.filter(pc.invert(here)),
        refused=pa.concat_tables([parts.refused, apart.select(parts.refused.column_names).cast(parts.refused.schema)]),
        flagged=parts.flagged.filter(unmarked),
    )


def _unfit(lake: Lake, rows: pa.Table) -> Mapping[str, str]:
    incoming = rows.filter(pc.equal(rows["basis"], "vendor_adjusted")) if "basis" in rows.column_names else rows.slice(0, 0)
    if not incoming.num_rows:
        return {}
    where = {name: incoming[name].unique().to_pylist() for name in ("symbol", "source", "interval")}
    stored = lake.read_latest("equity_bars", where={**where, "basis": "vendor_adjusted"}, columns=_JOINED)
    return readjusted(stored, incoming)


def refuse_mixed_adjustments(snapshot: Tables, bars: pa.Table, *, interval: str, as_of: datetime | None = None) -> None:
    """Refuse to read a series whose bars a vendor adjusted at two times, in two ways.

    Parameters
    ----------
    bars : pyarrow.Table
        The bars that were read: symbol, letters, session, source, basis.

    Raises
    ------
    QualityError
        Bars were revised, all by one factor, and older ones beside them were not.

    Notes
    -----
    Nothing is looked up for bars as traded. Without an overlap between the two ingests there is no trace to find: `keep_whole`
    refuses such an append before it is stored.
    """
    if "vendor_adjusted" not in bars["basis"].unique().to_pylist():
        return
    adjusted = bars.filter(pc.equal(bars["basis"], "vendor_adjusted"))
    span = pc.min_max(adjusted["session"]).as_py()
    request: dict[str, Any] = {
        "where": {
            "symbol": adjusted["letters"].unique().to_pylist(),
            "source": adjusted["source"].unique().to_pylist(),
            "interval": interval,
            "basis": "vendor_adjusted",
        },
        "start": span["min"],
        "end": span["max"],
    }
    columns = ["symbol", "source", "event_time", "open", "high", "low", "close", "recorded_at", "available_at"]
    newest = snapshot.read("equity_bars", **request, as_of=as_of, columns=columns)
    corrected = newest.filter(
        pc.equal(newest["available_at"], newest["recorded_at"])
    )  # a revision was not known before it was seen
    for moment in sorted(corrected["recorded_at"].unique().to_pylist()):
        before = snapshot.read("equity_bars", **request, as_of=moment - timedelta(microseconds=1), columns=columns)
        revised = corrected.filter(pc.equal(corrected["recorded_at"], pa.scalar(moment, corrected["recorded_at"].type)))
        _refuse_seam(newest, revised, before, moment)


def _refuse_seam(newest: pa.Table, revised: pa.Table, before: pa.Table, moment: datetime) -> None:
    with connect() as con:
        for name, rows in (("newest", newest), ("revised", revised), ("before", before)):
            con.register(name, rows)
        for symbol, source, first, factor, alike, as_one in con.execute(_REVISED).fetchall():
            if alike < 2 and not as_one:
                continue
            older = con.execute(
                "SELECT count(*) FROM newest WHERE symbol = ? AND source = ? AND event_time < ? AND recorded_at < ?",
                [symbol, source, first, moment],
            ).fetchone()
            if older is not None and older[0]:
                raise QualityError(
                    f"{symbol} of {source}: bars from {first:%Y-%m-%d} on were adjusted anew by the vendor ({factor:.6g} times, "
                    f"seen on {moment:%Y-%m-%d}), the {older[0]} before them were not: the series has a return that never was",
                    remedy=_REMEDY,
                )
