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


def ui(as_json: JsonFlag = False) -> None:
    """Start the Prefect and MLflow pages on this machine and print their addresses; Ctrl-C stops both."""
    from flows.ui import start_pages

    with progress_on_stderr() as progress:
        pages = start_pages(settings_from(), progress=progress)
    document = {
        "prefect": {"url": pages.prefect.url, "PREFECT_API_URL": pages.prefect.address},
        "mlflow": {"url": pages.mlflow.url, "MLFLOW_TRACKING_URI": pages.mlflow.address},
    }

    def draw() -> None:
        typer.echo(f"Prefect  {pages.prefect.url}\nMLflow   {pages.mlflow.url}")
        typer.echo(f"flows of another shell run there after: export PREFECT_API_URL={pages.prefect.address}")
        typer.echo("Ctrl-C stops both")

    emit(as_json, document, draw)
    pages.wait()


def worker(
    pool: Annotated[str, typer.Option(help="The Prefect work pool.")] = "quantrail",
    limit: Annotated[int | None, typer.Option(min=1, help="Runs at the same time.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Do what is waiting, then end.")] = False,
) -> None:
    """Run what the Prefect server at PREFECT_API_URL hands out, until stopped."""
    from flows.worker import run_worker

    typer.echo(f"worker of pool {pool}; Ctrl-C stops it", err=True)
    run_worker(pool=pool, limit=limit, run_once=once)


def schedule(
    serve: Annotated[bool, typer.Option("--serve", help="Run the schedules from this process until stopped.")] = False,
    pool: Annotated[str, typer.Option(help="The work pool whose workers run them.")] = "quantrail",
    as_json: JsonFlag = False,
) -> None:
    """Put the daily schedules (after the close, New York time) on the Prefect server at PREFECT_API_URL."""
    from flows.schedules import apply_schedules, serve_schedules

    if serve:
        typer.echo("serving the schedules; Ctrl-C stops it", err=True)
        serve_schedules()
        return
    made = apply_schedules(pool=pool)
    emit(as_json, {"deployments": made, "pool": pool}, lambda: typer.echo("\n".join([*made, f"next: quant worker --pool {pool}"])))


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the tree."""
    app.command()(demo)
    app.command()(init)
    app.command()(doctor)
    app.command()(ui)
    app.command()(worker)
    app.command()(schedule)
