"""Verbs that fetch from sources into the lake: ingest equity|actions|options|macro|cot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.drawing import say, without_noughts
from flows.cli.shell import JsonFlag, emit, new_group, progress_on_stderr, settings_from, table

if TYPE_CHECKING:
    from config.orchestration import QuantFlow
    from flows.ingest_report import IngestReport

__all__ = [
    "DateFormat",
    "Day",
    "FilePath",
    "Full",
    "Mapping",
    "Options",
    "SourceName",
    "Symbols",
    "ingest",
    "names",
    "show_report",
    "source_options",
]

ingest = new_group(
    "Fetch from a source into the lake; the same window twice adds nothing. Exit codes: 0 done, 1 no source has any of the names, "
    "3 every row was refused, 5 a source failed for some names (the others are stored; safe to repeat), "
    "130 interrupted (what was stored is kept)."
)

Symbols = Annotated[str | None, typer.Option(help="Comma-separated.")]
Day = Annotated[str | None, typer.Option(help="YYYY-MM-DD; all there is, or all that is new, when left out.")]
SourceName = Annotated[str | None, typer.Option(help="One source instead of the configured chain.")]
FilePath = Annotated[Path | None, typer.Option(help="A file or folder, for the source 'files'.")]
Mapping = Annotated[Path | None, typer.Option(help="YAML: our column name to the file's, for the source 'files'.")]
DateFormat = Annotated[str | None, typer.Option(help="Of dates in a file not written as 2018-12-31: %m/%d/%Y, epoch_s, epoch_ms.")]
Full = Annotated[bool, typer.Option("--full", help="Ask for the whole history, not only for what is newer than what is stored.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="A source's own option; may be given several times.")
]

# A report of more names than this names the troubled ones only.
_MOST_LISTED = 60


def names(text: str | None) -> list[str] | None:
    """Split a comma-separated option; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def source_options(given: list[str] | None, flow: QuantFlow[Any, Any], **named: Any) -> dict[str, Any]:
    """The options of a source: those with a flag of their own that were given, and each ``KEY=VALUE``.

    A value is read as YAML reads it (5, 0.5, true, [a, b]); a date stays text.

    Parameters
    ----------
    given : list of str, optional
        As typed.
    flow : QuantFlow
        The one they are handed to; what it takes itself (``clock``, ``settings``, ``start_date``) is no option of a source.
    **named
        What the flags say.

    Raises
    ------
    InputError
        One has no ``=``, cannot be read, was given twice, or is none of a source's.
    """
    import inspect

    import yaml

    from config.errors import InputError

    options = {key: str(value) if isinstance(value, Path) else value for key, value in named.items() if value is not None}
    own = [name for name, one in inspect.signature(flow.fn).parameters.items() if one.kind is not one.VAR_KEYWORD]
    for text in given or ():
        key, sign, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key:
            raise InputError(f"--option {text!r} is not KEY=VALUE", remedy="write it as --option interval=5m")
        if key in own:
            raise InputError(f"{key} is no option of a source", remedy="quant ingest <dataset> --help lists what can be set")
        if key in options:
            raise InputError(f"the option {key} was given twice: {options[key]!r} and {value!r}", remedy="leave one out")
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"--option {key}: {value!r} cannot be read", remedy="put text with special signs in quotes") from None
        options[key] = read if isinstance(read, int | float | str | bool | list | dict) else value
    return options


def source_name(source: str | None, path: Path | None) -> str | None:
    """A path means the source 'files' unless another was named."""
    return "files" if source is None and path is not None else source


def show_report(as_json: bool, report: IngestReport) -> None:
    """Print what an ingest did, and end with the exit code that says so."""
    document = report.as_dict()

    def draw() -> None:
        columns = ["symbol", "outcome", "source", "received", "changed", "unchanged", "refused", "message"]
        many = len(report.names) > _MOST_LISTED
        listed = [name.as_dict() for name in (report.troubled if many else report.names)]
        if listed:
            title = f"{len(listed)} of {len(report.names)} names, the others came through whole" if many else ""
            counts = tuple(columns[3:7])
            table(title, *without_noughts(columns, [[name[column] for column in columns] for name in listed], counts), right=counts)
        typer.echo(report.summary)
        for name in report.refetched:
            say(f"refetched {name.name}: {name.refetched}")
        if report.gaps or report.gaps_filled or report.gaps_without_trading:
            closed = f", {report.gaps_filled} filled, {report.gaps_without_trading} without trading by the source's account"
            typer.echo(f"gaps: {report.gaps} still open{closed if report.gaps_filled or report.gaps_without_trading else ''}")
        for note in document["notes"]:
            say(note)
        typer.echo(f"snapshot {document['snapshot_id']}")

    emit(as_json, document, draw)
    if report.names and all(name.outcome == "missing" for name in report.names):
        sys.exit(1)  # as where a source can list what it has: a typing error more often than not
    if report.names and all(name.outcome == "refused" for name in report.names):
        sys.exit(3)  # every row was refused: they are in quarantine, see `quant data check`
    if report.count("failed"):
        sys.exit(5)  # a source failed for some names: what the others gave is stored and published


@ingest.command("equity")
def ingest_equity(
    symbols: Symbols = None,
    start: Day = None,
    end: Day = None,
    source: SourceName = None,
    full: Full = False,
    fill_gaps: Annotated[bool, typer.Option("--fill-gaps", help="Ask for the open gaps, each of its own source.")] = False,
    interval: Annotated[
        str | None, typer.Option(help="1d, 1h, 5m, where the source has intraday bars; needed for those in a file.")
    ] = None,
    path: FilePath = None,
    mapping: Mapping = None,
    symbol: Annotated[str | None, typer.Option(help="Of the whole file, where no column says it.")] = None,
    basis: Annotated[str | None, typer.Option(help="as_traded or vendor_adjusted, for the source 'files'.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of the prices in a file.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Of naive intraday times in a file, such as America/New_York.")] = None,
    date_format: DateFormat = None,
    option: Options = None,
    as_json: JsonFlag = False,
) -> None:
    """Bars of stocks, funds, indices and crypto pairs."""
    from flows.ingest_equity import ingest_equity_flow

    of_files = {"path": path, "mapping": mapping, "symbol": symbol, "basis": basis, "currency": currency, "timezone": timezone}
    options = source_options(option, ingest_equity_flow, **of_files, date_format=date_format, interval=interval)
    with progress_on_stderr() as progress:
        report = ingest_equity_flow(
            names(symbols),
            start,
            end,
            source=source_name(source, path),
            full=full,
            fill_gaps=fill_gaps,
            settings=settings_from(),
            progress=progress,
            **options,
        )
    show_report(as_json, report)


@ingest.command("actions")
def ingest_actions(
    symbols: Symbols = None,
    start: Day = None,
    end: Day = None,
    source: Annotated[str, typer.Option(help="The source to ask.")] = "files",
    path: FilePath = None,
    mapping: Mapping = None,
    symbol: Annotated[str | None, typer.Option(help="Of the whole file, where no column says it.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of the amounts in a file.")] = None,
    date_format: DateFormat = None,
    option: Options = None,
    as_json: JsonFlag = False,
) -> None:
    """Splits, payments, symbol changes and delistings by themselves; most sources of bars bring theirs along.

    A file has columns symbol, ex_date, kind (split, dividend, special_dividend, capital_gain, rename, delisting, listing), value,
    and where they apply new_symbol, announced, currency.
    """
    from flows.ingest_actions import ingest_actions_flow

    of_files = {"path": path, "mapping": mapping, "symbol": symbol, "currency": currency, "date_format": date_format}
    options = source_options(option, ingest_actions_flow, **of_files)
    with progress_on_stderr() as progress:
        report = ingest_actions_flow(
            names(symbols), start, end, source=source, settings=settings_from(), progress=progress, **options
        )
    show_report(as_json, report)


@ingest.command("options")
def ingest_options(
    symbols: Symbols = None,
    start: Day = None,
    end: Day = None,
    source: SourceName = None,
    full: Full = False,
    path: FilePath = None,
    mapping: Mapping = None,
    option: Options = None,
    as_json: JsonFlag = False,
) -> None:
    """Option quotes by underlying."""
    from flows.ingest_options import ingest_options_flow

    options = source_options(option, ingest_options_flow, path=path, mapping=mapping)
    with progress_on_stderr() as progress:
        report = ingest_options_flow(
            names(symbols),
            source_name(source, path),
            start_date=start,
            end_date=end,
            full=full,
            settings=settings_from(),
            progress=progress,
            **options,
        )
    show_report(as_json, report)


@ingest.command("macro")
def ingest_macro(
    series: Annotated[str | None, typer.Option(help="Comma-separated series ids.")] = None,
    start: Day = None,
    end: Day = None,
    source: SourceName = None,
    full: Full = False,
    path: FilePath = None,
    mapping: Mapping = None,
    lag: Annotated[
        int | None, typer.Option("--publication-lag-days", help="Days from a period to its publication, where a file says neither.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Of the values in a file.")] = None,
    date_format: DateFormat = None,
    option: Options = None,
    as_json: JsonFlag = False,
) -> None:
    """Macro series with the moment each value became known."""
    from flows.ingest_macro import ingest_macro_flow

    of_files = {"path": path, "mapping": mapping, "publication_lag_days": lag, "unit": unit, "date_format": date_format}
    options = source_options(option, ingest_macro_flow, **of_files)
    with progress_on_stderr() as progress:
        report = ingest_macro_flow(
            series=names(series),
            start_date=start,
            end_date=end,
            source=source_name(source, path),
            full=full,
            settings=settings_from(),
            progress=progress,
            **options,
        )
    show_report(as_json, report)


@ingest.command("cot")
def ingest_cot(
    markets: Annotated[str, typer.Option(help="Comma-separated contract market codes of the CFTC: 001602 is wheat.")],
    start: Day = None,
    end: Day = None,
    source: SourceName = None,
    report: Annotated[
        str | None,
        typer.Option(help="legacy, disaggregated or tff, with _futures or _combined behind it; legacy_futures when left out."),
    ] = None,
    via: Annotated[str | None, typer.Option(help="api (the public tables) or files (the yearly ZIP files).")] = None,
    option: Options = None,
    as_json: JsonFlag = False,
) -> None:
    """Commitments of Traders with the moment each report became public."""
    from flows.ingest_cot import ingest_cot_flow

    with progress_on_stderr() as progress:
        done = ingest_cot_flow(
            names(markets),
            start,
            end,
            source=source,
            settings=settings_from(),
            progress=progress,
            **source_options(option, ingest_cot_flow, report=report, via=via),
        )
    show_report(as_json, done)


@ingest.command("find")
def ingest_find(
    words: Annotated[str, typer.Argument(help="What to look for, such as: real gdp")],
    limit: Annotated[int, typer.Option(min=1, help="At most so many series.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Series of FRED by words, the most visited first."""
    from flows.sources.fred_search import find_series

    found = [one.as_dict() for one in find_series(words, settings_from(), limit=limit)]
    columns = ["series", "title", "frequency", "units", "first", "last", "popularity"]

    def draw() -> None:
        table("", columns, [[one[column] for column in columns] for one in found], right=("popularity",))

    emit(as_json, {"series": found}, draw)
