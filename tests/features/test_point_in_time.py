"""Panels from a lake: what was known, of one source, on one share count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from config.errors import InputError, QualityError, UnknownNameError
from features.engine import compute
from features.point_in_time import PanelRequest, load_panel, read_panel
from lake import Lake
from tests.features.lakes import at, bars, lake_in, observation, put, split

DAYS = ("2018-06-04", "2018-06-05", "2018-06-06", "2018-06-07", "2018-06-08")


def prices(*closes: float) -> dict[str, float]:
    return dict(zip(DAYS, closes, strict=False))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return lake_in(tmp_path)


def test_a_panel_is_the_union_of_the_sessions_with_the_columns_in_order(lake: Lake) -> None:
    put(
        lake,
        "equity_bars",
        bars("AAA", prices(10, 11, 12)) + bars("BBB", {DAYS[1]: 21.0, DAYS[4]: 24.0}, closes_only=True),
        ingest_id="i",
    )
    panel = load_panel(lake.publish(), ("BBB", "AAA"))
    assert panel.symbols == ("BBB", "AAA")
    assert [f"{day:%Y-%m-%d}" for day in panel.sessions] == [DAYS[0], DAYS[1], DAYS[2], DAYS[4]]
    np.testing.assert_array_equal(panel.close["AAA"], [10, 11, 12, np.nan])
    np.testing.assert_array_equal(panel.close["BBB"], [np.nan, 21, np.nan, 24])
    np.testing.assert_array_equal(panel.open["AAA"], [9.5, 10.5, 11.5, np.nan])
    assert panel.open["BBB"].isna().all(), "a source of closes has no open, and none is made"
    assert panel.basis == {"AAA": "as_traded", "BBB": "as_traded"}
    assert panel.ingest_ids == ("i",)
    assert panel.snapshot_id == lake.snapshot().id


def test_the_window_is_cut_on_sessions_both_ends_included(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", prices(10, 11, 12, 13, 14)))
    panel = load_panel(lake.publish(), ["AAA"], start=at(DAYS[1]).date(), end=at(DAYS[3]).date())
    np.testing.assert_array_equal(panel.close["AAA"], [11, 12, 13])


def test_bars_are_those_known_at_as_of(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", prices(10, 11, 12)), recorded_at=at("2018-06-06", "23:00"))
    put(lake, "equity_bars", bars("AAA", prices(10, 99, 12)), recorded_at=at("2018-07-01"))  # the vendor corrects the 5th
    snapshot = lake.publish()
    np.testing.assert_array_equal(load_panel(snapshot, ["AAA"]).close["AAA"], [10, 99, 12])
    np.testing.assert_array_equal(load_panel(snapshot, ["AAA"], as_of=at("2018-06-30")).close["AAA"], [10, 11, 12])
    np.testing.assert_array_equal(load_panel(snapshot, ["AAA"], as_of=at(DAYS[1], "20:00")).close["AAA"], [10, 11])
    np.testing.assert_array_equal(load_panel(snapshot, ["AAA"], as_of=at(DAYS[1], "19:59")).close["AAA"], [10])


def test_a_corrected_bar_says_when_its_row_and_the_later_ones_became_known(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", prices(10, 11, 12)), recorded_at=at("2018-06-06", "23:00"))
    put(lake, "equity_bars", bars("AAA", prices(10, 99)), recorded_at=at("2018-06-05", "23:30"))
    _, known_at = read_panel(lake.publish(), PanelRequest(symbols=("AAA",)))
    expected = [at(DAYS[0], "20:00"), at(DAYS[1], "23:30"), at(DAYS[2], "20:00")]  # closes at 16:00 New York, in summer 20:00 UTC
    assert list(known_at["AAA"]) == [pd.Timestamp(moment) for moment in expected]


def test_two_sources_of_a_symbol_are_never_mixed(lake: Lake) -> None:
    put(
        lake,
        "equity_bars",
        bars("AAA", prices(10, 11)) + bars("AAA", prices(10.1, 11.1, 12.1), source="two") + bars("BBB", prices(1)),
    )
    snapshot = lake.publish()
    with pytest.raises(InputError, match=r"AAA comes from 2 sources \(one, two\)"):
        load_panel(snapshot, ["AAA", "BBB"])
    np.testing.assert_array_equal(load_panel(snapshot, ["AAA"], source="two").close["AAA"], [10.1, 11.1, 12.1])
    panel = load_panel(snapshot, ["AAA", "BBB"], source={"AAA": "two"})
    np.testing.assert_array_equal(panel.close["BBB"], [1, np.nan, np.nan])
    with pytest.raises(UnknownNameError, match="BBB has no bar from source 'two'"):
        load_panel(snapshot, ["AAA", "BBB"], source="two")


def test_prices_as_traded_are_put_on_one_share_count(lake: Lake) -> None:
    # Two for one on the 6th, then three for one on the 8th: a share of the 4th is six of the 8th.
    put(
        lake,
        "equity_bars",
        bars("AAA", prices(60, 66, 33, 36, 12)) + bars("BBB", prices(60, 66, 33, 36, 12), basis="vendor_adjusted"),
    )
    put(
        lake,
        "corporate_actions",
        [split(symbol, day, value) for symbol in ("AAA", "BBB") for day, value in ((DAYS[2], 2.0), (DAYS[4], 3.0))],
    )
    panel = load_panel(lake.publish(), ["AAA", "BBB"])
    np.testing.assert_allclose(panel.close["AAA"], [10, 11, 11, 12, 12], rtol=1e-15)
    np.testing.assert_allclose(panel.high["AAA"], [61 / 6, 67 / 6, 34 / 3, 37 / 3, 13], rtol=1e-15)
    np.testing.assert_allclose(panel.volume["AAA"], [600, 600, 300, 300, 100], rtol=1e-15)
    np.testing.assert_array_equal(panel.close["BBB"], [60, 66, 33, 36, 12])  # the vendor has done it


def test_a_split_counts_only_when_it_was_known_and_has_happened(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", prices(60, 66, 33, 36)))
    put(lake, "corporate_actions", [split("AAA", DAYS[2], 2.0, available=at("2018-06-20")), split("AAA", "2018-06-11", 3.0)])
    snapshot = lake.publish()
    np.testing.assert_array_equal(load_panel(snapshot, ["AAA"], as_of=at("2018-06-19")).close["AAA"], [60, 66, 33, 36])
    np.testing.assert_array_equal(load_panel(snapshot, ["AAA"], as_of=at("2018-06-20")).close["AAA"], [30, 33, 33, 36])
    np.testing.assert_array_equal(load_panel(snapshot, ["AAA"], end=at(DAYS[1]).date()).close["AAA"], [60, 66])


def test_a_split_told_by_two_sources_counts_once_and_a_contradiction_is_refused(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", prices(60, 66, 33)))
    put(lake, "corporate_actions", [split("AAA", DAYS[2], 2.0), split("AAA", DAYS[2], 2.0, source="two")])
    np.testing.assert_array_equal(load_panel(lake.publish(), ["AAA"]).close["AAA"], [30, 33, 33])
    put(lake, "corporate_actions", [split("AAA", DAYS[1], 2.0), split("AAA", DAYS[1], 3.0, source="two")])
    with pytest.raises(QualityError, match="disagree about the split of 2018-06-05: 2 and 3"):
        load_panel(lake.publish(), ["AAA"])


def test_features_do_not_see_a_split(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", prices(60, 66, 33, 36, 12)))
    put(lake, "corporate_actions", [split("AAA", DAYS[2], 2.0), split("AAA", DAYS[4], 3.0)])
    close = load_panel(lake.publish(), ["AAA"]).close
    np.testing.assert_allclose(close.pct_change().iloc[1:]["AAA"], [0.1, 0, 1 / 11, 0], atol=1e-15)


def test_macro_values_are_read_as_known_at_as_of(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", prices(10, 11, 12)))
    put(lake, "macro_observations", [
        observation("VIXCLS", DAYS[0], 12.5, at(DAYS[0], "20:15")),
        observation("VIXCLS", DAYS[1], 13.5, at(DAYS[1], "20:15")),
        observation("VIXCLS", DAYS[1], 14.5, at(DAYS[2], "09:00")),
    ], ingest_id="m")  # fmt: skip
    snapshot = lake.publish()
    panel = load_panel(snapshot, ["AAA"], macro=("VIXCLS",))
    np.testing.assert_array_equal(panel.macro["VIXCLS"], [np.nan, 12.5, 14.5])
    assert panel.ingest_ids == ("m", "test")
    early = load_panel(snapshot, ["AAA"], macro=("VIXCLS",), as_of=at(DAYS[2], "08:00"))
    np.testing.assert_array_equal(early.macro["VIXCLS"], [np.nan, 12.5])
    values = compute(panel, ["vix_level"])["vix_level"]["AAA"]
    np.testing.assert_array_equal(values, [np.nan, 12.5, 14.5])


def test_two_sources_of_a_macro_series_are_never_mixed(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", prices(10, 11)))
    rows = [observation("CPI", "2018-05-01", value, at(DAYS[0]), source=source) for value, source in ((1.0, "one"), (2.0, "two"))]
    put(lake, "macro_observations", rows)
    snapshot = lake.publish()
    with pytest.raises(InputError, match=r"CPI comes from 2 sources \(one, two\).*\n.*macro_source"):
        load_panel(snapshot, ["AAA"], macro=("CPI",))
    assert (load_panel(snapshot, ["AAA"], macro=("CPI",), macro_source={"CPI": "two"}).macro["CPI"] == 2.0).all()


def test_a_session_off_the_calendar_closes_when_its_last_bar_is_complete(lake: Lake) -> None:
    put(lake, "equity_bars", bars("BTC", {"2018-06-08": 1.0, "2018-06-09": 2.0}))  # a Saturday, complete at 23:00 UTC
    put(lake, "macro_observations", [observation("CPI", "2018-05-01", 5.0, at("2018-06-09", "22:30"))])
    panel, known_at = read_panel(lake.publish(), PanelRequest(symbols=("BTC",), macro=("CPI",)))
    np.testing.assert_array_equal(panel.macro["CPI"], [np.nan, 5.0])
    assert known_at["BTC"].iloc[1] == pd.Timestamp(at("2018-06-09", "23:00"))


def test_what_is_not_there_is_named_and_what_has_no_bar_in_the_window_is_missing(lake: Lake) -> None:
    put(lake, "equity_bars", bars("SP500", prices(10, 11)) + bars("LATE", {DAYS[4]: 5.0}))
    put(lake, "macro_observations", [observation("VIXCLS", DAYS[0], 12.5, at(DAYS[0]))])
    snapshot = lake.publish()
    with pytest.raises(UnknownNameError, match=r"'SP50'[^?]*\n.*did you mean SP500"):
        load_panel(snapshot, ["SP50"])
    with pytest.raises(UnknownNameError, match=r"'VIX'[^?]*\n.*VIXCLS"):
        load_panel(snapshot, ["SP500"], macro=("VIX",))
    assert load_panel(snapshot, ["SP500", "LATE"], end=at(DAYS[1]).date()).close["LATE"].isna().all()
    with pytest.raises(InputError, match="no bar of SP500 .* as known at 2018-06-01 12:00 UTC"):
        load_panel(snapshot, ["SP500"], as_of=at("2018-06-01"))
    with pytest.raises(InputError, match="no bar of LATE"):
        load_panel(snapshot, ["LATE"], end=at(DAYS[1]).date())


def test_a_panel_without_symbols_or_with_one_twice_or_a_naive_moment_is_refused(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", prices(10, 11)))
    snapshot = lake.publish()
    with pytest.raises(InputError, match="no symbols"):
        load_panel(snapshot, [])
    with pytest.raises(InputError, match="named twice: AAA"):
        load_panel(snapshot, ["AAA", "AAA"])
    with pytest.raises(InputError, match="no time zone"):
        load_panel(snapshot, ["AAA"], as_of=at(DAYS[0]).replace(tzinfo=None))


def test_two_bars_of_one_session_or_two_bases_are_refused(lake: Lake) -> None:
    twice = bars("AAA", prices(10))
    twice += [{**twice[0], "event_time": at(DAYS[0], "19:00")}]
    put(lake, "equity_bars", twice + bars("BBB", prices(1)) + bars("BBB", {DAYS[1]: 1.0}, basis="vendor_adjusted"))
    snapshot = lake.publish()
    with pytest.raises(QualityError, match="AAA has two bars for the session 2018-06-04"):
        load_panel(snapshot, ["AAA"])
    with pytest.raises(QualityError, match="BBB has prices as traded and prices adjusted"):
        load_panel(snapshot, ["BBB"])


def test_a_panel_has_the_value_of_an_assumed_vintage_that_was_known_until_it_was_revised(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    put(lake, "equity_bars", bars("AAA", {"2024-03-14": 10.0, "2024-03-18": 11.0}))
    known = {**observation("CPI", "2024-01-01", 100.0, at("2024-02-01")), "vintage_kind": "assumed"}
    put(lake, "macro_observations", [known], recorded_at=at("2024-03-01"))
    put(lake, "macro_observations", [{**known, "value": 105.0}], recorded_at=at("2024-03-16"))
    snapshot = lake.publish()
    assert load_panel(snapshot, ("AAA",), macro=("CPI",)).macro["CPI"].tolist() == [100.0, 105.0]
    assert load_panel(snapshot, ("AAA",), macro=("CPI",), as_of=at("2024-03-15")).macro["CPI"].tolist() == [100.0]
