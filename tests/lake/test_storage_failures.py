"""Storage that refuses is answered with a clear error, and what was acknowledged before is safe."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from config.errors import InputError, IntegrityError, StorageError, UnknownNameError
from config.hashing import sha256_bytes
from lake import Lake
from tests.lake.rows import NOW, bar, bars

DAY = date(2024, 1, 2)

# The kernel refuses bytes past a file-size limit as it refuses them on a full disk: in the middle of a write.
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from config.errors import StorageError
from lake import Lake
from tests.lake.rows import NOW, bar, bars
from datetime import date
lake_ = Lake(Path(sys.argv[1]))
batch = bars([bar(f"S{n:05d}", date(2024, 1, 2), n * 1.1) for n in range(5000)])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    if sys.argv[3] == "write":
        lake_.write("equity_bars", batch, recorded_at=NOW)
    elif sys.argv[3] == "publish":
        lake_.publish()
    else:
        lake_.raw.put(b"x" * 100_000)
except StorageError as problem:
    print("refused:", problem)
"""


def _with_full_disk(lake: Lake, limit: int, act: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(lake.root), str(limit), act],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_a_full_disk_loses_nothing_that_was_acknowledged(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", DAY, 1.0)]), recorded_at=NOW)
    before = lake.publish()
    lake.write("equity_bars", bars([bar("B", DAY, 1.0)]), recorded_at=NOW)
    for limit, act in ((20_000, "write"), (100, "publish"), (1000, "raw")):
        said = _with_full_disk(lake, limit, act)
        assert said.startswith("refused: cannot ")
        assert "free space on the disk" in said
    assert lake.snapshot() == before
    assert lake.read_latest("equity_bars")["symbol"].to_pylist() == ["A", "B"]
    assert list((lake.root / "raw").iterdir()) == []
    # With room again the same write goes through.
    assert lake.write("equity_bars", bars([bar("C", DAY, 1.0)]), recorded_at=NOW).new == 1
    after = lake.publish()
    after.verify("equity_bars")
    assert after.read("equity_bars").num_rows == 3


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    lake = Lake(tmp_path / "file" / "lake")
    for act in (
        lambda: lake.write("equity_bars", bars([bar("A", DAY, 1.0)]), recorded_at=NOW),
        lake.publish,
        lambda: lake.raw.put(b"answer"),
    ):
        with pytest.raises(StorageError, match="(?s)cannot .*QUANT_HOME"):
            act()


def test_an_unreadable_log_is_told_apart_from_an_empty_lake(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", DAY, 1.0)]), recorded_at=NOW)
    entry = lake.root / "equity_bars" / "_delta_log" / f"{1:020d}.json"
    entry.write_text('{"commitInfo": {"time')
    with pytest.raises((StorageError, IntegrityError), match="equity_bars"):
        lake.read_latest("equity_bars")
    with pytest.raises((StorageError, IntegrityError), match="equity_bars"):
        lake.publish()


def test_answers_are_kept_under_their_hash(lake: Lake) -> None:
    name = lake.raw.put(b"an answer")
    assert name == sha256_bytes(b"an answer")
    assert lake.raw.put(b"an answer") == name
    assert lake.raw.get(name) == b"an answer"
    assert name in lake.raw
    assert [path.name for path in (lake.root / "raw").iterdir()] == [name]
    # The hash of "abc" is published in FIPS 180-2, appendix B.1.
    assert lake.raw.put(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_damaged_answer_is_noticed_and_healed_by_storing_it_again(lake: Lake) -> None:
    name = lake.raw.put(b"an answer")
    (lake.root / "raw" / name).write_bytes(b"an Answer")
    with pytest.raises(IntegrityError, match="is damaged"):
        lake.raw.get(name)
    lake.raw.put(b"an answer")
    assert lake.raw.get(name) == b"an answer"


def test_answers_that_are_not_there(lake: Lake) -> None:
    with pytest.raises(UnknownNameError, match="no answer with SHA-256"):
        lake.raw.get("0" * 64)
    with pytest.raises(InputError, match="is not a SHA-256"):
        lake.raw.get("../../etc/passwd")
