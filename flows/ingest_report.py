"""What an ingest did: rows by table, one outcome a symbol or series, the snapshot that holds the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

__all__ = ["IngestReport", "NameOutcome", "Outcome", "RowCounts", "Tally"]

Outcome = Literal["stored", "unchanged", "refused", "missing", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowCounts:
    """What became of the rows of one table. `received` is all of the others together."""

    received: int = 0
    new: int = 0
    revised: int = 0
    unchanged: int = 0
    refused: int = 0

    def plus(self, other: RowCounts) -> RowCounts:
        """The sum."""
        return RowCounts(**{name: getattr(self, name) + getattr(other, name) for name in (f.name for f in fields(self))})

    def as_dict(self) -> dict[str, int]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class NameOutcome:
    """What became of one symbol or series.

    Parameters
    ----------
    outcome : {"stored", "unchanged", "refused", "missing", "failed"}
        Refused: every row of it; missing: no source has it; failed: its source did not answer, and asking again is safe.
    source : str
        The source it came from; where it came from none, those that were asked.
    received, changed, unchanged, refused : int
        Rows; changed: new or revised.
    tried : tuple of str
        What each source said that was asked in vain, in order: ``yahoo: 503 from …``.
    refetched : str or None
        Why its whole history was asked again: what differed from the rows that were stored.
    """

    name: str
    outcome: Outcome
    source: str
    received: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    message: str | None = None
    tried: tuple[str, ...] = ()
    refetched: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        document = asdict(self) | {"tried": list(self.tried)}
        return {"symbol": document.pop("name"), **document}


@dataclass(kw_only=True, slots=True)
class Tally:
    """What has become of one symbol or series so far, over all answers that hold it."""

    name: str
    source: str = ""
    rows: RowCounts = field(default_factory=RowCounts)
    reasons: list[str] = field(default_factory=list)
    missing: str | None = None
    failure: str | None = None
    note: str | None = None
    tried: list[str] = field(default_factory=list)
    failed_somewhere: bool = False
    refetched: str | None = None

    @property
    def settled(self) -> bool:
        """Whether a source gave rows of it, good or bad."""
        return self.rows.received > 0 or self.note is not None

    def outcome(self) -> NameOutcome:
        """The verdict."""
        rows, refused = self.rows, len(self.reasons)
        message = self.note
        if self.failure is not None:
            outcome: Outcome = "failed"
            message = self.failure
        elif rows.new or rows.revised:
            outcome = "stored"
        elif rows.unchanged or self.note is not None:
            outcome = "unchanged"
        elif rows.refused:
            outcome = "refused"
        else:
            outcome, message = "missing", self.missing
        if message is None and self.tried:
            message = "; ".join(self.tried)
        if refused and outcome != "failed":
            message = f"{refused} {'row' if refused == 1 else 'rows'} refused, the first: {self.reasons[0]}"
        return NameOutcome(
            name=self.name,
            outcome=outcome,
            source=self.source,
            received=rows.received,
            changed=rows.new + rows.revised,
            unchanged=rows.unchanged,
            refused=rows.refused,
            message=message,
            tried=tuple(self.tried),
            refetched=self.refetched,
        )


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What an ingest did.

    Parameters
    ----------
    dataset : {"equity", "macro", "options"}
    snapshot_id : str
        The lake snapshot that holds the result; the same as before when nothing changed.
    tables : mapping of str to RowCounts
    names : tuple of NameOutcome
    ingest_ids : tuple of str
        One an answer, in the order asked.
    gaps : int
        Sessions without a bar, between the first and the last bar of the symbols asked for.
    gaps_filled, gaps_without_trading : int
        Gaps that were open before: closed by bars that came; or by a source that was asked for exactly them and has none.
    notes : tuple of str
    """

    dataset: str
    snapshot_id: str
    tables: Mapping[str, RowCounts]
    names: tuple[NameOutcome, ...]
    ingest_ids: tuple[str, ...]
    gaps: int = 0
    gaps_filled: int = 0
    gaps_without_trading: int = 0
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> RowCounts:
        """The rows of all tables together."""
        total = RowCounts()
        for counts in self.tables.values():
            total = total.plus(counts)
        return total

    @property
    def outcome(self) -> str:
        """In two or three words: ``unchanged``, ``completed``, ``completed with refusals``."""
        if any(name.outcome in ("missing", "failed", "refused") for name in self.names) or self.total.refused:
            return "completed with refusals"
        return "completed" if self.total.new or self.total.revised else "unchanged"

    @property
    def refetched(self) -> tuple[NameOutcome, ...]:
        """The names whose whole history was asked again, because rows of the overlap were not those that were stored."""
        return tuple(name for name in self.names if name.refetched is not None)

    def count(self, outcome: Outcome) -> int:
        """How many names had that outcome."""
        return sum(name.outcome == outcome for name in self.names)

    @property
    def summary(self) -> str:
        """One line: ``completed with refusals: 5 rows new, 0 revised, 12 unchanged, 1 refused; 1 missing, 2 failed``."""
        rows = self.total
        what = ("revised", "unchanged", "refused")
        said = ", ".join([f"{self.outcome}: {rows.new:,} rows new", *(f"{getattr(rows, one):,} {one}" for one in what)])
        counted = [f"{self.count(one):,} {one}" for one in ("missing", "failed") if self.count(one)]
        if self.refetched:
            counted.append(f"{len(self.refetched):,} refetched")
        return "; ".join([said, ", ".join(counted)] if counted else [said])

    @property
    def troubled(self) -> tuple[NameOutcome, ...]:
        """The names that did not come through whole."""
        return tuple(name for name in self.names if name.outcome not in ("stored", "unchanged") or name.refused)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "dataset": self.dataset,
            "outcome": self.outcome,
            "snapshot_id": self.snapshot_id,
            "rows": self.total.as_dict(),
            "tables": {table: counts.as_dict() for table, counts in self.tables.items()},
            "names": {one: self.count(one) for one in get_args(Outcome)},
            "refetched": [name.name for name in self.refetched],
            "outcomes": [name.as_dict() for name in self.names],
            "ingest_ids": list(self.ingest_ids),
            "gaps": self.gaps,
            "gaps_filled": self.gaps_filled,
            "gaps_without_trading": self.gaps_without_trading,
            "notes": list(self.notes),
        }
