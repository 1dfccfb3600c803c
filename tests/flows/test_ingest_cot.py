"""Commitments of Traders through the whole flow: a report a week, dated by its publication, and by sight where nobody said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from config.clock import FixedClock
from config.errors import InputError, ServiceUnavailable, UnknownNameError
from flows.ingest_cot import ingest_cot_flow
from flows.ingest_report import IngestReport
from lake import Lake, open_lake
from tests.flows.replayed import FIXTURES, settings_for
from tests.replay import Fault, ReplayServer

FILES, TABLES = "www.cftc.gov", "publicreporting.cftc.gov"
WHEAT, INDEX = "900001", "90000+"
PATIENT = {"data.timeout_seconds": 30.0}  # a busy machine answers itself slowly


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.ingest_ask.time.sleep", lambda seconds: None)


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with ReplayServer(FIXTURES / "cftc") as running:
        yield running


def ingest(
    folder: Path, now: datetime, markets: list[str], start: str | None = None, host: str = FILES, **options: Any
) -> tuple[IngestReport, Lake]:
    """An ingest at a moment, from what had been recorded by then."""
    with ReplayServer(folder, as_recorded_at=now) as server:
        settings = settings_for(server, "cftc", host, **PATIENT)
        via = "files" if host == FILES else "api"
        report = ingest_cot_flow(markets, start, settings=settings, clock=FixedClock(now), via=via, **options)
    return report, open_lake(settings)


def public(lake: Lake, market: str) -> dict[date, datetime]:
    rows = lake.snapshot().read("cot_positions", where={"market_code": market}, columns=["as_of_date", "available_at"]).to_pylist()
    found = {row["as_of_date"]: row["available_at"] for row in rows}
    assert len({(row["as_of_date"], row["available_at"]) for row in rows}) == len(found), "categories of a report came out together"
    return found


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_late_report_counts_from_when_it_was_seen_because_it_had_been_looked_for(tmp_path: Path) -> None:
    """As of 9 July, planned for Friday 12 July: an ingest on the 13th does not find it, one on the 19th does."""
    folder = FIXTURES / "cftc"
    ingest(folder, utc("2024-07-09T00:00"), [WHEAT], "2024-01-01")
    report, lake = ingest(folder, utc("2024-07-13T00:00"), [WHEAT], "2024-01-01")
    assert report.names[0].outcome == "unchanged"
    assert public(lake, WHEAT) == {date(2024, 7, 2): utc("2024-07-08T19:30")}
    report, lake = ingest(folder, utc("2024-07-19T21:00"), [WHEAT, INDEX], "2024-01-01")
    assert public(lake, WHEAT) == {
        date(2024, 7, 2): utc("2024-07-08T19:30"),
        date(2024, 7, 9): utc("2024-07-19T21:00"),
        date(2024, 7, 16): utc("2024-07-19T19:30"),  # nobody had looked for this one after its time
    }
    # of the other market nobody had looked at all, so the calendar's word stands
    assert public(lake, INDEX)[date(2024, 7, 9)] == utc("2024-07-12T19:30")
    known = lake.snapshot().read("cot_positions", as_of=utc("2024-07-15T00:00"), where={"market_code": WHEAT})
    assert set(known["as_of_date"].to_pylist()) == {date(2024, 7, 2)}


def test_another_window_says_nothing_about_a_report_outside_it(tmp_path: Path) -> None:
    folder = FIXTURES / "cftc"
    ingest(folder, utc("2024-07-19T20:00"), [WHEAT], "2024-07-10")  # looked for reports since 10 July only
    _, lake = ingest(folder, utc("2024-07-19T22:00"), [WHEAT], "2024-01-01")
    assert public(lake, WHEAT)[date(2024, 7, 2)] == utc("2024-07-08T19:30")


def test_the_same_ingest_twice_adds_nothing(tmp_path: Path) -> None:
    folder, now = FIXTURES / "cftc", utc("2024-07-19T21:00")
    options: dict[str, Any] = {"host": TABLES, "report": "disaggregated_futures", "page_rows": 2}
    first, _ = ingest(folder, now, [WHEAT], **options)
    assert first.tables["cot_positions"].new == 3 * 6
    again, _ = ingest(folder, utc("2024-07-20T21:00"), [WHEAT], **options)
    assert (again.snapshot_id, again.tables["cot_positions"].unchanged) == (first.snapshot_id, 3 * 6)
    assert again.names[0].outcome == "unchanged"


def test_a_refused_line_is_in_quarantine_and_the_market_beside_it_is_stored(tmp_path: Path) -> None:
    report, lake = ingest(FIXTURES / "cftc", utc("2024-07-19T21:00"), ["900002", WHEAT], "2024-01-01")
    assert {name.name: name.outcome for name in report.names} == {"900002": "refused", WHEAT: "stored"}
    (held,) = lake.read_latest("quarantine").to_pylist()
    assert (held["table_name"], held["symbol"], held["rule"]) == ("cot_positions", "900002", "wrong_type")
    assert json.loads(held["raw"])["open_interest_all"] == "   9x00"


def test_a_market_that_is_in_no_report_is_missing(tmp_path: Path) -> None:
    report, _ = ingest(FIXTURES / "cftc", utc("2024-07-19T21:00"), [WHEAT, "999999"], "2024-01-01")
    outcomes = {name.name: name.outcome for name in report.names}
    assert outcomes == {WHEAT: "stored", "999999": "missing"}


def test_a_failing_service_is_an_error_and_stores_nothing(server: ReplayServer) -> None:
    server.faults = [Fault(kind="503")]
    settings = settings_for(server, "cftc", FILES, **PATIENT)
    with pytest.raises(ServiceUnavailable):
        ingest_cot_flow(WHEAT, "2024-01-01", settings=settings, via="files", clock=FixedClock(utc("2024-07-19T21:00")))
    assert "cot_positions" not in open_lake(settings).tables()


def test_what_cannot_be_asked_is_said(server: ReplayServer) -> None:
    settings = settings_for(server, "cftc", TABLES, **PATIENT)
    with pytest.raises(InputError, match="cannot list what it has"):
        ingest_cot_flow(settings=settings)
    with pytest.raises(UnknownNameError, match="no source of cot data is called 'fred'"):
        ingest_cot_flow(WHEAT, source="fred", settings=settings)
    with pytest.raises(InputError, match="lies after"):
        ingest_cot_flow(WHEAT, "2024-02-01", "2024-01-01", settings=settings)


def test_the_verb_ingests_and_prints_what_became_of_each_market(server: ReplayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli.app import app

    monkeypatch.setenv("QUANT_DATA__ADDRESSES__CFTC", server.address(TABLES))
    command = ["ingest", "cot", "--markets", WHEAT, "--report", "disaggregated_futures", "--option", "page_rows=2", "--json"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    document = json.loads(said.stdout)
    assert document["rows"]["new"] == 18
    assert [outcome["symbol"] for outcome in document["outcomes"]] == [WHEAT]


def test_the_recorded_weeks_of_january_2025_arrive_one_by_one(shared_data: Path) -> None:
    """Wheat and the E-mini S&P 500; the first report of the year came on a Monday."""
    folder = shared_data / "recordings" / "cftc"
    counts = []
    for day in (13, 17, 31, 31):
        report, lake = ingest(folder, utc(f"2025-01-{day}T23:30"), ["001602", "13874A"], "2025-01-01")
        rows = report.tables["cot_positions"]
        counts.append((rows.new, rows.revised, rows.unchanged))
    # four categories of two markets a week: 1 report, then 1 more, then 2 more, then none
    assert counts == [(8, 0, 0), (8, 0, 8), (16, 0, 16), (0, 0, 32)]
    assert (
        public(lake, "001602")
        == public(lake, "13874A")
        == {
            date(2025, 1, 7): utc("2025-01-13T20:30"),
            date(2025, 1, 14): utc("2025-01-17T20:30"),
            date(2025, 1, 21): utc("2025-01-24T20:30"),
            date(2025, 1, 28): utc("2025-01-31T20:30"),
        }
    )
    seen = lake.snapshot().read("cot_positions", as_of=utc("2025-01-10T23:00"))
    assert seen.num_rows == 0  # Tuesday plus three days: not public yet
