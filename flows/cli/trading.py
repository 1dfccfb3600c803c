"""Verbs about trading: promote, history, trade, explain, verify, halt, resume."""

from __future__ import annotations

import typer

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the tree."""
