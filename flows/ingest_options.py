"""Ingest option quotes: ask the sources, keep the bytes, store good quotes with their clocks, publish a snapshot."""

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
from flows.sources.base import Answer, OptionSource

__all__ = ["ingest_options_flow"]


@flow(
    name="ingest-options",
    description="Ask the sources for option quotes, keep the bytes, store good rows, publish a snapshot",
    timeout_seconds=TIMEOUT_SECONDS,
    run_name=lambda given: run_words(given["symbols"], "symbols", (given["start_date"], given["end_date"]), given["data_provider"]),
    withheld=("api_key", "settings", "progress", "clock"),
)
def ingest_options_flow(
    symbols: str | Sequence[str] | None = None,
    data_provider: str | None = None,
    api_key: str | SecretStr | None = None,
    *,
    start_date: date | str | None = None,
    end_date: date | str | None = None,
    full: bool = False,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
    **source_options: Any,
) -> IngestReport:
    """Ingest quotes of the options on `symbols`, sessions from `start_date` to `end_date`, both included.

    Parameters
    ----------
    symbols : str or sequence of str, optional
        Underlyings; None: all that the source has.
    data_provider : str, optional
        The source; None: those in the settings (``data.options``), which are asked in order.
    api_key : str, optional
        The provider's key, instead of the environment's; kept out of Prefect's database, the lake and all messages.
    start_date, end_date : date or str, optional
        Without a start an incremental source is asked for what is newer than the quotes stored from it.
    full : bool
        Ask for everything, whatever is stored.
    **source_options
        The source's own.

    Returns
    -------
    IngestReport

    Raises
    ------
    UnknownNameError
        There is no such provider, or no source has options on any of the symbols.
    InputError
        A date or an option is wrong.
    DataError, ServiceError
        Every request failed; nothing was written.
    """
    from lake import open_lake

    given = settings or load_settings()
    names = (data_provider,) if data_provider else given.data.options
    chosen, notes = with_key(given, names[0], api_key)
    first, last = as_window(start_date, end_date)
    sources, left_out = make_sources(names, "options", chosen, source_options)

    def ask(of: OptionSource, block: Sequence[str], since: date | None, until: date | None) -> Iterator[Answer]:
        return of.quotes(block, since, until)

    report = ingest(
        "options",
        as_names(symbols, "symbols"),
        sources,
        ask,
        lake=open_lake(chosen),
        clock=clock or SystemClock(),
        progress=progress,
        window=Window(start=first, end=last, full=full, overlap_sessions=chosen.data.overlap_sessions),
        notes=(*notes, *left_out),
    )
    return cast("IngestReport", final_state(report))
