"""The replay server: recordings and services on a loopback port, as a plain prefix and as a proxy with a throw-away CA.

1. `_Handler` reads a request: ``GET /host/path`` (prefix), ``GET http://host/path`` (proxy) or ``CONNECT host:443``, after which
   it answers as that host, with a certificate of the throw-away CA.
2. `ReplayServer.reply` asks the services, then the recordings, and notes the question in `asked`.
3. `ReplayServer.fault` says whether that answer is to fail; `_Handler._spoil` makes it fail on the wire.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import ssl
import struct
import sys
import tempfile
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import trustme

from tests.replay.recordings import Question, Recordings, Reply, Service

__all__ = ["Fault", "ReplayServer"]

Kind = Literal["500", "502", "503", "429", "truncated", "half_body", "empty", "wrong_type", "reset", "slow"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to fail.

    Parameters
    ----------
    kind : str
        A status (``"500"``, ``"502"``, ``"503"`` with a page of HTML; ``"429"`` with Retry-After); ``truncated``: half the body,
        then the connection ends, although the header promised all; ``half_body``: half the body, as though it were all;
        ``empty``: no body at all; ``wrong_type``: a 200 with a page of HTML; ``reset``: the connection is reset before a byte of
        the answer; ``slow``: the answer comes after `seconds`.
    match : str
        A regular expression, searched in ``host/path?name=value&…`` (decoded); ``""``: every question.
    nth : int or collection of int, optional
        Which of the matching questions fail, counted from 1; None: all.
    retry_after : str
        Of a 429.
    seconds : float
        Of ``slow``.
    """

    kind: Kind
    match: str = ""
    nth: int | Collection[int] | None = None
    retry_after: str | None = "1"
    seconds: float = 5.0

    def hits(self, count: int) -> bool:
        """Whether the matching question number `count` fails."""
        return self.nth is None or (count == self.nth if isinstance(self.nth, int) else count in self.nth)


class ReplayServer:
    """Answers on loopback with what was recorded; a context manager.

    Parameters
    ----------
    *folders : Path
        Each with an `index.json`; see `tests.replay.recordings`.
    services : sequence of Service
        Asked before the recordings, each for its hosts.
    as_recorded_at : datetime, optional
        Serve as though it were then: nothing recorded later is known.
    faults : sequence of Fault
        The first that hits a question is the one it meets. `faults` may be assigned anew while the server runs.
    only : collection of str, optional
        Ids of the recordings that are served.

    Attributes
    ----------
    asked : list of Question
        In the order in which they came, with the status that was answered (0: none).
    errors : list of str
        What went wrong in the server itself, or on a connection (a client that does not trust the CA).
    """

    def __init__(
        self,
        *folders: Path,
        services: Sequence[Service] = (),
        as_recorded_at: datetime | None = None,
        faults: Sequence[Fault] = (),
        only: Collection[str] | None = None,
    ) -> None:
        self._recordings = Recordings(folders, as_recorded_at=as_recorded_at, only=only)
        self._services = tuple(services)
        self._faults: tuple[Fault, ...] = ()
        self._counts: list[int] = []
        self._lock = threading.Lock()
        self.faults = faults
        self.asked: list[Question] = []
        self.errors: list[str] = []
        self.closing = threading.Event()
        self._authority = trustme.CA()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._http: _Listener | None = None

    @property
    def faults(self) -> Sequence[Fault]:
        """The faults in force; assigning counts anew."""
        return self._faults

    @faults.setter
    def faults(self, faults: Sequence[Fault]) -> None:
        with self._lock:
            self._faults = tuple(faults)
            self._counts = [0] * len(self._faults)

    def __enter__(self) -> ReplayServer:
        self._folder = tempfile.TemporaryDirectory(prefix="replay-")
        self._authority.cert_pem.write_to_path(str(self.authority_path))
        self._http = _Listener(self)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._http is not None
        assert self._folder is not None
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._folder.cleanup()

    @property
    def port(self) -> int:
        """The loopback port."""
        assert self._http is not None, "the server is a context manager: enter it first"
        return int(self._http.server_address[1])

    @property
    def authority_path(self) -> Path:
        """The CA's certificate, PEM."""
        assert self._folder is not None, "the server is a context manager: enter it first"
        return Path(self._folder.name) / "authority.pem"

    def address(self, host: str) -> str:
        """The base address that stands for ``https://host``: a value for `data.addresses`."""
        return f"http://127.0.0.1:{self.port}/{host}"

    def proxy_environment(self) -> dict[str, str]:
        """Variables that lead a client library here, which cannot be told another address."""
        here, authority = f"http://127.0.0.1:{self.port}", str(self.authority_path)
        return {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), here),
            **dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"), authority),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def asked_paths(self, host: str = "") -> list[str]:
        """The paths that were asked, of one host or all."""
        return [question.path for question in self.asked if host in ("", question.host)]

    def reply(self, question: Question) -> tuple[Reply, Fault | None]:
        """The answer to a question, and the fault it meets."""
        with self._lock:
            fault = self._fault(question)
        answer = self._answer(question)
        if fault is not None:
            answer = _failing(fault, answer)
        with self._lock:
            self.asked.append(replace(question, status=0 if fault and fault.kind == "reset" else answer.status))
        return answer, fault

    def context(self, host: str) -> ssl.SSLContext:
        """TLS as that host."""
        with self._lock:
            if host not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._authority.issue_cert(host).configure_cert(context)
                context.set_alpn_protocols(["http/1.1"])
                self._contexts[host] = context
            return self._contexts[host]

    def _fault(self, question: Question) -> Fault | None:
        hit: Fault | None = None
        for number, fault in enumerate(self._faults):
            if re.search(fault.match, question.words):
                self._counts[number] += 1
                if hit is None and fault.hits(self._counts[number]):
                    hit = fault
        return hit

    def _answer(self, question: Question) -> Reply:
        for service in self._services:
            if question.host in service.hosts:
                answer = service.answer(question)
                if answer is not None:
                    return answer
        found = self._recordings.find(question)
        if isinstance(found, str):
            return Reply(status=404, body=f"replay server: {found}\n".encode(), content_type="text/plain; charset=utf-8")
        return found.reply()


def _failing(fault: Fault, answer: Reply) -> Reply:
    """What a fault makes of an answer before it is sent."""
    page = b"<!DOCTYPE html><html><body><h1>Our engineers are working quickly to resolve the issue</h1></body></html>"
    if fault.kind.isdigit():
        headers = (("Retry-After", fault.retry_after),) if fault.kind == "429" and fault.retry_after is not None else ()
        body = b"Too Many Requests\r\n" if fault.kind == "429" else page
        return Reply(status=int(fault.kind), body=body, content_type="text/html; charset=utf-8", headers=headers)
    if fault.kind == "wrong_type":
        return Reply(status=200, body=page, content_type="text/html; charset=utf-8")
    if fault.kind == "half_body":
        return replace(answer, body=answer.body[: len(answer.body) // 2])
    return replace(answer, body=b"") if fault.kind == "empty" else answer


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, replay: ReplayServer) -> None:
        self.replay = replay
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        """As the base class, without asking a name server for the machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.replay.errors.append(repr(sys.exc_info()[1]))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60.0
    server: _Listener

    tunnel: str | None = None

    def do_CONNECT(self) -> None:
        """Become the host that was asked for."""
        host = self.path.rpartition(":")[0].strip("[]").lower()
        self.send_response_only(200, "Connection established")
        self.end_headers()
        self.wfile.flush()
        try:
            self.connection = self.server.replay.context(host).wrap_socket(self.connection, server_side=True)
        except OSError as problem:  # ssl.SSLError is one: the client does not trust the CA, or left
            self.server.replay.errors.append(f"TLS as {host}: {problem}")
            self.close_connection = True
            return
        self.request = self.connection
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        self.wfile = self.connection.makefile("wb", self.wbufsize)
        self.tunnel = host
        self.close_connection = False

    def do_GET(self) -> None:
        """Any method: ask, answer, or fail."""
        try:
            question = self._question()
        except ValueError as problem:
            self._send(Reply(status=400, body=f"replay server: {problem}\n".encode(), content_type="text/plain"))
            return
        answer, fault = self.server.replay.reply(question)
        if fault is not None and not self._spoil(fault, answer):
            return
        self._send(answer)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _question(self) -> Question:
        parts = urlsplit(self.path)
        path = parts.path or "/"
        if self.tunnel is not None:
            host = self.tunnel
        elif parts.scheme:
            host = parts.hostname or ""
        else:
            host, _, rest = path.lstrip("/").partition("/")
            path = f"/{rest}"
        query: dict[str, str | list[str]] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            before = query.get(name)
            query[name] = value if before is None else [*before, value] if isinstance(before, list) else [before, value]
        if "chunked" in self.headers.get("transfer-encoding", ""):
            raise ValueError("a chunked request body is not understood")
        return Question(
            method=self.command,
            host=host.lower(),
            path=unquote(path),
            query=query,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("content-length") or 0)),
        )

    def _spoil(self, fault: Fault, answer: Reply) -> bool:
        """Fail on the wire; whether the answer is to be sent after all."""
        if fault.kind == "slow":
            self.server.replay.closing.wait(fault.seconds)
            return True
        if fault.kind == "reset":
            self._reset()
            return False
        if fault.kind == "truncated":
            self._send(answer, promised=max(len(answer.body), 2), sent=answer.body[: len(answer.body) // 2])
            self.close_connection = True
            return False
        return True

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing now resets

    def _send(self, answer: Reply, *, promised: int | None = None, sent: bytes | None = None) -> None:
        self.send_response_only(answer.status)
        if not any(name.lower() == "date" for name, _ in answer.headers):  # a recorded Date is the moment of that answer
            self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", answer.content_type)
        for name, value in answer.headers:
            self.send_header(name, value)
        bodiless = self.command == "HEAD" or answer.status in (204, 304)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body) if promised is None else promised))
        self.end_headers()
        if not bodiless:
            self.wfile.write(answer.body if sent is None else sent)
        self.wfile.flush()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # reset by us, or gone
            super().finish()
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # the base class's name
        """Keep silent: `ReplayServer.asked` holds the questions."""
