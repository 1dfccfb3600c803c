"""Verbs about research: strategy ls|check, backtest, search, parity, compare."""

from __future__ import annotations

import typer

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the tree."""
