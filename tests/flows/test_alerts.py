"""Alerts reach the log and a real webhook, once a day and subject; what a channel did not take is said and sent again."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import ConfigError, IntegrityError
from config.settings import Settings, load_settings
from flows.alerts import Alert, alerts_of, raise_alerts
from tests.flows.conftest import PrefectServer

CLOCK = FixedClock(datetime(2024, 3, 5, 2, tzinfo=UTC))
LATE = Alert(kind="late", dataset="equity", subject="SPY", message="two sessions behind", day="2024-03-04")
REFUSED = Alert(kind="refused", dataset="macro", subject="", message="3 rows refused", day="2024-03-04")


class Hook:
    """A webhook's receiving end."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hook.status == 200:
                    hook.got.append(json.loads(body))
                self.send_response(hook.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/services/SECRET-TOKEN"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def settings_with(home: Path, address: str | None) -> Settings:
    environ = {"QUANT_HOME": str(home), **({"QUANT_ALERT_WEBHOOK": address} if address else {})}
    return load_settings(environ=environ)


def test_an_alert_is_logged_posted_and_kept_once(tmp_path: Path, hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_with(tmp_path, hook.address)
    with caplog.at_level(logging.WARNING, "quantrail.alerts"):
        told = raise_alerts([LATE, REFUSED, LATE], settings, CLOCK)
        again = raise_alerts([REFUSED, LATE], settings, CLOCK)
    assert [one.alert for one in told] == [LATE, REFUSED]
    assert {one.channels for one in told} == {("log", "webhook")}
    assert again == ()
    assert len(hook.got) == 1
    assert hook.got[0]["text"].splitlines() == [
        "late: equity SPY (2024-03-04): two sessions behind",
        "refused: macro (2024-03-04): 3 rows refused",
    ]
    assert [one["subject"] for one in hook.got[0]["alerts"]] == ["SPY", ""]
    assert [record.getMessage() for record in caplog.records] == hook.got[0]["text"].splitlines()
    assert [one.alert for one in alerts_of(settings)] == [LATE, REFUSED]


def test_the_same_trouble_on_another_day_is_told_again(tmp_path: Path, hook: Hook) -> None:
    settings = settings_with(tmp_path, hook.address)
    raise_alerts([LATE], settings, CLOCK)
    next_day = Alert(kind="late", dataset="equity", subject="SPY", message="three sessions behind", day="2024-03-05")
    assert [one.alert.day for one in raise_alerts([next_day, LATE], settings, CLOCK)] == ["2024-03-05"]
    assert len(hook.got) == 2


def test_what_the_webhook_did_not_take_is_said_and_sent_again_without_its_address(
    tmp_path: Path, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_with(tmp_path, hook.address)
    hook.status = 503
    with caplog.at_level(logging.DEBUG):  # httpx writes the addresses it asks into its log
        (told,) = raise_alerts([LATE], settings, CLOCK)
    assert told.channels == ("log",)
    assert told.undelivered == {"webhook": "127.0.0.1 answered 503"}
    hook.status = 200
    with caplog.at_level(logging.DEBUG):
        (told,) = raise_alerts([LATE], settings, CLOCK)
    assert "HTTP Request: POST" in caplog.text
    assert (told.channels, told.undelivered) == (("log", "webhook"), {})
    assert len(hook.got) == 1
    everything = caplog.text + "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "two sessions behind" in everything
    assert "SECRET-TOKEN" not in everything


def test_a_webhook_that_is_not_there_fails_nobody(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "http://127.0.0.1:9/SECRET-TOKEN")
    (told,) = raise_alerts([LATE], settings, CLOCK)
    assert told.undelivered == {"webhook": "127.0.0.1 cannot be reached (ConnectError)"}


def test_a_webhook_that_is_no_address_fails_nobody_and_is_not_shown(tmp_path: Path) -> None:
    (told,) = raise_alerts([LATE], settings_with(tmp_path, "http://[SECRET-TOKEN"), CLOCK)
    assert told.undelivered == {"webhook": "QUANT_ALERT_WEBHOOK holds no address that can be read (Invalid IPv6 URL)"}
    (told,) = raise_alerts([REFUSED], settings_with(tmp_path, "SECRET-TOKEN"), CLOCK)
    assert told.undelivered == {"webhook": "the address in QUANT_ALERT_WEBHOOK cannot be reached (UnsupportedProtocol)"}


def test_a_line_cut_off_by_a_crash_is_no_alert_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, None)
    raise_alerts([LATE], settings, CLOCK)
    book = tmp_path / "alerts" / "alerts.jsonl"
    whole = book.read_bytes()
    book.write_bytes(whole + whole[:40])
    assert [one.alert for one in alerts_of(settings)] == [LATE]
    raise_alerts([REFUSED], settings, CLOCK)
    assert [one.alert for one in alerts_of(settings)] == [LATE, REFUSED]
    book.write_bytes(b"{}\n" + whole)
    with pytest.raises(IntegrityError, match="line 1 of the book of alerts"):
        alerts_of(settings)


def test_a_webhook_belongs_into_the_environment_not_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "quantrail.yaml"
    file.write_text("credentials: {alert_webhook: 'http://127.0.0.1/x'}\n")
    with pytest.raises(ConfigError, match="QUANT_ALERT_WEBHOOK"):
        load_settings(environ={"QUANT_CONFIG": str(file)})


@pytest.mark.prefect_server
def test_with_a_prefect_server_an_alert_is_an_event_there(prefect_server: PrefectServer, tmp_path: Path) -> None:
    program = (
        "from config.clock import FixedClock; from config.settings import load_settings; from datetime import UTC, datetime\n"
        "from flows.alerts import Alert, raise_alerts\n"
        "late = Alert(kind='late', dataset='equity', subject='SPY', message='two sessions behind', day='2024-03-04')\n"
        "(told,) = raise_alerts([late], load_settings(), FixedClock(datetime(2024, 3, 5, 2, tzinfo=UTC)))\n"
        "print(told.alert.id, *told.channels)"
    )
    environment = {**prefect_server.environment(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    alert_id, *channels = done.stdout.split()
    assert channels == ["log", "prefect"]
    question = {"filter": {"event": {"name": ["quantrail.data.late"]}}}
    until = time.monotonic() + 120
    while not (found := prefect_server.ask("events/filter", question)["events"]) and time.monotonic() < until:
        time.sleep(0.5)
    (event,) = found
    assert event["resource"]["prefect.resource.id"] == "quantrail.dataset.equity"
    assert event["payload"]["alert_id"] == alert_id
    assert event["payload"]["message"] == "two sessions behind"
