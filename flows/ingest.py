"""What every ingest does: ask the sources in order, store what comes as it comes, check the calendars, publish.

1. `ingest` shares the names out (`_shares`) and lets each source in turn answer for those it has; a name for which a source
   fails, or which it does not have, is asked of the next (`Run.from_source`).
2. `Run.from_requests` asks some requests at a time (a step; flows.ingest_ask retries by error class and finds the bad name in a
   failed request) and stores the answers (a step; flows.ingest_store). Only counts are kept.
3. Rows given again that are not those stored have their symbol's whole history asked again (`Run.refetch`).
4. `Run.finish` records the last counts and lets `Lake.publish` name the new state.

Killed at any moment, the next run goes on: what was stored is confirmed by its newest sessions only (of an incremental source),
what was not is asked as if never asked, and the gaps of the symbols in between are looked at again (`mark_interrupted`).
Interrupted by Ctrl-C, the counts are recorded and nothing is published: a snapshot is the state after a whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.artifacts import show_table
from config.clock import Clock
from config.errors import DataError, InputError, QuantError, ServiceError, UnknownNameError, did_you_mean
from config.locks import together
from config.orchestration import inside_flow_run, some_of, step
from config.progress import Progress
from flows.bookkeeping import AnswerRun, check_gaps, mark_interrupted, open_gaps, record_runs
from flows.ingest_arguments import as_day, as_names, as_window, make_sources, run_words, with_key
from flows.ingest_ask import Ask, Asker, Unanswered
from flows.ingest_plan import Request, Window, plan
from flows.ingest_report import IngestReport, NameOutcome, RowCounts, Tally
from flows.ingest_store import NAME_COLUMN, Stored, store_answers
from flows.sources.base import Answer, Source, vendor_of

if TYPE_CHECKING:
    from lake.store import Lake
    from lake.stored import StoredSpan

__all__ = [
    "TIMEOUT_SECONDS",
    "Ask",
    "IngestReport",
    "NameOutcome",
    "RowCounts",
    "Run",
    "Window",
    "as_day",
    "as_names",
    "as_window",
    "final_state",
    "ingest",
    "make_sources",
    "run_words",
    "with_key",
]

# A source that hangs must not keep the next day's run from starting; a first fill of thousands of symbols takes hours.
TIMEOUT_SECONDS = 6 * 3600.0
# A step of a Prefect run asks for about so many names; what it holds at a time before it is stored is bounded in bytes.
NAMES_PER_STEP = 50
BYTES_PER_STEP = 32 * 2**20

TABLE_OF = {
    "equity": "equity_bars",
    "actions": "corporate_actions",
    "macro": "macro_observations",
    "options": "option_quotes",
    "cot": "cot_positions",
}


def ingest(
    dataset: str,
    names: Sequence[str] | None,
    sources: Sequence[Source],
    ask: Ask,
    *,
    lake: Lake,
    clock: Clock,
    progress: Progress,
    window: Window | None = None,
    notes: Sequence[str] = (),
) -> IngestReport:
    """Ask the sources, in order, for what the ones before them do not have or did not give; store what comes; publish.

    Parameters
    ----------
    dataset : {"equity", "actions", "macro", "options", "cot"}
    names : sequence of str, optional
        Symbols or series; None: all that the first source has or, where it cannot tell, all that is stored from it.
    ask : callable
        ``ask(source, names, start, end)`` yields the source's answers.
    window : Window, optional
        What of each name; everything, or what is new, by default.

    Raises
    ------
    UnknownNameError
        No source has any of the names.
    ServiceError, DataError
        Every request failed; the first failure is raised. When only some failed the report says which.
    KeyboardInterrupt
        Interrupted: what was stored is kept, nothing was published.
    """
    run = Run(dataset=dataset, ask=ask, lake=lake, clock=clock, started=clock.now(), progress=progress, window=window or Window())
    run.notes.extend(notes)
    asked = run.listed(names, sources)
    with run.at_work():
        run.begin(asked)
        try:
            for source, share in _shares(run, asked, sources):
                run.from_source(source, share())
            return run.finish(asked)
        except KeyboardInterrupt:
            run.interrupted()
            raise


def _shares(run: Run, asked: Sequence[str], sources: Sequence[Source]) -> Iterator[tuple[Source, Callable[[], list[str]]]]:
    """Each source with the names it is to be asked for, when its turn comes: those it may have and no source before it gave.

    Raises
    ------
    UnknownNameError
        No source has any of the names.
    """
    has: dict[str, tuple[str, ...] | None] = {}
    for source in sources:
        try:
            has[source.name] = source.available()
        except (ServiceError, DataError) as failure:
            if len(sources) == 1:
                raise
            run.failures.append(failure)
            run.notes.append(f"{source.name} could not say what it has: {failure.message}")
            has[source.name] = ()
    known = tuple(name for listed in has.values() for name in listed or ())
    everything = any(listed is None for listed in has.values())
    chain = ", ".join(source.name for source in sources)
    nowhere = [] if everything else [name for name in asked if name not in known]
    if len(nowhere) == len(asked):
        if run.failures:
            raise run.failures[0]
        raise UnknownNameError(
            f"{chain} has no {run.dataset} data of {some_of([repr(name) for name in nowhere], shown=10)}",
            remedy=did_you_mean(nowhere[0], known),
        )
    for name in nowhere:
        run.tallies[name].missing = f"{chain} does not have it; {did_you_mean(name, known)}"
        run.tallies[name].source = chain
    for source in sources:
        listed = has[source.name]

        def share(listed: tuple[str, ...] | None = listed, source: Source = source) -> list[str]:
            mine = []
            for name in asked:
                if run.tallies[name].settled:
                    continue
                if listed is None or name in listed:
                    mine.append(name)
                elif name not in nowhere:
                    run.tallies[name].tried.append(f"{source.name}: does not have it")
            return mine

        yield source, share


@dataclass(kw_only=True)
class Run:
    """One ingest: what it was asked, and what has come of it so far. It holds counts, never rows."""

    dataset: str
    ask: Ask
    lake: Lake
    clock: Clock
    started: datetime
    progress: Progress
    window: Window
    tallies: dict[str, Tally] = field(default_factory=dict)
    tables: dict[str, RowCounts] = field(default_factory=dict)
    ingest_ids: dict[str, None] = field(default_factory=dict)
    finished: list[AnswerRun] = field(default_factory=list)
    failures: list[QuantError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stored: Mapping[tuple[str, str], StoredSpan] = field(default_factory=dict)
    gaps_filled: int = 0
    gaps_without_trading: int = 0
    unknown: set[str] = field(default_factory=set)
    refused: set[tuple[str, date | None]] = field(default_factory=set)

    @property
    def table(self) -> str:
        """Where the dataset's rows go."""
        return TABLE_OF[self.dataset]

    @property
    def interval(self) -> str | None:
        """Of bars."""
        return self.window.interval if self.dataset == "equity" else None

    def listed(self, names: Sequence[str] | None, sources: Sequence[Source]) -> tuple[str, ...]:
        """The names: as given; else all that the first source has; else all that is stored from it.

        Raises
        ------
        InputError
            There is no telling.
        """
        if names is not None:
            return tuple(names)
        first = sources[0]
        every = first.available()
        if every is None:
            from lake.stored import stored_names

            every = stored_names(self.lake, self.table, NAME_COLUMN[self.table], first.name, interval=self.interval)
        if not every:
            raise InputError(
                f"the source {first.name} cannot list what it has, and nothing is stored from it",
                remedy="name the symbols or series to ingest",
            )
        return every

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Repair first what a killed run left undone: one that is still at work, in another process, is not a killed one.

        Of a lake in a bucket, which other machines write too, nobody can tell.
        """
        if not isinstance(self.lake.root, Path):
            self._repair()
            yield
            return
        of_table = "equity" if self.dataset == "actions" else self.dataset  # bars bring actions along
        with together(self.lake.root / "snapshots" / f".ingest-{of_table}.lock", self._repair):
            yield

    def _repair(self) -> None:
        cut = mark_interrupted(self.lake, self.table, self.started)
        if cut:
            self.notes.append(
                f"an ingest before was cut off while {cut} of its answers were being stored; this one goes on from there"
            )

    def begin(self, names: Sequence[str]) -> None:
        """Look at what is stored of the names."""
        from lake.stored import stored_spans

        self.tallies = {name: Tally(name=name) for name in names}
        self.stored = stored_spans(self.lake, self.table, NAME_COLUMN[self.table], names, interval=self.interval)

    def from_source(self, source: Source, names: Sequence[str]) -> None:
        """Let one source answer for names; those it does not settle say why."""
        requests, done = plan(source, names, self.window, self.stored)
        for name, why in done.items():
            self.tallies[name].note, self.tallies[name].source = why, source.name
        self.answer_for(source, names, requests)

    def answer_for(self, source: Source, names: Sequence[str], requests: Sequence[Request]) -> None:
        """Let one source answer these requests, which are about `names`."""
        if not names:
            return
        self.progress.stage(f"ingest from {source.name}", len(names))
        for name in names:
            self.tallies[name].failure = self.tallies[name].missing = None  # of the source before; `tried` keeps it
        self.from_requests(source, requests)
        for name in names:
            self._close(source, self.tallies[name])

    def _close(self, source: Source, tally: Tally) -> None:
        """What is to be said of a name after a source was asked for it."""
        known = (tally.name, source.name) in self.stored
        if tally.failure is not None:
            tally.failed_somewhere = True
        if tally.settled:
            tally.source, tally.missing = source.name, None
            return
        if tally.failure is None and tally.missing is None:
            tally.missing = f"{source.name} gave no rows of {tally.name} in this window"
            if known:
                tally.note, tally.source = tally.missing, source.name
                return
        tally.source = f"{tally.source}, {source.name}" if tally.source else source.name
        tally.tried.append(f"{source.name}: {tally.failure or tally.missing}")

    def from_requests(self, source: Source, requests: Sequence[Request], *, again: bool = False) -> None:
        """Put requests to a source, some at a time, and store what comes."""
        asker = Asker(source, self.ask)
        for some in _in_steps(requests):
            names = [name for request in some for name in request.names]
            told: set[str] = set()
            coming = (item for request in some for item in asker.answers(request))
            fetch = step(
                name=f"fetch {source.name}",
                tags=(f"vendor:{vendor_of(source)}",),
                run_name=lambda given: f"fetch {some_of(given['names'])} from {given['vendor']}",
            )(_Coming(coming).take)
            more = True
            while more:
                answers, unanswered, more = fetch(names, source.name)
                for one in unanswered:
                    self._failed(source, one)
                differing = self._keep(source, answers, some) if answers else {}
                if differing:
                    self.refetch(source, differing, some)
                heard = ({n for a in answers for n in (*a.names, *a.missing)} | {one.name for one in unanswered}) & set(
                    names
                ) - told
                told |= heard
                if not again:
                    self.progress.advance(len(heard))
            if not again:
                self.progress.advance(len(set(names) - told))

    def _failed(self, source: Source, one: Unanswered) -> None:
        tally = self.tallies[one.name]
        if isinstance(one.failure, UnknownNameError):
            self.unknown.add(one.name)
            tally.missing = one.failure.message
            return
        self.failures.append(one.failure)
        tally.failure = str(one.failure)
        self.progress.note(f"{source.name} failed for {one.name}: {one.failure.message}")

    def _keep(self, source: Source, answers: Sequence[Answer], requests: Sequence[Request]) -> Mapping[str, str]:
        """Store answers, add up what became of them; the names whose stored rows differ from those that came again."""
        overlaps = {name: (one.start, one.end) for one in requests if one.overlap and one.start for name in one.names}

        def keep() -> Stored:
            stored = store_answers(
                self.lake,
                answers,
                started_at=self.started,
                recorded_at=self.clock.now(),  # not when the run began: a revision was not known before it came
                finished=self.finished,
                overlaps=overlaps,
            )
            self.gaps_filled += self._check_gaps(source, answers, overlaps)
            return stored

        held = [name for answer in answers for name in answer.names]
        stored = step(name="store", retries=3, run_name=lambda given: f"store {some_of(tuple(dict.fromkeys(held)))}")(keep)()
        self.finished = stored.runs
        self.ingest_ids.update(dict.fromkeys(answer.ingest_id for answer in answers))
        self.notes.extend(note for answer in answers for note in answer.notes)
        for table, counts in stored.tables.items():
            self.tables[table] = self.tables.get(table, RowCounts()).plus(counts)
        for name in held:
            self.tallies.setdefault(name, Tally(name=name, source=source.name))
        for name, rows in stored.names.items():
            tally = self.tallies.get(name)
            if tally is None:  # a row that cannot be read, of nobody that was asked for: it is in the totals and in quarantine
                continue
            tally.rows = tally.rows.plus(rows.rows)
            tally.reasons.extend(rows.reasons)
            self.refused.update({(name, day) for day in rows.refused_sessions}, {(name, None)} if rows.unread else ())
        for answer in answers:
            self.unknown.update(answer.missing)
            for name, why in answer.missing.items():
                self.tallies.setdefault(name, Tally(name=name, source=source.name)).missing = why
        return stored.compared.differing

    def _check_gaps(self, source: Source, answers: Sequence[Answer], overlaps: Mapping[str, Any]) -> int:
        """Compare the bars that came with the calendars: of names asked for a part only since its beginning."""
        bars = [answer for answer in answers if answer.dataset == "equity_bars" and answer.rows.num_rows]
        filled = 0
        for interval in sorted({one for answer in bars for one in answer.rows["interval"].unique().to_pylist()}):
            symbols = sorted({one for answer in bars for one in answer.rows["symbol"].unique().to_pylist()})
            part = [symbol for symbol in symbols if symbol in overlaps]
            whole = [symbol for symbol in symbols if symbol not in overlaps]
            about: dict[str, Any] = {"source": source.name, "interval": interval}
            if part:
                start = min(overlaps[symbol][0] for symbol in part)
                filled += check_gaps(self.lake, part, self.started, bars[-1].ingest_id, start=start, **about)
            if whole:
                filled += check_gaps(self.lake, whole, self.started, bars[-1].ingest_id, **about)
        return filled

    def refetch(self, source: Source, differing: Mapping[str, str], requests: Sequence[Request]) -> None:
        """Ask for the whole history of names whose stored rows are not those the source gives now."""
        ends = {name: one.end for one in requests for name in one.names}
        for name, why in differing.items():
            self.tallies[name].refetched = why
            self.progress.note(f"{name}: {why}; its whole history is asked again")
        window = Window(full=True, end=max((end for end in ends.values() if end), default=None), interval=self.window.interval)
        whole, _ = plan(source, list(differing), window, {})
        self.from_requests(source, whole, again=True)

    def interrupted(self) -> None:
        """Record what was done; publish nothing."""
        record_runs(self.lake, self.finished, self.started)
        settled = sum(tally.settled for tally in self.tallies.values())
        self.progress.note(
            f"interrupted: {settled} of {len(self.tallies)} names are stored and not published; the same command goes on from there"
        )

    def finish(self, asked: Sequence[str]) -> IngestReport:
        """Record the last counts, publish, report.

        Raises
        ------
        ServiceError, DataError
            Nothing was stored, and the first failure was this.
        """
        if self.failures and not self.ingest_ids:
            raise self.failures[0]
        self.progress.stage("publish")
        snapshot_id = step(name="publish", retries=3)(self._publish)()
        self._say_mixtures()
        for tally in self.tallies.values():
            if not tally.settled and len(tally.tried) > 1:  # a chain: what each of its sources said
                said = "; ".join(tally.tried)
                tally.failure, tally.missing = (said, None) if tally.failed_somewhere else (None, said)
        interval = self.window.interval
        return IngestReport(
            dataset=self.dataset,
            snapshot_id=snapshot_id,
            tables=self.tables,
            names=tuple(tally.outcome() for tally in self.tallies.values()),
            ingest_ids=tuple(self.ingest_ids),
            gaps=open_gaps(self.lake, list(asked), interval) if self.dataset == "equity" else 0,
            gaps_filled=self.gaps_filled,
            gaps_without_trading=self.gaps_without_trading,
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def _publish(self) -> str:
        record_runs(self.lake, self.finished, self.started)
        self.finished = []
        return str(self.lake.publish().id)

    def _say_mixtures(self) -> None:
        """Names that were stored from one source and come from another now: a reader must choose."""
        mixed: dict[tuple[str, str], list[str]] = {}
        for name, tally in self.tallies.items():
            before = sorted(source for held, source in self.stored if held == name)
            if tally.rows.new and before and tally.source not in before:
                mixed.setdefault((", ".join(before), tally.source), []).append(name)
        for (others, now), held in mixed.items():
            many = len(held) > 1
            self.notes.append(
                f"{some_of(held)} {'are' if many else 'is'} stored from {others} and now also from {now}: the two are kept apart, "
                f"and whoever reads {'them' if many else 'it'} must say which (load_panel(..., source={now!r}))"
            )


class _Coming:
    """Takes what a source says as it comes, a bounded number of bytes at a time."""

    def __init__(self, coming: Iterator[tuple[Answer, ...] | Unanswered]) -> None:
        self._coming = coming

    def take(self, names: Sequence[str], vendor: str) -> tuple[list[Answer], list[Unanswered], bool]:
        """Answers, names that failed, and whether there is more."""
        del names, vendor
        answers: list[Answer] = []
        unanswered: list[Unanswered] = []
        size = 0
        for item in self._coming:
            if isinstance(item, Unanswered):
                unanswered.append(item)
                continue
            answers.extend(item)
            size += sum(len(answer.payload) + answer.rows.nbytes for answer in item)
            if size >= BYTES_PER_STEP:
                return answers, unanswered, True
        return answers, unanswered, False


def _in_steps(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Requests together, up to about `NAMES_PER_STEP` names."""
    some: list[Request] = []
    held = 0
    for request in requests:
        if some and held + len(request.names) > NAMES_PER_STEP:
            yield some
            some, held = [], 0
        some.append(request)
        held += len(request.names)
    if some:
        yield some


def final_state(report: IngestReport) -> Any:
    """The report as a flow hands it back: inside a Prefect run with a final state that says what was refused, missing or failed."""
    show_report(report)
    if not inside_flow_run() or not report.troubled:
        return report
    from prefect.states import Completed

    return Completed(name="Completed with refusals", message=report.summary, data=report)


def show_report(report: IngestReport) -> None:
    """The report as a table on the flow run's page."""
    about = [
        f"**{report.outcome}**: {report.total.received:,} rows received; {report.summary}; {report.gaps:,} gaps",
        f"snapshot `{report.snapshot_id}`",
        *report.notes,
    ]
    rows = [{name: cell for name, cell in one.as_dict().items() if name not in ("tried",)} for one in report.names]
    show_table(f"ingest-{report.dataset}", rows, "\n\n".join(about))
