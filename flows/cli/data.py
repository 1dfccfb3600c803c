"""Verbs about data: data ls|show|sql|verify, features build|ls|check.

`ingest` is in flows/cli/ingest.py; data check|rules|quarantine|release are in flows/cli/quality.py,
data watch|alerts in flows/cli/alerts.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.alerts import add_alert_verbs
from flows.cli.drawing import say, wide_table
from flows.cli.ingest import Day, Symbols, ingest, names
from flows.cli.maintain import add_maintain
from flows.cli.quality import add_quality_verbs
from flows.cli.shell import JsonFlag, emit, new_group, progress_on_stderr, settings_from, table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["add_to"]

data = new_group("Look into the lake.")
features = new_group("Declared, point-in-time features.")


def _rows(found: pa.Table, limit: int) -> list[list[Any]]:
    return [list(row.values()) for row in found.slice(0, limit).to_pylist()]


@data.command("ls")
def data_ls(
    symbols: Annotated[bool, typer.Option("--symbols", help="Also every symbol, series, underlying and report.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """The tables of the newest snapshot: rows, first and last event, how fresh, what is missing, refused, flagged."""
    from config.clock import SystemClock
    from flows.inventory import list_tables

    inventory = list_tables(settings_from(), SystemClock(), symbols=symbols)

    def draw() -> None:
        listed = inventory["tables"]
        held = ["table", "rows", "names", "first_event", "last_event", "newest_available_at"]
        shown = ["table", "rows", "names", "first event", "last event", "newest available"]
        rows = [[_short(one[key]) for key in held] for one in listed]
        table(f"snapshot {inventory['snapshot_id']}", shown, rows, right=("rows", "names"))
        kept = ["table", "freshness", "last_ingest", "gaps", "quarantine", "flags"]
        columns = ["table", "freshness", "last ingest", "open gaps", "held rows", "flags"]
        rows = [[str(one[key])[:16] if key == "last_ingest" and one[key] else one[key] for key in kept] for one in listed]
        table("", columns, rows, right=("open gaps", "held rows", "flags"))
        for one in listed:
            if one["late"]:
                say(one["message"])
        if symbols:
            _draw_names(inventory["symbols"])

    emit(as_json, inventory, draw)


def _draw_names(names: list[dict[str, Any]]) -> None:
    """One table a table: what a line says is the same for all of its names."""
    columns = ["name", "source", "rows", "first", "last", "available", "freshness", "gaps", "held", "flags"]
    for of in dict.fromkeys(one["table"] for one in names):
        rows = [
            [
                *(_short(one[key]) for key in ("name", "source", "rows", "first", "last", "newest_available_at")),
                f"late, {one['late_by']}" if one["late"] else one["state"],
                *(one[key] for key in ("gaps", "quarantine", "flags")),
            ]
            for one in names
            if one["table"] == of
        ]
        table(of, columns, rows, right=("rows", "gaps", "held", "flags"))


def _short(value: Any) -> Any:
    """A moment as its day: what fits a table."""
    return str(value)[:10] if value is not None and str(value)[4:5] == "-" and str(value)[7:8] == "-" else value


@data.command("show")
def data_show(
    name: Annotated[str, typer.Argument(metavar="TABLE", help="A table, see: quant data ls")],
    symbols: Symbols = None,
    start: Day = None,
    end: Day = None,
    as_of: Annotated[str | None, typer.Option(help="A UTC moment: what was known then.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="A snapshot id; the newest when left out.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Rows of a table, as known at a moment."""
    from flows.inventory import read_table

    found = read_table(settings_from(), name, symbols=names(symbols), start=start, end=end, as_of=as_of, snapshot_id=snapshot)
    document = {
        "table": name,
        "rows": found.num_rows,
        "shown": min(limit, found.num_rows),
        "data": found.slice(0, limit).to_pylist(),
    }

    def draw() -> None:
        wide_table(name, found.column_names, _rows(found, limit))
        if found.num_rows > limit:
            typer.echo(f"{limit} of {found.num_rows} rows; more with --limit")

    emit(as_json, document, draw)


@data.command("sql")
def data_sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the tables of the newest snapshot.")],
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """Ask the lake in SQL (DuckDB)."""
    from lake import open_lake

    found = open_lake(settings_from()).snapshot().sql(query)
    document = {"columns": found.column_names, "rows": found.num_rows, "data": found.slice(0, limit).to_pylist()}

    def draw() -> None:
        wide_table("", found.column_names, _rows(found, limit))
        if found.num_rows > limit:
            typer.echo(f"{limit} of {found.num_rows} rows; more with --limit")

    emit(as_json, document, draw)


@data.command("verify")
def data_verify(
    snapshot: Annotated[str | None, typer.Option(help="A snapshot id; the newest when left out.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read a snapshot again and compare it, and the raw answers it came from, with their recorded hashes."""
    from flows.inventory import verify_snapshot

    with progress_on_stderr() as progress:
        report = verify_snapshot(settings_from(), snapshot, progress)

    def draw() -> None:
        columns = ["what", "id", "state", "detail"]
        table(f"snapshot {report['snapshot_id']}", columns, [[c[k] for k in columns] for c in report["checks"]])

    emit(as_json, report, draw)
    if report["problems"]:
        sys.exit(3)


@features.command("ls")
def features_ls(as_json: JsonFlag = False) -> None:
    """The catalogue: each feature with its formula, window, inputs and source."""
    from features.catalogue import CATALOGUE

    listed = [{**feature.as_dict(), "group": feature.group, "source": feature.source} for feature in CATALOGUE.values()]
    columns = ["name", "group", "formula", "warm_up", "inputs", "source"]

    def draw() -> None:
        rows = [[", ".join(map(str, f[c])) if isinstance(f[c], list | tuple) else f[c] for c in columns] for f in listed]
        table(f"{len(listed)} features", columns, rows, right=("warm_up",))

    emit(as_json, {"features": listed}, draw)


@features.command("build")
def features_build(
    symbols: Annotated[str, typer.Option(help="Comma-separated.")],
    feature_set: Annotated[str, typer.Option("--set", help="A set, or comma-separated feature names.")] = "core",
    start: Day = None,
    end: Day = None,
    as_json: JsonFlag = False,
) -> None:
    """Compute features into the lake, from what was known at each session's close."""
    from features.build import build_features_flow

    with progress_on_stderr() as progress:
        built = build_features_flow(
            names(symbols), feature_set=feature_set, start=start, end=end, settings=settings_from(), progress=progress
        )

    def draw() -> None:
        typer.echo(f"{built.rows} rows of {len(built.features)} features as {built.set_version}, snapshot {built.snapshot_id}")

    emit(as_json, built.as_dict(), draw)


@features.command("check")
def features_check(
    symbols: Annotated[str, typer.Option(help="Comma-separated symbols of the lake to check on.")] = "NASDAQ",
    cuts: Annotated[int, typer.Option(min=1, help="At how many points to cut the future off.")] = 12,
    as_json: JsonFlag = False,
) -> None:
    """Cut the future off, poison it, and demand the same values (no look-ahead)."""
    from flows.inventory import check_features

    with progress_on_stderr() as progress:
        report = check_features(settings_from(), names(symbols) or [], cuts, progress)
    proven = report["features"] - len(report["unproven"])
    missing = f"; nothing to compare for {', '.join(report['unproven'])}" if report["unproven"] else ""
    emit(as_json, report, lambda: typer.echo(f"{proven} features keep every value at {report['cuts']} cuts{missing}"))


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the tree."""
    app.add_typer(ingest, name="ingest")
    add_quality_verbs(data)
    add_maintain(data)
    add_alert_verbs(data)
    app.add_typer(data, name="data")
    app.add_typer(features, name="features")
