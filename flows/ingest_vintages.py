"""Lets a source of vintages go on from where an earlier ingest stopped, instead of reading every vintage again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from lake.store import Lake

__all__ = ["go_on"]

_NOT_YET = timedelta(days=1)  # the day of a run in UTC may be one later than the user's


@runtime_checkable
class _KeepsVintages(Protocol):
    """A source that can be asked for what it has published since."""

    name: str

    def continue_from(self, asked_before: Mapping[str, date]) -> None: ...


def go_on(lake: Lake, sources: Iterable[Any]) -> None:
    """Tell the sources that can use it on which day each of their series was last asked for and stored, all periods of it.

    A run counts that asked for a series without a first period, up to its own day or without a last one, and whose last answer was
    stored (``last`` in its request): the rows of a run that was cut short are asked again.
    """
    for source in sources:
        if isinstance(source, _KeepsVintages):
            source.continue_from(_asked_before(lake, source.name))


def _asked_before(lake: Lake, source: str) -> dict[str, date]:
    before: dict[str, date] = {}
    whole = ["completed", "completed with refusals", "unchanged"]  # not one that was cut off while its rows were being stored
    where = {"source": source, "dataset": "macro_observations", "outcome": whole}
    for run in lake.read_latest("ingest_runs", where=where, columns=["started_at", "request"]).to_pylist():
        asked, day = json.loads(run["request"]), run["started_at"].date()
        end = asked.get("end")
        if not asked.get("last") or asked.get("start") or (end and date.fromisoformat(end) < day - _NOT_YET):
            continue
        series = str(asked["series"])
        before[series] = max(day, before.get(series, day))
    return before
