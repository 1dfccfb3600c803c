"""The user's own files: columns found, lines named, nothing guessed, nothing lost."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from config.errors import DataError, InputError
from config.settings import load_settings
from flows.sources import get_source
from flows.sources.base import Answer

GOOD = "Date,Open,High,Low,Close,Volume\n2018-12-24,10,11,9,10.5,100\n2018-12-26,10.5,12,10,11.5,200\n"


def bars(path: Path, **options: object) -> Answer:
    source = get_source("files", "equity", load_settings(), path=path, **options)
    (answer,) = source.bars(source.available() or (), None, None)
    return answer


def macro(path: Path, **options: object) -> Answer:
    source = get_source("files", "macro", load_settings(), path=path, **options)
    (answer,) = source.observations(source.available() or (), None, None)
    return answer


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_daily_csv_is_read_with_its_symbol_from_its_name_and_known_at_each_sessions_close(tmp_path: Path) -> None:
    answer = bars(written(tmp_path, "BRK.B.csv", GOOD))
    first, second = answer.rows.to_pylist()
    assert answer.names == ("BRK.B",)
    # 24 December 2018 was a half day: the NYSE closed at 13:00 New York, 18:00 UTC; the 26th at 16:00, 21:00 UTC.
    assert first["available_at"] == first["event_time"] == datetime(2018, 12, 24, 18, tzinfo=UTC)
    assert second["available_at"] == datetime(2018, 12, 26, 21, tzinfo=UTC)
    assert [first[name] for name in ("open", "high", "low", "close", "volume")] == [10, 11, 9, 10.5, 100]
    assert first["session"] == date(2018, 12, 24)
    assert first["basis"] == "as_traded"
    assert answer.payload == GOOD.encode()


@pytest.mark.parametrize("kind", ["csv.gz", "parquet", "json", "jsonl", "semicolon"])
def test_the_same_rows_come_out_of_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    expected = bars(written(tmp_path, "X.csv", GOOD)).rows
    frame = pd.read_csv(tmp_path / "X.csv")
    path = tmp_path / f"X.{'txt' if kind == 'semicolon' else kind}"
    if kind == "csv.gz":
        path.write_bytes(gzip.compress(GOOD.encode()))
    elif kind == "parquet":
        frame.assign(Date=pd.to_datetime(frame["Date"])).to_parquet(path)
    elif kind == "json":
        path.write_text(json.dumps(frame.to_dict("records")))
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))
    else:
        path.write_text(GOOD.replace(",", ";"))
    assert bars(path).rows.equals(expected)


def test_a_cell_that_is_no_number_is_refused_with_line_column_and_value_and_the_rest_stays(tmp_path: Path) -> None:
    answer = bars(written(tmp_path, "X.csv", GOOD + "\n2018-12-27,11,12,10,n.v.,300\n2018-12-28,11,12,10,11,1\n"))
    (refused,) = answer.refused
    assert refused.rule == "wrong_type"
    assert "X.csv line 5" in refused.reason  # line 1 is the header, line 4 is blank
    assert "column Close" in refused.reason
    assert "'n.v.'" in refused.reason
    assert refused.raw["Close"] == "n.v."
    assert answer.rows.column("session").to_pylist() == [date(2018, 12, 24), date(2018, 12, 26), date(2018, 12, 28)]


def test_a_date_that_is_none_and_a_day_the_exchange_was_closed_are_refused(tmp_path: Path) -> None:
    answer = bars(written(tmp_path, "X.csv", GOOD + "2018-13-27,1,1,1,1,1\n2018-12-25,1,1,1,1,1\n"))
    assert [(row.rule, row.reason.split(":")[0]) for row in answer.refused] == [
        ("wrong_type", "X.csv line 4"),
        ("not_a_session", "X.csv line 5"),
    ]
    assert answer.rows.num_rows == 2


def test_an_equal_row_again_is_dropped_once_and_a_conflicting_one_takes_both_away(tmp_path: Path) -> None:
    answer = bars(written(tmp_path, "X.csv", GOOD + "2018-12-26,10.5,12,10,11.5,200\n2018-12-27,1,1,1,1,1\n2018-12-27,2,2,2,2,2\n"))
    assert [(row.rule, row.raw["line"]) for row in answer.refused] == [
        ("row_repeated", 4),
        ("key_in_conflict", 5),
        ("key_in_conflict", 6),
    ]
    assert "line 3" in answer.refused[0].reason
    assert answer.rows.column("session").to_pylist() == [date(2018, 12, 24), date(2018, 12, 26)]


def test_a_mapping_file_names_the_columns_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "prices.csv", "Tag;Kurs;Wert\n2018-12-24;10,5;X\n".replace("10,5", "10.5"))
    mapping = written(tmp_path, "mapping.yaml", "time: Tag\nclose: Kurs\nsymbol: Wert\n")
    (row,) = bars(path, mapping=mapping).rows.to_pylist()
    assert (row["symbol"], row["close"], row["open"]) == ("X", 10.5, None)
    with pytest.raises(InputError, match=r"'closing', which is no column of ours[\s\S]*did you mean close"):
        bars(path, mapping={"closing": "Kurs"})
    with pytest.raises(DataError, match=r"no column 'Schluss'[\s\S]*Tag, Kurs, Wert"):
        bars(path, mapping={"time": "Tag", "close": "Schluss"})


def test_what_a_file_lacks_as_a_whole_is_said_with_the_columns_it_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column for close[\s\S]*Date, Adj Close"):
        bars(written(tmp_path, "X.csv", "Date,Adj Close\n2018-12-24,1\n"))
    with pytest.raises(DataError, match=r"X.csv line 2, column Date: '12/24/2018'[\s\S]*date_format"):
        bars(written(tmp_path, "X.csv", "Date,Close\n12/24/2018,1\n"))
    with pytest.raises(DataError, match="holds no rows"):
        bars(written(tmp_path, "X.csv", "Date,Close\n"))
    with pytest.raises(DataError, match="line 3"):
        bars(written(tmp_path, "X.csv", "Date,Close\n2018-12-24,1\n2018-12-26,1,2,3\n"))
    with pytest.raises(DataError, match="line 2: not valid JSON"):
        bars(written(tmp_path, "X.jsonl", '{"date": "2018-12-24", "close": 1}\n{"date": \n'))
    (tmp_path / "X.csv.gz").write_bytes(gzip.compress(GOOD.encode())[:40])
    with pytest.raises(DataError, match="cannot be read"):
        bars(tmp_path / "X.csv.gz")
    (tmp_path / "X.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(DataError, match="cannot be read"):
        bars(tmp_path / "X.parquet")
    with pytest.raises(InputError, match="no file or folder"):
        bars(tmp_path / "none.csv")


def test_a_stated_date_format_is_obeyed(tmp_path: Path) -> None:
    answer = bars(written(tmp_path, "X.csv", "Date,Close\n12/24/2018,1\n12/26/2018,2\n"), date_format="%m/%d/%Y")
    assert answer.rows.column("session").to_pylist() == [date(2018, 12, 24), date(2018, 12, 26)]


def test_intraday_times_need_a_zone_and_an_interval_and_a_bar_is_known_when_it_is_complete(tmp_path: Path) -> None:
    path = written(tmp_path, "X.csv", "timestamp,close\n2018-12-26 09:30:00,1\n2018-12-26 09:35:00,2\n")
    with pytest.raises(InputError, match="without a time zone"):
        bars(path, interval="5m")
    with pytest.raises(InputError, match="length of a bar"):
        bars(path, timezone="America/New_York")
    rows = bars(path, interval="5m", timezone="America/New_York").rows.to_pylist()
    # 09:30 New York is 14:30 UTC in winter; the bar that starts then is known at 14:35.
    assert rows[0]["event_time"] == datetime(2018, 12, 26, 14, 35, tzinfo=UTC)
    assert (rows[0]["interval"], rows[0]["session"]) == ("5m", date(2018, 12, 26))
    ended = bars(path, interval="5m", timezone="America/New_York", bar_time="end").rows.to_pylist()
    assert ended[0]["event_time"] == datetime(2018, 12, 26, 14, 30, tzinfo=UTC)


def test_midnight_with_an_offset_is_that_day_there(tmp_path: Path) -> None:
    path = written(tmp_path, "7203.T.csv", "date,close\n2019-11-26 00:00:00+09:00,7640\n")
    (row,) = bars(path, calendar="XTKS", currency="JPY").rows.to_pylist()
    assert row["session"] == date(2019, 11, 26)
    assert row["available_at"] == datetime(2019, 11, 26, 6, tzinfo=UTC)  # Tokyo closed at 15:00 then, UTC+9
    assert row["currency"] == "JPY"


def test_some_times_with_an_offset_and_some_without_are_refused_as_a_whole(tmp_path: Path) -> None:
    path = written(tmp_path, "X.csv", "date,close\n2018-12-24T10:00:00Z,1\n2018-12-24T11:00:00,1\n")
    with pytest.raises(DataError, match=r"line 3.*no time zone"):
        bars(path, interval="1h")


def test_a_folder_gives_one_answer_a_file_and_only_for_the_symbols_asked(tmp_path: Path) -> None:
    written(tmp_path, "A.csv", GOOD)
    written(tmp_path, "B.csv", GOOD)
    source = get_source("files", "equity", load_settings(), path=tmp_path)
    assert source.available() == ("A", "B")
    assert [answer.names for answer in source.bars(["B"], None, None)] == [("B",)]
    with pytest.raises(InputError, match="2 files"):
        get_source("files", "equity", load_settings(), path=tmp_path, symbol="A")


def test_the_window_is_both_ends_included_and_part_of_the_ingests_name(tmp_path: Path) -> None:
    source = get_source("files", "equity", load_settings(), path=written(tmp_path, "X.csv", GOOD))
    (all_of_it,) = source.bars(["X"], None, None)
    (one_day,) = source.bars(["X"], date(2018, 12, 26), date(2018, 12, 26))
    assert one_day.rows.column("session").to_pylist() == [date(2018, 12, 26)]
    assert one_day.ingest_id != all_of_it.ingest_id
    (again,) = get_source("files", "equity", load_settings(), path=tmp_path / "X.csv").bars(["X"], None, None)
    assert again.ingest_id == all_of_it.ingest_id


def test_a_macro_file_needs_a_stated_lag_when_it_says_nothing_about_publication(tmp_path: Path) -> None:
    path = written(tmp_path, "RATE.csv", "date,value\n2018-11-01,2.5\n2018-12-01,.\n")
    with pytest.raises(InputError, match="publication_lag_days"):
        macro(path)
    answer = macro(path, publication_lag_days=45, unit="per cent")
    first, second = answer.rows.to_pylist()
    # 1 November plus 45 days is 16 December; the end of that day in New York is 04:59 UTC of the 17th.
    assert first["available_at"] == datetime(2018, 12, 17, 4, 59, tzinfo=UTC)
    assert (first["vintage"], first["vintage_kind"], first["series"]) == (date(2018, 12, 16), "assumed", "RATE")
    assert second["value"] is None


def test_a_macro_files_own_vintages_are_kept_and_a_lag_beside_them_is_refused(tmp_path: Path) -> None:
    text = "series_id,date,realtime_start,value\nGDP,2018-07-01,2018-10-26,100\nGDP,2018-07-01,2018-11-28,101\n"
    path = written(tmp_path, "m.csv", text)
    rows = macro(path).rows.to_pylist()
    assert [(row["vintage"], row["value"], row["vintage_kind"]) for row in rows] == [
        (date(2018, 10, 26), 100.0, "published"),
        (date(2018, 11, 28), 101.0, "published"),
    ]
    assert rows[0]["available_at"] == datetime(2018, 10, 27, 3, 59, tzinfo=UTC)
    with pytest.raises(InputError, match="contradicts"):
        macro(path, publication_lag_days=30)


def test_a_macro_files_moments_of_publication_are_kept_to_the_second(tmp_path: Path) -> None:
    path = written(tmp_path, "CPI.csv", "period,value,available_at\n2018-11-01,259.481,2018-12-12T13:30:00Z\n")
    (row,) = macro(path).rows.to_pylist()
    assert row["available_at"] == datetime(2018, 12, 12, 13, 30, tzinfo=UTC)
    naive = written(tmp_path, "NAIVE.csv", "period,value,available_at\n2018-11-01,259.481,2018-12-12T13:30:00\n")
    with pytest.raises(InputError, match="need a time zone"):
        macro(naive)


def test_an_option_that_a_source_has_not_and_one_that_it_needs_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no option 'basi'[\s\S]*did you mean basis"):
        get_source("files", "equity", load_settings(), path=tmp_path, basi="as_traded")
    with pytest.raises(InputError, match="needs path"):
        get_source("files", "equity", load_settings())


# exchange_calendars builds the Hong Kong calendar with an attribute that pandas 3.1 deprecates.
@pytest.mark.filterwarnings("ignore:DatetimeIndex.weekday is deprecated")
def test_real_recorded_files_are_read_or_refused_for_what_is_wrong_with_them(shared_data: Path) -> None:
    bodies = shared_data / "recordings" / "localfiles" / "bodies"
    hong_kong = bars(bodies / "9988.HK_D1.csv.csv", symbol="9988.HK", calendar="XHKG", currency="HKD", basis="vendor_adjusted")
    expected = pd.read_csv(bodies / "9988.HK_D1.csv.csv")
    assert hong_kong.rows.num_rows + len(hong_kong.refused) == len(expected)
    assert hong_kong.rows.column("close")[0].as_py() == expected["close"][0]
    investing = bars(bodies / "TSLA_HistoricalData_investing.csv.csv", symbol="TSLA", date_format="%m/%d/%Y")
    assert {row.rule for row in investing.refused} == {"wrong_type"}  # "93.93M" is no number
    assert "Vol." in investing.refused[0].reason


def test_a_folder_with_a_broken_file_is_broken_each_time_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text("Date,Close\n2018-12-24,10\n")
    (tmp_path / "B.csv").write_text("nothing,of,use\n1,2,3\n")
    source = get_source("files", "equity", load_settings(), path=tmp_path)
    for _ in range(2):  # the part that was read before the failure is never taken for the whole
        with pytest.raises((DataError, InputError), match="B.csv"):
            source.available()
