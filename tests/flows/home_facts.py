"""What a home folder holds after a demo, read past the code that wrote it: with `sqlite3` and the files themselves."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

BOOKKEEPING = frozenset({"ingest_runs", "quarantine", "flags", "gaps"})
# Ids that MLflow draws at random, places on this disk and the time taken; the plan's hash covers the run's id.
_OF_THIS_RUN = frozenset({"report", "tracking_uri", "seconds", "reused", "lineage"})


def numbers(document: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that two demos of the same code must agree on."""
    same = {key: value for key, value in document.items() if key not in _OF_THIS_RUN}
    same["data"] = {name: rows for name, rows in document["data"].items() if name not in BOOKKEEPING}
    same["strategies"] = [{k: v for k, v in entry.items() if k != "run_id"} for entry in document["strategies"]]
    same["links"] = [
        (link["kind"], None if link["kind"] == "run" else link["id"], None if link["kind"] == "plan" else link["hash"])
        for link in document["lineage"]
    ]
    return same


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """A query's rows, the file opened for reading only."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def registered_versions(home: Path) -> Counter[tuple[str, str, str]]:
    """How many versions MLflow's own tables hold of each (model, specification, evidence)."""
    tags: dict[tuple[str, int], dict[str, str]] = {}
    database = home / "mlflow" / "mlflow.db"
    for name, version in rows(database, "select name, version from model_versions"):
        tags[name, version] = {}
    for name, version, key, value in rows(database, "select name, version, key, value from model_version_tags"):
        tags[name, version][key] = value
    return Counter((name, held["spec_sha256"], held["evidence_sha256"]) for (name, _), held in tags.items())


def runs(home: Path) -> list[tuple[str, str]]:
    """Every MLflow run: its id and its status."""
    return [(str(run), str(status)) for run, status in rows(home / "mlflow" / "mlflow.db", "select run_uuid, status from runs")]


def ledger(home: Path) -> dict[str, Any]:
    """What the ledger of trials counted, the moments and file names left out, and whether its files are what it says."""
    database = home / "trials" / "ledger.db"
    columns = "configuration, family, symbols, params, spec_digest, snapshot_id, sharpe_per_session, total_return, trades"
    stored = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in (home / "trials" / "returns").glob("*.parquet")}
    promised = dict(rows(database, "select batch_id, returns_sha256 from batches where returns_sha256 is not null"))
    return {
        "trials": rows(database, f"select {columns} from trials order by configuration, snapshot_id"),
        "whole": stored == promised,
    }


def account(home: Path, name: str = "paper-buy_and_hold-a962fbcc") -> dict[str, Any]:
    """Orders and fills of a paper account, as its journal and its broker have them."""
    folder = home / "execution" / name
    order = "select client_order_id, symbol, side, quantity, status, filled from orders order by seq"
    return {
        "broker_orders": rows(folder / "broker.db", order),
        "broker_fills": rows(folder / "broker.db", "select execution_id, quantity, price, fee, session from fills order by seq"),
        "sessions": rows(folder / "broker.db", "select session, cash, equity from sessions order by session"),
        "journal_orders": rows(folder / "journal.db", "select client_order_id, state, filled from orders order by rowid"),
        "journal_fills": rows(folder / "journal.db", "select execution_id, quantity, price from fills order by rowid"),
    }


def audit_is_whole(home: Path, name: str = "paper-buy_and_hold-a962fbcc") -> bool:
    """Whether each line of the audit hashes the one before it: SHA-256 of [seq, at, kind, body, previous] as canonical JSON."""
    previous, lines = (
        "0" * 64,
        rows(home / "execution" / name / "journal.db", "select seq, at, kind, body, prev, hash from audit order by seq"),
    )
    for place, (seq, at, kind, body, before, chained) in enumerate(lines, start=1):
        text = json.dumps([seq, at, kind, body, before], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if seq != place or before != previous or hashlib.sha256(text.encode()).hexdigest() != chained:
            return False
        previous = chained
    return bool(lines)
