"""A small ALFRED for tests: answers as the API of FRED does, from a list of what was published on which day.

Hand-made after the documentation of api.stlouisfed.org and after recorded answers: real time is clipped to what was asked, no more
than 2,000 vintages are answered at a time, pages have a limit, failures are a 400 with `error_message`, and without
``file_type=json`` the answer is XML (which is what fredapi asks for).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from xml.sax.saxutils import quoteattr

from tests.replay import Question, Reply

HOST = "api.stlouisfed.org"
GONE = object()  # an observation that FRED has no longer
FIRST, LAST = date(1776, 7, 4), date(9999, 12, 31)
DAY = timedelta(days=1)
MOST_VINTAGES = 2000
Release = tuple[date, Mapping[date, Any]]  # the day, and what changed: period -> text of the value, or GONE


@dataclass
class Alfred:
    """The service.

    Parameters
    ----------
    key : str
        The only one that is registered.
    releases : mapping
        Series to what was published, in the order of the days.
    units : mapping
        Series to (from, unit), the oldest first.
    without_vintages : sequence of str
        In FRED and not in ALFRED.
    page : int
        Observations (and vintage dates) a page at most.
    """

    key: str
    releases: dict[str, list[Release]]
    units: Mapping[str, Sequence[tuple[date, str]]] = field(default_factory=dict)
    without_vintages: Sequence[str] = ()
    page: int = 100_000
    hosts: Sequence[str] = (HOST,)

    def answer(self, question: Question) -> Reply | None:
        """As the API would."""
        query = {name: str(value) for name, value in question.query.items()}
        as_xml = query.get("file_type") != "json"
        if query.get("api_key") != self.key:
            return _failure("Bad Request.  The value for variable api_key is not registered.", as_xml)
        series = query.get("series_id", "")
        if series in self.without_vintages:
            return _failure("Bad Request.  The series does not exist in ALFRED but may exist in FRED.", as_xml)
        if series not in self.releases:
            return _failure("Bad Request.  The series does not exist.", as_xml)
        start, end = (date.fromisoformat(query[name]) if name in query else None for name in ("realtime_start", "realtime_end"))
        today = max(day for day, _ in self.releases[series])
        if question.path == "/fred/series":
            return self._described(series, start or today, end or today, as_xml)
        if question.path == "/fred/series/vintagedates":
            return self._vintage_dates(series, start or FIRST, end or LAST, int(query.get("offset", 0)), as_xml)
        if question.path == "/fred/series/observations":
            return self._observations(series, start or today, end or today, query, as_xml)
        return None

    def intervals(self, series: str) -> list[tuple[date, str, date, date]]:
        """Period, value, first and last day of its real time: each value is valid until another takes its place."""
        steps: dict[date, list[tuple[date, Any]]] = {}
        for day, changed in self.releases[series]:
            for period, value in changed.items():
                steps.setdefault(period, []).append((day, value))
        found: list[tuple[date, str, date, date]] = []
        for period, of in sorted(steps.items()):
            for (day, value), following in zip(of, [*of[1:], None], strict=True):
                if value is not GONE:
                    found.append((period, value, day, LAST if following is None else following[0] - DAY))
        return found

    def _observations(self, series: str, start: date, end: date, query: Mapping[str, str], as_xml: bool) -> Reply:
        days = [day for day, _ in self.releases[series] if start <= day <= end]
        if len(days) > MOST_VINTAGES:
            message = (
                f"Bad Request.  There are {len(days)} vintage dates in the specified real-time period: {start} to {end}.  "
                f"This exceeds the maximum number of vintage dates allowed ({MOST_VINTAGES})."
            )
            return _failure(message, as_xml)
        low, high = query.get("observation_start", "0000"), query.get("observation_end", "9999")
        rows = [
            {
                "realtime_start": max(a, start).isoformat(),
                "realtime_end": min(b, end).isoformat(),
                "date": p.isoformat(),
                "value": v,
            }
            for p, v, a, b in self.intervals(series)
            if a <= end and b >= start and low <= p.isoformat() <= high
        ]
        offset = int(query.get("offset", 0))
        head = {"realtime_start": str(start), "realtime_end": str(end), "count": len(rows), "offset": offset, "limit": self.page}
        return _success(head, "observations", rows[offset : offset + self.page], as_xml)

    def _vintage_dates(self, series: str, start: date, end: date, offset: int, as_xml: bool) -> Reply:
        days = [day.isoformat() for day, _ in self.releases[series] if start <= day <= end]
        head = {"count": len(days), "offset": offset, "limit": self.page}
        return _success(head, "vintage_dates", days[offset : offset + self.page], as_xml)

    def _described(self, series: str, start: date, end: date, as_xml: bool) -> Reply:
        units = self.units.get(series, [(self.releases[series][0][0], "Percent")])
        ends = [*(day - DAY for day, _ in units[1:]), LAST]
        rows = [
            {
                "id": series,
                "realtime_start": max(day, start).isoformat(),
                "realtime_end": min(until, end).isoformat(),
                "title": f"Made-up {series}",
                "frequency": "Quarterly",
                "units": unit,
                "seasonal_adjustment": "Not Seasonally Adjusted",
                "last_updated": "2024-01-02 08:31:04-06",
            }
            for (day, unit), until in zip(units, ends, strict=True)
            if day <= end and until >= start
        ]
        return _success({"realtime_start": str(start), "realtime_end": str(end)}, "seriess", rows, as_xml)


def _success(head: Mapping[str, Any], name: str, rows: Sequence[Any], as_xml: bool) -> Reply:
    if not as_xml:
        return Reply(status=200, body=json.dumps({**head, name: rows}).encode(), content_type="application/json; charset=UTF-8")
    return as_fredapi_reads(name, rows, head)


def as_fredapi_reads(name: str, rows: Sequence[Any], head: Mapping[str, Any] | None = None) -> Reply:
    """The XML answer that holds the same as a JSON answer's list `name`."""
    child = {"observations": "observation", "vintage_dates": "vintage_date", "seriess": "series"}[name]
    inner = "".join(
        f"<{child}>{row}</{child}>"
        if isinstance(row, str)
        else f"<{child} {' '.join(f'{key}={quoteattr(str(value))}' for key, value in row.items())}/>"
        for row in rows
    )
    about = " ".join(f"{key}={quoteattr(str(value))}" for key, value in (head or {}).items())
    body = f'<?xml version="1.0" encoding="utf-8" ?><{name} {about}>{inner}</{name}>'
    return Reply(status=200, body=body.encode(), content_type="text/xml; charset=UTF-8")


def _failure(message: str, as_xml: bool) -> Reply:
    if as_xml:
        return Reply(status=400, body=f'<error code="400" message={quoteattr(message)}/>'.encode(), content_type="text/xml")
    return Reply(status=400, body=json.dumps({"error_code": 400, "error_message": message}).encode())
