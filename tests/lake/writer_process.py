"""A writer in a process of its own, for the tests of collisions and kills. Each batch is 50 bars of one symbol.

``python -m tests.lake.writer_process FOLDER NAME BATCHES [common]`` writes batch after batch, publishes, and prints what was
acknowledged. With ``common`` all writers write the same keys and values besides their own.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from lake import Lake
from tests.lake.rows import NOW, bar, bars, days

ROWS = 50


def main(folder: str, name: str, batches: int, common: bool) -> None:
    """Write, publish, say so."""
    lake = Lake(Path(folder), write_attempts=200)
    for n in range(batches):
        symbol = f"{name}-{n:04d}"
        rows = [bar(symbol, day, float(n)) for day in days(date(2023, 12, 10), ROWS)]
        if common:
            rows += [bar(f"common-{n:04d}", day, float(n)) for day in days(date(2023, 12, 10), ROWS)]
        result = lake.write("equity_bars", bars(rows), recorded_at=NOW)
        sys.stdout.write(f"row {symbol} {result.new} {result.unchanged}\n")
        sys.stdout.flush()
        sys.stdout.write(f"published {lake.publish().id}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), "common" in sys.argv[4:])
