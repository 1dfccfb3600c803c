"""The quality report: what is stored and breaks a rule, what was refused, what is missing; and the release of refused rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from config.clock import Clock
from config.errors import InputError, UnknownNameError, did_you_mean
from config.progress import SILENT, Progress
from config.settings import Settings
from config.tables import TABLES, table_spec

__all__ = ["check_quality", "declared_rules", "list_quarantine", "release_rows"]


def check_quality(
    settings: Settings, *, tables: Sequence[str] | None = None, symbols: Sequence[str] | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Hold everything that is stored to the declared rules again, and count what was refused and what is missing.

    Parameters
    ----------
    tables, symbols : sequence of str, optional
        Only these tables; only these symbols, series, underlyings, markets.

    Returns
    -------
    dict
        ``stored`` (rows that break a rule, by table, symbol, rule and severity; ``released`` of them were let through on
        purpose), ``quarantine`` (by table, symbol, rule and state), ``gaps`` (open ones by dataset, symbol and source);
        ``unreleased`` counts the stored rows that break a refusing rule and that nobody released.

    Raises
    ------
    UnknownNameError
        No table has that name, or nothing was published yet.
    """
    from lake import open_lake
    from lake.checking import stored_breaks
    from lake.rules import RULES

    snapshot = open_lake(settings).snapshot()
    for name in tables or ():
        if name not in snapshot.tables:
            raise UnknownNameError(
                f"snapshot {snapshot.id} holds no table {name!r}", remedy=did_you_mean(name, tuple(snapshot.tables))
            )
    wanted = [name for name in sorted(snapshot.tables) if name in RULES and (tables is None or name in tables)]
    progress.stage("Check", len(wanted))
    stored: list[dict[str, Any]] = []
    for name in wanted:
        stored += [{"table": name, **row} for row in stored_breaks(snapshot, table_spec(name), symbols=symbols).to_pylist()]
        progress.advance()
    refused = snapshot.sql(
        'select table_name as "table", symbol, rule, state, count(*) as rows, arg_max(reason, refused_at) as example '
        "from quarantine group by all order by all"
    ).to_pylist()
    missing = snapshot.sql(
        "select dataset, symbol, source, count(*) as sessions, min(session)::varchar as first, max(session)::varchar as last "
        "from gaps where state = 'missing' group by all order by all"
    ).to_pylist()
    refused = [row for row in refused if _is_wanted(row["table"], row["symbol"], tables, symbols)]
    missing = [row for row in missing if _is_wanted(row["dataset"].partition("/")[0], row["symbol"], tables, symbols)]
    let_through = {(r["table"], r["symbol"], r["rule"]): r["rows"] for r in refused if r["state"] == "released"}
    for row in stored:
        row["released"] = 0
        if row["severity"] == "refuse":
            row["released"] = min(row["rows"], let_through.get((row["table"], row["symbol"], row["rule"]), 0))
    unreleased = sum(row["rows"] - row["released"] for row in stored if row["severity"] == "refuse")
    return {"snapshot_id": snapshot.id, "stored": stored, "quarantine": refused, "gaps": missing, "unreleased": unreleased}


def _is_wanted(table: str, symbol: str | None, tables: Sequence[str] | None, symbols: Sequence[str] | None) -> bool:
    return (tables is None or table in tables) and (symbols is None or symbol in symbols)


def declared_rules() -> list[dict[str, Any]]:
    """Every rule of every table: severity, scope, SQL, reason, what it is for."""
    from lake.rules import rules_for

    listed: list[dict[str, Any]] = [{"table": name, **rule.as_dict()} for name, spec in TABLES.items() for rule in rules_for(spec)]
    missing: dict[str, Any] = {
        "table": "equity_bars",
        "rule": "missing_session",
        "severity": "note",
        "by_source": {},
        "scope": "calendar",
        "breaks": "a session of the calendar between a symbol's first and last bar, while it was listed, has no bar",
        "reason": "rows of the table gaps, state missing",
        "doc": "Holidays and half days are the exchange's own; `quant ingest … --fill-gaps` asks for what is missing.",
    }
    listed.append(missing)
    return listed


def list_quarantine(
    settings: Settings, *, table: str | None = None, symbol: str | None = None, rule: str | None = None, state: str | None = "held"
) -> list[dict[str, Any]]:
    """Refused rows, the newest first, with the raw row of each.

    Raises
    ------
    UnknownNameError
        No table has that name.
    """
    from lake import open_lake
    from lake.quarantine import find

    if table is not None:
        table_spec(table)
    return find(open_lake(settings), table=table, symbol=symbol, rule=rule, state=state)


def release_rows(
    settings: Settings,
    clock: Clock,
    row_ids: Sequence[str] = (),
    *,
    table: str | None = None,
    symbol: str | None = None,
    rule: str | None = None,
    by: str = "",
    reason: str = "",
    apply: bool = False,
) -> dict[str, Any]:
    """Put refused rows into their tables as they came; without `apply` only say what that would do.

    Raises
    ------
    InputError
        Neither ids nor a filter, ids and a filter, or (with `apply`) no reason.
    UnknownNameError
        No held row has that id, or none fits.
    """
    from lake import open_lake
    from lake.quarantine import find, plan, release

    filters = {"table": table, "symbol": symbol, "rule": rule}
    if bool(row_ids) == any(value is not None for value in filters.values()):
        raise InputError(
            "name the rows to release by their ids, or by a filter", remedy="quant data release ROW_ID… | --rule R --table T"
        )
    if apply and not reason.strip():
        raise InputError("a release is recorded with its reason", remedy='pass --reason "…"')
    lake = open_lake(settings)
    rows = find(lake, row_ids, **filters)
    if not rows:
        raise UnknownNameError("no held row of quarantine fits", remedy="quant data quarantine lists them")
    planned = plan(lake, rows)
    document: dict[str, Any] = {"applied": apply, "rows": [one.as_dict() for one in planned], "released": 0, "snapshot_id": None}
    if apply:
        written, document["released"] = release(lake, planned, by=by, reason=reason, recorded_at=clock.now())
        document["written"] = {
            name: {"new": one.new, "revised": one.revised, "unchanged": one.unchanged} for name, one in written.items()
        }
        document["snapshot_id"] = lake.publish().id
    return document
