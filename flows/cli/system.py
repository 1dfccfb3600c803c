"""Verbs about the installation: demo, init, doctor, ui, worker, schedule."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.shell import JsonFlag, emit, progress_on_stderr, settings_from, table

__all__ = ["add_to"]


def demo(as_json: JsonFlag = False) -> None:
    """Real data to a paper-traded strategy, in one go: no keys, no network, about a minute."""
    from flows.cli.show_demo import show_demo
    from flows.demo import run_demo

    settings = settings_from()
    with progress_on_stderr() as progress:
        outcome = run_demo(settings, progress)
    emit(as_json, outcome.as_dict(), lambda: show_demo(outcome))


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the settings file.")] = Path("quantrail.yaml"),
    as_json: JsonFlag = False,
) -> None:
    """Write a settings file with every default, commented out, to change what you need."""
    from config.errors import InputError
    from config.settings import DEFAULTS

    lines = [line if line.startswith("#") or not line.strip() else f"# {line}" for line in DEFAULTS.read_text().splitlines()]
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write("\n".join(lines) + "\n")
    except FileExistsError:
        raise InputError(f"{path} exists already; it was left as it is", remedy="name another file: quant init PATH") from None
    emit(
        as_json, {"written": str(path)}, lambda: typer.echo(f"wrote {path}; uncomment what you want to change, then: quant doctor")
    )


def doctor(as_json: JsonFlag = False) -> None:
    """Check this machine: versions, keys (present or not, never shown), clock, disk, servers; each with its remedy."""
    from config.clock import SystemClock
    from flows.doctor import examine

    checks = examine(settings_from(), SystemClock())
    problems = sum(check.state == "problem" for check in checks)

    def draw() -> None:
        table("", ["check", "state", "found", "remedy"], [[c.name, c.state, c.found, c.remedy] for c in checks])
        typer.echo(f"{problems} problem{'s' if problems != 1 else ''}" if problems else "all well")

    emit(as_json, {"problems": problems, "checks": [check.as_dict() for check in checks]}, draw)
    if problems:
        sys.exit(1)


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the tree."""
    app.command()(demo)
    app.command()(init)
    app.command()(doctor)
