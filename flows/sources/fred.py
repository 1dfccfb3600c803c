"""FRED and ALFRED: macro series with every vintage, asked over a thin JSON client.

1. `FredMacro.observations` asks what the series is, with the units each vintage was quoted in (`_describe`).
2. `_spans` says which stretches of real time are asked: all at once, in pieces where FRED counts more than 2,000 vintages, and
   only the new ones when an earlier ingest had the rest (`continue_from`).
3. `_pages` asks a stretch page by page; `_fill_rows` makes a row of each vintage, and of each value that FRED took back.

FRED clips `realtime_start` and `realtime_end` to the stretch that was asked. A stretch therefore begins the day before its first
vintage, and what carries that day's date is what was valid already: it belongs to the stretch before and is left out.

fredapi 0.5.2 is not used here: it drops `realtime_end` (so what was taken back stays), turns numbers into objects, asks without a
time-out or paging, and makes a plain ValueError of a 429. `flows.sources.fred_search` uses it where it serves; the tests hold the
views of `features.vintages` to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from config.errors import ServiceError, ServiceUnavailable
from config.settings import Settings
from flows.sources.base import Answer, RefusedRow
from flows.sources.http import Reply, VendorClient, require_key

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LAST", "FredMacro", "available_from"]

SOURCE = "fred"
ADDRESS = "https://api.stlouisfed.org"
DATASET = "macro_observations"
NEW_YORK = "America/New_York"
FIRST_DAY, LAST_DAY = date(1776, 7, 4), date(9999, 12, 31)  # FRED's own words for "since ever" and "still valid"
MISSING = "."
LAST = "last"  # in a request: with this answer the series was whole
# FRED answers at most 2,000 vintages at a time; a piece keeps below that, with its carried-over day.
VINTAGES_A_PIECE = 1500
# What was published on the last days before the earlier ingest is asked again: FRED corrects a vintage within its day, and the
# day ends later in St. Louis than in UTC.
_OVERLAP = timedelta(days=3)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch of real time to ask for; `carried`: its first day only repeats what was valid before."""

    start: date
    end: date
    carried: bool


@dataclass(frozen=True, slots=True)
class _Unit:
    start: date
    end: date
    unit: str


@dataclass(frozen=True, kw_only=True)
class _Described:
    """What FRED says a series is."""

    reply: Reply
    units: tuple[_Unit, ...] = ()
    words: str = ""

    def unit_of(self, vintage: date) -> str:
        """The unit that vintage was quoted in; where the description does not reach back so far, the nearest."""
        for one in self.units:
            if vintage <= one.end:
                return one.unit
        return self.units[-1].unit


@dataclass
class _Page:
    """An answer with observations, and the rows that come out of it."""

    reply: Reply
    observations: list[Mapping[str, Any]]
    rows: list[tuple[date, date, float | None]] = field(default_factory=list)  # period, vintage, value
    refused: list[RefusedRow] = field(default_factory=list)


class _TooManyVintages(Exception):
    """FRED counts more vintages in that stretch than it answers at a time."""


class _NoSuchSeries(Exception):
    """FRED says that it has no such series, or no vintages of it."""


def available_from(vintages: Sequence[date]) -> Any:
    """When values of those vintage dates count as known: the end of that day in New York, as an index of UTC moments.

    FRED names the day of a vintage and not the hour (08:30 New York for most statistics, the afternoon for H.15, any time for a
    correction). The end of the day is never early: a decision at that day's close does not see the value, the next session does.
    """
    import pandas as pd

    return (pd.DatetimeIndex(list(vintages), dtype="datetime64[us]") + pd.Timedelta(days=1)).tz_localize(NEW_YORK).tz_convert("UTC")


class FredMacro:
    """Series of FRED with all vintages of ALFRED (`vintage_kind` published); the key is FRED_API_KEY.

    A vintage closes the one before it. A value "." is FRED's own missing and stored as NULL; so is, from the day on which it was
    taken back, an observation that FRED has no longer. A series that FRED keeps no vintages of is missing, not dated by guess.
    """

    name = SOURCE
    names_per_request = 1
    incremental = False  # of periods; of vintages see `continue_from`

    def __init__(self, settings: Settings) -> None:
        self._key = require_key(settings, SOURCE)
        self._client = VendorClient(SOURCE, ADDRESS, settings, secrets=(self._key,))
        self._asked_before: dict[str, date] = {}

    def available(self) -> None:
        """FRED has some 800,000 series and lists them only by search."""
        return

    def continue_from(self, asked_before: Mapping[str, date]) -> None:
        """Ask only for what is new of the series whose vintages up to those days (in UTC) are stored, whatever their period.

        A request that names a first period is answered in full all the same.
        """
        self._asked_before = dict(asked_before)

    def observations(self, series: Sequence[str], start: date | None = None, end: date | None = None) -> Iterator[Answer]:
        """Every vintage of the observations of periods from `start` to `end`, both included; one answer a page.

        The answer before the pages is the description that the units were read from; it holds no rows.

        Raises
        ------
        ServiceUnavailable, RateLimited
            No answer, half an answer, or asked to wait.
        ServiceError
            FRED refuses the key or the request.
        """
        for name in series:
            yield from self._series(name, start, end)

    def _series(self, name: str, start: date | None, end: date | None) -> Iterator[Answer]:
        asked = {"series": name, "start": start, "end": end}
        try:
            described = self._describe(name)
            spans, dates = self._spans_to_ask(name, start)
            history = list(self._history(name, spans, start, end))  # all of it before any: a part must not be taken for the whole
        except _NoSuchSeries as said:
            reply, reason = said.args
            yield _answer(reply, {**asked, "what": "description"}, None, (), (), missing={name: reason})
            return
        yield _answer(described.reply, {**asked, "what": "description"}, None, (), (), notes=(described.words,))
        if not spans and dates is not None:
            yield _answer(dates, {**asked, "what": "vintage dates", LAST: True}, None, (name,), ())
        for nth, (span, pages) in enumerate(history, start=1):
            since = {"realtime_start": span.start, "realtime_end": span.end}
            for number, page in enumerate(pages, start=1):
                last = nth == len(history) and number == len(pages)
                request = {**asked, "what": "observations", **since, "page": number, LAST: last}
                yield _answer(page.reply, request, _table(name, page.rows, described), (name,), page.refused)

    def _describe(self, name: str) -> _Described:
        reply, said = self._ask("series", name, realtime_start=FIRST_DAY, realtime_end=LAST_DAY)
        found = _listed(reply, said, "seriess")
        if not found:
            raise _NoSuchSeries(reply, f"FRED describes no series {name}")
        try:
            units = [_Unit(_day(one["realtime_start"]), _day(one["realtime_end"]), str(one["units"])) for one in found]
            newest = max(found, key=lambda one: str(one["realtime_end"]))
            about = [str(newest[key]) for key in ("title", "frequency", "units", "seasonal_adjustment") if newest.get(key)]
        except (KeyError, TypeError, ValueError) as problem:
            raise _unreadable(reply, f"a description without {problem}") from None
        units.sort(key=lambda one: one.start)
        return _Described(reply=reply, units=tuple(units), words=f"{name}: {', '.join(about)}")

    def _spans_to_ask(self, name: str, start: date | None) -> tuple[list[_Span], Reply | None]:
        """All of real time; or what is new since the series was asked for before, with the answer that says so."""
        before = self._asked_before.get(name)
        if before is None or start is not None:
            return [_Span(FIRST_DAY, LAST_DAY, False)], None
        vintages, reply = self._vintage_dates(name)
        return _spans(vintages, before - _OVERLAP), reply

    def _history(
        self, name: str, spans: Sequence[_Span], start: date | None, end: date | None
    ) -> Iterator[tuple[_Span, list[_Page]]]:
        """The stretches of real time with their pages; rows are made of a whole stretch, since a period may cross two pages."""
        for span in spans:
            try:
                found = [(span, self._pages(name, span, start, end))]
            except _TooManyVintages:
                pieces = _spans(self._vintage_dates(name)[0], None)
                found = [(piece, self._pages(name, piece, start, end)) for piece in pieces]
            for piece, pages in found:
                _fill_rows(name, piece, pages)
                yield piece, pages

    def _vintage_dates(self, name: str) -> tuple[list[date], Reply]:
        dates: list[date] = []
        while True:
            reply, said = self._ask("series/vintagedates", name, offset=len(dates) or None)
            found = _listed(reply, said, "vintage_dates")
            try:
                dates.extend(_day(one) for one in found)
            except ValueError as problem:
                raise _unreadable(reply, str(problem)) from None
            if not found or len(dates) >= _count(reply, said):
                return sorted(set(dates)), reply

    def _pages(self, name: str, span: _Span, start: date | None, end: date | None) -> list[_Page]:
        pages: list[_Page] = []
        offset = 0
        while True:
            reply, said = self._ask(
                "series/observations",
                name,
                realtime_start=span.start,
                realtime_end=span.end,
                observation_start=start,
                observation_end=end,
                offset=offset or None,
            )
            if (said.get("realtime_start"), said.get("realtime_end")) != (str(span.start), str(span.end)):
                raise _unreadable(
                    reply, f"real time {said.get('realtime_start')} to {said.get('realtime_end')}, which was not asked"
                )
            found = _listed(reply, said, "observations")
            pages.append(_Page(reply, found))
            offset += len(found)
            total = _count(reply, said)
            if offset >= total:
                return pages
            if not found:
                raise _unreadable(reply, f"an empty page after {offset} of {total} observations")

    def _ask(self, path: str, name: str, **more: Any) -> tuple[Reply, Mapping[str, Any]]:
        params = {"series_id": name, "file_type": "json", **more, "api_key": self._key.get_secret_value()}
        reply = self._client.get(f"fred/{path}", params, allow=(400,))
        said = reply.json()
        if not isinstance(said, dict):
            raise _unreadable(reply, "not an object")
        if reply.status == 400 or "error_message" in said:
            self._refuse(name, reply, " ".join(str(said.get("error_message", "no reason given")).split()))
        return reply, said

    def _refuse(self, name: str, reply: Reply, message: str) -> None:
        if "maximum number of vintage dates" in message:
            raise _TooManyVintages
        if "does not exist in ALFRED" in message:
            reason = (
                f"FRED keeps no vintages of {name}, so nobody can say when its values became known: it is not stored ({message})"
            )
            raise _NoSuchSeries(reply, reason)
        if "does not exist" in message:
            raise _NoSuchSeries(reply, f"FRED has no series {name} ({message})")
        shown = message.replace(self._key.get_secret_value(), "***")
        if "api_key" in message:
            raise ServiceError(f"FRED refuses the key ({reply.origin}): {shown}", remedy="check FRED_API_KEY in the environment")
        raise ServiceError(f"FRED refuses the request ({reply.origin}): {shown}", remedy="check the series and the window")


def _spans(vintages: Sequence[date], since: date | None) -> list[_Span]:
    """Cut real time into pieces of few enough vintages, from the first vintage after `since` on (None: of all)."""
    wanted = [one for one in vintages if since is None or one > since]
    starts = wanted[::VINTAGES_A_PIECE]
    spans: list[_Span] = []
    for number, begin in enumerate(starts):
        carried = begin != vintages[0]
        end = starts[number + 1] - _DAY if number + 1 < len(starts) else LAST_DAY
        spans.append(_Span(begin - _DAY if carried else FIRST_DAY, end, carried))
    return spans


def _fill_rows(name: str, span: _Span, pages: Sequence[_Page]) -> None:
    """Make rows of a stretch: one a vintage, and one with no value from the day on which a value was taken back.

    A value is taken back where its real time ends before the stretch does and no other value of that period begins the day after.
    """
    closed: dict[tuple[date, date], _Page] = {}  # (period, the day after the value's last) -> where it was said
    begun: set[tuple[date, date]] = set()
    for page in pages:
        for one in page.observations:
            try:
                period, first, last = _day(one["date"]), _day(one["realtime_start"]), _day(one["realtime_end"])
                value = None if one["value"] == MISSING else float(one["value"])
                if value is not None and not math.isfinite(value):
                    raise ValueError(f"the value {one['value']!r} is not finite")
            except (KeyError, TypeError, ValueError) as problem:
                page.refused.append(
                    RefusedRow(symbol=name, rule="wrong_type", reason=f"{name}: {problem} in {dict(one)}", raw=dict(one))
                )
                continue
            begun.add((period, first))
            if value is not None and last < span.end:
                closed[period, last + _DAY] = page
            if not (span.carried and first == span.start):
                page.rows.append((period, first, value))
    for (period, day), page in closed.items():
        if (period, day) not in begun:
            page.rows.append((period, day, None))


def _table(name: str, rows: Sequence[tuple[date, date, float | None]], described: _Described) -> pa.Table:
    import numpy as np

    from flows.sources.shape import table_of

    vintages = [vintage for _, vintage, _ in rows]
    return table_of(
        DATASET,
        {
            "series": name,
            "period": [period for period, _, _ in rows],
            "vintage": vintages,
            "source": SOURCE,
            "value": np.array([math.nan if value is None else value for _, _, value in rows], dtype=np.float64),
            "unit": [described.unit_of(vintage) for vintage in vintages],
            "vintage_kind": "published",
            "available_at": available_from(vintages),
        },
        len(rows),
    )


def _answer(
    reply: Reply,
    request: Mapping[str, Any],
    rows: pa.Table | None,
    names: tuple[str, ...],
    refused: Sequence[RefusedRow],
    *,
    missing: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Answer:
    from flows.sources.shape import empty_rows

    return Answer(
        source=SOURCE,
        dataset=DATASET,
        origin=reply.origin,
        request=request,
        payload=reply.body,
        rows=empty_rows(DATASET) if rows is None else rows,
        names=names,
        refused=tuple(refused),
        missing=missing or {},
        notes=notes,
    )


def _listed(reply: Reply, said: Mapping[str, Any], what: str) -> list[Any]:
    found = said.get(what)
    if not isinstance(found, list):
        raise _unreadable(reply, f"no list of {what}")
    return found


def _count(reply: Reply, said: Mapping[str, Any]) -> int:
    count = said.get("count")
    if not isinstance(count, int):
        raise _unreadable(reply, f"a count of {count!r}")
    return count


def _day(text: Any) -> date:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no date")
    return date.fromisoformat(text)


def _unreadable(reply: Reply, why: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"{reply.origin} gave an answer that is none of FRED's: {why}", remedy="run the same command again")
