"""Yahoo's bars and corporate actions, read through the real yfinance from a fake Yahoo and from recordings of the real one."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from config.clock import FixedClock
from config.errors import InputError, QualityError, RateLimited, ServiceError, ServiceUnavailable
from config.settings import load_settings
from flows.sources.base import get_source
from flows.sources.yahoo import YahooEquity
from flows.sources.yahoo_chart import as_traded, factors_after, read_chart, splits_not_applied
from flows.sources.yahoo_exchanges import CALENDARS
from flows.sources.yahoo_rows import action_rows
from tests.flows.yahoo_asking import AFTER, SPLIT, ask, bars_of, settings_for, yahoo
from tests.replay import Fault, ReplayServer, Reply
from tests.replay.yahoo_service import Listing, YahooService

CHART = "v8/finance/chart"


def test_prices_volumes_and_dividends_before_a_split_are_as_traded() -> None:
    with yahoo({"AAPL": SPLIT}, AFTER) as (source, _, server, _):
        bars, actions, answers = ask(source, "AAPL")
    assert (
        json.loads(answers[0].payload)["chart"]["result"][0]["indicators"]["quote"][0]["close"][1] == 124.80750274658203
    )  # 499.23 / 4
    pd.testing.assert_frame_equal(
        bars.set_index("session")[["open", "high", "low", "close", "volume"]],
        SPLIT.bars.set_axis([day.date() for day in SPLIT.bars.index]).rename_axis("session"),
        check_exact=True,
        check_index_type=False,
    )
    assert actions[["ex_date", "kind", "value"]].values.tolist() == [
        [date(2020, 8, 28), "dividend", 0.82],
        [date(2020, 8, 31), "split", 4.0],
        [date(2020, 9, 1), "dividend", 0.205],
    ]
    assert set(bars["basis"]) == {"as_traded"}
    assert bars["available_at"].tolist() == [pd.Timestamp(f"{day} 20:00", tz="UTC") for day in bars["session"]]
    assert actions["available_at"].iloc[1] == pd.Timestamp("2020-08-31 13:30", tz="UTC")  # the open of the ex-date
    assert [answer.names for answer in answers] == [("AAPL",)] * 2
    assert "crumb" not in answers[0].origin
    assert server.asked


def test_a_window_that_ends_before_the_split_is_as_traded_too() -> None:
    with yahoo({"AAPL": SPLIT}, AFTER) as (source, _, server, _):
        bars, actions, answers = ask(source, "AAPL", date(2020, 8, 28), date(2020, 8, 28))
    assert bars[["session", "close", "volume"]].values.tolist() == [[date(2020, 8, 28), 499.23, 2000.0]]
    assert actions["kind"].tolist() == ["dividend"]  # the split is outside the window that was asked for
    asked = [question for question in server.asked if CHART in question.path and "period2" in question.query]
    assert [int(str(question.query["period2"])) > AFTER.timestamp() for question in asked] == [True]
    assert answers[0].request == {"symbol": "AAPL", "interval": "1d", "start": "2020-08-28", "end": "2020-08-28"}


def test_a_split_between_two_ingests_leaves_what_was_stored_as_it_was() -> None:
    with yahoo({"AAPL": SPLIT}, datetime(2020, 8, 28, 21, tzinfo=UTC)) as (source, service, _, clock):
        before, _, first = ask(source, "AAPL")
        service.now = AFTER
        clock.move_to(AFTER)
        after, _, second = ask(source, "AAPL")
    assert first[0].payload != second[0].payload
    pd.testing.assert_frame_equal(before, after.iloc[: len(before)], check_exact=True)


def test_actions_can_be_asked_for_by_themselves() -> None:
    with yahoo({"AAPL": SPLIT}, AFTER) as (source, _, _, _):
        (answer, missing) = source.actions(["AAPL", "NOPE"], date(2020, 8, 31), None)
    assert answer.rows.to_pandas()["value"].tolist() == [4.0, 0.205]
    assert set(missing.missing) == {"NOPE"}


@pytest.mark.parametrize("symbol", ["AAPL", "SPY"])
def test_two_decades_of_real_bars_come_back_exactly_as_they_were_traded(shared_data: Path, symbol: str) -> None:
    raw = pd.read_csv(shared_data / "market" / "daily" / f"{symbol}.csv.gz", parse_dates=["date"], index_col="date")
    splits = {date(2000, 6, 21): (2, 1), date(2005, 2, 28): (2, 1), date(2014, 6, 9): (7, 1), date(2020, 8, 31): (4, 1)}
    listing = Listing(bars=raw, splits=splits if symbol == "AAPL" else {}, exchange="NMS" if symbol == "AAPL" else "PCX")
    with yahoo({symbol: listing}, datetime(2021, 4, 1, 2, tzinfo=UTC)) as (source, _, _, _):
        bars, actions, answers = ask(source, symbol)
    assert not answers[0].refused
    kept = raw[raw.index.isin(pd.DatetimeIndex(bars["session"]))]
    assert len(kept) == len(raw) > 5000
    for name in ("open", "high", "low", "close"):
        assert (bars[name].to_numpy() == raw[name].to_numpy()).all(), name
    assert (bars["volume"].to_numpy() == raw["volume"].to_numpy()).all()
    assert actions["value"].tolist() == ([2.0, 2.0, 7.0, 4.0] if symbol == "AAPL" else [])


@given(cents=st.integers(1, 5_000_000), ratio=st.sampled_from([1.0, 2.0, 3.0, 4.0, 7.0, 20.0, 28.0, 1.5, 0.1, 0.125]))
@example(cents=64557, ratio=28.0)
def test_any_price_in_cents_survives_a_split_and_single_precision(cents: int, ratio: float) -> None:
    price = cents / 100
    sent = float(np.float32(price / ratio))
    assert as_traded([sent], ratio)[0] == price


def test_six_decimals_of_an_old_quotient_are_enough_for_the_price() -> None:
    # Apple closed at 28.75 on 1980-12-12, which Yahoo gives as 0.128348: 224 of today's shares were one then.
    sent = float(np.float32(round(28.75 / 224, 6)))
    assert sent == 0.1283479928970337
    assert as_traded([sent, np.nan], 224.0)[0] == 28.75
    assert np.isnan(as_traded([np.nan], 4.0)[0])


def test_no_digit_is_made_up_where_single_precision_does_not_reach() -> None:
    # A bitcoin's price as recorded: single precision holds eight digits of it.
    assert as_traded([7200.17431640625], 1.0)[0] == 7200.1743
    assert as_traded([188.55], 1.0)[0] == 188.55  # not a single-precision number: as it is


def recording(shared_data: Path, tmp_path: Path, name: str) -> tuple[Path, bytes]:
    """A recording as a folder that answers whatever window is asked for."""
    folder = shared_data / "recordings" / "yahoo"
    entry = next(one for one in json.loads((folder / "index.json").read_text()) if one["id"] == name)
    body = (folder / entry["body_file"]).read_bytes()
    (tmp_path / "body").write_bytes(body)
    open_to_all = {**entry, "host": "query2.finance.yahoo.com", "query": {}, "body_file": "body"}
    (tmp_path / "index.json").write_text(json.dumps([open_to_all]))
    return tmp_path, body


CHARTS = {
    "chart-AAPL-2020-08-31-to-2020-11-07": ("AAPL", "XNYS", "USD"),
    "historical-via-chart-MSFT-dividends-2021-02-01-to-2022-01-31.csv": ("MSFT", "XNYS", "USD"),
    "chart-BTC-USD-2020-01-01-to-2020-01-03": ("BTC-USD", "24/7", "USD"),
    "chart-EURUSD=X-2020-01-01-to-2020-01-03": ("EURUSD=X", "24/5", "USD"),
    "chart-GC=F-2020-01-01-to-2020-01-03": ("GC=F", "CMES", "USD"),
    "chart-QQQ-2020-01-01-to-2020-01-03": ("QQQ", "XNYS", "USD"),
    "chart-0P000071W8.TO-2020-01-01-to-2020-01-03": ("0P000071W8.TO", "XTSE", "CAD"),
    "chart-OCDO.L-2020-01-01-to-2020-01-03": ("OCDO.L", "XLON", "GBp"),
    "chart-WSKT.JK-2020-01-01-to-2020-01-03": ("WSKT.JK", "XIDX", "IDR"),
    "chart-AMZN-2020-01-01-to-2020-01-03": ("AMZN", "XNYS", "USD"),
    "history_chart_AAPL_rs": ("AAPL", "XNYS", "USD"),
}


@pytest.mark.parametrize("name", list(CHARTS))
def test_recorded_answers_are_read_as_yfinance_frames_them(shared_data: Path, tmp_path: Path, name: str) -> None:
    import yfinance

    symbol, calendar, currency = CHARTS[name]
    place, body = recording(shared_data, tmp_path, name)
    cookies = YahooService({}, datetime(2025, 11, 1, tzinfo=UTC))
    cookies.hosts = frozenset({"fc.yahoo.com", "query1.finance.yahoo.com"})
    with ReplayServer(place, services=[cookies]) as server:
        source = YahooEquity(settings_for(server), clock=FixedClock(datetime(2025, 11, 1, tzinfo=UTC)))
        bars, actions, answers = ask(source, symbol)
        with source._client.asking() as (_, session):
            frame = yfinance.Ticker(symbol, session=session).history(period="max", auto_adjust=False, actions=True)
    assert [answer.payload for answer in answers] == [body, body]
    assert not any(answer.refused for answer in answers)
    assert set(bars["calendar"]) == {calendar}
    assert set(bars["currency"]) == {currency}
    assert bars["session"].tolist() == [moment.date() for moment in frame.index]
    for ours, theirs in (("open", "Open"), ("high", "High"), ("low", "Low"), ("close", "Close")):
        np.testing.assert_allclose(bars[ours], frame[theirs], rtol=6e-8)
    np.testing.assert_array_equal(bars["volume"], frame["Volume"])
    paid = {moment.date(): value for moment, value in frame["Dividends"].items() if value}
    assert {row.ex_date: row.value for row in actions.itertuples() if row.kind == "dividend"} == paid
    split = {moment.date(): value for moment, value in frame["Stock Splits"].items() if value}
    assert {row.ex_date: row.value for row in actions.itertuples() if row.kind == "split"} == split


def test_apples_first_day_after_the_split_is_recorded_as_traded(shared_data: Path, tmp_path: Path) -> None:
    place, _ = recording(shared_data, tmp_path, "chart-AAPL-2020-08-31-to-2020-11-07")
    cookies = YahooService({}, AFTER)
    cookies.hosts = frozenset({"fc.yahoo.com", "query1.finance.yahoo.com"})
    with ReplayServer(place, services=[cookies]) as server:
        source = YahooEquity(settings_for(server), clock=FixedClock(datetime(2025, 2, 20, 12, tzinfo=UTC)))
        bars, actions, _ = ask(source, "AAPL")
    # AAPL on 2020-08-31, ex 4:1: open 127.58, high 131.00, low 126.00, close 129.04, 225,702,700 shares.
    first = bars.iloc[0]
    assert [first[name] for name in ("open", "high", "low", "close", "volume")] == [127.58, 131.0, 126.0, 129.04, 225_702_700]
    assert actions[["ex_date", "kind", "value"]].values.tolist() == [
        [date(2020, 8, 31), "split", 4.0],
        [date(2020, 11, 6), "dividend", 0.205],
    ]
    assert actions["currency"].iloc[1] == "USD"


def test_a_fund_has_all_its_recorded_capital_gains(shared_data: Path) -> None:
    body = json.loads((shared_data / "recordings" / "yahoo" / "bodies" / "history_chart_VFINX_rs.json").read_text())
    events = body["chart"]["result"][0]["events"]
    chart = read_chart(body, "recording")
    rows = action_rows(chart.events, chart.of_kind("split"), "VFINX", "XNYS", chart.currency).to_pandas()
    gains = rows[rows["kind"] == "capital_gain"]
    assert len(gains) == len(events["capitalGains"]) == 21
    assert gains["value"].sum() == pytest.approx(sum(one["amount"] for one in events["capitalGains"].values()))
    assert len(rows[rows["kind"] == "dividend"]) == len({one["date"] for one in events["dividends"].values()}) == 164
    assert date(1987, 12, 29) in set(gains["ex_date"])  # 567786600 is half past nine in New York on that day


FUND = Listing(
    bars=bars_of(["2025-03-03", "2025-03-04", "2025-03-05"], [50.0, 50.5, 50.25]),
    exchange="NAS",
    instrument="MUTUALFUND",
    dividends={date(2025, 3, 4): 0.4},
    gains={date(2025, 3, 4): 0.3},
)


def test_a_funds_value_is_known_at_the_next_open_and_its_gain_is_an_action() -> None:
    with yahoo({"FUND": FUND}, datetime(2025, 3, 6, 2, tzinfo=UTC)) as (source, _, _, _):
        bars, actions, answers = ask(source, "FUND")
    assert bars["event_time"].iloc[0] == pd.Timestamp("2025-03-03 21:00", tz="UTC")
    assert bars["available_at"].tolist() == [pd.Timestamp(f"2025-03-0{day} 14:30", tz="UTC") for day in (4, 5, 6)]
    assert set(actions["kind"]) == {"dividend", "capital_gain"}
    assert any("includes the gain" in note for note in answers[1].notes)


@pytest.mark.parametrize("where", ["range=1d", "period1="])
@pytest.mark.parametrize("kind", ["500", "502", "503", "truncated", "half_body", "empty", "wrong_type", "reset"])
def test_a_failure_is_never_a_delisting(kind: Any, where: str) -> None:
    symbol = f"{kind}{where[:5]}".upper().replace("_", "")  # yfinance keeps the time zone of a symbol it has met
    with yahoo({symbol: SPLIT}, AFTER, faults=[Fault(kind=kind, match=f"{CHART}.*{where}")]) as (source, _, server, _):
        with pytest.raises(ServiceUnavailable) as failure:
            ask(source, symbol)
        assert "delisted" not in str(failure.value)
        assert f"query2.finance.yahoo.com/v8/finance/chart/{symbol}" in str(failure.value)
        server.faults = []
        bars, _, _ = ask(source, symbol)
        assert len(bars) == 4
        assert len(server.asked) < 12


def test_being_asked_to_wait_says_for_how_long() -> None:
    with yahoo({"AAPL": SPLIT}, AFTER, faults=[Fault(kind="429", match=CHART, nth=1, retry_after="7")]) as (source, _, _, _):
        with pytest.raises(RateLimited) as failure:
            ask(source, "AAPL")
        assert failure.value.retry_after_seconds == 7.0
        assert len(ask(source, "AAPL")[0]) == 4


def test_no_answer_in_time_is_a_failure() -> None:
    service = YahooService({"AAPL": SPLIT}, AFTER)
    with ReplayServer(services=[service], faults=[Fault(kind="slow", match=CHART, seconds=30)]) as server:
        source = YahooEquity(settings_for(server, **{"data.timeout_seconds": 0.3}), clock=FixedClock(AFTER))
        with pytest.raises(ServiceUnavailable, match=r"no answer within 0\.3 s"):
            ask(source, "AAPL")


def test_a_server_that_is_not_there_is_a_failure() -> None:
    with yahoo({"AAPL": SPLIT}, AFTER) as (source, _, _, _):
        pass
    with pytest.raises(ServiceUnavailable, match="yahoo gave no answer"):
        ask(source, "AAPL")


def test_two_threads_get_each_their_own_answers() -> None:
    from concurrent.futures import ThreadPoolExecutor

    listings = {f"T{number}": Listing(bars=SPLIT.bars * (number + 1)) for number in range(8)}
    with yahoo(listings, AFTER) as (source, _, server, _), ThreadPoolExecutor(4) as pool:
        other = YahooEquity(settings_for(server), clock=FixedClock(AFTER))
        found = list(pool.map(lambda number: ask((source, other)[number % 2], f"T{number}"), range(8)))
    for number, (bars, _, answers) in enumerate(found):
        assert set(bars["symbol"]) == {f"T{number}"}
        np.testing.assert_allclose(bars["close"], SPLIT.bars["close"] * (number + 1), rtol=1e-9)
        assert f'"symbol":"T{number}"'.encode() in answers[0].payload


def test_lost_cookies_and_crumbs_do_not_matter_for_bars() -> None:
    faults = [Fault(kind="500", match="getcrumb"), Fault(kind="reset", match="fc.yahoo.com")]
    with yahoo({"AAPL": SPLIT}, AFTER, faults=faults) as (source, _, _, _):
        assert len(ask(source, "AAPL")[0]) == 4


def test_an_unknown_symbol_is_missing_in_yahoos_words_and_asked_for_once() -> None:
    with yahoo({"AAPL": SPLIT}, AFTER) as (source, _, server, _):
        (answer,) = source.bars(["NOPE"], None, None)
        charts = [question for question in server.asked if CHART in question.path]
    assert answer.missing == {"NOPE": "yahoo: No data found, symbol may be delisted"}
    assert answer.rows.num_rows == 0
    assert json.loads(answer.payload)["chart"]["error"]["code"] == "Not Found"
    assert len(charts) == 1


def test_a_service_that_is_gone_says_nothing_about_a_symbol() -> None:
    class Gone(YahooService):
        def answer(self, question: Any) -> Any:
            # The envelope in which Yahoo speaks of itself, and not of the question.
            body = b'{"finance":{"result":null,"error":{"code":"Not Found","description":"HTTP 404 Not Found"}}}'
            return Reply(status=404, body=body) if CHART in question.path else super().answer(question)

    with ReplayServer(services=[Gone({}, AFTER)]) as server:
        source = YahooEquity(settings_for(server), clock=FixedClock(AFTER))
        with pytest.raises(ServiceUnavailable, match="answered 404"):
            ask(source, "ANY")


def test_a_window_without_bars_is_empty_not_missing() -> None:
    with yahoo({"AAPL": SPLIT}, AFTER) as (source, _, _, _):
        bars, _, answers = ask(source, "AAPL", date(2020, 9, 2))
    assert len(bars) == 0
    assert not answers[0].missing


def test_a_crumb_that_yahoo_does_not_take_back_is_a_failure() -> None:
    class Strict(YahooService):
        def answer(self, question: Any) -> Any:
            body = b'{"chart":{"result":null,"error":{"code":"Unauthorized","description":"Invalid Crumb"}}}'
            return Reply(status=401, body=body) if CHART in question.path else super().answer(question)

    with ReplayServer(services=[Strict({}, AFTER)]) as server:
        source = YahooEquity(settings_for(server), clock=FixedClock(AFTER))
        with pytest.raises(ServiceUnavailable, match="crumb"):
            ask(source, "STRICT")


def test_the_window_does_not_depend_on_the_time_zone_that_yfinance_remembers() -> None:
    tokyo = Listing(
        bars=bars_of(["2025-03-03", "2025-03-04", "2025-03-05"], [100, 101, 102]),
        exchange="JPX",
        timezone="Asia/Tokyo",
        calendar="XTKS",
        currency="JPY",
    )
    now = datetime(2025, 3, 6, 2, tzinfo=UTC)
    with yahoo({"MOVED": Listing(bars=tokyo.bars)}, now) as (source, _, _, _):
        assert len(ask(source, "MOVED", date(2025, 3, 4))[0]) == 2
    with yahoo({"MOVED": tokyo}, now) as (source, _, _, _):  # the letters are another exchange's now
        bars, _, _ = ask(source, "MOVED", date(2025, 3, 4))
    assert bars["session"].tolist() == [date(2025, 3, 4), date(2025, 3, 5)]


def test_names_that_yfinance_would_change_are_not_asked_for() -> None:
    with yahoo({"AAPL": SPLIT}, AFTER) as (source, _, server, _):
        low, isin = source.bars(["aapl", "US0378331005"], None, None)
        assert "capitals: AAPL" in low.missing["aapl"]
        assert "ISIN" in isin.missing["US0378331005"]
        assert not server.asked


def test_yahoos_refusal_of_an_intraday_window_is_shown_in_its_words() -> None:
    with yahoo({"AAPL": SPLIT}, AFTER, interval="5m") as (source, _, _, _):
        with pytest.raises(ServiceError, match="within the last 60 days") as failure:
            ask(source, "AAPL", date(2019, 1, 2))
        assert not isinstance(failure.value, ServiceUnavailable)


def test_an_interval_that_yahoo_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(InputError, match="30m") as failure:
        get_source("yahoo", "equity", load_settings(), interval="30m")
    assert "15m" in str(failure.value)


def test_the_same_question_later_is_asked_again() -> None:
    with yahoo({"AAPL": SPLIT}, datetime(2020, 8, 31, 21, tzinfo=UTC)) as (source, service, _, clock):
        assert len(ask(source, "AAPL", date(2020, 8, 27), date(2020, 9, 1))[0]) == 3
        service.now = AFTER
        clock.move_to(AFTER)
        assert len(ask(source, "AAPL", date(2020, 8, 27), date(2020, 9, 1))[0]) == 4


@pytest.mark.parametrize(
    ("listing", "close"),
    [
        (Listing(bars=bars_of(["2025-03-03", "2025-03-04"], [100, 101])), "2025-03-04 21:00"),
        (Listing(bars=bars_of(["2025-07-02", "2025-07-03"], [100, 101])), "2025-07-03 17:00"),  # a half day
        (
            Listing(
                bars=bars_of(["2025-03-03", "2025-03-04"], [100, 101]),
                exchange="LSE",
                timezone="Europe/London",
                calendar="XLON",
                currency="GBp",
            ),
            "2025-03-04 16:30",
        ),
        (
            Listing(
                bars=bars_of(["2025-03-07", "2025-03-08"], [100, 101]),  # a Saturday
                exchange="CCC",
                timezone="UTC",
                calendar="24/7",
                instrument="CRYPTOCURRENCY",
            ),
            "2025-03-09 00:00",
        ),
    ],
    ids=["new_york", "half_day", "london", "crypto"],
)
def test_a_bar_is_a_bar_once_its_own_exchange_has_closed(listing: Listing, close: str) -> None:
    moment = pd.Timestamp(close, tz="UTC").to_pydatetime()
    with yahoo({"X": listing}, moment - timedelta(seconds=1)) as (source, service, _, clock):
        open_still, _, answers = ask(source, "X")
        service.now = moment + timedelta(minutes=1)
        clock.move_to(service.now)
        closed, _, _ = ask(source, "X")
    assert len(open_still) == 1
    assert answers[0].notes == ("bars of sessions that had not closed were left out",)
    assert len(closed) == 2
    assert closed["event_time"].iloc[-1] == pd.Timestamp(moment)
    assert closed["close"].iloc[-1] == 101


def test_quotes_that_lag_behind_the_close_are_waited_for() -> None:
    listing = Listing(
        bars=bars_of(["2025-03-03", "2025-03-04"], [100, 101]), exchange="LSE", timezone="Europe/London", calendar="XLON"
    )
    lagging = datetime(2025, 3, 4, 16, 20, tzinfo=UTC)  # Yahoo has seen London up to twenty past four
    with yahoo({"X": listing}, lagging) as (source, _, _, clock):
        clock.move_to(datetime(2025, 3, 4, 16, 35, tzinfo=UTC))
        assert len(ask(source, "X")[0]) == 1


def test_rows_of_nulls_are_left_out_with_a_note_and_a_missing_volume_stays_missing() -> None:
    bars = bars_of(["2025-03-03", "2025-03-04", "2025-03-05"], [100, 101, 102])
    bars.iloc[1] = np.nan
    bars.loc["2025-03-05", "volume"] = np.nan
    with yahoo({"X": Listing(bars=bars)}, datetime(2025, 3, 6, 2, tzinfo=UTC)) as (source, _, _, _):
        found, _, answers = ask(source, "X")
    assert found["session"].tolist() == [date(2025, 3, 3), date(2025, 3, 5)]
    assert np.isnan(found["volume"].iloc[1])
    assert answers[0].notes == ("X: 1 row without a price left out",)


def test_a_day_on_which_the_exchange_was_closed_is_refused_with_the_row() -> None:
    listing = Listing(bars=bars_of(["2025-03-07", "2025-03-08", "2025-03-10"], [100, 101, 102]))  # the 8th is a Saturday
    with yahoo({"X": listing}, datetime(2025, 3, 11, 2, tzinfo=UTC)) as (source, _, _, _):
        bars, _, answers = ask(source, "X")
    assert len(bars) == 2
    (refused,) = answers[0].refused
    assert (refused.rule, refused.raw["close"]) == ("not_a_session", 101.0)


def test_an_exchange_without_a_calendar_is_a_clear_refusal_unless_one_is_named() -> None:
    listing = Listing(bars=SPLIT.bars, exchange="ZZZ")
    with yahoo({"X": listing}, AFTER) as (source, _, server, _):
        with pytest.raises(QualityError, match="'ZZZ'"):
            ask(source, "X")
        stated = YahooEquity(settings_for(server), calendar="XNYS", clock=FixedClock(AFTER))
        assert set(ask(stated, "X")[0]["calendar"]) == {"XNYS"}


def test_every_calendar_that_is_named_exists() -> None:
    import exchange_calendars

    assert set(CALENDARS.values()) <= set(exchange_calendars.get_calendar_names())


def test_an_answer_for_another_symbol_is_refused() -> None:
    class Renamed(YahooService):
        def answer(self, question: Any) -> Any:
            return super().answer(question) if "OLD" not in question.path else super().answer(self._as_new(question))

        @staticmethod
        def _as_new(question: Any) -> Any:
            from dataclasses import replace

            return replace(question, path=question.path.replace("OLD", "NEW"))

    with ReplayServer(services=[Renamed({"NEW": SPLIT}, AFTER)]) as server:
        source = YahooEquity(settings_for(server), clock=FixedClock(AFTER))
        with pytest.raises(ServiceError, match="asked for OLD and answered for NEW"):
            ask(source, "OLD")


def test_a_split_that_yahoo_has_not_applied_refuses_the_bars_before_it() -> None:
    listing = Listing(bars=SPLIT.bars, splits=SPLIT.splits, unapplied=[date(2020, 8, 31)])
    with yahoo({"X": listing}, AFTER) as (source, _, _, _):
        bars, actions, answers = ask(source, "X")
    assert bars["close"].tolist() == [129.04, 134.18]
    assert {row.rule for row in answers[0].refused} == {"split_not_applied"}
    assert [row.raw["close"] for row in answers[0].refused] == pytest.approx([500.04, 499.23])
    assert actions["kind"].tolist() == ["split"]


def test_a_split_without_a_bar_since_cannot_be_verified() -> None:
    listing = Listing(bars=SPLIT.bars.iloc[:2], splits=SPLIT.splits)
    with yahoo({"X": listing}, datetime(2020, 8, 31, 12, tzinfo=UTC)) as (source, _, _, _):
        bars, _, answers = ask(source, "X")
    assert len(bars) == 0
    assert [row.rule for row in answers[0].refused] == ["split_not_verified"] * 2


def test_a_real_table_with_a_half_applied_split_is_seen_through(shared_data: Path) -> None:
    path = shared_data / "recordings" / "yahoo_bad_prices" / "bodies" / "4063-T-1d-bad-stock-split.csv"
    table = pd.read_csv(path)
    sessions = pd.DatetimeIndex([pd.Timestamp(text[:10]) for text in table["Date"]])
    bars = pd.DataFrame({"session": sessions, "close": table["Close"].to_numpy()}).sort_values("session", ignore_index=True)
    document = {"splits": {"1": {"date": 1680134400, "numerator": 5, "denominator": 1}}}  # 5:1 on 2023-03-30, Tokyo
    from flows.sources.yahoo_chart import _events

    (split,), _ = _events(document, "Asia/Tokyo")
    (found,) = splits_not_applied(bars, [split])
    # The table is adjusted from the 29th on, a day before the split, and not before: 20,710 then 4,206.
    assert found.upto == pd.Timestamp("2023-03-28")
    assert found.step == pytest.approx(20710 / 4206)
    factors = factors_after(pd.DatetimeIndex(bars["session"]), [split], [found])
    assert factors[bars["session"] == "2023-03-29"] == [5.0]
    assert factors[bars["session"] == "2023-03-28"] == [1.0]


FAULTY = {
    "AET-L-1d-100x-error": ("LSE", "Europe/London", "XLON", {"price_jump"}, set()),
    "SSW-JO-1d-100x-error": ("JNB", "Africa/Johannesburg", "XJSE", {"price_jump"}, set()),
    "ALPHA-PA-1d-bad-stock-split": ("PAR", "Europe/Paris", "XPAR", set(), {"split_not_applied"}),
    "4063-T-1d-bad-stock-split": ("JPX", "Asia/Tokyo", "XTKS", set(), {"split_not_applied"}),
    "CALM-1d-no-bad-divs": ("NMS", "America/New_York", "XNYS", set(), set()),
}


@pytest.mark.parametrize("name", list(FAULTY))
def test_real_faulty_tables_are_flagged_or_refused_and_a_good_one_is_not(shared_data: Path, name: str) -> None:
    from config.tables import table_spec
    from lake.quality import series_flags

    exchange, zone, calendar, flags, refusals = FAULTY[name]
    table = pd.read_csv(shared_data / "recordings" / "yahoo_bad_prices" / "bodies" / f"{name}.csv")
    table.index = pd.DatetimeIndex([pd.Timestamp(text[:10]) for text in table.iloc[:, 0]])
    table = table.sort_index()
    bars = (
        table[["Open", "High", "Low", "Close", "Volume"]].astype(float).set_axis(["open", "high", "low", "close", "volume"], axis=1)
    )
    splits = {day.date(): (ratio, 1) for day, ratio in table["Stock Splits"].items() if ratio}
    # The table holds what Yahoo sent, so the fake is to send it as it is.
    listing = Listing(bars=bars, exchange=exchange, timezone=zone, calendar=calendar, splits=splits, unapplied=list(splits))
    now = datetime.combine(bars.index[-1].date() + timedelta(days=1), datetime.min.time(), tzinfo=UTC) + timedelta(hours=23)
    with yahoo({"X": listing}, now) as (source, _, _, _):
        _, _, (priced, actions) = ask(source, "X")
    found = series_flags(priced.rows, table_spec("equity_bars"), actions=actions.rows)
    assert {rule for rule in found["rule"].to_pylist() if rule == "price_jump"} >= flags
    assert {row.rule for row in priced.refused} == refusals
    assert priced.rows.num_rows + len(priced.refused) == len(table)
    if refusals:  # what is stored agrees with the table that yfinance's maintainers repaired by hand, split by split
        mended = pd.read_csv(shared_data / "recordings" / "yahoo_bad_prices" / "bodies" / f"{name}-fixed.csv")
        closes = pd.Series(mended["Close"].to_numpy(), index=[date.fromisoformat(text[:10]) for text in mended.iloc[:, 0]])
        ((day, (ratio, _)),) = splits.items()
        for row in priced.rows.to_pylist():
            assert row["close"] == pytest.approx(closes[row["session"]] * (ratio if row["session"] < day else 1.0), rel=1e-6)


def test_a_request_waits_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.sources import yahoo_session

    slept: list[float] = []
    monkeypatch.setattr(yahoo_session.time, "sleep", slept.append)
    service = YahooService({"AAPL": SPLIT}, AFTER)
    with ReplayServer(services=[service]) as server:
        settings = settings_for(server, **{"data.seconds_between_requests": {"yahoo": 60.0}})
        ask(YahooEquity(settings, clock=FixedClock(AFTER)), "AAPL")
        assert len(slept) == len(server.asked) - 1
    assert slept == pytest.approx([60.0 * n for n in range(1, len(slept) + 1)], abs=30.0)  # sleeping did not pass the time here


def test_yfinance_finds_its_configuration_as_it_was() -> None:
    import yfinance

    with yahoo({"AAPL": SPLIT}, AFTER) as (source, _, _, _):
        ask(source, "AAPL")
    assert yfinance.config.debug.hide_exceptions is True
