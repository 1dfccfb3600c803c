"""Tell people that data is late, refused or failed: in the log, as a Prefect event, and to a webhook.

1. `raise_alerts` leaves out what was told before (`_told`): one alert a (kind, dataset, subject, day), however often it is found.
2. It logs each as a warning of the logger ``quantrail.alerts`` (inside a Prefect run also on the run's page), emits a Prefect event
   when an API is set (`_emit`), and posts all of them in one request to the webhook, if there is one (`_post`).
3. It writes each into the home's book of alerts (`_write`), with the channels that took it. What a channel did not take is said in
   the answer and tried again at the next call; it never fails the ingest that raised the alert.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from config.clock import Clock, require_utc
from config.errors import IntegrityError, StorageError
from config.hashing import canonical_json, digest, short
from config.locks import exclusive
from config.orchestration import api_configured, inside_flow_run
from config.settings import Settings
from flows.sources.http import keep_from_log

__all__ = ["Alert", "Told", "alerts_of", "raise_alerts"]

LOGGER = logging.getLogger("quantrail.alerts")
Kind = Literal["late", "refused", "failed"]
_WAIT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """One thing that somebody should know about data.

    Parameters
    ----------
    kind : {"late", "refused", "failed"}
        Late: less fresh than expected. Refused: rows went to quarantine. Failed: a source did not give what was asked.
    dataset : str
        ``equity``, ``macro``, ``options``, ``cot``, or a table.
    subject : str
        The symbol, series or source it is about; empty for the whole dataset.
    message : str
        In words, with what to do.
    day : str
        The session it is about, as 2018-12-31: the same trouble on another day is another alert.
    """

    kind: Kind
    dataset: str
    subject: str
    message: str
    day: str

    @property
    def id(self) -> str:
        """Sixteen digits; the same kind of trouble with the same subject on the same day is the same alert."""
        return short(digest({name: getattr(self, name) for name in ("kind", "dataset", "subject", "day")}))

    @property
    def line(self) -> str:
        """One line for people."""
        about = f"{self.dataset} {self.subject}".strip()
        return f"{self.kind}: {about} ({self.day}): {self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """An alert in the book.

    Parameters
    ----------
    alert : Alert
    at : str
        When, ISO 8601, UTC.
    channels : tuple of str
        Which took it: ``log``, ``prefect``, ``webhook``.
    undelivered : mapping of str to str
        Which did not, and why; tried again at the next call.
    """

    alert: Alert
    at: str
    channels: tuple[str, ...]
    undelivered: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "id": self.alert.id,
            **asdict(self.alert),
            "at": self.at,
            "channels": list(self.channels),
            "undelivered": self.undelivered,
        }


def raise_alerts(alerts: Iterable[Alert], settings: Settings, clock: Clock) -> tuple[Told, ...]:
    """Tell each alert once on every channel there is.

    Returns
    -------
    tuple of Told
        What was told now: new alerts, and old ones that a channel takes only now. Empty when all was told before.

    Raises
    ------
    StorageError
        The book of alerts cannot be written; the alerts were logged.
    IntegrityError
        The book is damaged.
    """
    found = {alert.id: alert for alert in alerts}
    if not found:
        return ()
    at = require_utc(clock.now(), "clock")
    book = _book(settings)
    with exclusive(book.with_suffix(".lock"), "the telling of alerts", wait_seconds=_WAIT_SECONDS):
        before = {told.alert.id: told for told in _told(book)}
        due = [_next(alert, before.get(name), at) for name, alert in found.items()]
        due = [told for told in due if _waiting(told, settings)]
        done = _deliver(due, settings)
        _write(book, done)
    return done


def alerts_of(settings: Settings) -> tuple[Told, ...]:
    """Every alert ever told in this home, the newest last.

    Raises
    ------
    IntegrityError
        The book is damaged.
    """
    return tuple({told.alert.id: told for told in _told(_book(settings))}.values())


def _next(alert: Alert, before: Told | None, at: datetime) -> Told:
    return Told(alert=alert, at=at.isoformat(), channels=(), undelivered={}) if before is None else before


def _channels(settings: Settings) -> tuple[str, ...]:
    hook = settings.credentials.alert_webhook is not None
    return ("log", *(("prefect",) if api_configured() else ()), *(("webhook",) if hook else ()))


def _waiting(told: Told, settings: Settings) -> tuple[str, ...]:
    """The channels that have not taken it yet. One that was not there when an alert was told first is not owed it later."""
    if not told.channels:
        return _channels(settings)
    return tuple(channel for channel in _channels(settings) if channel in told.undelivered)


def _deliver(due: Sequence[Told], settings: Settings) -> tuple[Told, ...]:
    def taken(told: Told, channel: str, why_not: str | None) -> Told:
        if why_not is None:
            rest = {name: why for name, why in told.undelivered.items() if name != channel}
            return replace(told, channels=(*told.channels, channel), undelivered=rest)
        return replace(told, undelivered={**told.undelivered, channel: why_not})

    waiting = {told.alert.id: _waiting(told, settings) for told in due}
    answers = list(due)
    for place, told in enumerate(answers):
        if "log" in waiting[told.alert.id]:
            _log(told.alert)
            answers[place] = taken(told, "log", None)
    of_prefect = [place for place, told in enumerate(answers) if "prefect" in waiting[told.alert.id]]
    for place in of_prefect:
        answers[place] = taken(answers[place], "prefect", _emit(answers[place].alert))
    of_hook = [place for place, told in enumerate(answers) if "webhook" in waiting[told.alert.id]]
    if of_hook:
        why_not = _post([answers[place].alert for place in of_hook], settings)
        for place in of_hook:
            answers[place] = taken(answers[place], "webhook", why_not)
        if why_not is not None:
            LOGGER.warning("the webhook did not take %d alerts: %s; they are sent again with the next ones", len(of_hook), why_not)
    return tuple(answers)


def _log(alert: Alert) -> None:
    LOGGER.warning("%s", alert.line)
    if inside_flow_run():
        from prefect.logging import get_run_logger

        get_run_logger().warning("%s", alert.line)


def _emit(alert: Alert) -> str | None:
    """Emit ``quantrail.data.<kind>``; None when it was handed over, else why not."""
    from prefect.events import emit_event

    event = emit_event(
        event=f"quantrail.data.{alert.kind}",
        resource={"prefect.resource.id": f"quantrail.dataset.{alert.dataset}", "prefect.resource.name": alert.dataset},
        payload={**asdict(alert), "alert_id": alert.id},
    )
    return None if event is not None else "Prefect took no event"


def _post(alerts: Sequence[Alert], settings: Settings) -> str | None:
    """Post ``{"text": lines, "alerts": [...]}``; None when the answer was 2xx, else why not.

    The address is a secret, because it often holds a token: only its host is said.
    """
    import httpx

    hook = settings.credentials.alert_webhook
    if not isinstance(hook, SecretStr):
        return "no webhook is set"
    address = hook.get_secret_value()
    try:
        parts = urlsplit(address)
    except ValueError as problem:
        return f"QUANT_ALERT_WEBHOOK holds no address that can be read ({problem})"
    behind_the_host = parts._replace(scheme="", netloc="").geturl()
    keep_from_log(one for one in (address, behind_the_host, parts.password) if one and one != "/")
    host = parts.hostname or "the address in QUANT_ALERT_WEBHOOK"
    body = {"text": "\n".join(alert.line for alert in alerts), "alerts": [{"id": a.id, **asdict(a)} for a in alerts]}
    try:
        answer = httpx.post(address, json=body, timeout=settings.data.timeout_seconds, follow_redirects=False)
    except httpx.TimeoutException:
        return f"{host} did not answer within {settings.data.timeout_seconds:g} s"
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        return f"{host} cannot be reached ({type(problem).__name__})"
    return None if answer.is_success else f"{host} answered {answer.status_code}"


def _book(settings: Settings) -> Path:
    return settings.home_path / "alerts" / "alerts.jsonl"


def _told(book: Path) -> list[Told]:
    """The book's lines, oldest first; a last line that was cut off by a crash was not told and does not count."""
    if not book.exists():
        return []
    lines = book.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line feed is nothing, or a line cut off
        try:
            said = json.loads(line)
            alert = Alert(**{name: said[name] for name in Alert.__dataclass_fields__})
            found.append(Told(alert=alert, at=said["at"], channels=tuple(said["channels"]), undelivered=dict(said["undelivered"])))
        except (ValueError, KeyError, TypeError) as problem:
            raise IntegrityError(
                f"line {number} of the book of alerts {book} is damaged: {problem}",
                remedy="delete the line: at worst an alert is told a second time",
            ) from None
    return found


def _write(book: Path, told: Sequence[Told]) -> None:
    if not told:
        return
    text = "".join(canonical_json(one.as_dict()) + "\n" for one in told)
    try:
        with book.open("r+b" if book.exists() else "x+b") as stream:
            whole = stream.read().rfind(b"\n") + 1
            stream.seek(whole)
            stream.truncate()  # a line that a crash cut off
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as problem:
        raise StorageError(
            f"cannot write the book of alerts {book}: {problem.strerror}", remedy="free space, then run it again"
        ) from problem
