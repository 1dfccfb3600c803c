"""The clock that is handed to whatever needs the time; nothing else in the house asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

__all__ = ["Clock", "FixedClock", "SystemClock", "require_utc"]


@runtime_checkable
class Clock(Protocol):
    """Tells the time, always UTC and aware."""

    def now(self) -> datetime:
        """The present moment, UTC."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The present moment, UTC."""
        return datetime.now(UTC)


@dataclass(slots=True)
class FixedClock:
    """A clock that stands still until it is moved: for replays, paper sessions on recorded bars, and tests."""

    at: datetime

    def __post_init__(self) -> None:
        self.at = require_utc(self.at, "FixedClock.at")

    def now(self) -> datetime:
        """The moment it was last set to."""
        return self.at

    def move_to(self, at: datetime) -> None:
        """Set the clock."""
        self.at = require_utc(at, "FixedClock.move_to")


def require_utc(moment: datetime, where: str) -> datetime:
    """Return `moment` in UTC; refuse a naive one.

    Raises
    ------
    ValueError
        The moment carries no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{where}: {moment!r} has no time zone; pass an aware UTC datetime")
    return moment.astimezone(UTC)
