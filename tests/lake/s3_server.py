"""An S3 server on loopback for the tests: moto's own, with signatures checked and conditional puts made one at a time.

``python -m tests.lake.s3_server`` prints one line of JSON (address, key, secret, bucket) and serves until it is ended.

moto 5.2 honours ``If-None-Match: *`` (a second put of a key is answered 412), but it looks and puts in two steps and serves each
request in a thread, so two that meet could both succeed; S3 promises that one does. A lock around each PUT keeps that promise.
``POST /test/lose-answer?of=TEXT`` makes the server perform the next PUT of a key that contains TEXT and then answer 500, as when
the answer is lost on the way. ``POST /test/forget-conditions`` makes it ignore ``If-None-Match`` from then on, as stores do that do
not know it. Everything is forgotten when the process ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

BUCKET = "quantrail-test"
_ACCOUNT = "123456789012"


class _OnePutAtATime:
    """WSGI around moto's application."""

    def __init__(self, app: Any, remove: Callable[[str], object]) -> None:
        self.app = app
        self.remove = remove
        self.lock = threading.Lock()
        self.losing: list[str] = []
        self.forgetful = False

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = str(environ["PATH_INFO"])
        if path == "/test/lose-answer":
            self.losing.append(parse_qs(environ["QUERY_STRING"])["of"][0])
            start("200 OK", [("Content-Length", "0")])
            return []
        if path == "/test/forget-conditions":
            self.forgetful = True
            start("200 OK", [("Content-Length", "0")])
            return []
        if environ["REQUEST_METHOD"] != "PUT":
            return self.app(environ, start)  # type: ignore[no-any-return]
        with self.lock:
            if self.forgetful and "HTTP_IF_NONE_MATCH" in environ:  # the header is signed, so it cannot be taken away instead
                self.remove(path.removeprefix(f"/{BUCKET}/"))
            return list(self.app(environ, self._answer(path, start)))

    def _answer(self, path: str, start: Any) -> Any:
        lost = next((text for text in self.losing if text in path), None)
        if lost is None:
            return start
        self.losing.remove(lost)
        return lambda status, headers, *more: start("500 Internal Server Error", headers, *more)


def _serve() -> None:
    os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "0"  # moto then checks every signature and permission
    from moto.iam.models import iam_backends
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    people = iam_backends[_ACCOUNT]["aws"]
    people.create_user("us-east-1", "writer")
    key = people.create_access_key("writer")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    people.put_user_policy("writer", "all", json.dumps(everything))
    buckets = s3_backends[_ACCOUNT]["aws"]
    buckets.create_bucket(BUCKET, "us-east-1")

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:
            del type, message, args

    app = _OnePutAtATime(DomainDispatcherApplication(create_backend_app), lambda key: buckets.delete_object(BUCKET, key))
    server = make_server("127.0.0.1", 0, app, True, 1, Quiet)
    said = {"address": f"http://127.0.0.1:{server.port}", "key": key.access_key_id, "secret": key.secret_access_key}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    server.serve_forever()


@dataclass(frozen=True)
class S3Server:
    """A running server: where it listens, and the one key it accepts."""

    address: str
    key: str
    secret: str
    process: subprocess.Popen[str]

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use it."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
        }

    def lose_answer(self, of: str) -> None:
        """Perform the next put of a key that contains `of`, and answer it with an error."""
        asked = urllib.request.Request(f"{self.address}/test/lose-answer?of={quote(of)}", method="POST")
        urllib.request.urlopen(asked, timeout=10).close()

    def forget_conditions(self) -> None:
        """Ignore ``If-None-Match`` from now on."""
        asked = urllib.request.Request(f"{self.address}/test/forget-conditions", method="POST")
        urllib.request.urlopen(asked, timeout=10).close()

    def stop(self) -> None:
        """End it; what it held is gone."""
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server in a process of its own; stop it on the way out."""
    command = [sys.executable, "-m", "tests.lake.s3_server"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            said = json.loads(line)
            yield S3Server(said["address"], said["key"], said["secret"], process)
        finally:
            process.kill()


if __name__ == "__main__":
    _serve()
