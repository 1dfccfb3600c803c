"""Works off the open gaps: asks each gap's own source for exactly the sessions that are missing.

1. `fill_gaps` takes the open gaps, merged into windows (`lake.gaps.open_ranges`), and lets `flows.ingest.Run` ask for them.
2. A session for which a bar comes is *filled*. One for which the source was asked and gave nothing is *no_data*: it is not asked
   again (`_answered`). One whose source failed, or whose row was refused, stays *missing*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING

from config.clock import Clock
from config.orchestration import some_of
from config.progress import Progress
from flows.ingest import Ask, Run, Window
from flows.ingest_plan import Request
from flows.ingest_report import IngestReport
from flows.sources.base import Source

if TYPE_CHECKING:
    from lake.gaps import OpenRange
    from lake.store import Lake

__all__ = ["fill_gaps"]


def fill_gaps(
    symbols: Sequence[str] | None,
    sources: Sequence[Source],
    ask: Ask,
    *,
    lake: Lake,
    clock: Clock,
    progress: Progress,
    window: Window,
    notes: Sequence[str] = (),
) -> IngestReport:
    """Ask for the sessions that are missing.

    Parameters
    ----------
    symbols : sequence of str, optional
        Only these; all that have open gaps by default.
    window : Window
        Which gaps: those between its start and end, of bars of its interval.

    Returns
    -------
    IngestReport
        `gaps` are still missing, `gaps_filled` have a bar now, of `gaps_without_trading` the source has none.

    Raises
    ------
    ServiceError, DataError
        Every request failed.
    """
    from lake.gaps import close_asked, open_ranges

    run = Run(dataset="equity", ask=ask, lake=lake, clock=clock, started=clock.now(), progress=progress, window=window)
    run.notes.extend(notes)
    ranges = open_ranges(lake, interval=window.interval, symbols=symbols, start=window.start, end=window.end)
    asked = tuple(dict.fromkeys(one.symbol for one in ranges))
    with run.at_work():
        run.begin(asked)
        if not ranges:
            run.notes.append("no gap is open")
        try:
            for source in sources:
                mine = [one for one in ranges if one.source == source.name]
                run.answer_for(source, list(dict.fromkeys(one.symbol for one in mine)), list(_requests(mine, source)))
                answered = _answered(run, mine)
                if answered:
                    run.gaps_without_trading += close_asked(
                        lake, answered, recorded_at=run.started, ingest_id=_last_id(run), interval=window.interval
                    )
            _say_left_over(run, ranges, sources)
            return run.finish(asked)
        except KeyboardInterrupt:
            run.interrupted()
            raise


def _requests(ranges: Sequence[OpenRange], source: Source) -> Iterator[Request]:
    """One request a window; symbols that lack the same window share it."""
    windows: dict[tuple[date, date], list[str]] = {}
    for one in ranges:
        windows.setdefault((one.first, one.last), []).append(one.symbol)
    for (first, last), names in windows.items():
        size = source.names_per_request or len(names)
        for at in range(0, len(names), size):
            yield Request(names=tuple(names[at : at + size]), start=first, end=last)


def _answered(run: Run, ranges: Sequence[OpenRange]) -> list[tuple[str, str, date]]:
    """The sessions for which the source gave an answer in which nothing was unreadable."""
    found: list[tuple[str, str, date]] = []
    for one in ranges:
        tally = run.tallies[one.symbol]
        if tally.failure is not None or one.symbol in run.unknown or (one.symbol, None) in run.refused:
            continue
        found.extend((one.symbol, one.source, day) for day in one.missing if (one.symbol, day) not in run.refused)
    return found


def _last_id(run: Run) -> str:
    return next(reversed(run.ingest_ids), "none")


def _say_left_over(run: Run, ranges: Sequence[OpenRange], sources: Sequence[Source]) -> None:
    """Name the gaps whose source was not among those asked: bars of another source do not fill them."""
    asked = {source.name for source in sources}
    for name in sorted({one.source for one in ranges} - asked):
        held = list(dict.fromkeys(one.symbol for one in ranges if one.source == name))
        count = sum(len(one.missing) for one in ranges if one.source == name)
        run.notes.append(
            f"{count} {'gap is' if count == 1 else 'gaps are'} in bars of {some_of(held)} from {name}, which was not asked: "
            f"only its own bars fill them (--source {name})"
        )
        for symbol in held:
            run.tallies[symbol].note = run.tallies[symbol].note or f"its gaps are of {name}, which was not asked"
            run.tallies[symbol].source = run.tallies[symbol].source or name
