"""The quick start of the earlier system runs as written, offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.flows.demo_home import environment

ROOT = Path(__file__).resolve().parents[1]


def test_the_quick_start_runs_offline_and_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for attempt in ("first", "second"):
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "quickstart.py")],
            cwd=tmp_path,
            env=environment(home),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, (attempt, done.stderr)
        for said in (
            "35 features as core-",
            "combo: Sharpe",
            "CoveredCallsStrategy (modelled chain)",
            "ProtectivePutsStrategy (modelled chain)",
            "sma_crossover version 1 is candidate",
            "position: 50,000",
            "'gateway': 'simulated'",
        ):
            assert said in done.stdout, (attempt, said, done.stdout)
        assert ("'symbol': 'SP500'" in done.stdout) == (attempt == "first")  # the order is sent once
    assert "refused: duplicate" in done.stdout
    assert (tmp_path / "quickstart.html").is_file()
