"""Verbs about data: ingest (flows/cli/ingest.py), data ls|show|sql|check|verify, features build|ls|check."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.ingest import Day, Symbols, ingest, names
from flows.cli.shell import JsonFlag, emit, new_group, progress_on_stderr, settings_from, table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["add_to"]

data = new_group("Look into the lake.")
features = new_group("Declared, point-in-time features.")


def _rows(found: pa.Table, limit: int) -> list[list[Any]]:
    return [list(row.values()) for row in found.slice(0, limit).to_pylist()]


@data.command("ls")
def data_ls(as_json: JsonFlag = False) -> None:
    """The tables of the newest snapshot: rows, names, first and last event, newest availability."""
    from flows.inventory import list_tables

    inventory = list_tables(settings_from())

    def draw() -> None:
        columns = ["table", "rows", "names", "first", "last", "newest available", "recorded"]
        keys = ["table", "rows", "names", "first_event", "last_event", "newest_available_at", "newest_recorded_at"]
        table(f"snapshot {inventory['snapshot_id']}", columns, [[t[k] for k in keys] for t in inventory["tables"]], right=("rows",))

    emit(as_json, inventory, draw)


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
        table(name, found.column_names, _rows(found, limit))
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
    emit(as_json, document, lambda: table("", found.column_names, _rows(found, limit)))


@data.command("check")
def data_check(as_json: JsonFlag = False) -> None:
    """Quarantined rows and gaps, by table and rule."""
    from flows.inventory import check_quality

    report = check_quality(settings_from())

    def draw() -> None:
        table("quarantine", ["table", "rule", "rows", "example"], [list(r.values()) for r in report["quarantine"]], right=("rows",))
        table("gaps", ["dataset", "symbol", "source", "missing sessions"], [list(r.values()) for r in report["gaps"]])

    emit(as_json, report, draw)


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
    app.add_typer(data, name="data")
    app.add_typer(features, name="features")
