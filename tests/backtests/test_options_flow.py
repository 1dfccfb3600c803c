"""The options backtest from the lake: what it reads, runs, counts and logs."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pandas as pd
import pytest

from backtests.options_bt import options_backtest_flow, read_option_inputs
from config.clock import FixedClock
from config.errors import InputError, UnknownNameError
from config.settings import Settings, load_settings
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_macro import ingest_macro_flow
from flows.ingest_options import ingest_options_flow
from lake import open_lake
from tracking import TrialLedger, create_backtest_tracker

CLOCK = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
DESIGN = [
    {
        "name": "CoveredCallsStrategy",
        "params": {"call_delta_target": 0.15, "call_dte_min": 30, "call_dte_max": 60, "cover_ratio_max": 0.6, "risk_regime_max": 2},
    },
    {
        "name": "ProtectivePutsStrategy",
        "params": {"put_delta_target": -0.20, "put_dte_target": 90, "protection_ratio_min": 0.4, "protection_ratio_max": 0.8},
    },
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake with the bundled index, the bundled macro series and half a year of modelled chain."""
    settings = load_settings({"home": str(tmp_path_factory.mktemp("options"))}, environ={})
    ingest_equity_flow(["SP500"], None, None, settings=settings, clock=CLOCK)
    ingest_macro_flow(settings=settings, clock=CLOCK)
    ingest_options_flow(["SP500"], "modelled", start_date="2017-01-03", end_date="2017-06-30", settings=settings, clock=CLOCK)
    return settings


def test_the_configurations_of_the_design_run_and_are_counted_and_logged(home: Settings) -> None:
    found = options_backtest_flow(["SP500"], DESIGN, "options", settings=home, clock=CLOCK)
    assert [one.result.spec.name for one in found] == ["CoveredCallsStrategy", "ProtectivePutsStrategy"]
    for one in found:
        result = one.result
        assert result.data_kind == "modelled"
        assert result.snapshot_id == open_lake(home).snapshot().id
        assert result.spec.convention.initial_cash == 1_000_000.0
        assert any(symbol.startswith("SP5001") for symbol in result.orders["symbol"])
        assert len(result.equity) == 125  # sessions of the first half of 2017: 20 + 19 + 23 + 19 + 22 + 22
        assert not any("risk_regime_max was not applied" in note for note in result.notes)
        assert one.metrics["total_return"] == pytest.approx(result.equity.iloc[-1] / 1_000_000.0 - 1.0)
    ledger = TrialLedger(home)
    assert ledger.count(["SP500"], "covered_calls") == ledger.count(["SP500"], "protective_puts") == 1
    tracker = create_backtest_tracker("options", home, clock=CLOCK)
    spec = found[0].result.spec
    key = tracker.run_key(spec_digest=spec.digest, snapshot_id=found[0].result.snapshot_id, engine="options")
    record = tracker.find_run(key)
    assert record is not None
    assert record.run_id == found[0].run_id


def test_the_same_run_again_is_found_and_not_doubled(home: Settings) -> None:
    first = options_backtest_flow(["SP500"], DESIGN[:1], "again", settings=home, clock=CLOCK)[0]
    second = options_backtest_flow(["SP500"], DESIGN[:1], "again", settings=home, clock=CLOCK)[0]
    assert first.run_id == second.run_id
    assert first.result.orders_hash == second.result.orders_hash
    assert TrialLedger(home).count(["SP500"], "covered_calls") == 1


def test_a_window_starts_with_its_own_first_session_and_reads_no_later_chain(home: Settings) -> None:
    inputs = read_option_inputs(open_lake(home).snapshot(), "SP500", start=date(2017, 2, 1), end=date(2017, 3, 31))
    assert (inputs.bars.index[0], inputs.bars.index[-1]) == (pd.Timestamp("2017-02-01"), pd.Timestamp("2017-03-31"))
    assert max(inputs.chain.slices) == pd.Timestamp("2017-03-31")
    assert inputs.risk_level.notna().all()  # it was warmed up on the years before
    assert set(inputs.ingest_ids) >= set(open_lake(home).snapshot().ingest_ids("option_quotes"))


def test_wrong_requests_are_refused_before_anything_runs(home: Settings) -> None:
    with pytest.raises(UnknownNameError, match="no option quotes on NASDAQ"):
        options_backtest_flow(["NASDAQ"], DESIGN, "wrong", settings=home)
    with pytest.raises(InputError, match="not a list of strategies"):
        options_backtest_flow(["SP500"], DESIGN[0], "wrong", settings=home)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mapping with name and params"):
        options_backtest_flow(["SP500"], [{"strategy": "CoveredCallsStrategy"}], "wrong", settings=home)
    with pytest.raises(InputError, match="no whole contract of 100 fits"):
        options_backtest_flow(["SP500"], DESIGN, "wrong", settings=home, initial_cash=100_000.0)
