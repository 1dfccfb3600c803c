"""What every ingest does with a source's answers, and the report it gives.

1. `collect` asks the sources for blocks of names (a step, retried by error class) and stores each answer (`store_answer`).
2. `store_answer` keeps the bytes, splits good rows from bad by the table's rules, writes the good, quarantines the bad.
3. `_finish` compares what is stored with the exchange's calendar (`bring_gaps_up_to_date`), writes what was asked and what came
   (`record_runs`), and only then lets `Lake.publish` name the new state.

Killed between any two of these, the next run finds equal rows stored, adds what is missing, and publishes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from config.artifacts import show_table
from config.clock import Clock
from config.errors import DataError, InputError, QuantError, ServiceError, UnknownNameError, did_you_mean
from config.orchestration import some_of, step
from config.progress import Progress
from config.settings import Settings
from config.tables import table_spec
from flows.bookkeeping import bring_gaps_up_to_date, quarantine_unread, record_runs
from flows.ingest_report import IngestReport, NameOutcome, Outcome, RowCounts
from flows.sources.base import Answer, Source, blocks

if TYPE_CHECKING:
    from lake import WriteResult
    from lake.quality import Split
    from lake.store import Lake

__all__ = [
    "TIMEOUT_SECONDS",
    "IngestReport",
    "NameOutcome",
    "RowCounts",
    "as_day",
    "as_names",
    "as_window",
    "ingest",
    "run_words",
    "with_key",
]

# A source that hangs must not keep the next day's run from starting; a first fill of thousands of symbols takes hours.
TIMEOUT_SECONDS = 6 * 3600.0

_NAME_COLUMN = {
    "equity_bars": "symbol",
    "corporate_actions": "symbol",
    "macro_observations": "series",
    "option_quotes": "underlying",
}
Ask = Callable[[Any, Sequence[str]], Iterator[Answer]]


@dataclass(kw_only=True)
class _Collected:
    """What has come so far."""

    stored: list[tuple[Answer, RowCounts]] = field(default_factory=list)
    names: dict[str, NameOutcome] = field(default_factory=dict)
    failures: list[QuantError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def ingest(
    dataset: str,
    names: Sequence[str] | None,
    sources: Sequence[Source],
    ask: Ask,
    *,
    lake: Lake,
    clock: Clock,
    progress: Progress,
    calendar: str,
    notes: Sequence[str] = (),
) -> IngestReport:
    """Ask the sources, in order, for what the ones before them do not have; store what comes; publish.

    Parameters
    ----------
    dataset : {"equity", "macro", "options"}
        For the report.
    names : sequence of str, optional
        Symbols or series; None: all that the first source has.
    ask : callable
        ``ask(source, names)`` yields the source's answers.

    Raises
    ------
    UnknownNameError
        No source has any of the names.
    ServiceError, DataError
        Every request failed; the first failure is raised. When only some failed the report says which.
    """
    started = clock.now()
    collected = _Collected(notes=list(notes))
    for source, asked in _share_out(dataset, names, sources, collected):
        collect(source, asked, ask, lake=lake, started=started, progress=progress, collected=collected)
    if collected.failures and not collected.stored:
        raise collected.failures[0]
    progress.stage("publish")
    publish = step(name="publish", retries=3)(lambda: _finish(lake, collected.stored, started, calendar))
    gaps, snapshot_id = publish()
    report = IngestReport(
        dataset=dataset,
        snapshot_id=snapshot_id,
        tables=_totals(collected.stored),
        names=tuple(collected.names.values()),
        ingest_ids=tuple(answer.ingest_id for answer, _ in collected.stored),
        gaps=gaps,
        notes=tuple(dict.fromkeys(collected.notes)),
    )
    _show_on_page(report)
    return report


def collect(
    source: Source, names: Sequence[str], ask: Ask, *, lake: Lake, started: datetime, progress: Progress, collected: _Collected
) -> None:
    """Ask one source, block by block; a block that fails does not stop the others."""

    # Made here and not at import: the tag that a concurrency limit applies to names the vendor.
    def ask_for(block: Sequence[str]) -> list[Answer]:
        return list(ask(source, block))

    def keep(number: int) -> tuple[RowCounts, dict[str, NameOutcome]]:
        return store_answer(lake, answers[number], started)

    fetch = step(
        name=f"fetch {source.name}",
        retries=3,
        retry_delay_seconds=2.0,
        tags=(f"vendor:{source.name}",),
        run_name=lambda given: f"fetch {some_of(given['block'])} from {source.name}",
    )(ask_for)
    store = step(name="store", retries=3, run_name=lambda given: f"store {some_of(answers[given['number']].names)}")(keep)
    progress.stage(f"ingest from {source.name}", len(names))
    for block in blocks(names, source.names_per_request):
        try:
            answers = fetch(block)
        except (ServiceError, DataError) as failure:
            collected.failures.append(failure)
            collected.names.update(
                {name: NameOutcome(name=name, outcome="failed", source=source.name, message=str(failure)) for name in block}
            )
            progress.advance(len(block))
            continue
        for number, answer in enumerate(answers):
            counts, outcomes = store(number)
            collected.stored.append((answer, counts))
            collected.names.update(outcomes)
            collected.notes.extend(answer.notes)
        for name in block:
            if name not in collected.names:
                collected.names[name] = NameOutcome(
                    name=name, outcome="missing", source=source.name, message=f"{source.name} gave no rows of {name} in this window"
                )
        progress.advance(len(block))


def store_answer(lake: Lake, answer: Answer, recorded_at: datetime) -> tuple[RowCounts, dict[str, NameOutcome]]:
    """Keep an answer's bytes, write its good rows, quarantine the others.

    Returns
    -------
    counts : RowCounts
    outcomes : dict of str to NameOutcome
        By symbol or series.
    """
    from lake.quality import split
    from lake.quarantine import quarantine

    lake.raw.put(answer.payload)
    spec = table_spec(answer.dataset)
    parts = split(answer.lake_rows(), spec)
    written = lake.write(spec, parts.accepted, recorded_at=recorded_at)
    if parts.refused.num_rows:
        quarantine(lake, spec, parts.refused, recorded_at=recorded_at)
    quarantine_unread(lake, answer, recorded_at)
    counts = RowCounts(
        received=answer.rows.num_rows + len(answer.refused),
        new=written.new,
        revised=written.revised,
        unchanged=written.unchanged,
        refused=parts.refused.num_rows + len(answer.refused),
    )
    return counts, _outcomes(answer, parts, _changed(lake, answer, parts, written, recorded_at))


def _changed(lake: Lake, answer: Answer, parts: Split, written: WriteResult, recorded_at: datetime) -> Mapping[str, int]:
    """How many rows of each symbol or series are new or revised."""
    column = _NAME_COLUMN[answer.dataset]
    if not written.new and not written.revised:
        return {}
    if not written.unchanged:
        return Counter(parts.accepted.column(column).to_pylist())
    where = {column: parts.accepted.column(column).unique().to_pylist(), "ingest_id": answer.ingest_id, "recorded_at": recorded_at}
    return Counter(lake.read_latest(answer.dataset, where=where, columns=[column]).column(column).to_pylist())


def _outcomes(answer: Answer, parts: Split, changed: Mapping[str, int]) -> dict[str, NameOutcome]:
    column = _NAME_COLUMN[answer.dataset]
    stored = Counter(parts.accepted.column(column).to_pylist())
    reasons: dict[str | None, list[str]] = {}
    for row in answer.refused:
        reasons.setdefault(row.symbol, []).append(row.reason)
    when = "session" if "session" in parts.refused.column_names else table_spec(answer.dataset).event_time
    for row in parts.refused.select([column, when, "reason"]).to_pylist():
        reasons.setdefault(row[column], []).append(f"{row[when]}: {row['reason']}")
    outcomes: dict[str, NameOutcome] = {}
    for name in dict.fromkeys((*answer.names, *stored)):
        bad, rows = reasons.get(name, []), stored[name]
        new = changed.get(name, 0)
        outcome: Outcome = ("stored" if new else "unchanged") if rows else ("refused" if bad else "missing")
        message = f"{len(bad)} {'row' if len(bad) == 1 else 'rows'} refused, the first: {bad[0]}" if bad else None
        outcomes[name] = NameOutcome(
            name=name,
            outcome=outcome,
            source=answer.source,
            received=rows + len(bad),
            changed=new,
            unchanged=rows - new,
            refused=len(bad),
            message=message,
        )
    for name, reason in answer.missing.items():
        outcomes[name] = NameOutcome(name=name, outcome="missing", source=answer.source, message=reason)
    return outcomes


def _finish(lake: Lake, stored: Sequence[tuple[Answer, RowCounts]], started: datetime, calendar: str) -> tuple[int, str]:
    """Gaps, then what was asked and what came, then the new state's name."""
    gaps = bring_gaps_up_to_date(lake, [answer for answer, _ in stored], started, calendar)
    record_runs(lake, stored, started)
    return gaps, lake.publish().id


def _share_out(
    dataset: str, names: Sequence[str] | None, sources: Sequence[Source], collected: _Collected
) -> list[tuple[Source, tuple[str, ...]]]:
    """Give each name to the first source that has it; a source that cannot tell is asked.

    Raises
    ------
    UnknownNameError
        No source has any of the names.
    """
    if names is None:
        first = sources[0]
        every = first.available()
        if every is None:
            raise InputError(f"the source {first.name} cannot list what it has", remedy="name the symbols or series to ingest")
        return [(first, every)]
    shares: list[tuple[Source, tuple[str, ...]]] = []
    left = tuple(names)
    for source in sources:
        has = source.available()
        mine = left if has is None else tuple(name for name in left if name in has)
        left = tuple(name for name in left if name not in mine)
        if mine:
            shares.append((source, mine))
    known = tuple(name for source in sources for name in source.available() or ())
    asked = ", ".join(source.name for source in sources)
    if not shares:
        raise UnknownNameError(
            f"{asked} has no {dataset} data of {', '.join(repr(name) for name in left)}", remedy=did_you_mean(left[0], known)
        )
    for name in left:
        message = f"{asked} does not have it; {did_you_mean(name, known)}"
        collected.names[name] = NameOutcome(name=name, outcome="missing", source=asked, message=message)
    return shares


def _totals(stored: Sequence[tuple[Answer, RowCounts]]) -> Mapping[str, RowCounts]:
    totals: dict[str, RowCounts] = {}
    for answer, counts in stored:
        totals[answer.dataset] = totals.get(answer.dataset, RowCounts()).plus(counts)
    return totals


def _show_on_page(report: IngestReport) -> None:
    """The report as a table on the flow run's page."""
    total = report.total
    about = [
        f"**{report.outcome}**: {total.received:,} rows received, {total.new:,} new, {total.revised:,} revised, "
        f"{total.unchanged:,} unchanged, {total.refused:,} refused; {report.gaps:,} gaps",
        f"snapshot `{report.snapshot_id}`",
        *report.notes,
    ]
    show_table(f"ingest-{report.dataset}", [name.as_dict() for name in report.names], "\n\n".join(about))


def as_names(names: str | Sequence[str] | None, what: str) -> tuple[str, ...] | None:
    """A user's list of names: one as text, several as a sequence, each once, in the order given; None: all.

    Raises
    ------
    InputError
        The list is empty, or holds something that is no text.
    """
    if names is None:
        return None
    listed = [names] if isinstance(names, str) else list(names)
    if not listed:
        raise InputError(f"no {what} to ingest: the list is empty", remedy=f"name some {what}, or pass None for all the source has")
    for name in listed:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{name!r} in the list of {what} is no name")
    return tuple(dict.fromkeys(name.strip() for name in listed))


def as_day(value: date | str | None, what: str) -> date | None:
    """A user's date: a date, or text as 2018-12-31.

    Raises
    ------
    InputError
        The text is no date.
    """
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    if isinstance(value, datetime):
        return value.date()
    try:
        return date.fromisoformat(value)
    except (ValueError, TypeError):
        raise InputError(f"{what} {value!r} is no date", remedy="write it as 2018-12-31") from None


def as_window(start: date | str | None, end: date | str | None) -> tuple[date | None, date | None]:
    """A user's first and last day.

    Raises
    ------
    InputError
        One is no date, or the first lies after the last.
    """
    first, last = as_day(start, "start_date"), as_day(end, "end_date")
    if first and last and first > last:
        raise InputError(f"start_date {first} lies after end_date {last}", remedy="exchange them")
    return first, last


def run_words(names: str | Sequence[str] | None, what: str, window: tuple[Any, Any], source: str | None) -> str:
    """What an ingest run is called on the Prefect page: ``X, 2018-12-24 to 2018-12-26, from files``."""
    start, end = window
    days = "" if start is None and end is None else f", {start or 'the first day'} to {end or 'the last day'}"
    return f"{some_of(names, all_of=f'all {what}')}{days}{f', from {source}' if source else ''}"


def with_key(settings: Settings, provider: str, key: str | SecretStr | None) -> tuple[Settings, tuple[str, ...]]:
    """The settings with the caller's key for `provider` in place of the environment's, and a note when no key has a place there.

    A key is never part of a request, a report or an error.
    """
    if key is None:
        return settings, ()
    if provider not in type(settings.credentials).model_fields:
        return settings, (f"the key was not used: the source {provider} needs none",)
    secret = key if isinstance(key, SecretStr) else SecretStr(key)
    return settings.model_copy(update={"credentials": settings.credentials.model_copy(update={provider: secret})}), ()
