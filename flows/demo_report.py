"""The demo's page: fills `tracking.report_data.ReportData` from what the demo did and writes one self-contained HTML file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tracking.report import write_report
from tracking.report_data import (
    Command,
    Curve,
    DataTable,
    Drift,
    FindingRow,
    FoldRow,
    GateColumn,
    HeatMap,
    Link,
    OrderRow,
    ParityRow,
    Reconciliation,
    ReportData,
    StrategyRow,
    finding_rows,
    gate_column,
    strategy_row,
)

if TYPE_CHECKING:
    from flows.demo import DemoOutcome
    from flows.research import Study
    from lake import Snapshot

__all__ = ["demo_report", "next_commands"]

MOST_PARAMETERS = 4


def next_commands(outcome: DemoOutcome, program: str = "quant") -> tuple[Command, ...]:
    """What to type next, in an order that makes sense; `program` is how this user calls the command."""
    start = program if outcome.home == (Path.cwd() / ".quant").absolute() else f"{program} --home {shlex.quote(str(outcome.home))}"
    order = outcome.paper.fills[0].client_order_id if outcome.paper.fills else outcome.snapshot_id
    acts = (
        (f"explain {order}", "the chain from an order to the bytes it came from"),
        ("data ls", "the tables, their clocks and their rows"),
        ("ui", "open the Prefect and MLflow pages on this machine"),
        ("features ls", "the declared features, with formula and source"),
        ("backtest sma_crossover --symbols NASDAQ --set fast=10 --set slow=100", "try your own parameters; every try is counted"),
        ("ingest equity --source files --path BARS.csv --symbols NAME", "bring your own data into the lake"),
        ("doctor", "check this machine"),
    )
    return tuple(Command(command=f"{start} {words}", what=what) for words, what in acts)


def demo_report(outcome: DemoOutcome, snapshot: Snapshot) -> Path:
    """Write the page; its bytes depend on the outcome's content only."""
    traded = outcome.promotion.traded
    if outcome.promotion.promoted:
        verdict = f"Promoted to paper: {', '.join(outcome.promotion.promoted)}."
    else:
        verdict = (
            f"Nothing deserves promotion on this data. {traded.label} goes to paper as the baseline: "
            "it is what a candidate has to beat."
        )
    data = ReportData(
        title="Quantrail demo",
        subtitle="Real prices and macro series, one modelled option chain, from the bundled files to a paper account.",
        facts=(
            ("Snapshot", outcome.snapshot_id),
            ("Feature set", f"{outcome.built.set_version} ({len(outcome.built.features)} features)"),
            ("Trials counted", f"{outcome.trials:,}"),
            ("Strategies judged", str(len(outcome.studies))),
            ("Tracking", outcome.tracking_uri),
        ),
        summary=(
            verdict,
            f"Refused: {', '.join(outcome.promotion.refused)}.",
            f"The paper account traded {len(outcome.paper.sessions)} sessions, "
            f"{len(outcome.paper.fills)} fill{'s' if len(outcome.paper.fills) != 1 else ''}; "
            f"{outcome.paper.drift.residual:.2f} of its profit is unexplained.",
        ),
        strategies=tuple(_row(study) for study in outcome.studies),
        interval_level=outcome.interval_level,
        curves=tuple(_curve(study) for study in outcome.studies),
        gates=tuple(_gate(study) for study in outcome.studies),
        findings=_findings(outcome.studies),
        folds=_all_folds(outcome),
        heat_maps=(_heat_map(outcome),),
        parity=(_parity(outcome),),
        orders=_orders(outcome),
        orders_note=f"Account {outcome.paper.account}, simulated broker, recorded bars; strategy {traded.label}.",
        reconciliation=_reconciliation(outcome),
        drift=Drift(
            expected=round(float(outcome.paper.drift.expected), 2),
            achieved=round(float(outcome.paper.drift.achieved), 2),
            # To the cent: rounding of the last digit would fill the picture where nothing else differs.
            parts={name.replace("_", " "): round(float(part), 2) for name, part in outcome.paper.drift.parts.items()},
            residual=float(outcome.paper.drift.residual),
            note="Expected: the shadow backtest over the same sessions. Achieved: the broker's own statement.",
        ),
        lineage=tuple(Link(kind=link.kind, id=link.id, hash=link.hash, note=link.text) for link in outcome.chain),
        lineage_note="From the first order to the files it came from; files and run artefacts were read and hashed again. "
        "The snapshot's hash is the one it was published with.",
        data_tables=_data_tables(outcome, snapshot),
        commands=next_commands(outcome),
        notes=(
            "NASDAQ and SP500 are index levels: nothing can be bought at them, and dividends are not in them.",
            "The option chain is modelled from the real S&P 500 and VIX: results on it cannot be promoted.",
            "The macro series carry one recorded vintage with a stated publication lag, not their real-time vintages.",
        ),
    )
    return write_report(data, outcome.report)


def _row(study: Study) -> StrategyRow:
    symbols = ", ".join(study.result.spec.symbols)
    return replace(strategy_row(study.evidence, study.verdict, symbols=symbols, engine=study.result.engine), name=study.label)


def _curve(study: Study) -> Curve:
    equity = study.result.equity
    return Curve(
        name=study.label,
        days=tuple(pd.DatetimeIndex(equity.index).strftime("%Y-%m-%d")),
        values=tuple(float(value) for value in equity.to_numpy()),
        data_kind=study.evidence.data_kind,
        group=", ".join(study.result.spec.symbols),
        is_benchmark=study.evidence.role == "benchmark",
    )


def _gate(study: Study) -> GateColumn:
    return replace(gate_column(study.verdict, study.evidence.data_kind), strategy=study.label)


def _findings(studies: Sequence[Study]) -> tuple[FindingRow, ...]:
    """Every finding once; what was found of several strategies in the same words names them all."""
    found: dict[FindingRow, list[str]] = {}
    for study in studies:
        for row in finding_rows(study.evidence):
            found.setdefault(replace(row, strategy=""), []).append(study.label)
    return tuple(replace(row, strategy=", ".join(labels)) for row, labels in found.items())


def _all_folds(outcome: DemoOutcome) -> tuple[FoldRow, ...]:
    """One walk-forward a family: two versions of one strategy were chosen from the same configurations.

    A family with a single configuration has none to choose, so it has no folds to show.
    """
    of_family: dict[tuple[str, tuple[str, ...]], Study] = {}
    for study in (study for study in outcome.studies if study.evidence.trials > 1):
        of_family.setdefault((study.result.spec.family, study.result.spec.symbols), study)
    return tuple(row for study in of_family.values() for row in _folds(study, outcome.configurations))


def _folds(study: Study, configurations: Mapping[str, Mapping[str, Any]]) -> list[FoldRow]:
    if study.walk_forward is None:
        return []
    declared = dict(study.result.spec.params)
    return [
        FoldRow(
            strategy=study.result.spec.family,
            train=f"{fold.train[0]:%Y-%m-%d} – {fold.train[1]:%Y-%m-%d}",
            test=f"{fold.test[0]:%Y-%m-%d} – {fold.test[1]:%Y-%m-%d}",
            params=_worded(configurations.get(fold.configuration, {}), declared) or fold.configuration[:12],
            train_sharpe=fold.train_sharpe,
            test_sharpe=fold.test_sharpe,
            test_return=float(np.prod(1.0 + study.walk_forward.returns[fold.test[0] : fold.test[1]].to_numpy())) - 1.0,
        )
        for fold in study.walk_forward.folds
    ]


def _worded(params: Mapping[str, Any], declared: Mapping[str, Any]) -> str:
    """Parameters for a cell; of many, only those that differ from the declared configuration."""
    flat, known = _flat(params), _flat(declared)
    if len(flat) <= MOST_PARAMETERS:
        return ", ".join(f"{name}={value}" for name, value in flat.items())
    other = ", ".join(f"{name}={value}" for name, value in flat.items() if known.get(name) != value)
    return f"as declared, but {other}" if other else "as declared"


def _flat(params: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Nested parameters as dotted names."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        flat |= _flat(value, f"{within}{key}.") if isinstance(value, Mapping) else {f"{within}{key}": value}
    return flat


def _heat_map(outcome: DemoOutcome) -> HeatMap:
    table = outcome.search.table.pivot(index="slow", columns="fast", values="sharpe").sort_index()
    best = outcome.search.table.iloc[outcome.search.best_row]
    rows, columns = [int(value) for value in table.index], [int(value) for value in table.columns]
    return HeatMap(
        title=f"Sharpe ratio of {len(outcome.search.table)} moving-average pairs on NASDAQ",
        row_name="slow window",
        column_name="fast window",
        rows=tuple(map(str, rows)),
        columns=tuple(map(str, columns)),
        values=tuple(tuple(None if value != value else float(value) for value in line) for line in table.to_numpy(dtype=float)),
        chosen=(rows.index(int(best["slow"])), columns.index(int(best["fast"]))),
        note="The deliberately overfitted search: its best pair is put before the gate as sma_search_best.",
    )


def _parity(outcome: DemoOutcome) -> ParityRow:
    parity = outcome.parity
    return ParityRow(
        strategy="sma_crossover",
        engines=" and ".join(parity.engines),
        orders=f"{parity.orders_left} and {parity.orders_right}",
        largest_difference=parity.max_relative_equity_difference,
        agrees=parity.equal,
    )


def _orders(outcome: DemoOutcome) -> tuple[OrderRow, ...]:
    states = {order.request.client_order_id: order for order in outcome.paper.orders}
    rows = []
    for fill in outcome.paper.fills:
        order = states[fill.client_order_id]
        whole = order.filled == order.request.quantity
        rows.append(
            OrderRow(
                id=fill.client_order_id,
                session=fill.session.isoformat(),
                symbol=fill.symbol,
                side=fill.side,
                quantity=f"{fill.quantity:f}",
                price=f"{fill.price:,.4f}",
                fee=f"{fill.fee:,.2f}",
                status="filled" if whole else f"{order.filled:f} of {order.request.quantity:f}: {order.reason}",
            )
        )
    return tuple(rows)


def _reconciliation(outcome: DemoOutcome) -> tuple[Reconciliation, ...]:
    paper = outcome.paper
    return (
        Reconciliation(what="positions", ours="journal's fills", theirs="broker's book", agrees=paper.reconciled),
        Reconciliation(
            what="audit chain", ours=f"{paper.audit_lines} lines", theirs="each hash follows from the one before", agrees=True
        ),
    )


def _data_tables(outcome: DemoOutcome, snapshot: Snapshot) -> tuple[DataTable, ...]:
    rows = []
    named = {
        "equity_bars": ("symbol", "session"),
        "macro_observations": ("series", "period"),
        "option_quotes": ("underlying", "session"),
    }
    for name, (column, event) in named.items():
        query = f"select count(distinct {column}), min({event}), max({event}), string_agg(distinct source, ', ') from {name}"
        count, first, last, sources = list(snapshot.sql(query).to_pylist()[0].values())
        rows.append(
            DataTable(
                name=name,
                rows=outcome.data.get(name, 0),
                symbols=str(count),
                first=str(first),
                last=str(last),
                sources=str(sources),
                data_kind="modelled" if name == "option_quotes" else "real",
            )
        )
    rows += [DataTable(name=name, rows=count) for name, count in outcome.data.items() if name not in named]
    return tuple(rows)
