"""What an ingest did: rows by table, one outcome a symbol or series, the snapshot that holds the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

__all__ = ["IngestReport", "NameOutcome", "Outcome", "RowCounts"]

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
    received, changed, unchanged, refused : int
        Rows; changed: new or revised.
    """

    name: str
    outcome: Outcome
    source: str
    received: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    message: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        document = asdict(self)
        return {"symbol": document.pop("name"), **document}


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
    notes : tuple of str
    """

    dataset: str
    snapshot_id: str
    tables: Mapping[str, RowCounts]
    names: tuple[NameOutcome, ...]
    ingest_ids: tuple[str, ...]
    gaps: int = 0
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
            "outcomes": [name.as_dict() for name in self.names],
            "ingest_ids": list(self.ingest_ids),
            "gaps": self.gaps,
            "notes": list(self.notes),
        }
