"""First release, latest and as-of views of a macro series, beside fredapi and FRED's own answers to the same questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from config.calendar import session_closes, sessions
from config.errors import InputError, ServiceUnavailable, UnknownNameError
from config.settings import load_settings
from features.macro import align_macro
from features.vintages import as_of, first_release, latest, vintages
from flows.sources.base import get_source
from lake import Snapshot, open_lake
from tests.flows.alfred import HOST, as_fredapi_reads
from tests.flows.replayed import settings_for
from tests.replay import Question, ReplayServer, Reply

KEY = "0123456789abcdef0123456789abcdef"
PATIENT = {"data.timeout_seconds": 30.0}  # a busy machine answers itself slowly
GDP = "series-observations_GDP_rt9999-12-31__2024-11-03.json"
NOW = datetime(2024, 11, 3, 15, tzinfo=UTC)


def recorded(folder: Path, name: str) -> Any:
    return json.loads((folder / "recordings" / "fred" / "bodies" / name).read_bytes())


def numbers(column: Any) -> pd.Series:
    """fredapi's values are objects, with NaT where a number is missing."""
    return column.map(lambda value: float("nan") if value is pd.NaT else float(value)).astype(float)


def number(text: str) -> float:
    return float("nan") if text == "." else float(text)


@pytest.fixture(scope="session")
def gdp(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A lake with GDP as FRED answered on 3 November 2024, through the source."""
    with ReplayServer(shared_data / "recordings" / "fred") as server:
        settings = settings_for(
            server, "fred", HOST, **{"credentials.fred": KEY, "home": str(tmp_path_factory.mktemp("gdp")), **PATIENT}
        )
        answers = list(get_source("fred", "macro", settings).observations(["GDP"], None, None))
    lake = open_lake(settings)
    for answer in answers:
        lake.write("macro_observations", answer.lake_rows(), recorded_at=NOW)
    return lake.publish()


@dataclass
class Xml:
    """The recorded JSON as the XML that fredapi asks for; the same numbers in the other of FRED's two formats."""

    folder: Path
    hosts: Sequence[str] = (HOST,)

    def answer(self, question: Question) -> Reply | None:
        whole = question.query.get("realtime_start") == "1776-07-04"
        name = GDP if whole else "series-observations_GDP___2024-11-03.json"
        return as_fredapi_reads("observations", recorded(self.folder, name)["observations"])


@pytest.fixture
def fred(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real fredapi, asking the replay server."""
    import fredapi

    with ReplayServer(services=[Xml(shared_data)]) as server:
        client = fredapi.Fred(api_key=KEY)
        client.root_url = f"{server.address(HOST)}/fred"
        yield client


def test_every_recorded_vintage_is_there_and_nothing_else(gdp: Snapshot, shared_data: Path) -> None:
    observations = recorded(shared_data, GDP)["observations"]
    wanted = pd.DataFrame(
        {
            "period": pd.to_datetime([one["date"] for one in observations]),
            "vintage": pd.to_datetime([one["realtime_start"] for one in observations]),
            "value": [number(one["value"]) for one in observations],
            "valid_until": [None if one["realtime_end"] == "9999-12-31" else one["realtime_end"] for one in observations],
        }
    ).sort_values(["period", "vintage"], ignore_index=True)
    found = vintages(gdp, "GDP")
    assert len(found) == len(observations) == 3199
    for name in ("period", "vintage", "value"):
        np.testing.assert_array_equal(found[name].to_numpy(), wanted[name].to_numpy())
    # FRED's own realtime_end is the day before the next vintage: we derive it, and it agrees on every row
    ends = [None if pd.isna(day) else f"{day:%Y-%m-%d}" for day in found["valid_until"]]
    assert ends == [None if pd.isna(day) else day for day in wanted["valid_until"]]
    dates = recorded(shared_data, "series-vintagedates_GDP___2024-11-03.json")["vintage_dates"]
    assert sorted(found["vintage"].dt.strftime("%Y-%m-%d").unique()) == dates


def test_an_answer_about_one_day_is_not_taken_for_vintages(shared_data: Path) -> None:
    """Of WGS10YR only FRED's answer for one day of real time was recorded: 3,278 values, and not a word on when they were known."""
    with ReplayServer(shared_data / "recordings" / "fred") as server:
        settings = settings_for(server, "fred", HOST, **{"credentials.fred": KEY, **PATIENT})
        with pytest.raises(ServiceUnavailable, match="real time 2024-10-28 to 2024-10-28, which was not asked"):
            list(get_source("fred", "macro", settings).observations(["WGS10YR"], None, None))


def test_the_first_release_is_freds_own_initial_release(gdp: Snapshot, shared_data: Path) -> None:
    """FRED answers `output_type=4` with initial releases: of periods released since ALFRED keeps them."""
    said = recorded(shared_data, "series-observations_GDP_rt_ot4_2024-11-03.json")["observations"]
    mine = first_release(gdp, "GDP")
    assert len(said) == 132
    assert [mine[one["date"]] for one in said] == [float(one["value"]) for one in said]
    assert round(mine["2024-07-01"] / 1000, 2) == 29.35  # BEA, advance estimate of 30 October 2024: "a level of $29.35 trillion"


def test_first_release_and_latest_are_fredapis(gdp: Snapshot, fred: Any) -> None:
    theirs = numbers(fred.get_series_first_release("GDP")).dropna()
    mine = first_release(gdp, "GDP")
    # fredapi takes the first row even where it says ".", and then has no release at all of such a period
    pd.testing.assert_series_equal(mine.reindex(theirs.index), theirs, check_names=False, check_freq=False)
    newest = fred.get_series_latest_release("GDP")
    mine = latest(gdp, "GDP")
    pd.testing.assert_series_equal(mine, newest, check_names=False, check_freq=False, check_index_type=False)
    assert mine.isna().sum() == newest.isna().sum() > 0


@pytest.mark.parametrize("day", ["1992-01-28", "1996-01-18", "1996-01-19", "2009-03-26", "2013-07-30", "2013-07-31", "2024-10-30"])
def test_as_of_a_day_is_fredapis(gdp: Snapshot, fred: Any, day: str) -> None:
    rows = fred.get_series_as_of_date("GDP", day)  # every vintage up to that day; the last of each period is the one known
    wanted = numbers(rows.drop_duplicates("date", keep="last").set_index("date")["value"])
    mine = as_of(gdp, "GDP", date.fromisoformat(day))
    pd.testing.assert_series_equal(
        mine, wanted.sort_index(), check_names=False, check_freq=False, check_index_type=False, check_dtype=False
    )


def test_as_of_the_first_day_of_2019_is_freds_own_answer(gdp: Snapshot, shared_data: Path) -> None:
    """The recording with ``realtime_end=2019-01-01``: what ends on that day was valid on it."""
    said = recorded(shared_data, "series-observations_GDP_rt2019-01-01__2024-11-03.json")["observations"]
    valid = {one["date"]: number(one["value"]) for one in said if one["realtime_end"] == "2019-01-01"}
    mine = as_of(gdp, "GDP", date(2019, 1, 1))
    assert {f"{day:%Y-%m-%d}": value for day, value in mine.dropna().items()} == {d: v for d, v in valid.items() if v == v}
    assert mine.isna().sum() == sum(v != v for v in valid.values())


def test_a_moment_sees_a_vintage_from_the_end_of_its_day_in_new_york(gdp: Snapshot) -> None:
    """The second quarter of 2024 came out on 25 July 2024: not known at that day's close, known at the next."""
    close = datetime(2024, 7, 25, 20, tzinfo=UTC)
    assert pd.Timestamp("2024-04-01") not in as_of(gdp, "GDP", close).index
    # BEA's release of that day: "a level of $28.63 trillion"
    assert round(as_of(gdp, "GDP", close + timedelta(days=1))["2024-04-01"] / 1000, 2) == 28.63
    assert round(as_of(gdp, "GDP", date(2024, 7, 25))["2024-04-01"] / 1000, 2) == 28.63
    assert as_of(gdp, "GDP", datetime(1990, 1, 1, tzinfo=UTC)).empty


def test_the_join_to_sessions_sees_what_the_view_of_each_close_sees(gdp: Snapshot) -> None:
    """`align_macro` follows the vintages in SQL; the view takes one moment at a time: the newest period, as known at each close."""
    days = pd.DatetimeIndex(sessions("2024-01-02", "2024-10-31")[::-1][::5][::-1])  # one a week, the last day among them
    closes = session_closes(days)
    joined = align_macro(gdp.read("macro_observations"), ["GDP"], closes, days)["GDP"]
    newest = [as_of(gdp, "GDP", close.to_pydatetime()).dropna().iloc[-1] for close in closes]
    np.testing.assert_array_equal(joined.to_numpy(), newest)
    assert len(set(newest)) == 11  # that of December 2023, then an estimate a month, January to October


def test_what_cannot_be_asked_is_an_error_in_words(gdp: Snapshot) -> None:
    with pytest.raises(UnknownNameError, match="did you mean GDP"):
        vintages(gdp, "GPD")
    with pytest.raises(UnknownNameError, match="bundled holds no series 'GDP'"):
        latest(gdp, "GDP", source="bundled")
    with pytest.raises(InputError, match="no time zone"):
        as_of(gdp, "GDP", datetime(2024, 1, 1))  # noqa: DTZ001 - that is the mistake


def test_two_sources_of_a_series_are_never_mixed(tmp_path: Path) -> None:
    from flows.sources.shape import table_of

    lake = open_lake(load_settings({"home": str(tmp_path)}))
    for source, value in (("fred", 1.0), ("files", 2.0)):
        columns = {
            "series": "X",
            "period": [date(2024, 1, 1)],
            "vintage": [date(2024, 2, 1)],
            "source": source,
            "value": [value],
            "unit": "Percent",
            "vintage_kind": "published",
            "available_at": pd.DatetimeIndex(["2024-02-02"], tz="UTC"),
        }
        rows = table_of("macro_observations", columns, 1)
        import pyarrow as pa

        lake.write(
            "macro_observations", rows.append_column(pa.field("ingest_id", pa.string(), False), pa.array(["i"])), recorded_at=NOW
        )
    snapshot = lake.publish()
    with pytest.raises(InputError, match="comes from 2 sources"):
        latest(snapshot, "X")
    assert latest(snapshot, "X", source="files").tolist() == [2.0]
