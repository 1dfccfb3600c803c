"""Addresses are shown without their passwords, and a bucket's is told from a folder's."""

from __future__ import annotations

import pytest

from config.addresses import has_password, object_store, without_password
from config.errors import ConfigError
from config.settings import load_settings


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@db:5432/runs", "postgresql://me:***@db:5432/runs"),
        ("postgresql+asyncpg://me:se/cr@et@db/runs", "postgresql+asyncpg://me:***@db/runs"),
        ("cannot reach https://u:secret@host/x now", "cannot reach https://u:***@host/x now"),
        (
            "postgresql://db/runs?user=me&password=secret&sslmode=require",
            "postgresql://db/runs?user=me&password=***&sslmode=require",
        ),
        ("postgresql://me@db:5432/runs", "postgresql://me@db:5432/runs"),
        ("http://127.0.0.1:5000/x?a=b", "http://127.0.0.1:5000/x?a=b"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
    ],
)
def test_a_password_is_shown_as_stars(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert has_password(text) is (text != shown)
    assert without_password(shown) == shown


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("s3://bucket/a/lake/", ("bucket", "a/lake")),
        ("s3://bucket", ("bucket", "")),
        ("./lake", None),
        ("/data/lake", None),
        ("", None),
    ],
)
def test_a_bucket_is_told_from_a_folder(address: str, parts: tuple[str, str] | None) -> None:
    assert object_store(address) == parts


def test_a_lake_in_a_bucket_has_that_address_and_not_a_folder() -> None:
    assert load_settings({"lake.path": "s3://bucket/lake/"}).lake_address == "s3://bucket/lake"
    with pytest.raises(ConfigError, match=r"(?s)lake\.path.*s3://bucket/prefix"):
        load_settings({"lake.path": "gs://bucket/lake"})


def test_a_wrong_value_is_shown_without_its_password() -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings({"ui.prefect_port": "postgresql://me:secret@db/x"})
    assert "me:***@db" in str(refused.value)
    assert "secret" not in str(refused.value)
