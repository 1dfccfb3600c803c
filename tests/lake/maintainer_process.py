"""Maintenance in a process of its own, over and over, for the tests of collisions and kills.

``python -m tests.lake.maintainer_process FOLDER``: compacts every table, points the snapshots at it, sweeps.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from config.errors import LockHeldError
from lake import Lake
from lake.maintenance import compact
from lake.snapshot import point_at
from lake.vacuum import survey, sweep


def main(folder: str) -> None:
    """Until killed; says how often it went round."""
    lake, rounds = Lake(Path(folder), write_attempts=50), 0
    while True:
        for name in lake.tables():
            try:
                compact(lake, name, at=datetime.now(UTC))
            except LockHeldError:
                continue
        point_at(lake.root, lake.tables())
        sweep(lake, survey(lake, now=datetime.now(UTC)))
        rounds += 1
        sys.stdout.write(f"round {rounds}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
