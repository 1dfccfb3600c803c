"""Cboe's index history: as published, on its own calendar, with both versions of what was revised, and flagged contradictions."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from config.calendar import is_session, session_closes, sessions
from config.clock import FixedClock
from config.errors import InputError, SchemaError, ServiceError, ServiceUnavailable
from flows.ingest_equity import ingest_equity_flow
from flows.sources.base import Answer, get_source
from flows.sources.cboe import CboeIndices
from lake import open_lake
from tests.flows.replayed import FIXTURES, settings_for
from tests.replay import Fault, ReplayServer

HOST = "cdn.cboe.com"
PATIENT = {"data.timeout_seconds": 30.0}  # a busy machine answers itself slowly
PATH = "/api/global/us_indices/daily_prices/{}_History.csv"
PRICES = ("open", "high", "low", "close")


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with ReplayServer(FIXTURES / "cboe") as running:
        yield running


def source(server: ReplayServer) -> CboeIndices:
    made = get_source("cboe", "equity", settings_for(server, "cboe", HOST, **PATIENT))
    assert isinstance(made, CboeIndices)
    return made


def by_session(answer: Answer) -> dict[date, Mapping[str, Any]]:
    return {row["session"]: row for row in answer.rows.to_pylist()}


def test_a_bar_is_as_published_and_complete_at_a_quarter_past_four_in_new_york(server: ReplayServer) -> None:
    (answer,) = source(server).bars(["VIX"])
    bar = by_session(answer)[date(2022, 7, 5)]
    assert [bar[name] for name in PRICES] == [28.20, 30.10, 27.20, 27.54]
    assert bar["volume"] is None
    assert (bar["basis"], bar["currency"], bar["interval"], bar["calendar"]) == ("as_traded", "USD", "1d", "CBOE")
    assert bar["event_time"] == bar["available_at"] == datetime(2022, 7, 5, 20, 15, tzinfo=UTC)
    assert bar["available_at"] > session_closes(sessions("2022-07-05", "2022-07-05"))[0]  # later than the stock market's close


def test_days_without_stock_trading_are_kept(server: ReplayServer) -> None:
    """The day of mourning of 2004, and Independence Day since the holiday sessions."""
    (answer,) = source(server).bars(["VIX"])
    for day in (date(2004, 6, 11), date(2022, 7, 4)):
        assert day in by_session(answer)
        assert not is_session(day, "XNYS")
        assert is_session(day, "CBOE")


def test_the_value_of_a_session_that_is_not_over_is_left_out_and_said(server: ReplayServer) -> None:
    """The answer's own Date header says 13:00 in New York."""
    (answer,) = source(server).bars(["VIX"])
    assert max(by_session(answer)) == date(2022, 7, 5)
    assert answer.notes == ("VIX: the value of 2022-07-06 is not final before 16:15 New York and was left out",)
    settings = settings_for(server, "cboe", HOST, **PATIENT)
    later = get_source("cboe", "equity", settings, clock=FixedClock(datetime(2022, 7, 6, 20, 15, tzinfo=UTC)))
    (answer,) = later.bars(["VIX"], None, None)
    assert max(by_session(answer)) == date(2022, 7, 6)


def test_an_index_with_one_value_a_day_has_a_close_only(server: ReplayServer) -> None:
    (answer,) = source(server).bars(["VVIX"])
    assert {row["calendar"] for row in answer.rows.to_pylist()} == {"XNYS"}  # no value while New York was closed
    assert [[row[name] for name in PRICES] for row in answer.rows.to_pylist()] == [
        [None, None, None, 91.14],
        [None, None, None, 92.5],
    ]


def test_only_the_window_asked_for_comes(server: ReplayServer) -> None:
    (answer,) = source(server).bars(["VIX"], date(2004, 6, 10), date(2004, 6, 11))
    assert sorted(by_session(answer)) == [date(2004, 6, 10), date(2004, 6, 11)]


def test_lines_that_cannot_be_read_are_refused_with_their_number(server: ReplayServer) -> None:
    (answer,) = source(server).bars(["VIX9D"])
    assert list(by_session(answer)) == [date(2021, 7, 6)]
    assert [(row.rule, row.reason) for row in answer.refused] == [
        ("wrong_type", "line 2: CLOSE is 'n/a', not a number"),
        ("not_a_session", "line 3: 2022-07-02 is a Saturday"),
        ("wrong_type", "line 4: 4 cells, not 5"),
        ("wrong_type", "line 6: time data '13/06/2021' does not match format '%m/%d/%Y'"),
    ]


def test_an_index_without_a_file_is_missing_and_a_known_one_that_is_refused_is_an_error(server: ReplayServer) -> None:
    (answer,) = source(server).bars(["NOSUCH"])
    assert answer.missing == {"NOSUCH": "Cboe has no file of NOSUCH (403)"}
    with pytest.raises(ServiceError, match="answered 403, and Cboe publishes VIX3M"):
        list(source(server).bars(["VIX3M"]))
    with pytest.raises(SchemaError, match="has the columns DATE, TIME, VALUE"):
        list(source(server).bars(["OTHER"]))
    with pytest.raises(InputError, match=r"'\^VIX' is no index of Cboe"):
        list(source(server).bars(["^VIX"]))


@pytest.mark.parametrize("kind", ["500", "truncated", "wrong_type", "reset"])
def test_a_broken_answer_is_unavailable_and_never_an_empty_one(server: ReplayServer, kind: Any) -> None:
    server.faults = [Fault(kind=kind)]
    with pytest.raises(ServiceUnavailable):
        list(source(server).bars(["VIX"]))


def test_a_file_without_a_header_is_an_error_and_not_an_empty_history(server: ReplayServer) -> None:
    server.faults = [Fault(kind="empty")]
    with pytest.raises(SchemaError, match="columns of an empty file"):
        list(source(server).bars(["VIX"]))


# --- through the flow into the lake ----------------------------------------------------------------------------------------------


def test_a_revision_keeps_both_versions_and_a_contradiction_is_stored_and_flagged(tmp_path: Path) -> None:
    """10 June 2004 closed at 15.50 by the first file and at 15.04 by the second; 14 June has a high below its open."""
    first, second = datetime(2022, 7, 2, 12, tzinfo=UTC), datetime(2022, 7, 6, 17, tzinfo=UTC)
    for now in (first, first, second, second):
        with ReplayServer(FIXTURES / "cboe", as_recorded_at=now) as server:
            settings = settings_for(server, "cboe", HOST, **PATIENT)
            report = ingest_equity_flow(["VIX"], source="cboe", settings=settings, clock=FixedClock(now))
        counts = report.tables["equity_bars"]
        if now == first:
            expected = {"new": 5} if counts.new else {"unchanged": 5}
            assert {name: count for name, count in counts.as_dict().items() if count and name != "received"} == expected
        assert counts.refused == 0
    assert (counts.new, counts.revised, counts.unchanged) == (0, 0, 7)
    lake = open_lake(settings)
    snapshot = lake.snapshot()
    day = {"start": date(2004, 6, 10), "end": date(2004, 6, 10), "columns": ["close"]}
    assert snapshot.read("equity_bars", **day)["close"].to_pylist() == [15.04]
    assert snapshot.read("equity_bars", as_of=datetime(2022, 7, 5, tzinfo=UTC), **day)["close"].to_pylist() == [15.50]
    flags = lake.read_latest("flags", columns=["symbol", "event_time", "source", "rule"]).to_pylist()
    assert [row for row in flags if row["rule"] == "high_below_price"] == [
        {
            "symbol": "VIX",
            "event_time": datetime(2004, 6, 14, 20, 15, tzinfo=UTC),
            "source": "cboe",
            "rule": "high_below_price",
        }
    ]
    bars = snapshot.read("equity_bars", start=date(2004, 6, 14), end=date(2004, 6, 14), columns=["open", "high"]).to_pylist()
    assert bars == [{"open": 16.00, "high": 15.95}]


def test_holidays_are_neither_gaps_nor_refused(tmp_path: Path) -> None:
    now = datetime(2022, 7, 6, 17, tzinfo=UTC)
    with ReplayServer(FIXTURES / "cboe") as server:
        settings = settings_for(server, "cboe", HOST, **PATIENT)
        ingest_equity_flow(["VIX"], "2022-07-01", source="cboe", settings=settings, clock=FixedClock(now))
    lake = open_lake(settings)
    assert lake.read_latest("gaps", where={"state": "missing"}).num_rows == 0
    assert lake.snapshot().read("equity_bars")["session"].to_pylist() == [date(2022, 7, 1), date(2022, 7, 4), date(2022, 7, 5)]


# --- on the recorded history -----------------------------------------------------------------------------------------------------


def published(lines: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Date to open, high, low, close of a file's lines, read without our code."""
    rows = list(csv.reader(lines))[1:]
    return {_iso(row[0]): tuple(float(cell) for cell in row[1:]) for row in rows}


def _iso(text: str) -> str:
    return f"{text[6:]}-{text[:2]}-{text[3:5]}" if "/" in text else text


@pytest.fixture(scope="module")
def histories(shared_data: Path) -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
    """Cboe's file as recorded in April 2022, and the history as of July 2026."""
    older = (shared_data / "recordings" / "cboe" / "bodies" / "VIX_History_2022-04-06.csv").read_text().splitlines()
    newer = gzip.decompress((shared_data / "volatility" / "vix_daily_1990_2026.csv.gz").read_bytes()).decode().splitlines()
    return published(older), published(newer)


def contradicts(bar: tuple[float, ...]) -> bool:
    first, high, low, last = bar
    return high < max(first, last) or low > min(first, last)


def test_the_calendar_fits_the_whole_history_but_for_four_sessions(
    histories: tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]],
) -> None:
    days = {date.fromisoformat(day) for day in histories[1]}
    mine = set(sessions(min(days), max(days), "CBOE").date)
    stock = set(sessions(min(days), max(days), "XNYS").date)
    assert sorted(mine - days) == [date(1991, 3, 1), date(1997, 1, 31), date(1997, 11, 26), date(1999, 12, 31)]
    assert not days - mine
    # what no exchange's calendar knows: 33 days on which New York did not trade, the first of the series Memorial Day 2022
    assert len(days - stock) == 33
    assert sorted(days - stock)[:2] == [date(2004, 6, 11), date(2022, 5, 30)]
    closed = {date(2025, 1, 1), date(2025, 4, 18), date(2025, 12, 25), date(2026, 1, 1), date(2026, 4, 3)}
    assert not closed & mine


def test_vix3m_follows_the_stock_exchange(shared_data: Path, tmp_path: Path) -> None:
    """Its history to February 2026 has a value on each session of New York and on no other day."""
    text = gzip.decompress((shared_data / "volatility" / "vix3m_daily_2009.csv.gz").read_bytes())
    (tmp_path / "VIX3M.csv").write_bytes(text)
    entry = {"id": "1", "method": "GET", "host": HOST, "path": PATH.format("VIX3M"), "query": {}, "status": 200}
    index = [{**entry, "content_type": "text/csv", "body_file": "VIX3M.csv", "recorded": "2026-03-01"}]
    (tmp_path / "index.json").write_text(json.dumps(index))
    with ReplayServer(tmp_path) as server:
        (answer,) = source(server).bars(["VIX3M"])
    found = by_session(answer)
    assert {row["calendar"] for row in found.values()} == {"XNYS"}
    assert sorted(found) == list(sessions(min(found), max(found), "XNYS").date)
    assert found.keys() == {date.fromisoformat(day) for day in published(text.decode().splitlines())}


def test_93_rows_are_revised_and_47_contradict_themselves_and_all_are_kept(
    histories: tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]], shared_data: Path, tmp_path: Path
) -> None:
    older, newer = histories
    revised = {day for day in older if older[day] != newer[day]}
    broken = {day for day, bar in newer.items() if contradicts(bar)}
    assert (len(revised), len(broken), len(newer.keys() - older.keys())) == (93, 47, 1110)
    lines = ["DATE,OPEN,HIGH,LOW,CLOSE"]
    for day, bar in newer.items():  # the later file, in Cboe's own format
        lines.append(",".join([f"{day[5:7]}/{day[8:]}/{day[:4]}", *(f"{value:.6f}" for value in bar)]))
    (tmp_path / "VIX.csv").write_text("\r\n".join(lines) + "\r\n")
    entry = {"id": "later", "method": "GET", "host": HOST, "path": PATH.format("VIX"), "query": {}, "status": 200}
    index = [{**entry, "content_type": "text/csv", "body_file": "VIX.csv", "recorded": "2026-07-24"}]
    (tmp_path / "index.json").write_text(json.dumps(index))
    first, second = datetime(2022, 4, 6, 12, tzinfo=UTC), datetime(2026, 7, 24, 12, tzinfo=UTC)
    reports = []
    for now in (first, second):
        with ReplayServer(shared_data / "recordings" / "cboe", tmp_path, as_recorded_at=now) as server:
            settings = settings_for(server, "cboe", HOST, **PATIENT)
            reports.append(ingest_equity_flow(["VIX"], source="cboe", settings=settings, clock=FixedClock(now)))
    counts = reports[1].tables["equity_bars"]
    assert (counts.new, counts.revised, counts.unchanged, counts.refused) == (1110, 93, len(older) - 93, 0)
    lake = open_lake(settings)
    now_known = _bars(lake.snapshot().read("equity_bars"))
    before = _bars(lake.snapshot().read("equity_bars", as_of=first))
    assert now_known == newer
    # one session of 2006 was added since: its bar could be known at its own close, only Cboe's file had a hole there
    assert before == {**older, "2006-05-04": newer["2006-05-04"]}
    order = {"high_below_low", "high_below_price", "low_above_price"}
    flags = lake.read_latest("flags", columns=["event_time", "rule"]).to_pylist()
    flagged = {f"{row['event_time']:%Y-%m-%d}" for row in flags if row["rule"] in order}
    # of both versions: a row that was put right since, and one that was put wrong
    assert flagged == broken | {day for day, bar in older.items() if contradicts(bar)}


def _bars(table: Any) -> dict[str, tuple[float, ...]]:
    return {row["session"].isoformat(): tuple(row[name] for name in PRICES) for row in table.to_pylist()}
