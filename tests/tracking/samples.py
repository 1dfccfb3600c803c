"""Hand-made evidence and report data for the tests of this room; no number here comes from the code under test."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from tracking.evidence import Evidence, Finding
from tracking.gates import evaluate
from tracking.report_data import (
    Command,
    Curve,
    DataTable,
    Drift,
    FoldRow,
    HeatMap,
    Link,
    OrderRow,
    ParityRow,
    Reconciliation,
    ReportData,
    finding_rows,
    gate_column,
    strategy_row,
)

DIGEST = "3f1c9a2b" + "0" * 56


def evidence(**changes: Any) -> Evidence:
    """Evidence that passes every check of `paper`, with changes."""
    good = Evidence(
        strategy="sma_crossover",
        spec_digest=DIGEST,
        data_kind="real",
        role="candidate",
        sessions=5030,
        trades=46,
        total_return=1.58,
        cagr=0.049,
        volatility_ann=0.16,
        max_drawdown=0.41,
        sharpe=0.72,
        sharpe_interval=(0.21, 1.22),
        trials=9,
        trials_all=312,
        dsr=0.97,
        pbo=0.31,
        spa_p=0.02,
        walk_forward_sharpe=0.55,
        universe_point_in_time=True,
    )
    return replace(good, **changes)


def report_data() -> ReportData:
    """A report with every part filled in."""
    few = Finding(
        code="few_trades", severity="warning", text="Only 12 closed trades.", remedy="Test a longer period or more symbols."
    )
    same = Finding(
        code="same_close",
        severity="serious",
        text="Filled at the close it decided on: 20 symbols have no opens.",
        remedy="Use a source with opening prices.",
    )
    good = evidence()
    bad = evidence(
        strategy="overfitted_search",
        sharpe=1.31,
        sharpe_interval=(0.9, 1.8),
        dsr=0.62,
        pbo=0.75,
        spa_p=0.9,
        trials=253,
        findings=(few,),
    )
    stocks = evidence(
        strategy="momentum_20_stocks",
        universe_point_in_time=False,
        findings=(same,),
        sharpe=0.9,
        walk_forward_sharpe=-0.1,
        dsr=None,
        max_drawdown=0.62,
    )
    chain = evidence(
        strategy="covered_calls", data_kind="modelled", trades=180, pbo=None, trials=1, sharpe_interval=(-0.2, 0.9), sharpe=0.4
    )
    hold = evidence(
        strategy="buy_and_hold", role="benchmark", sharpe=0.34, sharpe_interval=(-0.1, 0.8), max_drawdown=0.78, trades=0
    )
    all_of_them = (good, bad, stocks, chain, hold)
    verdicts = [evaluate(one, "paper") for one in all_of_them]
    grid = tuple(tuple(None if c <= r else math.sin(r / 3) * math.cos(c / 4) * 0.6 for c in range(24)) for r in range(20))
    return ReportData(
        title="Demo: from raw data to a paper order",
        subtitle="Real index, stock and macro data that ships with open packages; option chains modelled on real S&P 500 and VIX.",
        made_at="2026-11-21 01:00 UTC",
        facts=(("Lake snapshot", "8c1d02aa9e77f310"), ("Code", "e956088"), ("Trials counted", "312"), ("Took", "61 s")),
        summary=("sma_crossover goes to paper. Four hundred pairs of windows were tried; the best of them is refused as luck.",),
        strategies=tuple(
            strategy_row(e, v, symbols="NASDAQ", engine="vectorbt") for e, v in zip(all_of_them, verdicts, strict=True)
        ),
        curves=(
            _curve("buy_and_hold", 0.00025, 0.011, group="NASDAQ 1999–2018", is_benchmark=True),
            _curve("sma_crossover", 0.00030, 0.007, group="NASDAQ 1999–2018"),
            _curve("overfitted_search", 0.00045, 0.008, group="NASDAQ 1999–2018"),
            _curve(
                "buy_and_hold", 0.0002, 0.009, group="S&P 500 with options 2014–2018", is_benchmark=True, sessions=1200, year=2014
            ),
            _curve(
                "covered_calls",
                0.00018,
                0.006,
                group="S&P 500 with options 2014–2018",
                data_kind="modelled",
                sessions=1200,
                year=2014,
            ),
        ),
        gates=tuple(gate_column(v, e.data_kind) for e, v in zip(all_of_them, verdicts, strict=True)),
        findings=tuple(row for one in all_of_them for row in finding_rows(one)),
        folds=tuple(
            FoldRow(
                strategy="sma_crossover",
                train=f"1999 – {2002 + 3 * k}",
                test=f"{2003 + 3 * k} – {2005 + 3 * k}",
                params=f"fast={20 + k}, slow={50 + 7 * k}",
                train_sharpe=0.8 - 0.05 * k,
                test_sharpe=0.5 - 0.2 * k,
                test_return=0.14 - 0.05 * k,
            )
            for k in range(5)
        ),
        heat_maps=(
            HeatMap(
                title="SMA crossover, Sharpe by windows",
                row_name="fast window",
                column_name="slow window",
                rows=tuple(str(5 + 9 * n) for n in range(20)),
                columns=tuple(str(14 + 9 * n) for n in range(24)),
                values=grid,
                chosen=(4, 22),
                note="A lone deep cell among pale ones is luck; a plateau may be something.",
            ),
        ),
        parity=(
            ParityRow(
                strategy="sma_crossover", engines="vectorbt, backtrader", orders="92 and 92", largest_difference=7e-15, agrees=True
            ),
        ),
        orders=tuple(
            OrderRow(
                id=f"qt-{n:02d}a1b2c3d4e5f6",
                session=f"2018-12-{10 + n:02d}",
                symbol="NASDAQ",
                side="sell" if n % 2 else "buy",
                quantity="14.2503",
                price=f"{6900 + 10 * n:,.2f}",
                fee="98.31",
                status="filled",
            )
            for n in range(4)
        ),
        orders_note="Twenty sessions, 2018-12-03 to 2018-12-31, replayed on the simulated broker.",
        reconciliation=(
            Reconciliation(what="NASDAQ position", ours="0", theirs="0", agrees=True),
            Reconciliation(what="Cash", ours="97,410.22", theirs="97,410.22", agrees=True),
        ),
        drift=Drift(
            expected=97455.10,
            achieved=97410.22,
            parts={"data_revision": 0.0, "sizing_and_rounding": -3.12, "slippage": -52.4, "fees": 10.64},
            residual=0.0,
        ),
        lineage=(
            Link(kind="order", id="qt-01a1b2c3d4e5f6", hash="a" * 64),
            Link(kind="plan", id="plan-2018-12-10", hash="b" * 64),
            Link(kind="strategy version", id="sma_crossover 1", hash=DIGEST),
            Link(kind="run", id="0123456789abcdef", hash="c" * 64),
            Link(kind="snapshot", id="8c1d02aa9e77f310", hash="d" * 64),
            Link(kind="source", id="arch.data nasdaq.csv.gz", hash="e" * 64, note="the file as shipped"),
        ),
        lineage_note="From an order back to the bytes it came from.",
        data_tables=(
            DataTable(
                name="equity_bars", rows=176_312, symbols="22", first="1990-01-02", last="2022-12-28", sources="arch.data, skfolio"
            ),
            DataTable(
                name="option_quotes",
                rows=412_220,
                symbols="SPX",
                first="2014-01-02",
                last="2018-12-31",
                sources="modelled on SP500 and VIX",
                data_kind="modelled",
            ),
        ),
        commands=(
            Command(command="quant explain qt-01a1b2c3d4e5f6", what="the chain above, for any order"),
            Command(command="quant ui", what="open the Prefect and MLflow pages"),
        ),
        notes=("Tracking store: sqlite:///.quant/mlflow/mlflow.db",),
    )


def _curve(
    name: str,
    drift: float,
    swing: float,
    *,
    group: str,
    sessions: int = 5000,
    year: int = 1999,
    data_kind: str = "real",
    is_benchmark: bool = False,
) -> Curve:
    """A wavy curve without randomness."""
    days, values, level = [], [], 100_000.0
    day = date(year, 1, 4)
    for n in range(sessions):
        level *= (
            1 + drift + swing * math.sin(n * 1.7 + len(name)) * math.cos(n * 0.013 + len(name)) + swing * 0.3 * math.sin(n * 0.009)
        )
        days.append(day.isoformat())
        values.append(level)
        day += timedelta(days=3 if day.weekday() == 4 else 1)
    return Curve(name=name, days=tuple(days), values=tuple(values), data_kind=data_kind, group=group, is_benchmark=is_benchmark)
