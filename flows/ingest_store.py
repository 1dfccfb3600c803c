"""Stores answers, several at once: bytes first, then what was asked, then rows; and says what became of each name.

1. `store_answers` keeps the bytes and records what was asked (`record_runs`, as *started*), so that every row's origin is known
   before the row is.
2. Rows that a source gave again and that are not the ones stored are kept out (`compare_overlap`): their history is asked for anew.
3. `_write_dataset` splits good rows from bad by the table's rules, quarantines the bad and writes the good in as few commits as
   their keys allow. Bars and quotes are written last and, of one request to an incremental source, at once: a name whose newest
   bar is stored has all that came with it stored, wherever the process is killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from config.hashing import sha256_bytes
from config.tables import TableSpec, table_spec
from flows.bookkeeping import AnswerRun, flag_stored, quarantine_unread, record_runs
from flows.ingest_overlap import Compared, compare_overlap
from flows.ingest_report import RowCounts
from flows.sources.base import Answer

if TYPE_CHECKING:
    from lake import WriteResult
    from lake.quality import Split
    from lake.store import Lake

__all__ = ["NAME_COLUMN", "NameRows", "Stored", "store_answers"]

NAME_COLUMN = {
    "equity_bars": "symbol",
    "corporate_actions": "symbol",
    "macro_observations": "series",
    "option_quotes": "underlying",
    "cot_positions": "market_code",
}
# Written after everything else that came with them.
_LAST = ("equity_bars", "option_quotes")


@dataclass(kw_only=True)
class NameRows:
    """What became of one name's rows in some answers."""

    rows: RowCounts = field(default_factory=RowCounts)
    reasons: list[str] = field(default_factory=list)
    unread: bool = False
    refused_sessions: list[date] = field(default_factory=list)


@dataclass(kw_only=True)
class Stored:
    """What became of some answers. It holds no rows of theirs.

    Parameters
    ----------
    tables : dict of str to RowCounts
    names : dict of str to NameRows
    runs : list of AnswerRun
        With counts; to be recorded with the next answers, or at the end.
    compared : Compared
        Names whose history is to be asked for anew; none of their bars was written.
    """

    tables: dict[str, RowCounts] = field(default_factory=dict)
    names: dict[str, NameRows] = field(default_factory=dict)
    runs: list[AnswerRun] = field(default_factory=list)
    compared: Compared = field(default_factory=Compared)

    def of(self, name: str) -> NameRows:
        """The entry of a name."""
        return self.names.setdefault(name, NameRows())


def store_answers(
    lake: Lake,
    answers: Sequence[Answer],
    *,
    started_at: datetime,
    recorded_at: datetime,
    finished: Sequence[AnswerRun] = (),
    overlaps: Mapping[str, tuple[date, date | None]] | None = None,
) -> Stored:
    """Store answers of one source.

    Parameters
    ----------
    answers : sequence of Answer
    started_at : datetime
        When the run began: it names the run.
    recorded_at : datetime
        Now, when the answers are here: a revision counts as known from then on.
    finished : sequence of AnswerRun
        Of answers stored before, whose counts are recorded in the same commit.
    overlaps : mapping of str to (date, date or None), optional
        The window in which each name was asked again; its stored bars are compared with what came.
    """
    stored = Stored()
    answers = list({answer.ingest_id: answer for answer in answers}.values())  # the same answer to the same question is one
    for payload in {sha256_bytes(answer.payload): answer.payload for answer in answers}.values():
        lake.raw.put(payload)
    runs = {answer.ingest_id: AnswerRun.of(answer) for answer in answers}
    record_runs(lake, [*finished, *runs.values()], started_at)
    stored.compared = compare_overlap(lake, answers, overlaps or {})
    quarantine_unread(lake, answers, recorded_at)
    of_answers: dict[str, RowCounts] = {}
    for dataset in sorted({answer.dataset for answer in answers}, key=lambda name: (name in _LAST, name)):
        of_dataset = [answer for answer in answers if answer.dataset == dataset]
        _write_dataset(lake, table_spec(dataset), of_dataset, recorded_at, stored, of_answers)
    stored.runs = [run.done(of_answers[ingest_id], *_kept_out(runs[ingest_id], answers, stored)) for ingest_id, run in runs.items()]
    return stored


def _kept_out(run: AnswerRun, answers: Sequence[Answer], stored: Stored) -> tuple[str, ...]:
    mine = next(answer.names for answer in answers if answer.ingest_id == run.ingest_id)
    if run.dataset != "equity_bars":
        return ()
    differing = stored.compared.differing
    return tuple(f"{name} not stored from this answer: {differing[name]}" for name in mine if name in differing)


def _write_dataset(
    lake: Lake,
    spec: TableSpec,
    answers: Sequence[Answer],
    recorded_at: datetime,
    stored: Stored,
    of_answers: dict[str, RowCounts],
) -> None:
    from lake.quality import split
    from lake.quarantine import readmit
    from lake.readjustment import keep_whole

    column = NAME_COLUMN[spec.name]
    batches: list[Split] = []
    for group in _without_common_names(answers):
        rows = pa.concat_tables([answer.lake_rows() for answer in group])
        if stored.compared.differing and spec.name == "equity_bars":
            rows = rows.filter(pc.invert(pc.is_in(rows[column], value_set=pa.array(list(stored.compared.differing)))))
        batches.append(readmit(lake, spec, keep_whole(lake, split(rows, spec))))
    for parts in batches:
        _set_aside(lake, spec, parts, recorded_at)
        flag_stored(lake, spec, parts, recorded_at)
    counts: Counter[tuple[str, str, str]] = Counter()
    for accepted in _in_few_writes(spec, [parts.accepted for parts in batches]):
        written = lake.write(spec, accepted, recorded_at=recorded_at)
        _count_written(spec, column, accepted, written, counts)
    _count_unread(answers, counts, stored)
    for parts in batches:
        _count_refused(spec, column, parts.refused, counts, stored)
    _sum_up(spec, answers, counts, stored, of_answers)


def _set_aside(lake: Lake, spec: TableSpec, parts: Split, recorded_at: datetime) -> None:
    """Quarantine what is refused."""
    from lake.quarantine import quarantine

    if parts.refused.num_rows:
        quarantine(lake, spec, parts.refused, recorded_at=recorded_at)


def _without_common_names(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Answers that are judged together: two about one name are not, since the same row in both is no repetition within one."""
    groups: list[list[Answer]] = []
    taken: list[set[str]] = []
    for answer in answers:
        place = next((n for n, names in enumerate(taken) if names.isdisjoint(answer.names)), len(groups))
        if place == len(groups):
            groups.append([])
            taken.append(set())
        groups[place].append(answer)
        taken[place].update(answer.names)
    return groups


def _in_few_writes(spec: TableSpec, batches: Sequence[pa.Table]) -> list[pa.Table]:
    """One batch where no key is in two of them, else one after the other."""
    together = pa.concat_tables(batches)
    if len(batches) == 1 or together.select(list(spec.key)).group_by(list(spec.key)).aggregate([]).num_rows == together.num_rows:
        return [together]
    return list(batches)


def _count_written(
    spec: TableSpec, column: str, accepted: pa.Table, written: WriteResult, counts: Counter[tuple[str, str, str]]
) -> None:
    """Add to (name, ingest id, what) the rows accepted, new and revised."""
    for row in accepted.group_by([column, "ingest_id"]).aggregate([([], "count_all")]).to_pylist():
        counts[row[column], row["ingest_id"], "accepted"] += row["count_all"]
    changed = written.changed
    if changed is None:
        return
    if column not in changed.column_names:
        changed = changed.join(accepted.select([*spec.key, column]), list(spec.key), join_type="left outer")
    changed = changed.append_column("revised", pc.greater(changed["revision"], 0))
    for row in changed.group_by([column, "ingest_id", "revised"]).aggregate([([], "count_all")]).to_pylist():
        counts[row[column], row["ingest_id"], "revised" if row["revised"] else "new"] += row["count_all"]


def _count_refused(spec: TableSpec, column: str, refused: pa.Table, counts: Counter[tuple[str, str, str]], stored: Stored) -> None:
    if not refused.num_rows:
        return
    when = "session" if "session" in refused.column_names else spec.event_time
    for row in refused.select([column, "ingest_id", when, "reason"]).to_pylist():
        counts[str(row[column]), row["ingest_id"], "refused"] += 1
        entry = stored.of(str(row[column]))
        entry.reasons.append(f"{row[when]}: {row['reason']}")
        if when == "session" and row[when] is not None:
            entry.refused_sessions.append(row[when])


def _count_unread(answers: Iterable[Answer], counts: Counter[tuple[str, str, str]], stored: Stored) -> None:
    """Rows that the source could not read; of an answer about one name they are that name's, whatever symbol they show."""
    for answer in answers:
        for row in answer.refused:
            name = answer.names[0] if len(answer.names) == 1 else str(row.symbol)
            counts[name, answer.ingest_id, "refused"] += 1
            entry = stored.of(name)
            entry.reasons.append(row.reason)
            entry.unread = True


def _sum_up(
    spec: TableSpec,
    answers: Sequence[Answer],
    counts: Mapping[tuple[str, str, str], int],
    stored: Stored,
    of_answers: dict[str, RowCounts],
) -> None:
    for answer in answers:
        of_answers[answer.ingest_id] = RowCounts()
        for name in answer.names:
            stored.of(name)
    found: dict[tuple[str, str], dict[str, int]] = {}
    for (name, ingest_id, what), number in counts.items():
        found.setdefault((name, ingest_id), {})[what] = number
    total = stored.tables.get(spec.name, RowCounts())
    for (name, ingest_id), numbers in found.items():
        accepted, refused = numbers.get("accepted", 0), numbers.get("refused", 0)
        new, revised = numbers.get("new", 0), numbers.get("revised", 0)
        rows = RowCounts(received=accepted + refused, new=new, revised=revised, unchanged=accepted - new - revised, refused=refused)
        entry = stored.of(name)
        entry.rows = entry.rows.plus(rows)
        of_answers[ingest_id] = of_answers[ingest_id].plus(rows)
        total = total.plus(rows)
    stored.tables[spec.name] = total
