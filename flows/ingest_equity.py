"""Ingest equity bars: ask the sources, keep the bytes, store good rows with their clocks, publish a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, cast

from config.clock import Clock, SystemClock
from config.errors import InputError
from config.orchestration import flow
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from flows.ingest import TIMEOUT_SECONDS, Window, as_names, as_window, final_state, ingest, make_sources, run_words
from flows.ingest_gaps import fill_gaps as fill_open_gaps
from flows.ingest_report import IngestReport
from flows.sources.base import Answer, EquitySource

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
    full: bool = False,
    fill_gaps: bool = False,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
    **source_options: Any,
) -> IngestReport:
    """Ingest bars of `symbols` from `start_date` to `end_date`, both included.

    Parameters
    ----------
    symbols : str or sequence of str, optional
        None: all that the first source has or, where it cannot list them, all that are stored from it.
    start_date, end_date : date or str, optional
        As 2018-12-31. Without a start a source over a network is asked for what is newer than the newest bar stored from it, and
        for `data.overlap_sessions` before; for symbols that are not stored, and where one of those bars is another now, for
        everything.
    source : str, optional
        Instead of those in the settings (``data.equity``), which are asked in order: a symbol goes to the first that has it, to the
        next where that one fails or has not.
    full : bool
        Ask for everything, whatever is stored.
    fill_gaps : bool
        Ask for the open gaps instead, each of its own source; `start_date` and `end_date` say which.
    **source_options
        The sources' own: ``path`` and ``basis`` for files, ``interval`` where a source has intraday bars.

    Returns
    -------
    IngestReport
        Ingested again, an unchanged answer adds nothing and the report says ``unchanged``.

    Raises
    ------
    UnknownNameError
        There is no such source, or no source has any of the symbols.
    InputError
        A date or an option is wrong, or `full` and `fill_gaps` are given together.
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
    sources, notes = make_sources(names, "equity", chosen, source_options)
    window = Window(
        start=first,
        end=last,
        full=full,
        overlap_sessions=chosen.data.overlap_sessions,
        interval=_interval(names, chosen, source_options),
    )

    def ask(of: EquitySource, block: Sequence[str], since: date | None, until: date | None) -> Iterator[Answer]:
        return of.bars(block, since, until)

    shared: dict[str, Any] = {"lake": open_lake(chosen), "clock": clock or SystemClock(), "progress": progress, "notes": notes}
    if fill_gaps:
        if full:
            raise InputError("full asks for everything, fill_gaps for what is missing", remedy="choose one")
        return cast("IngestReport", final_state(fill_open_gaps(asked, sources, ask, window=window, **shared)))
    return cast("IngestReport", final_state(ingest("equity", asked, sources, ask, window=window, **shared)))


def _interval(names: Sequence[str], settings: Settings, options: Mapping[str, Any]) -> str:
    """Of the bars that are asked for: as the caller says, else as the settings of the first source do, else daily."""
    set_for_sources = [settings.data.source_options.get(name, {}).get("interval") for name in names]
    return str(options.get("interval") or next((one for one in set_for_sources if one), "1d"))
