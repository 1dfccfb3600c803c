"""SQL over a snapshot reads, and only reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import InputError
from config.settings import load_settings
from lake import open_lake


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("copy (select 1) to '{}'", "this is COPY"),
        ("select 1; select 2", "this is SELECT, SELECT"),
        ("", "this is nothing"),
        ("create table t as select 1", "this is CREATE"),
        ("selec 1", "does not accept the query"),
    ],
)
def test_what_is_not_one_select_is_refused_and_writes_nothing(tmp_path: Path, query: str, said: str) -> None:
    lake = open_lake(load_settings())
    target = tmp_path / "out.csv"
    with pytest.raises(InputError, match=said):
        lake.publish().sql(query.format(target))
    assert not target.exists()


def test_one_select_answers() -> None:
    assert open_lake(load_settings()).publish().sql("select count(*) as rows from equity_bars").to_pylist() == [{"rows": 0}]
