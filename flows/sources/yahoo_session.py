"""The HTTP session that yfinance is given: it keeps Yahoo's bytes, waits its turn, and names every failure.

yfinance takes a session of the caller's (a supported parameter). Through this one every answer of a data address passes before
yfinance reads it, so that a failure is named by what it is: yfinance itself words a 500, half a JSON and a reset connection as
"possibly delisted".

1. `YahooSession.request` waits (`_wait_for_turn`), asks with a time-out, and passes on what is not data (cookies, the crumb).
2. `_refuse_failure` turns 429, 5xx and what is no JSON into errors.
3. What Yahoo itself says in a JSON error is raised as `Told`, which stops yfinance from asking three more times.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from curl_cffi import requests as curl
from curl_cffi.requests.exceptions import RequestException, Timeout

from config.errors import RateLimited, ServiceUnavailable
from config.settings import Settings

__all__ = ["DataReply", "Told", "YahooSession"]

_ENVELOPES = {"/v8/finance/chart/": "chart", "/v7/finance/options/": "optionChain"}
DATA_PATHS = tuple(_ENVELOPES)
_AGAIN = "run the same command again"
_MOST_SHOWN = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReply:
    """One answer of a data address.

    Parameters
    ----------
    origin : str
        The address asked, without the crumb.
    path : str
    params : mapping
        The query, without the crumb.
    body : bytes
        As it came, decompressed where the transport had compressed it.
    document : object
        The body as JSON.
    """

    origin: str
    path: str
    params: Mapping[str, str]
    status: int
    body: bytes = field(repr=False)
    document: Any = field(repr=False)


class Told(Exception):
    """Yahoo answered with an error of its own, in JSON: a word about the question, not a failure.

    Parameters
    ----------
    code, description : str
        Yahoo's words: ``Not Found``, ``No data found, symbol may be delisted``.
    """

    def __init__(self, reply: DataReply, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}")
        self.reply = reply
        self.code = code
        self.description = description

    @property
    def no_such_symbol(self) -> bool:
        """Whether Yahoo says that it has no such symbol."""
        return self.code == "Not Found"


class YahooSession(curl.Session):  # type: ignore[type-arg]
    """A curl_cffi session as yfinance makes one itself (a browser's handshake), with care.

    Parameters
    ----------
    settings : Settings
        `data.timeout_seconds`, `data.seconds_between_requests["yahoo"]`; `data.addresses["yahoo"]` is a prefix before Yahoo's
        hosts: ``<address>/query2.finance.yahoo.com/v8/…``.

    Attributes
    ----------
    replies : list of DataReply
        Answers of data addresses that are answers, in order; the caller empties it.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(impersonate="chrome")
        self.replies: list[DataReply] = []
        self._limit = settings.data.timeout_seconds
        self._interval = settings.data.seconds_between_requests.get("yahoo", 0.0)
        self._prefix = settings.data.addresses.get("yahoo", "").rstrip("/")
        self._turns = threading.Lock()
        self._next_at = 0.0

    def request(self, method: Any, url: str, *args: Any, **named: Any) -> Any:
        """Ask.

        Raises
        ------
        ServiceUnavailable, RateLimited
            A data address gave no answer, or asks us to wait.
        Told
            Yahoo says what is wrong with the question.
        """
        named["timeout"] = self._limit
        place = urlsplit(url)
        of_data = place.path.startswith(DATA_PATHS)
        params = _without_crumb(
            {**dict(parse_qsl(place.query)), **{str(k): str(v) for k, v in (named.get("params") or {}).items()}}
        )
        origin = f"{place.scheme}://{place.netloc}{place.path}{'?' if params else ''}{urlencode(params)}"
        self._wait_for_turn()
        try:
            answer = super().request(method, self._address(url), *args, **named)
        except RequestException as problem:
            if not of_data:
                raise  # a cookie or a crumb: yfinance goes on without
            words = (
                f"no answer within {self._limit:g} s" if isinstance(problem, Timeout) else str(problem).partition(" See https")[0]
            )
            raise ServiceUnavailable(
                f"yahoo gave no answer ({origin}): {words}", remedy="check the network and run it again"
            ) from None
        if of_data:
            self._take(answer, origin, place.path, params)
        return answer

    def _take(self, answer: Any, origin: str, path: str, params: Mapping[str, str]) -> None:
        """Keep an answer, or raise what it is instead of one."""
        place = next(start for start in DATA_PATHS if path.startswith(start))
        _refuse_failure(answer, origin)
        document = _json(answer, origin)
        reply = DataReply(
            origin=origin, path=path, params=params, status=answer.status_code, body=bytes(answer.content), document=document
        )
        self.replies.append(reply)
        if answer.status_code in (401, 403):
            return  # yfinance fetches a new crumb and asks again
        error = _error(document, _ENVELOPES[place])
        if error is not None:
            raise Told(reply, *error)
        if answer.status_code >= 400:  # "HTTP 404 Not Found" of the whole service says nothing about a symbol
            words = f"{origin} answered {answer.status_code}: {_shown(answer.content)}"
            raise ServiceUnavailable(words, remedy=f"{_AGAIN}; if it lasts, Yahoo or yfinance has changed")

    def _address(self, url: str) -> str:
        return f"{self._prefix}/{url.partition('://')[2]}" if self._prefix else url

    def _wait_for_turn(self) -> None:
        with self._turns:
            now = time.monotonic()
            wait = self._next_at - now
            self._next_at = max(now, self._next_at) + self._interval
        if wait > 0:
            time.sleep(wait)


def _without_crumb(params: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in params.items() if name != "crumb"}


def _refuse_failure(answer: Any, origin: str) -> None:
    status = answer.status_code
    if status == 429:
        seconds = _seconds(answer.headers.get("retry-after"))
        asked = "" if seconds is None else f" for {seconds:g} s"
        raise RateLimited(f"yahoo asks us to wait{asked} ({origin})", retry_after_seconds=seconds)
    if status >= 500 or status in (408, 425):
        raise ServiceUnavailable(f"{origin} answered {status}: {_shown(answer.content)}", remedy=_AGAIN)


def _seconds(said: str | None) -> float | None:
    """Seconds to wait; None where Yahoo names none, as it mostly does not."""
    try:
        return None if said is None else max(0.0, float(said))
    except ValueError:
        return None  # a date: the caller's own backoff decides


def _json(answer: Any, origin: str) -> Any:
    said = answer.headers.get("content-type") or ""
    if said and "json" not in said:
        raise ServiceUnavailable(f"{origin} answered with {said}, not with json: {_shown(answer.content)}", remedy=_AGAIN)
    try:
        return json.loads(answer.content)
    except ValueError as problem:
        words = f"{origin} did not answer with JSON ({problem}): {_shown(answer.content)}"
        raise ServiceUnavailable(words, remedy=_AGAIN) from None


def _error(document: Any, envelope: str) -> tuple[str, str] | None:
    """Code and description of the error about the question; None: there is none."""
    content = document.get(envelope) if isinstance(document, dict) else None
    error = content.get("error") if isinstance(content, dict) else None
    if isinstance(error, dict):
        return str(error.get("code", "")), str(error.get("description", ""))
    return ("", str(error)) if error else None


def _shown(body: bytes) -> str:
    return repr(" ".join(body[:_MOST_SHOWN].decode("utf-8", "replace").split()))
