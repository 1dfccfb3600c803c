"""The ledger counts each configuration once, whoever records it, and survives being killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import IntegrityError, QualityError, StorageError
from config.settings import Settings, load_settings
from tracking.ledger import Trial, TrialLedger

AT = datetime(2026, 1, 5, 21, 0, tzinfo=UTC)
SESSIONS = pd.DatetimeIndex(["2020-01-02", "2020-01-03", "2020-01-06"], name="session")


def trial(fast: int, *, sharpe: float = 0.05, returns: pd.Series | None = None) -> Trial:
    return Trial(
        params={"fast": fast}, spec_digest=f"spec{fast}", sharpe_per_session=sharpe, total_return=0.1, trades=3, returns=returns
    )


def record(
    ledger: TrialLedger, *trials: Trial, family: str = "sma", symbols: tuple[str, ...] = ("A",), snapshot: str = "s1"
) -> int:
    return ledger.record_many(
        family=family, symbols=symbols, convention_digest="c", trials=trials, snapshot_id=snapshot, recorded_at=AT
    )


def test_a_configuration_recorded_twice_on_the_same_data_is_one_trial(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    assert record(ledger, trial(1), trial(2)) == 2
    assert record(ledger, trial(2), trial(3), trial(3)) == 1
    assert ledger.count(["A"]) == 3
    assert ledger.count(["A"], "sma") == 3


def test_the_same_guess_on_newer_data_is_recorded_but_not_counted_again(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    record(ledger, trial(1, sharpe=0.01), trial(2, sharpe=0.02))
    assert record(ledger, trial(1, sharpe=0.07), snapshot="s2") == 1
    assert ledger.count(["A"]) == 2
    np.testing.assert_array_equal(ledger.sharpes(["A"]), [0.07, 0.02])  # newest evaluation, first-recorded order
    np.testing.assert_array_equal(ledger.sharpes(["A"], snapshot_id="s1"), [0.01, 0.02])


def test_families_symbols_and_conventions_are_kept_apart(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    record(ledger, trial(1))
    record(ledger, trial(1), family="rsi")
    record(ledger, trial(1), symbols=("A", "B"))
    assert record(ledger, trial(1), symbols=("B", "A")) == 0  # order does not matter
    ledger.record_many(family="sma", symbols=["A"], convention_digest="other", trials=[trial(1)], snapshot_id="s1", recorded_at=AT)
    assert ledger.count(["A"]) == 3
    assert ledger.count(["A"], "sma") == 2
    assert ledger.count(["B", "A"]) == 1
    assert ledger.count(["Z"]) == 0


def test_an_empty_ledger_answers_without_making_anything(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    assert ledger.count(["A"]) == 0
    assert ledger.sharpes(["A"]).shape == (0,)
    assert ledger.returns_matrix(["A"]).shape == (0, 0)
    assert not ledger.folder.exists()


def test_an_undefined_sharpe_is_counted_but_not_listed(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    record(ledger, trial(1, sharpe=float("nan")), trial(2, sharpe=0.02))
    assert ledger.count(["A"]) == 2
    np.testing.assert_array_equal(ledger.sharpes(["A"]), [0.02])


def test_the_returns_come_back_bit_for_bit_with_holes_where_a_configuration_has_none(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    first = pd.Series([0.1, 0.1 + 0.2, -1 / 3], index=SESSIONS)
    late = pd.Series([0.5, 0.25], index=SESSIONS[1:])
    record(ledger, trial(1, returns=first), trial(2, returns=late), trial(3))
    record(ledger, trial(4, returns=first))
    matrix = ledger.returns_matrix(["A"], "sma")
    assert list(matrix.columns) == ["spec1", "spec2", "spec4"]
    assert matrix.index.equals(SESSIONS)
    np.testing.assert_array_equal(matrix["spec1"].to_numpy(), first.to_numpy())
    np.testing.assert_array_equal(matrix["spec2"].to_numpy(), [np.nan, 0.5, 0.25])
    np.testing.assert_array_equal(matrix["spec4"].to_numpy(), first.to_numpy())


def test_unordered_or_repeated_sessions_are_refused_and_nothing_is_recorded(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    with pytest.raises(QualityError, match="ascending"):
        record(ledger, trial(1, returns=pd.Series([0.1, 0.2, 0.3], index=SESSIONS[::-1])))
    assert ledger.count(["A"]) == 0


def test_a_changed_returns_file_is_noticed(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    record(ledger, trial(1, returns=pd.Series([0.1, 0.2, 0.3], index=SESSIONS)))
    (file,) = (ledger.folder / "returns").iterdir()
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="not the one recorded"):
        ledger.returns_matrix(["A"])
    file.unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        ledger.returns_matrix(["A"])


def test_rows_can_be_neither_edited_nor_deleted(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    record(ledger, trial(1))
    connection = sqlite3.connect(ledger.folder / "ledger.db")
    try:
        for statement in ("DELETE FROM trials", "UPDATE trials SET sharpe_per_session = 9", "DELETE FROM batches"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    finally:
        connection.close()


def test_files_of_a_writer_that_died_before_its_commit_are_swept(home_settings: Settings) -> None:
    ledger = TrialLedger(home_settings)
    record(ledger, trial(1, returns=pd.Series([0.1, 0.2, 0.3], index=SESSIONS)))
    orphan = ledger.folder / "returns" / "0123.parquet"
    half = ledger.folder / "returns" / "4567.tmp"
    orphan.write_bytes(b"whole")
    half.write_bytes(b"hal")
    record(ledger, trial(2, returns=pd.Series([0.1, 0.2, 0.3], index=SESSIONS)))
    assert not orphan.exists()
    assert not half.exists()
    assert ledger.returns_matrix(["A"]).shape == (3, 2)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="ledger of trials"):
        record(TrialLedger(load_settings({"home": str(tmp_path / "home")})), trial(1))


def _record_range(home: str, start: int, stop: int) -> None:
    ledger = TrialLedger(load_settings({"home": home}))
    for low in range(start, stop, 10):
        record(ledger, *(trial(n, returns=pd.Series([n * 0.001, 0.0, 0.1], index=SESSIONS)) for n in range(low, low + 10)))


def test_two_processes_recording_overlapping_trials_lose_none_and_double_none(home_settings: Settings) -> None:
    context = multiprocessing.get_context("spawn")
    home = str(home_settings.home_path)
    writers = [context.Process(target=_record_range, args=(home, *span)) for span in ((0, 120), (60, 180))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    ledger = TrialLedger(home_settings)
    assert ledger.count(["A"]) == 180
    matrix = ledger.returns_matrix(["A"])
    assert matrix.shape == (3, 180)
    assert matrix.iloc[0].sort_values().to_list() == pytest.approx([n * 0.001 for n in range(180)], abs=0)


@pytest.mark.slow
def test_a_writer_killed_anywhere_leaves_whole_batches_only(home_settings: Settings) -> None:
    context = multiprocessing.get_context("spawn")
    rng = np.random.default_rng(7)
    for _ in range(12):
        writer = context.Process(target=_record_range, args=(str(home_settings.home_path), 0, 2000))
        writer.start()
        time.sleep(float(rng.uniform(0.8, 2.5)))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        ledger = TrialLedger(home_settings)
        count = ledger.count(["A"])
        assert count % 10 == 0  # a batch is there whole or not at all
        assert ledger.returns_matrix(["A"]).shape[1] == count
    assert count > 0


@settings(derandomize=True, deadline=None, max_examples=25)
@given(batches=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=5))
def test_the_count_is_the_number_of_distinct_configurations(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    ledger = TrialLedger(load_settings({"home": str(tmp_path_factory.mktemp("ledger"))}))
    new = [record(ledger, *(trial(n) for n in batch)) for batch in batches]
    distinct = {n for batch in batches for n in batch}
    assert sum(new) == len(distinct) == ledger.count(["A"])


def test_ten_thousand_trials_are_one_batch_and_one_file(home_settings: Settings) -> None:
    index = pd.DatetimeIndex(pd.bdate_range("2015-01-01", periods=250), name="session")
    values = np.random.default_rng(3).normal(size=(10_000, 250))
    trials = [trial(n, returns=pd.Series(values[n], index=index)) for n in range(10_000)]
    ledger = TrialLedger(home_settings)
    assert record(ledger, *trials) == 10_000
    assert len(list((ledger.folder / "returns").iterdir())) == 1  # a file and a commit a trial would be minutes
    with sqlite3.connect(ledger.folder / "ledger.db") as connection:
        assert connection.execute("SELECT count(*), sum(trials) FROM batches").fetchone() == (1, 10_000)
