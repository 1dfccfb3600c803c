"""Runs the real command line in a home folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUANT = (sys.executable, "-c", "from flows.cli import main; main()")
_OURS = ("QUANT_", "PREFECT_", "MLFLOW_", "ALPACA_", "FRED_", "TRADIER_", "POLYGON_")


Demo = tuple[Path, dict[str, Any]]  # a finished demo: its home folder, and what it printed


@dataclass(frozen=True)
class Said:
    """What a command left: exit code, standard output and error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as the one JSON object it must be."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The process's environment without any setting of ours but the home folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**clean, "QUANT_HOME": str(home), "HOME": str(home.parent), **(more or {})}


def quant(home: Path, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 900.0) -> Said:
    """Run `quant` with these words, its settings from nowhere but `home`."""
    home.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [*QUANT, *words],
        cwd=cwd or home.parent,
        env=environment(home, env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)
