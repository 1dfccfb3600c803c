"""One tracking store for the whole room: making one costs a second, importing MLflow three."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import Settings, load_settings


@pytest.fixture
def home_settings(tmp_path: Path) -> Settings:
    """Settings of an empty home of the test's own."""
    return load_settings({"home": str(tmp_path / "home")})


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose tracking store the tests share; each uses experiments and models of its own."""
    return load_settings({"home": str(tmp_path_factory.mktemp("store"))}, environ={})
