"""Paper accounts on strategies that do trade: any window, costs, interest, revised bars and new versions; nothing unexplained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from config.clock import SystemClock
from config.errors import InputError
from config.settings import Settings, load_settings
from flows.trade import PaperRun, trade_flow
from lake import open_lake
from tests.flows.paper_home import promote_to_paper

FAST = {"name": "sma_crossover", "fast": 2, "slow": 5}


def home(folder: Path, symbols: list[str], config: dict[str, Any] = FAST, **convention: Any) -> Settings:
    """A home with two years of bars and a strategy behind the alias `paper`."""
    from flows.ingest_equity import ingest_equity_flow
    from flows.ingest_macro import ingest_macro_flow

    settings = load_settings({"home": str(folder), **{f"convention.{name}": value for name, value in convention.items()}})
    ingest_equity_flow(symbols, "2012-01-03", "2018-12-31", settings=settings)
    if config["name"] == "combo":
        ingest_macro_flow(settings=settings)
    promote_to_paper(settings, config, symbols)
    return settings


def explained(run: PaperRun) -> None:
    """The parts add up to the difference, and the account's profit is what its fills say by hand."""
    assert run.drift.residual == 0
    assert float(run.drift.achieved) == pytest.approx(
        float(run.drift.expected) + sum(float(part) for part in run.drift.parts.values()), abs=1e-6
    )
    assert run.reconciled
    assert run.fills


def test_a_strategy_with_features_and_macro_series_trades_on_paper(tmp_path: Path) -> None:
    risk = {
        "name": "combo",
        "momentum": {"sma_crossover": {"fast": 2, "slow": 5}},
        "regime_aware": {"risk_regime_filter": {"max_level": 3}, "trend_filter": True},
    }
    run = trade_flow("combo", 150, settings=home(tmp_path, ["SP500"], risk))
    explained(run)
    assert len(run.fills) > 5


def test_interest_on_cash_and_whole_shares_leave_nothing_unexplained(tmp_path: Path) -> None:
    settings = home(tmp_path, ["SP500"], cash_interest_ann=0.05, fractional=False, slippage_bps=20.0)
    run = trade_flow("sma_crossover", 60, settings=settings)
    explained(run)
    assert all(fill.quantity == int(fill.quantity) for fill in run.fills)
    assert run.drift.parts["cash_interest"] != 0


def test_closes_only_are_filled_at_the_close_they_were_decided_on(tmp_path: Path) -> None:
    settings = home(tmp_path, ["KO", "XOM"], fill="same_close")
    run = trade_flow("sma_crossover", 40, settings=settings)
    explained(run)
    decided = {plan.plan_id: plan.session for plan in run.plans}
    of_order = {order.request.client_order_id: order.plan_id for order in run.orders}
    assert all(fill.session == decided[of_order[fill.client_order_id]] for fill in run.fills)


def test_an_account_that_is_there_is_reported_whole_whatever_number_of_sessions_is_asked_for(tmp_path: Path) -> None:
    settings = home(tmp_path, ["SP500"])
    first = trade_flow("sma_crossover", 40, settings=settings)
    explained(first)
    for asked in (5, 90):
        again = trade_flow("sma_crossover", asked, settings=settings)
        assert (again.sent, again.sessions, again.order_list) == (0, first.sessions, first.order_list)
        assert again.drift == first.drift
    with pytest.raises(InputError, match=f"has traded from .* to {first.sessions[-1]}"):
        trade_flow("sma_crossover", 5, through=first.sessions[3], settings=settings)


def test_another_version_has_an_account_of_its_own(tmp_path: Path) -> None:
    settings = home(tmp_path, ["SP500"])
    first = trade_flow("sma_crossover", 40, settings=settings)
    promote_to_paper(settings, {**FAST, "slow": 8}, ["SP500"])
    second = trade_flow("sma_crossover", 40, settings=settings)
    explained(second)
    assert second.account != first.account
    assert second.equity.iloc[0] == 100_000.0


def test_bars_revised_after_they_were_played_are_a_part_of_the_drift(tmp_path: Path) -> None:
    settings = home(tmp_path, ["SP500"])
    before = trade_flow("sma_crossover", 40, settings=settings)
    bought = next(fill for fill in before.fills if fill.side == "buy")
    lake = open_lake(settings)
    bars = lake.snapshot(None).read("equity_bars", where={"symbol": ["SP500"]}, start=bought.session, end=bought.session)
    dearer = pa.array([bars["open"][0].as_py() + 10.0])
    revised = bars.set_column(bars.column_names.index("open"), "open", dearer)
    columns = [name for name in revised.column_names if name != "recorded_at"]
    high = pa.array([pc.max(pa.chunked_array([revised["high"].chunk(0), dearer])).as_py()])
    revised = revised.set_column(revised.column_names.index("high"), "high", high)
    assert lake.write("equity_bars", revised.select(columns), recorded_at=SystemClock().now()).revised == 1
    lake.publish()

    after = trade_flow("sma_crossover", 40, settings=settings)
    explained(after)
    assert after.order_list == before.order_list
    # The backtest now buys ten dollars dearer; the account did not: about ten dollars a share better.
    part = float(after.drift.parts["data_revision"]) - float(before.drift.parts["data_revision"])
    assert part == pytest.approx(10.0 * float(bought.quantity), rel=0.02)


def test_of_two_versions_of_one_strategy_the_better_holds_paper(tmp_path: Path) -> None:
    from flows.promote import promote_studies
    from flows.research import Study
    from tests.tracking.samples import evidence
    from tracking.gates import evaluate
    from tracking.runs import RunRecord
    from tracking.tracker import create_backtest_tracker

    settings = home(tmp_path, ["SP500"])
    from backtests.equity_vectorbt import equity_backtest_flow

    tested = equity_backtest_flow(["SP500"], [{**FAST, "slow": slow} for slow in (6, 7)], "two", settings=settings)
    tracker = create_backtest_tracker("two", settings)
    studies = []
    for one, dsr in zip(tested, (0.99, 0.96), strict=True):
        spec = one.result.spec
        shown = replace(evidence(strategy=spec.name, spec_digest=spec.digest), dsr=dsr)
        key = tracker.run_key(spec_digest=spec.digest, snapshot_id=one.result.snapshot_id, engine=one.result.engine)
        run = tracker.find_run(key)
        assert isinstance(run, RunRecord)
        studies.append(
            Study(
                label=spec.digest[:8],
                result=one.result,
                metrics=one.metrics,
                evidence=shown,
                verdict=evaluate(shown, "paper"),
                walk_forward=None,
                run=run,
            )
        )
    promotion = promote_studies(studies, settings, who="a test")
    assert promotion.traded.label == studies[0].label
    assert set(promotion.promoted) == {study.label for study in studies}
    assert trade_flow("sma_crossover", 20, settings=settings).registered.digest == studies[0].evidence.spec_digest
