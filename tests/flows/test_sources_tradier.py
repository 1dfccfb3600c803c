"""Tradier: chains with Greeks and daily bars, as the vendor answers; each failure is named; the key is nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from backtests.options.chain import ChainBook
from config.clock import FixedClock
from config.errors import ConfigError, InputError, QuantError, RateLimited, ServiceError, ServiceUnavailable
from config.settings import load_settings
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_options import ingest_options_flow
from flows.sources.base import get_source
from lake import open_lake
from tests.flows.replayed import FIXTURES, KEY, body, dated, files_with, settings_for
from tests.replay import Fault, ReplayServer

HOST = "api.tradier.com"
ANSWERED = datetime(2025, 11, 12, 20, 0, 5, tzinfo=UTC)  # the fixtures' Date header
RECORDED = datetime(2024, 6, 28, 16, 6, 2, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with ReplayServer(FIXTURES / "tradier") as running:
        yield running


def quotes(server: ReplayServer, *names: str, window: tuple[Any, Any] = (None, None), **options: Any) -> list[Any]:
    source = get_source("tradier", "options", settings_for(server, "tradier", HOST), **options)
    return list(source.quotes(names, *window))


def rows(answers: list[Any]) -> list[dict[str, Any]]:
    return [row for answer in answers for row in answer.rows.to_pylist()]


def test_a_chain_is_read_as_it_stood_at_the_moment_of_the_answer(server: ReplayServer) -> None:
    answers = quotes(server, "ACME")
    assert [answer.request["expiry"] for answer in answers] == ["2025-11-21", "2025-12-19"]
    call, put, plain, december = rows(answers)
    # Beside each other: what bodies/chain_ACME_2025-11-21.json says of its first contract, and the row.
    assert call == {
        "occ_symbol": "ACME251121C00050000",
        "quote_time": ANSWERED,
        "source": "tradier",
        "session": date(2025, 11, 12),
        "underlying": "ACME",
        "expiry": date(2025, 11, 21),
        "strike": 50.0,
        "right": "C",
        "multiplier": 100.0,
        "style": "american",
        "settlement": "physical",
        "bid": 1.2,
        "ask": 1.3,
        "bid_size": 11.0,
        "ask_size": 7.0,
        "last": 1.25,
        "volume": 12.0,
        "open_interest": 340.0,
        "underlying_price": 50.25,
        "implied_volatility": 0.22,
        "delta": 0.5,
        "gamma": 0.05,
        "vega": 0.11,
        "theta": -0.02,
        "rho": 0.04,
        "greeks_time": datetime(2025, 11, 12, 18, 59, 58, tzinfo=UTC),
        "data_kind": "real",
        "available_at": ANSWERED,
    }
    # A bid of zero is a quote; a last of null is none.
    assert (put["bid"], put["ask"], put["last"]) == (0.0, 0.05, None)
    # No Greeks: neither values nor a moment.
    assert [plain[name] for name in ("implied_volatility", "delta", "greeks_time")] == [None, None, None]
    # One contract comes as an object instead of a list.
    assert december["occ_symbol"] == "ACME251219C00050000"


def test_what_is_no_standard_contract_or_cannot_be_read_is_refused_with_the_reason(server: ReplayServer) -> None:
    refused = {row.rule: row for row in quotes(server, "ACME")[0].refused}
    assert sorted(refused) == ["contradicts_symbol", "non_standard_deliverable", "wrong_type"]
    every = [row.reason for row in quotes(server, "ACME")[0].refused]
    assert every == [
        "ACME1251121C00050000 (100 units, root ACME1) does not deliver 100 shares of ACME",
        "ACME251121P00045000 (10 units, root ACME) does not deliver 100 shares of ACME",
        "ACME251121P00040000: could not convert string to float: 'soon'",
        "strike 42.0 beside ACME251121P00041000, which says 41",
    ]
    assert refused["wrong_type"].raw["bid"] == "soon"


def test_a_share_class_is_asked_for_with_a_slash_and_kept_as_it_was_named(server: ReplayServer) -> None:
    (answer,) = quotes(server, "BRK.B")
    (row,) = answer.rows.to_pylist()
    assert (row["underlying"], row["occ_symbol"], row["underlying_price"]) == ("BRK.B", "BRKB251121C00510000", 512.0)
    assert {question.query["symbol"] for question in server.asked if "symbol" in question.query} == {"BRK/B"}


def test_index_options_are_european_and_settle_as_their_root_says(server: ReplayServer) -> None:
    morning, afternoon = rows(quotes(server, "SPX"))
    assert [(r["style"], r["settlement"]) for r in (morning, afternoon)] == [("european", "am_cash"), ("european", "pm_cash")]
    assert [r["underlying"] for r in (morning, afternoon)] == ["SPX", "SPX"]
    # Terms that nobody stated are not guessed.
    (unknown,) = quotes(server, "HGX")
    assert unknown.rows.num_rows == 0
    assert [row.rule for row in unknown.refused] == ["unknown_settlement"]


@pytest.mark.parametrize(
    ("which", "call", "put"), [("mid", 0.22, 0.22), ("smv", 0.215, 0.215), ("bid", 0.21, None), ("ask", 0.23, 0.23)]
)
def test_the_implied_volatility_is_the_one_asked_for_and_a_zero_is_none(
    server: ReplayServer, which: str, call: float, put: float | None
) -> None:
    first = quotes(server, "ACME", implied_volatility=which, expiry_to="2025-11-30")[0].rows.to_pylist()
    assert (first[0]["implied_volatility"], first[1]["implied_volatility"]) == (call, put)


def test_the_payload_is_the_underlyings_quote_and_the_chain_byte_for_byte(server: ReplayServer) -> None:
    answer = quotes(server, "ACME")[0]
    assert answer.payload == body("tradier", "quote_ACME.json") + b"\n" + body("tradier", "chain_ACME_2025-11-21.json")


def test_an_unknown_symbol_and_one_without_options_are_missing_and_said_to_be(server: ReplayServer) -> None:
    unknown, bare = quotes(server, "NOPE", "BARE")
    assert unknown.missing == {"NOPE": "tradier knows no symbol NOPE"}
    assert bare.missing == {"BARE": "tradier lists no options on BARE"}


def test_only_the_expiries_asked_for_are_fetched(server: ReplayServer) -> None:
    (answer,) = quotes(server, "ACME", expiry_from="2025-12-01", expiry_to="2025-12-31")
    assert answer.request["expiry"] == "2025-12-19"
    assert [q.query["expiration"] for q in server.asked if q.path.endswith("chains")] == ["2025-12-19"]


def test_past_chains_are_not_to_be_had_and_the_error_says_so(server: ReplayServer) -> None:
    with pytest.raises(InputError, match="session 2025-11-12, which is not between None and 2025-11-11"):
        quotes(server, "ACME", window=(None, date(2025, 11, 11)))


def test_an_exhausted_quota_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expires = int((ANSWERED.timestamp() + 30) * 1000)  # Tradier's header: milliseconds since 1970
    index = json.loads((FIXTURES / "tradier" / "index.json").read_text())
    for entry in index:
        entry["body_file"] = str(FIXTURES / "tradier" / entry["body_file"])
        if entry["id"] == "quote_BARE":
            entry["headers"] |= {"X-Ratelimit-Available": "0", "X-Ratelimit-Expiry": str(expires)}
    (tmp_path / "index.json").write_text(json.dumps(index))
    slept: list[float] = []
    monkeypatch.setattr("flows.sources.tradier.time", SimpleNamespace(monotonic=lambda: 100.0, sleep=slept.append))
    with ReplayServer(tmp_path) as server:
        quotes(server, "BARE")
    assert slept == [30.0]


def test_daily_bars_are_of_closed_sessions_and_do_not_claim_to_be_as_traded(server: ReplayServer) -> None:
    source = get_source("tradier", "equity", settings_for(server, "tradier", HOST))
    (answer,) = source.bars(["ACME"], date(2025, 11, 7), date(2025, 11, 12))
    first, second = answer.rows.to_pylist()
    # The session of the 12th is open until 21:00 UTC, an hour after the answer.
    assert [row["session"] for row in (first, second)] == [date(2025, 11, 10), date(2025, 11, 11)]
    assert first["available_at"] == datetime(2025, 11, 10, 21, tzinfo=UTC)
    assert [first[name] for name in ("open", "high", "low", "close", "volume")] == [49.0, 50.5, 48.75, 50.0, 1200.0]
    assert {row["basis"] for row in (first, second)} == {"vendor_adjusted"}
    assert sorted(row.rule for row in answer.refused) == ["not_a_session", "wrong_type"]
    (one,) = source.bars(["ONE"], None, None)
    assert one.rows.to_pylist()[0]["close"] == 5.25
    unknown, empty = source.bars(["NOPE", "BARE"], None, None)
    assert unknown.missing == {"NOPE": "tradier knows no symbol NOPE"}
    assert (dict(empty.missing), empty.rows.num_rows) == ({}, 0)


@pytest.mark.parametrize(("minutes", "last"), [(5, 11), (15, 11), (16, 12)])
def test_a_session_that_has_just_closed_waits_until_a_delayed_plan_has_all_of_it(
    server: ReplayServer, minutes: int, last: int
) -> None:
    clock = FixedClock(datetime(2025, 11, 12, 21, minutes, tzinfo=UTC))  # New York closed at 21:00
    source = get_source("tradier", "equity", settings_for(server, "tradier", HOST), clock=clock)
    found = rows(list(source.bars(["ACME"], None, None)))
    assert max(row["session"].day for row in found) == last


def test_a_chain_is_ingested_and_read_back_and_the_key_is_in_no_file(server: ReplayServer, tmp_path: Path) -> None:
    settings = settings_for(server, "tradier", HOST)
    report = ingest_options_flow(["ACME", "NOPE"], "tradier", settings=settings, clock=FixedClock(ANSWERED))
    assert {name.name: name.outcome for name in report.names} == {"ACME": "stored", "NOPE": "missing"}
    stored = open_lake(settings).snapshot().read("option_quotes", where={"underlying": "ACME"}).to_pylist()
    assert [row["occ_symbol"] for row in stored] == [
        "ACME251121C00050000",
        "ACME251121C00052500",
        "ACME251121P00050000",
        "ACME251219C00050000",
    ]
    held = open_lake(settings).read_latest("quarantine").to_pylist()
    refused = ["contradicts_symbol", "non_standard_deliverable", "non_standard_deliverable", "wrong_type"]
    assert sorted(row["rule"] for row in held) == refused
    # Every quote counts as known at the moment of the chain: a decision on it sees them all.
    chain = ChainBook.from_rows(open_lake(settings).snapshot().read("option_quotes")).on(pd.Timestamp("2025-11-12"))
    assert chain is not None
    assert chain.known.tolist() == [True] * 4
    again = ingest_options_flow(["ACME"], "tradier", settings=settings, clock=FixedClock(ANSWERED))
    assert (again.total.new, again.total.unchanged) == (0, 4)
    assert all(question.headers["authorization"] == f"Bearer {KEY}" for question in server.asked)
    assert files_with(KEY, settings.home_path) == []
    assert KEY not in repr(report) + repr(stored) + repr(held)
    assert list(settings.home_path.rglob("*"))


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (Fault(kind="500"), ServiceUnavailable),
        (Fault(kind="502"), ServiceUnavailable),
        (Fault(kind="429", retry_after="7"), RateLimited),
        (Fault(kind="truncated"), ServiceUnavailable),
        (Fault(kind="half_body"), ServiceUnavailable),
        (Fault(kind="empty"), ServiceUnavailable),
        (Fault(kind="wrong_type"), ServiceUnavailable),
        (Fault(kind="reset"), ServiceUnavailable),
        (Fault(kind="slow", seconds=1.0), ServiceUnavailable),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
@pytest.mark.parametrize("where", ["quotes", "expirations", "chains"])
def test_a_failure_has_its_class_and_is_never_an_empty_answer(
    server: ReplayServer, fault: Fault, raised: type[QuantError], where: str
) -> None:
    server.faults = [Fault(kind=fault.kind, match=where, retry_after=fault.retry_after, seconds=fault.seconds)]
    settings = settings_for(server, "tradier", HOST, **{"data.timeout_seconds": 0.3})
    with pytest.raises(raised) as failed:
        list(get_source("tradier", "options", settings).quotes(["ACME"], None, None))
    assert KEY not in str(failed.value)
    if isinstance(failed.value, RateLimited):
        assert failed.value.retry_after_seconds == 7.0


def test_a_refused_key_and_an_answer_that_is_a_fault_are_not_retried(tmp_path: Path) -> None:
    entry = {"method": "GET", "host": HOST, "path": "/v1/markets/quotes", "content_type": "application/json", "headers": {}}
    entry |= {"recorded": "2025-11-12", "body_file": "body"}
    (tmp_path / "body").write_text(f'{{"fault": {{"faultstring": "Invalid Access Token {KEY}"}}}}')
    for status in (200, 401):
        (tmp_path / "index.json").write_text(json.dumps([{**entry, "id": "fault", "query": {}, "status": status}]))
        with ReplayServer(tmp_path) as server, pytest.raises(ServiceError, match="Invalid Access Token") as failed:
            quotes(server, "ACME")
        assert type(failed.value) is ServiceError
        assert KEY not in str(failed.value)  # although the vendor repeats it


def test_without_a_key_the_error_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="TRADIER_API_KEY is not set"):
        get_source("tradier", "options", load_settings())


def test_a_real_recording_is_ingested_and_agrees_with_its_bytes(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "recordings" / "tradier"
    with ReplayServer(dated(folder, tmp_path / "dated")) as server:
        settings = settings_for(server, "tradier", HOST)
        report = ingest_options_flow(
            "PLTR", "tradier", settings=settings, clock=FixedClock(RECORDED), expiry_from="2026-06-01", expiry_to="2026-06-30"
        )
    assert (report.total.new, report.total.refused) == (14, 0)
    assert any("15 minutes old" in note for note in report.notes)  # 15:50:47 in the quotes, 16:06:02 in the Date header
    stored = {row["occ_symbol"]: row for row in open_lake(settings).snapshot().read("option_quotes").to_pylist()}
    recorded = json.loads((folder / "bodies" / "tradier_chain_PLTR_2026-06-18.json").read_bytes())["options"]["option"]
    assert len(recorded) == len(stored) == 14
    for one in recorded:
        row = stored[one["symbol"]]
        assert [row[name] for name in ("bid", "ask", "last", "strike", "open_interest")] == [
            one[name] for name in ("bid", "ask", "last", "strike", "open_interest")
        ]
        assert (row["delta"], row["implied_volatility"]) == (one["greeks"]["delta"], one["greeks"]["mid_iv"])
        # 67 minutes before the answer, as the recording's manifest says.
        assert (row["quote_time"] - row["greeks_time"]).total_seconds() // 60 == 67
        assert (row["session"], row["underlying_price"], row["available_at"]) == (date(2024, 6, 28), 25.5, RECORDED)


def test_the_recorded_history_of_2012_is_read_whole(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "recordings" / "tradier"
    with ReplayServer(dated(folder, tmp_path / "dated", only={"rb_history"})) as server:
        settings = settings_for(server, "tradier", HOST)
        report = ingest_equity_flow("AAPL", source="tradier", settings=settings, clock=FixedClock(RECORDED))
    recorded = json.loads((folder / "bodies" / "rb_history.json").read_bytes())["history"]["day"]
    stored = {str(row["session"]): row for row in open_lake(settings).snapshot().read("equity_bars").to_pylist()}
    assert report.total.new == len(recorded) - report.total.refused
    assert all(stored[day["date"]]["close"] == day["close"] for day in recorded if day["date"] in stored)
    assert len(stored) > 200
