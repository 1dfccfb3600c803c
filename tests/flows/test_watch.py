"""What is late is told once a table and session, by flow and by command, which ends with a code of its own."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from config.clock import FixedClock
from config.settings import Settings, load_settings
from flows.alerts import alerts_of
from flows.schedules import watch_data_flow
from lake import open_lake
from tests.flows.demo_home import quant
from tests.lake.rows import bar, bars

RECORDED = datetime(2024, 7, 2, 23, tzinfo=UTC)
TUESDAY = date(2024, 7, 2)
# Bars of Wednesday the 3rd, a half day, are due on Thursday the 4th (a holiday) at 01:00 UTC; those of Friday on Saturday at 04:00.
IN_TIME, LATE = datetime(2024, 7, 4, 0, 30, tzinfo=UTC), datetime(2024, 7, 4, 12, tzinfo=UTC)
SATURDAY = datetime(2024, 7, 6, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home whose newest bars of A and B are Tuesday's."""
    made = load_settings({"home": tmp_path / "home", "daily.datasets": ["equity"]})
    lake = open_lake(made)
    lake.write("equity_bars", bars([bar("A", TUESDAY, 1.0), bar("B", TUESDAY, 1.0)]), recorded_at=RECORDED)
    lake.publish()
    return made


def test_before_it_is_due_nothing_is_late_and_nobody_is_told(settings: Settings) -> None:
    watch = watch_data_flow(settings=settings, clock=FixedClock(IN_TIME))
    assert (watch.late, watch.told, alerts_of(settings)) == ((), (), ())


def test_a_late_table_is_told_once_a_session_not_once_a_name_or_a_look(settings: Settings) -> None:
    first = watch_data_flow(settings=settings, clock=FixedClock(LATE))
    (late,), (told,) = first.late, first.told
    assert (late.table, late.late, late.state) == ("equity_bars", True, "2 of 2 late")
    assert (told.alert.kind, told.alert.dataset, told.alert.subject) == ("late", "equity_bars", "")
    assert told.alert.message == late.message
    assert "expected 2024-07-03" in late.message
    # The 4th of July is a holiday: what is late then is still about the session of the 3rd.
    assert told.alert.day == "2024-07-03"
    again = watch_data_flow(settings=settings, clock=FixedClock(LATE))
    assert (again.late, again.told) == ((late,), ())
    # On Saturday Friday's bars are missing too; on Sunday that is nothing new.
    assert [one.alert.day for one in watch_data_flow(settings=settings, clock=FixedClock(SATURDAY)).told] == ["2024-07-05"]
    assert watch_data_flow(settings=settings, clock=FixedClock(datetime(2024, 7, 7, 20, tzinfo=UTC))).told == ()
    assert [one.alert.day for one in alerts_of(settings)] == ["2024-07-03", "2024-07-05"]


def test_a_daily_dataset_of_which_nothing_was_ever_stored_is_late(settings: Settings) -> None:
    more = settings.model_copy(update={"daily": settings.daily.model_copy(update={"datasets": ("equity", "cot")})})
    watch = watch_data_flow(settings=more, clock=FixedClock(IN_TIME))
    assert [(one.table, one.state) for one in watch.late] == [("cot_positions", "empty")]
    assert "quant ingest cot" in watch.told[0].alert.message


def test_the_commands_say_what_is_late_and_what_was_told(settings: Settings) -> None:
    home = settings.home_path
    first = quant(home, "data", "watch", "--json")
    assert first.code == 3
    # By the machine's clock, years later; macro is in the defaults' daily list, and nothing of it is stored.
    assert {one["table"] for one in first.document["late"]} == {"equity_bars", "macro_observations"}
    assert [name["name"] for one in first.document["late"] for name in one["names"]] == ["A", "B"]
    assert len(first.document["told"]) == 2
    again = quant(home, "data", "watch")
    assert again.code == 3
    assert again.out.count("equity_bars: ") == 1
    assert "told before" in again.out
    assert "WARNING" not in again.err
    book = quant(home, "data", "alerts", "--json")
    assert (book.code, book.document["alerts"]) == (0, 2)
    assert {one["dataset"] for one in book.document["data"]} == {"equity_bars", "macro_observations"}
    one = quant(home, "data", "alerts", "--limit", "1")
    assert "1 of 2 alerts" in one.out
    assert quant(home, "data", "alerts", "--kind", "failed", "--json").document == {"alerts": 0, "data": []}
    wrong = quant(home, "data", "alerts", "--kind", "loud")
    assert (wrong.code, "late, refused, failed" in wrong.err) == (1, True)
