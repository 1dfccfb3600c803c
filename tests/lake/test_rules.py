"""What is refused, what is stored and flagged, what only neighbours in time can tell. Numbers are by hand or as recorded."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.calendar import sessions
from config.tables import TABLES
from lake import Lake
from lake.flags import flag
from lake.quality import series_flags, split
from lake.rules import RULES, rules_for
from tests.lake.rows import BARS, MACRO, NOW, bar, bars, macro, vintage, without_recorded_at

DAY = date(2024, 1, 2)
OPTIONS, COT, ACTIONS = TABLES["option_quotes"], TABLES["cot_positions"], TABLES["corporate_actions"]


def _said(table: pa.Table, column: str = "symbol") -> list[tuple[str, str]]:
    return [(row[column], row["rule"]) for row in table.to_pylist()]


def _walk(symbol: str, closes: list[float], first: date = date(2023, 1, 3), **others: Any) -> list[dict[str, Any]]:
    """One bar a session, volume 100, 101, … so that no two are alike."""
    days = sessions(first, first + timedelta(days=2 * len(closes) + 20))[: len(closes)]
    return [
        bar(symbol, day.date(), close, volume=100.0 + n) | others for n, (day, close) in enumerate(zip(days, closes, strict=True))
    ]


def _action(symbol: str, ex_date: date, kind: str, value: float, source: str = "test") -> dict[str, Any]:
    known = datetime(ex_date.year, ex_date.month, ex_date.day, 13, 30, tzinfo=UTC)
    row = {"symbol": symbol, "ex_date": ex_date, "kind": kind, "source": source, "value": value, "available_at": known}
    return row | {"recorded_at": known, "ingest_id": "a", "new_symbol": None, "currency": "USD"}


def _actions(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ACTIONS.schema)


def test_a_publishers_own_history_is_flagged_where_any_other_vendor_is_refused() -> None:
    crossed = bar("VIX", DAY, 14.2, open=14.0, high=14.1, low=13.9)  # closed above its own high
    parted = split(bars([crossed | {"source": "cboe"}, crossed | {"source": "yahoo", "symbol": "^VIX"}]), BARS)
    assert parted.accepted["source"].to_pylist() == ["cboe"]
    assert _said(parted.flagged) == [("VIX", "high_below_price")]
    assert parted.flagged["reason"].to_pylist() == ["high 14.1 is below 14.2, the higher of open and close"]
    assert _said(parted.refused) == [("^VIX", "high_below_price")]


def test_cboes_recorded_history_is_kept_whole_and_its_disordered_rows_are_the_flagged_ones(shared_data: Path) -> None:
    path = shared_data / "volatility" / "vix_daily_1990_2026.csv.gz"
    rows, broken = [], set()
    with gzip.open(path, "rt") as file:
        for line in csv.DictReader(file):
            day = date.fromisoformat(line["DATE"])
            o, h, low, c = (float(line[name]) for name in ("OPEN", "HIGH", "LOW", "CLOSE"))
            if h < max(o, c, low) or low > min(o, c):
                broken.add(day)
            named = {"open": o, "high": h, "low": low, "volume": None, "source": "cboe", "calendar": "CBOE"}
            rows.append(bar("VIX", day, c) | named)
    assert len(broken) == 47  # counted by this loop: 47 of Cboe's own rows
    parted = split(bars(rows), BARS)
    assert (parted.accepted.num_rows, parted.refused.num_rows) == (len(rows), 0)
    assert set(parted.flagged["session"].to_pylist()) == broken
    elsewhere = split(bars([row | {"source": "yahoo"} for row in rows]), BARS)
    assert set(elsewhere.refused["session"].to_pylist()) == broken


def test_a_session_is_held_to_its_own_rows_calendar() -> None:
    fourth = date(2024, 7, 4)  # Independence Day: New York closed, London open
    rows = [bar("NY", fourth, 1.0), bar("LDN", fourth, 1.0, calendar="XLON"), bar("X", fourth, 1.0, calendar="NOWHERE")]
    old = bar("OLD", date(1950, 1, 7), 1.0)  # a Saturday on which New York traded, before our calendar begins
    parted = split(bars([*rows, old]), BARS)
    assert parted.accepted["symbol"].to_pylist() == ["LDN", "OLD"]
    assert _said(parted.refused) == [("NY", "not_a_session"), ("X", "not_a_session")]


@pytest.mark.parametrize(("last", "jump"), [(116.0, False), (117.5, True), (87.5, False), (85.0, True)])
def test_a_jump_is_ten_robust_deviations(last: float, jump: bool) -> None:
    # Thirty steps of ±1 %: the median absolute step is 0.00995 (ln 1.01), the deviation 1.4826 times that, 0.014753.
    closes = [100.0, 101.0] * 15
    step = math.log(last / closes[-1])
    assert (abs(step) > 10 * 1.4826 * math.log(1.01)) is jump
    flagged = series_flags(split(bars(_walk("A", [*closes, last])), BARS).accepted, BARS)
    assert [row["rule"] for row in flagged.to_pylist()] == (["price_jump"] if jump else [])
    if jump:
        assert f"{round(step, 4)}" in flagged["reason"][0].as_py()


def test_without_a_past_only_a_step_that_halves_or_more_is_a_jump() -> None:
    for last, jump in ((61.0, False), (60.0, True)):  # ln 0.61 = -0.494, ln 0.60 = -0.511
        flagged = series_flags(bars(_walk("A", [100.0, last])), BARS)
        assert bool(flagged.num_rows) is jump


def test_a_split_and_a_dividend_explain_the_step_they_make() -> None:
    # AAPL as traded around its 7:1: 645.57 on Friday 2014-06-06, 93.70 on the Monday; 93.70 x 7 = 655.90.
    aapl = [bar("AAPL", date(2014, 6, 6), 645.57), bar("AAPL", date(2014, 6, 9), 93.70)]
    # A special dividend of 30 on 60: 60 before, 31 after, and 31 + 30 = 61.
    paid = [bar("PAID", date(2014, 6, 6), 60.0), bar("PAID", date(2014, 6, 9), 31.0)]
    rows = bars([*aapl, *paid])
    assert _said(series_flags(rows, BARS)) == [("AAPL", "price_jump"), ("PAID", "price_jump")]
    told = _actions(
        _action("AAPL", date(2014, 6, 9), "split", 7.0),
        _action("AAPL", date(2014, 6, 9), "split", 7.0, source="other"),  # the same split from two sources is one
        _action("PAID", date(2014, 6, 8), "dividend", 30.0),  # a Sunday: it falls on the next bar
    )
    assert series_flags(rows, BARS, actions=told).num_rows == 0
    # Prices that a vendor has adjusted already do not fall with the split; a split that the prices do not show is a jump.
    adjusted = bars([row | {"basis": "vendor_adjusted", "close": 93.0} for row in aapl])
    assert series_flags(adjusted, BARS, actions=told).num_rows == 0
    unsplit = bars([aapl[0], aapl[1] | {"close": 655.9}])
    assert _said(series_flags(unsplit, BARS, actions=told)) == [("AAPL", "price_jump")]


def test_five_identical_sessions_are_stale_and_four_are_not() -> None:
    rows = _walk("A", [10.0, 11.0, 11.0, 11.0, 11.0, 11.0, 12.0], volume=7.0)
    flagged = series_flags(bars(rows), BARS)
    assert [(row["rule"], row["session"]) for row in flagged.to_pylist()] == [("stale_repeat", rows[5]["session"])]
    assert series_flags(bars(rows[:5]), BARS).num_rows == 0
    closes_only = [row | {"open": None, "high": None, "low": None, "volume": None} for row in rows]
    assert _said(series_flags(bars(closes_only), BARS)) == [("A", "stale_repeat")]


def test_no_volume_is_flagged_where_a_symbol_has_volume_and_not_of_an_index() -> None:
    stock = _walk("STOCK", [10.0, 10.1, 10.2])
    stock[1]["volume"] = 0.0
    index = _walk("INDEX", [10.0, 10.1, 10.2], volume=0.0)
    minutes = [row | {"interval": "1m"} for row in stock]
    assert _said(series_flags(bars([*stock, *index, *minutes]), BARS)) == [("STOCK", "zero_volume")]


def test_time_may_run_either_way_in_an_answer_but_not_back_and_forth() -> None:
    up = _walk("UP", [1.0, 2.0, 3.0])
    down = list(reversed(_walk("DOWN", [1.0, 2.0, 3.0])))
    back = [(row := _walk("BACK", [1.0, 2.0, 3.0]))[0], row[2], row[1]]
    by_day = [row for pair in zip(_walk("X", [1.0, 2.0]), _walk("Y", [1.0, 2.0]), strict=True) for row in pair]
    flagged = split(bars([*up, *down, *back, *by_day]), BARS).flagged
    assert [(row["symbol"], row["rule"], row["close"]) for row in flagged.to_pylist()] == [("BACK", "time_goes_backwards", 2.0)]


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({}, []),
        ({"implied_volatility": 6.0}, ["implied_volatility_out_of_range"]),
        ({"implied_volatility": -0.2}, ["implied_volatility_out_of_range"]),
        ({"implied_volatility": 0.0}, []),  # a note: only counted
        ({"delta": -0.4}, ["delta_out_of_range"]),
        ({"right": "P", "delta": -0.4}, []),
        ({"bid": 101.0, "ask": 102.0, "style": "european"}, ["bid_above_bound"]),  # a call for more than its underlying
        ({"strike": 80.0, "bid": 18.0, "ask": 19.0}, ["ask_below_intrinsic"]),  # exercised it gives 20
        ({"strike": 80.0, "bid": 18.0, "ask": 19.0, "style": "european"}, []),
        ({"strike": 80.0, "bid": 19.0, "ask": 19.6}, []),  # half a per cent of 100 is for the two instants
    ],
)
def test_odd_option_quotes_are_stored_and_flagged(change: dict[str, Any], rules: list[str]) -> None:
    quoted = datetime(2024, 1, 2, 21, tzinfo=UTC)
    texts = {field.name: "x" for field in OPTIONS.columns if pa.types.is_string(field.type)}
    numbers = {"strike": 100.0, "bid": 2.0, "ask": 2.2, "underlying_price": 100.0, "implied_volatility": 0.2, "delta": 0.5}
    days = {"session": DAY, "expiry": date(2024, 2, 16), "quote_time": quoted, "available_at": quoted, "ingest_id": "i"}
    row = texts | numbers | days | {"right": "C", "style": "american"} | change
    parted = split(pa.Table.from_pylist([row], schema=without_recorded_at(OPTIONS)), OPTIONS)
    assert (parted.accepted.num_rows, parted.flagged["rule"].to_pylist()) == (1, rules)


def test_a_forecast_is_no_observation_and_a_new_unit_is_flagged_once() -> None:
    forecast = vintage(date(2024, 3, 1), date(2024, 2, 13), 1.0) | {"available_at": datetime(2024, 3, 2, tzinfo=UTC)}
    assert split(macro([forecast]), MACRO).refused["rule"].to_pylist() == ["period_after_vintage"]
    rows = [vintage(date(2024, month, 1), date(2024, month + 1, 13), 300.0 + month) for month in range(1, 7)]
    for row in rows[3:]:
        row["unit"] = "Index 2017=100"
    flagged = series_flags(macro(rows), MACRO)
    assert [(row["rule"], row["period"]) for row in flagged.to_pylist()] == [("unit_change", date(2024, 4, 1))]


def _position(category: str, long: float, short: float, spreading: float | None, **others: Any) -> dict[str, Any]:
    out = datetime(2024, 8, 23, 19, 30, tzinfo=UTC)
    row = {"report": "legacy_futures", "market_code": "239747", "as_of_date": date(2024, 8, 20), "category": category}
    row |= {"source": "cftc", "market_name": "MICRO E-MINI RUSSELL 2000 INDX", "open_interest": 19404.0}
    return row | {"long": long, "short": short, "spreading": spreading, "available_at": out, "ingest_id": "c"} | others


def test_positions_add_up_to_the_open_interest_on_either_side() -> None:
    # As recorded (CFTC, 2024-08-20): long 4,773 + 258 + 3,060 + 11,313 = 19,404; short 10,232 + 258 + 290 + 8,624 = 19,404.
    whole = [
        _position("noncommercial", 4773, 10232, 258),
        _position("commercial", 3060, 290, None),
        _position("nonreportable", 11313, 8624, None),
    ]
    good = pa.Table.from_pylist(whole, schema=without_recorded_at(COT))
    assert (split(good, COT).refused.num_rows, split(good, COT).flagged.num_rows, series_flags(good, COT).num_rows) == (0, 0, 0)
    bad = pa.Table.from_pylist([whole[0], whole[1] | {"long": 3160.0}, whole[2]], schema=without_recorded_at(COT))
    [told] = series_flags(bad, COT).to_pylist()
    assert told["rule"] == "sides_do_not_add_up"
    assert told["reason"].startswith("long and spreading positions of all groups are 19504")
    more = pa.Table.from_pylist([_position("commercial", 20000, 1, None)], schema=without_recorded_at(COT))
    assert _said(split(more, COT).flagged, "category") == [("commercial", "position_above_open_interest")]


def test_the_same_flag_is_stored_once(lake: Lake) -> None:
    crossed = bar("VIX", DAY, 14.2, open=14.0, high=14.1, low=13.9, source="cboe")
    flagged = split(bars([crossed]), BARS).flagged
    assert flag(lake, BARS, flagged, recorded_at=NOW).new == 1
    revised = split(bars([crossed | {"high": 14.15, "ingest_id": "second"}]), BARS).flagged
    again = flag(lake, BARS, revised, recorded_at=NOW + timedelta(days=1))
    assert (again.new, again.revised, again.unchanged) == (0, 0, 1)
    [row] = lake.read_latest("flags").to_pylist()
    assert (row["table_name"], row["symbol"], row["source"], row["rule"]) == ("equity_bars", "VIX", "cboe", "high_below_price")
    assert row["event_time"] == datetime(2024, 1, 2, 21, tzinfo=UTC)


def test_every_rule_is_documented_and_its_severity_known() -> None:
    for spec in TABLES.values():
        for rule in rules_for(spec):
            assert rule.doc, rule.name
            assert {rule.severity, *rule.by_source.values()} <= {"refuse", "flag", "note"}
            # A flag names a row, which the vendor's source could have refused: only row rules refuse.
            assert rule.severity != "refuse" or rule.scope == "row"
    assert set(RULES) <= set(TABLES)


prices = st.sampled_from([None, -1.0, 0.0, 9.0, 10.0, 11.0, math.inf, math.nan])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(prices, prices, prices, prices, st.sampled_from([None, -1.0, 0.0, 5.0]), st.booleans()), max_size=12))
def test_a_batch_is_parted_as_a_plain_loop_parts_it(drawn: list[tuple[Any, ...]]) -> None:
    def is_bad(o: Any, h: Any, low: Any, c: Any, volume: Any, cboe: bool) -> bool:
        """The rules once more, in Python."""
        values = [value for value in (o, h, low, c, volume) if value is not None]
        if c is None or any(not math.isfinite(value) for value in values):
            return True
        if any(price is not None and price <= 0 for price in (o, h, low, c)) or (volume is not None and volume < 0):
            return True
        tops = [price for price in (o, c, low) if price is not None]
        floors = [price for price in (o, c, h) if price is not None]
        return not cboe and ((h is not None and h < max(tops)) or (low is not None and low > min(floors)))

    rows = [
        bar(f"S{n:02d}", DAY, c, open=o, high=h, low=low, volume=v, source="cboe" if cboe else "test")
        for n, (o, h, low, c, v, cboe) in enumerate(drawn)
    ]
    parted = split(bars(rows), BARS)
    good = [row["symbol"] for row, values in zip(rows, drawn, strict=True) if not is_bad(*values)]
    assert parted.accepted["symbol"].to_pylist() == good
    assert sorted(parted.refused["symbol"].to_pylist() + good) == [row["symbol"] for row in rows]
    assert set(parted.flagged["symbol"].to_pylist()) <= set(good)


def test_apples_real_history_has_its_four_splits_and_one_crash_as_jumps(shared_data: Path) -> None:
    rows = []
    with gzip.open(shared_data / "market" / "daily" / "AAPL.csv.gz", "rt") as file:
        for line in csv.DictReader(file):
            numbers = {name: float(line[name]) for name in ("open", "high", "low", "volume")}
            rows.append(bar("AAPL", date.fromisoformat(line["date"]), float(line["close"]), **numbers))
    accepted = split(bars(rows), BARS).accepted
    assert accepted.num_rows == len(rows)
    splits = {date(2000, 6, 21): 2.0, date(2005, 2, 28): 2.0, date(2014, 6, 9): 7.0, date(2020, 8, 31): 4.0}
    crash = date(2000, 9, 29)  # the day after Apple's profit warning: 53.50 to 25.75
    assert set(series_flags(accepted, BARS)["session"].to_pylist()) == {*splits, crash}
    told = _actions(*(_action("AAPL", day, "split", ratio) for day, ratio in splits.items()))
    assert series_flags(accepted, BARS, actions=told)["session"].to_pylist() == [crash]


def test_every_market_of_the_recorded_reports_adds_up(shared_data: Path) -> None:
    path = shared_data / "recordings" / "cftc" / "bodies" / "deacot2025_2025-01-31.zip"
    names = {"noncommercial": "Noncommercial", "commercial": "Commercial", "nonreportable": "Nonreportable"}
    rows = []
    with zipfile.ZipFile(path) as pack, pack.open(pack.namelist()[0]) as file:
        for line in csv.DictReader(io.TextIOWrapper(file, "latin-1")):
            cell = {column.strip(): value.strip() for column, value in line.items()}
            known = {"market_code": cell["CFTC Contract Market Code"], "open_interest": float(cell["Open Interest (All)"])}
            known |= {"as_of_date": date.fromisoformat(cell["As of Date in Form YYYY-MM-DD"])}
            known |= {"available_at": datetime(2025, 2, 7, 20, 30, tzinfo=UTC)}
            for category, named in names.items():
                long, short = (float(cell[f"{named} Positions-{side} (All)"]) for side in ("Long", "Short"))
                spread = float(cell["Noncommercial Positions-Spreading (All)"]) if category == "noncommercial" else None
                rows.append(_position(category, long, short, spread, **known))
    positions = split(pa.Table.from_pylist(rows, schema=without_recorded_at(COT)), COT)
    assert (positions.accepted.num_rows, positions.flagged.num_rows) == (3 * 1271, 0)
    assert series_flags(positions.accepted, COT).num_rows == 0
