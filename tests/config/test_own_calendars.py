"""The calendar of Cboe's volatility indices: the stock exchange's, and since 2022 its holidays too."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest

from config.calendar import is_session, session_closes, sessions, time_zone
from config.errors import InputError


@pytest.mark.parametrize(
    "day",
    ["2004-06-11", "2022-05-30", "2022-11-24", "2023-01-16", "2025-01-09", "2025-06-19", "2026-07-03"],
)
def test_days_on_which_only_the_index_has_a_value(day: str) -> None:
    """Read off Cboe's history of VIX by eye."""
    assert is_session(day, "CBOE")
    assert not is_session(day, "XNYS")


@pytest.mark.parametrize(
    "day",
    ["2021-11-25", "2022-01-17", "2022-04-15", "2022-12-26", "2023-01-02", "2023-04-07", "2024-12-25", "2026-01-01", "2001-09-12"],
)
def test_days_without_a_value(day: str) -> None:
    """Thanksgiving 2021 came before the holiday sessions; since then Good Friday, Christmas and New Year, observed ones too."""
    assert not is_session(day, "CBOE")


def test_before_the_holiday_sessions_it_is_the_stock_exchanges_but_for_one_day() -> None:
    mine, stock = sessions("1990-01-02", "2022-05-27", "CBOE"), sessions("1990-01-02", "2022-05-27", "XNYS")
    assert mine.symmetric_difference(stock).tolist() == [pd.Timestamp("2004-06-11")]


def test_a_session_ends_at_a_quarter_past_four_in_new_york_on_half_days_too() -> None:
    days = pd.DatetimeIndex(["2024-07-03", "2024-11-29", "2024-12-02"])  # two half days of the stock exchange and a whole one
    assert session_closes(days, "CBOE").tolist() == [
        pd.Timestamp(datetime(2024, 7, 3, 20, 15, tzinfo=UTC)),
        pd.Timestamp(datetime(2024, 11, 29, 21, 15, tzinfo=UTC)),
        pd.Timestamp(datetime(2024, 12, 2, 21, 15, tzinfo=UTC)),
    ]
    assert str(time_zone("CBOE")) == "America/New_York"


def test_an_unknown_calendar_is_still_unknown() -> None:
    with pytest.raises(InputError, match="no exchange calendar is called 'CBOX'"):
        is_session("2024-07-03", "CBOX")
