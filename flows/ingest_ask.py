"""Asks one source, so that one bad name costs its own rows only: retries by error class, halves of a failed request, giving up.

1. `Asker.answers` puts a request to the source (`_put`) and repeats it while its failure is `Transient`.
2. A request of several names that still fails is asked again in halves, breadth first, down to single names: one bad name among
   n costs about 2 log2(n) requests more, and none where all is well.
3. A source that has answered nothing for a long time (`_Health`) is not asked any more in this run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from config.errors import DataError, QuantError, ServiceError, ServiceUnavailable, Transient, UnknownNameError
from config.orchestration import wait_before_retry
from flows.ingest_plan import Request, is_incremental
from flows.sources.base import Answer, Source

__all__ = ["Ask", "Asker", "Unanswered"]

Ask = Callable[[Any, Sequence[str], date | None, date | None], Iterator[Answer]]

RETRIES = 3
RETRIES_OF_A_PART = 1  # the whole request has been repeated already
FIRST_DELAY_SECONDS = 2.0
# A source is given up when so many requests in a row failed for want of an answer, over at least so long.
GIVE_UP_AFTER_REQUESTS = 12
GIVE_UP_AFTER_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Unanswered:
    """A name for which a source failed."""

    name: str
    failure: QuantError


@dataclass
class _Health:
    """Whether a source still answers at all."""

    failures_in_a_row: int = 0
    since: float = field(default_factory=time.monotonic)

    def answered(self) -> None:
        self.failures_in_a_row = 0

    def failed(self, failure: QuantError) -> None:
        if not isinstance(failure, Transient):
            self.failures_in_a_row = 0  # it answered: with a refusal
            return
        if self.failures_in_a_row == 0:
            self.since = time.monotonic()
        self.failures_in_a_row += 1

    @property
    def hopeless(self) -> bool:
        silent = time.monotonic() - self.since
        return self.failures_in_a_row >= GIVE_UP_AFTER_REQUESTS and silent >= GIVE_UP_AFTER_SECONDS


class Asker:
    """Asks one source, for one run.

    Parameters
    ----------
    source : Source
    ask : callable
        ``ask(source, names, start, end)`` yields the source's answers.
    """

    def __init__(self, source: Source, ask: Ask) -> None:
        self.source = source
        self._ask = ask
        self._health = _Health()

    def answers(self, request: Request) -> Iterator[tuple[Answer, ...] | Unanswered]:
        """What the source says, as it comes, and the names for which it failed.

        An incremental source's answers to one request come together or not at all: a history that is stored in part would be taken
        for whole by the next run.

        Raises
        ------
        QuantError
            Anything but a failure of the source: a wrong option, a full disk.
        """
        waiting = deque([(request, RETRIES)])
        while waiting:
            part, retries = waiting.popleft()
            if self._health.hopeless:
                yield from self._given_up(part)
                continue
            try:
                yield from self._put(part, retries)
                self._health.answered()
            except (ServiceError, DataError, UnknownNameError) as failure:
                self._health.failed(failure)
                if len(part.names) == 1:
                    yield Unanswered(name=part.names[0], failure=failure)
                    continue
                left = RETRIES_OF_A_PART if isinstance(failure, Transient) else retries
                waiting.extend((half, left) for half in part.halves())

    def _put(self, request: Request, retries: int) -> Iterator[tuple[Answer, ...]]:
        """Ask, and again while the failure is transient; an answer that came before the failure is not given twice."""
        given: set[str] = set()
        for attempt in range(retries + 1):
            try:
                answers = self._ask(self.source, request.names, request.start, request.end)
                if is_incremental(self.source):
                    yield tuple(answers)
                    return
                for answer in answers:
                    if answer.ingest_id not in given:
                        given.add(answer.ingest_id)
                        yield (answer,)
                return
            except ServiceError as failure:
                if attempt == retries or not isinstance(failure, Transient):
                    raise
                time.sleep(wait_before_retry(failure, attempt, FIRST_DELAY_SECONDS))

    def _given_up(self, request: Request) -> Iterator[Unanswered]:
        failure = ServiceUnavailable(
            f"{self.source.name} was not asked: it gave no answer to the {self._health.failures_in_a_row} requests before, over "
            f"{time.monotonic() - self._health.since:.0f} s",
            remedy="run the same command again when it answers",
        )
        yield from (Unanswered(name=name, failure=failure) for name in request.names)
