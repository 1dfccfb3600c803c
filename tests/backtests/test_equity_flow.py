"""The flow an earlier user types: configurations in, results with metrics out, each counted as a trial and logged once."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from backtests.equity_vectorbt import equity_backtest_flow, run_vectorised
from backtests.strategies import SmaCrossover, get_strategy
from backtests.views import load_view
from config.clock import FixedClock
from config.errors import InputError, UnknownNameError
from config.settings import Settings, load_settings
from flows.ingest_equity import ingest_equity_flow
from lake import open_lake
from tracking import TrialLedger, create_backtest_tracker

CLOCK = FixedClock(datetime(2026, 1, 5, tzinfo=UTC))


class Notes:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, total: int | None = None) -> None:
        """Ignore."""

    def advance(self, steps: int = 1) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Keep."""
        self.notes.append(text)


@pytest.fixture
def settings() -> Settings:
    settings = load_settings()
    ingest_equity_flow(["NASDAQ"], settings=settings, clock=CLOCK)
    return settings


def test_dictionaries_names_and_objects_run_are_counted_and_logged_once(settings: Settings) -> None:
    configs = [
        {"name": "combo", "momentum": {"sma_crossover": {"fast": 20, "slow": 50}}, "regime_aware": {"trend_filter": True}},
        "sma_crossover",
        SmaCrossover(fast=10, slow=30),
    ]
    notes = Notes()
    evaluated = equity_backtest_flow(["NASDAQ"], configs, "equity", settings=settings, clock=CLOCK, progress=notes)
    assert [one.result.spec.name for one in evaluated] == ["combo", "sma_crossover", "sma_crossover"]
    # The published reference, through the lake.
    assert evaluated[1].metrics["final_equity"] == pytest.approx(257842.817736, abs=5e-7)
    assert evaluated[1].metrics["sharpe"] == pytest.approx(0.3834865421, abs=5e-11)
    snapshot = open_lake(settings).snapshot()
    assert {one.result.snapshot_id for one in evaluated} == {snapshot.id}
    ledger = TrialLedger(settings)
    assert ledger.count(["NASDAQ"]) == 3
    assert ledger.count(["NASDAQ"], "sma_crossover") == 2
    assert any("does not hold" in note and "VIXCLS" in note for note in notes.notes)
    again = equity_backtest_flow(["NASDAQ"], configs, "equity", settings=settings, clock=CLOCK)
    assert [one.run_id for one in again] == [one.run_id for one in evaluated]
    assert ledger.count(["NASDAQ"]) == 3
    tracker = create_backtest_tracker("equity", settings)
    spec = evaluated[0].result.spec
    found = tracker.find_run(tracker.run_key(spec_digest=spec.digest, snapshot_id=snapshot.id, engine="vectorbt"))
    assert found is not None
    assert found.run_id == evaluated[0].run_id


def test_a_window_is_a_choice_and_another_trial(settings: Settings) -> None:
    def run(start: date | None) -> tuple[float, str]:
        one = equity_backtest_flow(["NASDAQ"], ["buy_and_hold"], "windows", start=start, settings=settings, clock=CLOCK)[0]
        return one.metrics["final_equity"], one.run_id

    late, late_run = run(date(2010, 1, 4))
    whole, whole_run = run(None)
    assert whole == pytest.approx(300094.596971, abs=5e-7)
    assert whole_run != late_run
    assert run(None)[1] == whole_run
    view = load_view(open_lake(settings).snapshot(), ["NASDAQ"], [get_strategy("buy_and_hold")], start=date(2010, 1, 4))
    assert late == pytest.approx(run_vectorised(get_strategy("buy_and_hold"), view).equity.iloc[-1])
    assert TrialLedger(settings).count(["NASDAQ"]) == 2


def test_wrong_arguments_are_refused(settings: Settings) -> None:
    with pytest.raises(InputError, match="not a list of symbols"):
        equity_backtest_flow("NASDAQ", ["buy_and_hold"], "x", settings=settings)
    with pytest.raises(InputError, match="not a list of configurations"):
        equity_backtest_flow(["NASDAQ"], "buy_and_hold", "x", settings=settings)
    with pytest.raises(UnknownNameError, match="NASDAK"):
        equity_backtest_flow(["NASDAK"], ["buy_and_hold"], "x", settings=settings)


def test_a_trial_is_measured_less_the_risk_free_rate_whoever_records_it(settings: Settings) -> None:
    from flows.workbench import search_grid

    costly = load_settings({"convention.risk_free_ann": 0.05})
    (run,) = equity_backtest_flow(["NASDAQ"], [SmaCrossover(fast=10, slow=30)], "rates", settings=costly, clock=CLOCK)
    found = search_grid(costly, "sma_crossover", {"fast": [11], "slow": [30]}, ["NASDAQ"], clock=CLOCK)
    by_flow, by_search = TrialLedger(costly).sharpes(["NASDAQ"])
    returns = run.result.returns.to_numpy()
    assert by_flow == pytest.approx((returns - 0.05 / 252).mean() / returns.std(ddof=1), rel=1e-12)
    # The table of the search is annualised and takes the rate off too.
    assert by_search * 252**0.5 == pytest.approx(found["best"][0]["sharpe"], rel=1e-12)
