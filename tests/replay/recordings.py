"""Recorded answers in a folder, found by the question.

A folder holds `index.json`, a list of entries {id, method, host, path, query, status, content_type, headers, body_file, recorded},
and the bodies. An entry of ours may add ``"match": {"ignore": ["period1"]}``: parameters that do not tell questions apart.

A recording answers a question of the same method, host and path when each parameter it was recorded with has the same value in
the question, keys aside (`SECRET`). The question may have parameters more, but none that leads to another page (`PAGING`).
Of several the one with most parameters in common is taken, then the one with fewest left over, then the newest.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

__all__ = ["PAGING", "SECRET", "Question", "Recording", "Recordings", "Reply", "Service", "moment"]

SECRET = frozenset({"api_key", "apikey", "token", "crumb"})  # in lower case
PAGING = frozenset({"cursor", "offset", "$offset", "page", "page_token", "next_page_token"})
_OWN_HEADERS = frozenset({"content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "keep-alive"})

Query = Mapping[str, str | list[str]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a client asked, and the status it was answered with.

    Parameters
    ----------
    path : str
        Percent-decoded, with its leading slash.
    query : mapping
        Decoded; a repeated parameter is a list.
    headers : mapping
        Names in lower case.
    """

    method: str
    host: str
    path: str
    query: Query
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    status: int = 0

    @property
    def words(self) -> str:
        """``host/path?name=value&…``, decoded, as a fault's `match` sees it."""
        pairs = [f"{name}={value}" for name, many in self.query.items() for value in _listed(many)]
        return f"{self.host}{self.path}{'?' if pairs else ''}{'&'.join(pairs)}"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What goes back: status, body, headers (content length and connection are the server's business)."""

    status: int
    body: bytes = field(repr=False)
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Service(Protocol):
    """Answers questions that no folder of recordings could hold all answers to."""

    hosts: Collection[str]

    def answer(self, question: Question) -> Reply | None:
        """The answer; None: not one of its questions, ask the recordings."""
        ...


@dataclass(frozen=True)
class Recording:
    """One entry of an index."""

    folder: Path
    entry: Mapping[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """Its name in the index."""
        return str(self.entry["id"])

    @cached_property
    def place(self) -> tuple[str, str, str]:
        """Method, host, decoded path."""
        return str(self.entry.get("method", "GET")).upper(), str(self.entry["host"]).lower(), unquote(str(self.entry["path"]))

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The parameters it was recorded with, as lists of text."""
        return {name: [str(one) for one in _listed(value)] for name, value in (self.entry.get("query") or {}).items()}

    @cached_property
    def ignored(self) -> frozenset[str]:
        """Parameters that do not tell questions apart, lower case."""
        return SECRET | {name.lower() for name in (self.entry.get("match") or {}).get("ignore", ())}

    @cached_property
    def recorded(self) -> datetime:
        """When it was recorded."""
        return moment(str(self.entry["recorded"]))

    def body(self) -> bytes:
        """The body, byte for byte."""
        return (self.folder / str(self.entry["body_file"])).read_bytes()

    def reply(self) -> Reply:
        """The recorded answer."""
        headers = [
            (name, str(one))
            for name, value in (self.entry.get("headers") or {}).items()
            if name.lower() not in _OWN_HEADERS
            for one in _listed(value)
        ]
        return Reply(
            status=int(self.entry["status"]),
            body=self.body(),
            content_type=str(self.entry["content_type"]),
            headers=tuple(headers),
        )

    def score(self, query: Query) -> tuple[int, int] | None:
        """How well it fits: parameters in common, minus those left over; None: it answers another question."""
        asked = {name: _listed(value) for name, value in query.items() if name.lower() not in self.ignored}
        wanted = {name: value for name, value in self.query.items() if name.lower() not in self.ignored}
        if any(asked.get(name) != value for name, value in wanted.items()):
            return None
        over = asked.keys() - wanted.keys()
        if any(name.lower() in PAGING and asked[name] not in ([""], ["0"]) for name in over):
            return None
        return len(wanted), -len(over)


class Recordings:
    """The recordings of several folders.

    Parameters
    ----------
    folders : sequence of Path
    as_recorded_at : datetime, optional
        Nothing recorded later is known yet.
    only : collection of str, optional
        The ids that are served; None: all.
    """

    def __init__(
        self, folders: Sequence[Path], *, as_recorded_at: datetime | None = None, only: Collection[str] | None = None
    ) -> None:
        every = [
            Recording(Path(folder), entry)
            for folder in folders
            for entry in json.loads((Path(folder) / "index.json").read_text(encoding="utf-8"))
        ]
        if only is not None:
            lacking = set(only) - {one.id for one in every}
            if lacking:
                raise ValueError(f"no recording is called {', '.join(sorted(lacking))}")
            every = [one for one in every if one.id in only]
        self._by_place: dict[tuple[str, str, str], list[Recording]] = {}
        for one in every:
            self._by_place.setdefault(one.place, []).append(one)
        self._as_recorded_at = as_recorded_at

    def find(self, question: Question) -> Recording | str:
        """The recording that answers; else, in words, why none does."""
        place = (question.method, question.host.lower(), question.path)
        there = self._by_place.get(place) or (self._by_place.get(("GET", *place[1:])) if question.method == "HEAD" else None)
        if not there:
            return f"nothing is recorded of {question.method} {question.words}"
        scored = [(score, one) for one in there if (score := one.score(question.query)) is not None]
        if not scored:
            others = "; ".join(json.dumps(one.query) for one in there[:5])
            return f"nothing is recorded of {question.words}; the same path was recorded with {others}"
        if self._as_recorded_at is not None:
            scored = [(score, one) for score, one in scored if one.recorded <= self._as_recorded_at]
            if not scored:
                return f"{question.words} was recorded only after {self._as_recorded_at.isoformat()}"
        best = max(score for score, _ in scored)
        return max((one for score, one in scored if score == best), key=lambda one: one.recorded)  # of equals the first listed


def moment(recorded: str) -> datetime:
    """When something was recorded: a moment, a day, a year or years (``2022-2025``: counts from the start of the last)."""
    text = recorded.strip()
    if text.isdigit() or (len(text) == 9 and text[4] == "-" and text[5:].isdigit()):
        return datetime(int(text[-4:]), 1, 1, tzinfo=UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = parsedate_to_datetime(text)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
