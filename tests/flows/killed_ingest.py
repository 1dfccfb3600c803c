"""Run in a process of its own by test_ingest_kills.py: one ingest of many symbols, which may be killed at any moment."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from tests.flows.fake_vendor import FakeVendor, days, ramp, run

SYMBOLS = tuple(f"S{number:03d}" for number in range(130))


def vendor() -> FakeVendor:
    """Half a year of bars of each, a dividend each, a gap in every tenth."""
    sessions = days("2024-01-02", "2024-06-28")
    history = {name: ramp("2024-01-02", "2024-06-28", 100.0 + number) for number, name in enumerate(SYMBOLS)}
    for name in SYMBOLS[::10]:
        del history[name][sessions[40]]
    actions = {name: [(sessions[20], "dividend", 0.25)] for name in SYMBOLS}
    return FakeVendor(history, names_per_request=4, actions=actions)


if __name__ == "__main__":
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    run(vendor(), SYMBOLS, datetime.fromisoformat(sys.argv[1]).replace(tzinfo=UTC))
