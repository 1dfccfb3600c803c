"""Whatever a vendor revises, and in whatever order it is asked, a read as of a moment gives what a plain list of facts gives."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import pytest

from config.calendar import session_closes
from flows.ingest import Window
from tests.flows.fake_vendor import FakeVendor, days, lake, run

SESSIONS = days("2025-11-03", "2026-01-30")
CLOSES = dict(zip(SESSIONS, session_closes(pd.DatetimeIndex(SESSIONS), "XNYS").to_pydatetime(), strict=True))
Value = tuple[float, float]  # close, volume
Facts = dict[tuple[str, date], list[tuple[datetime, Value]]]  # every version of a bar with the moment from which it counts


def _revise(vendor: FakeVendor, symbol: str, now: datetime, rng: random.Random) -> None:
    """New bars come; now and then a price, a volume or the whole history is another than it was, or is again what it was."""
    held = vendor.history.setdefault(symbol, {})
    for number, day in enumerate(SESSIONS):
        if CLOSES[day] < now and (not held or day > max(held)):
            held[day] = 100.0 + number
    recent = sorted(held)
    what = rng.random()
    if what < 0.2:
        held[rng.choice(recent[-5:])] += rng.choice((1, -1))
    elif what < 0.3:
        held[rng.choice(recent)] += rng.choice((1, -1))
    elif what < 0.5:
        vendor.volumes[symbol, rng.choice(recent[-7:])] = rng.choice((100.0, 120.0))
    elif what < 0.55:
        vendor.history[symbol] = {day: close / 2 for day, close in held.items()}


def _learn(facts: Facts, vendor: FakeVendor, symbol: str, window: Window, now: datetime) -> None:
    """What an ingest is to know afterwards, by the contract: the window, or what is new, or all where prices do not meet."""
    has = {day: (close, vendor.volumes.get((symbol, day), 100.0)) for day, close in vendor.history[symbol].items()}
    stored = sorted(day for name, day in facts if name == symbol)
    if stored and window.start is None and not window.full:
        first = SESSIONS[SESSIONS.index(stored[-1]) - window.overlap_sessions]
        part = {day: value for day, value in has.items() if day >= first}
        if all(part[day][0] == facts[symbol, day][-1][1][0] for day in stored if day >= first):
            has = part
    for day, value in has.items():
        if window.start is not None and not (window.start <= day <= (window.end or day)):
            continue
        versions = facts.setdefault((symbol, day), [])
        if not versions:
            versions.append((CLOSES[day], value))
        elif versions[-1][1] != value:
            versions.append((max(now, versions[-1][0]), value))


@pytest.mark.parametrize("seed", range(3))
def test_reads_as_of_any_moment_give_what_was_known_then(seed: int) -> None:
    rng, facts, now = random.Random(seed), Facts(), datetime(2025, 12, 15, 12, tzinfo=UTC)
    vendor = FakeVendor({}, names_per_request=1)
    read_before: list[tuple[str, object]] = []
    for _ in range(7):
        now += timedelta(hours=rng.choice((0, 1, 24, 72)))
        for symbol in "AB":
            _revise(vendor, symbol, now, rng)
        start = rng.choice(SESSIONS[:20])
        window = rng.choice((Window(), Window(), Window(full=True), Window(start=start, end=start + timedelta(days=20))))
        report = run(vendor, ["A", "B"], now, start=window.start, end=window.end, full=window.full)
        for symbol in "AB":
            _learn(facts, vendor, symbol, window, now)
        read_before.append((report.snapshot_id, lake().snapshot(report.snapshot_id).read("equity_bars")))
    snapshot = lake().snapshot()
    changes = [
        moment + delta
        for versions in facts.values()
        for moment, _ in versions[1:]
        for delta in (-timedelta(microseconds=1), timedelta())
    ]
    for moment in [None, datetime(2025, 11, 20, 21, tzinfo=UTC), *rng.sample(changes, min(12, len(changes)))]:
        known = {key: [value for at, value in versions if moment is None or at <= moment] for key, versions in facts.items()}
        rows = snapshot.read("equity_bars", as_of=moment, columns=["symbol", "session", "close", "volume"]).to_pylist()
        assert {(row["symbol"], row["session"]): (row["close"], row["volume"]) for row in rows} == {
            key: values[-1] for key, values in known.items() if values
        }
    for name, rows in read_before:  # a snapshot stays what it was
        assert lake().snapshot(name).read("equity_bars").equals(rows)
    assert any(len(versions) > 1 for versions in facts.values())
