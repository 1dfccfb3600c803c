"""A lake in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake; nothing is on the disk yet."""
    return Lake(tmp_path / "lake")
