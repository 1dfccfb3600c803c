"""FRED through the real HTTP client: every vintage, whatever FRED's limits cut it into, and every failure by its name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.errors import ConfigError, RateLimited, ServiceError, ServiceUnavailable
from config.settings import load_settings
from flows.sources import fred
from flows.sources.base import Answer, get_source
from flows.sources.fred import FredMacro
from tests.flows.alfred import GONE, HOST, Alfred, Release
from tests.flows.replayed import settings_for
from tests.replay import Fault, ReplayServer

KEY = "0123456789abcdef0123456789abcdef"
WHOLE = {"realtime_start": "1776-07-04", "realtime_end": "9999-12-31"}
Q1, Q2, Q3 = date(2023, 1, 1), date(2023, 4, 1), date(2023, 7, 1)

# What a statistical office did, by hand: first release; a revision; a value revised back to the first; a value that FRED calls
# missing; a whole period taken back, and given again later.
RELEASES: list[Release] = [
    (date(2023, 4, 27), {Q1: "100.0"}),
    (date(2023, 5, 25), {Q1: "100.5"}),
    (date(2023, 7, 27), {Q1: "100.0", Q2: "101.25"}),
    (date(2023, 9, 28), {Q1: "112.0", Q2: "113.5"}),  # a new base year
    (date(2023, 10, 26), {Q2: ".", Q3: "114"}),
    (date(2023, 12, 21), {Q2: "113.75", Q3: GONE}),
    (date(2024, 1, 25), {Q3: "114.5"}),
]
UNITS = [(date(2023, 4, 27), "Billions of Chained 2012 Dollars"), (date(2023, 9, 28), "Billions of Chained 2017 Dollars")]
OLD, NEW = (unit for _, unit in UNITS)
# period, vintage, value, unit: written down from the list above
EXPECTED = {
    (Q1, date(2023, 4, 27)): (100.0, OLD),
    (Q1, date(2023, 5, 25)): (100.5, OLD),
    (Q1, date(2023, 7, 27)): (100.0, OLD),
    (Q1, date(2023, 9, 28)): (112.0, NEW),
    (Q2, date(2023, 7, 27)): (101.25, OLD),
    (Q2, date(2023, 9, 28)): (113.5, NEW),
    (Q2, date(2023, 10, 26)): (None, NEW),
    (Q2, date(2023, 12, 21)): (113.75, NEW),
    (Q3, date(2023, 10, 26)): (114.0, NEW),
    (Q3, date(2023, 12, 21)): (None, NEW),
    (Q3, date(2024, 1, 25)): (114.5, NEW),
}


@pytest.fixture
def alfred() -> Alfred:
    return Alfred(key=KEY, releases={"REAL": list(RELEASES)}, units={"REAL": UNITS}, without_vintages=["SP500"])


@pytest.fixture
def server(alfred: Alfred) -> Iterator[ReplayServer]:
    with ReplayServer(services=[alfred]) as running:
        yield running


def source(server: ReplayServer, key: str = KEY, **more: Any) -> FredMacro:
    made = get_source(
        "fred", "macro", settings_for(server, "fred", HOST, **{"credentials.fred": key, "data.timeout_seconds": 30.0, **more})
    )
    assert isinstance(made, FredMacro)
    return made


def rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [row for answer in answers for row in answer.rows.to_pylist()]


def by_vintage(answers: Sequence[Answer]) -> dict[tuple[date, date], tuple[float | None, str]]:
    found = {(row["period"], row["vintage"]): (row["value"], row["unit"]) for row in rows(answers)}
    assert len(found) == len(rows(answers)), "a vintage came twice"
    return found


def published(releases: Sequence[Release]) -> dict[tuple[date, date], float | None]:
    """What the releases say, without any of the code under test: one row a change; where no value was, none is taken back."""
    found: dict[tuple[date, date], float | None] = {}
    valued: set[date] = set()
    for day, changed in releases:
        for period, value in changed.items():
            if value is GONE and period not in valued:
                continue
            found[period, day] = None if value is GONE or value == "." else float(value)
            (valued.discard if found[period, day] is None else valued.add)(period)
    return found


def test_every_vintage_is_a_row_and_what_was_taken_back_is_one_without_a_value(server: ReplayServer) -> None:
    answers = list(source(server).observations(["REAL"]))
    assert by_vintage(answers) == EXPECTED
    assert {row["vintage_kind"] for row in rows(answers)} == {"published"}
    assert {row["source"] for row in rows(answers)} == {"fred"}
    assert answers[0].notes == ("REAL: Made-up REAL, Quarterly, Billions of Chained 2017 Dollars, Not Seasonally Adjusted",)


def test_a_vintage_counts_as_known_from_the_end_of_its_day_in_new_york(server: ReplayServer) -> None:
    known = {row["vintage"]: row["available_at"] for row in rows(list(source(server).observations(["REAL"])))}
    assert known[date(2023, 7, 27)] == datetime(2023, 7, 28, 4, tzinfo=UTC)  # midnight in summer is 04:00 UTC
    assert known[date(2024, 1, 25)] == datetime(2024, 1, 26, 5, tzinfo=UTC)  # and in winter 05:00


def test_pages_are_put_together_even_where_one_ends_between_two_vintages_of_a_period(alfred: Alfred, server: ReplayServer) -> None:
    alfred.page = 2
    answers = list(source(server).observations(["REAL"]))
    assert by_vintage(answers) == EXPECTED
    asked = [question.query.get("offset") for question in server.asked if question.path.endswith("observations")]
    assert asked == [None, "2", "4", "6", "8"]  # 10 observations: the one taken back is said by a real-time end, not by a row
    assert len({answer.ingest_id for answer in answers}) == 6
    assert [answer.request.get("last") for answer in answers] == [None, False, False, False, False, True]


def test_only_the_periods_asked_for_come(server: ReplayServer) -> None:
    found = by_vintage(list(source(server).observations(["REAL"], start=Q2, end=Q2)))
    assert found == {key: value for key, value in EXPECTED.items() if key[0] == Q2}


@pytest.mark.parametrize("piece", [1, 2, 3])
def test_more_vintages_than_fred_answers_at_a_time_come_in_pieces(
    alfred: Alfred, server: ReplayServer, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """Wherever a piece begins, the vintages are the same: FRED clips real time to what was asked."""
    monkeypatch.setattr("tests.flows.alfred.MOST_VINTAGES", piece + 1)
    monkeypatch.setattr(fred, "VINTAGES_A_PIECE", piece)
    assert by_vintage(list(source(server).observations(["REAL"]))) == EXPECTED


def test_a_daily_series_with_4500_vintages_is_read_whole(alfred: Alfred, server: ReplayServer) -> None:
    """Beyond FRED's real limit of 2,000, with a revision a week later and every hundredth value taken back for a day."""
    rng = np.random.default_rng(7)
    days = [date(2010, 1, 4) + timedelta(days=n) for n in range(4500)]
    values = [f"{value:.2f}" for value in rng.normal(4, 1, len(days))]
    releases: dict[date, dict[date, Any]] = {day: {day: value} for day, value in zip(days, values, strict=True)}
    for n in range(0, len(days) - 8, 100):
        releases[days[n + 7]][days[n]] = GONE
        releases[days[n + 8]][days[n]] = "4.44"
    alfred.releases["DAILY"] = list(releases.items())
    found = by_vintage(list(source(server).observations(["DAILY"])))
    assert {key: value for key, (value, _) in found.items()} == published(alfred.releases["DAILY"])
    asked = [question for question in server.asked if question.path.endswith("observations")]
    assert [question.status for question in asked] == [400, 200, 200, 200]


def test_going_on_asks_for_what_is_new_and_finds_what_a_full_reading_finds(alfred: Alfred, server: ReplayServer) -> None:
    """Random histories, cut at a random day: the rows stored before and the new ones are those of a full reading."""
    rng = np.random.default_rng(11)
    periods = [date(2020, month, 1) for month in range(1, 13)]
    for _ in range(12):
        days = sorted({date(2021, 1, 1) + timedelta(days=int(n)) for n in rng.integers(0, 60, 20)})
        last: dict[date, Any] = {}
        releases: list[Release] = []
        for day in days:
            changed: dict[date, Any] = {}
            for period in rng.choice(len(periods), 3, replace=False):
                value = [GONE, ".", "1.0", "2.0", "3.0"][int(rng.integers(0, 5))]
                if last.get(periods[period], GONE) != value:
                    changed[periods[period]] = last[periods[period]] = value
            if changed:
                releases.append((day, changed))
        cut = days[int(rng.integers(5, len(days)))]
        alfred.releases["X"] = [release for release in releases if release[0] <= cut]
        first = by_vintage(list(source(server).observations(["X"])))
        alfred.releases["X"] = releases
        later = source(server)
        later.continue_from({"X": cut + timedelta(days=1)})
        second = by_vintage(list(later.observations(["X"])))
        assert {key: value for key, (value, _) in {**first, **second}.items()} == published(releases)
        assert all(second[key] == first[key] for key in first.keys() & second.keys())


def test_going_on_with_nothing_new_asks_for_no_observations(server: ReplayServer) -> None:
    on = source(server)
    on.continue_from({"REAL": date(2024, 3, 1)})
    answers = list(on.observations(["REAL"]))
    assert [(answer.names, answer.rows.num_rows) for answer in answers] == [((), 0), (("REAL",), 0)]
    assert server.asked_paths() == ["/fred/series", "/fred/series/vintagedates"]


def test_vintage_dates_come_in_pages_too(alfred: Alfred, server: ReplayServer) -> None:
    alfred.page = 2
    on = source(server)
    on.continue_from({"REAL": date(2023, 12, 1)})
    found = by_vintage(list(on.observations(["REAL"])))
    assert found == {key: value for key, value in EXPECTED.items() if key[1] > date(2023, 11, 28)}
    asked = [question.query.get("offset") for question in server.asked if question.path.endswith("vintagedates")]
    assert asked == [None, "2", "4", "6"]


def test_going_on_asks_for_the_last_days_before_the_earlier_ingest_again(server: ReplayServer) -> None:
    """FRED corrects a vintage within its day, and the day ends later in St. Louis than in UTC."""
    on = source(server)
    on.continue_from({"REAL": date(2024, 1, 25)})
    assert by_vintage(list(on.observations(["REAL"]))) == {(Q3, date(2024, 1, 25)): (114.5, NEW)}
    assert server.asked[-1].query["realtime_start"] == "2024-01-24"


def test_a_window_with_a_first_period_is_asked_for_whole_however_often_the_series_was_asked(server: ReplayServer) -> None:
    on = source(server)
    on.continue_from({"REAL": date(2024, 3, 1)})
    assert by_vintage(list(on.observations(["REAL"], start=Q1, end=Q1))) == {k: v for k, v in EXPECTED.items() if k[0] == Q1}


def test_an_unknown_series_is_missing_and_so_is_one_without_vintages(server: ReplayServer) -> None:
    (unknown,) = source(server).observations(["NOPE"])
    assert unknown.missing == {"NOPE": "FRED has no series NOPE (Bad Request. The series does not exist.)"}
    assert unknown.rows.num_rows == 0
    (undated,) = source(server).observations(["SP500"])
    assert undated.missing["SP500"].startswith("FRED keeps no vintages of SP500, so nobody can say when its values became known")


def test_a_refused_key_is_an_error_that_names_the_variable_and_not_the_key(server: ReplayServer) -> None:
    wrong = "f" * 32
    with pytest.raises(ServiceError, match="FRED_API_KEY") as caught:
        list(source(server, key=wrong).observations(["REAL"]))
    assert not isinstance(caught.value, ServiceUnavailable)
    assert wrong not in str(caught.value)
    with pytest.raises(ConfigError, match="FRED_API_KEY"):
        get_source("fred", "macro", load_settings())


def test_the_key_is_in_no_answer(server: ReplayServer) -> None:
    for answer in source(server).observations(["REAL", "NOPE"]):
        assert KEY not in repr((answer.origin, dict(answer.request), answer.notes, dict(answer.missing)))
        assert KEY.encode() not in answer.payload


@pytest.mark.parametrize("kind", ["500", "502", "503", "truncated", "half_body", "empty", "wrong_type", "reset"])
def test_a_broken_answer_is_unavailable_and_never_an_empty_one(server: ReplayServer, kind: Any) -> None:
    server.faults = [Fault(kind=kind, match="observations")]
    with pytest.raises(ServiceUnavailable):
        list(source(server).observations(["REAL"]))


def test_a_slow_answer_is_given_up_after_the_timeout(server: ReplayServer) -> None:
    server.faults = [Fault(kind="slow", seconds=2.0)]
    with pytest.raises(ServiceUnavailable, match=r"no answer within 0\.2 s"):
        list(source(server, **{"data.timeout_seconds": 0.2}).observations(["REAL"]))


def test_a_429_says_how_long_to_wait(server: ReplayServer) -> None:
    server.faults = [Fault(kind="429", retry_after="17")]
    with pytest.raises(RateLimited) as caught:
        list(source(server).observations(["REAL"]))
    assert caught.value.retry_after_seconds == 17


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({**WHOLE, "observations": [], "count": 3}, "an empty page after 0 of 3"),
        ({**WHOLE, "observations": None, "count": 0}, "no list of observations"),
        ({**WHOLE, "observations": []}, "a count of None"),
        ([], "not an object"),
        ({"realtime_start": "2024-01-02", "realtime_end": "2024-01-02", "observations": [], "count": 0}, "which was not asked"),
    ],
)
def test_json_that_is_none_of_freds_is_unavailable(tmp_path: Path, said: Any, why: str) -> None:
    folder = _folder(tmp_path, {"/fred/series": DESCRIBED, "/fred/series/observations": said})
    with ReplayServer(folder) as server, pytest.raises(ServiceUnavailable, match=why):
        list(source(server).observations(["X"]))


def test_an_observation_that_cannot_be_read_is_refused_and_the_others_are_kept(tmp_path: Path) -> None:
    good = {"realtime_start": "2024-01-02", "realtime_end": "9999-12-31", "date": "2023-12-01", "value": "4.5"}
    bad = [{**good, "value": "n/a"}, {**good, "date": "2023-13-01"}, {**good, "value": "inf"}]
    said = {**WHOLE, "count": 4, "observations": [good, *bad]}
    with ReplayServer(_folder(tmp_path, {"/fred/series": DESCRIBED, "/fred/series/observations": said})) as server:
        answers = list(source(server).observations(["X"]))
    assert [row["value"] for row in rows(answers)] == [4.5]
    assert [(row.rule, row.raw) for row in answers[-1].refused] == [("wrong_type", raw) for raw in bad]


DESCRIBED = {"seriess": [{"realtime_start": "2024-01-02", "realtime_end": "9999-12-31", "title": "X", "units": "Percent"}]}


def _folder(path: Path, said: Mapping[str, Any]) -> Path:
    index = []
    for number, (place, content) in enumerate(said.items()):
        (path / f"{number}.json").write_text(json.dumps(content))
        entry = {"id": str(number), "method": "GET", "host": HOST, "path": place, "query": {}, "status": 200}
        index.append({**entry, "content_type": "application/json", "body_file": f"{number}.json", "recorded": "2024-01-02"})
    (path / "index.json").write_text(json.dumps(index))
    return path
