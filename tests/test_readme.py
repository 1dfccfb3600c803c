"""The README holds: its commands run, its table is what the demo prints, its Python runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.demo_home import Demo, environment, quant
from tests.own_data import quant_here, write_files

pytestmark = pytest.mark.xdist_group("demo")
ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(label: str) -> str:
    """The fenced block under an HTML comment."""
    found = re.search(rf"<!-- {re.escape(label)} -->\n```\w+\n(.*?)\n```", README, re.S)
    assert found, f"README.md has no block {label!r}"
    return found.group(1)


def table_of(document: dict[str, Any]) -> list[str]:
    """The table as the README prints it, from what the demo found."""
    lines = []
    for entry in document["strategies"]:
        low, high = entry["sharpe_interval"]
        pbo = "–" if entry["pbo"] is None else f"{entry['pbo']:.2f}"
        modelled = " (modelled)" if entry["data_kind"] == "modelled" else ""
        cells = [
            f"{entry['name']}{modelled}",
            f"{100 * entry['total_return']:.1f} %",
            f"{100 * entry['cagr']:.1f} %",
            f"{entry['sharpe']:.2f} [{low:.2f}, {high:.2f}]",
            f"{100 * entry['max_drawdown']:.1f} %",
            str(entry["trades"]),
            f"{entry['dsr']:.2f}",
            pbo,
            entry["verdict"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def test_its_table_is_what_the_demo_finds(demo: Demo) -> None:
    printed = re.search(r"<!-- table: demo -->\n\|.*?\n\|[-:|]+\|\n(.*?)\n\n", README, re.S)
    assert printed
    assert printed.group(1).splitlines() == table_of(demo[1])


def test_its_sentence_about_the_outcome_is_true(demo: Demo) -> None:
    verdicts = [entry["verdict"] for entry in demo[1]["strategies"]]
    assert "promoted" not in verdicts
    assert demo[1]["paper_strategy"] == "buy_and_hold"
    assert [entry["name"] for entry in demo[1]["strategies"]][-2:] == ["sma_search_best", "covered_calls"]


@pytest.fixture
def own_home(demo: Demo, tmp_path: Path) -> Path:
    """A copy of the finished demo's home: what the README's commands add to it is not in the way of other tests."""
    return Path(shutil.copytree(demo[0], tmp_path / "home"))


def test_every_command_it_shows_after_the_demo_runs(own_home: Path) -> None:
    lines = [shlex.split(line, comments=True) for line in block("run: after demo").splitlines()]
    assert len(lines) >= 8
    for words in lines:
        assert words[0] == "quant"
        said = quant(own_home, *words[1:])
        refused = words[1] == "promote"  # shows the checks, and says by its code that the gate refuses
        assert said.code == (4 if refused else 0), (words, said.err)
        assert said.out


def test_its_commands_for_your_own_data_run_on_a_folder_with_such_files(tmp_path: Path) -> None:
    write_files(tmp_path)
    for words in [shlex.split(line, comments=True) for line in block("run: own data").splitlines()]:
        said = quant_here(tmp_path, *words[1:])
        late = words[1:3] == ["data", "watch"]  # its bars are of 2024
        assert said.code == (3 if late else 0), (words, said.err)
        assert said.out


def test_its_python_runs(own_home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("run: python")],
        env=environment(own_home),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr


def test_its_two_commands_set_up_in_one_line_each() -> None:
    for label in ("command: demo", "command: test"):
        command = block(label)
        assert len(command.splitlines()) == 1
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q uv==")


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
