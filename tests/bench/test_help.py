"""How long `quant --help` takes: a third of a CPU second at most, on a quiet machine (STYLE, 8)."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.demo_home import QUANT, environment


def _children_cpu_seconds(words: list[str], home: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env=environment(home), capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.bench
def test_help_takes_a_third_of_a_cpu_second(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ours = min(_children_cpu_seconds([*QUANT, "--help"], home) for _ in range(5))
    peer = min(_children_cpu_seconds([sys.executable, "-c", "import typer, rich.console"], home) for _ in range(5))
    print(f"quant --help {ours:.2f} CPU s, importing typer and rich alone {peer:.2f}: ratio {ours / peer:.2f}")
    assert ours < 0.35
