"""Verbs about quality: data check|rules|quarantine|release."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from flows.cli.drawing import say
from flows.cli.shell import JsonFlag, emit, progress_on_stderr, settings_from, table

__all__ = ["add_quality_verbs"]

TableName = Annotated[str | None, typer.Option("--table", help="One table, such as equity_bars.")]
RuleName = Annotated[str | None, typer.Option("--rule", help="One rule, see: quant data rules")]
SymbolName = Annotated[str | None, typer.Option("--symbol", help="One symbol, series, underlying or market.")]


def data_check(
    table_name: TableName = None,
    symbols: Annotated[str | None, typer.Option(help="Comma-separated.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 also for held rows and open gaps.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Hold what is stored to the rules again: by table and symbol, with what was refused and what is missing.

    Exit code 3 when a stored row breaks a refusing rule and nobody released it; flags and notes do not count. With --strict also
    when rows are held in quarantine or sessions are missing.
    """
    from flows.checking import check_quality

    tables = None if table_name is None else [table_name]
    chosen = None if symbols is None else [part.strip() for part in symbols.split(",") if part.strip()]
    with progress_on_stderr() as progress:
        report = check_quality(settings_from(), tables=tables, symbols=chosen, progress=progress)

    def draw() -> None:
        stored = ["table", "symbol", "rule", "severity", "rows", "released", "example"]
        table(
            "stored",
            stored,
            [[row[key] for key in stored] for row in report["stored"]],
            right=("rows", "released"),
            empty="no stored row breaks a rule",
        )
        refused = ["table", "symbol", "rule", "state", "rows", "example"]
        table(
            "quarantine",
            refused,
            [[row[key] for key in refused] for row in report["quarantine"]],
            right=("rows",),
            empty="nothing was refused",
        )
        gaps = ["dataset", "symbol", "source", "sessions", "first", "last"]
        table(
            "gaps", gaps, [[row[key] for key in gaps] for row in report["gaps"]], right=("sessions",), empty="no session is missing"
        )

    emit(as_json, report, draw)
    held = any(row["state"] == "held" for row in report["quarantine"])
    if report["unreleased"] or (strict and (held or report["gaps"])):
        sys.exit(3)


def data_rules(table_name: TableName = None, as_json: JsonFlag = False) -> None:
    """The declared rules of every table, with their severities: refuse, flag (stored and named), note (only counted)."""
    from config.tables import table_spec
    from flows.checking import declared_rules

    rules = [rule for rule in declared_rules() if table_name is None or rule["table"] == table_spec(table_name).name]

    def draw() -> None:
        columns = ["table", "rule", "severity", "what it is for"]
        seen: dict[tuple[Any, ...], None] = {}
        for rule in rules:
            others = "".join(f", {severity} for {source}" for source, severity in rule["by_source"].items())
            seen[rule["table"], rule["rule"], f"{rule['severity']}{others}", rule["doc"]] = None
        table("", columns, [list(row) for row in seen])

    emit(as_json, {"rules": rules}, draw)


def data_quarantine(
    table_name: TableName = None,
    symbol: SymbolName = None,
    rule: RuleName = None,
    state: Annotated[str, typer.Option(help="held, released or all.")] = "held",
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Refused rows as they came, the newest first, with the rule and the reason."""
    from config.errors import InputError
    from flows.checking import list_quarantine

    if state not in ("held", "released", "all"):
        raise InputError(f"state {state!r} is none of held, released, all")
    rows = list_quarantine(settings_from(), table=table_name, symbol=symbol, rule=rule, state=None if state == "all" else state)

    def draw() -> None:
        columns = ["row", "table", "symbol", "rule", "reason", "raw"]
        shown = [[r["row_id"][:12], r["table_name"], r["symbol"], r["rule"], r["reason"], r["raw"]] for r in rows[:limit]]
        if not sys.stdout.isatty():
            table("", columns, shown)
        for row, of, name, broken, why, raw in shown if sys.stdout.isatty() else ():
            typer.echo("  ".join((row, of, name or "", broken)))
            say(f"  {why}")
            typer.echo(f"  {raw}")  # as it came, to be copied
        if not rows and sys.stdout.isatty():
            typer.echo("nothing" if state == "all" else f"nothing is {state}")
        if len(rows) > limit:
            typer.echo(f"{limit} of {len(rows)} rows; more with --limit")

    emit(as_json, {"rows": len(rows), "data": rows[:limit]}, draw)


def data_release(
    rows: Annotated[list[str] | None, typer.Argument(metavar="[ROW_ID]...", help="As `quant data quarantine` shows them.")] = None,
    table_name: TableName = None,
    symbol: SymbolName = None,
    rule: RuleName = None,
    reason: Annotated[str, typer.Option(help="Why; recorded with the row.")] = "",
    by: Annotated[str, typer.Option(help="Who; your login name when left out.")] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, only say what it would do.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put refused rows into their table as they came; it is then not refused again. Exit code 3 when none can be put in."""
    import getpass

    from config.clock import SystemClock
    from flows.checking import release_rows

    report = release_rows(
        settings_from(),
        SystemClock(),
        rows or (),
        table=table_name,
        symbol=symbol,
        rule=rule,
        by=by or getpass.getuser(),
        reason=reason,
        apply=apply,
    )
    able = sum(row["effect"] != "cannot" for row in report["rows"])

    def draw() -> None:
        columns = ["row", "table", "symbol", "rule", "effect", "why not"]
        keys = ["table_name", "symbol", "rule", "effect", "why"]
        table("", columns, [[row["row_id"][:12], *(row[key] for key in keys)] for row in report["rows"]])
        if apply:
            typer.echo(f"{report['released']} rows released; snapshot {report['snapshot_id']}")
        else:
            typer.echo(f'{able} of {len(report["rows"])} rows can be released; nothing was done: add --apply --reason "…"')

    emit(as_json, report, draw)
    if not able:
        sys.exit(3)


def add_quality_verbs(group: typer.Typer) -> None:
    """Add these verbs to the group `data`."""
    group.command("check")(data_check)
    group.command("rules")(data_rules)
    group.command("quarantine")(data_quarantine)
    group.command("release")(data_release)
