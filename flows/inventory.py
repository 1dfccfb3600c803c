"""Looks into the lake for people: what is there, what was refused, what is missing, and whether it is what was written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from config.clock import Clock
from config.errors import InputError, IntegrityError, UnknownNameError, did_you_mean
from config.progress import SILENT, Progress
from config.settings import Settings
from config.tables import table_spec
from lake import open_lake
from lake.gaps import MISSING

__all__ = ["check_features", "list_tables", "read_table", "verify_snapshot"]

if TYPE_CHECKING:
    from lake import Snapshot

_NAME_COLUMNS = ("symbol", "series", "underlying", "market_code", "universe")


def moment(text: str) -> datetime:
    """Read a moment with its time zone.

    Raises
    ------
    InputError
        The text is no moment, or names no time zone.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not a moment", remedy="write it as 2018-12-31T21:00:00+00:00") from None
    if found.tzinfo is None:
        raise InputError(f"{text!r} has no time zone", remedy=f"write {found.isoformat()}+00:00 for UTC")
    return found


def day(text: str | None) -> date | None:
    """Read a date; None stays None.

    Raises
    ------
    InputError
        The text is not a date.
    """
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not a date", remedy="write it as 2018-12-31") from None


def list_tables(settings: Settings, clock: Clock, *, symbols: bool = False) -> dict[str, Any]:
    """What every table of the newest snapshot holds, how new it is, and what was refused, flagged or is missing.

    Parameters
    ----------
    settings : Settings
    clock : Clock
        What is late is late by this clock.
    symbols : bool
        Also every symbol, series, underlying and report that is expected to be renewed.
    """
    from flows.freshness import name_freshness, summed_up

    snapshot = open_lake(settings).snapshot()
    names = name_freshness(settings, clock)
    fresh = {one.table: one for one in summed_up(names)}
    kept = _kept_beside(snapshot)
    listed = []
    for name, at in sorted(snapshot.tables.items()):
        row = snapshot.sql(_summary(snapshot, name)).to_pylist()[0]
        listed.append(
            {
                "table": name,
                "rows": at.rows,
                "revised": at.revised,
                "version": at.version,
                **row,
                "freshness": fresh[name].state if name in fresh else None,
                "late": fresh[name].late if name in fresh else False,
                "message": fresh[name].message if name in fresh else None,
                **{what: of.get(name, 0 if what != "last_ingest" else None) for what, of in kept.items()},
            }
        )
    document: dict[str, Any] = {"snapshot_id": snapshot.id, "as_of": clock.now().isoformat(), "tables": listed}
    if symbols:
        per_name = _kept_beside(snapshot, by_name=True)
        document["symbols"] = [
            {
                **one.as_dict(),
                "late": one.late,
                **{what: per_name[what].get((one.table, one.name), 0) for what in ("gaps", "quarantine", "flags")},
            }
            for one in names
        ]
    return document


def _summary(snapshot: Snapshot, name: str) -> str:
    """One query over a table; days are ISO text. A table without revisions and of one row a key is not looked at twice."""
    columns = snapshot.read(name, end=date.min).schema.names
    named = next((column for column in _NAME_COLUMNS if column in columns), None)
    event = "session" if "session" in columns else table_spec(name).event_time
    count = f"count(distinct {named})" if named else "null"
    return (
        f"select {count} as names, min({event})::date::varchar as first_event, max({event})::date::varchar as last_event, "
        "max(available_at)::varchar as newest_available_at, max(recorded_at)::varchar as newest_recorded_at, "
        f'count(*) as current from "{name}"'
    )


def _kept_beside(snapshot: Snapshot, *, by_name: bool = False) -> dict[str, dict[Any, Any]]:
    """Open gaps, held rows, flags and the last ingest, by table; or the first three by table and name."""
    table = "split_part(dataset, '/', 1)"
    whole = {
        "gaps": f"select {table} as t, symbol as s, count(*) as n from gaps where state = '{MISSING}' group by all",
        "quarantine": "select table_name as t, symbol as s, count(*) as n from quarantine where state = 'held' group by all",
        "flags": "select table_name as t, symbol as s, count(*) as n from flags group by all",
    }
    found: dict[str, dict[Any, Any]] = {}
    for what, query in whole.items():
        counts: dict[Any, int] = {}
        for row in snapshot.sql(query).to_pylist():
            key = (row["t"], row["s"]) if by_name else row["t"]
            counts[key] = counts.get(key, 0) + row["n"]
        found[what] = counts
    if not by_name:
        last = snapshot.sql("select dataset as t, max(started_at)::varchar as n from ingest_runs group by all").to_pylist()
        found["last_ingest"] = {row["t"]: row["n"] for row in last}
    return found


def read_table(
    settings: Settings,
    name: str,
    *,
    symbols: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    as_of: str | None = None,
    snapshot_id: str | None = None,
) -> pa.Table:
    """Rows of a table as known at a moment.

    Raises
    ------
    UnknownNameError
        A symbol of which the table has nothing at any time; one without rows in the window is no error.
    """
    snapshot = open_lake(settings).snapshot(snapshot_id)
    where = None
    if symbols:
        columns = snapshot.read(name, end=date.min).schema.names
        named = next((column for column in _NAME_COLUMNS if column in columns), None)
        if named is None:
            raise InputError(f"table {name} has no column of symbols", remedy="leave --symbols out")
        where = {named: list(symbols)}
    found = snapshot.read(name, where=where, start=day(start), end=day(end), as_of=moment(as_of) if as_of else None)
    if where is not None:
        [(named, asked)] = where.items()
        absent = set(asked) - set(found[named].unique().to_pylist())
        known = snapshot.read(name, columns=[named])[named].unique().to_pylist() if absent else []
        for symbol in sorted(absent - set(known)):
            raise UnknownNameError(f"{name} has no rows of {symbol!r}", remedy=did_you_mean(symbol, [str(one) for one in known]))
    return found


def verify_snapshot(settings: Settings, snapshot_id: str | None = None, progress: Progress = SILENT) -> dict[str, Any]:
    """Read every row and every raw answer of a snapshot again, compare with the recorded hashes, and look for each row's ingest."""
    lake = open_lake(settings)
    snapshot = lake.snapshot(snapshot_id)
    answers = snapshot.sql("select distinct response_sha256, origin from ingest_runs order by all").to_pylist()
    ingested = [
        name for name in sorted(snapshot.tables) if not name.startswith("features/")
    ]  # those come from their panel's snapshot
    progress.stage("Verify", len(snapshot.tables) + len(ingested) + len(answers))
    known = set(snapshot.ingest_ids("ingest_runs"))
    checks: list[dict[str, str]] = []

    def check(what: str, name: str, detail: str, look: Any) -> None:
        try:
            look()
            state = "ok"
        except IntegrityError as problem:
            state, detail = "problem", problem.message
        checks.append({"what": what, "id": name, "state": state, "detail": detail})
        progress.advance()

    for name, at in sorted(snapshot.tables.items()):
        check("table", name, f"{at.rows} rows, content {at.chain[:16]}", lambda name=name: snapshot.verify(name))

    def traced(name: str) -> None:
        lost = sorted(set(snapshot.versions(name, columns=["ingest_id"])["ingest_id"].unique().to_pylist()) - known)
        if lost:
            raise IntegrityError(
                f"rows of {name} name {len(lost)} ingests of which nothing is recorded, the first: {lost[0]}",
                remedy="ingest them again",
            )

    for name in ingested:
        check("ingests", name, "each row's ingest is recorded", lambda name=name: traced(name))
    for answer in answers:
        sha = answer["response_sha256"]
        check("source", sha[:16], answer["origin"], lambda sha=sha: lake.raw.get(sha))
    return {"snapshot_id": snapshot.id, "problems": sum(c["state"] != "ok" for c in checks), "checks": checks}


def check_features(settings: Settings, symbols: Sequence[str], cuts: int, progress: Progress = SILENT) -> dict[str, Any]:
    """Cut the future off at `cuts` sessions, and poison it, for the whole catalogue on symbols of the lake."""
    from features.catalogue import CATALOGUE, feature_set
    from features.leakage import check_catalogue
    from features.point_in_time import held_macro, load_panel

    snapshot = open_lake(settings).snapshot()
    progress.stage(f"Check {len(CATALOGUE)} features")
    macro = tuple(held_macro(snapshot, feature_set(tuple(CATALOGUE)).macro))
    panel = load_panel(snapshot, tuple(symbols), macro=macro)
    report = check_catalogue(panel, cuts=cuts, rng=np.random.default_rng(settings.evidence.seed), progress=progress)
    return {
        "snapshot_id": snapshot.id,
        "symbols": list(symbols),
        "features": len(CATALOGUE),
        "cuts": len(report.cuts),
        "leaks": len(report.leaks),
        "unproven": list(report.unproven),
    }
