"""The command line in a home whose lake is in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import load_settings
from lake import open_lake
from tests.flows.demo_home import quant
from tests.lake.s3_server import BUCKET, s3_server

CSV = """Date,Open,High,Low,Close,Volume
2024-01-02,10.0,11.0,9.5,10.5,1000
2024-01-03,10.5,10.9,10.1,10.2,1100
2024-01-04,10.2,10.8,10.0,10.7,1200
"""


def test_bars_go_into_the_bucket_and_are_listed_and_verified_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    prices = tmp_path / "prices.csv"
    prices.write_text(CSV)
    with s3_server() as server:
        env = server.environment() | {"QUANT_LAKE__PATH": f"s3://{BUCKET}/research"}
        words = ("--source", "files", "--path", str(prices), "--symbol", "ACME", "--basis", "as_traded", "--json")
        ingested = quant(home, "ingest", "equity", "--symbols", "ACME", *words, env=env)
        assert ingested.code == 0, ingested.err
        listed = quant(home, "data", "ls", "--json", env=env)
        assert listed.code == 0, listed.err
        assert ingested.document["snapshot_id"] in listed.out
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        held = open_lake(load_settings()).snapshot(ingested.document["snapshot_id"]).read("equity_bars")
        verified = quant(home, "data", "verify", "--json", env=env)
        assert verified.code == 0, verified.err
    assert not (home / "lake").exists()
    assert held["close"].to_pylist() == [10.5, 10.2, 10.7]
    for said in (ingested, listed, verified):
        assert server.secret not in said.out + said.err
        assert server.key not in said.out + said.err
