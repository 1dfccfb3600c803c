"""Companies through their letters, on the case that every vendor's file gets wrong: META.

Until 2022-01-31 the letters META were those of a fund, which then took METV. On 2022-06-09 Facebook gave up FB for META. In these
tests FB then goes to a third company, which is delisted.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from config.errors import InputError, QualityError, UnknownNameError
from features.point_in_time import load_panel
from lake import Lake
from lake.adjustment import adjusted_bars
from lake.listings import Spell, histories, history, read_listings
from tests.features.lakes import action, at, bars, lake_in, put, split

RENAMES = [
    action("META", "2022-01-31", "rename", new_symbol="METV"),
    action("FB", "2022-06-09", "rename", new_symbol="META", available=at("2022-05-31")),
]
THIRD = [action("FB", "2022-07-05", "listing"), action("FB", "2022-07-08", "delisting", 0.75)]
FACEBOOK = (Spell("FB", None, date(2022, 6, 9)), Spell("META", date(2022, 6, 9), None))
FUND = (Spell("META", None, date(2022, 1, 31)), Spell("METV", date(2022, 1, 31), None))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = lake_in(tmp_path)
    put(lake, "equity_bars", [
        *bars("FB", {"2022-01-27": 294.0, "2022-01-28": 301.0, "2022-06-07": 195.0, "2022-06-08": 196.0}),
        *bars("META", {"2022-01-27": 12.0, "2022-01-28": 13.0, "2022-06-09": 184.0, "2022-06-10": 175.0, "2022-07-07": 170.0,
                       "2022-07-11": 163.0}),
        *bars("METV", {"2022-01-31": 14.0, "2022-06-08": 9.0, "2022-06-09": 8.0}),
        *bars("FB", {"2022-07-05": 2.0, "2022-07-06": 1.5, "2022-07-07": 1.0}),
    ])  # fmt: skip
    put(lake, "corporate_actions", RENAMES + THIRD)
    return lake


def closes(lake: Lake, symbol: str, **options: Any) -> list[tuple[str, float]]:
    found = adjusted_bars(lake.publish(), [symbol], **options)
    return list(zip(found["letters"].to_pylist(), found["close"].to_pylist(), strict=True))


def test_a_company_is_found_by_any_of_its_letters_and_a_day(lake: Lake) -> None:
    snapshot = lake.publish()
    assert history(snapshot, "META").spells == FACEBOOK
    assert history(snapshot, "META", date(2022, 6, 9)).spells == FACEBOOK
    assert history(snapshot, "FB", date(2022, 6, 8)).spells == FACEBOOK
    assert history(snapshot, "META", date(2022, 1, 30)).spells == FUND
    assert history(snapshot, "METV").spells == FUND
    third = history(snapshot, "FB")
    assert third.spells == (Spell("FB", date(2022, 7, 5), date(2022, 7, 8)),)
    assert (third.delisted, third.final_value) == (date(2022, 7, 8), 0.75)
    assert history(snapshot, "AAA").plain


def test_letters_that_nobody_held_on_a_day_are_an_error_that_says_who_did_when(lake: Lake) -> None:
    with pytest.raises(UnknownNameError, match="nobody held the letters META on 2022-03-01") as caught:
        history(lake.publish(), "META", date(2022, 3, 1))
    assert caught.value.remedy == "known: META until 2022-01-31; META from 2022-06-09"


def test_a_universe_of_a_day_is_turned_into_the_letters_of_another(lake: Lake) -> None:
    found = histories(lake.publish(), ["FB", "META", "AAA"], date(2022, 1, 28))
    assert {then: company.symbol for then, company in found.items()} == {"FB": "META", "META": "METV", "AAA": "AAA"}
    assert found["FB"].letters_on(date(2022, 6, 8)) == "FB"
    assert found["FB"].letters_on(date(2022, 6, 9)) == "META"
    assert histories(lake.publish(), ["FB"])["FB"].letters_on(date(2022, 7, 8)) is None


def test_a_rename_is_followed_only_once_it_was_known(lake: Lake) -> None:
    snapshot = lake.publish()
    assert history(snapshot, "FB", date(2022, 5, 1), as_of=at("2022-05-30")).spells == (Spell("FB", None, None),)
    assert history(snapshot, "FB", date(2022, 5, 1), as_of=at("2022-05-31")).spells == FACEBOOK


def test_the_company_known_by_its_letters_of_today_gives_its_earlier_bars_and_nobody_elses(lake: Lake) -> None:
    assert closes(lake, "META") == [
        ("FB", 294), ("FB", 301), ("FB", 195), ("FB", 196), ("META", 184), ("META", 175), ("META", 170), ("META", 163)
    ]  # fmt: skip
    assert closes(lake, "METV") == [("META", 12), ("META", 13), ("METV", 14), ("METV", 9), ("METV", 8)]
    assert closes(lake, "FB") == [("FB", 2), ("FB", 1.5), ("FB", 1)]


def test_letters_mean_who_held_them_at_the_end_of_the_read(lake: Lake) -> None:
    assert closes(lake, "META", end=date(2022, 1, 28)) == [("META", 12), ("META", 13)]
    assert closes(lake, "FB", end=date(2022, 6, 8)) == [("FB", 294), ("FB", 301), ("FB", 195), ("FB", 196)]
    assert closes(lake, "FB", end=date(2022, 6, 9))[-1] == ("META", 184)  # nobody else has taken FB by then
    assert closes(lake, "META", end=date(2022, 3, 1))[-1] == ("METV", 14)
    assert [name for name, _ in closes(lake, "META", follow_renames=False)] == ["META"] * 6


def test_actions_go_with_the_company_not_with_the_letters(lake: Lake) -> None:
    put(lake, "corporate_actions", [
        split("META", "2022-01-28", 10.0),  # the fund's
        split("FB", "2022-01-28", 2.0),
        split("FB", "2022-06-09", 4.0),  # told under the letters that were left that day
        split("META", "2022-06-10", 5.0),
        split("FB", "2022-07-06", 3.0),  # the third company's
    ])  # fmt: skip
    found = adjusted_bars(lake.publish(), ["META", "METV", "FB"]).to_pydict()
    by_symbol: dict[str, list[float]] = {}
    for symbol, factor in zip(found["symbol"], found["split_factor"], strict=True):
        by_symbol.setdefault(symbol, []).append(round(1 / factor, 9))
    assert by_symbol == {"META": [40, 20, 20, 20, 5, 1, 1, 1], "METV": [10, 1, 1, 1, 1], "FB": [3, 1, 1]}


def test_one_company_asked_for_twice_is_refused(lake: Lake) -> None:
    with pytest.raises(InputError, match="META and FB are one company"):
        adjusted_bars(lake.publish(), ["META", "FB"], end=date(2022, 6, 30))
    assert adjusted_bars(lake.publish(), ["META", "FB"]).num_rows == 11  # later FB is another company


def test_a_panel_follows_renames_and_ends_with_the_delisting(lake: Lake) -> None:
    panel = load_panel(lake.publish(), ["META", "FB"])
    assert panel.close["META"].tolist()[:4] == [294, 301, 195, 196]
    np.testing.assert_array_equal(panel.close.loc["2022-07-05":, "FB"], [2, 1.5, 1, np.nan])
    np.testing.assert_array_equal(panel.close.loc[:"2022-07-01", "FB"], np.nan)
    assert (panel.companies["FB"].delisted, panel.companies["FB"].final_value) == (date(2022, 7, 8), 0.75)
    assert panel.companies["META"].delisted is None


def test_a_panel_cut_short_does_not_know_who_will_be_delisted_or_renamed(lake: Lake) -> None:
    whole = load_panel(lake.publish(), ["META", "FB"])
    cut = whole.upto(whole.sessions[whole.sessions < pd.Timestamp("2022-07-08")][-1])
    assert cut.companies["FB"].delisted is None
    assert cut.companies["FB"].spells == (Spell("FB", date(2022, 7, 5), None),)
    early = whole.upto(whole.sessions[1])
    assert early.companies["META"].spells == (Spell("FB", None, None),)


def test_bars_that_may_be_the_companys_own_labelled_later_are_refused(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    put(lake, "equity_bars", bars("META", {"2022-06-08": 196.0, "2022-06-09": 184.0}))
    put(lake, "corporate_actions", RENAMES[1:])
    with pytest.raises(QualityError, match="FB became META on 2022-06-09; there are bars of META before that day and none of FB"):
        adjusted_bars(lake.publish(), ["META"])
    assert closes(lake, "META", follow_renames=False) == [("META", 196), ("META", 184)]
    put(lake, "corporate_actions", RENAMES[:1])  # who held META before is known: those bars are the fund's
    assert closes(lake, "META") == [("META", 184)]
    put(lake, "equity_bars", bars("FB", {"2022-06-08": 196.5}))
    assert closes(lake, "META") == [("FB", 196.5), ("META", 184)]


def test_letters_left_twice_are_refused_only_where_they_are_asked_for(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    put(
        lake,
        "corporate_actions",
        [action("AAA", "2022-01-03", "delisting"), action("AAA", "2022-02-01", "rename", new_symbol="BBB")],
    )
    listings = read_listings(lake.publish())
    with pytest.raises(QualityError, match="AAA: rename on 2022-02-01, but the letters were given up on 2022-01-03"):
        listings.history("AAA")
    assert listings.history("CCC").plain


def test_letters_called_delisted_on_the_day_of_their_rename_are_renamed(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    put(lake, "corporate_actions", [RENAMES[1], action("FB", "2022-06-09", "delisting", source="two")])
    found = history(lake.publish(), "FB")
    assert found.spells == FACEBOOK
    assert found.delisted is None


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            action("FB", "2022-06-09", "rename", new_symbol="MVRS", source="two"),
            "the rename of 2022-06-09: one says META and two",
        ),
        (action("FB", "2022-06-10", "rename", new_symbol="META", source="two"), "the day of a rename: one says 2022-06-09 and two"),
    ],
)
def test_sources_that_disagree_about_letters_are_named(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    lake = lake_in(tmp_path)
    put(lake, "corporate_actions", [RENAMES[1], other])
    for letters in ("FB", "META"):
        with pytest.raises(QualityError, match=f"FB: sources disagree about {said}"):
            history(lake.publish(), letters)
    assert read_listings(lake.publish(), action_source="one").history("FB").spells == FACEBOOK


def test_a_delisting_told_by_two_sources_keeps_the_value_that_one_of_them_knows(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    put(
        lake,
        "corporate_actions",
        [action("X", "2022-07-08", "delisting"), action("X", "2022-07-08", "delisting", 12.5, source="two")],
    )
    assert history(lake.publish(), "X").final_value == 12.5


def test_letters_that_change_hands_in_a_circle_on_one_day(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    swap = [action("A", "2022-02-01", "rename", new_symbol="B"), action("B", "2022-02-01", "rename", new_symbol="A")]
    put(lake, "corporate_actions", swap)
    put(
        lake, "equity_bars", bars("A", {"2022-01-31": 1.0, "2022-02-01": 20.0}) + bars("B", {"2022-01-31": 10.0, "2022-02-01": 2.0})
    )
    assert closes(lake, "A") == [("B", 10), ("A", 20)]
    assert closes(lake, "B") == [("A", 1), ("B", 2)]


def test_an_action_of_the_day_of_a_rename_told_under_both_letters_counts_once(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    put(lake, "equity_bars", bars("OLD", {"2022-01-31": 50.0}) + bars("NEW", {"2022-02-01": 24.0}))
    put(lake, "corporate_actions", [action("OLD", "2022-02-01", "rename", new_symbol="NEW")])
    for letters in ("OLD", "NEW"):
        put(
            lake,
            "corporate_actions",
            [split(letters, "2022-02-01", 2.0), action(letters, "2022-02-01", "dividend", 1.0)],
        )
    assert closes(lake, "NEW") == [("OLD", 25), ("NEW", 24)]  # 12.5, were it split twice
    # A dividend of 1 on the new share is 2 of the 50 that an old one was worth: 24 / 25.
    assert closes(lake, "NEW", adjust="total") == [("OLD", pytest.approx(24)), ("NEW", 24)]
    put(lake, "corporate_actions", [split("OLD", "2022-02-01", 3.0)])
    with pytest.raises(QualityError, match="one gives the split of 2022-02-01 under two letters as 2 and 3"):
        closes(lake, "NEW")
