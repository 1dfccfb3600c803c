"""Verbs about alerts: data watch|alerts."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from flows.cli.drawing import say
from flows.cli.shell import JsonFlag, emit, settings_from, table

__all__ = ["add_alert_verbs"]


def data_watch(as_json: JsonFlag = False) -> None:
    """Say which tables are late by now, and tell it once a session: the log, Prefect, the webhook in QUANT_ALERT_WEBHOOK.

    Exit code 3 when something is late, also when it was told before.
    """
    from flows.schedules import watch_data_flow

    # What is late is this command's answer: Prefect's logging, or Python's last resort, would print it a second time.
    log = logging.getLogger("quantrail.alerts")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    watch = watch_data_flow(settings=settings_from())

    def draw() -> None:
        for late in watch.late:
            say(late.message)
        if not watch.late:
            typer.echo("nothing is late")
        for told in watch.told:
            typer.echo(f"told {told.alert.dataset}: {', '.join(told.channels)}")
            for channel, why in told.undelivered.items():
                say(f"not told {told.alert.dataset}: {channel}: {why}; the next look tries again")
        if watch.late and not watch.told:
            typer.echo(f"told before, for {watch.day}: quant data alerts")

    emit(as_json, watch.as_dict(), draw)
    if watch.late:
        sys.exit(3)


def data_alerts(
    kind: Annotated[str | None, typer.Option(help="late, refused or failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """What was told in this home, the newest first, and which channel did not take it."""
    from typing import get_args

    from config.errors import InputError
    from flows.alerts import Kind, alerts_of

    if kind is not None and kind not in get_args(Kind):
        raise InputError(f"kind {kind!r} is none of {', '.join(get_args(Kind))}")
    every = [told for told in reversed(alerts_of(settings_from())) if kind in (None, told.alert.kind)]
    shown = every[:limit]

    def draw() -> None:
        rows = [
            [
                told.at[:16].replace("T", " "),
                told.alert.day,
                told.alert.kind,
                f"{told.alert.dataset} {told.alert.subject}".strip(),
                told.alert.message,
                ", ".join([*told.channels, *(f"not {channel}: {why}" for channel, why in told.undelivered.items())]),
            ]
            for told in shown
        ]
        table("", ["told at (UTC)", "session", "kind", "about", "message", "channels"], rows)
        if len(every) > limit:
            typer.echo(f"{limit} of {len(every)} alerts; more with --limit")

    emit(as_json, {"alerts": len(every), "data": [told.as_dict() for told in shown]}, draw)


def add_alert_verbs(group: typer.Typer) -> None:
    """Add these verbs to the group `data`."""
    group.command("watch")(data_watch)
    group.command("alerts")(data_alerts)
