"""The bundled data: verified bytes, values as published elsewhere, and clocks that are never early."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from config.errors import IntegrityError, UnknownNameError
from config.settings import load_settings
from flows.sources import bundled, get_source
from flows.sources.base import Answer
from flows.sources.bundled import BUNDLED_INDICES, BUNDLED_SERIES, BUNDLED_STOCKS, BUNDLED_SYMBOLS

UNIVERSES = Path(bundled.__file__).resolve().parents[2] / "config" / "universes"


def bars(*symbols: str, start: date | None = None, end: date | None = None) -> list[Answer]:
    return list(get_source("bundled", "equity", load_settings()).bars(symbols, start, end))


def observations(series: str) -> list[dict[str, Any]]:
    (answer,) = get_source("bundled", "macro", load_settings()).observations([series], None, None)
    rows: list[dict[str, Any]] = answer.rows.to_pylist()
    return rows


def test_the_index_closes_are_those_the_exchanges_published() -> None:
    sp500, nasdaq = (pd.DataFrame(answer.rows.to_pylist()).set_index("session") for answer in bars("SP500", "NASDAQ"))
    # S&P 500: 1,527.46 at the top of 2000-03-24, 676.53 at the bottom of 2009-03-09, 2,506.85 at the end of 2018.
    for day, close in ((date(2000, 3, 24), 1527.46), (date(2009, 3, 9), 676.53), (date(2018, 12, 31), 2506.85)):
        assert sp500.loc[day, "close"] == pytest.approx(close, abs=0.005)
    # NASDAQ Composite: 5,048.62 on 2000-03-10.
    assert nasdaq.loc[date(2000, 3, 10), "close"] == pytest.approx(5048.62, abs=0.005)
    assert set(sp500["basis"]) == {"as_traded"}


def test_a_bar_is_known_at_its_sessions_close_half_days_and_summer_time_included() -> None:
    (answer,) = bars("SP500", start=date(2018, 7, 2), end=date(2018, 7, 5))
    known = {row["session"]: row["available_at"] for row in answer.rows.to_pylist()}
    assert known == {
        date(2018, 7, 2): datetime(2018, 7, 2, 20, tzinfo=UTC),
        date(2018, 7, 3): datetime(2018, 7, 3, 17, tzinfo=UTC),  # the day before Independence Day closes at 13:00 New York
        date(2018, 7, 5): datetime(2018, 7, 5, 20, tzinfo=UTC),
    }


def test_the_stocks_have_closes_and_nothing_invented() -> None:
    (answer,) = bars(*BUNDLED_STOCKS)
    assert answer.rows.num_rows == 20 * 8313
    for name in ("open", "high", "low", "volume"):
        assert answer.rows.column(name).null_count == answer.rows.num_rows
    assert answer.rows.column("close").null_count == 0
    assert answer.rows.column("basis").unique().to_pylist() == ["vendor_adjusted"]


def test_every_row_is_that_of_the_package_read_by_other_means() -> None:
    spec = importlib.util.find_spec("skfolio")
    assert spec is not None
    assert spec.origin is not None
    text = gzip.decompress((Path(spec.origin).parent / "datasets/data/sp500_dataset.csv.gz").read_bytes()).decode()
    lines = [line.split(",") for line in text.splitlines()]
    column = lines[0].index("XOM")
    (answer,) = bars("XOM")
    assert answer.rows.column("close").to_pylist() == [float(line[column]) for line in lines[1:]]
    assert [str(day) for day in answer.rows.column("session").to_pylist()] == [line[0] for line in lines[1:]]


def test_vix_is_known_at_a_quarter_past_four_and_a_holiday_is_a_stored_absence() -> None:
    rows = {row["period"]: row for row in observations("VIXCLS")}
    # Cboe's VIX closed at 13.76 on 2014-01-03 and at 40.74 on 2015-08-24.
    assert rows[date(2014, 1, 3)]["value"] == 13.76
    assert rows[date(2015, 8, 24)]["value"] == 40.74
    assert rows[date(2014, 1, 3)]["available_at"] == datetime(2014, 1, 3, 21, 15, tzinfo=UTC)
    assert rows[date(2015, 8, 24)]["available_at"] == datetime(2015, 8, 24, 20, 15, tzinfo=UTC)
    assert rows[date(2014, 1, 20)]["value"] is None  # Martin Luther King Day
    assert {row["vintage_kind"] for row in rows.values()} == {"assumed"}


@pytest.mark.parametrize(
    ("month", "released"),
    [
        # Release days of the Consumer Price Index, from the Bureau of Labor Statistics' own archive.
        (date(1964, 1, 1), date(1964, 3, 3)),
        (date(1995, 12, 1), date(1996, 2, 1)),  # after the shutdown
        (date(2013, 9, 1), date(2013, 10, 30)),  # after the shutdown
        (date(2015, 1, 1), date(2015, 2, 26)),
        (date(2016, 12, 1), date(2017, 1, 18)),
        (date(2018, 11, 1), date(2018, 12, 12)),
    ],
)
def test_core_cpi_is_never_known_before_its_release(month: date, released: date) -> None:
    row = next(row for row in observations("CPILFESL") if row["period"] == month)
    assert row["available_at"] >= datetime(released.year, released.month, released.day, 12, 30, tzinfo=UTC)
    assert (row["vintage"] - released).days <= 22


def test_core_cpi_is_never_known_before_any_release_in_the_recorded_calendar(shared_data: Path) -> None:
    recorded = shared_data / "recordings" / "fred" / "bodies" / "release-dates_10___2024-11-03.json"
    releases = sorted(pd.Timestamp(entry["date"]) for entry in json.loads(recorded.read_text())["release_dates"])
    late = 0
    for row in observations("CPILFESL"):
        month_end = pd.Timestamp(row["period"]) + pd.offsets.MonthEnd(0)
        first = next(release for release in releases if release > month_end)
        late += first > pd.Timestamp(row["vintage"])
    assert late == 0


def test_oil_waits_for_the_weekly_release_even_over_a_holiday() -> None:
    row = next(row for row in observations("DCOILWTICO") if row["period"] == date(2018, 12, 18))
    # A Tuesday. The next release up to a Monday after it came out on Thursday 27 December, after Christmas.
    assert row["vintage"] >= date(2018, 12, 27)


def test_moodys_yields_wait_for_the_first_monday_after_the_month_and_a_holiday_more() -> None:
    row = next(row for row in observations("BAA") if row["period"] == date(2009, 8, 1))
    # The first Monday of September 2009, the 7th, was Labor Day: the H.15 came out on Tuesday the 8th.
    assert row["vintage"] >= date(2009, 9, 8)
    assert row["value"] == 6.58  # Moody's Baa average of August 2009, as FRED lists it


def test_a_changed_byte_in_a_bundled_file_is_refused_with_both_hashes_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("arch")
    assert spec is not None
    assert spec.origin is not None
    real = Path(spec.origin).parent / "data/sp500/sp500.csv.gz"
    broken = tmp_path / "arch/data/sp500/sp500.csv.gz"
    broken.parent.mkdir(parents=True)
    shutil.copy(real, broken)
    data = bytearray(broken.read_bytes())
    data[5000] ^= 1
    broken.write_bytes(bytes(data))

    class Found:
        origin = str(tmp_path / "arch/__init__.py")

    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda name: Found())
    with pytest.raises(IntegrityError) as refused:
        bars("SP500")
    text = str(refused.value)
    assert str(broken) in text
    assert bundled.SP500.sha256 in text
    assert "pip install --force-reinstall --no-deps arch==8.0.0" in text
    broken.unlink()
    with pytest.raises(IntegrityError, match="No such file"):
        bars("SP500")
    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(IntegrityError, match="not installed"):
        bars("SP500")


def test_reading_imports_neither_package() -> None:
    code = (
        "import sys; from flows.sources import get_source; from config.settings import load_settings\n"
        "list(get_source('bundled', 'equity', load_settings()).bars(['AAPL'], None, None))\n"
        "print([name for name in ('arch', 'skfolio', 'sklearn', 'prefect') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_same_question_with_the_same_answer_is_the_same_ingest_and_another_is_another() -> None:
    first, again = bars("SP500")[0], bars("SP500")[0]
    assert first.ingest_id == again.ingest_id
    assert bars("SP500", start=date(2018, 1, 2))[0].ingest_id != first.ingest_id
    assert len(first.ingest_id) == 16


@pytest.mark.parametrize(("file", "names"), [("bundled_stocks", BUNDLED_STOCKS), ("bundled_indices", BUNDLED_INDICES)])
def test_the_universe_files_hold_the_symbols_there_are(file: str, names: tuple[str, ...]) -> None:
    path = UNIVERSES / f"{file}.csv"
    listed = pd.read_csv(path, comment="#")
    assert tuple(listed["symbol"]) == names
    since = listed.set_index("symbol")["from_date"]
    for answer in bars(*names):
        first = answer.rows.group_by("symbol").aggregate([("session", "min")]).to_pylist()
        assert {row["symbol"]: row["session_min"].isoformat() for row in first} == {name: since[name] for name in answer.names}
    assert "hindsight" in (UNIVERSES / "bundled_stocks.csv").read_text()


def test_everything_listed_is_there() -> None:
    assert {name for answer in bars(*BUNDLED_SYMBOLS) for name in answer.names} == set(BUNDLED_SYMBOLS)
    assert all(observations(series) for series in BUNDLED_SERIES)


def test_a_source_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(UnknownNameError, match=r"'bloomberg'[\s\S]*available: bundled, files"):
        get_source("bloomberg", "equity", load_settings())
    with pytest.raises(UnknownNameError, match=r"bundled gives equity and macro[\s\S]*available: .*modelled"):
        get_source("bundled", "options", load_settings())
    with pytest.raises(UnknownNameError, match="did you mean bundled"):
        get_source("bundeld", "equity", load_settings())
