"""Corporate actions out of the user's own files, and through the command line."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from config.errors import DataError, InputError
from config.settings import load_settings
from flows.ingest_actions import ingest_actions_flow
from flows.sources.base import Answer
from flows.sources.files import ActionFiles
from lake import open_lake
from lake.listings import history
from tests.flows.demo_home import quant

GOOD = """symbol,ex_date,kind,value,new_symbol,announced
AAA,2018-06-06,split,2,,
AAA,2018-06-09,dividend,0.5,,2018-05-01
AAA,2018-12-26,Special Dividend,1.25,,2018-12-03
FB,2022-06-09,rename,,META,2022-05-31
BBB,2022-07-08,delisting,0.75,,
CCC,2022-07-05,listing,,,
"""


def source(path: Path, **options: Any) -> ActionFiles:
    return ActionFiles(load_settings({"home": str(path.parent / "home")}, environ={}), path=path, **options)


def answer_of(folder: Path, content: str, name: str = "actions.csv", **options: Any) -> Answer:
    path = folder / name
    path.write_text(content)
    given = source(path, **options)
    (found,) = given.actions(given.available())
    return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_actions_are_known_from_their_announcement_or_the_open_of_their_ex_date(tmp_path: Path) -> None:
    found = answer_of(tmp_path, GOOD)
    assert found.refused == ()
    assert found.names == ("AAA", "BBB", "CCC", "FB")
    rows = {(row["symbol"], row["kind"]): row for row in found.rows.to_pylist()}
    assert rows["AAA", "split"]["available_at"] == moment("2018-06-06T09:30:00-04:00")  # the exchange opens at 9:30 New York
    assert rows["AAA", "dividend"]["available_at"] == moment("2018-05-01T23:59:00-04:00")  # some time on that day
    assert rows["AAA", "special_dividend"]["value"] == 1.25
    assert rows["FB", "rename"]["new_symbol"] == "META"
    assert rows["FB", "rename"]["value"] is None
    assert rows["BBB", "delisting"]["value"] == 0.75
    assert rows["CCC", "listing"]["ex_date"] == date(2022, 7, 5)


def test_an_ex_date_on_a_closed_day_is_known_at_the_next_open(tmp_path: Path) -> None:
    found = answer_of(tmp_path, "symbol,ex_date,kind,value\nAAA,2018-06-09,dividend,1\nAAA,2018-12-25,dividend,1\n")
    opens = [moment("2018-06-11T09:30:00-04:00"), moment("2018-12-26T09:30:00-05:00")]
    assert found.rows["available_at"].to_pylist() == opens
    london = answer_of(tmp_path, "symbol,ex_date,kind,value\nVOD.L,2018-06-07,dividend,1\n", calendar="XLON", currency="GBX")
    assert london.rows["available_at"].to_pylist() == [moment("2018-06-07T08:00:00+01:00")]
    assert london.rows["currency"].to_pylist() == ["GBX"]


def test_rows_that_cannot_be_acted_upon_are_refused_with_their_line(tmp_path: Path) -> None:
    found = answer_of(
        tmp_path,
        "symbol,ex_date,kind,value,new_symbol,announced\n"
        "AAA,2018-13-06,split,2,,\n"
        "AAA,2018-06-06,split,4:1,,\n"
        "AAA,2018-06-07,split,0,,\n"
        "AAA,2018-06-08,merger,2,,\n"
        "AAA,2018-06-11,dividend,,,\n"
        "AAA,2018-06-12,dividend,-1,,\n"
        "AAA,2018-06-13,rename,,,\n"
        "AAA,2018-06-14,dividend,1,,soon\n"
        "AAA,2099-06-15,dividend,1,,\n"
        "BBB,2018-06-06,dividend,1,,\n"
        "BBB,2018-06-06,dividend,2,,2018-06-01\n"
        "BBB,2018-06-07,dividend,1,,\n"
        "BBB,2018-06-07,dividend,1,,\n",
    )
    assert sorted((row.reason.split(": ")[0], row.rule) for row in found.refused) == sorted([
        ("actions.csv line 2", "wrong_type"),
        ("actions.csv line 3", "wrong_type"),
        ("actions.csv line 4", "ratio_not_positive"),
        ("actions.csv line 5", "unknown_kind"),
        ("actions.csv line 6", "value_missing"),
        ("actions.csv line 7", "dividend_negative"),
        ("actions.csv line 8", "new_symbol_missing"),
        ("actions.csv line 9", "wrong_type"),
        ("actions.csv line 10", "not_a_session"),
        ("actions.csv line 11", "key_in_conflict"),
        ("actions.csv line 12", "key_in_conflict"),
        ("actions.csv line 14", "row_repeated"),
    ])  # fmt: skip
    assert found.rows["ex_date"].to_pylist() == [date(2018, 6, 7)]
    reasons = {row.rule: row.reason for row in found.refused}
    assert reasons["unknown_kind"].startswith("actions.csv line 5: the kind 'merger' is none; known: split, dividend")


def test_json_parquet_and_other_column_names_give_the_same_rows(tmp_path: Path) -> None:
    expected = answer_of(tmp_path, GOOD).rows
    records = [
        {k: v for k, v in row.items() if v != ""}
        for row in pd.read_csv(tmp_path / "actions.csv", dtype=str).fillna("").to_dict("records")
    ]
    assert answer_of(tmp_path, json.dumps(records), "actions.json").rows.equals(expected)
    typed = pd.read_csv(tmp_path / "actions.csv", parse_dates=["ex_date"])
    typed.to_parquet(tmp_path / "actions.parquet")
    parquet = source(tmp_path / "actions.parquet")
    assert next(iter(parquet.actions(parquet.available()))).rows.equals(expected)
    other = GOOD.replace("symbol,ex_date,kind,value", "Ticker,Ex-Date,What,Amount")
    assert answer_of(tmp_path, other, "other.csv", mapping={"kind": "What"}).rows.equals(expected)


def test_a_file_that_says_no_kind_is_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column for kind"):
        answer_of(tmp_path, "symbol,ex_date,value\nAAA,2018-06-06,2\n")


def test_announcements_with_a_time_of_day_need_a_time_zone(tmp_path: Path) -> None:
    row = "symbol,ex_date,kind,value,announced\nAAA,2018-06-06,split,2,2018-05-01T16:30:00"
    assert answer_of(tmp_path, f"{row}Z\n").rows["available_at"].to_pylist() == [moment("2018-05-01T16:30:00+00:00")]
    with pytest.raises(InputError, match=r"actions.csv, column announced: moments need a time zone"):
        answer_of(tmp_path, f"{row}\n")


def test_a_window_of_ex_dates_and_a_second_ingest_of_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "actions.csv").write_text(GOOD)
    settings = load_settings({"home": str(tmp_path / "home")}, environ={})
    first = ingest_actions_flow("AAA", "2018-06-07", "2018-12-31", settings=settings, path=tmp_path / "actions.csv")
    assert (first.total.new, first.total.refused) == (2, 0)
    every = ingest_actions_flow(settings=settings, path=tmp_path / "actions.csv")
    assert (every.total.new, every.total.unchanged) == (4, 2)
    again = ingest_actions_flow(settings=settings, path=tmp_path / "actions.csv")
    assert (again.total.new, again.total.revised, again.snapshot_id) == (0, 0, every.snapshot_id)
    assert history(open_lake(settings).snapshot(), "META", date(2022, 6, 9)).spells[0].symbol == "FB"


def test_the_command_line_ingests_a_file_of_actions(tmp_path: Path) -> None:
    (tmp_path / "actions.csv").write_text(GOOD + "AAA,2018-06-08,merger,2,,\n")
    said = quant(tmp_path / "home", "ingest", "actions", "--path", str(tmp_path / "actions.csv"), "--json")
    assert said.code == 0, said.err
    assert said.document["tables"]["corporate_actions"]["new"] == 6
    assert said.document["tables"]["corporate_actions"]["refused"] == 1
