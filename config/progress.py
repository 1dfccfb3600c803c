"""The one small protocol through which long work tells how far it is; libraries never print."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["SILENT", "Progress", "SilentProgress"]


@runtime_checkable
class Progress(Protocol):
    """What a long computation may say. The command line draws it; the dashboard sends it on as events."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a named stage of `total` steps (None: unknown); ends the stage before it."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Say that `steps` more steps of the stage are done."""
        ...

    def note(self, text: str) -> None:
        """Say one thing worth reading, in one line."""
        ...


class SilentProgress:
    """Says nothing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Ignore."""

    def advance(self, steps: int = 1) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


SILENT = SilentProgress()
