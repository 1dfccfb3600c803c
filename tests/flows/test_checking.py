"""The quality report, the list of tables, quarantine and its release, through the command line's own functions and the command."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import DataError, InputError, UnknownNameError
from config.settings import load_settings
from flows.checking import check_quality, declared_rules, list_quarantine, release_rows
from flows.ingest_equity import ingest_equity_flow
from flows.inventory import list_tables
from flows.universe import import_universe, show_universe
from lake import open_lake
from tests.flows.demo_home import quant
from tests.lake.rows import bar, bars

AT = datetime(2024, 7, 15, 12, tzinfo=UTC)
# New York's sessions of early July 2024 without the 9th; the 3rd is crossed, the 11th a jump: ln(25 / 10.4) = 0.877.
PRICES = """date,open,high,low,close,volume
2024-07-01,10,10.5,9.9,10.1,1000
2024-07-02,10.1,10.6,10,10.2,1100
2024-07-03,10.2,9.8,9.7,10.0,1200
2024-07-05,10.2,10.7,10.1,10.3,1300
2024-07-08,10.3,10.7,10.1,10.4,1400
2024-07-10,10.3,10.7,10.1,10.4,0
2024-07-11,10.4,25.5,10.4,25,9000
"""


def _ingest(folder: Path, text: str = PRICES) -> Any:
    path = folder / "ABC.csv"
    path.write_text(text)
    return ingest_equity_flow(None, source="files", path=str(path), settings=load_settings(), clock=FixedClock(AT))


def test_the_report_says_what_is_stored_refused_and_missing(tmp_path: Path) -> None:
    _ingest(tmp_path)
    report = check_quality(load_settings())
    assert [(r["symbol"], r["rule"], r["severity"], r["rows"]) for r in report["stored"]] == [
        ("ABC", "price_jump", "flag", 1),
        ("ABC", "zero_volume", "flag", 1),
    ]
    assert "close 25.0 after 10.4 on 2024-07-10: a log return of 0.8771" in report["stored"][0]["example"]
    assert [(r["table"], r["rule"], r["state"], r["rows"]) for r in report["quarantine"]] == [
        ("equity_bars", "high_below_price", "held", 1)
    ]
    # The 3rd was refused and the 9th never came: both are missing.
    [gap] = report["gaps"]
    assert (gap["dataset"], gap["symbol"], gap["sessions"], gap["first"], gap["last"]) == (
        "equity_bars",
        "ABC",
        2,
        "2024-07-03",
        "2024-07-09",
    )
    assert report["unreleased"] == 0
    flags = open_lake(load_settings()).read_latest("flags").to_pylist()
    assert sorted((row["symbol"], row["rule"]) for row in flags) == [("ABC", "price_jump"), ("ABC", "zero_volume")]
    _ingest(tmp_path)  # the same window twice flags nothing twice
    assert open_lake(load_settings()).read_latest("flags").num_rows == 2
    assert check_quality(load_settings(), symbols=["XYZ"])["gaps"] == []
    with pytest.raises(UnknownNameError, match="holds no table 'equity_bar'"):
        check_quality(load_settings(), tables=["equity_bar"])


def test_a_row_written_around_the_rules_is_found(tmp_path: Path) -> None:
    lake = open_lake(load_settings())
    rows = [bar("A", date(2024, 1, 2), 10.0, high=9.0, low=9.0), bar("A", date(2024, 1, 6), 10.0)]  # crossed; a Saturday
    lake.write("equity_bars", bars(rows), recorded_at=AT)
    lake.publish()
    report = check_quality(load_settings())
    assert [(r["rule"], r["severity"], r["rows"]) for r in report["stored"]] == [
        ("high_below_price", "refuse", 1),
        ("not_a_session", "refuse", 1),
    ]
    assert report["unreleased"] == 2
    assert quant(tmp_path / "home", "data", "check", "--json").code == 3


def test_the_list_of_tables_counts_what_is_kept_beside_them(tmp_path: Path) -> None:
    _ingest(tmp_path)
    document = list_tables(load_settings(), FixedClock(AT), symbols=True)
    [table] = document["tables"]
    shown = ("table", "rows", "names", "first_event", "last_event", "gaps", "quarantine", "flags", "late", "freshness")
    # Friday the 12th is due since the night to Saturday.
    assert [table[key] for key in shown] == [
        "equity_bars", 6, 1, "2024-07-01", "2024-07-11", 2, 1, 2, True, "late by 1 session",
    ]  # fmt: skip
    assert table["last_ingest"].startswith("2024-07-15 12:00")
    [symbol] = document["symbols"]
    assert (symbol["name"], symbol["gaps"], symbol["quarantine"], symbol["flags"]) == ("ABC", 2, 1, 2)
    json.dumps(document, default=str, allow_nan=False)


def test_a_row_is_released_through_the_command(tmp_path: Path) -> None:
    _ingest(tmp_path)
    home = tmp_path / "home"
    listed = quant(home, "data", "quarantine", "--json").document
    [held] = listed["data"]
    assert json.loads(held["raw"])["high"] == 9.8
    planned = quant(home, "data", "release", held["row_id"][:12], "--json")
    assert (planned.code, planned.document["applied"], planned.document["rows"][0]["effect"]) == (0, False, "new")
    assert quant(home, "data", "release", held["row_id"], "--apply").code == 1  # no reason
    done = quant(home, "data", "release", "--rule", "high_below_price", "--apply", "--reason", "checked", "--by", "ada", "--json")
    assert (done.code, done.document["released"]) == (0, 1), done.err
    snapshot = open_lake(load_settings()).snapshot()
    assert snapshot.id == done.document["snapshot_id"]
    assert snapshot.read("equity_bars", start=date(2024, 7, 3), end=date(2024, 7, 3))["high"].to_pylist() == [9.8]
    report = _ingest(tmp_path)
    assert report.total.refused == 0  # not refused again
    checked = check_quality(load_settings())
    assert checked["unreleased"] == 0
    assert [(r["rule"], r["rows"], r["released"]) for r in checked["stored"] if r["severity"] == "refuse"] == [
        ("high_below_price", 1, 1)
    ]
    assert [gap["first"] for gap in checked["gaps"]] == ["2024-07-09"]


def test_a_release_names_ids_or_a_filter() -> None:
    with pytest.raises(InputError, match="by their ids, or by a filter"):
        release_rows(load_settings(), FixedClock(AT))
    with pytest.raises(UnknownNameError, match="no held row of quarantine fits"):
        release_rows(load_settings(), FixedClock(AT), rule="price_not_positive")
    with pytest.raises(UnknownNameError, match="no table is called"):
        list_quarantine(load_settings(), table="bars")


def test_every_rule_is_listed_with_its_severity(tmp_path: Path) -> None:
    rules = declared_rules()
    named = {(rule["table"], rule["rule"]) for rule in rules}
    assert {("equity_bars", "price_jump"), ("equity_bars", "missing_session"), ("cot_positions", "sides_do_not_add_up")} <= named
    said = quant(tmp_path / "home", "data", "rules", "--table", "equity_bars", "--json").document["rules"]
    assert {rule["table"] for rule in said} == {"equity_bars"}
    assert next(rule for rule in said if rule["rule"] == "high_below_low")["by_source"] == {"cboe": "flag"}


def test_a_universe_is_imported_from_a_plain_csv(tmp_path: Path) -> None:
    path = tmp_path / "sp.csv"
    path.write_text("# members\nTicker;Added;Removed\nAAPL;1999-01-04;\nLEH;1999-01-04;2008-09-17\n")
    report = import_universe(load_settings(), FixedClock(AT), path, name="SP500")
    assert (report["begun"], report["ended"], report["available_kind"]) == (2, 1, ["assumed"])
    assert import_universe(load_settings(), FixedClock(AT), path, name="SP500")["snapshot_id"] == report["snapshot_id"]
    assert show_universe(load_settings(), "SP500", on=date(2008, 9, 16))["members"] == ["AAPL", "LEH"]
    said = quant(tmp_path / "home", "universe", "show", "SP500", "--on", "2008-09-17", "--json")
    assert said.document["members"] == ["AAPL"]
    shipped = import_universe(load_settings(), FixedClock(AT), "bundled_indices", name="INDICES")
    assert shipped["begun"] == 2
    # A membership that a later file no longer has is said, and stays.
    path.write_text("Ticker,Added,Removed\nAAPL,1999-01-04,\n")
    later = import_universe(load_settings(), FixedClock(AT), path, name="SP500")
    assert later["absent"] == [{"universe": "SP500", "symbol": "LEH", "from": "1999-01-04"}]
    # With announcements a change counts from the end of the day that announced it, in New York.
    path.write_text("index,symbol,from,to,announced\nSP500,TSLA,2020-12-21,,2020-11-16\nNDX,Z,2020-12-21,,\n")
    import_universe(load_settings(), FixedClock(AT), path, name="SP500")
    tesla = open_lake(load_settings()).read_latest("universe_membership", where={"symbol": ["TSLA", "Z"]}).to_pylist()
    assert [(row["symbol"], row["available_kind"]) for row in tesla] == [("TSLA", "announced")]
    assert tesla[0]["available_at"] == datetime(2020, 11, 17, 4, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("symbol,from,to\nA,2020-13-01,\n", DataError, "line 2: from is '2020-13-01', which is no date as 2018-12-31"),
        ("symbol,from,to\nA,2020-01-02,\n\nB,2020-01-02,2019-01-02\n", DataError, "line 4: B leaves on 2019-01-02"),
        ("symbol,from,to\nA,2020-01-02,2020-01-02\n", DataError, "which is not after it joined"),
        ("symbol,from,to\n,2020-01-02,\n", DataError, "line 2: symbol is empty"),
        ("symbol,from,to\nA,2020-01-02\n", DataError, "line 2: 2 cells where the header has 3"),
        ("symbol,from,to\nA,2020-01-02,\nA,2021-01-04,\n", DataError, "line 3: A from 2021-01-04 overlaps line 2"),
        ("symbol,from,to\nA,2020-01-02,2021-01-05\nA,2021-01-04,\n", DataError, "overlaps line 2: from 2020-01-02 to 2021-01-05"),
        ("symbol,begin,to\nA,2020-01-02,\n", DataError, "no column for from"),
        ("symbol,from,to\n", DataError, "holds no memberships"),
    ],
)
def test_a_file_with_an_error_is_refused_whole_with_the_line(tmp_path: Path, text: str, error: type[Exception], said: str) -> None:
    path = tmp_path / "u.csv"
    path.write_text(text)
    with pytest.raises(error, match=re.escape(said)):
        import_universe(load_settings(), FixedClock(AT), path, name="U")
    assert open_lake(load_settings()).read_latest("universe_membership").num_rows == 0


def test_an_overlap_with_what_is_stored_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "u.csv"
    path.write_text("symbol,from,to\nA,2020-01-02,\n")
    import_universe(load_settings(), FixedClock(AT), path, name="U")
    path.write_text("symbol,from,to\nA,2021-01-04,\n")
    with pytest.raises(DataError, match="line 2: A from 2021-01-04 overlaps what is stored"):
        import_universe(load_settings(), FixedClock(AT), path, name="U")
