"""Yahoo's option chains, read through the real yfinance from a fake Yahoo that serves recorded contracts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from config.clock import FixedClock
from config.errors import InputError, RateLimited, ServiceUnavailable
from config.settings import load_settings
from flows.sources.base import Answer
from flows.sources.yahoo_options import YahooOptions
from tests.replay import Fault, ReplayServer
from tests.replay.yahoo_service import Listing, YahooService

NOW = datetime(2025, 9, 2, 15, 0, tzinfo=UTC)  # a Tuesday, eleven in New York
BARS = pd.DataFrame(
    {"open": [231.0, 229.5], "high": 233.0, "low": 228.0, "close": [232.14, 230.0], "volume": 1e6},
    index=pd.DatetimeIndex(["2025-08-29", "2025-09-02"]),
)


def contract(expiry: date, right: str, strike: float, root: str = "ACME", **more: Any) -> dict[str, Any]:
    """A contract in Yahoo's words, made up."""
    return {
        "contractSymbol": f"{root}{expiry:%y%m%d}{right}{round(strike * 1000):08d}",
        "strike": strike,
        "currency": "USD",
        "lastPrice": 5.5,
        "change": 0.0,
        "percentChange": 0.0,
        "volume": 12,
        "openInterest": 340,
        "bid": 5.4,
        "ask": 5.6,
        "contractSize": "REGULAR",
        "expiration": int(datetime(expiry.year, expiry.month, expiry.day, tzinfo=UTC).timestamp()),
        "lastTradeDate": 1756820000,
        "impliedVolatility": 0.31,
        "inTheMoney": True,
        **more,
    }


NEAR, FAR = date(2025, 9, 5), date(2025, 9, 19)
ACME = Listing(
    bars=BARS,
    chains={
        NEAR: [contract(NEAR, "C", 225.0), contract(NEAR, "P", 225.0, bid=0, ask=0.05, impliedVolatility=0.9)],
        FAR: [contract(FAR, "C", 232.5, bid=0, ask=0, impliedVolatility=1e-05)],
    },
)


@contextmanager
def chains(listings: dict[str, Listing], now: datetime = NOW, **more: Any) -> Iterator[tuple[YahooOptions, ReplayServer]]:
    """The source, asking a fake Yahoo at that moment."""
    faults = more.pop("faults", ())
    with ReplayServer(services=[YahooService(listings, now)], faults=faults) as server:
        settings = load_settings(
            {
                "data.addresses": {"yahoo": f"http://127.0.0.1:{server.port}"},
                "data.seconds_between_requests": {"yahoo": 0.0},
            }
        )
        yield YahooOptions(settings, clock=FixedClock(now), **more), server


def quotes(source: YahooOptions, *names: str, start: date | None = None, end: date | None = None) -> list[Answer]:
    return list(source.quotes(names, start, end))


def test_every_expiry_is_an_answer_with_the_moment_of_asking() -> None:
    with chains({"ACME": ACME}) as (source, server):
        near, far = quotes(source, "ACME")
        asked = [question.query.get("date") for question in server.asked if "/v7/finance/options/ACME" in question.path]
    assert asked[-2:] == [None, str(int(datetime(2025, 9, 19, tzinfo=UTC).timestamp()))]
    call, put = near.rows.to_pylist()
    assert call["occ_symbol"] == "ACME250905C00225000"
    assert (call["quote_time"], call["available_at"], call["session"]) == (NOW, NOW, date(2025, 9, 2))
    assert (call["expiry"], call["strike"], call["right"], call["multiplier"]) == (NEAR, 225.0, "C", 100.0)
    assert (call["style"], call["settlement"], call["data_kind"]) == ("american", "physical", "real")
    assert (call["bid"], call["ask"], call["last"], call["volume"], call["open_interest"]) == (5.4, 5.6, 5.5, 12.0, 340.0)
    assert call["implied_volatility"] == 0.31
    assert (call["bid_size"], call["delta"], call["greeks_time"]) == (None, None, None)
    assert call["underlying_price"] == 229.62  # the fake's price after 90 of 390 minutes: 229.5 + 0.5 * 90 / 390
    assert (put["bid"], put["ask"]) == (0.0, 0.05)  # nobody bids: a quote all the same
    assert json.loads(near.payload)["optionChain"]["result"][0]["options"][0]["calls"][0]["bid"] == 5.4
    assert "crumb" not in near.origin
    assert far.names == ("ACME",)


def test_where_bid_and_ask_are_zero_there_is_no_quote() -> None:
    with chains({"ACME": ACME}) as (source, _):
        _, far = quotes(source, "ACME")
    (row,) = far.rows.to_pylist()
    assert (row["bid"], row["ask"], row["implied_volatility"], row["last"]) == (None, None, None, 5.5)
    assert any("without a quote" in note for note in far.notes)


def test_off_hours_the_quotes_are_of_the_session_before() -> None:
    with chains({"ACME": ACME}, datetime(2025, 9, 1, 16, tzinfo=UTC)) as (source, _):  # Labor Day
        near, _ = quotes(source, "ACME")
    assert set(near.rows["session"].to_pylist()) == {date(2025, 8, 29)}


def test_only_the_expiries_that_are_wanted_are_asked_for() -> None:
    with chains({"ACME": ACME}, expiry_to="2025-09-10") as (source, server):
        (near,) = quotes(source, "ACME")
        assert sum("options" in question.path and question.status == 200 for question in server.asked) == 1
    assert set(near.rows["expiry"].to_pylist()) == {NEAR}


def test_a_window_in_the_past_is_refused_because_yahoo_has_none() -> None:
    with chains({"ACME": ACME}) as (source, _):
        assert len(quotes(source, "ACME", start=date(2025, 9, 2), end=date(2025, 9, 2))) == 2
        with pytest.raises(InputError, match="not between 2025-08-01 and 2025-08-29"):
            quotes(source, "ACME", start=date(2025, 8, 1), end=date(2025, 8, 29))


def test_an_unknown_symbol_and_one_without_options_are_missing() -> None:
    with chains({"ACME": ACME, "BARE": Listing(bars=BARS)}) as (source, _):
        unknown, bare, low = quotes(source, "NOPE", "BARE", "acme")
    assert unknown.missing == {"NOPE": "yahoo knows no symbol NOPE"}
    assert bare.missing == {"BARE": "yahoo lists no options on BARE"}
    assert "ACME" in low.missing["acme"]


def test_contracts_that_do_not_deliver_a_hundred_shares_or_cannot_be_read_are_refused() -> None:
    listed = [
        contract(NEAR, "C", 225.0),
        contract(NEAR, "C", 225.0, root="ACME1"),
        contract(NEAR, "C", 230.0, contractSize="MINI"),
        contract(NEAR, "C", 231.0, contractSize="ODD"),
        contract(NEAR, "C", 235.0) | {"strike": 236.0},
        contract(NEAR, "C", 240.0, bid="n/a"),
    ]
    with chains({"ACME": Listing(bars=BARS, chains={NEAR: listed})}) as (source, _):
        (answer,) = quotes(source, "ACME")
    assert answer.rows.num_rows == 1
    rules = [row.rule for row in answer.refused]
    assert rules == [
        "non_standard_deliverable",
        "non_standard_deliverable",
        "multiplier_missing",
        "contradicts_symbol",
        "wrong_type",
    ]
    assert answer.refused[4].raw["bid"] == "n/a"


def test_index_options_have_the_exchanges_terms() -> None:
    listing = Listing(
        bars=BARS,
        instrument="INDEX",
        exchange="SNP",
        chains={
            FAR: [
                contract(FAR, "C", 6400.0, root="SPX"),
                contract(FAR, "C", 6400.0, root="SPXW"),
                contract(FAR, "C", 1.0, root="ZZZ"),
            ]
        },
    )
    with chains({"^SPX": listing}) as (source, _):
        (answer,) = quotes(source, "^SPX")
    terms = {row["occ_symbol"][:4]: (row["style"], row["settlement"]) for row in answer.rows.to_pylist()}
    assert terms == {"SPX2": ("european", "am_cash"), "SPXW": ("european", "pm_cash")}
    assert [row.rule for row in answer.refused] == ["unknown_settlement"]


@pytest.mark.parametrize("kind", ["500", "truncated", "half_body", "empty", "wrong_type", "reset"])
def test_a_failure_is_never_an_empty_chain(kind: Any) -> None:
    with chains({"ACME": ACME}, faults=[Fault(kind=kind, match="options/ACME.*date=")]) as (source, server):
        with pytest.raises(ServiceUnavailable):
            quotes(source, "ACME")
        server.faults = []
        assert len(quotes(source, "ACME")) == 2


def test_being_asked_to_wait_is_said() -> None:
    faults = [Fault(kind="429", match="options/ACME", retry_after="3")]
    with chains({"ACME": ACME}, faults=faults) as (source, _), pytest.raises(RateLimited) as failure:
        quotes(source, "ACME")
    assert failure.value.retry_after_seconds == 3.0


@pytest.mark.parametrize("name", ["options_v7_AAPL_rs", "options-AAPL", "options-CRON", "options-BABA", "options-QQQ"])
def test_recorded_chains_are_read_whole(shared_data: Path, name: str) -> None:
    folder = shared_data / "recordings" / "yahoo"
    entry = next(one for one in json.loads((folder / "index.json").read_text()) if one["id"] == name)
    (result,) = json.loads((folder / entry["body_file"]).read_text())["optionChain"]["result"]
    (chain,) = result["options"]
    contracts = [*chain["calls"], *chain["puts"]]
    symbol = result["underlyingSymbol"]
    expiry = datetime.fromtimestamp(chain["expirationDate"], UTC).date()
    answered = datetime.fromtimestamp(result["quote"]["regularMarketTime"], UTC)
    days = pd.DatetimeIndex([pd.Timestamp(answered.date())])
    bars = pd.DataFrame(
        dict.fromkeys(("open", "high", "low", "close", "volume"), result["quote"]["regularMarketPrice"]), index=days
    )
    listing = Listing(bars=bars, chains={expiry: contracts}, exchange=result["quote"]["exchange"])
    with chains({symbol: listing}, answered) as (source, _):
        (answer,) = quotes(source, symbol)
    assert not answer.refused
    rows = {row["occ_symbol"]: row for row in answer.rows.to_pylist()}
    assert rows.keys() == {one["contractSymbol"] for one in contracts}
    for one in contracts:
        row = rows[one["contractSymbol"]]
        quoted = bool(one["bid"] or one["ask"])
        assert (row["strike"], row["last"]) == (one["strike"], one["lastPrice"])
        assert (row["bid"], row["ask"]) == ((one["bid"], one["ask"]) if quoted else (None, None))
        assert row["implied_volatility"] == (one["impliedVolatility"] if quoted else None)
        assert row["volume"] == one.get("volume")
        assert row["open_interest"] == one.get("openInterest")
    assert {row["underlying_price"] for row in rows.values()} == {result["quote"]["regularMarketPrice"]}
