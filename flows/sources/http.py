"""One careful HTTP client for every vendor that has no client library of its own: what went wrong is named, and no key is shown.

An answer that is none (no connection, a name that does not resolve, a time-out, half a body, a 5xx, another content type than
asked for) is a `ServiceUnavailable`; a 429 is a `RateLimited` with the seconds the vendor asked for; a refused key is a
`ServiceError` that no retry cures. None of them is ever an empty answer.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import weakref
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, quote_plus, urlencode

from pydantic import SecretStr

from config.errors import ConfigError, RateLimited, ServiceError, ServiceUnavailable
from config.settings import NAMED_VARIABLES, Settings

if TYPE_CHECKING:
    import httpx

__all__ = ["Reply", "VendorClient", "address_of", "keep_from_log", "moment_of", "require_key", "retry_after"]

_MOST_SHOWN = 200  # characters of a vendor's own words in an error
_LONGEST_ANSWER = 20  # times the time-out: an answer may take that long from its first byte to its last


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One answer, byte for byte.

    Parameters
    ----------
    status : int
        200 to 299, or one that the caller allowed.
    body : bytes
        Decompressed where the transport had compressed it.
    headers : mapping
        Names in lower case.
    origin : str
        The address asked, without keys: `Answer.origin`.
    secrets : tuple of str
        What `shown` cuts out of a text.
    """

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    origin: str
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def shown(self, text: str) -> str:
        """A text of the vendor's for an error: short, on one line, and without the keys, should it repeat them."""
        return _without(" ".join(text.split()), self.secrets)[:_MOST_SHOWN]

    @property
    def answered_at(self) -> datetime | None:
        """The moment of the answer by the vendor's own clock (the Date header), aware; None where it does not say."""
        return moment_of(self.headers.get("date"))

    def json(self) -> Any:
        """The body as JSON.

        Raises
        ------
        ServiceUnavailable
            It is not JSON (an error page, half a body): asked again, it may be.
        """
        try:
            return json.loads(self.body)
        except ValueError as problem:
            shown = self.shown(self.body.decode("utf-8", "replace"))
            raise ServiceUnavailable(
                f"{self.origin} did not answer with JSON ({problem}): {shown!r}", remedy="run the same command again"
            ) from None


class VendorClient:
    """Asks one vendor, politely: one connection pool, a time-out on every request, a smallest interval between requests.

    Parameters
    ----------
    source : str
        The source's name; `settings.data.addresses` may name another base address for it (a mirror, a test server).
    base : str
        The vendor's own base address.
    settings : Settings
        `data.timeout_seconds` and `data.seconds_between_requests`.
    headers : mapping, optional
        Sent with each request; keys belong here or in `params`.
    secrets : sequence of SecretStr
        Values that are cut out of every origin and every error.
    """

    def __init__(
        self,
        source: str,
        base: str,
        settings: Settings,
        *,
        headers: Mapping[str, str] | None = None,
        secrets: Sequence[SecretStr] = (),
    ) -> None:
        self.source = source
        self.base = address_of(source, base, settings)
        self._headers = dict(headers or {})
        self._secrets = tuple(secret.get_secret_value() for secret in secrets if secret.get_secret_value())
        keep_from_log(self._secrets)
        self._timeout = settings.data.timeout_seconds
        self._interval = settings.data.seconds_between_requests.get(source, 0.0)
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._http: httpx.Client | None = None

    def get(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        expect: Sequence[str] = ("json",),
        allow: Sequence[int] = (),
    ) -> Reply:
        """Ask for `path`.

        Parameters
        ----------
        path : str
            Below the base address; or a whole address that begins with it (a vendor's ``next_url``).
        params : mapping, optional
            The query; values None are left out.
        expect : sequence of str
            A word of which one must be in the answer's content type (``json``, ``csv``, ``zip``); empty: any. An answer
            without a content type is taken.
        allow : sequence of int
            Statuses beyond 2xx that are answers to the caller, such as 404.

        Raises
        ------
        ServiceUnavailable, RateLimited
            No answer; asked to wait. Both are cured by asking again.
        ServiceError
            The vendor refused the request or the key.
        """
        import httpx

        url = path if path.startswith(("http://", "https://")) else f"{self.base}/{path.lstrip('/')}"
        if url != self.base and not url.startswith((f"{self.base}/", f"{self.base}?")):
            raise ServiceError(f"{self.source} points to {self._shown(url)}, which is not below {self.base}: it is not followed")
        query = {name: value for name, value in (params or {}).items() if value is not None}
        origin = self._shown(f"{url}?{urlencode(query, doseq=True)}" if query else url)
        self._wait_for_turn()
        try:
            answer, body = self._exchange(url, query)
        except httpx.TimeoutException as problem:
            raise self._no_answer(origin, f"no answer within {self._timeout:g} s", problem) from None
        except (httpx.HTTPError, _NotWhole) as problem:
            raise self._no_answer(origin, self._shown(str(problem) or type(problem).__name__), problem) from None
        self._refuse_failure(answer, body, origin, allow)
        said = answer.headers.get("content-type", "")
        if answer.status_code not in allow and expect and said and not any(word in said for word in expect):
            shown = self._shown(body.decode("utf-8", "replace"))[:_MOST_SHOWN]
            raise ServiceUnavailable(
                f"{origin} answered with {said}, not with {' or '.join(expect)}: {shown!r}", remedy="run the same command again"
            )
        headers = dict(answer.headers)
        return Reply(status=answer.status_code, body=body, headers=headers, origin=origin, secrets=self._secrets)

    def _exchange(self, url: str, query: Mapping[str, Any]) -> tuple[httpx.Response, bytes]:
        """The answer and its body, whole and decompressed.

        The transport notices a body that is shorter than announced; what it does not notice is a compressed body that ends in the
        middle, and an answer that drips for ever without ever being silent for as long as the time-out.
        """
        parts: list[bytes] = []
        latest = time.monotonic() + self._timeout * _LONGEST_ANSWER
        with self._client().stream("GET", url, params=dict(query) or None) as answer:
            for part in answer.iter_raw():
                parts.append(part)
                if time.monotonic() > latest:
                    raise _NotWhole(f"still sending after {self._timeout * _LONGEST_ANSWER:g} s")
            return answer, _decompressed(b"".join(parts), answer.headers.get("content-encoding", ""))

    def _client(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._http is None:
                headers = {"Accept-Encoding": "gzip", **self._headers}
                self._http = httpx.Client(timeout=self._timeout, headers=headers, follow_redirects=False)
                weakref.finalize(self, self._http.close)  # its connections go with it
            return self._http

    def _wait_for_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            wait = self._next_at - now
            self._next_at = max(now, self._next_at) + self._interval
        if wait > 0:
            time.sleep(wait)

    def _refuse_failure(self, answer: httpx.Response, body: bytes, origin: str, allow: Sequence[int]) -> None:
        status = answer.status_code
        if answer.is_success or status in allow:
            return
        words = self._shown(" ".join(body.decode("utf-8", "replace").split()))[:_MOST_SHOWN]
        if status == 429:
            seconds = retry_after(answer.headers.get("retry-after"))
            asked = "" if seconds is None else f" for {seconds:g} s"
            raise RateLimited(f"{self.source} asks us to wait{asked} ({origin})", retry_after_seconds=seconds)
        if status in (401, 403):
            raise ServiceError(
                f"{self.source} refuses the key ({status} from {origin}): {words}",
                remedy=f"check {_variables(self.source)} in the environment",
            )
        if status >= 500 or status in (408, 425):
            raise ServiceUnavailable(f"{origin} answered {status}: {words}", remedy="run the same command again")
        raise ServiceError(f"{origin} answered {status}: {words}", remedy="check the names and the window that were asked for")

    def _no_answer(self, origin: str, why: str, problem: Exception) -> ServiceUnavailable:
        del problem  # it may hold the request with its headers: only its words are kept
        return ServiceUnavailable(f"{self.source} gave no answer ({origin}): {why}", remedy="check the network and run it again")

    def _shown(self, text: str) -> str:
        return _without(text, self._secrets)


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        for written in (secret, quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(written, "***")
    return text


class _LogFilter(logging.Filter):
    """httpx writes each address it asks, with its query, to its log: keys are cut out of it."""

    secrets: ClassVar[set[str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _without(record.getMessage(), self.secrets), ()
        return True


_LOG_FILTER = _LogFilter()


def keep_from_log(secrets: Iterable[str]) -> None:
    """Cut these values out of whatever httpx logs from now on, in this process."""
    _LogFilter.secrets.update(secrets)
    logging.getLogger("httpx").addFilter(_LOG_FILTER)  # the same filter is added once


class _NotWhole(Exception):
    """What came is not the whole answer."""


def _decompressed(body: bytes, encoding: str) -> bytes:
    """The body as the vendor wrote it."""
    named = encoding.strip().lower()
    if named in ("", "identity"):
        return body
    if named not in ("gzip", "x-gzip", "deflate"):
        raise _NotWhole(f"the body is compressed with {encoding!r}, which was not asked for")
    whole = b""
    while body:  # gzip allows several members, one after the other
        stream = zlib.decompressobj(wbits=47)  # gzip or zlib, as its first bytes say
        try:
            whole += stream.decompress(body)
        except zlib.error as problem:
            raise _NotWhole(f"the compressed body is damaged ({problem})") from None
        if not stream.eof:
            raise _NotWhole("the compressed body ends in the middle")
        body = stream.unused_data
    return whole


def address_of(source: str, own: str, settings: Settings) -> str:
    """The base address of a source: the setting `data.addresses`, else the vendor's own; without a slash at the end."""
    return settings.data.addresses.get(source, own).rstrip("/")


def require_key(settings: Settings, source: str, credential: str | None = None) -> SecretStr:
    """The key of a source, from the environment or the caller.

    Raises
    ------
    ConfigError
        There is none; the message names the variable.
    """
    key: SecretStr | None = getattr(settings.credentials, credential or source)
    if key is None or not key.get_secret_value().strip():
        name = next(n for n, place in NAMED_VARIABLES.items() if place == ("credentials", credential or source))
        raise ConfigError(f"the source {source} needs a key, and {name} is not set", remedy=f"set {name} in the environment")
    return key


def moment_of(said: str | None) -> datetime | None:
    """An HTTP date, aware, UTC; None where there is none or it cannot be read."""
    if not said:
        return None
    try:
        moment = parsedate_to_datetime(said)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else None


def _variables(source: str) -> str:
    of = [name for name, place in NAMED_VARIABLES.items() if place[0] == "credentials" and place[1].startswith(source)]
    return " and ".join(of) or "the key"


def retry_after(said: str | None) -> float | None:
    """Seconds to wait: the header holds them, or a date."""
    if not said:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    until = moment_of(said)
    return None if until is None else max(0.0, (until - datetime.now(UTC)).total_seconds())
