"""Macro series along sessions, against a vintage table made by hand."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings

from config.calendar import session_closes, sessions
from config.errors import InputError, UnknownNameError
from config.tables import table_spec
from features.macro import align_macro, parse_series
from tests.features.lakes import at, observation
from tests.features.panels import arch_file

SCHEMA = pa.schema([f for f in table_spec("macro_observations").schema if f.name != "recorded_at"])


def aligned(rows: list[dict[str, Any]], names: list[str], first: str, last: str) -> dict[str, pd.Series]:
    table = pa.Table.from_pylist([{"ingest_id": "test", **row} for row in rows], schema=SCHEMA)
    days = sessions(first, last)
    return align_macro(table, names, session_closes(days), days)


# January is first said to be 100, February 101; then January is revised (late), then February, then March comes, NULL first.
VINTAGES = [
    observation("CPI", "2018-01-01", 100.0, at("2018-02-14", "13:30")),
    observation("CPI", "2018-02-01", 101.0, at("2018-03-13", "13:30")),
    observation("CPI", "2018-01-01", 100.5, at("2018-03-20", "13:30")),
    observation("CPI", "2018-02-01", 101.2, at("2018-03-27", "13:30")),
    observation("CPI", "2018-03-01", None, at("2018-04-05", "13:30")),
    observation("CPI", "2018-03-01", 102.0, at("2018-04-11", "13:30")),
]


def test_the_newest_period_counts_in_its_newest_vintage() -> None:
    cpi = aligned(VINTAGES, ["CPI"], "2018-02-12", "2018-04-13")["CPI"]
    assert cpi[:"2018-02-13"].isna().all()
    assert (cpi["2018-02-14":"2018-03-12"] == 100.0).all()
    assert (cpi["2018-03-13":"2018-03-26"] == 101.0).all(), "a late revision of January must not displace February"
    assert (cpi["2018-03-27":"2018-04-10"] == 101.2).all(), "a missing March must not displace February"
    assert (cpi["2018-04-11":] == 102.0).all()


def test_months_back_are_values_as_known_then() -> None:
    before = aligned(VINTAGES, ["CPI@-1M"], "2018-02-12", "2018-04-13")["CPI@-1M"]
    assert before[:"2018-03-12"].isna().all(), "December 2017 was never published"
    assert (before["2018-03-13":"2018-03-19"] == 100.0).all()
    assert (before["2018-03-20":"2018-04-10"] == 100.5).all(), "the revision of January is known from then on"
    assert (before["2018-04-11":] == 101.2).all()


def test_a_value_of_after_the_close_is_known_at_the_next_close() -> None:
    # 16:15 in New York is 21:15 UTC in winter; the close is 21:00, on 24 December (a half day) 18:00.
    rows = [
        observation("VIX", "2018-12-21", 30.11, at("2018-12-21", "21:15")),
        observation("VIX", "2018-12-24", 36.07, at("2018-12-24", "18:15")),
        observation("VIX", "2018-12-26", 30.41, at("2018-12-26", "21:00")),
    ]
    vix = aligned(rows, ["VIX"], "2018-12-21", "2018-12-27")["VIX"]
    np.testing.assert_array_equal(vix.to_numpy(), [np.nan, 30.11, 30.41, 30.41])  # available exactly at the close: known


def test_a_series_that_stops_is_not_carried_on_for_ever() -> None:
    days = [str(day.date()) for day in sessions("2018-11-01", "2018-11-30")]
    rows = [observation("VIX", day, 20.0, at(day, "22:00")) for day in days]
    rows += [observation("CPI", f"2018-{month:02d}-01", 100.0, at(f"2018-{month + 1:02d}-12")) for month in range(1, 11)]
    values = aligned(rows, ["VIX", "CPI"], "2018-11-26", "2019-03-29")
    # the last VIX is of Friday 30 November, a day after the one before: 14 + 2 days
    assert values["VIX"].last_valid_index() == pd.Timestamp("2018-12-14")  # the last session to 16 December, 22:00
    # October came on 12 November, 30 days after September (1 October to 1 September): 14 + 60 days
    assert values["CPI"].last_valid_index() == pd.Timestamp("2019-01-24")  # 25 January 12:00 lies before that day's close


def test_two_vintages_of_one_moment_give_the_newer_one() -> None:
    moment = at("2018-02-14")
    rows = [
        observation("CPI", "2018-01-01", 1.0, moment, vintage="2018-02-13"),
        observation("CPI", "2018-01-01", 2.0, moment, vintage="2018-02-14"),
    ]
    assert (aligned(rows, ["CPI"], "2018-02-14", "2018-02-20")["CPI"] == 2.0).all()


def test_core_inflation_is_what_the_bureau_of_labor_statistics_published() -> None:
    # Twelve-month change of the CPI less food and energy, per cent, from the BLS news releases of 2018: not seasonally
    # adjusted, whereas this series is, which moves a twelve-month change by less than a tenth.
    published = {"2018-06-01": 2.3, "2018-07-01": 2.4, "2018-08-01": 2.2, "2018-09-01": 2.2, "2018-10-01": 2.1, "2018-11-01": 2.2}
    index = arch_file("core_cpi/core-cpi.csv.gz")["CPILFESL"]
    rows = [
        observation("CPI", f"{month:%Y-%m-%d}", value, at(f"{month + pd.DateOffset(months=1, days=14):%Y-%m-%d}"))
        for month, value in index["2016":].items()
    ]
    values = aligned(rows, ["CPI", "CPI@-12M"], "2018-07-01", "2018-12-31")
    inflation = 100 * (values["CPI"] / values["CPI@-12M"] - 1)
    for month, percent in published.items():
        session = inflation.index[inflation.index >= pd.Timestamp(month) + pd.DateOffset(months=1, days=15)][0]
        assert inflation[session] == pytest.approx(percent, abs=0.1), month


def plain_loop(rows: list[dict[str, Any]], close: pd.Timestamp) -> float:
    """The rule in five lines: among what is published by the close, the newest period, in its newest vintage."""
    known = [row for row in rows if row["value"] is not None and row["available_at"] <= close]
    if not known:
        return np.nan
    newest = max(row["period"] for row in known)
    return max((row for row in known if row["period"] == newest), key=lambda row: (row["available_at"], row["vintage"]))["value"]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 20), st.one_of(st.none(), st.integers(1, 99))),
        min_size=1,
        max_size=15,
        unique_by=lambda row: row[:2],
    )
)
def test_any_table_of_vintages_gives_what_a_plain_loop_gives(drawn: list[tuple[int, int, int | None]]) -> None:
    base = pd.Timestamp("2018-07-02", tz="UTC")
    rows = [
        observation(
            "CPI", f"2018-{month:02d}-01", None if value is None else float(value), (base + pd.Timedelta(days=day)).to_pydatetime()
        )
        for month, day, value in drawn
    ]
    days = sessions("2018-07-02", "2018-07-25")
    result = aligned(rows, ["CPI"], "2018-07-02", "2018-07-25")["CPI"]
    np.testing.assert_array_equal(result.to_numpy(), [plain_loop(rows, close) for close in session_closes(days)])


def test_names_that_cannot_be_read_or_are_not_there_are_refused() -> None:
    assert (parse_series("CPILFESL@-12M").series, parse_series("CPILFESL@-12M").months) == ("CPILFESL", 12)
    for wrong in ("CPI@12M", "CPI@-0M", "CPI@", "C PI", ""):
        with pytest.raises(InputError, match="does not name a macro series"):
            parse_series(wrong)
    with pytest.raises(UnknownNameError, match="CPI"):
        aligned(VINTAGES, ["CPJ"], "2018-02-12", "2018-02-20")


def test_months_back_of_a_daily_series_are_refused() -> None:
    rows = [observation("VIX", f"2018-02-{day:02d}", 20.0, at(f"2018-02-{day:02d}")) for day in (1, 2, 5)]
    with pytest.raises(InputError, match="several periods a month"):
        aligned(rows, ["VIX@-1M"], "2018-02-05", "2018-02-08")
