"""What all verbs share: prefixes and did-you-mean, one JSON object on standard output, progress on standard error."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from config.errors import QuantError
from config.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars

    from config.settings import Settings

__all__ = [
    "AbbreviatingGroup",
    "JsonFlag",
    "emit",
    "new_group",
    "program",
    "progress_on_stderr",
    "report_error",
    "settings_from",
    "table",
]

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


class AbbreviatingGroup(TyperGroup):
    """A group of verbs that accepts any unambiguous prefix of a verb."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Complete a prefix that fits one verb only; what fits none or several is an error that names the near ones."""
        if args and args[0] not in self.commands:
            fitting = [name for name in self.commands if name.startswith(args[0])]
            if len(fitting) == 1:
                args = [fitting[0], *args[1:]]
            elif len(fitting) > 1:
                ctx.fail(f"'{args[0]}' fits several commands: {', '.join(sorted(fitting))}")
        return super().resolve_command(ctx, args)


def new_group(help_text: str) -> typer.Typer:
    """Make a group of verbs."""
    return typer.Typer(cls=AbbreviatingGroup, help=help_text, no_args_is_help=True, pretty_exceptions_enable=False)


def settings_from(**overrides: Any) -> Settings:
    """Load the settings with the arguments that were given (None: not given)."""
    from config.settings import load_settings

    return load_settings({key.replace("__", "."): value for key, value in overrides.items() if value is not None})


def json_wanted() -> bool:
    """Whether the command line asked for JSON (known also where parsing failed)."""
    return "--json" in sys.argv


def emit(as_json: bool, document: dict[str, Any], draw: Callable[[], None]) -> None:
    """Print the answer: the document as one JSON object, or whatever `draw` prints for people."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")
        sys.stdout.flush()
    else:
        draw()


def table(title: str, columns: list[str], rows: list[list[Any]], *, right: tuple[str, ...] = (), empty: str = "") -> None:
    """Draw a table on standard output, without rows the sentence `empty` where there is one; in a pipe, tab-separated lines."""
    if not sys.stdout.isatty():
        if title:
            sys.stdout.write(f"# {title}\n")
        for row in [columns, *rows]:
            sys.stdout.write("\t".join("" if cell is None else str(cell) for cell in row) + "\n")
        return
    if empty and not rows:
        typer.echo(f"{title}: {empty}" if title else empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    drawn = Table(
        title=title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for number, column in enumerate(columns):
        short = number == 0 or column in right
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=short)
    for row in rows:
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    Console().print(drawn)


def program() -> str:
    """How this user calls the command: ``quant`` where that is found, else the path it was started by."""
    started = Path(sys.argv[0])
    found = shutil.which("quant")
    if started.name != "quant" or (found is not None and Path(found).resolve() == started.resolve()):
        return "quant"
    here = Path.cwd()
    return str(started.relative_to(here)) if started.is_absolute() and started.is_relative_to(here) else str(started)


def report_error(problem: QuantError) -> int:
    """Say what went wrong, on standard error, and as JSON on standard output where that was asked for."""
    if os.environ.get("QUANT_DEBUG") or "--debug" in sys.argv:
        traceback.print_exception(problem)
    sys.stderr.write(f"error: {problem}\n")
    if json_wanted():
        document = {
            "error": {
                "kind": type(problem).__name__,
                "message": problem.message,
                "remedy": problem.remedy,
                "exit_code": problem.exit_code,
            }
        }
        _write_last(json.dumps(document, indent=2) + "\n")
    else:
        _write_last("")
    return problem.exit_code


def _write_last(text: str) -> None:
    """Write to standard output before the end; when it takes nothing (a full disk, a closed pipe), the error was said already."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails again when it flushes at its exit


class _Lines:
    """Progress as plain lines on standard error: one a stage, one a note, one for each ten per cent of a long stage."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._total: int | None = None
        self._done = self._told = 0
        self._name = ""

    def _say(self, text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self._began:6.1f} s] {text}\n")
        sys.stderr.flush()

    def stage(self, name: str, total: int | None = None) -> None:
        self._name, self._total, self._done, self._told = name, total, 0, 0
        self._say(name)

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if self._total and self._total >= 20:
            tenth = self._done * 10 // self._total
            if tenth > self._told:
                self._told = tenth
                self._say(f"{self._name}: {tenth * 10} %")

    def note(self, text: str) -> None:
        self._say(f"  {text}")


class _Bars:
    """Progress drawn by rich on a terminal."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._task: Any = None

    def _finish(self) -> None:
        if self._task is not None:
            total = self._bars.tasks[self._task].total or 1
            self._bars.update(self._task, total=total, completed=total)

    def stage(self, name: str, total: int | None = None) -> None:
        self._finish()
        self._task = self._bars.add_task(name, total=total)

    def advance(self, steps: int = 1) -> None:
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def note(self, text: str) -> None:
        self._bars.console.print(f"  {text}", style="dim", highlight=False, markup=False)  # text may hold brackets of its own


@contextmanager
def progress_on_stderr() -> Iterator[Progress]:
    """Progress for the block: bars on a terminal, plain lines in a pipe."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichBars
    from rich.text import Text

    class _Counted(ProgressColumn):
        """How many of how many, where that is known."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.completed:.0f}/{task.total:.0f}" if task.total and task.total > 1 else "")

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), _Counted(), TimeElapsedColumn())
    with RichBars(*columns, console=Console(stderr=True)) as bars:
        drawn = _Bars(bars)
        yield drawn
        drawn._finish()
