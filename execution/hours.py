"""When a market is open, by an exchange's own calendar; the calendar is loaded with the first question."""

from __future__ import annotations

from datetime import date, datetime
from typing import Protocol

from config.errors import InputError

__all__ = ["ExchangeHours", "MarketHours"]


class MarketHours(Protocol):
    """When the market is open."""

    def is_open(self, at: datetime) -> bool:
        """Whether it trades at that moment."""
        ...

    def previous_close(self, at: datetime) -> datetime | None:
        """The last close at or before that moment."""
        ...

    def opening(self, session: date) -> datetime:
        """The moment a session opens, UTC."""
        ...


class ExchangeHours:
    """The hours of an exchange's own calendar, half days included."""

    def __init__(self, calendar: str = "XNYS") -> None:
        self._calendar = calendar

    def is_open(self, at: datetime) -> bool:
        """Whether it trades at that moment: from the opening until just before the close."""
        from config.calendar import is_session, session_closes, session_opens, sessions

        day = at.date()
        if not is_session(day, self._calendar):
            return False
        row = sessions(day, day, self._calendar)
        return bool(session_opens(row, self._calendar)[0] <= at < session_closes(row, self._calendar)[0])

    def previous_close(self, at: datetime) -> datetime | None:
        """The last close at or before that moment."""
        from config.calendar import is_session, previous_session, session_closes, sessions

        day = at.date()
        if is_session(day, self._calendar):
            close = session_closes(sessions(day, day, self._calendar), self._calendar)[0]
            if close <= at:
                return close.to_pydatetime()
        before = previous_session(day, self._calendar)
        return session_closes(sessions(before, before, self._calendar), self._calendar)[0].to_pydatetime()

    def opening(self, session: date) -> datetime:
        """The moment a session opens, UTC.

        Raises
        ------
        InputError
            The exchange does not trade on that day.
        """
        from config.calendar import is_session, session_opens, sessions

        if not is_session(session, self._calendar):
            raise InputError(f"{session} is not a session of {self._calendar}")
        opens = session_opens(sessions(session, session, self._calendar), self._calendar)
        return opens[0].to_pydatetime()
