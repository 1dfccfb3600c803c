"""Ingest macro series: ask the sources, keep the bytes, store every vintage with its moment of publication, publish a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, cast

from pydantic import SecretStr

from config.clock import Clock, SystemClock
from config.orchestration import flow
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from flows.ingest import TIMEOUT_SECONDS, Window, as_names, as_window, final_state, ingest, make_sources, run_words, with_key
from flows.ingest_report import IngestReport
from flows.ingest_vintages import go_on
from flows.sources.base import Answer, MacroSource

__all__ = ["ingest_macro_flow"]


@flow(
    name="ingest-macro",
    description="Ask the sources for macro series, keep the bytes, store good rows, publish a snapshot",
    timeout_seconds=TIMEOUT_SECONDS,
    run_name=lambda given: run_words(given["series"], "series", (given["start_date"], given["end_date"]), given["source"]),
    withheld=("fred_api_key", "settings", "progress", "clock"),
)
def ingest_macro_flow(
    fred_api_key: str | SecretStr | None = None,
    *,
    series: str | Sequence[str] | None = None,
    start_date: date | str | None = None,
    end_date: date | str | None = None,
    source: str | None = None,
    full: bool = False,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
    **source_options: Any,
) -> IngestReport:
    """Ingest macro `series`, periods from `start_date` to `end_date`, both included.

    Parameters
    ----------
    fred_api_key : str, optional
        Instead of FRED_API_KEY; kept out of Prefect's database, the lake and all messages. Which source is asked is decided by
        `source` or the settings (``data.macro``), not by the key.
    series : str or sequence of str, optional
        None: all that the source has.
    start_date, end_date : date or str, optional
    source : str, optional
        Instead of those in the settings, which are asked in order.
    full : bool
        Every vintage again, of a source too that could be asked for the new ones only.
    **source_options
        The source's own: ``path`` and ``publication_lag_days`` for files.

    Returns
    -------
    IngestReport

    Raises
    ------
    UnknownNameError
        There is no such source, or no source has any of the series.
    InputError
        A date or an option is wrong.
    DataError, ServiceError
        Every request failed; nothing was written.
    """
    from lake import open_lake

    chosen, notes = with_key(settings or load_settings(), "fred", fred_api_key)
    first, last = as_window(start_date, end_date)
    names = (source,) if source else chosen.data.macro
    sources, left_out = make_sources(names, "macro", chosen, source_options)

    lake = open_lake(chosen)
    if not full:
        go_on(lake, sources)

    def ask(of: MacroSource, block: Sequence[str], since: date | None, until: date | None) -> Iterator[Answer]:
        return of.observations(block, since, until)

    unused = () if "fred" in names or fred_api_key is None else (f"the key was not used: asked {', '.join(names)}, not fred",)
    report = ingest(
        "macro",
        as_names(series, "series"),
        sources,
        ask,
        lake=lake,
        clock=clock or SystemClock(),
        progress=progress,
        window=Window(start=first, end=last, full=True),
        notes=(*notes, *unused, *left_out),
    )
    return cast("IngestReport", final_state(report))
