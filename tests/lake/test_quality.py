"""Each rule refuses what it names, nothing else, and refused rows are kept once with the reason; gaps are counted by hand."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from config.errors import SchemaError
from config.tables import TABLES, feature_table
from lake import Lake
from lake.gaps import missing_sessions, update_gaps
from lake.quality import RULES, rules_for, split
from lake.quarantine import quarantine
from tests.lake.rows import BARS, MACRO, NOW, bar, bars, macro, vintage, without_recorded_at

DAY = date(2024, 1, 2)
OPTIONS = TABLES["option_quotes"]


def _verdicts(table: pa.Table) -> list[tuple[str, str]]:
    return [(row["rule"], row["reason"]) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("change", "rule", "reason"),
    [
        ({"close": None}, "close_missing", "the bar has no close"),
        ({"close": math.nan}, "not_finite", "close is nan"),
        ({"high": math.inf}, "not_finite", "high is inf"),
        ({"open": 0.0}, "price_not_positive", "open is 0.0"),
        ({"low": -1.0}, "price_not_positive", "low is -1.0"),
        ({"high": 9.0, "low": 10.0}, "high_below_low", "high 9.0 is below low 10.0"),
        ({"high": 9.5, "low": 9.0}, "high_below_price", "high 9.5 is below 10.0, the higher of open and close"),
        ({"high": 11.0, "low": 10.5}, "low_above_price", "low 10.5 is above 10.0, the lower of open and close"),
        ({"volume": -5.0}, "negative_value", "volume is -5.0"),
        ({"symbol": None}, "value_missing", "symbol is missing"),
        (
            {"available_at": datetime(2024, 1, 2, 20, tzinfo=UTC)},
            "known_before_it_happened",
            "event_time 2024-01-02 21:00:00+00 is after",
        ),
        ({"session": date(2024, 1, 6)}, "not_a_session", "2024-01-06 is no session of the calendar XNYS"),  # a Saturday
        ({"session": date(2024, 1, 1)}, "not_a_session", "2024-01-01 is no session of the calendar XNYS"),  # New Year's Day
    ],
)
def test_each_rule_refuses_its_row_and_no_other(change: dict[str, Any], rule: str, reason: str) -> None:
    good, bad = bar("GOOD", DAY, 10.0), bar("BAD", DAY, 10.0) | change
    parted = split(bars([good, bad]), BARS, calendar="XNYS")
    assert parted.accepted["symbol"].to_pylist() == ["GOOD"]
    assert parted.accepted.schema.equals(without_recorded_at(BARS))
    [(found, why)] = _verdicts(parted.refused)
    assert found == rule
    assert why.startswith(reason)


def test_a_source_of_closes_only_breaks_no_rule(lake: Lake) -> None:
    closes = bar("A", DAY, 10.0, open=None, high=None, low=None, volume=None)
    parted = split(bars([closes]), BARS, calendar="XNYS")
    assert parted.refused.num_rows == 0
    assert lake.write("equity_bars", parted.accepted, recorded_at=NOW).new == 1


def test_the_last_digits_of_an_adjusted_price_are_no_reason() -> None:
    rounded = bar("A", DAY, 10.0, high=10.0 * (1 - 1e-12), low=10.0 * (1 + 1e-12))
    assert split(bars([rounded]), BARS).refused.num_rows == 0


def test_rows_that_share_a_key() -> None:
    rows = [bar("A", DAY, 1.0), bar("B", DAY, 1.0), bar("A", DAY, 1.0), bar("B", DAY, 2.0), bar("C", DAY, 3.0), bar("C", DAY, -3.0)]
    parted = split(bars(rows), BARS)
    # A came twice alike: one stays. B's two values contradict each other: neither. C's other row was refused by itself.
    assert parted.accepted["symbol"].to_pylist() == ["A", "C"]
    assert sorted(rule for rule, _ in _verdicts(parted.refused)) == [
        "key_in_conflict",
        "key_in_conflict",
        "price_not_positive",
        "row_repeated",
    ]


def test_an_empty_batch_and_a_wrong_one() -> None:
    parted = split(bars([]), BARS, calendar="XNYS")
    assert (parted.accepted.num_rows, parted.refused.num_rows) == (0, 0)
    with pytest.raises(SchemaError, match="lacks the column close"):
        split(bars([bar("A", DAY, 1.0)]).drop(["close"]), BARS)


def _quote(**change: Any) -> pa.Table:
    numbers = {field.name: 1.0 for field in OPTIONS.columns if pa.types.is_floating(field.type)}
    texts = {field.name: "x" for field in OPTIONS.columns if pa.types.is_string(field.type)}
    quoted = datetime(2024, 1, 2, 21, tzinfo=UTC)
    days_ = {
        "session": DAY,
        "expiry": date(2024, 2, 16),
        "quote_time": quoted,
        "available_at": quoted,
        "ingest_id": "i",
        "right": "C",
    }
    return pa.Table.from_pylist([numbers | texts | days_ | change], schema=without_recorded_at(OPTIONS))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({}, None),
        ({"bid": 0.0, "delta": -0.3, "theta": -1.0}, None),
        ({"bid": 2.0, "ask": 1.0}, "bid_above_ask"),
        ({"bid": -0.1}, "negative_value"),
        ({"strike": 0.0}, "price_not_positive"),
        ({"expiry": date(2024, 1, 1)}, "quoted_after_expiry"),
        ({"right": "X"}, "unknown_right"),
        ({"delta": math.nan}, "not_finite"),
    ],
)
def test_option_quotes(change: dict[str, Any], rule: str | None) -> None:
    assert [found for found, _ in _verdicts(split(_quote(**change), OPTIONS).refused)] == ([] if rule is None else [rule])


def test_macro_values_may_be_negative_or_missing_but_not_known_before_their_period() -> None:
    jan = date(2024, 1, 1)
    rows = [vintage(jan, date(2024, 2, 13), -37.63), vintage(date(2023, 12, 1), date(2024, 2, 13), None)]
    early = vintage(date(2024, 3, 1), date(2024, 2, 13), 1.0)
    parted = split(macro([*rows, early]), MACRO)
    assert parted.accepted.num_rows == 2
    assert [rule for rule, _ in _verdicts(parted.refused)] == ["known_before_it_happened"]


def test_a_feature_may_be_warming_up_but_not_infinite() -> None:
    spec = feature_table("v", ("a",))
    columns = {"symbol": ["A", "B"], "session": [DAY] * 2, "panel_snapshot": ["p"] * 2, "a": [math.nan, math.inf]}
    parted = split(pa.table({**columns, "available_at": [NOW] * 2, "ingest_id": ["f"] * 2}), spec)
    assert parted.accepted["symbol"].to_pylist() == ["A"]
    assert _verdicts(parted.refused) == [("not_finite", "a is inf")]


def test_every_declared_rule_is_sql_over_its_tables_columns() -> None:
    assert set(RULES) <= set(TABLES)
    for spec in TABLES.values():
        empty = pa.Table.from_pylist([], schema=without_recorded_at(spec))
        one = pa.table([pa.nulls(1, field.type) for field in empty.schema], names=empty.schema.names)
        verdicts = _verdicts(split(one, spec).refused)
        assert verdicts[0][0] == "value_missing"  # every table demands its key
        assert len({rule.name for rule in rules_for(spec)}) >= 1


def test_a_refused_row_is_kept_once_as_it_came(lake: Lake) -> None:
    rows = bars([bar("A", DAY, -1.0), bar("B", DAY, math.nan)])
    refused = split(rows, BARS).refused
    first = quarantine(lake, BARS, refused, recorded_at=NOW)
    assert (first.table, first.new) == ("quarantine", 2)
    again = bars([row | {"ingest_id": "second", "available_at": NOW} for row in rows.to_pylist()])
    second = quarantine(lake, BARS, split(again, BARS).refused, recorded_at=NOW + timedelta(days=1))
    assert (second.new, second.revised, second.unchanged) == (0, 0, 2)
    kept = {row["symbol"]: row for row in lake.read_latest("quarantine").to_pylist()}
    assert (kept["A"]["rule"], kept["A"]["reason"], kept["A"]["refused_at"]) == ("price_not_positive", "open is -1.0", NOW)
    assert kept["A"]["table_name"] == "equity_bars"
    assert kept["A"]["ingest_id"] == "first"
    assert json.loads(kept["A"]["raw"])["close"] == -1.0
    assert json.loads(kept["B"]["raw"])["close"] == "nan"
    # Another value is another refused row.
    assert quarantine(lake, BARS, split(bars([bar("A", DAY, -2.0)]), BARS).refused, recorded_at=NOW).new == 1


def test_gaps_are_the_calendars_sessions_between_first_and_last_bar(lake: Lake) -> None:
    # 1 to 12 July 2024 by hand: the 4th was a holiday, the 6th and 7th a weekend; nine sessions.
    sessions = [date(2024, 7, day) for day in (1, 2, 3, 5, 8, 9, 10, 11, 12)]
    have_a = [day for day in sessions if day.day not in (3, 9)]
    rows = [bar("A", day, 1.0) for day in have_a] + [bar("B", day, 1.0) for day in sessions[2:5]]
    lake.write("equity_bars", bars(rows), recorded_at=NOW)
    found = missing_sessions(lake.read_latest("equity_bars"), "XNYS").to_pylist()
    assert [(row["symbol"], row["session"]) for row in found] == [("A", date(2024, 7, 3)), ("A", date(2024, 7, 9))]
    assert update_gaps(lake, calendar="XNYS", recorded_at=NOW, ingest_id="g").written.new == 2
    again = update_gaps(lake, calendar="XNYS", recorded_at=NOW + timedelta(days=1), ingest_id="g").written
    assert (again.new, again.revised, again.unchanged) == (0, 0, 2)
    lake.write("equity_bars", bars([bar("A", date(2024, 7, 3), 1.0)]), recorded_at=NOW)
    filled = update_gaps(lake, calendar="XNYS", recorded_at=NOW + timedelta(days=2), ingest_id="g", symbols=["A"]).written
    assert (filled.new, filled.revised, filled.unchanged) == (0, 1, 1)
    states = {row["session"].day: row["state"] for row in lake.read_latest("gaps").to_pylist()}
    assert states == {3: "filled", 9: "missing"}


def test_a_lake_without_bars_has_no_gaps(lake: Lake) -> None:
    assert update_gaps(lake, calendar="XNYS", recorded_at=NOW, ingest_id="g").written.new == 0
