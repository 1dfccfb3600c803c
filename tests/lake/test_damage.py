"""Damage to single files of a lake is called damage, with what to do about it, and never a passing fault or an empty lake."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from config.errors import IntegrityError
from lake import Lake
from lake.failures import first_line
from tests.lake.rows import NOW, bar, bars

D1, D2 = date(2024, 1, 2), date(2024, 1, 3)


@pytest.fixture
def stored(tmp_path: Path) -> Lake:
    """A lake with one published table of one file."""
    lake = Lake(tmp_path / "lake")
    lake.write("equity_bars", bars([bar("A", D1, 1.0), bar("A", D2, 2.0)]), recorded_at=NOW)
    lake.publish()
    return lake


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_a_damaged_log_entry_is_damage_and_its_message_has_no_backtrace(stored: Lake, place: int) -> None:
    entry = sorted((stored.root / "equity_bars" / "_delta_log").glob("*.json"))[place]
    flip(entry, entry.stat().st_size // 2)
    with pytest.raises(IntegrityError) as caught:
        stored.read_latest("equity_bars")
    assert "unknown>" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "backup" in str(caught.value.remedy)


def test_any_flipped_byte_of_a_data_file_is_found_by_verify(stored: Lake) -> None:
    file = next((stored.root / "equity_bars").glob("**/*.parquet"))
    content = file.read_bytes()
    silent = []
    for place in range(4, len(content), max(1, len(content) // 60)):
        flip(file, place)
        try:
            stored.snapshot().verify("equity_bars")
        except IntegrityError:
            pass
        else:  # statistics and other metadata carry no values
            silent.append(stored.snapshot().read("equity_bars").to_pylist())
        file.write_bytes(content)
    whole = stored.snapshot().read("equity_bars").to_pylist()
    assert all(rows == whole for rows in silent), "a byte changed a value and verify did not see it"


def test_a_lost_pointer_is_no_empty_lake_and_the_next_publication_makes_it_again(stored: Lake) -> None:
    before = stored.snapshot().id
    (stored.root / "snapshots" / "NEWEST").unlink()
    with pytest.raises(IntegrityError, match="NEWEST is gone"):
        stored.snapshot()
    assert stored.publish().id == before
    assert stored.snapshot().id == before


def test_a_lost_snapshot_file_is_damage_and_comes_back_by_the_remedy_given(stored: Lake) -> None:
    before = stored.snapshot().id
    (stored.root / "snapshots" / f"{before}.json").unlink()
    with pytest.raises(IntegrityError, match="is gone") as caught:
        stored.snapshot()
    assert "delete it and NEWEST" in str(caught.value.remedy)
    (stored.root / "snapshots" / "NEWEST").unlink()
    assert stored.publish().id == before


def test_a_rust_backtrace_is_cut_off() -> None:
    assert first_line(Exception("Generic error: bad\n   0: <unknown>\n   1: clone3 at x.c")) == "Generic error: bad"
