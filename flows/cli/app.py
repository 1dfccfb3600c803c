"""The tree of verbs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from config.caches import place_caches
from flows.cli import data, research, system, trading, universe
from flows.cli.shell import AbbreviatingGroup

__all__ = ["app"]

app = typer.Typer(
    name="quant",
    cls=AbbreviatingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Raw data to a traced, gated, paper-traded strategy. Any unambiguous prefix of a command works.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"quantrail {version('quantrail')}")
        raise typer.Exit


@app.callback()
def _everywhere(
    home: Annotated[Path | None, typer.Option(help="The home folder; wins over QUANT_HOME.")] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file; wins over quantrail.yaml and QUANT_CONFIG.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Put what holds for every verb where settings and child processes find it."""
    del debug, version
    if home is not None:
        os.environ["QUANT_HOME"] = str(home)
    if config is not None:
        os.environ["QUANT_CONFIG"] = str(config)
    place_caches()


system.add_to(app)
data.add_to(app)
universe.add_to(app)
research.add_to(app)
trading.add_to(app)
