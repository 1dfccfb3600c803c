"""What a report shows, as plain frozen values: whoever ran the work fills it in, `tracking.report` draws it.

Every field has an empty default and an empty part is left out of the page. Fractions are fractions (0.1: ten per cent); dates are
ISO texts; texts may come from users and are escaped when drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tracking.evidence import Evidence, Severity
from tracking.gates import Verdict

__all__ = [
    "Command",
    "Curve",
    "DataTable",
    "Drift",
    "FindingRow",
    "FoldRow",
    "GateCell",
    "GateColumn",
    "HeatMap",
    "Link",
    "OrderRow",
    "ParityRow",
    "Reconciliation",
    "ReportData",
    "StrategyRow",
    "finding_rows",
    "gate_column",
    "strategy_row",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyRow:
    """One line of the strategy table. None is printed as a dash; `verdict` promoted, refused, baseline or empty."""

    name: str
    data_kind: str = "real"
    verdict: str = ""
    symbols: str = ""
    engine: str = ""
    total_return: float | None = None
    cagr: float | None = None
    volatility_ann: float | None = None
    sharpe: float | None = None
    sharpe_interval: tuple[float, float] | None = None
    dsr: float | None = None
    pbo: float | None = None
    spa_p: float | None = None
    walk_forward_sharpe: float | None = None
    max_drawdown: float | None = None
    trades: int | None = None
    sessions: int | None = None
    trials: int | None = None
    failed_checks: tuple[str, ...] = ()
    waived_checks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """An equity curve: `days` ISO dates, `values` positive account values. Curves of one `group` share a chart."""

    name: str
    days: tuple[str, ...]
    values: tuple[float, ...]
    data_kind: str = "real"
    group: str = ""
    is_benchmark: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GateCell:
    """One check of one strategy; `state` says how it counts."""

    name: str
    requirement: str
    value: str
    state: Literal["passed", "failed", "waived", "not applicable"]
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateColumn:
    """All checks of one strategy at one stage; make it with `gate_column`."""

    strategy: str
    stage: str
    outcome: str
    data_kind: str
    cells: tuple[GateCell, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingRow:
    """A finding and its remedy."""

    strategy: str
    severity: Severity
    code: str
    text: str
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldRow:
    """One fold of a walk-forward: chosen on the train period, traded on the test period. Sharpe ratios annualised."""

    strategy: str
    train: str
    test: str
    params: str
    train_sharpe: float | None
    test_sharpe: float | None
    test_return: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """A search over two parameters: `values[r][c]` for `rows[r]` and `columns[c]`, None where not tried."""

    title: str
    row_name: str
    column_name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    chosen: tuple[int, int] | None = None
    data_kind: str = "real"
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityRow:
    """Two engines on one strategy: order counts and the largest relative difference of equity."""

    strategy: str
    engines: str
    orders: str
    largest_difference: float
    agrees: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderRow:
    """One order of the paper session; `price` of the fill."""

    id: str
    session: str
    symbol: str
    side: str
    quantity: str
    price: str
    fee: str = ""
    status: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciliation:
    """One comparison of our book with the broker's."""

    what: str
    ours: str
    theirs: str
    agrees: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """Why the paper account is not where the backtest is: `expected` + parts = `achieved`, to the `residual`. Currency."""

    expected: float
    achieved: float
    parts: Mapping[str, float]
    residual: float
    currency: str = "USD"
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One link of a lineage chain, from order to source."""

    kind: str
    id: str
    hash: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataTable:
    """One table of the lake."""

    name: str
    rows: int
    symbols: str = ""
    first: str = ""
    last: str = ""
    sources: str = ""
    data_kind: str = "real"


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """Something to type next."""

    command: str
    what: str


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything one report shows.

    Parameters
    ----------
    title, subtitle : str
        What this is, in one line and in one sentence.
    made_at : str
        When the work was done, as text; the report itself takes no time, so that equal data gives equal bytes.
    facts : tuple of (str, str)
        Label and value for the header: snapshot, code, trials, seconds.
    summary : tuple of str
        Sentences under the verdict.
    strategies, curves, gates, findings, folds, heat_maps, parity, orders, reconciliation, drift, lineage, data_tables,
    commands, notes
        The parts, in the order of the page.
    interval_level : float, optional
        Of the Sharpe intervals, as a fraction.
    orders_note, lineage_note : str
        A sentence above the part.
    """

    title: str
    subtitle: str = ""
    made_at: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    summary: tuple[str, ...] = ()
    strategies: tuple[StrategyRow, ...] = ()
    interval_level: float | None = None
    curves: tuple[Curve, ...] = ()
    gates: tuple[GateColumn, ...] = ()
    findings: tuple[FindingRow, ...] = ()
    folds: tuple[FoldRow, ...] = ()
    heat_maps: tuple[HeatMap, ...] = ()
    parity: tuple[ParityRow, ...] = ()
    orders: tuple[OrderRow, ...] = ()
    orders_note: str = ""
    reconciliation: tuple[Reconciliation, ...] = ()
    drift: Drift | None = None
    lineage: tuple[Link, ...] = ()
    lineage_note: str = ""
    data_tables: tuple[DataTable, ...] = ()
    commands: tuple[Command, ...] = ()
    notes: tuple[str, ...] = field(default=())


def strategy_row(evidence: Evidence, verdict: Verdict, *, symbols: str = "", engine: str = "") -> StrategyRow:
    """The table's line from evidence and verdict."""
    return StrategyRow(
        name=evidence.strategy,
        data_kind=evidence.data_kind,
        verdict=verdict.outcome,
        symbols=symbols,
        engine=engine,
        total_return=evidence.total_return,
        cagr=evidence.cagr,
        volatility_ann=evidence.volatility_ann,
        sharpe=evidence.sharpe,
        sharpe_interval=evidence.sharpe_interval,
        dsr=evidence.dsr,
        pbo=evidence.pbo,
        spa_p=evidence.spa_p,
        walk_forward_sharpe=evidence.walk_forward_sharpe,
        max_drawdown=evidence.max_drawdown,
        trades=evidence.trades,
        sessions=evidence.sessions,
        trials=evidence.trials_all,
        failed_checks=verdict.failed_checks,
        waived_checks=verdict.waived_checks,
    )


def gate_column(verdict: Verdict, data_kind: str) -> GateColumn:
    """The checks of a verdict, worded for print; a waiver's signature becomes the note."""
    cells = []
    for check in verdict.checks:
        note = check.note
        state: Literal["passed", "failed", "waived", "not applicable"] = "passed" if check.passed else "failed"
        if not check.applicable:
            state = "not applicable"
        elif check.waiver is not None:
            state = "waived"
            note = f"waived by {check.waiver.who} until {check.waiver.expires}: {check.waiver.reason}"
        cells.append(
            GateCell(name=check.name, requirement=check.requirement, value=_value_text(check.value), state=state, note=note)
        )
    return GateColumn(
        strategy=verdict.strategy, stage=verdict.stage, outcome=verdict.outcome, data_kind=data_kind, cells=tuple(cells)
    )


def finding_rows(evidence: Evidence) -> tuple[FindingRow, ...]:
    """The findings of one strategy, most severe first."""
    order = {"serious": 0, "warning": 1, "note": 2}
    ranked = sorted(evidence.findings, key=lambda finding: order[finding.severity])
    return tuple(
        FindingRow(strategy=evidence.strategy, severity=f.severity, code=f.code, text=f.text, remedy=f.remedy) for f in ranked
    )


def _value_text(value: float | int | bool | str | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
