"""Verbs about trading: promote, history, trade, explain, halt, resume."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.shell import JsonFlag, emit, progress_on_stderr, settings_from, table

if TYPE_CHECKING:
    from flows.trade import PaperRun

__all__ = ["add_to"]

Model = Annotated[str, typer.Argument(metavar="STRATEGY", help="A registered strategy, see: quant history")]
Account = Annotated[str, typer.Argument(help="An account's folder below <home>/execution.")]
Reason = Annotated[str, typer.Option(help="Why; goes into the audit.")]


def promote(
    model: Model,
    version: Annotated[str | None, typer.Option(help="A registry version; the candidate when left out.")] = None,
    stage: Annotated[Literal["paper", "live"], typer.Option("--to", help="Which alias.")] = "paper",
    who: Annotated[str, typer.Option(help="Who asks; goes into the history.")] = "",
    go: Annotated[bool, typer.Option("--yes", help="Move the alias; without it only the checks are shown.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show each check of the gate with its evidence and the verdict; with --yes, move the alias."""
    from flows.promote import ask_gate

    answer = ask_gate(settings_from(), model, version, stage, who=who, go=go)

    def draw() -> None:
        rows = [
            [
                c["name"],
                c["requirement"],
                c["value"],
                "passed" if c["passed"] else ("waived" if c["waiver"] else "FAILED"),
                c["note"],
            ]
            for c in answer["checks"]
        ]
        table(f"{model} version {answer['version']} to {stage}: {answer['outcome']}", ["check", "asked", "found", "", ""], rows)
        if not go and answer["outcome"] == "promoted":
            typer.echo("a dry run: add --yes --who NAME to move the alias")

    emit(as_json, answer, draw)
    if answer["outcome"] == "refused":
        sys.exit(4)


def history(
    model: Annotated[str | None, typer.Argument(help="One strategy; all when left out.")] = None, as_json: JsonFlag = False
) -> None:
    """Who moved which alias, when, and on which evidence (append-only, verified)."""
    from dataclasses import asdict

    from config.errors import UnknownNameError, did_you_mean
    from tracking.registry import create_model_registry

    registry = create_model_registry(settings_from())
    if model is not None and model not in registry.models():
        raise UnknownNameError(f"no strategy is registered as {model!r}", remedy=did_you_mean(model, registry.models()))
    entries = [asdict(entry) for entry in registry.history(model)]
    columns = ["at", "who", "model", "version", "action", "alias"]

    def draw() -> None:
        table("", columns, [[entry[c] for c in columns] for entry in entries])

    emit(as_json, {"history": entries}, draw)


def trade(
    model: Model,
    sessions: Annotated[int, typer.Option(min=1, help="How far back a new account begins; one that is there goes on.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Trade the version behind the alias paper on the simulated broker, and explain the drift from its backtest."""
    from flows.trade import trade_flow

    with progress_on_stderr() as progress:
        run: PaperRun = trade_flow(model, sessions, settings=settings_from(), progress=progress)
    document = {
        "account": run.account,
        "sessions": [day.isoformat() for day in run.sessions],
        "sent": run.sent,
        "orders": run.order_list,
        "reconciled": run.reconciled,
        "drift": _drift(run),
    }

    def draw() -> None:
        columns = ["session", "symbol", "side", "quantity", "price", "fee", "id"]
        table(f"account {run.account}, {run.sent} sent now", columns, [[o[c] for c in columns] for o in run.order_list])
        parts = [[name, f"{part:,.2f}"] for name, part in run.drift.parts.items() if part]
        rows = [["expected", f"{run.drift.expected:,.2f}"], *parts, ["achieved", f"{run.drift.achieved:,.2f}"]]
        table("drift", ["part", "amount"], rows, right=("amount",))

    emit(as_json, document, draw)


def _drift(run: PaperRun) -> dict[str, Any]:
    return {
        "expected": float(run.drift.expected),
        "achieved": float(run.drift.achieved),
        "parts": {name: float(part) for name, part in run.drift.parts.items()},
        "residual": float(run.drift.residual),
    }


def explain(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="An order, plan, run, snapshot or ingest.")],
    as_json: JsonFlag = False,
) -> None:
    """Walk the chain from an order to the hash of the bytes it came from."""
    from flows.explain import explain as walk

    chain = walk(settings_from(), identifier)

    def draw() -> None:
        for link in chain:
            depth = 2 if link.kind == "source" else 1 if link.kind == "ingest" else 0
            typer.echo(
                f"{'  ' * depth}{link.kind:<17}{link.id}\n{'  ' * depth}{'':<17}{link.hash}\n{'  ' * depth}{'':<17}{link.text}"
            )

    emit(as_json, {"id": identifier, "chain": [link.as_dict() for link in chain]}, draw)


def halt(account: Account, reason: Reason, as_json: JsonFlag = False) -> None:
    """Latch a halt: nothing is sent for this account until it is resumed."""
    _latch(account, reason, "halt", as_json)


def resume(account: Account, reason: Reason, as_json: JsonFlag = False) -> None:
    """Lift a latched halt, with a reason."""
    _latch(account, reason, "resume", as_json)


def _latch(account: str, reason: str, act: Literal["halt", "resume"], as_json: bool) -> None:
    from config.clock import SystemClock
    from config.errors import UnknownNameError
    from execution.journal import Journal, account_folder

    folder = account_folder(settings_from().home_path, account)
    if not (folder / "journal.db").is_file():
        known = sorted(path.parent.name for path in folder.parent.glob("*/journal.db"))
        raise UnknownNameError(f"no account is called {account!r}", remedy=f"known: {', '.join(known) or 'none yet'}")
    with Journal.open(folder, account, clock=SystemClock()) as journal:
        journal.halt(reason) if act == "halt" else journal.resume(reason)
    word = "halted" if act == "halt" else "resumed"
    emit(as_json, {"account": account, "state": word, "reason": reason}, lambda: typer.echo(f"{account} {word}: {reason}"))


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the tree."""
    for verb in (promote, history, trade, explain, halt, resume):
        app.command()(verb)
