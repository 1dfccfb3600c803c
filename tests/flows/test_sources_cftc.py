"""Commitments of Traders: what the reports say, category by category, and the moment at which each became public."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import InputError, SchemaError, ServiceError, ServiceUnavailable
from flows.sources import cot_calendar
from flows.sources.base import Answer, get_source
from flows.sources.cftc import CftcPositions, Looked
from flows.sources.cot_calendar import known_exceptions, published, scheduled
from flows.sources.cot_reports import REPORTS
from tests.flows.replayed import FIXTURES, settings_for
from tests.replay import Fault, ReplayServer

FILES, TABLES = "www.cftc.gov", "publicreporting.cftc.gov"
NOW = datetime(2024, 7, 19, 21, tzinfo=UTC)
WHEAT = "900001"
PATIENT = {"data.timeout_seconds": 30.0}  # a busy machine answers itself slowly


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with ReplayServer(FIXTURES / "cftc") as running:
        yield running


def source(
    server: ReplayServer, host: str, now: datetime = NOW, looked: Mapping[str, Sequence[Looked]] | None = None, **options: Any
) -> CftcPositions:
    via = "files" if host == FILES else "api"
    made = get_source("cftc", "cot", settings_for(server, "cftc", host, **PATIENT), via=via, **options)
    assert isinstance(made, CftcPositions)
    made.watch(FixedClock(now), looked or {})
    return made


def rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [row for answer in answers for row in answer.rows.to_pylist()]


def cells(folder: Path, name: str) -> list[list[str]]:
    """The lines of a recorded ZIP's text, read without any of our code; without the header."""
    with zipfile.ZipFile(folder / name) as archive:
        text = archive.read(archive.namelist()[0]).decode("latin-1")
    return list(csv.reader(io.StringIO(text)))[1:]


def check_sums(found: Sequence[Mapping[str, Any]]) -> int:
    """Each contract is long once and short once: groups with their spreading, and the rest, add up to the open interest.

    Exactly, but for consolidated markets (code with a +), which the CFTC converts to one contract's size and rounds: within 1.
    """
    markets: dict[tuple[str, str, date], dict[str, Mapping[str, Any]]] = {}
    for row in found:
        markets.setdefault((row["report"], row["market_code"], row["as_of_date"]), {})[row["category"]] = row
    for key, groups in markets.items():
        total, rest = groups.pop("total_reportable"), groups.pop("nonreportable")
        interest = total["open_interest"]
        spreading = sum(group["spreading"] or 0 for group in groups.values())
        rounded = 1 if key[1].endswith("+") else 0
        for side in ("long", "short"):
            assert abs(sum(group[side] for group in groups.values()) + spreading - total[side]) <= rounded, key
            assert abs(total[side] + rest[side] - interest) <= rounded, key
    return len(markets)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- what the files and tables say ---------------------------------------------------------------------------------------------


def test_a_line_of_the_legacy_file_is_a_row_a_category(server: ReplayServer) -> None:
    """Beside the file's own cells, by their place: 8 to 17 are all months' positions, 23 to 29 the traders."""
    found = rows(list(source(server, FILES).positions([WHEAT], date(2024, 1, 1))))
    raw = next(
        line
        for line in cells(FIXTURES / "cftc" / "bodies", "deacot2024_2024-07-19.zip")
        if line[2] == "2024-07-09" and line[3] == WHEAT
    )
    interest, nl, ns, sp, cl, cs, tl, ts, rl, rs = (float(cell) for cell in raw[7:17])
    mine = {row["category"]: row for row in found if row["as_of_date"] == date(2024, 7, 9)}
    numbers = ("open_interest", "long", "short", "spreading", "traders_long", "traders_short", "traders_spreading")
    assert {category: tuple(row[name] for name in numbers) for category, row in mine.items()} == {
        "noncommercial": (interest, nl, ns, sp, 40.0, 31.0, 25.0),
        "commercial": (interest, cl, cs, None, 50.0, 48.0, None),
        "total_reportable": (interest, tl, ts, None, 101.0, None, None),  # the file says "." where there is no number
        "nonreportable": (interest, rl, rs, None, None, None, None),
    }
    assert {row["market_name"] for row in found} == {"MADE-UP WHEAT - BOARD OF NOWHERE"}
    assert {row["report"] for row in found} == {"legacy_futures"}
    assert check_sums(found) == 3


def test_the_public_tables_are_read_page_by_page_under_their_own_spellings(server: ReplayServer) -> None:
    answers = list(source(server, TABLES, report="disaggregated_futures", page_rows=2).positions([WHEAT]))
    found = rows(answers)
    assert [question.query.get("$offset") for question in server.asked] == [None, "2"]
    assert check_sums(found) == 3
    said = json.loads((FIXTURES / "cftc" / "bodies" / "disaggregated_futures_0.json").read_bytes())
    money = {row["as_of_date"]: row for row in found if row["category"] == "managed_money"}
    swaps = {row["as_of_date"]: row for row in found if row["category"] == "swap_dealer"}
    for line in said:
        day = date.fromisoformat(line["report_date_as_yyyy_mm_dd"][:10])
        assert money[day]["spreading"] == float(line["m_money_positions_spread"])  # not ..._spread_1, which is the old crop's
        assert swaps[day]["short"] == float(line["swap__positions_short_all"])
        assert swaps[day]["traders_spreading"] == (
            float(line["traders_swap_spread_all"]) if "traders_swap_spread_all" in line else None
        )
    assert swaps[date(2024, 7, 9)]["traders_spreading"] is None  # a table leaves out what it has no value for


def test_a_long_window_takes_the_bundle_to_2016_and_a_file_a_year_since(server: ReplayServer) -> None:
    found = rows(list(source(server, FILES, report="disaggregated_combined").positions([WHEAT])))
    assert [path.rpartition("/")[2] for path in server.asked_paths()] == [
        "com_disagg_txt_hist_2006_2016.zip",
        *(f"com_disagg_txt_{year}.zip" for year in range(2017, 2025)),
    ]
    days = sorted({row["as_of_date"] for row in found})
    assert days[0] == date(2016, 12, 27)  # its file writes 12/27/2016 12:00:00 AM
    assert len(days) == 1 + 7 + 3
    assert check_sums(found) == 11


def test_only_the_window_and_the_markets_asked_for_come(server: ReplayServer) -> None:
    found = rows(list(source(server, FILES).positions(["90000+"], date(2024, 7, 3), date(2024, 7, 9))))
    assert {(row["market_code"], row["as_of_date"]) for row in found} == {("90000+", date(2024, 7, 9))}


def test_a_line_that_cannot_be_read_is_refused_and_the_others_are_kept(server: ReplayServer) -> None:
    (answer,) = source(server, FILES).positions(["900002", WHEAT], date(2024, 1, 1))
    assert [(row.symbol, row.rule) for row in answer.refused] == [("900002", "wrong_type")]
    assert "open_interest_all is '9x00', not a whole number" in answer.refused[0].reason
    assert answer.refused[0].raw["market_and_exchange_names"] == "MADE-UP OATS, MINI - BOARD OF NOWHERE"
    assert answer.rows.num_rows == 3 * 4


def test_a_line_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    whole = zipfile.ZipFile(FIXTURES / "cftc" / "bodies" / "deacot2024_2024-07-19.zip").read("annual.txt").decode()
    lines = whole.splitlines()
    with ReplayServer(_folder(tmp_path, "\r\n".join([*lines[:2], lines[3][:80]]))) as server:
        (answer,) = source(server, FILES).positions([WHEAT], date(2024, 1, 1))
    assert answer.rows.num_rows == 4
    assert [row.reason for row in answer.refused] == [
        f"legacy_futures, market {WHEAT}, None: the line has not as many cells as the header"
    ]


def test_a_column_that_is_gone_stops_the_ingest_instead_of_giving_nothing(tmp_path: Path) -> None:
    whole = zipfile.ZipFile(FIXTURES / "cftc" / "bodies" / "deacot2024_2024-07-19.zip").read("annual.txt").decode()
    renamed = whole.replace('"Commercial Positions-Short (All)"', '"Commercial Shorts"')
    with ReplayServer(_folder(tmp_path, renamed)) as server, pytest.raises(SchemaError, match="no column comm_positions_short"):
        list(source(server, FILES).positions([WHEAT], date(2024, 1, 1)))


@pytest.mark.parametrize("kind", ["500", "truncated", "half_body", "empty", "wrong_type", "reset"])
@pytest.mark.parametrize("host", [FILES, TABLES])
def test_a_broken_answer_is_unavailable_and_never_an_empty_one(server: ReplayServer, host: str, kind: Any) -> None:
    server.faults = [Fault(kind=kind)]
    options: dict[str, Any] = {} if host == FILES else {"report": "disaggregated_futures", "page_rows": 2}
    with pytest.raises(ServiceUnavailable):
        list(source(server, host, **options).positions([WHEAT], date(2024, 1, 1) if host == FILES else None))


def test_the_file_of_a_year_that_has_no_report_yet_is_no_failure_and_that_of_a_past_year_is(server: ReplayServer) -> None:
    (answer,) = source(server, FILES, now=datetime(2027, 1, 4, tzinfo=UTC)).positions([WHEAT], date(2027, 1, 1))
    assert answer.rows.num_rows == 0
    assert answer.notes == ("the CFTC has no deacot2027.zip yet",)
    with pytest.raises(ServiceError, match=r"deacot2023\.zip answered 404"):
        list(source(server, FILES).positions([WHEAT], date(2023, 1, 1), date(2023, 12, 31)))


def test_names_and_options_that_mean_nothing_are_refused(server: ReplayServer) -> None:
    with pytest.raises(InputError, match="contract market code"):
        list(source(server, TABLES).positions(["001602' OR '1'='1"]))
    with pytest.raises(InputError, match="did you mean legacy_futures"):
        source(server, TABLES, report="legacy_future")
    with pytest.raises(InputError, match="via 'ftp'"):
        get_source("cftc", "cot", settings_for(server, "cftc", FILES, **PATIENT), via="ftp")


# --- when a report became public -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("as_of", "day"),
    [
        ("2024-07-02", "2024-07-08"),  # Independence Day on the Thursday: Monday
        ("2024-07-09", "2024-07-12"),  # an ordinary Friday
        ("2023-11-21", "2023-11-27"),  # Thanksgiving: Monday
        ("2021-06-15", "2021-06-21"),  # the first Juneteenth, observed on the Friday
        ("2019-12-24", "2019-12-30"),  # Christmas on the Wednesday
        ("2020-11-09", "2020-11-13"),  # as of a Monday before Veterans Day on the Wednesday: Friday all the same
    ],
)
def test_the_rule_is_the_third_federal_business_day(as_of: str, day: str) -> None:
    assert scheduled(date.fromisoformat(as_of)) == date.fromisoformat(day)


def test_before_the_rule_was_one_nobody_says_when() -> None:
    assert published(date(1992, 12, 29)) is None
    assert published(date(1993, 1, 5)) == utc("1993-01-08T20:30")


def test_publication_is_at_half_past_three_in_new_york() -> None:
    assert published(date(2024, 7, 9)) == utc("2024-07-12T19:30")
    assert published(date(2024, 1, 9)) == utc("2024-01-12T20:30")


def test_the_table_of_exceptions_is_later_than_the_rule_and_in_order() -> None:
    table = known_exceptions()
    assert list(table) == sorted(table)
    dated = {as_of: day for as_of, day in table.items() if day is not None}
    assert all(as_of.weekday() in (0, 1) for as_of in table)
    assert all(day >= (scheduled(as_of) or day) for as_of, day in dated.items())
    for first, second in zip(list(dated)[:-1], list(dated)[1:], strict=True):
        assert dated[first] < dated[second]  # reports come out in the order of their dates
    assert table[date(2013, 10, 8)] is None  # it came late, and we do not know when


def test_the_schedule_after_the_shutdown_of_2025_is_the_cftcs_own(shared_data: Path) -> None:
    """The rule gives the publications planned before it, the table those that were announced after it."""
    path = shared_data / "recordings" / "cftc" / "bodies" / "cot_release_calendar_shutdown_2025.csv"
    said = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(said) == 17
    for row in said:
        as_of = date.fromisoformat(row["COT_report_date"])
        assert scheduled(as_of) == date.fromisoformat(row["original_publish_date"])
        moment = published(as_of)
        assert moment is not None
        assert moment.astimezone(cot_calendar.NEW_YORK).isoformat()[:16] == f"{row['actual_publish_date']}T15:30"
    assert published(date(2025, 9, 30)) == utc("2025-11-19T20:30")  # seven weeks after its Tuesday, not three days


def test_a_report_is_never_dated_later_than_it_was_seen() -> None:
    """Seen on 8 July at 18:00, an hour and a half before the calendar's word: then it was public at 18:00."""
    with ReplayServer(FIXTURES / "cftc", as_recorded_at=utc("2024-07-09T00:00")) as early:
        (answer,) = source(early, FILES, now=utc("2024-07-08T18:00")).positions([WHEAT], date(2024, 1, 1))
    assert {(row["as_of_date"], row["available_at"]) for row in answer.rows.to_pylist()} == {
        (date(2024, 7, 2), utc("2024-07-08T18:00"))
    }


@pytest.mark.parametrize(
    ("looked_at", "expected"),
    [
        ("2024-07-19T19:30:00", "2024-07-19T19:30:46"),  # it came with that change
        ("2024-07-19T19:31:00", "2026-01-01T00:00:00"),  # it was not there after that change: somehow it came later
    ],
)
def test_last_modified_dates_a_late_report_where_it_can(server: ReplayServer, looked_at: str, expected: str) -> None:
    """The public table was last changed on 19 July 19:30:46. We had looked in vain, and look again in 2026."""
    late = source(server, TABLES, report="disaggregated_futures", page_rows=2)
    late.watch(FixedClock(utc("2026-01-01T00:00")), {WHEAT: [Looked(at=utc(looked_at), start=None)]})
    known = {row["as_of_date"]: row["available_at"] for row in rows(list(late.positions([WHEAT])))}
    assert set(known.values()) == {utc(expected)}


def test_a_report_of_an_unknown_day_counts_from_the_last_change_that_was_told(tmp_path: Path, server: ReplayServer) -> None:
    """The table says that the report as of 1 October 2013 was late, and not when it came."""
    folder = FIXTURES / "cftc"
    (entry,) = [one for one in json.loads((folder / "index.json").read_text()) if one["id"] == "disaggregated_futures_2"]
    text = (folder / entry["body_file"]).read_text().replace("2024-07-16", "2013-10-01")
    (tmp_path / "page.json").write_text(text)
    asked = {**entry, "query": {}, "body_file": "page.json"}
    for headers, expected in ((entry["headers"], datetime(2024, 7, 19, 19, 30, 46, tzinfo=UTC)), ({}, NOW)):
        (tmp_path / "index.json").write_text(json.dumps([{**asked, "headers": headers}]))
        with ReplayServer(tmp_path) as running:
            (answer,) = source(running, TABLES, report="disaggregated_futures").positions([WHEAT])
        assert {(row["as_of_date"], row["available_at"]) for row in answer.rows.to_pylist()} == {(date(2013, 10, 1), expected)}


def test_a_report_looked_for_in_vain_after_its_day_counts_from_when_it_was_seen(server: ReplayServer) -> None:
    """As of 16 July: planned for the 19th, 19:30. Somebody looked at 20:00 and it was not there; at 21:00 it is."""
    looked = {WHEAT: [Looked(at=utc("2024-07-19T20:00"), start=date(2024, 7, 10))]}
    found = rows(list(source(server, FILES, looked=looked).positions([WHEAT], date(2024, 1, 1))))
    known = {row["as_of_date"]: row["available_at"] for row in found}
    assert known == {
        date(2024, 7, 2): utc("2024-07-08T19:30"),  # nobody had looked for those two
        date(2024, 7, 9): utc("2024-07-12T19:30"),
        date(2024, 7, 16): NOW,
    }
    several = {
        WHEAT: [
            Looked(at=utc("2024-07-19T20:30"), start=date(2024, 7, 16)),
            Looked(at=utc("2024-07-13T00:00"), start=date(2024, 7, 9)),
            Looked(at=utc("2024-07-08T19:00"), start=None),
        ]
    }
    found = rows(list(source(server, FILES, looked=several).positions([WHEAT], date(2024, 1, 1))))
    assert {row["as_of_date"]: row["available_at"] for row in found} == {
        date(2024, 7, 2): utc("2024-07-08T19:30"),  # looked for half an hour before its time
        date(2024, 7, 9): NOW,
        date(2024, 7, 16): NOW,
    }
    before = {WHEAT: [Looked(at=utc("2024-07-19T19:29"), start=None)]}  # a minute before its time: that says nothing
    found = rows(list(source(server, FILES, looked=before).positions([WHEAT], date(2024, 7, 16))))
    assert {row["available_at"] for row in found} == {utc("2024-07-19T19:30")}


# --- on the recorded files -------------------------------------------------------------------------------------------------------


def test_every_market_of_the_recorded_legacy_file_adds_up_and_is_read_whole(shared_data: Path) -> None:
    folder = shared_data / "recordings" / "cftc"
    lines = cells(folder / "bodies", "deacot2025_2025-01-31.zip")
    codes = sorted({line[3].strip() for line in lines})
    with ReplayServer(folder) as server:
        (answer,) = source(server, FILES, now=utc("2025-01-31T23:30")).positions(codes, date(2025, 1, 1), date(2025, 1, 31))
    found = answer.rows.to_pylist()
    assert not answer.refused
    assert len(found) == 4 * len(lines) == 4 * 1271
    assert check_sums(found) == 1271
    mine = {(row["market_code"], row["as_of_date"].isoformat(), row["category"]): row for row in found}
    for line in lines:
        key = (line[3].strip(), line[2])
        noncommercial, commercial = mine[*key, "noncommercial"], mine[*key, "commercial"]
        assert [noncommercial[name] for name in ("open_interest", "long", "short", "spreading")] == [
            float(cell) for cell in line[7:11]
        ]
        assert [commercial["long"], commercial["short"]] == [float(cell) for cell in line[11:13]]


def test_every_market_of_the_recorded_financial_file_adds_up(shared_data: Path) -> None:
    folder = shared_data / "recordings" / "cftc"
    lines = cells(folder / "bodies", "fut_fin_txt_2026_2026-03-26.zip")
    codes = sorted({line[3].strip() for line in lines})
    with ReplayServer(folder) as server:
        made = source(server, FILES, now=utc("2026-03-26T23:00"), report="tff_futures")
        (answer,) = made.positions(codes, date(2026, 1, 1))
    found = answer.rows.to_pylist()
    assert len(found) == 6 * len(lines) == 6 * 908
    assert check_sums(found) == 908
    leveraged = {(row["market_code"], row["as_of_date"].isoformat()): row for row in found if row["category"] == "leveraged_funds"}
    for line in lines:
        row = leveraged[line[3].strip(), line[2]]
        assert [row["long"], row["short"], row["spreading"]] == [float(cell) for cell in line[14:17]]
    known = {row["as_of_date"]: row["available_at"] for row in found}
    assert known[date(2026, 1, 6)] == utc("2026-01-16T20:30")  # still late from the shutdown
    assert known[date(2026, 3, 17)] == utc("2026-03-20T19:30")


def test_the_recorded_answer_of_the_public_table_is_asked_for_in_its_own_words(shared_data: Path) -> None:
    folder = shared_data / "recordings" / "cftc"
    with ReplayServer(folder) as server:
        made = source(server, TABLES, now=utc("2024-08-27T01:49"), report="legacy_combined")
        (answer,) = made.positions(["239747"], date(2024, 8, 19), date(2024, 8, 21))
    found = answer.rows.to_pylist()
    assert check_sums(found) == 1
    numbers = {row["category"]: (row["long"], row["short"], row["spreading"]) for row in found}
    # read off the recorded JSON by eye: 4773 + 258 + 3060 = 8091, and 8091 + 11313 = 19404
    assert numbers == {
        "noncommercial": (4773.0, 10232.0, 258.0),
        "commercial": (3060.0, 290.0, None),
        "total_reportable": (8091.0, 10780.0, None),
        "nonreportable": (11313.0, 8624.0, None),
    }
    assert {row["open_interest"] for row in found} == {19404.0}
    # recorded with Last-Modified: Fri, 23 Aug 2024 19:30:46 GMT; the rule says 15:30 New York that Friday
    assert {row["available_at"] for row in found} == {utc("2024-08-23T19:30")}


def test_the_weekly_snapshots_of_january_2025_grow_by_a_report_a_week(shared_data: Path) -> None:
    """The first report of 2025 came on Monday the 13th, because of a day of mourning: the calendar of holidays does not know."""
    folder = shared_data / "recordings" / "cftc"
    found: dict[int, dict[date, datetime]] = {}
    for day in (13, 17, 31):
        now = utc(f"2025-01-{day}T23:30")
        with ReplayServer(folder, as_recorded_at=now) as server:
            (answer,) = source(server, FILES, now=now).positions(["001602"], date(2025, 1, 1))
        found[day] = {row["as_of_date"]: row["available_at"] for row in answer.rows.to_pylist()}
    assert found[13] == {date(2025, 1, 7): utc("2025-01-13T20:30")}
    assert found[17] == {**found[13], date(2025, 1, 14): utc("2025-01-17T20:30")}
    assert found[31] == {**found[17], date(2025, 1, 21): utc("2025-01-24T20:30"), date(2025, 1, 28): utc("2025-01-31T20:30")}


def test_all_six_reports_name_their_tables_and_files() -> None:
    """As on publicreporting.cftc.gov and under Historical Compressed on cftc.gov."""
    assert {name: (report.table, report.files(2024, 2024)[0][0]) for name, report in REPORTS.items()} == {
        "legacy_futures": ("6dca-aqww", "deacot2024.zip"),
        "legacy_combined": ("jun7-fc8e", "deahistfo2024.zip"),
        "disaggregated_futures": ("72hh-3qpy", "fut_disagg_txt_2024.zip"),
        "disaggregated_combined": ("kh3c-gbw2", "com_disagg_txt_2024.zip"),
        "tff_futures": ("gpe5-46if", "fut_fin_txt_2024.zip"),
        "tff_combined": ("yw9f-hn96", "com_fin_txt_2024.zip"),
    }


def _folder(path: Path, text: str) -> Path:
    with zipfile.ZipFile(path / "file.zip", "w") as archive:
        archive.writestr("annual.txt", text)
    entry = {"id": "1", "method": "GET", "host": FILES, "path": "/files/dea/history/deacot2024.zip", "query": {}, "status": 200}
    index = [{**entry, "content_type": "application/zip", "body_file": "file.zip", "recorded": "2024-07-19"}]
    (path / "index.json").write_text(json.dumps(index))
    return path
