"""Verbs about research: strategy ls|check, backtest, search, parity, compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli.ingest import names
from flows.cli.shell import JsonFlag, emit, new_group, progress_on_stderr, settings_from, table

__all__ = ["add_to"]

strategy = new_group("The shipped strategies.")

StrategyName = Annotated[str, typer.Argument(metavar="NAME", help="A strategy, see: quant strategy ls")]
SymbolList = Annotated[str, typer.Option("--symbols", help="Comma-separated; all in one account.")]
Day = Annotated[str | None, typer.Option(help="YYYY-MM-DD")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="parameter=value; repeat for several.")]
Fill = Annotated[
    Literal["next_open", "same_close"] | None,
    typer.Option(help="Instead of the convention's; data with closes only need same_close."),
]
ReferenceFlag = Annotated[
    Literal["reference", "settings"], typer.Option("--convention", help="docs/conventions.md, or as the settings change it.")
]


def parse_assignments(given: list[str] | None) -> dict[str, Any]:
    """Read ``name=value`` options; dotted names nest, values are read as YAML.

    Raises
    ------
    InputError
        One of them is not of that form.
    """
    import yaml

    from config.errors import InputError

    found: dict[str, Any] = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {text!r} is not parameter=value", remedy="write --set fast=20")
        place = found
        *path, last = key.strip().split(".")
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {text!r}: {part!r} was given a value before", remedy=f"give either {part} or its members")
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError as problem:
            short = str(problem).splitlines()[0]
            raise InputError(f"--set {text!r}: the value cannot be read: {short}", remedy="quote texts, close brackets") from None
    return found


def parse_grid(given: list[str]) -> dict[str, list[Any]]:
    """Read ``name=first:last[:step]`` (both included) or ``name=a,b,c``.

    Raises
    ------
    InputError
        One of them is not of that form.
    """
    from config.errors import InputError

    grid: dict[str, list[Any]] = {}
    for text in given:
        key, equals, values = text.partition("=")
        try:
            if not equals:
                raise ValueError
            if ":" in values:
                first, last, step = [*map(int, values.split(":")), 1][:3]
                grid[key] = list(range(first, last + 1, step))
            else:
                grid[key] = [float(part) if "." in part else int(part) for part in values.split(",")]
        except ValueError:
            raise InputError(
                f"--grid {text!r} is not a range", remedy="write --grid fast=5:150, fast=5:150:5 or fast=5,10,20"
            ) from None
    return grid


def _settings_with(convention: str, fill: str | None) -> Any:
    from config.conventions import REFERENCE

    overrides = {f"convention__{key}": value for key, value in REFERENCE.as_dict().items()} if convention == "reference" else {}
    if fill is not None:
        overrides["convention__fill"] = fill
    return settings_from(**overrides)


@strategy.command("ls")
def strategy_ls(as_json: JsonFlag = False) -> None:
    """The shipped configurations, with the parameters and features of each."""
    from backtests.strategies import STRATEGIES, shipped

    listed = [
        {
            "name": label,
            "strategy": one.name,
            "role": one.role,
            "params": one.params,
            "features": list(one.features),
            "about": (type(one).__doc__ or "").strip().splitlines()[0],
        }
        for label, one in shipped().items()
    ]
    columns = ["name", "role", "params", "features", "about"]

    def draw() -> None:
        rows = [[one["name"], one["role"], one["params"], ", ".join(one["features"]), one["about"]] for one in listed]
        table(f"{len(STRATEGIES)} strategies", columns, rows)

    emit(as_json, {"strategies": listed}, draw)


@strategy.command("check")
def strategy_check(
    name: StrategyName,
    symbols: SymbolList = "NASDAQ",
    assignments: Assignments = None,
    cuts: Annotated[int, typer.Option(min=1, help="At how many points to cut the future off.")] = 12,
    as_json: JsonFlag = False,
) -> None:
    """Cut the future off, poison it, and demand the same decisions (no look-ahead)."""
    from flows.workbench import check_one

    with progress_on_stderr() as progress:
        report = check_one(settings_from(), name, parse_assignments(assignments), names(symbols) or [], cuts, progress)
    emit(as_json, report, lambda: typer.echo(f"{name}: {report['compared']} weights equal at {report['cuts']} cuts"))


def backtest(
    name: StrategyName,
    symbols: SymbolList,
    assignments: Assignments = None,
    engine: Annotated[Literal["vector", "event"], typer.Option(help="vectorbt, or backtrader session by session.")] = "vector",
    start: Day = None,
    end: Day = None,
    convention: ReferenceFlag = "settings",
    fill: Fill = None,
    experiment: Annotated[str, typer.Option(help="The MLflow experiment.")] = "backtests",
    as_json: JsonFlag = False,
) -> None:
    """Backtest one configuration; it is logged, and counted as a trial."""
    from flows.workbench import backtest_one

    with progress_on_stderr() as progress:
        report = backtest_one(
            _settings_with(convention, fill),
            name,
            parse_assignments(assignments),
            names(symbols) or [],
            engine=engine,
            start=start,
            end=end,
            experiment=experiment,
            progress=progress,
        )

    def draw() -> None:
        shown = {key: value for key, value in report.items() if not isinstance(value, dict | list)}
        table(f"{name} on {symbols}", ["number", "value"], [[key, value] for key, value in shown.items()], right=("value",))
        for finding in report["findings"]:
            typer.echo(f"{finding['severity']}: {finding['text']}\n  → {finding['remedy']}")

    emit(as_json, report, draw)


def search(
    name: StrategyName,
    symbols: SymbolList,
    grid: Annotated[list[str], typer.Option("--grid", help="parameter=first:last[:step] or a,b,c; repeat for several.")],
    out: Annotated[Path | None, typer.Option(help="Leave a Parquet file of every combination in this folder.")] = None,
    start: Day = None,
    end: Day = None,
    convention: ReferenceFlag = "settings",
    fill: Fill = None,
    as_json: JsonFlag = False,
) -> None:
    """Backtest every combination of a grid on each symbol; each is counted as a trial."""
    from flows.workbench import search_grid

    with progress_on_stderr() as progress:
        report = search_grid(
            _settings_with(convention, fill),
            name,
            parse_grid(grid),
            names(symbols) or [],
            out=out,
            start=start,
            end=end,
            progress=progress,
        )

    def draw() -> None:
        rows = [[best["symbol"], best["params"], f"{best['sharpe']:.4f}", best["trades"]] for best in report["best"]]
        table(
            f"{report['combinations']} combinations", ["symbol", "luckiest", "Sharpe", "trades"], rows, right=("Sharpe", "trades")
        )
        typer.echo(f"{report['trials']} trials counted on these symbols; a lucky one is not a good one: quant demo shows the gate")

    emit(as_json, report, draw)


def parity(
    name: StrategyName,
    symbols: SymbolList = "NASDAQ",
    assignments: Assignments = None,
    convention: ReferenceFlag = "settings",
    fill: Fill = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare the order lists and equity of vectorbt and backtrader on one strategy."""
    from flows.workbench import compare_engines

    with progress_on_stderr() as progress:
        report = compare_engines(
            _settings_with(convention, fill), name, parse_assignments(assignments), names(symbols) or [], progress
        )

    def draw() -> None:
        table(f"{name} on {symbols}", ["", "value"], [[key, value] for key, value in report.items()])

    emit(as_json, report, draw)
    if not report["equal"]:
        sys.exit(3)


def compare(
    experiment: Annotated[str, typer.Argument(help="An MLflow experiment, such as demo.")] = "demo",
    metric: Annotated[str, typer.Option(help="What to rank by.")] = "sharpe",
    out: Annotated[Path | None, typer.Option(help="Also write an HTML report here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rank the strategies of an experiment by a metric."""
    from tracking.comparator import create_experiment_comparator

    comparator = create_experiment_comparator(experiment, settings_from())
    ranked = comparator.compare_strategies(metric)
    rows = ranked.reset_index().to_dict("records")
    written = str(comparator.generate_performance_report(out)) if out else None

    def draw() -> None:
        columns = [str(column) for column in ranked.reset_index().columns]
        table(f"{experiment} by {metric}", columns, [[row[column] for column in columns] for row in rows])

    emit(as_json, {"experiment": experiment, "metric": metric, "ranking": _plain(rows), "report": written}, draw)


def _plain(rows: list[dict[Any, Any]]) -> list[dict[str, Any]]:
    """NaN has no place in JSON: a missing number is null."""
    return [{str(k): None if isinstance(v, float) and v != v else v for k, v in row.items()} for row in rows]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the tree."""
    app.add_typer(strategy, name="strategy")
    for verb in (backtest, search, parity, compare):
        app.command()(verb)
