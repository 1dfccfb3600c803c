"""Gaps: each bar against its own exchange's calendar, what explains an absence, and how open ones are worked off."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import pytest

from config.errors import ServiceUnavailable
from lake.gaps import open_ranges
from tests.flows.fake_vendor import FakeVendor, closes, days, fails_for, fill, lake, outcomes, ramp, run

TUESDAY = datetime(2026, 1, 6, 12, tzinfo=UTC)
WEDNESDAY = datetime(2026, 1, 7, 12, tzinfo=UTC)


def states(symbol: str = "A", dataset: str = "equity_bars") -> dict[date, str]:
    rows = lake().read_latest("gaps", where={"symbol": symbol, "dataset": dataset}).to_pylist()
    return {row["session"]: row["state"] for row in rows}


def without(bars: dict[date, float], gone: Iterable[date]) -> dict[date, float]:
    return {day: close for day, close in bars.items() if day not in set(gone)}


# Against which calendar


def test_holidays_and_half_days_of_new_york_are_known() -> None:
    # November 2024: the 28th is Thanksgiving (closed), the 29th closes at one o'clock (a session all the same).
    bars = ramp("2024-11-25", "2024-12-03")
    assert date(2024, 11, 28) not in bars
    assert run(FakeVendor({"A": bars}), ["A"]).gaps == 0
    half_day = FakeVendor({"B": without(bars, [date(2024, 11, 29)])})
    assert run(half_day, ["B"], TUESDAY).gaps == 1
    assert states("B") == {date(2024, 11, 29): "missing"}


def test_each_row_is_held_to_its_own_calendar() -> None:
    # Good Friday is closed in London and New York, Thursday 4 July in New York only; crypto trades on all days.
    vendor = FakeVendor(
        {
            "VOD.L": without(ramp("2024-06-28", "2024-07-10", calendar="XLON"), [date(2024, 7, 4)]),
            "SPY": ramp("2024-06-28", "2024-07-10"),
            "BTC-USD": without(ramp("2024-06-28", "2024-07-10", calendar="24/7"), [date(2024, 7, 6)]),
        },
        calendars={"VOD.L": "XLON", "BTC-USD": "24/7"},
        names_per_request=3,
    )
    assert run(vendor, ["VOD.L", "SPY", "BTC-USD"]).gaps == 2
    assert (states("VOD.L"), states("SPY"), states("BTC-USD")) == (
        {date(2024, 7, 4): "missing"},
        {},
        {date(2024, 7, 6): "missing"},  # a Saturday
    )


def test_a_session_without_any_intraday_bar_is_a_gap_of_that_interval() -> None:
    vendor = FakeVendor({"A": without(ramp("2024-07-01", "2024-07-10"), [date(2024, 7, 8)])}, interval="5m")
    run(vendor, ["A"], interval="5m")
    assert states("A", "equity_bars/5m") == {date(2024, 7, 8): "missing"}
    assert states("A") == {}


# What is no gap


def test_after_a_delisting_nothing_is_missing_until_the_letters_are_used_again() -> None:
    january, march = ramp("2024-01-02", "2024-01-31"), ramp("2024-03-11", "2024-03-28")
    gone = [date(2024, 1, 17)]
    vendor = FakeVendor(
        {"A": without(january, gone) | march},
        actions={"A": [(date(2024, 2, 1), "delisting", 0.0), (date(2024, 3, 8), "listing", 0.0)]},
    )
    run(vendor, ["A"])
    # The 17th is missing while the first company was listed; 8 March is the second's first day, and has no bar.
    assert states("A") == {date(2024, 1, 17): "missing", date(2024, 3, 8): "missing"}


def test_before_a_listing_nothing_is_missing() -> None:
    early = ramp("2024-01-02", "2024-01-05")
    vendor = FakeVendor({"A": early | ramp("2024-03-11", "2024-03-28")}, actions={"A": [(date(2024, 3, 11), "listing", 0.0)]})
    run(vendor, ["A"])
    assert states("A") == {}


def test_a_delisting_that_is_learnt_later_explains_what_was_missing() -> None:
    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-01-31") | ramp("2024-03-11", "2024-03-28")})
    assert run(vendor, ["A"]).gaps == len(days("2024-02-01", "2024-03-08"))
    vendor.actions = {"A": [(date(2024, 2, 1), "delisting", 0.0)]}
    assert run(vendor, ["A"], TUESDAY, full=True).gaps == 0
    assert set(states("A").values()) == {"not_listed"}


# Working them off


def test_open_gaps_are_asked_for_in_windows_of_exactly_what_is_missing() -> None:
    bars = ramp("2024-01-02", "2024-06-28")
    gone = [*days("2024-02-05", "2024-02-08"), date(2024, 2, 13), date(2024, 5, 20)]
    vendor = FakeVendor({"A": without(bars, gone), "B": dict(bars)})
    assert run(vendor, ["A", "B"]).gaps == 6
    ranges = [(one.first, one.last, len(one.missing)) for one in open_ranges(lake())]
    # 8 and 13 February lie five days apart: one window; 20 May is its own.
    assert ranges == [(date(2024, 2, 5), date(2024, 2, 13), 5), (date(2024, 5, 20), date(2024, 5, 20), 1)]
    vendor.history["A"] = bars
    vendor.asked.clear()
    report = fill(vendor, at=TUESDAY)
    assert vendor.asked == [
        (("A",), date(2024, 2, 5), date(2024, 2, 13)),
        (("A",), date(2024, 5, 20), date(2024, 5, 20)),
    ]
    assert (report.gaps, report.gaps_filled, report.gaps_without_trading) == (0, 6, 0)
    assert closes("A") == bars
    assert set(states("A").values()) == {"filled"}


def test_a_session_without_trading_by_the_sources_account_is_asked_once() -> None:
    bars = ramp("2024-01-02", "2024-03-28")
    gone = [date(2024, 2, 7), date(2024, 2, 8)]
    vendor = FakeVendor({"A": without(bars, gone)})
    run(vendor, ["A"])
    vendor.history["A"][date(2024, 2, 8)] = bars[date(2024, 2, 8)]
    report = fill(vendor, at=TUESDAY)
    assert (report.gaps, report.gaps_filled, report.gaps_without_trading) == (0, 1, 1)
    assert states("A") == {date(2024, 2, 7): "no_data", date(2024, 2, 8): "filled"}
    vendor.asked.clear()
    assert fill(vendor, at=WEDNESDAY).notes == ("no gap is open",)
    assert vendor.asked == []
    # An ordinary run does not open it again; a bar that comes after all closes it for good.
    assert run(vendor, ["A"], WEDNESDAY, full=True).gaps == 0
    assert states("A")[date(2024, 2, 7)] == "no_data"
    vendor.history["A"] = bars
    run(vendor, ["A"], WEDNESDAY + timedelta(days=1), full=True)
    assert states("A")[date(2024, 2, 7)] == "filled"


def test_a_gap_whose_source_fails_or_whose_row_is_refused_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    bars = ramp("2024-01-02", "2024-03-28")
    gone = [date(2024, 2, 7)]
    vendor = FakeVendor({name: without(bars, gone) for name in "ABC"})
    run(vendor, list("ABC"))
    vendor.wrong = fails_for({"A": ServiceUnavailable("503")})
    vendor.history["B"][date(2024, 2, 7)] = -1.0
    vendor.history["C"] = bars
    report = fill(vendor, at=TUESDAY)
    assert (report.gaps, report.gaps_filled, report.gaps_without_trading) == (2, 1, 0)
    assert outcomes(report) == {"A": "failed", "B": "refused", "C": "stored"}
    assert {symbol: states(symbol)[date(2024, 2, 7)] for symbol in "ABC"} == {"A": "missing", "B": "missing", "C": "filled"}


def test_only_its_own_source_fills_a_gap() -> None:
    bars = ramp("2024-01-02", "2024-03-28")
    first = FakeVendor({"A": without(bars, [date(2024, 2, 7)])}, name="first")
    run(first, ["A"])
    second = FakeVendor({"A": bars}, name="second")
    report = fill(second, at=TUESDAY)
    assert second.asked == []
    assert report.gaps == 1
    assert report.notes == ("1 gap is in bars of A from first, which was not asked: only its own bars fill them (--source first)",)


def test_an_overlap_looks_for_gaps_in_its_own_window_and_leaves_older_ones_open() -> None:
    bars = ramp("2024-01-02", "2024-03-28")
    vendor = FakeVendor({"A": without(bars, [date(2024, 1, 17)])})
    assert run(vendor, ["A"]).gaps == 1
    vendor.history["A"] |= {date(2024, 4, 2): 200.0}  # 1 April, a session, does not come
    assert run(vendor, ["A"], TUESDAY).gaps == 2
    assert states("A") == {date(2024, 1, 17): "missing", date(2024, 4, 1): "missing"}


def test_nothing_to_fill_in_an_empty_lake() -> None:
    vendor = FakeVendor({})
    report = fill(vendor)
    assert (report.names, report.outcome, report.notes) == ((), "unchanged", ("no gap is open",))
