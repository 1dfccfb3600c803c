"""FRED through the whole flow into a lake: only what is new is asked, nothing is lost on the way, and the past stays as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from config.clock import FixedClock
from config.errors import ServiceError, ServiceUnavailable
from features.vintages import as_of, first_release, latest, vintages
from flows.ingest_macro import ingest_macro_flow
from flows.ingest_report import IngestReport
from lake import Lake, open_lake
from tests.flows.alfred import GONE, HOST, Alfred
from tests.flows.replayed import files_with, settings_for
from tests.replay import Fault, ReplayServer

KEY = "0123456789abcdef0123456789abcdef"
JAN, FEB, MAR = date(2024, 1, 1), date(2024, 2, 1), date(2024, 3, 1)
FIRST_DAY = datetime(2024, 3, 1, 18, tzinfo=UTC)


@pytest.fixture
def alfred() -> Alfred:
    return Alfred(key=KEY, releases={"RATE": [(date(2024, 2, 15), {JAN: "3.1"})], "FLAT": [(date(2024, 2, 1), {JAN: "9"})]})


@pytest.fixture
def server(alfred: Alfred) -> Iterator[ReplayServer]:
    with ReplayServer(services=[alfred]) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.ingest_ask.time.sleep", lambda seconds: None)


def ingest(server: ReplayServer, *series: str, now: datetime = FIRST_DAY, key: str = KEY, **more: Any) -> tuple[IngestReport, Lake]:
    server.asked.clear()
    settings = settings_for(server, "fred", HOST, **{"data.timeout_seconds": 30.0})
    report = ingest_macro_flow(key, series=list(series), source="fred", settings=settings, clock=FixedClock(now), **more)
    return report, open_lake(settings)


def observations_asked(server: ReplayServer) -> list[str]:
    return [str(question.query["realtime_start"]) for question in server.asked if question.path.endswith("observations")]


def test_the_same_ingest_twice_adds_nothing_and_asks_for_nothing(server: ReplayServer) -> None:
    first, lake = ingest(server, "RATE", "FLAT")
    assert first.tables["macro_observations"].new == 2
    state = lake.tables()["macro_observations"]
    again, lake = ingest(server, "RATE", "FLAT", now=FIRST_DAY + timedelta(days=1))
    assert again.snapshot_id == first.snapshot_id
    assert lake.tables()["macro_observations"] == state
    assert {name.outcome for name in again.names} == {"unchanged"}
    assert observations_asked(server) == []
    whole, _ = ingest(server, "RATE", "FLAT", now=FIRST_DAY + timedelta(days=2), full=True)
    assert observations_asked(server) == ["1776-07-04", "1776-07-04"]
    assert (whole.snapshot_id, whole.tables["macro_observations"].unchanged) == (first.snapshot_id, 2)


def test_day_by_day_the_lake_holds_what_was_published_and_each_past_view_stays(alfred: Alfred, server: ReplayServer) -> None:
    """A release, a revision, one back to the first value, an observation taken back: each on a day of its own."""
    news: list[tuple[date, dict[date, Any]]] = [
        (date(2024, 3, 14), {FEB: "3.2", JAN: "3.15"}),
        (date(2024, 4, 11), {MAR: "3.3", JAN: "3.1"}),
        (date(2024, 4, 12), {MAR: GONE}),
    ]
    ingest(server, "RATE")
    for day, changed in news:
        alfred.releases["RATE"].append((day, changed))
        report, lake = ingest(server, "RATE", now=datetime(day.year, day.month, day.day, 21, tzinfo=UTC))
        assert report.tables["macro_observations"].new == len(changed)
        assert report.tables["macro_observations"].revised == 0
        assert observations_asked(server) != ["1776-07-04"]
    snapshot = lake.snapshot()
    views = {day: as_of(snapshot, "RATE", day).dropna().to_dict() for day, _ in [(date(2024, 2, 15), {}), *news]}
    assert {day: {f"{period:%m}": value for period, value in view.items()} for day, view in views.items()} == {
        date(2024, 2, 15): {"01": 3.1},
        date(2024, 3, 14): {"01": 3.15, "02": 3.2},
        date(2024, 4, 11): {"01": 3.1, "02": 3.2, "03": 3.3},
        date(2024, 4, 12): {"01": 3.1, "02": 3.2},
    }
    assert first_release(snapshot, "RATE").tolist() == [3.1, 3.2, 3.3]
    assert latest(snapshot, "RATE").dropna().tolist() == [3.1, 3.2]
    assert vintages(snapshot, "RATE")["vintage"].nunique() == 4


def test_a_vintage_corrected_within_its_day_is_met_by_the_next_ingest(alfred: Alfred, server: ReplayServer) -> None:
    alfred.releases["RATE"].append((date(2024, 3, 1), {FEB: "32"}))
    ingest(server, "RATE")
    alfred.releases["RATE"][-1] = (date(2024, 3, 1), {FEB: "3.2"})
    report, lake = ingest(server, "RATE", now=FIRST_DAY + timedelta(days=1))
    assert (report.tables["macro_observations"].new, report.tables["macro_observations"].revised) == (0, 1)
    assert latest(lake.snapshot(), "RATE").tolist() == [3.1, 3.2]


def test_a_series_of_which_a_page_fails_is_not_stored_in_part_and_is_asked_for_whole_again(
    alfred: Alfred, server: ReplayServer
) -> None:
    alfred.releases["RATE"].append((date(2024, 2, 20), {JAN: "3.0", FEB: "3.5"}))
    alfred.page = 2
    server.faults = [Fault(kind="502", match="RATE.*offset=2")]
    report, lake = ingest(server, "RATE", "FLAT")
    assert {name.name: name.outcome for name in report.names} == {"RATE": "failed", "FLAT": "stored"}
    assert lake.snapshot().read("macro_observations")["series"].to_pylist() == ["FLAT"]
    server.faults = []
    report, _ = ingest(server, "RATE", "FLAT", now=FIRST_DAY + timedelta(days=1))
    assert {name.name: name.outcome for name in report.names} == {"RATE": "stored", "FLAT": "unchanged"}
    assert observations_asked(server) == ["1776-07-04", "1776-07-04"]  # two pages of RATE; nothing of FLAT


def test_a_window_does_not_count_as_the_whole_series(alfred: Alfred, server: ReplayServer) -> None:
    alfred.releases["RATE"].append((date(2024, 2, 20), {FEB: "3.5"}))
    ingest(server, "RATE", start_date=FEB)
    report, lake = ingest(server, "RATE", now=FIRST_DAY + timedelta(days=30))
    assert report.tables["macro_observations"].new == 1
    assert latest(lake.snapshot(), "RATE").tolist() == [3.1, 3.5]


def test_one_unknown_series_does_not_stop_the_others(server: ReplayServer) -> None:
    report, lake = ingest(server, "NOPE", "RATE")
    outcomes = {name.name: (name.outcome, name.message) for name in report.names}
    assert outcomes["RATE"] == ("stored", None)
    assert outcomes["NOPE"][0] == "missing"
    assert "The series does not exist" in str(outcomes["NOPE"][1])
    assert lake.snapshot().read("macro_observations").num_rows == 1


def test_a_refused_key_stores_nothing_and_is_not_tried_again(server: ReplayServer) -> None:
    with pytest.raises(ServiceError, match="FRED_API_KEY") as caught:
        ingest(server, "RATE", key="f" * 32)
    assert not isinstance(caught.value, ServiceUnavailable)
    assert len(server.asked) == 1
    assert "f" * 32 not in str(caught.value)


def test_a_passing_failure_is_tried_again_and_leaves_no_trace(server: ReplayServer) -> None:
    server.faults = [Fault(kind="429", nth=1), Fault(kind="half_body", match="observations", nth=1), Fault(kind="reset", nth=4)]
    report, lake = ingest(server, "RATE")
    assert report.names[0].outcome == "stored"
    assert latest(lake.snapshot(), "RATE").tolist() == [3.1]


def test_the_key_is_nowhere_on_the_disk(server: ReplayServer, tmp_path: Path) -> None:
    _, lake = ingest(server, "RATE", "NOPE")
    assert (tmp_path / "home").is_dir()
    assert files_with(KEY, tmp_path) == []
    assert any(question.query.get("api_key") == KEY for question in server.asked)
    runs = lake.read_latest("ingest_runs", columns=["origin"])["origin"].to_pylist()
    assert all("api_key=***" in origin for origin in runs)


def test_the_bytes_the_units_were_read_from_are_kept(server: ReplayServer) -> None:
    _, lake = ingest(server, "RATE")
    runs = lake.read_latest("ingest_runs", columns=["request", "response_sha256"]).to_pylist()
    described = next(run for run in runs if '"description"' in run["request"])
    assert b'"units": "Percent"' in lake.raw.get(described["response_sha256"])


def test_the_verb_ingests_a_series(server: ReplayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli.app import app

    monkeypatch.setenv("FRED_API_KEY", KEY)
    monkeypatch.setenv("QUANT_DATA__ADDRESSES__FRED", server.address(HOST))
    monkeypatch.setenv("QUANT_DATA__SECONDS_BETWEEN_REQUESTS__FRED", "0")
    command = ["ingest", "macro", "--source", "fred", "--series", "RATE", "--json"]
    for expected, more in (("stored", []), ("unchanged", []), ("unchanged", ["--full"])):
        said = CliRunner().invoke(app, [*command, *more])
        assert said.exit_code == 0, said.output
        assert [one["outcome"] for one in json.loads(said.stdout)["outcomes"]] == [expected]
    assert len(observations_asked(server)) == 2


def test_recorded_gdp_is_stored_once_whole(shared_data: Path) -> None:
    """3,199 vintages and 393 vintage dates, as FRED answered on 3 November 2024; a second ingest finds nothing new."""
    with ReplayServer(shared_data / "recordings" / "fred") as server:
        first, lake = ingest(server, "GDP", now=datetime(2024, 11, 3, 15, tzinfo=UTC))
        again, lake = ingest(server, "GDP", now=datetime(2024, 11, 4, 15, tzinfo=UTC))
    assert first.tables["macro_observations"].new == 3199
    assert (again.snapshot_id, again.names[0].outcome) == (first.snapshot_id, "unchanged")
    assert vintages(lake.snapshot(), "GDP")["vintage"].nunique() == 393
