"""Ingest corporate actions by themselves: splits, payments, symbol changes, delistings; sources of bars bring their own along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, cast

from config.clock import Clock, SystemClock
from config.orchestration import flow
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from flows.ingest import TIMEOUT_SECONDS, Window, as_names, as_window, final_state, ingest, run_words
from flows.ingest_report import IngestReport
from flows.sources.base import ActionSource, Answer, get_source

__all__ = ["ingest_actions_flow"]


@flow(
    name="ingest-actions",
    description="Ask a source for corporate actions, keep the bytes, store good rows, publish a snapshot",
    timeout_seconds=TIMEOUT_SECONDS,
    run_name=lambda given: run_words(given["symbols"], "symbols", (given["start_date"], given["end_date"]), given["source"]),
    withheld=("settings", "progress", "clock"),
)
def ingest_actions_flow(
    symbols: str | Sequence[str] | None = None,
    start_date: date | str | None = None,
    end_date: date | str | None = None,
    *,
    source: str = "files",
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
    **source_options: Any,
) -> IngestReport:
    """Ingest corporate actions of `symbols` with ex-dates from `start_date` to `end_date`, both included.

    Parameters
    ----------
    symbols : str or sequence of str, optional
        None: all that the source has.
    start_date, end_date : date or str, optional
        As 2018-12-31.
    source : str
    **source_options
        The source's own: ``path`` for files.

    Returns
    -------
    IngestReport

    Raises
    ------
    UnknownNameError
        There is no such source, or it has none of the symbols.
    InputError
        A date or an option is wrong.
    DataError, ServiceError
        Every request failed; nothing was written.
    """
    from lake import open_lake

    chosen = settings or load_settings()
    first, last = as_window(start_date, end_date)

    def ask(of: ActionSource, block: Sequence[str], since: date | None, until: date | None) -> Iterator[Answer]:
        return of.actions(block, since, until)

    report = ingest(
        "actions",
        as_names(symbols, "symbols"),
        [get_source(source, "actions", chosen, **source_options)],
        ask,
        lake=open_lake(chosen),
        clock=clock or SystemClock(),
        progress=progress,
        window=Window(start=first, end=last, full=True),
    )
    return cast("IngestReport", final_state(report))
