"""Verbs about universes: universe import|show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.shell import JsonFlag, emit, new_group, settings_from, table

__all__ = ["add_to"]

universe = new_group("Who belonged to an index or another universe, and when.")


@universe.command("import")
def universe_import(
    file: Annotated[str, typer.Argument(help="A CSV (universe, symbol, from, to), or one that ships: bundled_stocks.")],
    name: Annotated[str | None, typer.Option(help="The universe, where no column says it.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML: our column name to the file's.")] = None,
    date_format: Annotated[str | None, typer.Option(help="Of dates not written as 2018-12-31: %m/%d/%Y.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Import memberships; the same file twice adds nothing. A file with an error is refused whole, with the line."""
    from config.clock import SystemClock
    from flows.universe import import_universe

    report = import_universe(settings_from(), SystemClock(), file, name=name, mapping=mapping, date_format=date_format)

    def draw() -> None:
        typer.echo(
            f"{', '.join(report['universe'])}: {report['intervals']} memberships read, {report['begun']} new, "
            f"{report['ended']} ends written, {report['corrected']} corrected, {report['unchanged']} unchanged"
        )
        if "assumed" in report["available_kind"]:
            typer.echo("where the file says no announcement, a change counts as known at the open of the day it took effect")
        if report["absent"]:
            typer.echo(f"{len(report['absent'])} stored memberships are not in the file and stay, the first: {report['absent'][0]}")
        typer.echo(f"snapshot {report['snapshot_id']}")

    emit(as_json, report, draw)


@universe.command("show")
def universe_show(
    name: Annotated[str, typer.Argument(help="A universe.")],
    on: Annotated[str | None, typer.Option(help="YYYY-MM-DD: who belonged to it that day; without, every membership.")] = None,
    as_of: Annotated[str | None, typer.Option(help="A UTC moment: what was known then.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Who belonged to a universe on a day, those that left it since included."""
    from flows.inventory import day, moment
    from flows.universe import show_universe

    shown = show_universe(settings_from(), name, on=day(on), as_of=moment(as_of) if as_of else None)

    def draw() -> None:
        if "members" in shown:
            table(f"{len(shown['members'])} members of {name} on {on}", ["symbol"], [[symbol] for symbol in shown["members"]])
            return
        columns = ["symbol", "from_date", "to_date", "available_kind"]
        table(name, columns, [[row[key] for key in columns] for row in shown["memberships"]])

    emit(as_json, shown, draw)


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the tree."""
    app.add_typer(universe, name="universe")
