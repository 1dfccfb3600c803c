"""Tells a damaged SQLite file from one that is busy, full or not writable."""

from __future__ import annotations

__all__ = ["is_damaged"]

_SIGNS = ("not a database", "malformed", "could not decode", "unsupported file format")


def is_damaged(problem: Exception) -> bool:
    """Whether a database's error says that its bytes are wrong: running the same command again cannot help then."""
    return any(sign in str(problem).lower() for sign in _SIGNS)
