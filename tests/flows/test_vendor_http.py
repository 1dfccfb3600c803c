"""The client for vendors without a library of their own, against a server on loopback that misbehaves byte by byte."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr

from config.errors import RateLimited, ServiceError, ServiceUnavailable, Transient
from config.settings import load_settings
from flows.sources import http as vendor_http
from flows.sources.http import VendorClient

KEY = "a key/with+signs"
RESET = b"\x00reset"
SILENCE = b"\x00silence"


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None, kind: str = "application/json") -> bytes:
    """An HTTP answer, written out."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@contextmanager
def server(*answers: bytes) -> Iterator[tuple[str, list[str]]]:
    """Gives each connection the next answer and hangs up; yields its address and the requests it got."""
    got: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        for said in answers:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            got.append(connection.recv(65536).decode("latin-1"))
            if said == SILENCE:
                held.append(connection)
                continue
            if said == RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            else:
                connection.sendall(said)
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", got
    finally:
        listening.close()
        for one in held:
            one.close()
        thread.join(timeout=5)


def client(address: str, *, timeout: float = 5.0, headers: dict[str, str] | None = None, pause: float = 0.0) -> VendorClient:
    chosen = load_settings({"data.timeout_seconds": timeout, "data.seconds_between_requests": {"vendor": pause}})
    return VendorClient("vendor", address, chosen, headers=headers, secrets=(SecretStr(KEY),))


def failure(*answers: bytes, timeout: float = 5.0, expect: Sequence[str] = ("json",)) -> ServiceError:
    with server(*answers) as (address, _), pytest.raises(ServiceError) as raised:
        client(address, timeout=timeout).get("v1/bars", {"symbol": "A"}, expect=expect)
    return raised.value


def test_an_answer_comes_as_it_was_sent_with_its_address() -> None:
    body = b'{"a": [1, 2]}'
    with server(answer(body, "Date: Wed, 21 Oct 2015 07:28:00 GMT")) as (address, got):
        reply = client(address, headers={"X-Key": "k"}).get("/v1/bars", {"symbol": "A&B", "none": None})
    assert (reply.status, reply.body, reply.json()) == (200, body, {"a": [1, 2]})
    assert reply.origin == f"{address}/v1/bars?symbol=A%26B"
    assert reply.answered_at == datetime(2015, 10, 21, 7, 28, tzinfo=UTC)
    assert got[0].startswith("GET /v1/bars?symbol=A%26B HTTP/1.1\r\n")
    assert "x-key: k" in got[0].lower()


def test_a_compressed_answer_is_read_and_half_of_one_is_no_answer() -> None:
    body = json.dumps(list(range(5000))).encode()
    packed = gzip.compress(body)
    with server(answer(packed, "Content-Encoding: gzip")) as (address, _):
        assert client(address).get("x").body == body
    with server(answer(packed + gzip.compress(b" "), "Content-Encoding: gzip")) as (address, _):
        assert client(address).get("x").body == body + b" "
    # The announced length fits: whoever cut it also counted it (a proxy, a cache). Only the compression knows.
    said = failure(answer(packed[: len(packed) // 2], "Content-Encoding: gzip"))
    assert isinstance(said, ServiceUnavailable)
    assert "ends in the middle" in said.message
    assert "damaged" in failure(answer(b"not gzip at all", "Content-Encoding: gzip")).message
    assert "'br'" in failure(answer(packed, "Content-Encoding: br")).message


@pytest.mark.parametrize(
    "sent",
    [
        answer(b'{"a": [1, 2', length=4000),  # half a body, by the length that was announced
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1, 2\r\n",  # no last chunk
        b"HTTP/1.1 200 OK\r\nContent-Ty",  # half a head
        b"",  # hung up at once
        RESET,
        b"220 smtp.example ready\r\n",  # no HTTP at all
    ],
    ids=["short body", "short chunks", "half a head", "hung up", "reset", "another protocol"],
)
def test_what_is_not_a_whole_answer_is_unavailable_and_never_empty(sent: bytes) -> None:
    said = failure(sent)
    assert isinstance(said, ServiceUnavailable)
    assert "/v1/bars?symbol=A" in said.message


def test_silence_is_a_time_out() -> None:
    said = failure(SILENCE, timeout=0.2)
    assert isinstance(said, ServiceUnavailable)
    assert "no answer within 0.2 s" in said.message


def test_an_answer_that_drips_for_ever_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10_000, 30))
    monkeypatch.setattr(vendor_http.time, "monotonic", lambda: float(next(now)))
    drops = b"".join(b"1\r\n \r\n" for _ in range(100))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    said = failure(head + drops + b"0\r\n\r\n", timeout=1.0)
    assert "still sending after 20 s" in said.message


@pytest.mark.parametrize("status", ["500 Oops", "502 Bad Gateway", "503 Busy", "504 Late", "408 Slow", "425 Early"])
def test_a_server_in_trouble_is_unavailable(status: str) -> None:
    said = failure(answer(b"<html>sorry</html>", status=status, kind="text/html"))
    assert isinstance(said, ServiceUnavailable)
    assert status[:3] in said.message
    assert "sorry" in said.message


@pytest.mark.parametrize(("status", "words"), [("401 No", "refuses the key"), ("403 No", "refuses the key"), ("404 None", "404")])
def test_a_refusal_is_not_tried_again(status: str, words: str) -> None:
    said = failure(answer(b"{}", status=status))
    assert not isinstance(said, Transient)
    assert words in said.message


def test_a_redirect_is_refused_because_the_key_would_go_along() -> None:
    said = failure(answer(b"", "Location: http://127.0.0.1:9/elsewhere", status="302 Found"))
    assert "302" in said.message


def test_a_status_that_the_caller_allows_is_an_answer() -> None:
    with server(answer(b"<p>none</p>", status="404 None", kind="text/html")) as (address, _):
        assert client(address).get("x", allow=(404,)).status == 404


def test_a_wait_that_is_asked_for_is_told_in_seconds_or_as_a_date() -> None:
    limited = failure(answer(b"slow down", "Retry-After: 17", status="429 Too Many"))
    assert isinstance(limited, RateLimited)
    assert limited.retry_after_seconds == 17.0
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    dated = failure(answer(b"", f"Retry-After: {at}", status="429 Too Many"))
    assert isinstance(dated, RateLimited)
    assert 500 < (dated.retry_after_seconds or 0) <= 600
    for odd in ("soon", "-5", "nan"):
        other = failure(answer(b"", f"Retry-After: {odd}", status="429 Too Many"))
        assert isinstance(other, RateLimited)
        assert not other.retry_after_seconds


def test_another_content_type_is_an_error_page_and_none_at_all_is_taken() -> None:
    said = failure(answer(b"<html>maintenance</html>", kind="text/html"))
    assert isinstance(said, ServiceUnavailable)
    assert "text/html" in said.message
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]") as (address, _):
        assert client(address).get("x").json() == []


def test_what_is_announced_as_json_and_is_none_is_unavailable() -> None:
    with server(answer(b"<html>")) as (address, _), pytest.raises(ServiceUnavailable, match="did not answer with JSON"):
        client(address).get("x").json()


def test_a_host_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServiceUnavailable, match="gave no answer"):
        client(f"http://127.0.0.1:{port}").get("x")


def test_a_name_that_does_not_resolve_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ServiceUnavailable, match="Name or service not known"):
        client("http://vendor.example").get("x")


def test_a_key_is_in_no_error_no_origin_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = json.dumps({"error": f"bad key {KEY}"}).encode()
    said: list[str] = []
    with server(answer(b"[]"), answer(echo, status="401 No"), answer(echo, status="500 Oops"), RESET) as (address, got):
        asked = client(address, headers={"Authorization": KEY})
        said.append(asked.get("x", {"api_key": KEY}).origin)
        for _ in range(3):
            with pytest.raises(ServiceError) as raised:
                asked.get("x", {"api_key": KEY})
            said.append(f"{raised.value!r} {raised.value} {raised.value.__cause__} {raised.value.__context__}")
    assert "api_key=a+key%2Fwith%2Bsigns" in got[0]  # it was sent, in this form
    assert "api_key=***" in caplog.text  # httpx logs what it asks
    for text in (*said, caplog.text):
        assert not any(form in text for form in (KEY, "a%20key", "a+key%2Fwith"))


def test_an_address_that_leads_elsewhere_is_not_followed() -> None:
    with server() as (address, got), pytest.raises(ServiceError, match="is not below"):
        client(address).get("http://elsewhere.example/next?page=2")
    assert got == []


def test_requests_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with server(answer(b"[]"), answer(b"[]")) as (address, _):
        asked = client(address, pause=50.0)
        asked.get("a")
        asked.get("b")
    (wait,) = waits
    assert 40 < wait <= 50
