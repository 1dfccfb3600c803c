"""Hashing, clocks, locks, the calendar, OCC symbols, the error tree."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import config.errors
from config.calendar import is_session, next_session, previous_session, session_closes, sessions
from config.clock import FixedClock
from config.errors import InputError, LockHeldError, QuantError, StorageError
from config.hashing import canonical_json, digest, sha256_file
from config.instruments import OptionContract, format_occ, parse_occ
from config.locks import exclusive
from config.tables import TABLES


def test_equal_values_have_equal_text_whatever_their_order() -> None:
    assert canonical_json({"b": 1, "a": (1, 2)}) == '{"a":[1,2],"b":1}'
    assert digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
    with pytest.raises(TypeError, match="has no canonical form"):
        canonical_json(object())


def test_a_files_hash_is_its_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1


def test_a_clock_takes_no_naive_time() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        FixedClock(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test
    new_york = timezone(timedelta(hours=-5))
    assert FixedClock(datetime(2026, 1, 1, 16, tzinfo=new_york)).now() == datetime(2026, 1, 1, 21, tzinfo=UTC)


def test_a_lock_is_held_by_one_process_and_let_go_at_its_death(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "demo.lock"
    hold = f"""
import time; from pathlib import Path; from config.locks import exclusive
with exclusive(Path({str(path)!r}), 'a demo'):
    print('held', flush=True); time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(LockHeldError, match=rf"another process \(pid {child.pid}\) is running a demo"), exclusive(path, "a demo"):
        pytest.fail("the lock was given twice")
    child.kill()
    child.wait()
    child.stdout.close()
    with exclusive(path, "a demo"):
        assert path.read_text() != ""


def test_an_unwritable_lock_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the lock file"), exclusive(tmp_path / "file" / "x.lock", "a demo"):
        pytest.fail("a lock inside a file")


def test_sessions_follow_the_exchange() -> None:
    # NYSE, December 2018: closed on the 5th (mourning for G. H. W. Bush) and the 25th, half day on the 24th.
    december = sessions("2018-12-01", "2018-12-31")
    assert len(december) == 19
    assert not is_session("2018-12-05")
    assert next_session("2018-12-24") == pd.Timestamp("2018-12-26")
    assert previous_session("2018-12-06") == pd.Timestamp("2018-12-04")
    closes = session_closes(pd.DatetimeIndex(["2018-12-24", "2018-12-26", "2018-07-02", "2018-12-25"]))
    assert list(closes[:3].strftime("%m-%d %H:%M")) == ["12-24 18:00", "12-26 21:00", "07-02 20:00"]
    assert closes[3] is pd.NaT


def test_an_unknown_calendar_is_named() -> None:
    with pytest.raises(InputError, match="no exchange calendar is called 'XXXX'"):
        sessions("2018-01-01", "2018-01-05", calendar="XXXX")


@given(
    root=st.from_regex(r"[A-Z]{1,6}", fullmatch=True),
    expiry=st.dates(date(2000, 1, 1), date(2060, 12, 31)),
    right=st.sampled_from(["C", "P"]),
    mills=st.integers(1, 10**8 - 1),
)
@settings(derandomize=True, deadline=None)
def test_an_occ_symbol_reads_back_as_written(root: str, expiry: date, right: str, mills: int) -> None:
    contract = OptionContract(root=root, expiry=expiry, right="C" if right == "C" else "P", strike=Decimal(mills) / 1000)
    assert parse_occ(format_occ(contract)) == contract


def test_the_occ_form_is_the_published_one() -> None:
    # The OCC's own example of the 21-character form, and its compact spelling.
    contract = OptionContract(root="SPX", expiry=date(2014, 11, 22), right="P", strike=Decimal("19.50"))
    assert parse_occ("SPX   141122P00019500") == contract
    assert format_occ(contract) == "SPX141122P00019500"


@pytest.mark.parametrize("wrong", ["", "AAPL", "AAPL141322C00650000", "AAPL140621X00650000", "TOOLONGX140621C00650000"])
def test_what_is_no_occ_symbol_is_refused(wrong: str) -> None:
    with pytest.raises(InputError):
        parse_occ(wrong)


def test_every_error_is_in_the_tree_and_every_code_is_one_of_the_documented() -> None:
    classes = [value for value in vars(config.errors).values() if isinstance(value, type) and issubclass(value, QuantError)]
    assert {cls.exit_code for cls in classes} == {1, 3, 4, 5}
    drawn = config.errors.__doc__ or ""
    assert [cls.__name__ for cls in classes if cls.__name__ not in drawn] == []
    assert sorted(config.errors.__all__) == list(config.errors.__all__)


def test_every_table_has_three_clocks_and_a_key_among_its_columns() -> None:
    for spec in TABLES.values():
        names = spec.schema.names
        assert names[-3:] == ["available_at", "recorded_at", "ingest_id"]
        assert set(spec.key) <= set(names)
        assert spec.event_time in names
