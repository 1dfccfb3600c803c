"""Adjusted bars: the arithmetic by hand, and everything an action can be that is not simple."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import InputError, QualityError
from lake import Lake, Snapshot
from lake.adjustment import adjusted_bars, read_adjusted
from lake.factors import factors
from tests.features.lakes import action, at, bars, lake_in, put, split

# Ten sessions; 2018-07-04 was no session, 2018-06-30 and 07-01 were a weekend.
DAYS = ("2018-06-26", "2018-06-27", "2018-06-28", "2018-06-29", "2018-07-02", "2018-07-03", "2018-07-05", "2018-07-06",
        "2018-07-09", "2018-07-10")  # fmt: skip


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return lake_in(tmp_path)


def closes(*values: float) -> dict[str, float]:
    return dict(zip(DAYS, values, strict=False))


def read(lake: Lake, symbol: str = "AAA", **options: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = adjusted_bars(lake.publish(), [symbol], **options).to_pydict()
    return found


def test_ten_sessions_by_hand(lake: Lake) -> None:
    # raw closes              100    102    101    104    52     51     50     49     50     51
    # events                                dividend 1    split 2:1     dividend 0.5 and gain 0.25, ex Saturday 07-07: Monday
    put(lake, "equity_bars", bars("AAA", closes(100, 102, 101, 104, 52, 51, 50, 49, 50, 51)))
    put(lake, "corporate_actions", [
        action("AAA", DAYS[2], "dividend", 1.0),
        split("AAA", DAYS[4], 2.0),
        action("AAA", "2018-07-07", "dividend", 0.5),
        action("AAA", "2018-07-09", "capital_gain", 0.25),
    ])  # fmt: skip
    first, second = 1 - 1 / 102, 1 - 0.75 / 49
    total = read(lake, adjust="total")
    np.testing.assert_allclose(total["price_factor"], [first * second] * 2 + [second] * 6 + [1] * 2, rtol=1e-14)
    np.testing.assert_allclose(total["split_factor"], [0.5] * 4 + [1] * 6, rtol=0)
    # 100 × 0.990196… × 0.984694… / 2 = 48.7520…
    np.testing.assert_allclose(total["close"][0], 48.75200080032013, rtol=1e-14)
    np.testing.assert_allclose(total["close"][4:], [52 * second, 51 * second, 50 * second, 49 * second, 50, 51], rtol=1e-14)
    np.testing.assert_allclose(total["high"][3], 105 * second / 2, rtol=1e-14)
    assert total["volume"] == [200.0] * 4 + [100.0] * 6
    # The total return over the dividend's ex-date: 101 and 1 in cash for 102.
    assert total["close"][2] / total["close"][1] == pytest.approx(101 / (102 - 1))
    by_splits = read(lake, adjust="splits")
    np.testing.assert_array_equal(by_splits["close"], [50, 51, 50.5, 52, 52, 51, 50, 49, 50, 51])
    assert by_splits["volume"] == [200.0] * 4 + [100.0] * 6
    assert read(lake, adjust="none")["close"] == [100, 102, 101, 104, 52, 51, 50, 49, 50, 51]


def test_a_dividend_on_the_day_of_a_split_is_of_the_new_shares(lake: Lake) -> None:
    # Who held one share at 100 held two the day after, at 49.5 and with 0.5 in cash each: nothing gained, nothing lost.
    put(lake, "equity_bars", bars("AAA", closes(100, 49.5)))
    put(lake, "corporate_actions", [split("AAA", DAYS[1], 2.0), action("AAA", DAYS[1], "dividend", 0.5)])
    assert read(lake, adjust="total")["close"] == [49.5, 49.5]


def test_a_dividend_before_a_split_is_of_the_old_shares_also_where_the_bar_between_is_missing(lake: Lake) -> None:
    # A halt: no bars on the 28th and 29th. A dividend of 1 on the 28th, of a share of 100; ten for one on the 29th; 0.2 on the
    # new shares of 2 July, which are 2 on an old one. So 97 of the 100 are left: 9.7 a new share.
    put(lake, "equity_bars", bars("AAA", {DAYS[0]: 100.0, DAYS[1]: 100.0, DAYS[4]: 9.7}))
    put(
        lake,
        "corporate_actions",
        [action("AAA", DAYS[2], "dividend", 1.0), split("AAA", DAYS[3], 10.0), action("AAA", DAYS[4], "dividend", 0.2)],
    )
    np.testing.assert_allclose(read(lake, adjust="total")["close"], [9.7, 9.7, 9.7], rtol=1e-14)


def test_an_action_on_or_before_the_first_bar_or_after_the_last_changes_nothing(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 101, 102)))
    put(lake, "corporate_actions", [
        split("AAA", "2018-06-20", 3.0),
        action("AAA", DAYS[0], "dividend", 5.0),
        action("AAA", DAYS[3], "dividend", 500.0),
        split("AAA", "2018-06-30", 7.0),
    ])  # fmt: skip
    assert read(lake, adjust="total")["close"] == [100, 101, 102]


def test_bars_are_adjusted_up_to_the_end_of_the_read_only(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 102, 51, 52)) + bars("BBB", closes(1, 2, 3, 4)))
    put(lake, "corporate_actions", [split("AAA", DAYS[2], 2.0)])
    assert read(lake, end=date.fromisoformat(DAYS[1]))["close"] == [100, 102]
    assert read(lake, end=date.fromisoformat(DAYS[2]))["close"] == [50, 51, 51]
    assert read(lake, "BBB")["close"] == [1, 2, 3, 4]


def test_what_was_not_known_yet_does_not_adjust(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 102, 51, 52)))
    put(lake, "corporate_actions", [split("AAA", DAYS[2], 2.0, available=at("2018-07-20"))])
    assert read(lake)["close"] == [50, 51, 51, 52]
    assert read(lake, as_of=at("2018-07-19"))["close"] == [100, 102, 51, 52]
    assert read(lake, as_of=at("2018-07-20"))["close"] == [50, 51, 51, 52]
    assert read(lake, as_of="end")["close"] == [100, 102, 51, 52]  # at the last bar's close nobody knew


def test_as_of_end_is_the_view_of_the_last_session_read(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 102, 51, 52)), recorded_at=at("2018-06-29", "23:00"))
    put(lake, "equity_bars", bars("AAA", {DAYS[0]: 90.0}), recorded_at=at("2018-07-05"))
    assert read(lake)["close"][0] == 90
    assert read(lake, as_of="end")["close"] == [100, 102, 51, 52]
    assert read(lake, as_of="end", end=date.fromisoformat(DAYS[1]))["close"] == [100, 102]


def test_a_payment_is_taken_out_of_the_last_close_there_is(lake: Lake) -> None:
    days = closes(100, 80, 79)
    del days[DAYS[1]]  # the bar before the ex-date is missing: the close before it serves
    put(lake, "equity_bars", bars("AAA", days))
    put(lake, "corporate_actions", [action("AAA", DAYS[2], "dividend", 2.0)])
    assert read(lake, adjust="total")["close"] == [98.0, 79.0]
    found = factors(
        np.array(DAYS[:4], "datetime64[D]"), np.array([50.0, np.nan, 49.0, 49.0]),
        np.array([DAYS[2]], "datetime64[D]"), np.ones(1), np.array([1.0]),
    )  # fmt: skip
    np.testing.assert_allclose(found.price, [0.98, 0.98, 1, 1])


def test_a_payment_out_of_a_close_a_month_old_is_refused_unless_wanted(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", {"2018-05-25": 100.0, "2018-06-27": 50.0}))
    put(lake, "corporate_actions", [action("AAA", "2018-06-27", "dividend", 1.0)])
    with pytest.raises(QualityError, match="AAA: 1 a share is paid on 2018-06-27; the last close before it is of 2018-05-25"):
        read(lake, adjust="total")
    assert read(lake, adjust="total", reference_days=None)["close"] == [99.0, 50.0]
    assert read(lake, adjust="splits")["close"] == [100.0, 50.0]


@pytest.mark.parametrize("amount", [100.0, 250.0])
def test_a_dividend_not_below_the_price_is_refused(lake: Lake, amount: float) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 90)))
    put(lake, "corporate_actions", [action("AAA", DAYS[1], "dividend", amount)])
    with pytest.raises(QualityError, match=f"AAA: {amount:g} a share is paid on 2018-06-27, .* the close before it is 100"):
        read(lake, adjust="total")


def test_a_payment_without_any_close_before_it_is_refused() -> None:
    days = np.array(DAYS[:2], "datetime64[D]")
    with pytest.raises(QualityError, match="series 0: 1 a share is paid on 2018-06-27.*there is no close before it"):
        factors(days, np.array([np.nan, 10.0]), days[1:], np.ones(1), np.ones(1))


def test_sources_that_agree_count_once_and_rounding_is_agreement(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 100, 100, 25)))
    put(lake, "corporate_actions", [
        action("AAA", DAYS[1], "dividend", 0.1925),
        action("AAA", DAYS[1], "dividend", 0.193, source="two"),
        action("AAA", DAYS[2], "dividend", 1.0),
        action("AAA", DAYS[2], "special_dividend", 2.0),
        action("AAA", DAYS[2], "dividend", 3.0, source="two"),  # a vendor that tells the sum only
        split("AAA", DAYS[3], 4.0),
        split("AAA", DAYS[3], 4.0, source="two"),
    ])  # fmt: skip
    np.testing.assert_allclose(read(lake, adjust="total")["price_factor"], [(1 - 0.001925) * 0.97, 0.97, 1, 1], rtol=1e-14)


def test_sources_that_disagree_are_named_and_the_caller_may_choose(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 99, 98)))
    put(lake, "corporate_actions", [
        action("AAA", DAYS[1], "dividend", 1.0),
        action("AAA", DAYS[1], "dividend", 1.1, source="two"),
        action("AAA", DAYS[2], "dividend", 2.0, source="three"),
    ])  # fmt: skip
    with pytest.raises(QualityError, match="AAA: one and two disagree about the cash of 2018-06-27: 1 and 1.1"):
        read(lake, adjust="total")
    assert read(lake)["close"] == [100, 99, 98]  # of splits nobody disagrees
    last = 1 - 2 / 99
    for believed, amount, later in ((("two", "one", "three"), 1.1, last), (("one", "two"), 1.0, 1.0), ("two", 1.1, 1.0)):
        found = read(lake, adjust="total", action_source=believed)["price_factor"]
        np.testing.assert_allclose(found, [(1 - amount / 100) * later, later, 1], rtol=1e-14)


def test_one_split_that_two_sources_date_differently_is_not_counted_twice(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 100, 50, 50)))
    put(lake, "corporate_actions", [split("AAA", DAYS[1], 2.0, source="two"), split("AAA", DAYS[2], 2.0)])
    with pytest.raises(QualityError, match="AAA: two and one disagree about the day of a split: 2018-06-27 and 2018-06-28"):
        read(lake)
    assert read(lake, action_source="one")["close"] == [50, 50, 50, 50]
    assert read(lake, action_source=("one", "two"))["close"] == [50, 50, 50, 50]
    assert read(lake, action_source=("two", "one"))["close"] == [50, 100, 50, 50]  # as wrong as who was believed


def test_one_source_may_report_two_equal_payments_in_one_week(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 100, 100, 100)))
    both = [action("AAA", day, "dividend", 1.0) for day in (DAYS[1], DAYS[3])]
    put(lake, "corporate_actions", [*both, action("AAA", DAYS[3], "dividend", 1.0, source="two")])
    np.testing.assert_allclose(read(lake, adjust="total")["price_factor"], [0.99 * 0.99, 0.99, 0.99, 1], rtol=1e-14)


def test_an_action_that_never_was_is_revised_to_nothing(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 100, 100)))
    put(
        lake,
        "corporate_actions",
        [split("AAA", DAYS[1], 2.0), action("AAA", DAYS[2], "dividend", 1.0)],
        recorded_at=at("2018-07-01"),
    )
    put(
        lake,
        "corporate_actions",
        [split("AAA", DAYS[1], 1.0), action("AAA", DAYS[2], "dividend", 0.0)],
        recorded_at=at("2018-08-01"),
    )
    assert read(lake, adjust="total")["close"] == [100, 100, 100]
    assert read(lake, adjust="total", as_of=at("2018-07-31"))["close"] == [49.5, 99, 100]


def test_vendor_adjusted_bars_are_left_alone_and_two_bases_are_never_mixed(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(50, 51, 51), basis="vendor_adjusted") + bars("BBB", closes(100, 102, 51)))
    put(lake, "corporate_actions", [split(symbol, DAYS[2], 2.0) for symbol in ("AAA", "BBB")])
    found = adjusted_bars(lake.publish(), ["BBB", "AAA"], adjust="total").to_pydict()
    assert found["symbol"] == ["AAA"] * 3 + ["BBB"] * 3
    assert found["close"] == [50, 51, 51, 50, 51, 51]
    put(lake, "equity_bars", bars("AAA", {DAYS[3]: 52.0}))
    with pytest.raises(QualityError, match="AAA has prices as traded and prices adjusted by the vendor in one series"):
        read(lake)


def test_intraday_bars_take_their_sessions_factors(lake: Lake) -> None:
    hours = []
    for day, price in zip(DAYS[:3], (100.0, 80.0, 40.0), strict=True):
        for hour in (15, 16):
            row = bars("AAA", {day: price + hour})[0]
            moment = at(day, f"{hour}:00")
            hours.append({**row, "interval": "1h", "event_time": moment, "available_at": moment})
    put(lake, "equity_bars", hours)
    put(lake, "corporate_actions", [action("AAA", DAYS[1], "dividend", 1.16), split("AAA", DAYS[2], 2.0)])
    found = read(lake, interval="1h", adjust="total")
    assert found["split_factor"] == [0.5, 0.5, 0.5, 0.5, 1, 1]
    np.testing.assert_allclose(found["price_factor"], [0.99, 0.99, 1, 1, 1, 1], rtol=1e-14)  # 1.16 out of 116, the last bar's close


def test_a_payment_in_another_currency_than_the_price_is_refused(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 99, 98)) + bars("BBB", closes(10, 9)))
    dividend = action("AAA", DAYS[1], "dividend", 1.0) | {"currency": "GBP"}
    put(lake, "corporate_actions", [dividend, action("AAA", DAYS[1], "dividend", 1.3, source="two") | {"currency": "USD"}])
    with pytest.raises(QualityError, match="AAA: one tells the payment of 2018-06-27 in GBP, the prices are in USD"):
        read(lake, adjust="total")
    assert read(lake, adjust="total", action_source="two")["price_factor"][0] == pytest.approx(0.987)
    assert read(lake, adjust="splits")["close"] == [100, 99, 98]
    assert read(lake, "BBB", adjust="total")["close"] == [10, 9]


def test_null_stays_null_and_columns_come_as_asked(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 50), closes_only=True))
    put(lake, "corporate_actions", [split("AAA", DAYS[1], 2.0)])
    found = adjusted_bars(lake.publish(), ["AAA"], columns=["volume", "close", "open"])
    assert found.to_pydict() == {"volume": [None, None], "close": [50.0, 50.0], "open": [None, None]}
    with pytest.raises(InputError, match="adjusted bars have no column 'clse'"):
        adjusted_bars(lake.publish(), ["AAA"], columns=["clse"])
    with pytest.raises(InputError, match="adjust='all' is none of none, splits, total"):
        read(lake, adjust="all")


def test_two_sources_of_bars_are_never_mixed(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 50)) + bars("AAA", closes(101, 51), source="two"))
    with pytest.raises(InputError, match=r"AAA comes from 2 sources \(one, two\)"):
        read(lake)
    assert read(lake, source="two")["close"] == [101, 51]
    assert read(lake, source={"AAA": "one"})["close"] == [100, 50]


def test_each_split_and_payment_that_was_read_says_where_it_came_from(lake: Lake) -> None:
    put(lake, "equity_bars", bars("AAA", closes(100, 50)))
    put(lake, "corporate_actions", [split("AAA", DAYS[1], 2.0)], ingest_id="the split's")
    snapshot: Snapshot = lake.publish()
    assert read_adjusted(snapshot, ["AAA"]).actions["ingest_id"].to_pylist() == ["the split's"]
    assert read_adjusted(snapshot, ["AAA"], adjust="none").actions.num_rows == 0


@given(
    raw=st.lists(st.floats(5, 500), min_size=3, max_size=12),
    events=st.lists(st.tuples(st.integers(0, 14), st.sampled_from([1.0, 2.0, 7.0, 0.1]), st.floats(0, 0.4)), max_size=5),
    cut=st.integers(2, 11),
)
def test_cutting_the_future_off_changes_levels_by_one_factor_and_no_return(
    raw: list[float], events: list[tuple[int, float, float]], cut: int
) -> None:
    days = np.datetime64("2024-01-01") + np.arange(len(raw))
    close = np.array(raw)
    ex_dates = np.array([np.datetime64("2024-01-01") + day for day, _, _ in events], dtype="datetime64[D]")
    ratios, cash = np.array([ratio for _, ratio, _ in events]), np.array([paid for _, _, paid in events])

    def adjusted(upto: int) -> Any:
        found = factors(days[:upto], close[:upto], ex_dates, ratios, cash)
        return close[:upto] * found.price * found.split

    try:
        whole = adjusted(len(raw))
    except QualityError:  # payments of many events on one day may exceed a price that splits have made small
        return
    cut = min(cut, len(raw))
    np.testing.assert_allclose(np.diff(np.log(whole[:cut])), np.diff(np.log(adjusted(cut))), atol=1e-12)
    assert whole[-1] == close[-1]
