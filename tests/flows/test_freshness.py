"""What is late by a given clock: against the exchange's sessions, half days and holidays, release calendars and own rhythms."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from config.clock import FixedClock
from config.settings import load_settings
from config.tables import TABLES
from flows.freshness import NameFreshness, freshness, name_freshness
from lake import open_lake
from tests.lake.rows import bar, bars, macro, vintage, without_recorded_at

RECORDED = datetime(2024, 1, 1, tzinfo=UTC)


def _store(table: str, rows: pa.Table) -> None:
    lake = open_lake(load_settings())
    lake.write(table, rows, recorded_at=RECORDED)
    lake.publish()


def _names(at: datetime) -> dict[str, NameFreshness]:
    return {one.name: one for one in name_freshness(load_settings(), FixedClock(at))}


def _action(symbol: str, ex_date: date, kind: str) -> pa.Table:
    row = {"symbol": symbol, "ex_date": ex_date, "kind": kind, "source": "test", "value": None, "new_symbol": None}
    row |= {"currency": None, "available_at": RECORDED, "ingest_id": "a"}
    return pa.Table.from_pylist([row], schema=without_recorded_at(TABLES["corporate_actions"]))


def test_a_lake_without_anything_expects_nothing() -> None:
    assert freshness(load_settings(), FixedClock(RECORDED)) == []


@pytest.mark.parametrize(
    ("now", "late_by"),
    [
        # Tuesday 2024-07-02 is stored. Wednesday the 3rd was a half day: closed at 17:00 UTC, due eight hours later.
        (datetime(2024, 7, 4, 0, 59, tzinfo=UTC), ""),
        (datetime(2024, 7, 4, 1, 0, tzinfo=UTC), "1 session"),
        # The 4th is a holiday; Friday the 5th is due on Saturday at 04:00 UTC; the weekend adds nothing.
        (datetime(2024, 7, 6, 3, 59, tzinfo=UTC), "1 session"),
        (datetime(2024, 7, 8, 12, 0, tzinfo=UTC), "2 sessions"),
    ],
)
def test_bars_are_held_to_the_last_session_that_has_closed(now: datetime, late_by: str) -> None:
    _store("equity_bars", bars([bar("A", date(2024, 7, 2), 1.0), bar("A", date(2024, 7, 1), 1.0)]))
    [one] = _names(now).values()
    assert (one.state, one.late_by, one.rows) == ("late" if late_by else "fresh", late_by, 2)
    if late_by:
        assert one.due_at == datetime(2024, 7, 4, 1, 0, tzinfo=UTC)


def test_each_symbol_is_held_to_its_own_exchange_and_what_has_ended_or_is_recorded_is_not_late() -> None:
    day = date(2024, 7, 3)
    rows = [
        bar("NY", day, 1.0),
        bar("LDN", day, 1.0, calendar="XLON"),  # London trades on the 4th of July
        bar("GONE", day, 1.0),
        bar("OLD", day, 1.0, source="bundled"),
        bar("TWO", date(2024, 6, 3), 1.0, source="first"),
        bar("TWO", day, 1.0, source="second"),  # the chain went on with another source
    ]
    _store("equity_bars", bars(rows))
    _store("corporate_actions", _action("GONE", date(2024, 7, 5), "delisting"))
    at = datetime(2024, 7, 5, 3, 0, tzinfo=UTC)
    assert {name: one.state for name, one in _names(at).items()} == {
        "NY": "fresh",
        "LDN": "late",
        "GONE": "ended",
        "OLD": "recorded",
        "TWO": "fresh",
    }
    [table] = freshness(load_settings(), FixedClock(at))
    assert (table.table, table.late, table.state) == ("equity_bars", True, "1 of 5 late")
    assert "LDN from test by 1 session: newest 2024-07-03, expected 2024-07-04" in table.message


def test_a_series_is_held_to_the_pauses_between_its_own_publications() -> None:
    # Published on the 10th of each month, January to June 2024: pauses of 31, 29, 31, 30, 31 days; the longest is 31.
    rows = [vintage(date(2024, month - 1, 1), date(2024, month, 10), 1.0) for month in range(2, 8)]
    # A revision of an old period is no publication of a new one.
    rows.append(vintage(date(2024, 1, 1), date(2024, 7, 20), 2.0))
    _store("macro_observations", macro(rows))
    due = datetime(2024, 7, 10, 13, 30, tzinfo=UTC) + timedelta(days=31, hours=72)
    assert _names(due - timedelta(minutes=1))["CPIAUCSL"].state == "fresh"
    late = _names(due + timedelta(days=2))["CPIAUCSL"]
    assert (late.state, late.late_by, late.due_at) == ("late", "2 days", due)
    assert "5 pauses between publications" in late.basis


def test_a_series_loaded_in_one_vintage_is_held_to_the_distance_of_its_periods() -> None:
    loaded = [vintage(date(2024, month, 1), date(2024, 6, 12), 1.0) for month in range(1, 6)]
    _store("macro_observations", macro([*loaded, vintage(date(2024, 5, 1), date(2024, 6, 12), 1.0, series="ONCE")]))
    due = datetime(2024, 6, 12, 13, 30, tzinfo=UTC) + timedelta(days=31, hours=72)
    names = _names(due)
    assert (names["CPIAUCSL"].state, names["CPIAUCSL"].due_at) == ("late", due)
    assert "distances of its periods" in names["CPIAUCSL"].basis
    assert names["ONCE"].state == "unknown"


def test_positions_are_held_to_the_release_calendar() -> None:
    row: dict[str, Any] = {"report": "legacy_futures", "market_code": "239747", "as_of_date": date(2024, 8, 13)}
    row |= {"category": "commercial", "source": "cftc", "market_name": "M", "open_interest": 1.0, "long": 1.0, "short": 1.0}
    row |= {"available_at": datetime(2024, 8, 16, 19, 30, tzinfo=UTC), "ingest_id": "c"}
    _store("cot_positions", pa.Table.from_pylist([row], schema=without_recorded_at(TABLES["cot_positions"])))
    # The report of Tuesday 2024-08-20 came out on Friday the 23rd at 15:30 New York, 19:30 UTC; a day later it is late.
    due = datetime(2024, 8, 24, 19, 30, tzinfo=UTC)
    assert _names(due - timedelta(minutes=1))["legacy_futures"].state == "fresh"
    late = _names(due)["legacy_futures"]
    assert (late.state, late.expected, late.due_at) == ("late", date(2024, 8, 20), due)


def test_a_report_without_a_known_release_date_is_owed_a_week_after_the_last_one() -> None:
    row: dict[str, Any] = {"market_code": "001602", "as_of_date": date(2013, 9, 24), "report": "legacy_futures"}
    row |= {"category": "commercial", "source": "cftc", "market_name": "M", "open_interest": 1.0, "long": 1.0, "short": 1.0}
    row |= {"available_at": datetime(2013, 9, 27, 19, 30, tzinfo=UTC), "ingest_id": "c"}
    _store("cot_positions", pa.Table.from_pylist([row], schema=without_recorded_at(TABLES["cot_positions"])))
    # The report of 2013-10-01 fell into the lapse in appropriations, and its day is not known: Friday 2013-10-04, and a day.
    due = datetime(2013, 10, 5, 19, 30, tzinfo=UTC)
    late = _names(due)["legacy_futures"]
    assert (late.state, late.expected, late.due_at) == ("late", date(2013, 10, 1), due)
    assert "no release date is known" in late.basis
