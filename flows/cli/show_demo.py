"""What `quant demo` prints for people: the strategies and their verdicts, the paper account, and what to type next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from flows.cli.shell import program, table
from flows.demo_report import next_commands

if TYPE_CHECKING:
    from flows.demo import DemoOutcome

__all__ = ["show_demo"]


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _per_cent(value: float) -> str:
    return f"{100 * value:.1f} %"


def show_demo(outcome: DemoOutcome) -> None:
    """Print the outcome on standard output."""
    document = outcome.as_dict()
    rows = []
    for entry in document["strategies"]:
        low, high = entry["sharpe_interval"]
        modelled = " (modelled)" if entry["data_kind"] == "modelled" else ""
        rows.append(
            [
                entry["name"] + modelled,
                _per_cent(entry["total_return"]),
                _per_cent(entry["cagr"]),
                f"{entry['sharpe']:.2f} [{low:.2f}, {high:.2f}]",
                _per_cent(entry["max_drawdown"]),
                entry["trades"],
                _number(entry["dsr"]),
                _number(entry["pbo"]),
                entry["verdict"],
            ]
        )
    interval = f"Sharpe [{100 * outcome.interval_level:g} %]"
    columns = ["strategy", "return", "a year", interval, "drawdown", "trades", "DSR", "PBO", "verdict"]
    table(f"{document['trials']} trials counted", columns, rows, right=tuple(columns[1:8]))
    say = sys.stdout.write
    for entry in document["strategies"]:
        if entry["verdict"] == "refused":
            say(f"{entry['name']} refused: {', '.join(entry['failed_checks'])}\n")
    agree = "journal and broker agree" if outcome.paper.reconciled else "journal and broker DISAGREE"
    say(f"\npaper account {outcome.paper.account}: {len(outcome.paper.sessions)} sessions, {agree}\n")
    for order in document["orders"]:
        what = f"{order['side']} {order['quantity']:g} {order['symbol']} at {order['price']:,.2f}"
        say(f"  {order['session']}  {what}  {order['id']}\n")
    drift = document["drift"]
    say(
        f"  profit {drift['achieved']:,.2f}, the shadow backtest's {drift['expected']:,.2f}, "
        f"unexplained {abs(drift['residual']):.2f}\n"
    )
    if document["reused"]:
        say(f"\nre-used: {'; '.join(document['reused'])}\n")
    say(f"\nreport   {document['report']}\nruns     {document['tracking_uri']}\ntook     {document['seconds']:.0f} s\n\nnext:\n")
    for command in next_commands(outcome, program()):
        say(f"  {command.command}\n      {command.what}\n")
