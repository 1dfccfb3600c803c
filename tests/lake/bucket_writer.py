"""A writer in a process of its own on a lake in a bucket, for the tests of collisions and kills.

``python -m tests.lake.bucket_writer NAME BATCHES`` takes the lake from the settings in the environment; each batch is `ROWS` bars
of one symbol, and as many that every writer writes. What was acknowledged is printed: ``row SYMBOL NEW UNCHANGED``, then
``published ID``.
"""

from __future__ import annotations

import sys
from datetime import date

from config.settings import load_settings
from lake import open_lake
from tests.lake.rows import NOW, bar, bars, days

ROWS = 20


def main(name: str, batches: int) -> None:
    """Write, publish, say so."""
    lake = open_lake(load_settings({"lake.write_attempts": 200}))
    for n in range(batches):
        symbols = (f"{name}-{n:04d}", f"common-{n:04d}")
        rows = [bar(symbol, day, float(n)) for symbol in symbols for day in days(date(2023, 12, 20), ROWS)]
        result = lake.write("equity_bars", bars(rows), recorded_at=NOW)
        sys.stdout.write(f"row {symbols[0]} {result.new} {result.unchanged}\n")
        sys.stdout.flush()
        sys.stdout.write(f"published {lake.publish().id}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
