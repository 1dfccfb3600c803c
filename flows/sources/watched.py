"""Watch a client library's `requests` session: time-outs, pauses, the bytes of each answer, and failures by their names.

Client libraries read failures in their own ways (a page of HTML as no candles, half a body as a programming error). `watch` names
them where they happen, with the classes that `flows.sources.http` uses, before the library sees the answer. What is left to the
library are the answers that a vendor gave on purpose: 2xx with JSON, and the 4xx about names and windows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from config.clock import Clock, SystemClock
from config.errors import RateLimited, ServiceError, ServiceUnavailable
from config.settings import Settings
from flows.sources.http import moment_of, retry_after

if TYPE_CHECKING:
    import requests

__all__ = ["Seen", "Watch", "watch"]

_MOST_SHOWN = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One answer, byte for byte."""

    origin: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(kw_only=True)
class Watch:
    """What a session was answered since `take` was last called."""

    source: str
    secrets: tuple[str, ...] = field(repr=False)
    seen: list[Seen] = field(default_factory=list, repr=False)

    def take(self) -> list[Seen]:
        """The answers since the last call."""
        taken, self.seen = self.seen, []
        return taken

    def shown(self, text: str) -> str:
        """A text without keys."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def moment(self, answers: Sequence[Seen], clock: Clock | None) -> datetime:
        """The moment of the last answer: by the clock that was handed in, else its Date header, else the machine's clock."""
        if clock is not None:
            return clock.now()
        return (moment_of(answers[-1].headers.get("date")) if answers else None) or SystemClock().now()

    def note(self, answer: requests.Response) -> None:
        """Keep an answer, or raise what it is.

        Raises
        ------
        RateLimited, ServiceUnavailable, ServiceError
        """
        import requests

        origin = self.shown(answer.url)
        try:
            body = answer.content
        except requests.RequestException as problem:
            raise self.no_answer(origin, problem) from None
        status, words = answer.status_code, self.shown(" ".join(body.decode("utf-8", "replace").split()))[:_MOST_SHOWN]
        if status == 429:
            seconds = retry_after(answer.headers.get("retry-after"))
            asked = "" if seconds is None else f" for {seconds:g} s"
            raise RateLimited(f"{self.source} asks us to wait{asked} ({origin})", retry_after_seconds=seconds)
        if status in (401, 403):
            raise ServiceError(
                f"{self.source} refuses the key ({status} from {origin}): {words}", remedy="check the key and its plan"
            )
        if status >= 500 or status in (408, 425):
            raise ServiceUnavailable(f"{origin} answered {status}: {words}", remedy="run the same command again")
        try:
            json.loads(body)
        except ValueError:
            raise ServiceUnavailable(
                f"{origin} did not answer with JSON ({status}): {words!r}", remedy="run the same command again"
            ) from None
        self.seen.append(Seen(origin=origin, body=body, headers={name.lower(): value for name, value in answer.headers.items()}))

    def no_answer(self, url: str, problem: Exception) -> ServiceUnavailable:
        """The error for an answer that did not come."""
        why = self.shown(str(problem) or type(problem).__name__)[: 2 * _MOST_SHOWN]
        return ServiceUnavailable(
            f"{self.source} gave no answer ({self.shown(url)}): {why}", remedy="check the network and run it again"
        )


def watch(session: Any, source: str, settings: Settings, *, secrets: Sequence[SecretStr] = ()) -> Watch:
    """Watch a `requests.Session`.

    Parameters
    ----------
    session : requests.Session
        Its adapters are replaced; none of its requests waits longer than `data.timeout_seconds`, none is repeated below the
        library, and two are `data.seconds_between_requests` apart.
    source : str
        As in the settings and in errors.
    secrets : sequence of SecretStr
        Cut out of every address and every error.
    """
    import requests
    from requests.adapters import HTTPAdapter

    watched = Watch(source=source, secrets=tuple(one.get_secret_value() for one in secrets))
    interval = settings.data.seconds_between_requests.get(source, 0.0)

    class Patient(HTTPAdapter):
        next_at = 0.0

        def send(
            self,
            request: requests.PreparedRequest,
            stream: bool = False,
            timeout: Any = None,
            verify: bool | str = True,
            cert: Any = None,
            proxies: Any = None,
        ) -> requests.Response:
            wait = self.next_at - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            self.next_at = time.monotonic() + interval
            try:
                return super().send(request, stream, settings.data.timeout_seconds, verify, cert, proxies)
            except requests.RequestException as problem:
                raise watched.no_answer(_without_query(request.url or ""), problem) from None

    def hook(answer: requests.Response, *_: Any, **__: Any) -> None:
        watched.note(answer)

    adapter = Patient(max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.hooks["response"].append(hook)
    return watched


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
