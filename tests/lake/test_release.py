"""A refused row is released as it came, once, with who and why; what is no row of its table says so; nothing is refused twice."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from config.errors import InputError, UnknownNameError
from lake import Lake
from lake.quality import Split, split
from lake.quarantine import find, plan, quarantine, readmit, release
from tests.lake.rows import BARS, NOW, bar, bars

DAY = date(2024, 1, 2)
LATER = NOW + timedelta(days=3)
CROSSED = bar("A", DAY, 10.0, high=9.5, low=9.0)


def _refuse(lake: Lake, *rows: dict[str, Any], at: datetime = NOW) -> Split:
    parts = readmit(lake, BARS, split(bars(rows), BARS))
    if parts.refused.num_rows:
        quarantine(lake, BARS, parts.refused, recorded_at=at)
    return parts


def test_a_released_row_is_stored_as_it_came_and_let_through_from_then_on(lake: Lake) -> None:
    _refuse(lake, CROSSED)
    [planned] = plan(lake, find(lake, rule="high_below_price"))
    assert (planned.effect, planned.why) == ("new", None)
    assert lake.read_latest("equity_bars").num_rows == 0  # a plan writes nothing
    written, released = release(lake, [planned], by="ada", reason="the exchange confirmed it", recorded_at=LATER)
    assert (written["equity_bars"].new, released) == (1, 1)
    [stored] = lake.read_latest("equity_bars").to_pylist()
    assert {name: stored[name] for name in CROSSED} == CROSSED  # with the clock and the ingest it came with
    [kept] = lake.read_latest("quarantine").to_pylist()
    assert (kept["state"], kept["released_by"], kept["release_reason"]) == ("released", "ada", "the exchange confirmed it")
    assert (kept["released_at"], kept["refused_at"]) == (LATER, NOW)
    # The same row in a later answer is accepted; another value of the same day is refused again.
    again = _refuse(lake, CROSSED | {"ingest_id": "later"}, at=LATER)
    assert (again.accepted.num_rows, again.refused.num_rows) == (1, 0)
    assert lake.write("equity_bars", again.accepted, recorded_at=LATER).unchanged == 1
    assert _refuse(lake, CROSSED | {"high": 9.4}, at=LATER).refused.num_rows == 1
    assert sorted(row["state"] for row in lake.read_latest("quarantine").to_pylist()) == ["held", "released"]


def test_a_release_never_flips_back_to_held(lake: Lake) -> None:
    parts = _refuse(lake, CROSSED)
    release(lake, plan(lake, find(lake)), by="ada", reason="right", recorded_at=LATER)
    again = quarantine(lake, BARS, parts.refused, recorded_at=LATER + timedelta(days=1))  # by somebody who did not ask `readmit`
    assert (again.new, again.revised) == (0, 0)
    assert [row["state"] for row in lake.read_latest("quarantine").to_pylist()] == ["released"]
    [planned] = plan(lake, find(lake, state="released"))
    assert (planned.effect, planned.row) == ("cannot", None)
    assert "released at" in str(planned.why)


def test_what_a_release_would_do_is_said_before(lake: Lake) -> None:
    good = bar("A", DAY, 10.0)
    lake.write("equity_bars", bars([good]), recorded_at=NOW)
    _refuse(lake, CROSSED)
    [planned] = plan(lake, find(lake))
    assert planned.effect == "revises"
    release(lake, [planned], by="ada", reason="right", recorded_at=LATER)
    assert lake.read_latest("equity_bars")["high"].to_pylist() == [9.5]
    # What was known before the release is what was stored before.
    assert lake.read_latest("equity_bars", as_of=LATER - timedelta(seconds=1))["high"].to_pylist() == [10.0]


def test_killed_between_its_two_writes_a_release_is_finished_by_the_next(lake: Lake) -> None:
    _refuse(lake, CROSSED)
    lake.write("equity_bars", bars([CROSSED]), recorded_at=LATER)  # the first write happened, the second did not
    [planned] = plan(lake, find(lake))
    assert planned.effect == "already stored"
    written, released = release(lake, [planned], by="ada", reason="right", recorded_at=LATER)
    assert (written["equity_bars"].unchanged, released) == (1, 1)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"symbol": None}, "symbol is missing, and every row of equity_bars has one"),
        ({"close": math.nan}, "close is 'nan', which is no double"),
        ({"currency": None}, "currency is missing"),
    ],
)
def test_what_cannot_be_a_row_of_its_table_says_so(lake: Lake, row: dict[str, Any], why: str) -> None:
    _refuse(lake, bar("A", DAY, 10.0) | row)
    [planned] = plan(lake, find(lake))
    assert planned.effect == "cannot"
    assert str(planned.why).startswith(why)
    assert release(lake, [planned], by="ada", reason="right", recorded_at=LATER) == ({}, 0)
    assert [one["state"] for one in find(lake)] == ["held"]


def test_a_line_that_was_never_read_cannot_be_put_in(lake: Lake) -> None:
    raw = json.dumps({"file": "prices.csv", "line": 7, "close": "ten"})
    row = {"row_id": "ab" * 32, "state": "held", "refused_at": NOW, "table_name": "equity_bars", "symbol": "A"}
    row |= {"rule": "wrong_type", "reason": "x", "raw": raw, "available_at": NOW, "ingest_id": "i"}
    row |= {"released_at": None, "released_by": None, "release_reason": None}
    [planned] = plan(lake, [row])
    assert planned.effect == "cannot"
    assert "correct it at its source" in str(planned.why)


def test_two_held_rows_of_one_key_are_not_released_together(lake: Lake) -> None:
    conflict = [bar("A", DAY, 1.0), bar("A", DAY, 2.0)]
    _refuse(lake, *conflict)
    planned = plan(lake, find(lake, rule="key_in_conflict"))
    assert sorted(one.effect for one in planned) == ["cannot", "new"]
    release(lake, planned, by="ada", reason="the first is right", recorded_at=LATER)
    chosen = lake.read_latest("equity_bars")["close"].to_pylist()
    # Both come again: the released one passes, the other is still refused, and the batch has one row of the key.
    again = _refuse(lake, *conflict, at=LATER)
    assert again.accepted["close"].to_pylist() == chosen
    assert again.refused.num_rows == 1


def test_rows_are_found_by_the_beginning_of_their_id_and_a_release_has_a_reason(lake: Lake) -> None:
    _refuse(lake, CROSSED, bar("B", DAY, -1.0))
    row_id = find(lake, symbol="B")[0]["row_id"]
    assert [row["symbol"] for row in find(lake, [row_id[:10]])] == ["B"]
    with pytest.raises(UnknownNameError, match="no held row of quarantine is called 'zz'"):
        find(lake, ["zz"])
    with pytest.raises(InputError, match="by whom and why"):
        release(lake, plan(lake, find(lake)), by="ada", reason=" ", recorded_at=datetime(2024, 3, 2, tzinfo=UTC))
