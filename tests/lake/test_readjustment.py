"""History that a vendor adjusted, appended to after its next adjustment: it must not become a return that never was."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from config.errors import QualityError
from config.tables import table_spec
from lake import Lake
from lake.adjustment import adjusted_bars
from lake.quality import split
from lake.readjustment import keep_whole
from tests.features.lakes import at, bars, lake_in, put

DAYS = ("2018-06-26", "2018-06-27", "2018-06-28", "2018-06-29", "2018-07-02", "2018-07-03")
FIRST, LATER = at("2018-07-01"), at("2018-07-04")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Four bars, adjusted by the vendor as of the end of June."""
    lake = lake_in(tmp_path)
    put(lake, "equity_bars", adjusted(100, 102, 101, 104), recorded_at=FIRST)
    return lake


def adjusted(*values: float, since: int = 0, symbol: str = "AAA", basis: str = "vendor_adjusted") -> list[dict[str, Any]]:
    return bars(symbol, dict(zip(DAYS[since:], values, strict=False)), basis=basis)


def as_rows(rows: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([field for field in table_spec("equity_bars").schema if field.name != "recorded_at"])
    return pa.Table.from_pylist([{**row, "ingest_id": "later"} for row in rows], schema=schema)


def reasons(lake: Lake, rows: list[dict[str, Any]]) -> list[str]:
    """Why rows of an answer are set apart, one reason a row; every other row is accepted."""
    parts = keep_whole(lake, split(as_rows(rows), table_spec("equity_bars")))
    assert set(parts.refused["rule"].to_pylist()) <= {"adjustment_not_continued"}
    assert parts.accepted.num_rows + parts.refused.num_rows == len(rows)
    return [str(reason) for reason in parts.refused["reason"].to_pylist()]


def the_reason(lake: Lake, rows: list[dict[str, Any]]) -> str:
    """Why the whole answer is set apart."""
    found = reasons(lake, rows)
    assert len(found) == len(rows)
    (only,) = set(found)
    return only


def read(lake: Lake, as_of: datetime | None = None) -> list[float]:
    found: list[float] = adjusted_bars(lake.publish(), ["AAA"], as_of=as_of)["close"].to_pylist()
    return found


# On 2018-07-02 the share paid 5.2 out of 104, or split: the vendor multiplies its whole history with 0.95, or halves it.
@pytest.mark.parametrize("factor", [0.95, 0.5, 7.0])
def test_an_answer_of_another_adjustment_is_not_appended(lake: Lake, factor: float) -> None:
    answer = adjusted(101 * factor, 104 * factor, 99, 98, since=2)
    said = f"AAA of one: the vendor's adjustment has changed: .*2018-06-28.* are {factor:g} times"
    assert re.search(said, the_reason(lake, answer))


def test_an_answer_of_the_same_adjustment_is_appended_corrections_and_all(lake: Lake) -> None:
    answer = adjusted(101, 104.5, 99, 98, since=2)
    before = adjusted(104, since=3)[0]
    answer[1] |= {"open": before["open"], "low": before["low"], "high": 105.0}  # a close was corrected, not the whole bar moved
    assert reasons(lake, answer) == []
    put(lake, "equity_bars", answer, recorded_at=LATER)
    assert read(lake) == [100, 102, 101, 104.5, 99, 98]


def test_an_answer_that_holds_the_whole_history_takes_its_place(lake: Lake) -> None:
    answer = adjusted(95, 96.9, 95.95, 98.8, 99)
    assert reasons(lake, answer) == []
    put(lake, "equity_bars", answer, recorded_at=LATER)
    assert read(lake) == [95, 96.9, 95.95, 98.8, 99]


def test_an_answer_without_a_bar_in_common_is_not_appended(lake: Lake) -> None:
    assert "has no bar in common with the 4 stored ones" in the_reason(lake, adjusted(99, 98, since=4))


def test_an_older_piece_of_another_adjustment_is_not_put_before(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    put(lake, "equity_bars", adjusted(101, 104, 99, since=2))
    assert reasons(lake, adjusted(100, 102, 101)) == []
    assert "are 0.95 times" in the_reason(lake, adjusted(95, 96.9, 95.95))


def test_prices_as_traded_and_symbols_not_held_yet_are_not_looked_at(lake: Lake) -> None:
    assert reasons(lake, adjusted(50, since=3, symbol="BBB") + adjusted(50, since=3, symbol="CCC", basis="as_traded")) == []


def test_a_seam_that_got_into_the_lake_is_found_when_it_is_read(lake: Lake) -> None:
    put(lake, "equity_bars", adjusted(101 * 0.95, 104 * 0.95, 99, 98, since=2), recorded_at=LATER)
    # Unseen it would be a fall of 5.9 % on 2018-06-28, where the share fell by 1 %.
    with pytest.raises(QualityError, match=r"2018-06-28 on were adjusted anew .*\(0.95 times, seen on 2018-07-04\), the 2 before"):
        read(lake)
    assert read(lake, as_of=at("2018-07-03", "12:00")) == [100, 102, 101, 104, 99]  # what was known before: one adjustment


def test_a_seam_of_one_bar_is_found_by_the_whole_bar_having_moved(lake: Lake) -> None:
    whole = [{**row, **{name: row[name] * 0.95 for name in ("open", "high", "low", "close")}} for row in adjusted(104, since=3)]
    put(lake, "equity_bars", whole + adjusted(99, since=4), recorded_at=LATER)
    with pytest.raises(QualityError, match="bars from 2018-06-29 on were adjusted anew"):
        read(lake)


def test_a_seam_is_mended_by_the_whole_history(lake: Lake) -> None:
    put(lake, "equity_bars", adjusted(101 * 0.95, 104 * 0.95, 99, 98, since=2), recorded_at=LATER)
    put(lake, "equity_bars", adjusted(95, 96.9, 95.95, 98.8, 99, 98), recorded_at=at("2018-07-05"))
    assert read(lake) == [95, 96.9, 95.95, 98.8, 99, 98]


def test_a_single_corrected_close_is_a_revision_and_no_seam(lake: Lake) -> None:
    correction = adjusted(103, since=2)
    correction[0] |= {name: adjusted(101, since=2)[0][name] for name in ("open", "low")} | {"high": 104.0}
    put(lake, "equity_bars", correction, recorded_at=LATER)
    assert read(lake) == [100, 102, 103, 104]


def test_bars_that_do_not_continue_are_set_apart_and_the_others_are_not(lake: Lake) -> None:
    answer = as_rows(adjusted(52, 50, since=3) + adjusted(10, 11, symbol="BBB") + adjusted(8, since=5, basis="as_traded"))
    parts = keep_whole(lake, split(answer, table_spec("equity_bars")))
    assert parts.accepted["symbol"].to_pylist() == ["BBB", "BBB", "AAA"]
    assert parts.refused["rule"].to_pylist() == ["adjustment_not_continued"] * 2
    assert "are 0.5 times what they were" in parts.refused["reason"][0].as_py()
