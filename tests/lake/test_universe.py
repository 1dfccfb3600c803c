"""Members of a day are those of that day, the later delisted included; what was not known yet is not seen."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from config.errors import InputError, UnknownNameError
from lake import Lake, Snapshot
from lake.universe import Interval, effective_open, members, membership, store
from tests.lake.rows import NOW


def _interval(symbol: str, begins: date, ends: date | None, **others: object) -> Interval:
    known = {
        "joined_known_at": effective_open(begins, "XNYS"),
        "left_known_at": None if ends is None else effective_open(ends, "XNYS"),
        "available_kind": "assumed",
    }
    return Interval(universe="IDX", symbol=symbol, from_date=begins, to_date=ends, **(known | others))  # type: ignore[arg-type]


# Lehman Brothers left the S&P 500 on 2008-09-17, two days after it had filed; AAL left in 2024.
HISTORY = [
    _interval("AAPL", date(1999, 1, 4), None),
    _interval("LEH", date(1999, 1, 4), date(2008, 9, 17)),
    _interval("V", date(2009, 12, 21), None),
    _interval("AAL", date(2015, 3, 23), date(2024, 9, 23)),
]


def _imported(lake: Lake, *intervals: Interval, at: datetime = NOW) -> Snapshot:
    store(lake, intervals or HISTORY, source="files", ingest_id="u", recorded_at=at)
    return lake.publish()


def test_a_day_has_the_members_of_that_day_and_the_end_is_exclusive(lake: Lake) -> None:
    snapshot = _imported(lake)
    assert members(snapshot, "IDX", on=date(2008, 9, 16)) == ("AAPL", "LEH")
    assert members(snapshot, "IDX", on=date(2008, 9, 17)) == ("AAPL",)
    assert members(snapshot, "IDX", on=date(2024, 9, 20)) == ("AAL", "AAPL", "V")
    assert members(snapshot, "IDX", on=date(2026, 1, 2)) == ("AAPL", "V")


def test_a_backtest_in_the_past_trades_those_who_were_there_then(lake: Lake) -> None:
    days = pd.DatetimeIndex(["2008-09-12", "2008-09-15", "2008-09-16", "2008-09-17", "2009-12-18", "2009-12-21"])
    panel = membership(_imported(lake), "IDX", days)
    assert list(panel.columns) == ["AAPL", "LEH", "V"]  # not AAL, which was none in this span
    assert set(panel.dtypes) == {np.dtype(bool)}
    assert panel["LEH"].tolist() == [True, True, True, False, False, False]
    assert panel["V"].tolist() == [False, False, False, False, False, True]
    for day in days:  # the panel is `members`, asked at each close
        close = datetime(day.year, day.month, day.day, 21, tzinfo=UTC)
        assert tuple(panel.columns[panel.loc[day].to_numpy(dtype=bool)]) == members(
            lake.snapshot(), "IDX", on=day.date(), as_of=close
        )


def test_an_end_that_is_corrected_or_taken_back_later_was_the_old_one_until_then(lake: Lake) -> None:
    days = pd.bdate_range("2024-03-04", "2024-03-28", name="session")  # no holiday among them
    anchor = _interval("AAPL", date(1999, 1, 4), None)
    later = [datetime(2024, 3, day, 12, tzinfo=UTC) for day in (14, 20, 26)]  # before the open

    def told(ends: date | None) -> list[Interval]:
        return [anchor, _interval("XYZ", date(2024, 3, 4), ends)]

    _imported(lake, *told(date(2024, 3, 8)), at=datetime(2024, 3, 8, 22, tzinfo=UTC))
    _imported(lake, *told(date(2024, 3, 12)), at=later[0])  # it left two sessions later: nobody knew until the 14th
    _imported(lake, *told(None), at=later[1])  # it never left
    snapshot = _imported(lake, *told(date(2024, 3, 27)), at=later[2])
    inside = membership(snapshot, "IDX", days)["XYZ"]
    # In from the 4th, out from the 8th; the 14th changes no session after it; in again from the 20th, out from the 27th.
    assert [day.day for day in days[inside.to_numpy()]] == [4, 5, 6, 7, 20, 21, 22, 25, 26]
    for day in days:
        close = datetime(day.year, day.month, day.day, 21, tzinfo=UTC)
        assert inside[day] == ("XYZ" in members(snapshot, "IDX", on=day.date(), as_of=close))


def test_no_read_of_the_past_sees_an_end_coming(lake: Lake) -> None:
    snapshot = _imported(lake)
    before = datetime(2008, 9, 16, 20, tzinfo=UTC)
    assert members(snapshot, "IDX", on=date(2009, 1, 2), as_of=before) == ("AAPL", "LEH")  # as anyone would have said then
    known = snapshot.read("universe_membership", where={"symbol": "LEH"}, as_of=before).to_pylist()
    assert [(row["to_date"], row["left_known_at"]) for row in known] == [(None, None)]
    after = datetime(2008, 9, 17, 13, 30, tzinfo=UTC)  # the open, in summer time
    assert members(snapshot, "IDX", on=date(2009, 1, 2), as_of=after) == ("AAPL",)


def test_a_change_announced_late_counts_from_the_first_close_at_which_it_was_known(lake: Lake) -> None:
    told = datetime(2010, 6, 9, 3, 59, tzinfo=UTC)  # the evening of the 8th in New York
    late = _interval("X", date(2010, 6, 7), None, joined_known_at=told, available_kind="announced")
    base = _interval("A", date(2010, 1, 4), date(2010, 6, 8), left_known_at=told, available_kind="announced")
    panel = membership(_imported(lake, base, late), "IDX", pd.DatetimeIndex(["2010-06-07", "2010-06-08", "2010-06-09"]))
    assert panel["X"].tolist() == [False, False, True]
    assert panel["A"].tolist() == [True, True, False]


def test_the_same_history_twice_writes_nothing_and_a_new_end_is_one_revision(lake: Lake) -> None:
    first = _imported(lake)
    again = store(lake, HISTORY, source="files", ingest_id="u", recorded_at=NOW)
    assert (again.begun, again.ended, again.unchanged, again.corrected) == (0, 0, 4, 0)
    assert lake.publish().id == first.id
    later = datetime(2026, 3, 2, tzinfo=UTC)
    left = _interval("AAPL", date(1999, 1, 4), date(2026, 2, 2))
    done = store(lake, [left, *HISTORY[1:]], source="files", ingest_id="u2", recorded_at=later)
    assert (done.begun, done.ended, done.unchanged, done.corrected) == (0, 1, 3, 0)
    snapshot = lake.publish()
    assert members(snapshot, "IDX", on=date(2026, 2, 2)) == ("V",)
    assert members(snapshot, "IDX", on=date(2026, 1, 30)) == ("AAPL", "V")
    # A stored end that is another now is a correction: nobody knew it before.
    corrected = store(
        lake, [_interval("AAPL", date(1999, 1, 4), date(2026, 2, 9))], source="files", ingest_id="u3", recorded_at=later
    )
    assert corrected.corrected == 1
    snapshot = lake.publish()
    assert "AAPL" in members(snapshot, "IDX", on=date(2026, 2, 5))
    assert "AAPL" not in members(snapshot, "IDX", on=date(2026, 2, 5), as_of=datetime(2026, 2, 20, tzinfo=UTC))


def test_what_nobody_knows_is_an_error_and_no_empty_universe(lake: Lake) -> None:
    snapshot = _imported(lake)
    with pytest.raises(UnknownNameError, match="no universe is called 'IDC'") as told:
        members(snapshot, "IDC", on=date(2020, 1, 2))
    assert "did you mean IDX?" in str(told.value.remedy)
    with pytest.raises(InputError, match="the history of IDX begins on 1999-01-04"):
        members(snapshot, "IDX", on=date(1998, 12, 31))
    with pytest.raises(InputError, match="2008-09-13 is no session"):
        membership(snapshot, "IDX", pd.DatetimeIndex(["2008-09-13"]))


def test_a_change_on_a_weekend_is_known_at_mondays_open_and_before_the_calendar_at_the_days_end() -> None:
    assert effective_open(date(2024, 1, 6), "XNYS") == datetime(2024, 1, 8, 14, 30, tzinfo=UTC)
    assert effective_open(date(2024, 2, 29), "XNYS") == datetime(2024, 2, 29, 14, 30, tzinfo=UTC)
    assert effective_open(date(1957, 3, 4), "XNYS") == datetime(1957, 3, 4, 23, 59, tzinfo=UTC)
