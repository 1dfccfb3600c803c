"""Macro series laid along sessions: at each close the newest period that was published by then.

1. Names are read (`parse_series`): ``CPILFESL`` is the newest period's value, ``CPILFESL@-12M`` that of twelve months before it.
2. One source a series is settled (`lake.choice.one_source`).
3. One DuckDB query follows the vintages (`_ALIGN`): for every moment at which something was published, the newest period known
   and the value then known for it; then an ASOF JOIN of the sessions' closes on those moments.
4. A series that has stopped is NaN, not its last value for ever (`_ALIGN`, *stale*).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from config.errors import InputError, UnknownNameError, did_you_mean
from lake.choice import one_source

__all__ = ["MacroName", "align_macro", "one_source", "parse_series"]

_NAME = re.compile(r"^(?P<series>[^@\s]+)(?:@-(?P<months>[1-9]\d{0,2})M)?$")

# `known`: one value for each period and moment (the newest vintage, should two appear at once); what the source calls missing
# displaces nothing. `running`: the newest period known from each moment on, so that a late revision of an old period cannot
# take the place of a newer one. `steps`: since when each newest period is known, and how far it lies from the one before.
# `asked`: the period wanted from each moment on. `events`: its value as known then.
_ALIGN = """
WITH known AS (
    SELECT series, period, available_at, arg_max(value, vintage) AS value
    FROM observations WHERE value IS NOT NULL AND NOT isnan(value) GROUP BY ALL
), running AS (
    SELECT DISTINCT series, available_at, max(period) OVER (
        PARTITION BY series ORDER BY available_at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS newest
    FROM known
), steps AS (
    SELECT series, newest, since, coalesce(newest - lag(newest) OVER (PARTITION BY series ORDER BY newest), $gap_days) AS gap_days
    FROM (SELECT series, newest, min(available_at) AS since FROM running GROUP BY ALL)
), asked AS (
    SELECT names.name, running.series, running.available_at,
        CASE WHEN names.months = 0 THEN running.newest
             ELSE CAST(date_trunc('month', running.newest) - to_months(names.months) AS DATE) END AS period,
        names.months = 0 AS exact,
        steps.since + to_days(CAST($slack_days + 2 * steps.gap_days AS INTEGER)) AS stale
    FROM running JOIN names USING (series) JOIN steps USING (series, newest)
), events AS (
    SELECT asked.name, asked.available_at, asked.stale, known.value
    FROM asked ASOF LEFT JOIN (
        SELECT series, value, available_at, period AS wanted, true AS exact FROM known
        UNION ALL
        SELECT series, value, available_at, CAST(date_trunc('month', period) AS DATE), false FROM known
    ) AS known
    ON asked.series = known.series AND asked.period = known.wanted AND asked.exact = known.exact
        AND asked.available_at >= known.available_at
), grid AS (
    SELECT closes.row_number, closes.close, names.name FROM closes CROSS JOIN names
)
SELECT grid.name, grid.row_number, CASE WHEN grid.close <= events.stale THEN events.value END AS value
FROM grid ASOF LEFT JOIN events ON grid.name = events.name AND grid.close >= events.available_at
"""

# A value stays current for two gaps between periods and a fortnight after its period first became known: a daily series that
# stops is NaN within three weeks, a monthly one within eleven, and a release that a shutdown delays by a month bridges it.
_SLACK_DAYS = 14
_FIRST_GAP_DAYS = 31  # until a second period is known


@dataclass(frozen=True)
class MacroName:
    """A macro series as it is asked for: `months` before the newest known period."""

    name: str
    series: str
    months: int


def parse_series(name: str) -> MacroName:
    """Read ``SERIES`` or ``SERIES@-<n>M``.

    Raises
    ------
    InputError
        The name has another form.
    """
    found = _NAME.match(name)
    if not found:
        raise InputError(f"{name!r} does not name a macro series", remedy="write SERIES, or SERIES@-12M for twelve months before")
    return MacroName(name, found["series"], int(found["months"] or 0))


def align_macro(
    observations: pa.Table, names: Iterable[str], closes: pd.DatetimeIndex, sessions: pd.DatetimeIndex
) -> dict[str, pd.Series]:
    """Lay macro series along sessions, each value as known at the session's close.

    Parameters
    ----------
    observations : Table
        Rows of `macro_observations`, every vintage, one source a series.
    names : iterable of str
        As `parse_series` reads them.
    closes : DatetimeIndex of shape (n_sessions,)
        The moment each session closes, UTC.
    sessions : DatetimeIndex of shape (n_sessions,)

    Returns
    -------
    dict of str to Series of shape (n_sessions,)
        In the source's unit. NaN before the first publication, where the month asked for was never published, and once the
        series is stale: two gaps between its periods and 14 days after its newest period first became known.

    Notes
    -----
    The newest *period* with a value counts, in its newest vintage by then. A missing value (NULL) displaces nothing.

    Raises
    ------
    UnknownNameError
        A series has no observation at all.
    InputError
        Months back were asked of a series with several periods a month.
    """
    from lake.query import connect  # DuckDB costs a fifth of a second to import

    parsed = [parse_series(name) for name in dict.fromkeys(names)]
    if not parsed:
        return {}
    held = sorted(set(observations["series"].to_pylist()))
    for macro in parsed:
        if macro.series not in held:
            raise UnknownNameError(f"no macro series is called {macro.series!r}", remedy=did_you_mean(macro.series, held))
    with connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("observations", observations)
        _refuse_dense_months(connection, parsed)
        connection.register("names", pa.table({f: [getattr(m, f) for m in parsed] for f in ("name", "series", "months")}))
        utc = pa.array(closes.to_numpy(dtype="datetime64[us]"), pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
        connection.register("closes", pa.table({"row_number": np.arange(len(closes)), "close": utc}))
        found = connection.execute(_ALIGN, {"slack_days": _SLACK_DAYS, "gap_days": _FIRST_GAP_DAYS}).fetchnumpy()
    return _series(found, parsed, sessions)


def _series(found: Mapping[str, Any], parsed: list[MacroName], sessions: pd.DatetimeIndex) -> dict[str, pd.Series]:
    values = np.ma.filled(np.ma.asarray(found["value"], dtype=np.float64), np.nan)
    names = np.asarray(found["name"], dtype=object)
    result = {}
    for macro in parsed:
        mine = names == macro.name
        column = np.full(len(sessions), np.nan)
        column[np.asarray(found["row_number"])[mine]] = values[mine]
        result[macro.name] = pd.Series(column, index=sessions, name=macro.name)
    return result


def _refuse_dense_months(connection: Any, parsed: list[MacroName]) -> None:
    back = [macro.series for macro in parsed if macro.months]
    dense = connection.execute(
        "SELECT DISTINCT series FROM observations WHERE list_contains($series, series) "
        "GROUP BY series, date_trunc('month', period) HAVING count(DISTINCT period) > 1",
        {"series": back},
    ).fetchone()
    if dense:
        raise InputError(
            f"{dense[0]} has several periods a month, so months back do not name one of them",
            remedy="ask for the series itself and look sessions back",
        )
