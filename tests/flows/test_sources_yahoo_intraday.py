"""Yahoo's intraday bars: whole ones only, within the session, as traded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd

from tests.flows.yahoo_asking import AFTER, SPLIT, ask, bars_of, yahoo
from tests.replay.yahoo_service import Listing


def minutes_of(spans: Sequence[tuple[str, str]], start: float = 100.0) -> pd.DataFrame:
    """One-minute bars over spans of UTC, rising by a cent."""
    index = pd.DatetimeIndex(np.concatenate([pd.date_range(a, b, freq="min", inclusive="left") for a, b in spans])).tz_localize(
        "UTC"
    )
    close = start + 0.01 * np.arange(len(index))
    return pd.DataFrame({"open": close, "high": close + 0.005, "low": close - 0.005, "close": close, "volume": 10.0}, index=index)


def test_intraday_bars_end_at_their_end_and_the_running_one_is_left_out() -> None:
    daily = bars_of(["2025-07-02", "2025-07-03"], [100, 101])
    minutes = minutes_of([("2025-07-02 13:30", "2025-07-02 20:00"), ("2025-07-03 13:30", "2025-07-03 17:00")])
    with yahoo({"X": Listing(bars=daily, minutes=minutes)}, datetime(2025, 7, 3, 16, 47, tzinfo=UTC), interval="1h") as (
        source,
        service,
        _,
        clock,
    ):
        running, _, answers = ask(source, "X", date(2025, 7, 2))
        service.now = datetime(2025, 7, 3, 17, 5, tzinfo=UTC)
        clock.move_to(service.now)
        done, _, _ = ask(source, "X", date(2025, 7, 2))
    # 9:30 to 16:00 is six hours and a half; on the half day 9:30 to 13:00 three and a half.
    assert [len(running), len(done)] == [7 + 3, 7 + 4]
    assert done["event_time"].iloc[6] == pd.Timestamp("2025-07-02 20:00", tz="UTC")
    assert done["event_time"].iloc[-1] == pd.Timestamp("2025-07-03 17:00", tz="UTC")
    assert done["available_at"].tolist() == done["event_time"].tolist()
    expected = minutes.groupby(minutes.index.normalize()).volume.sum()
    assert done.groupby("session")["volume"].sum().tolist() == expected.tolist()
    assert not answers[0].refused
    assert set(done["interval"]) == {"1h"}


def test_intraday_bars_stop_for_lunch_and_those_outside_the_session_are_left_out() -> None:
    daily = bars_of(["2025-03-03", "2025-03-04"], [100, 101])
    # Hong Kong trades 9:30 to 12:00 and 13:00 to 16:00, which is 1:30 to 4:00 and 5:00 to 8:00 UTC.
    minutes = minutes_of([("2025-03-03 01:00", "2025-03-03 04:00"), ("2025-03-03 05:00", "2025-03-03 08:00")])
    listing = Listing(bars=daily, minutes=minutes, exchange="HKG", timezone="Asia/Hong_Kong", calendar="XHKG", currency="HKD")
    with yahoo({"X": listing}, datetime(2025, 3, 3, 23, tzinfo=UTC), interval="15m") as (source, _, _, _):
        bars, _, answers = ask(source, "X", date(2025, 3, 3))
    assert len(bars) == 10 + 12
    assert bars["event_time"].iloc[9] == pd.Timestamp("2025-03-03 04:00", tz="UTC")
    assert bars["event_time"].iloc[10] == pd.Timestamp("2025-03-03 05:15", tz="UTC")
    assert not answers[0].refused


def test_intraday_bars_before_a_split_are_as_traded() -> None:
    minutes = minutes_of([("2020-08-28 13:30", "2020-08-28 20:00")], start=499.0)
    later = minutes_of([("2020-08-31 13:30", "2020-08-31 20:00")], start=127.0)
    listing = Listing(bars=SPLIT.bars, splits=SPLIT.splits, minutes=pd.concat([minutes, later]))
    with yahoo({"X": listing}, AFTER, interval="5m") as (source, _, _, _):
        bars, _, _ = ask(source, "X", date(2020, 8, 28))
    assert bars["open"].iloc[:3].tolist() == [499.0, 499.05, 499.1]
    assert bars["open"].iloc[78] == 127.0
    assert bars["volume"].iloc[:2].tolist() == [50.0, 50.0]


def test_intraday_bars_that_are_not_adjusted_for_a_listed_split_are_refused() -> None:
    minutes = minutes_of([("2020-08-28 13:30", "2020-08-28 20:00")], start=499.0)
    later = minutes_of([("2020-08-31 13:30", "2020-08-31 20:00")], start=127.0)
    splits = SPLIT.splits
    listing = Listing(bars=SPLIT.bars, splits=splits, unapplied=list(splits), minutes=pd.concat([minutes, later]))
    with yahoo({"X": listing}, AFTER, interval="15m") as (source, _, _, _):
        bars, _, answers = ask(source, "X", date(2020, 8, 28))
    assert set(bars["session"]) == {date(2020, 8, 31)}
    assert [row.rule for row in answers[0].refused] == ["split_not_applied"] * 26
