"""What comes in at the edge: rows that are no bars are refused one by one with place, column and value; the rest comes through."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from config.errors import DataError
from flows.sources.edge import checked
from flows.sources.shape import bar_rows, plain_row

DAYS = pd.to_datetime(["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"])


def _frame(**columns: object) -> pd.DataFrame:
    given = {"symbol": ["A", "B", "C", "D"], "session": DAYS, "close": [1.0, 2.0, 3.0, 4.0]}
    return pd.DataFrame(given | columns, index=[12, 13, 14, 14])  # a label may come twice


def test_rows_that_are_no_bars_are_refused_one_by_one() -> None:
    frame = _frame(close=[1.0, "N/A", 3.0, Decimal("4.5")], symbol=["A", "B", " ", "D"], volume=["7", None, 1, 2])
    rows, refused = bar_rows(
        frame, source="test", basis="as_traded", currency="USD", calendar="XNYS", describe=lambda label: f"prices.csv line {label}"
    )
    assert rows["symbol"].to_pylist() == ["A", "D"]
    assert (rows["close"].to_pylist(), rows["volume"].to_pylist()) == ([1.0, 4.5], [7.0, 2.0])
    assert [(row.symbol, row.rule, row.reason) for row in refused] == [
        ("B", "wrong_type", "prices.csv line 13: column close: 'N/A' cannot be read"),
        (None, "value_missing", "prices.csv line 14: column symbol is empty"),
    ]
    assert refused[0].raw["close"] == "N/A"  # as it came


def test_a_row_without_a_session_is_refused_and_its_neighbours_keep_their_currency_and_moment() -> None:
    frame = _frame(session=[DAYS[0], pd.NaT, DAYS[2], DAYS[3]]).set_axis([1, 2, 3, 4])
    moments = pd.Series(pd.to_datetime(DAYS + pd.Timedelta(hours=15), utc=True), index=frame.index)
    rows, refused = bar_rows(
        frame,
        source="test",
        basis="as_traded",
        currency=pd.Series(["USD", "EUR", "GBP", "JPY"], index=frame.index),
        calendar="XNYS",
        interval="1h",
        complete_at=moments,
    )
    assert [(row.rule, row.reason) for row in refused] == [("value_missing", "row 2: column session is empty")]
    assert rows["currency"].to_pylist() == ["USD", "GBP", "JPY"]
    assert [moment.day for moment in rows["event_time"].to_pylist()] == [2, 4, 5]


def test_an_absent_price_is_no_wrong_one() -> None:
    good, kept, refused = checked(_frame(open=[None, 1, 2, np.nan]), describe=str, plain=plain_row)
    assert (kept.all(), refused) == (True, ())
    assert good["open"].isna().tolist() == [True, False, False, True]
    assert list(good.index) == [12, 13, 14, 14]


def test_a_frame_that_is_another_thing_altogether_is_an_error() -> None:
    with pytest.raises(DataError, match="session"):
        checked(_frame().drop(columns="session"), describe=str, plain=plain_row)
    with pytest.raises(DataError, match="no dates"):
        checked(_frame(session=["2024-01-02"] * 4), describe=str, plain=plain_row)


def test_reading_bars_leaves_pyarrows_time_zones_alone() -> None:
    # Importing pandera 0.35 makes pyarrow take New York's wall clock for UTC; nothing here may import it.
    bar_rows(_frame(), source="test", basis="as_traded", currency="USD", calendar="XNYS")
    assert "pandera" not in sys.modules
    close = datetime(2024, 1, 2, 16, 0, tzinfo=ZoneInfo("America/New_York"))
    assert pa.array([close], pa.timestamp("us", tz="UTC")).to_pylist() == [datetime(2024, 1, 2, 21, 0, tzinfo=UTC)]
