"""Verbs about data: ingest equity|options|macro, data ls|show|check|verify|sql, features build|ls|check."""

from __future__ import annotations

import typer

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the tree."""
