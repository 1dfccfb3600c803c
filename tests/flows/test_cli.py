"""The command line: prefixes, did-you-mean, exit codes, one object on standard output, and how little `--help` imports."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from config.errors import InputError
from flows.cli.research import parse_assignments, parse_grid
from tests.flows.demo_home import QUANT, environment, quant

# What `quant --help` may not import: each costs a fifth of a second and more. The time itself is a bench (bench/test_help.py).
HEAVY = (
    "prefect",
    "mlflow",
    "sklearn",
    "scipy",
    "vectorbt",
    "backtrader",
    "yfinance",
    "pandas",
    "numpy",
    "pyarrow",
    "duckdb",
    "deltalake",
)


def test_help_imports_no_heavy_package(tmp_path: Path) -> None:
    program = "import sys; from flows.cli import main\ntry: main()\nexcept SystemExit: print('modules:', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], env=environment(tmp_path / "home"), capture_output=True, text=True, check=True
    )
    page, _, modules = done.stdout.partition("modules:")
    assert "demo" in page
    assert "typer" in modules.split()  # the list is the real one
    assert not set(HEAVY) & set(modules.split())


def test_an_unambiguous_prefix_is_enough(tmp_path: Path) -> None:
    said = quant(tmp_path / "home", "doc", "--json")
    assert said.code == 0, said.err
    assert {check["name"] for check in said.document["checks"]} >= {
        "python",
        "packages",
        "home",
        "disk",
        "clock",
        "prefect",
        "mlflow",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dmo",), "Did you mean 'demo'?"),
        (("d",), "fits several commands"),
        (("data", "lss"), "Did you mean 'ls'?"),
        (("demo", "--jsn"), "--jsn"),
    ],
)
def test_a_mistyped_command_is_a_usage_error_with_the_near_one(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = quant(tmp_path / "home", *words)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert done.out == ""


def test_an_error_is_one_object_too(tmp_path: Path) -> None:
    said = quant(tmp_path / "home", "data", "ls", "--json")
    assert said.code == 1
    error = said.document["error"]
    assert error["kind"] == "UnknownNameError"
    assert "no published snapshot" in error["message"]
    assert error["remedy"]


def test_init_writes_a_file_that_changes_nothing_and_never_overwrites(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert quant(home, "init", cwd=tmp_path).code == 0
    assert quant(home, "doctor", cwd=tmp_path).code == 0
    text = (tmp_path / "quantrail.yaml").read_text()
    again = quant(home, "init", cwd=tmp_path)
    assert again.code == 1
    assert (tmp_path / "quantrail.yaml").read_text() == text


def test_the_doctor_shows_that_a_key_is_there_and_never_which(tmp_path: Path) -> None:
    said = quant(tmp_path / "home", "doctor", "--json", env={"ALPACA_API_KEY": "AKVERYSECRET"})
    found = {check["name"]: check["found"] for check in said.document["checks"]}
    assert found["ALPACA_API_KEY"] == "present"
    assert found["FRED_API_KEY"] == "not set"
    assert "AKVERYSECRET" not in said.out + said.err


def test_the_doctor_finds_an_address_that_does_not_answer(tmp_path: Path) -> None:
    said = quant(tmp_path / "home", "doctor", "--json", env={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert said.code == 1
    prefect = next(check for check in said.document["checks"] if check["name"] == "prefect")
    assert prefect["state"] == "problem"
    assert "quant ui" in prefect["remedy"]


def test_a_wrong_key_in_the_settings_file_stops_the_demo_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "quantrail.yaml").write_text("evidence:\n  sede: 3\n")
    said = quant(tmp_path / "home", "demo", "--json", cwd=tmp_path)
    assert said.code == 1
    assert "unknown setting evidence.sede" in said.document["error"]["message"]
    assert "seed" in said.document["error"]["remedy"]
    assert not (tmp_path / "home").exists()


def test_a_second_demo_at_the_same_time_waits_for_nobody_and_says_so(tmp_path: Path) -> None:
    lock = tmp_path / "home" / "locks" / "demo.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = quant(tmp_path / "home", "demo", "--json")
    assert said.code == 5
    assert said.document["error"]["kind"] == "LockHeldError"


def test_an_unwritable_home_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    said = _demo_in(tmp_path / "file" / "home", tmp_path)
    assert said[0] == 5
    assert json.loads(said[1])["error"]["kind"] == "StorageError"
    assert "QUANT_HOME" in said[2]


def _demo_in(home: Path, cwd: Path) -> tuple[int, str, str]:
    env = {**environment(cwd / "home"), "QUANT_HOME": str(home)}
    done = subprocess.run([*QUANT, "demo", "--json"], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=900)
    return done.returncode, done.stdout, done.stderr


def test_a_full_disk_is_a_clear_error_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    home = tmp_path / "home"
    # No file may grow past 200 kB: the write that would is refused by the system, as on a full disk.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); from flows.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", limit, "ingest", "equity", "--json"],
        cwd=tmp_path,
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 5, done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "StorageError"
    whole = quant(home, "ingest", "equity", "--symbols", "NASDAQ", "--json")
    assert whole.code == 0, whole.err
    assert quant(home, "data", "verify", "--json").document["problems"] == 0


def test_a_corrupted_bundled_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    import importlib.util
    import shutil

    spec = importlib.util.find_spec("arch")
    assert spec is not None
    assert spec.origin is not None
    broken = tmp_path / "broken" / "arch"
    shutil.copytree(Path(spec.origin).parent / "data", broken / "data")
    (broken / "__init__.py").write_text("")
    victim = broken / "data" / "nasdaq" / "nasdaq.csv.gz"
    content = victim.read_bytes()
    victim.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    said = quant(
        tmp_path / "home", "ingest", "equity", "--symbols", "NASDAQ", "--json", env={"PYTHONPATH": str(tmp_path / "broken")}
    )
    assert said.code == 3
    assert said.document["error"]["kind"] == "IntegrityError"
    assert "nasdaq.csv.gz" in said.document["error"]["message"]
    assert "arch==8.0.0" in said.document["error"]["remedy"]


def test_progress_goes_to_standard_error_as_lines(tmp_path: Path) -> None:
    said = quant(tmp_path / "home", "ingest", "macro", "--series", "VIXCLS", "--json")
    assert said.code == 0, said.err
    assert said.document["rows"]["new"] == 1305
    assert "s]" in said.err
    assert "\x1b" not in said.out + said.err


def test_parameters_are_read_by_type_and_dotted_names_nest() -> None:
    assert parse_assignments(["fast=20", "std=2.5", "momentum.rsi.period=14"]) == {
        "fast": 20,
        "std": 2.5,
        "momentum": {"rsi": {"period": 14}},
    }
    with pytest.raises(InputError, match="is not parameter=value"):
        parse_assignments(["fast"])


def test_a_grid_is_a_range_with_both_ends_or_a_list() -> None:
    assert parse_grid(["fast=5:8", "slow=10:30:10", "std=1.5,2"]) == {"fast": [5, 6, 7, 8], "slow": [10, 20, 30], "std": [1.5, 2]}
    with pytest.raises(InputError, match="is not a range"):
        parse_grid(["fast=5:"])
