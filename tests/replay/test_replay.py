"""The replay server gives back recorded bytes to the HTTP clients that the vendors' libraries use, and fails on demand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import requests
from curl_cffi import requests as curl_requests

from tests.replay import Fault, Question, Recordings, ReplayServer

HOST = "api.example.com"


def folder(path: Path, *entries: Mapping[str, Any]) -> Path:
    """A folder of recordings, from entries with a `body`."""
    index = []
    for number, entry in enumerate(entries):
        (path / f"{number}.body").write_bytes(entry["body"])
        index.append(
            {
                "id": f"r{number}",
                "method": "GET",
                "host": HOST,
                "query": {},
                "status": 200,
                "content_type": "application/json",
                "headers": {},
                "recorded": "2024-01-01",
                "body_file": f"{number}.body",
                **{name: value for name, value in entry.items() if name != "body"},
            }
        )
    (path / "index.json").write_text(json.dumps(index))
    return path


ENTRIES: tuple[dict[str, Any], ...] = (
    {"path": "/bars", "query": {"symbol": "A", "limit": "2"}, "body": b'{"of": "A"}'},
    {"path": "/bars", "query": {"symbol": "B"}, "body": b'{"of": "B"}', "match": {"ignore": ["since"]}},
    {"path": "/bars", "query": {"symbol": "B", "page_token": "x"}, "body": b'{"of": "B, page 2"}'},
    {"path": "/vix", "body": b"old \x00\xff", "content_type": "text/csv", "recorded": "2022"},
    {"path": "/vix", "body": b"new", "content_type": "text/csv", "recorded": "Sun, 03 Nov 2024 14:33:20 GMT"},
    {
        "path": "/none",
        "body": b'{"error": "no such thing"}',
        "status": 404,
        "headers": {"Set-Cookie": ["a=1", "b=2"], "X-Left": "9"},
    },
    {"path": "/chart/GC=F", "body": b"gold", "content_type": "text/plain"},
    {"path": "/order", "method": "POST", "body": b'{"done": true}'},
)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """The entries above, as a folder."""
    place = tmp_path / "recordings"
    place.mkdir()
    return folder(place, *ENTRIES)


@pytest.fixture
def server(recordings: Path) -> Iterator[ReplayServer]:
    """A server of them."""
    with ReplayServer(recordings) as running:
        yield running


def get(server: ReplayServer, path: str, **query: str) -> httpx.Response:
    return httpx.get(f"{server.address(HOST)}{path}", params=query or None, timeout=10, trust_env=False)


def test_a_recorded_answer_comes_back_byte_for_byte_with_its_status_type_and_headers(server: ReplayServer) -> None:
    answer = get(server, "/none")
    assert answer.status_code == 404
    assert answer.content == b'{"error": "no such thing"}'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["x-left"] == "9"
    assert answer.headers["content-length"] == "26"


def test_parameters_tell_questions_apart_but_keys_and_what_the_index_ignores_do_not(server: ReplayServer) -> None:
    assert get(server, "/bars", symbol="A", limit="2", api_key="secret").json() == {"of": "A"}
    assert get(server, "/bars", symbol="B", since="2020").json() == {"of": "B"}
    assert get(server, "/bars", symbol="A", limit="3").status_code == 404
    assert get(server, "/bars", symbol="C").status_code == 404
    assert get(server, "/bars", symbol="A").status_code == 404  # it was recorded with a limit
    assert get(server, "/chart/GC%3DF").content == b"gold"


def test_another_page_is_never_answered_with_the_first(server: ReplayServer) -> None:
    assert get(server, "/bars", symbol="B", page_token="x").json() == {"of": "B, page 2"}
    assert get(server, "/bars", symbol="B", page_token="y").status_code == 404
    assert get(server, "/bars", symbol="B", page_token="").json() == {"of": "B"}


def test_what_was_never_recorded_is_a_404_that_says_so(server: ReplayServer) -> None:
    answer = get(server, "/bars", symbol="C")
    assert answer.status_code == 404
    assert "nothing is recorded of api.example.com/bars?symbol=C" in answer.text
    assert '"symbol": ["A"]' in answer.text  # and what was
    assert "nothing is recorded" in get(server, "/nowhere").text


def test_the_newest_recording_is_served_unless_it_is_still_to_come(recordings: Path) -> None:
    def vix(at: datetime | None) -> httpx.Response:
        with ReplayServer(recordings, as_recorded_at=at) as server:
            return get(server, "/vix")

    assert vix(None).content == b"new"
    assert vix(datetime(2024, 11, 3, 14, 33, 20, tzinfo=UTC)).content == b"new"
    assert vix(datetime(2024, 11, 3, 14, 33, 19, tzinfo=UTC)).content == b"old \x00\xff"
    assert vix(datetime(2021, 12, 31, tzinfo=UTC)).status_code == 404


def test_several_folders_are_one_and_ids_can_be_picked(recordings: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    folder(other, {"path": "/more", "body": b"{}"}, {"path": "/more", "body": b"[]"})
    with ReplayServer(recordings, other, only=["r1"]) as server:
        assert get(server, "/more").content == b"[]"
        assert get(server, "/bars", symbol="B").json() == {"of": "B"}
        assert get(server, "/bars", symbol="A", limit="2").status_code == 404
    with pytest.raises(ValueError, match="no recording is called r77"):
        ReplayServer(other, only=["r77"])


def test_what_was_asked_is_noted(server: ReplayServer) -> None:
    httpx.post(f"{server.address(HOST)}/order?a=1&a=2&b=", content=b"body", headers={"X-Key": "k"}, trust_env=False)
    (question,) = server.asked
    assert (question.method, question.host, question.path, question.status) == ("POST", HOST, "/order", 200)
    assert question.query == {"a": ["1", "2"], "b": ""}
    assert question.headers["x-key"] == "k"
    assert question.body == b"body"


def test_one_connection_carries_many_questions(server: ReplayServer) -> None:
    with httpx.Client(trust_env=False) as client:
        ports = set()
        for _ in range(3):
            answer = client.get(f"{server.address(HOST)}/vix")
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr")[1])
        assert client.head(f"{server.address(HOST)}/vix").headers["content-length"] == "3"
        assert client.get(f"{server.address(HOST)}/vix").content == b"new"
    assert len(ports) == 1


def test_an_unknown_method_and_a_broken_request_are_refused(server: ReplayServer) -> None:
    import socket

    assert httpx.request("BREW", f"{server.address(HOST)}/vix", trust_env=False).status_code == 501
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        assert b"400" in raw.recv(1000)
    assert get(server, "/vix").content == b"new"


def test_requests_is_led_here_by_the_environment_alone(server: ReplayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.proxy_environment().items():
        monkeypatch.setenv(name, value)
    answer = requests.get(f"https://{HOST}/vix", timeout=10)
    assert answer.content == b"new"
    assert requests.get(f"http://{HOST}/vix", timeout=10).content == b"new"  # unencrypted, in the proxy's own form
    assert httpx.get(f"https://{HOST}/vix", timeout=10).content == b"new"
    assert [question.host for question in server.asked] == [HOST] * 3


def test_curl_is_led_here_by_the_environment_alone(server: ReplayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.proxy_environment().items():
        monkeypatch.setenv(name, value)
    with curl_requests.Session(impersonate="chrome") as session:
        for _ in range(2):
            assert session.get(f"https://{HOST}/vix", timeout=10).content == b"new"


def test_a_client_that_does_not_trust_the_ca_gets_nothing(server: ReplayServer) -> None:
    proxy = f"http://127.0.0.1:{server.port}"
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{HOST}/vix", proxies={"https": proxy}, timeout=10)
    assert not server.asked


@pytest.mark.parametrize(("kind", "status"), [("500", 500), ("502", 502), ("503", 503), ("429", 429)])
def test_a_status_can_be_injected_once_and_then_all_is_well(recordings: Path, kind: Any, status: int) -> None:
    with ReplayServer(recordings, faults=[Fault(kind=kind, match="/vix", nth=1, retry_after="7")]) as server:
        assert get(server, "/order-of-no-concern").status_code == 404
        answer = get(server, "/vix")
        assert answer.status_code == status
        assert answer.headers.get("retry-after") == ("7" if kind == "429" else None)
        assert get(server, "/vix").content == b"new"
        assert [question.status for question in server.asked] == [404, status, 200]


def test_bodies_can_be_cut_and_types_be_wrong(recordings: Path) -> None:
    with ReplayServer(recordings, faults=[Fault(kind="truncated", match="symbol=A")]) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            get(server, "/bars", symbol="A", limit="2")
        assert get(server, "/bars", symbol="B").json() == {"of": "B"}
        server.faults = [Fault(kind="half_body")]
        assert get(server, "/bars", symbol="A", limit="2").content == b'{"of"'
        server.faults = [Fault(kind="empty")]
        assert get(server, "/bars", symbol="A", limit="2").content == b""
        server.faults = [Fault(kind="wrong_type")]
        assert "text/html" in get(server, "/bars", symbol="A", limit="2").headers["content-type"]


@pytest.mark.parametrize("through_proxy", [False, True])
def test_a_connection_can_be_reset_or_kept_waiting(recordings: Path, monkeypatch: pytest.MonkeyPatch, through_proxy: bool) -> None:
    with ReplayServer(recordings, faults=[Fault(kind="reset", nth=1), Fault(kind="slow", nth=2)]) as server:
        for name, value in server.proxy_environment().items():
            monkeypatch.setenv(name, value)
        url = f"https://{HOST}/vix" if through_proxy else f"{server.address(HOST)}/vix"
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(url, timeout=10)
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.get(url, timeout=0.3)
        assert requests.get(url, timeout=10).content == b"new"
        assert [question.status for question in server.asked] == [0, 200, 200]


def test_every_recording_of_the_shared_folder_is_found_by_its_own_question(shared_data: Path) -> None:
    places = sorted(path.parent for path in (shared_data / "recordings").glob("*/index.json"))
    assert len(places) > 5
    for place in places:
        index = [entry for entry in json.loads((place / "index.json").read_text()) if entry["host"]]
        for entry in index:
            question = Question(method=entry["method"], host=entry["host"], path=unquote(entry["path"]), query=entry["query"])
            alike = [other for other in index if other["id"] == entry["id"]]
            found = Recordings([place], only=[entry["id"]]).find(question)
            assert not isinstance(found, str), found
            assert found.reply().status in [other["status"] for other in alike]
            assert hashlib.sha256(found.body()).hexdigest() in [other["sha256"] for other in alike]
