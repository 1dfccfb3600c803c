"""Ingest equity bars: ask the sources, keep the bytes, store good rows with their clocks, publish a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from config.clock import Clock, SystemClock
from config.orchestration import flow
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from flows.ingest import TIMEOUT_SECONDS, as_names, as_window, ingest, run_words
from flows.ingest_report import IngestReport
from flows.sources.base import Answer, EquitySource, get_source

__all__ = ["ingest_equity_flow"]


@flow(
    name="ingest-equity",
    description="Ask the sources for bars, keep the bytes, store good rows, publish a snapshot",
    timeout_seconds=TIMEOUT_SECONDS,
    run_name=lambda given: run_words(given["symbols"], "symbols", (given["start_date"], given["end_date"]), given["source"]),
    withheld=("settings", "progress", "clock"),
)
def ingest_equity_flow(
    symbols: str | Sequence[str] | None = None,
    start_date: date | str | None = None,
    end_date: date | str | None = None,
    *,
    source: str | None = None,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
    **source_options: Any,
) -> IngestReport:
    """Ingest bars of `symbols` from `start_date` to `end_date`, both included.

    Parameters
    ----------
    symbols : str or sequence of str, optional
        None: all that the source has.
    start_date, end_date : date or str, optional
        As 2018-12-31; None: as far as the source goes.
    source : str, optional
        Instead of those in the settings (``data.equity``), which are asked in order.
    **source_options
        The source's own: ``path`` and ``basis`` for files.

    Returns
    -------
    IngestReport
        Ingested again, an unchanged answer adds nothing and the report says ``unchanged``.

    Raises
    ------
    UnknownNameError
        There is no such source, or no source has any of the symbols.
    InputError
        A date or an option is wrong.
    DataError, ServiceError
        Every request failed; nothing was written.
    """
    from lake import open_lake

    chosen = settings or load_settings()
    first, last = as_window(start_date, end_date)
    names = (source,) if source else chosen.data.equity
    asked = as_names(symbols, "symbols")
    if names == ("files",) and asked is not None and len(asked) == 1:
        source_options.setdefault("unnamed", asked[0])  # one symbol asked of one file without a symbol column: it is that
    sources = [get_source(name, "equity", chosen, **source_options) for name in names]

    def ask(of: EquitySource, block: Sequence[str]) -> Iterator[Answer]:
        return of.bars(block, first, last)

    return ingest(
        "equity",
        asked,
        sources,
        ask,
        lake=open_lake(chosen),
        clock=clock or SystemClock(),
        progress=progress,
        calendar=chosen.data.calendar,
    )
