"""What fits a terminal: tables of many columns, and sentences broken at words; in a pipe everything, a line each."""

from __future__ import annotations

import shutil
import sys
import textwrap
from datetime import datetime
from typing import Any

import typer

from flows.cli.shell import table

__all__ = ["say", "wide_table", "without_noughts"]


def say(text: str) -> None:
    """Print a sentence; on a terminal broken at words, with what follows indented."""
    if sys.stdout.isatty():
        text = textwrap.fill(text, max(_width() - 1, 40), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    typer.echo(text)


def wide_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Draw rows of a stored table, or of a query, with all the columns there are room for.

    On a terminal that is too narrow, what is the same in every row is said once, and the columns for which there is no room are
    named. A pipe gets every column.
    """
    if not sys.stdout.isatty():
        table(title, columns, rows)
        return
    cells = [["" if cell is None else _plain(cell) for cell in row] for row in rows]
    shown = list(range(len(columns)))
    if len(rows) > 1 and _needs(columns, cells, shown) > _width():
        same = [at for at in shown if at and len({row[at] for row in cells}) == 1]
        say("in every row: " + ", ".join(f"{columns[at]} {cells[0][at] or 'empty'}" for at in same)) if same else None
        shown = [at for at in shown if at not in same]
    hidden: list[int] = []
    while len(shown) > 1 and _needs(columns, cells, shown) > _width():
        hidden.insert(0, shown.pop())
    table(title, [columns[at] for at in shown], [[row[at] for at in shown] for row in cells])
    if hidden:
        say(f"no room for {', '.join(columns[at] for at in hidden)}: a wider terminal, a pipe or --json shows all")


def without_noughts(columns: list[str], rows: list[list[Any]], counts: tuple[str, ...]) -> tuple[list[str], list[list[Any]]]:
    """On a terminal, leave out counts that are nought in every row and columns that are empty: the rest has more room."""
    if not sys.stdout.isatty():
        return columns, rows
    kept = [
        at
        for at, column in enumerate(columns)
        if any(row[at] not in ((0, None, "") if column in counts else (None, "")) for row in rows)
    ]
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in rows]


def _width() -> int:
    return shutil.get_terminal_size().columns


def _needs(columns: list[str], cells: list[list[str]], shown: list[int]) -> int:
    """The room that a table of these columns takes: two between columns, one at each edge."""
    return sum(max([len(columns[at]), *(len(row[at]) for row in cells)]) + 2 for at in shown)


def _plain(cell: Any) -> str:
    """A moment to the second, or to the minute where that is whole; UTC, as everything stored is."""
    if not isinstance(cell, datetime):
        return str(cell)
    return f"{cell:%Y-%m-%d %H:%M}" if not (cell.second or cell.microsecond) else f"{cell:%Y-%m-%d %H:%M:%S}"
