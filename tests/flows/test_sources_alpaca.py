"""Alpaca's data through its real client: adjustment, feed and symbols are stated; pages are kept; a failure is never no data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import ConfigError, InputError, QuantError, RateLimited, ServiceError, ServiceUnavailable
from config.settings import load_settings
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_options import ingest_options_flow
from flows.sources.base import get_source
from tests.flows.replayed import FIXTURES, KEY, SECRET, body, files_with, settings_for
from tests.replay import Fault, ReplayServer

HOST = "data.alpaca.markets"
ANSWERED = datetime(2025, 11, 12, 20, 0, 5, tzinfo=UTC)  # the fixtures' Date header: an hour before New York closes
WINDOW = (date(2025, 11, 6), date(2025, 11, 12))


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with ReplayServer(FIXTURES / "alpaca") as running:
        yield running


def bars(server: ReplayServer, *names: str, window: tuple[Any, Any] = WINDOW, **options: Any) -> list[Any]:
    return list(get_source("alpaca", "equity", settings_for(server, "alpaca", HOST), **options).bars(names, *window))


def quotes(server: ReplayServer, *names: str, window: tuple[Any, Any] = (None, None), **options: Any) -> list[Any]:
    return list(get_source("alpaca", "options", settings_for(server, "alpaca", HOST), **options).quotes(names, *window))


def rows(answers: list[Any], dataset: str = "equity_bars") -> list[dict[str, Any]]:
    return [row for answer in answers if answer.dataset == dataset for row in answer.rows.to_pylist()]


def test_bars_are_asked_for_raw_from_a_stated_feed_under_the_letters_of_the_time(server: ReplayServer) -> None:
    found = rows(bars(server, "ACME"))
    # The 12th has not closed, the 8th is a Saturday; both pages are read.
    assert [(row["session"].day, row["open"], row["high"], row["low"], row["close"], row["volume"]) for row in found] == [
        (6, 96.0, 101.0, 95.0, 100.0, 1000.0),
        (7, 100.0, 102.0, 99.0, 100.5, 1100.0),
        (10, 50.5, 51.0, 50.0, 50.25, 2300.0),
        (11, 50.25, 50.5, 49.0, 49.5, 2100.0),
    ]
    assert {(row["source"], row["basis"], row["currency"]) for row in found} == {("alpaca", "as_traded", "USD")}
    assert found[0]["available_at"] == datetime(2025, 11, 6, 21, tzinfo=UTC)
    asked = [question.query for question in server.asked if question.path == "/v2/stocks/bars"]
    stated = {(one["adjustment"], one["feed"], one["asof"], one["timeframe"], one["start"]) for one in asked}
    assert stated == {("raw", "sip", "-", "1Day", "2025-11-06T05:00:00+00:00")}  # midnight in New York
    assert {one["end"] for one in asked} == {"2025-11-13T04:59:59+00:00"}  # the last second of the 12th there


def test_the_pages_bytes_are_kept_and_what_cannot_be_read_is_refused(server: ReplayServer) -> None:
    answer = bars(server, "ACME")[0]
    assert answer.payload == body("alpaca", "bars_ACME_1.json") + b"\n" + body("alpaca", "bars_ACME_2.json")
    assert sorted(row.rule for row in answer.refused) == ["not_a_session", "wrong_type"]
    assert {question.headers["apca-api-key-id"] for question in server.asked} == {KEY}
    assert {question.headers["apca-api-secret-key"] for question in server.asked} == {SECRET}


def test_the_bars_of_one_exchange_are_of_another_source(server: ReplayServer) -> None:
    (answer, _) = bars(server, "ACME", feed="iex")
    (row,) = answer.rows.to_pylist()
    assert (row["source"], row["close"], row["volume"]) == ("alpaca_iex", 50.2, 60.0)
    assert "IEX" in answer.notes[0]
    with pytest.raises(InputError, match="neither sip nor iex"):
        bars(server, "ACME", feed="otc")


def test_an_intraday_bar_is_known_when_its_window_ends(server: ReplayServer) -> None:
    found = rows(bars(server, "ACME", interval="5m"))
    # The window from 15:00 to 15:05 in New York was open when Alpaca answered at 15:00:05.
    assert [row["event_time"] for row in found] == [
        datetime(2025, 11, 12, 14, 30, tzinfo=UTC),
        datetime(2025, 11, 12, 14, 35, tzinfo=UTC),
    ]
    with pytest.raises(InputError, match="interval '90m' is not one"):
        bars(server, "ACME", interval="90m")


def test_nothing_is_asked_of_a_window_that_has_not_happened(server: ReplayServer) -> None:
    assert bars(server, "ACME", window=(date(2025, 11, 13), None), clock=FixedClock(ANSWERED)) == []
    assert server.asked == []


def test_recent_consolidated_bars_are_asked_for_only_where_every_plan_may(server: ReplayServer) -> None:
    bars(server, "ACME", window=(date(2025, 11, 6), None), clock=FixedClock(ANSWERED))
    assert server.asked[0].query["end"] == "2025-11-12T19:44:05+00:00"  # sixteen minutes before 20:00:05


@pytest.mark.parametrize(("minutes", "last"), [(5, 11), (15, 11), (16, 12)])
def test_a_session_that_has_just_closed_waits_until_a_delayed_plan_has_all_of_it(
    server: ReplayServer, minutes: int, last: int
) -> None:
    clock = FixedClock(datetime(2025, 11, 12, 21, minutes, tzinfo=UTC))  # New York closed at 21:00
    found = rows(bars(server, "ACME", clock=clock))
    assert max(row["session"].day for row in found) == last


def test_actions_are_facts_and_what_has_no_place_is_refused(server: ReplayServer) -> None:
    answers = bars(server, "ACME")
    found = {(row["symbol"], row["kind"], row["ex_date"]): row for row in rows(answers, "corporate_actions")}
    assert {key: row["value"] for key, row in found.items()} == {
        ("ACME", "split", date(2025, 11, 10)): 2.0,  # two for one
        ("ACME", "split", date(2025, 12, 1)): 0.1,  # one for ten
        ("ACME", "split", date(2025, 3, 3)): 1.05,  # a stock dividend of 5 %
        ("ACME", "dividend", date(2025, 11, 7)): 1.26,  # 0.26 and a special 1.00
        ("ACME", "dividend", date(2025, 5, 9)): 0.5,
        ("ACM", "rename", date(2024, 7, 1)): None,
    }
    assert found["ACM", "rename", date(2024, 7, 1)]["new_symbol"] == "ACME"
    assert found["ACME", "dividend", date(2025, 5, 9)]["currency"] is None  # a foreign one: Alpaca does not say
    assert found["ACME", "split", date(2025, 11, 10)]["available_at"] == datetime(2025, 11, 10, 14, 30, tzinfo=UTC)
    assert found["ACME", "split", date(2025, 12, 1)]["available_at"] == ANSWERED
    refused = sorted(row.rule for answer in answers if answer.dataset == "corporate_actions" for row in answer.refused)
    assert refused == ["no_place_for_action", "no_place_for_action", "ratio_not_positive"]  # a merger, a spin-off, 1 for 0
    assert rows(
        list(get_source("alpaca", "actions", settings_for(server, "alpaca", HOST)).actions(["ACME"], *WINDOW)), "corporate_actions"
    )


def test_a_refused_symbol_is_missing_and_a_quiet_one_is_not(server: ReplayServer) -> None:
    bad, quiet, *_ = bars(server, "BAD", "QUIET")
    assert list(bad.missing) == ["BAD"]
    assert "invalid symbol: BAD" in bad.missing["BAD"]
    assert bad.payload == body("alpaca", "bars_BAD.json")
    assert (dict(quiet.missing), quiet.rows.num_rows) == ({}, 0)
    (row,) = rows(bars(server, "BRK-B"))
    assert row["symbol"] == "BRK-B"


@pytest.mark.parametrize(
    ("name", "raised", "words"),
    [
        ("WINDOW", ServiceError, "end should not be before start"),
        ("PLAN", ServiceError, "does not permit querying recent SIP data"),
        ("LIST", ServiceUnavailable, "its client cannot read"),
        ("ODD", ServiceUnavailable, "its client cannot read"),
        ("NOTHING RECORDED", ServiceUnavailable, "did not answer with JSON"),
    ],
)
def test_an_answer_that_is_none_is_an_error(server: ReplayServer, name: str, raised: type[QuantError], words: str) -> None:
    with pytest.raises(raised, match=words) as failed:
        bars(server, name)
    assert type(failed.value) is raised


def test_a_chain_is_read_as_it_stands(server: ReplayServer) -> None:
    (answer,) = quotes(server, "ACME")
    call, put = answer.rows.to_pylist()
    assert [
        call[name] for name in ("occ_symbol", "bid", "ask", "bid_size", "ask_size", "last", "volume", "implied_volatility")
    ] == [
        "ACME251121C00050000",
        1.0,
        1.1,
        11.0,
        7.0,
        1.05,
        42.0,
        0.22,
    ]
    assert [call[name] for name in ("delta", "gamma", "vega", "theta", "rho", "multiplier", "data_kind")] == [
        0.5,
        0.05,
        0.11,
        -0.02,
        0.04,
        100.0,
        "real",
    ]
    assert (call["quote_time"], call["session"]) == (ANSWERED, date(2025, 11, 12))
    assert [put[name] for name in ("strike", "right", "bid", "ask", "last", "delta")] == [45.5, "P", None, None, 0.4, None]
    assert sorted(row.rule for row in answer.refused) == ["non_standard_deliverable", "wrong_type"]
    assert answer.payload == body("alpaca", "chain_ACME_1.json") + b"\n" + body("alpaca", "chain_ACME_2.json")
    morning, afternoon = rows(quotes(server, "SPX"), "option_quotes")
    assert (morning["settlement"], afternoon["settlement"]) == ("am_cash", "pm_cash")


def test_indicative_quotes_are_of_another_source_and_marked_modelled(server: ReplayServer) -> None:
    (answer,) = quotes(server, "ACME", feed="indicative")
    (row,) = answer.rows.to_pylist()
    assert (row["source"], row["data_kind"], row["bid"]) == ("alpaca_indicative", "modelled", 0.98)
    assert "modified" in answer.notes[0]


def test_no_chain_is_missing_and_past_chains_are_not_to_be_had(server: ReplayServer) -> None:
    none, bad = quotes(server, "NONE", "BAD")
    assert none.missing == {"NONE": "alpaca has no options on NONE"}
    assert "invalid underlying symbol" in bad.missing["BAD"]
    with pytest.raises(InputError, match="of the session 2025-11-12"):
        quotes(server, "ACME", window=(None, date(2025, 11, 11)))


def test_bars_and_chains_are_ingested_and_the_keys_are_in_no_file(server: ReplayServer) -> None:
    settings, clock = settings_for(server, "alpaca", HOST), FixedClock(ANSWERED)
    report = ingest_equity_flow(["ACME", "BAD"], "2025-11-06", "2025-11-12", source="alpaca", settings=settings, clock=clock)
    assert {name.name: name.outcome for name in report.names}["BAD"] == "missing"
    assert {name: (counts.new, counts.refused) for name, counts in report.tables.items()} == {
        "equity_bars": (4, 2),
        "corporate_actions": (6, 3),
    }
    again = ingest_equity_flow("ACME", "2025-11-06", "2025-11-12", source="alpaca", settings=settings, clock=clock)
    assert (again.total.new, again.total.revised, again.snapshot_id) == (0, 0, report.snapshot_id)
    chains = ingest_options_flow("ACME", "alpaca", settings=settings, clock=clock)
    assert (chains.total.new, chains.total.refused) == (2, 2)
    assert [files_with(text, settings.home_path) for text in (KEY, SECRET)] == [[], []]
    assert KEY not in repr((report, chains))
    assert SECRET not in repr((report, chains))


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (Fault(kind="500"), ServiceUnavailable),
        (Fault(kind="503"), ServiceUnavailable),
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
@pytest.mark.parametrize("where", ["timeframe=1Day", "page_token=QUNNRXxE", "corporate-actions"])
def test_a_failure_has_its_class_and_is_never_an_empty_answer(
    server: ReplayServer, fault: Fault, raised: type[QuantError], where: str
) -> None:
    server.faults = [Fault(kind=fault.kind, match=where, retry_after=fault.retry_after, seconds=fault.seconds)]
    settings = settings_for(server, "alpaca", HOST, **{"data.timeout_seconds": 0.3})
    with pytest.raises(raised) as failed:
        list(get_source("alpaca", "equity", settings).bars(["ACME"], *WINDOW))
    assert KEY not in str(failed.value)
    assert SECRET not in str(failed.value)
    if isinstance(failed.value, RateLimited):
        assert failed.value.retry_after_seconds == 7.0
    # The client's own three retries are off: the flow repeats, by class.
    assert len([question for question in server.asked if where in question.words]) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_a_vendor_that_repeats_the_keys_does_not_show_them(tmp_path: Path, status: int) -> None:
    (tmp_path / "body").write_text(json.dumps({"message": f"no account of {KEY} and {SECRET}"}))
    entry = {"id": "bars", "method": "GET", "host": HOST, "path": "/v2/stocks/bars", "query": {}, "status": status, "headers": {}}
    entry |= {"content_type": "application/json", "recorded": "2025-11-12", "body_file": "body"}
    (tmp_path / "index.json").write_text(json.dumps([entry]))
    with ReplayServer(tmp_path) as server, pytest.raises(ServiceError, match=r"no account of \*\*\*") as failed:
        bars(server, "ACME")
    assert KEY not in str(failed.value)
    assert SECRET not in str(failed.value)


def test_without_keys_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="ALPACA_API_KEY is not set"):
        get_source("alpaca", "equity", load_settings())
    monkeypatch.setenv("ALPACA_API_KEY", KEY)
    with pytest.raises(ConfigError, match="ALPACA_API_SECRET is not set"):
        get_source("alpaca", "options", load_settings())


def test_real_answers_are_read(shared_data: Path, tmp_path: Path) -> None:
    # Recorded for two symbols and for single contracts; served here as the answers to our questions, byte for byte.
    bodies = shared_data / "recordings" / "alpaca" / "bodies"
    common = {
        "method": "GET",
        "host": HOST,
        "status": 200,
        "content_type": "application/json",
        "recorded": "2022-03-10",
        "query": {},
    }
    none = tmp_path / "none.json"
    none.write_text('{"corporate_actions": {}, "next_page_token": null}')
    entries = [
        {"id": "bars", "path": "/v2/stocks/bars", "body_file": str(bodies / "33_v2-stocks-bars.json")},
        {"id": "actions", "path": "/v1/corporate-actions", "body_file": str(none)},
        {
            "id": "chain",
            "path": "/v1beta1/options/snapshots/AAPL",
            "body_file": str(bodies / "26_v1beta1-options-snapshots.json"),
            "headers": {"Date": "Sat, 03 Feb 2024 12:00:00 GMT"},
        },
    ]
    (tmp_path / "index.json").write_text(json.dumps([{"headers": {}, **common, **entry} for entry in entries]))
    with ReplayServer(tmp_path) as server:
        (row,) = rows(bars(server, "TSLA", window=(date(2022, 3, 9), date(2022, 3, 9))))
        (answer,) = quotes(server, "AAPL")
    assert [row[name] for name in ("open", "high", "low", "close", "volume")] == [839, 860.56, 832.01, 858.97, 19227323]
    assert (row["session"], row["event_time"]) == (date(2022, 3, 9), datetime(2022, 3, 9, 21, tzinfo=UTC))
    (quote,) = answer.rows.to_pylist()
    assert [quote[name] for name in ("bid", "ask", "bid_size", "ask_size", "last")] == [0.48, 0.59, 396, 458, 0.52]
    assert (quote["delta"], quote["implied_volatility"]) == (0.6742666141545315, 0.3160291785379539)
    # Asked on a Saturday: the quotes are of Friday's session, as their own time says.
    assert (quote["session"], quote["quote_time"]) == (date(2024, 2, 2), datetime(2024, 2, 3, 12, tzinfo=UTC))
