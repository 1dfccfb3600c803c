"""Draws a report: one HTML file with everything inside it, no network, no script, light and dark, for screen, phone and paper.

1. `render_report` turns `ReportData` into charts (`tracking.charts`) and rows, and fills the template with autoescaping on.
2. `write_report` puts it in its place in one rename. Equal data gives equal bytes: nothing here asks for the time.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from config.errors import InputError, StorageError
from tracking.charts import MINUS, Line, drawdown_chart, growth_chart, heat_map, interval_bar, money, waterfall
from tracking.report_data import Curve, GateCell, GateColumn, HeatMap, ReportData, StrategyRow

__all__ = ["Curve", "ReportData", "StrategyRow", "render_report", "write_report"]

HALF_CENT = 0.005
_HERE = Path(__file__).parent
_COLOURS = 8
_MAP_SIDE = 64
_SEVERITIES = ("serious", "warning", "note")
_CHECKS = {
    "dsr": "Deflated Sharpe ratio",
    "pbo": "Probability of overfitting",
    "spa_p": "Beats the benchmark (SPA p)",
    "sharpe_low": "Sharpe, low end of interval",
    "trades": "Closed trades",
    "sessions": "Sessions",
    "max_drawdown": "Maximum drawdown",
    "walk_forward_sharpe": "Sharpe out of sample",
    "data_kind": "Data observed, not modelled",
    "universe_point_in_time": "Universe without hindsight",
    "serious_findings": "Serious findings",
    "paper_alias": "Held the alias paper",
    "paper_sessions": "Sessions on paper",
    "paper_drift_bps": "Drift on paper, bps a session",
}
_OUTCOMES = ("promoted", "refused", "baseline")


def write_report(data: ReportData, path: Path) -> Path:
    """Write the report; a reader never sees half of it.

    Returns
    -------
    Path
        The file, absolute.

    Raises
    ------
    InputError
        A curve is not one: too short, not positive, days out of order.
    StorageError
        The folder cannot be written.
    """
    content = render_report(data).encode()
    path = path.expanduser().absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as problem:
        raise StorageError(
            f"cannot write the report {path}: {problem.strerror}", remedy=f"make {path.parent} writable with free space"
        ) from problem
    return path


def render_report(data: ReportData) -> str:
    """The report as HTML text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "label": _label,
        "pct": _pct,
        "num": _num,
        "whole": _whole,
        "money": money,
    }
    charts = _charts(data.curves, Markup)
    maps = [
        {"title": one.title, "data_kind": one.data_kind, "svg": Markup(_heat(one)), "hint": _heat_hint(one)}
        for one in data.heat_maps
    ]
    stages = _gate_stages(data.gates)
    parts: dict[str, Any] = {
        "d": data,
        "css": Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        "bars": [Markup(bar) for bar in _bars(data.strategies)],
        "charts": charts,
        "maps": maps,
        "gate_stages": stages,
        "findings": sorted(data.findings, key=lambda finding: _SEVERITIES.index(finding.severity)),
        "tallies": _tallies(data.strategies),
        "waived": [(row.name, ", ".join(row.waived_checks)) for row in data.strategies if row.waived_checks],
        "has_modelled": "modelled"
        in {
            *(row.data_kind for row in data.strategies),
            *(curve.data_kind for curve in data.curves),
            *(table.data_kind for table in data.data_tables),
        },
        "explained": data.drift is not None and abs(data.drift.residual) < HALF_CENT,
        "drift_svg": Markup(_drift(data)) if data.drift else "",
    }
    return environment.get_template("report.html.j2").render(**parts, sections=_sections(data))


def _sections(data: ReportData) -> list[tuple[str, str]]:
    candidates = (
        ("verdict", "Verdict", data.summary or _tallies(data.strategies)),
        ("strategies", "Strategies", data.strategies),
        ("curves", "Equity", data.curves),
        ("gates", "Gates", data.gates),
        ("findings", "Findings", data.findings),
        ("walk-forward", "Walk-forward", data.folds),
        ("search", "Search", data.heat_maps),
        ("parity", "Parity", data.parity),
        ("orders", "Paper session", data.orders or data.reconciliation),
        ("drift", "Drift", data.drift),
        ("lineage", "Lineage", data.lineage),
        ("data", "Data", data.data_tables),
        ("next", "Next", data.commands),
    )
    return [(identifier, name) for identifier, name, content in candidates if content]


def _tallies(rows: tuple[StrategyRow, ...]) -> list[tuple[int, str, str]]:
    found = [(name, [row.name for row in rows if row.verdict == name]) for name in _OUTCOMES]
    return [(len(names), outcome, ", ".join(names)) for outcome, names in found if names]


def _bars(rows: tuple[StrategyRow, ...]) -> list[str]:
    """The Sharpe intervals on one scale."""
    ends = [end for row in rows if _drawn(row) and row.sharpe_interval for end in row.sharpe_interval]
    scale = (min([*ends, 0.0]), max([*ends, 0.5]))
    bars = []
    for row in rows:
        if row.sharpe is None or row.sharpe_interval is None or not _drawn(row):
            bars.append("")
            continue
        low, high = row.sharpe_interval
        bars.append(interval_bar(row.sharpe, low, high, scale, f"Sharpe {row.sharpe:.2f}, interval {low:.2f} to {high:.2f}"))
    return bars


def _drawn(row: StrategyRow) -> bool:
    values = (row.sharpe, *(row.sharpe_interval or (None,)))
    return all(value is not None and math.isfinite(value) for value in values)


def _charts(curves: tuple[Curve, ...], markup: Any) -> list[dict[str, Any]]:
    """One pair of charts a group, benchmark first."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        _require_curve(curve)
        groups.setdefault(curve.group, []).append(curve)
    charts = []
    for title, members in groups.items():
        colour = 0
        lines, legend = [], []
        for curve in members:
            style = "benchmark" if curve.is_benchmark else f"c{colour % _COLOURS}"
            colour += not curve.is_benchmark
            style += " modelled" if curve.data_kind == "modelled" else ""
            lines.append(Line(curve.days, curve.values, style))
            final = f"× {curve.values[-1] / curve.values[0]:.2f}"
            legend.append({"name": curve.name, "style": style, "final": final, "data_kind": curve.data_kind})
        names = ", ".join(curve.name for curve in members)
        charts.append(
            {
                "title": title,
                "legend": legend,
                "growth": markup(growth_chart(lines, f"Growth of 1: {names}")),
                "drawdown": markup(drawdown_chart(lines, f"Drawdown: {names}")),
            }
        )
    return charts


def _require_curve(curve: Curve) -> None:
    whole = len(curve.days) == len(curve.values) >= 2 and all(math.isfinite(v) and v > 0 for v in curve.values)
    if not whole or list(curve.days) != sorted(set(curve.days)):
        raise InputError(
            f"curve {curve.name!r} cannot be drawn: {len(curve.days)} days, {len(curve.values)} values",
            remedy="give as many ascending days as positive, finite values, at least two",
        )


def _gate_stages(
    gates: tuple[GateColumn, ...],
) -> list[tuple[str, list[tuple[str, str, list[GateCell]]], list[GateColumn]]]:
    """A matrix a stage: checks down, strategies across."""
    stages = []
    for stage in dict.fromkeys(column.stage for column in gates):
        columns = [column for column in gates if column.stage == stage]
        asked = {cell.name: cell.requirement for column in columns for cell in column.cells}
        rows = []
        for name, requirement in asked.items():
            missing = GateCell(name=name, requirement=requirement, value="", state="not applicable")
            cells = [next((cell for cell in column.cells if cell.name == name), missing) for column in columns]
            rows.append((name, requirement.replace(">=", "≥").replace("<=", "≤").replace("== ", ""), cells))
        stages.append((stage, rows, columns))
    return stages


def _heat(one: HeatMap) -> str:
    """The map; where it has more cells than a page has room for, each cell shown is the median of a block."""
    values = [list(row) for row in one.values]
    rows, columns, chosen = list(one.rows), list(one.columns), one.chosen
    if len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise InputError(f"heat map {one.title!r} has {len(values)} rows of values for {len(rows)} × {len(columns)} combinations")
    down, across = _block(one)
    if down > 1 or across > 1:
        values = [
            [_median([v for row in values[r : r + down] for v in row[c : c + across]]) for c in range(0, len(columns), across)]
            for r in range(0, len(rows), down)
        ]
        rows, columns = rows[::down], columns[::across]
        chosen = (chosen[0] // down, chosen[1] // across) if chosen else None
    return heat_map(rows, columns, values, chosen, one.title, one.row_name, one.column_name)


def _block(one: HeatMap) -> tuple[int, int]:
    return max(math.ceil(len(one.rows) / _MAP_SIDE), 1), max(math.ceil(len(one.columns) / _MAP_SIDE), 1)


def _median(values: list[float | None]) -> float | None:
    import statistics

    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None


def _heat_hint(one: HeatMap) -> str:
    known = [value for row in one.values for value in row if value is not None and math.isfinite(value)]
    span = f"{len(known)} combinations, from {_num(min(known))} to {_num(max(known))}. " if known else ""
    down, across = _block(one)
    blocks = f"Each cell is the median of {down} × {across} combinations. " if down * across > 1 else ""
    framed = "The framed cell was chosen. " if one.chosen else ""
    return f"{span}Blue above zero, red below, deeper is larger. {blocks}{framed}{one.note}".strip()


def _drift(data: ReportData) -> str:
    drift = data.drift
    assert drift is not None
    parts = [(name.replace("_", " "), value, False) for name, value in drift.parts.items()]
    rest = [("unexplained", drift.residual, False)] if abs(drift.residual) >= HALF_CENT else []
    steps = [("expected", drift.expected, True), *parts, *rest, ("achieved", drift.achieved, True)]
    return waterfall(steps, "Drift from the expected to the achieved value")


def _label(check: str) -> str:
    return _CHECKS.get(check, check)


def _pct(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * 100:,.1f} %".replace("-", MINUS)


def _num(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.2f}".replace("-", MINUS)


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
