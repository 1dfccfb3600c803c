"""Crypto bars through the real CCXT: UTC days, pages, the open candle left out, idle minutes kept, no error as no candles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import InputError, QuantError, RateLimited, ServiceUnavailable
from flows.ingest_equity import ingest_equity_flow
from flows.sources.base import get_source
from lake import open_lake
from tests.flows.replayed import FIXTURES, body, settings_for
from tests.replay import Fault, ReplayServer

HOST = "api.kraken.com"
COINBASE = "api.exchange.coinbase.com"
ANSWERED = datetime(2025, 11, 12, 20, 0, 5, tzinfo=UTC)  # the fixtures' Date header
FIRST = date(2025, 11, 7)


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with ReplayServer(FIXTURES / "ccxt") as running:
        yield running


def bars(server: ReplayServer, *names: str, window: tuple[Any, Any] = (FIRST, None), host: str = HOST, **options: Any) -> list[Any]:
    return list(get_source("ccxt", "equity", settings_for(server, "ccxt", host), **options).bars(names, *window))


def rows(answers: list[Any]) -> list[dict[str, Any]]:
    return [row for answer in answers for row in answer.rows.to_pylist()]


def test_a_day_is_a_utc_day_known_when_it_ends(server: ReplayServer) -> None:
    found = rows(bars(server, "BTC/USD"))
    assert [(row["session"].day, row["open"], row["high"], row["low"], row["close"], row["volume"]) for row in found] == [
        (7, 100.0, 110.0, 90.0, 105.0, 12.5),
        (8, 105.0, 106.0, 104.0, 105.5, 1.25),  # a Saturday
        (9, 105.5, 105.5, 105.5, 105.5, 0.0),  # nothing traded: kept as it is
        (10, 106.0, 120.0, 100.0, 118.5, 20.0),
        (11, 118.5, 119.0, 117.0, 118.0, 2.0),
    ]  # the 12th has four hours to go
    assert found[0]["event_time"] == found[0]["available_at"] == datetime(2025, 11, 8, tzinfo=UTC)
    assert {(row["source"], row["currency"], row["calendar"], row["basis"]) for row in found} == {
        ("ccxt_kraken", "USD", "24/7", "as_traded")
    }


def test_pages_follow_the_last_candle_and_keep_their_bytes(server: ReplayServer) -> None:
    first, second = bars(server, "BTC/USD")
    assert [first.payload, second.payload] == [body("ccxt", "days_1.json"), body("ccxt", "days_2.json")]
    # Kraken gives what is after `since`, so ccxt asks from one candle earlier: 6 November, then the 9th, the last one held.
    sinces = [int(str(question.query["since"])) for question in server.asked if question.path.endswith("OHLC")]
    assert [datetime.fromtimestamp(since, UTC).day for since in sinces] == [6, 9]
    assert first.notes == ("1 of 3 bars of BTC/USD on kraken are without a trade: their price is the one before",)
    (late, *_) = bars(server, "BTC/USD", window=(date(2025, 11, 1), date(2025, 11, 8)))
    assert late.notes == ("kraken gives BTC/USD from 2025-11-07 on, not from 2025-11-01",)
    assert [row["session"].day for row in late.rows.to_pylist()] == [7, 8]


def test_a_minute_is_known_when_it_ends_and_an_idle_one_is_kept(server: ReplayServer) -> None:
    found = rows(bars(server, "BTC/USD", window=(None, None), interval="1m"))
    # Kraken answered at 20:00:05: the minute from 20:00 was open.
    assert [(row["event_time"].strftime("%H:%M"), row["close"], row["volume"]) for row in found] == [
        ("19:58", 50.5, 1.0),
        ("19:59", 50.5, 0.0),
        ("20:00", 51.0, 2.0),
    ]
    assert {(row["session"], row["interval"]) for row in found} == {(date(2025, 11, 12), "1m")}


def test_the_currency_is_the_pairs_and_an_unknown_pair_is_missing(server: ReplayServer) -> None:
    euro, unknown = bars(server, "ETH/EUR", "BTD/USD", window=(date(2025, 11, 11), date(2025, 11, 11)))
    assert [(row["symbol"], row["currency"], row["close"]) for row in euro.rows.to_pylist()] == [("ETH/EUR", "EUR", 3050.0)]
    assert unknown.missing["BTD/USD"].startswith("kraken has no pair BTD/USD; did you mean BTC/USD")
    assert unknown.payload == body("ccxt", "pairs.json")


def test_another_exchange_is_read_behind_windows_in_which_nothing_traded(server: ReplayServer) -> None:
    found = rows(bars(server, "BTC/USD", window=(date(2025, 1, 1), None), host=COINBASE, exchange="coinbaseexchange"))
    # 300 days from 1 January are empty; the next window begins on 28 October.
    starts = [str(question.query["start"])[:10] for question in server.asked if question.path.endswith("candles")]
    assert starts[:2] == ["2025-01-01", "2025-10-28"]
    assert [(row["source"], row["session"].day, row["low"], row["high"], row["close"]) for row in found] == [
        ("ccxt_coinbaseexchange", 10, 100.0, 120.0, 118.5),
        ("ccxt_coinbaseexchange", 11, 117.0, 119.0, 118.0),
    ]


def test_what_an_exchange_does_not_have_is_said_with_what_it_has(server: ReplayServer) -> None:
    with pytest.raises(InputError, match="ccxt knows no exchange 'kracken'.*\n.*did you mean.*kraken"):
        bars(server, "BTC/USD", exchange="kracken")
    with pytest.raises(InputError, match="kraken has no bars of '7m'.*\n.*it has 1m, 5m"):
        bars(server, "BTC/USD", interval="7m")


def test_an_error_in_a_200_is_an_error(server: ReplayServer) -> None:
    with pytest.raises(RateLimited, match="Too many requests"):
        bars(server, "SOL/USD")
    with pytest.raises(ServiceUnavailable, match="answered without 'result'"):
        bars(server, "ADA/USD")


def test_bars_are_ingested_once(server: ReplayServer) -> None:
    settings, clock = settings_for(server, "ccxt", HOST), FixedClock(ANSWERED)
    report = ingest_equity_flow(["BTC/USD", "XRP/USD"], FIRST, source="ccxt", settings=settings, clock=clock)
    assert {name.name: name.outcome for name in report.names} == {"BTC/USD": "stored", "XRP/USD": "missing"}
    stored = open_lake(settings).snapshot().read("equity_bars").to_pylist()
    assert [row["close"] for row in stored] == [105.0, 105.5, 105.5, 118.5, 118.0]
    again = ingest_equity_flow("BTC/USD", FIRST, source="ccxt", settings=settings, clock=clock)
    assert (again.total.new, again.total.revised, again.snapshot_id) == (0, 0, report.snapshot_id)


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
@pytest.mark.parametrize("where", ["AssetPairs", "OHLC", "since=1762646400"])
def test_a_failure_has_its_class_and_is_never_no_candles(
    server: ReplayServer, fault: Fault, raised: type[QuantError], where: str
) -> None:
    server.faults = [Fault(kind=fault.kind, match=where, retry_after=fault.retry_after, seconds=fault.seconds)]
    settings = settings_for(server, "ccxt", HOST, **{"data.timeout_seconds": 0.3})
    with pytest.raises(raised) as failed:
        list(get_source("ccxt", "equity", settings).bars(["BTC/USD"], FIRST, None))
    if isinstance(failed.value, RateLimited):
        assert failed.value.retry_after_seconds == 7.0


def test_a_real_recording_agrees_with_its_bytes(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "recordings" / "crypto"
    recorded = json.loads((folder / "bodies" / "kraken_http_ohlc.json").read_bytes())["result"]["XBTUSDT"]
    live = datetime.fromtimestamp(recorded[-1][0], UTC)
    entries = json.loads((folder / "index.json").read_text())
    moment = live.strftime("%a, %d %b %Y %H:%M:30 GMT")  # half a minute into the last candle
    for entry in entries:
        entry |= {"headers": {"Date": moment}, "body_file": str(folder / entry["body_file"])}
    (tmp_path / "index.json").write_text(json.dumps(entries))
    with ReplayServer(tmp_path) as server:
        settings = settings_for(server, "ccxt", HOST)
        clock = FixedClock(live.replace(second=30))
        report = ingest_equity_flow("BTC/USDT", "2025-11-10", source="ccxt", settings=settings, clock=clock, interval="1m")
    stored = open_lake(settings).snapshot().read("equity_bars").to_pylist()
    assert (len(recorded), len(stored), report.total.refused) == (721, 720, 0)
    told = [(datetime.fromtimestamp(one[0] + 60, UTC), *(float(value) for value in (*one[1:5], one[6]))) for one in recorded[:-1]]
    read = [(row["event_time"], *(row[name] for name in ("open", "high", "low", "close", "volume"))) for row in stored]
    assert read == told
    idle = sum(one[7] == 0 for one in recorded[:-1])  # the count of trades, which ccxt leaves out
    assert sum(row["volume"] == 0 for row in stored) == idle > 0
    assert {row["currency"] for row in stored} == {"USDT"}
