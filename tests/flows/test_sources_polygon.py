"""Polygon (Massive): bars as traded, actions, chains; pages followed to the vendor only; an error in a 200 is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import ConfigError, DataError, InputError, QuantError, RateLimited, ServiceError, ServiceUnavailable
from config.settings import load_settings
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_options import ingest_options_flow
from flows.sources.base import get_source
from lake import open_lake
from tests.flows.replayed import FIXTURES, KEY, body, files_with, settings_for
from tests.replay import Fault, ReplayServer

HOST = "api.massive.com"
ANSWERED = datetime(2025, 11, 12, 20, 0, 5, tzinfo=UTC)  # the fixtures' Date header: an hour before New York closes
WINDOW = (date(2025, 11, 10), date(2025, 11, 12))


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with ReplayServer(FIXTURES / "polygon") as running:
        yield running


def bars(server: ReplayServer, name: str, window: tuple[date, date] = WINDOW, **options: Any) -> list[Any]:
    return list(get_source("polygon", "equity", settings_for(server, "polygon", HOST), **options).bars([name], *window))


def quotes(server: ReplayServer, *names: str, window: tuple[Any, Any] = (None, None), **options: Any) -> list[Any]:
    return list(get_source("polygon", "options", settings_for(server, "polygon", HOST), **options).quotes(names, *window))


def rows(answers: list[Any], dataset: str = "equity_bars") -> list[dict[str, Any]]:
    return [row for answer in answers if answer.dataset == dataset for row in answer.rows.to_pylist()]


def test_bars_are_asked_for_as_traded_and_known_at_their_sessions_close(server: ReplayServer) -> None:
    answers = bars(server, "ACME", (date(2025, 11, 6), date(2025, 11, 12)))
    found = rows(answers)
    # The 12th has not closed, the 8th is a Saturday; both pages are read.
    assert [(row["session"].day, row["close"], row["volume"]) for row in found] == [
        (6, 100.0, 1000.0),
        (7, 100.5, 1100.0),
        (10, 50.25, 2300.0),
        (11, 49.5, 2100.0),
    ]
    assert {row["basis"] for row in found} == {"as_traded"}
    assert found[0]["available_at"] == found[0]["event_time"] == datetime(2025, 11, 6, 21, tzinfo=UTC)  # 16:00 in New York
    assert [row.rule for answer in answers[:2] for row in answer.refused] == ["not_a_session"]
    assert {question.query["adjusted"] for question in server.asked if "adjusted" in question.query} == {"false"}
    assert any("DELAYED" in note for note in answers[1].notes)
    assert not answers[0].notes


@pytest.mark.parametrize(("minutes", "last"), [(5, 11), (15, 11), (16, 12)])
def test_a_session_that_has_just_closed_waits_until_a_delayed_plan_has_all_of_it(
    server: ReplayServer, minutes: int, last: int
) -> None:
    clock = FixedClock(datetime(2025, 11, 12, 21, minutes, tzinfo=UTC))  # New York closed at 21:00
    found = rows(bars(server, "ACME", (date(2025, 11, 6), date(2025, 11, 12)), clock=clock))
    assert max(row["session"].day for row in found) == last


def test_each_page_is_kept_byte_for_byte_and_the_key_goes_with_the_request_not_the_address(server: ReplayServer) -> None:
    answers = bars(server, "ACME", (date(2025, 11, 6), date(2025, 11, 12)))
    assert [answer.payload for answer in answers[:2]] == [body("polygon", "aggs_ACME_1.json"), body("polygon", "aggs_ACME_2.json")]
    assert {question.headers["authorization"] for question in server.asked} == {f"Bearer {KEY}"}
    assert not [question for question in server.asked if "apiKey" in question.query]
    assert KEY not in repr([(answer.origin, answer.request) for answer in answers])
    assert [answer.request["page"] for answer in answers[:2]] == [1, 2]


def test_splits_and_dividends_are_facts_known_when_they_were_announced(server: ReplayServer) -> None:
    answers = bars(server, "ACME", (date(2025, 11, 6), date(2025, 11, 12)))
    found = {(row["kind"], row["ex_date"]): row for row in rows(answers, "corporate_actions")}
    known = {key: row["available_at"] for key, row in found.items()}
    # 2 new for 1 old; without an announcement it is known when that session opens, 9:30 in New York.
    assert found["split", date(2025, 11, 10)]["value"] == 2.0
    assert known["split", date(2025, 11, 10)] == datetime(2025, 11, 10, 14, 30, tzinfo=UTC)
    # 1 for 10, still to come: it is known since we read of it.
    assert found["split", date(2025, 12, 1)]["value"] == 0.1
    assert known["split", date(2025, 12, 1)] == ANSWERED
    # As paid (0.24), not in today's shares (0.12).
    assert found["dividend", date(2025, 8, 8)]["value"] == 0.24
    assert known["dividend", date(2025, 8, 8)] == datetime(2025, 8, 8, 13, 30, tzinfo=UTC)
    # A regular 0.26 and a special 1.00 on one day; known at the end of the 3rd, when the second was declared.
    assert found["dividend", date(2025, 11, 7)]["value"] == pytest.approx(1.26, abs=1e-12)
    assert known["dividend", date(2025, 11, 7)] == datetime(2025, 11, 4, 4, 59, tzinfo=UTC)
    # Declared on 30 October, 23:59 in New York, four weeks before its ex-date.
    assert known["dividend", date(2025, 11, 28)] == datetime(2025, 10, 31, 3, 59, tzinfo=UTC)
    assert found["dividend", date(2025, 11, 28)]["currency"] == "USD"
    refused = sorted(row.rule for answer in answers if answer.dataset == "corporate_actions" for row in answer.refused)
    assert refused == ["ratio_not_positive", "value_missing"]
    by_themselves = get_source("polygon", "actions", settings_for(server, "polygon", HOST)).actions(["ACME"], None, None)
    assert rows(list(by_themselves), "corporate_actions") == rows(answers, "corporate_actions")


def test_an_unknown_ticker_is_missing_and_a_quiet_one_is_not(server: ReplayServer) -> None:
    (*_, unknown) = bars(server, "NOPE")
    assert unknown.missing == {"NOPE": "polygon knows no ticker NOPE"}
    quiet = bars(server, "QUIET")
    assert [dict(answer.missing) for answer in quiet] == [{}, {}, {}]
    assert rows(quiet) == []


@pytest.mark.parametrize(
    ("name", "raised", "words"),
    [
        ("ERR", ServiceUnavailable, "status 'ERROR': the query timed out"),
        ("BUSY", RateLimited, "maximum requests per minute"),
        ("PAID", ServiceError, "not entitled"),
        ("FORBID", ServiceError, "not entitled"),
        ("MISC", ServiceUnavailable, "counts 2 results and holds 1"),
        ("ADJ", DataError, "says adjusted: True"),
        ("AWAY", ServiceError, "api.massive.com.example.net.*, which is not its own"),
        ("LOOP", ServiceUnavailable, "a page that came before"),
    ],
)
def test_an_answer_that_is_an_error_is_not_zero_rows(server: ReplayServer, name: str, raised: type[QuantError], words: str) -> None:
    with pytest.raises(raised, match=words) as failed:
        bars(server, name)
    assert type(failed.value) is raised
    assert KEY not in str(failed.value)


def test_the_key_is_not_sent_to_another_host(server: ReplayServer) -> None:
    with pytest.raises(ServiceError):
        bars(server, "AWAY")
    assert {question.host for question in server.asked} == {HOST}


def test_an_intraday_bar_is_known_when_its_window_ends(server: ReplayServer) -> None:
    found = rows(bars(server, "MIN", interval="5m"))
    # 9:25 (before the session), 9:30; the window from 15:00 to 15:05 was open when Polygon answered at 15:00:05.
    assert [row["event_time"] for row in found] == [
        datetime(2025, 11, 12, 14, 30, tzinfo=UTC),
        datetime(2025, 11, 12, 14, 35, tzinfo=UTC),
    ]
    assert {(row["interval"], row["session"]) for row in found} == {("5m", date(2025, 11, 12))}
    with pytest.raises(InputError, match="interval '1w' is not one"):
        bars(server, "MIN", interval="1w")


def test_a_share_class_is_asked_for_with_a_dot_and_kept_as_it_was_named(server: ReplayServer) -> None:
    (row,) = rows(bars(server, "BRK-B"))
    assert (row["symbol"], row["close"]) == ("BRK-B", 505.0)


def test_a_chain_is_read_page_by_page(server: ReplayServer) -> None:
    first, second = quotes(server, "ACME")
    (call,), (put,) = first.rows.to_pylist(), second.rows.to_pylist()
    assert [call[name] for name in ("occ_symbol", "underlying", "strike", "right", "multiplier", "style", "settlement")] == [
        "ACME251121C00050000",
        "ACME",
        50.0,
        "C",
        100.0,
        "american",
        "physical",
    ]
    assert [call[name] for name in ("bid", "ask", "bid_size", "ask_size", "last", "volume", "open_interest")] == [
        1,
        1.1,
        11,
        7,
        1.05,
        42,
        311,
    ]
    assert [call[name] for name in ("underlying_price", "implied_volatility", "delta", "gamma", "vega", "theta", "rho")] == [
        50.25,
        0.22,
        0.5,
        0.05,
        0.11,
        -0.02,
        None,
    ]
    assert (call["quote_time"], call["available_at"], call["session"]) == (ANSWERED, ANSWERED, date(2025, 11, 12))
    # A plan without quotes: no bid and no ask, not a bid of zero.
    assert [put[name] for name in ("bid", "ask", "implied_volatility", "delta", "open_interest")] == [None, None, None, None, 311]
    assert [row.rule for row in first.refused] == ["non_standard_deliverable", "non_standard_deliverable"]
    assert [row.rule for row in second.refused] == ["wrong_type"]


def test_index_chains_are_asked_for_by_their_index_and_unknown_terms_are_refused(server: ReplayServer) -> None:
    (answer,) = quotes(server, "SPX")
    (row,) = answer.rows.to_pylist()
    assert (row["underlying"], row["style"], row["settlement"]) == ("SPX", "european", "pm_cash")
    assert [one.rule for one in answer.refused] == ["unknown_settlement"]
    assert answer.notes == ("polygon's quotes of options on SPX are delayed",)


def test_no_chain_is_missing_and_past_chains_are_not_to_be_had(server: ReplayServer) -> None:
    unknown, bare = quotes(server, "NOPE", "BARE")
    assert unknown.missing == {"NOPE": "polygon has no options on NOPE"}
    assert bare.missing == {"BARE": "polygon has no options on BARE"}
    with pytest.raises(InputError, match="of the session 2025-11-12"):
        quotes(server, "ACME", window=(None, date(2025, 11, 11)))


def test_bars_and_chains_are_ingested_and_the_key_is_in_no_file(server: ReplayServer) -> None:
    settings = settings_for(server, "polygon", HOST)
    clock = FixedClock(ANSWERED)
    report = ingest_equity_flow("ACME", "2025-11-06", "2025-11-12", source="polygon", settings=settings, clock=clock)
    assert {name: (counts.new, counts.refused) for name, counts in report.tables.items()} == {
        "equity_bars": (4, 1),
        "corporate_actions": (6, 3),  # a dividend that came twice is stored once
    }
    snapshot = open_lake(settings).snapshot()
    assert [row["close"] for row in snapshot.read("equity_bars").to_pylist()] == [100.0, 100.5, 50.25, 49.5]
    again = ingest_equity_flow("ACME", "2025-11-06", "2025-11-12", source="polygon", settings=settings, clock=clock)
    assert (again.total.new, again.total.revised, again.snapshot_id) == (0, 0, report.snapshot_id)
    chains = ingest_options_flow("ACME", "polygon", settings=settings, clock=clock)
    assert (chains.total.new, chains.total.refused) == (2, 3)
    assert files_with(KEY, settings.home_path) == []
    assert KEY not in repr((report, chains))


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (Fault(kind="500"), ServiceUnavailable),
        (Fault(kind="429", retry_after="7"), RateLimited),
        (Fault(kind="truncated"), ServiceUnavailable),
        (Fault(kind="half_body"), ServiceUnavailable),
        (Fault(kind="empty"), ServiceUnavailable),
        (Fault(kind="wrong_type"), ServiceUnavailable),
        (Fault(kind="reset"), ServiceUnavailable),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
@pytest.mark.parametrize("where", ["range/1/day", "cursor=bz0y", "v1/splits", "v1/dividends"])
def test_a_failure_has_its_class_and_is_never_an_empty_answer(
    server: ReplayServer, fault: Fault, raised: type[QuantError], where: str
) -> None:
    server.faults = [Fault(kind=fault.kind, match=where, retry_after=fault.retry_after)]
    with pytest.raises(raised) as failed:
        bars(server, "ACME", (date(2025, 11, 6), date(2025, 11, 12)))
    assert KEY not in str(failed.value)


def test_without_a_key_the_error_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="POLYGON_API_KEY is not set"):
        get_source("polygon", "equity", load_settings())


def test_a_real_answer_with_adjusted_prices_is_refused_whole(shared_data: Path) -> None:
    # Recorded from a question without adjusted=false: AAPL at 1.46 in April 2005, when it traded at 40.89.
    with ReplayServer(shared_data / "recordings" / "massive") as server, pytest.raises(DataError, match="says adjusted: True"):
        bars(server, "AAPL", (date(2005, 4, 1), date(2005, 4, 4)))


def test_real_aggregates_are_placed_on_their_sessions(shared_data: Path, tmp_path: Path) -> None:
    # The recorded values and days, as though they answered a question about prices as traded.
    folder = shared_data / "recordings" / "massive"
    document = json.loads((folder / "bodies" / "v2_aggs_ticker_AAPL_range_1_day_2005-04-01_2005-04-04.json").read_bytes())
    (tmp_path / "body.json").write_text(json.dumps({**document, "adjusted": False}))
    entries = [{"id": "aggs", "path": "/v2/aggs/ticker/AAPL/range/1/day/2005-04-01/2005-04-04", "body_file": "body.json"}]
    entries += [{"id": what, "path": f"/stocks/v1/{what}", "body_file": "none.json"} for what in ("splits", "dividends")]
    (tmp_path / "none.json").write_text('{"status": "OK", "results": []}')
    common = {"method": "GET", "host": HOST, "query": {}, "status": 200, "content_type": "application/json", "headers": {}}
    (tmp_path / "index.json").write_text(json.dumps([{**common, "recorded": "2025", **entry} for entry in entries]))
    with ReplayServer(tmp_path) as server:
        first, second = rows(bars(server, "AAPL", (date(2005, 4, 1), date(2005, 4, 4))))
    assert (first["session"], second["session"]) == (date(2005, 4, 1), date(2005, 4, 4))
    # 16:00 in New York is 21:00 UTC before the clocks change on 3 April and 20:00 after.
    assert (first["available_at"].hour, second["available_at"].hour) == (21, 20)
    assert [first[name] for name in ("open", "high", "low", "close", "volume")] == [1.5032, 1.5064, 1.4489, 1.4604, 642646396.0]
