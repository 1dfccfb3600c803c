"""Whatever is written in whatever order, a read gives what a ten-line model of the contract gives."""

from __future__ import annotations

import tempfile
from datetime import date, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lake import Lake
from tests.lake.rows import NOW, bar, bars

SYMBOLS, SESSIONS = ("A", "B"), (date(2023, 12, 29), date(2024, 1, 2))
KEYS = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(SESSIONS))
BATCHES = st.lists(
    st.tuples(st.integers(0, 6), st.dictionaries(KEYS, st.sampled_from((1.0, 2.0, None, float("nan"))), min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)


def _same(left: float | None, right: float | None) -> bool:
    return repr(left) == repr(right)  # NaN is NaN, None is None


@given(batches=BATCHES)
@settings(derandomize=True, deadline=None, max_examples=15)
def test_reads_agree_with_a_model_that_keeps_every_version_in_a_list(
    batches: list[tuple[int, dict[tuple[str, date], float | None]]],
) -> None:
    versions: dict[tuple[str, date], list[tuple[object, float | None]]] = {}  # key: (available_at, value), oldest first
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        for day, values in batches:
            recorded_at = NOW + timedelta(days=day)
            rows = [bar(symbol, session, value) for (symbol, session), value in values.items()]
            result = lake.write("equity_bars", bars(rows), recorded_at=recorded_at)
            counts = {"new": 0, "revised": 0, "unchanged": 0}
            for row, (key, value) in zip(rows, values.items(), strict=True):
                known = versions.setdefault(key, [])
                if not known:
                    counts["new"] += 1
                    known.append((row["available_at"], value))
                elif _same(known[-1][1], value):
                    counts["unchanged"] += 1
                else:
                    counts["revised"] += 1
                    known.append((max(row["available_at"], recorded_at, known[-1][0]), value))
            assert {name: getattr(result, name) for name in counts} == counts
        snapshot = lake.publish()
        snapshot.verify("equity_bars")
        for as_of in (NOW - timedelta(days=62), *(NOW + timedelta(days=n) for n in range(7)), None):
            expected = {}
            for key, known in sorted(versions.items()):
                seen = [value for available, value in known if as_of is None or available <= as_of]  # type: ignore[operator]
                if seen:
                    expected[key] = repr(seen[-1])
            read = snapshot.read("equity_bars", as_of=as_of, columns=["symbol", "session", "close"]).to_pylist()
            assert {(row["symbol"], row["session"]): repr(row["close"]) for row in read} == expected
            assert [(row["symbol"], row["session"]) for row in read] == list(expected)
