"""Verbs about data: ingest equity|options|macro, data ls|show|sql|check|verify, features build|ls|check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.shell import JsonFlag, emit, new_group, progress_on_stderr, settings_from, table

if TYPE_CHECKING:
    import pyarrow as pa

    from flows.ingest import IngestReport

__all__ = ["add_to"]

ingest = new_group("Fetch from a source into the lake; the same window twice adds nothing.")
data = new_group("Look into the lake.")
features = new_group("Declared, point-in-time features.")

Symbols = Annotated[str | None, typer.Option(help="Comma-separated.")]
Day = Annotated[str | None, typer.Option(help="YYYY-MM-DD; all there is when left out.")]
SourceName = Annotated[str | None, typer.Option(help="One source instead of the configured chain.")]
FilePath = Annotated[Path | None, typer.Option(help="A file or folder, for the source 'files'.")]
Mapping = Annotated[Path | None, typer.Option(help="YAML: our column name to the file's, for the source 'files'.")]
DateFormat = Annotated[str | None, typer.Option(help="Of dates in a file not written as 2018-12-31: %m/%d/%Y, epoch_s, epoch_ms.")]


def names(text: str | None) -> list[str] | None:
    """Split a comma-separated option; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _file_options(path: Path | None, mapping: Path | None, **more: Any) -> dict[str, Any]:
    given = {"path": path, "mapping": mapping, **more}
    return {key: str(value) if isinstance(value, Path) else value for key, value in given.items() if value is not None}


def _source(source: str | None, path: Path | None) -> str | None:
    """A path means the source 'files' unless another was named."""
    return "files" if source is None and path is not None else source


def _show_report(as_json: bool, report: IngestReport) -> None:
    document = report.as_dict()

    def draw() -> None:
        columns = ["symbol", "outcome", "source", "received", "changed", "unchanged", "refused", "message"]
        table("", columns, [[name[column] for column in columns] for name in document["outcomes"]], right=tuple(columns[3:7]))
        typer.echo(f"{report.outcome}: {report.total.new} rows new, {report.total.revised} revised, {report.total.refused} refused")
        for note in document["notes"]:
            typer.echo(note)
        typer.echo(f"snapshot {document['snapshot_id']}")

    emit(as_json, document, draw)
    if report.names and all(name.outcome == "refused" for name in report.names):
        sys.exit(3)  # every row was refused: they are in quarantine, see `quant data check`


@ingest.command("equity")
def ingest_equity(
    symbols: Symbols = None,
    start: Day = None,
    end: Day = None,
    source: SourceName = None,
    path: FilePath = None,
    mapping: Mapping = None,
    symbol: Annotated[str | None, typer.Option(help="Of the whole file, where no column says it.")] = None,
    basis: Annotated[str | None, typer.Option(help="as_traded or vendor_adjusted, for the source 'files'.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of the prices in a file.")] = None,
    interval: Annotated[str | None, typer.Option(help="1d, 1h, 5m: needed for intraday bars in a file.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Of naive intraday times in a file, such as America/New_York.")] = None,
    date_format: DateFormat = None,
    as_json: JsonFlag = False,
) -> None:
    """Bars of stocks and indices."""
    from flows.ingest_equity import ingest_equity_flow

    options = {"symbol": symbol, "basis": basis, "currency": currency, "interval": interval, "timezone": timezone}
    with progress_on_stderr() as progress:
        report = ingest_equity_flow(
            names(symbols),
            start,
            end,
            source=_source(source, path),
            settings=settings_from(),
            progress=progress,
            **_file_options(path, mapping, date_format=date_format, **options),
        )
    _show_report(as_json, report)


@ingest.command("options")
def ingest_options(
    symbols: Symbols = None,
    start: Day = None,
    end: Day = None,
    source: SourceName = None,
    path: FilePath = None,
    mapping: Mapping = None,
    as_json: JsonFlag = False,
) -> None:
    """Option quotes by underlying."""
    from flows.ingest_options import ingest_options_flow

    with progress_on_stderr() as progress:
        report = ingest_options_flow(
            names(symbols),
            _source(source, path),
            start_date=start,
            end_date=end,
            settings=settings_from(),
            progress=progress,
            **_file_options(path, mapping),
        )
    _show_report(as_json, report)


@ingest.command("macro")
def ingest_macro(
    series: Annotated[str | None, typer.Option(help="Comma-separated series ids.")] = None,
    start: Day = None,
    end: Day = None,
    source: SourceName = None,
    path: FilePath = None,
    mapping: Mapping = None,
    lag: Annotated[
        int | None, typer.Option("--publication-lag-days", help="Days from a period to its publication, where a file says neither.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Of the values in a file.")] = None,
    date_format: DateFormat = None,
    as_json: JsonFlag = False,
) -> None:
    """Macro series with the moment each value became known."""
    from flows.ingest_macro import ingest_macro_flow

    with progress_on_stderr() as progress:
        report = ingest_macro_flow(
            series=names(series),
            start_date=start,
            end_date=end,
            source=_source(source, path),
            settings=settings_from(),
            progress=progress,
            **_file_options(path, mapping, publication_lag_days=lag, unit=unit, date_format=date_format),
        )
    _show_report(as_json, report)


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
