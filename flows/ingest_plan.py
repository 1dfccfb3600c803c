"""Decides what a source is asked for: everything, a window, or only what is newer than the rows stored from it.

1. `plan` gives each name its first day: as asked; else, of an incremental source, some sessions before its newest row
   (`_first_day`).
2. Names whose first days lie near one another share requests of at most `names_per_request` (`_cut`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import pandas as pd

from config.calendar import sessions
from flows.sources.base import Source, blocks
from lake.stored import StoredSpan

__all__ = ["Request", "Window", "is_incremental", "plan"]

# Names whose first days differ by less are asked together, from the earliest; beyond that the extra rows cost more than a request.
_NEAR = timedelta(days=30)
_LONG_CLOSURE = timedelta(days=14)  # longer than any exchange stays closed between two sessions, a few halts of a century aside


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """What the user asked for.

    Parameters
    ----------
    start, end : date or None
        First and last session, both included.
    full : bool
        Everything, of an incremental source too.
    overlap_sessions : int
        How many sessions before the newest row stored are asked again.
    interval : str
        Of bars.
    """

    start: date | None = None
    end: date | None = None
    full: bool = False
    overlap_sessions: int = 5
    interval: str = "1d"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One question to a source.

    Parameters
    ----------
    overlap : bool
        The first days are ours, and rows in the window are stored: they are compared before anything is written.
    """

    names: tuple[str, ...]
    start: date | None
    end: date | None
    overlap: bool = False

    def halves(self) -> tuple[Request, Request]:
        """The same question for each half of the names."""
        middle = len(self.names) // 2
        return replace(self, names=self.names[:middle]), replace(self, names=self.names[middle:])


def is_incremental(source: Source) -> bool:
    """Whether the source is asked only for what is new."""
    return bool(getattr(source, "incremental", False))


def plan(
    source: Source, names: Sequence[str], window: Window, stored: Mapping[tuple[str, str], StoredSpan]
) -> tuple[list[Request], dict[str, str]]:
    """The requests for `names`, and the names that need none, with the reason.

    Parameters
    ----------
    stored : mapping
        Of (name, source) to what the lake holds; empty where the dataset has no sessions.
    """
    size = source.names_per_request
    if not is_incremental(source) or window.full or window.start is not None:
        return [Request(names=block, start=window.start, end=window.end) for block in blocks(names, size)], {}
    first_days: dict[str, date] = {}
    done: dict[str, str] = {}
    unknown: list[str] = []
    for name in names:
        span = stored.get((name, source.name))
        if span is None:
            unknown.append(name)
            continue
        first = _first_day(span, window.overlap_sessions)
        if window.end is not None and first > window.end:
            done[name] = f"stored up to {span.last} already"
        else:
            first_days[name] = first
    requests = [Request(names=block, start=None, end=window.end) for block in blocks(unknown, size)] if unknown else []
    requests += [
        Request(names=block, start=min(first_days[name] for name in block), end=window.end, overlap=True)
        for block in _cut(first_days, size)
    ]
    return requests, done


def _first_day(span: StoredSpan, overlap: int) -> date:
    """`overlap` sessions before the newest one stored, on that row's own calendar."""
    if overlap == 0:
        return span.last
    reach = span.last - timedelta(days=2 * overlap) - _LONG_CLOSURE
    days = sessions(reach, span.last - timedelta(days=1), span.calendar or "XNYS")
    return pd.Timestamp(days[-overlap]).date() if len(days) >= overlap else reach


def _cut(first_days: Mapping[str, date], size: int | None) -> Iterable[tuple[str, ...]]:
    block: list[str] = []
    for name, first in sorted(first_days.items(), key=lambda item: (item[1], item[0])):
        if block and (len(block) == size or first - first_days[block[0]] >= _NEAR):
            yield tuple(block)
            block = []
        block.append(name)
    if block:
        yield tuple(block)
