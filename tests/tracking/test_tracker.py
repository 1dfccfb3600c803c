"""Runs carry their numbers, data, code and files; what is killed or tampered with is not found again."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from config.clock import FixedClock
from config.errors import InputError, IntegrityError, UnknownNameError
from config.settings import Settings, load_settings
from tests.tracking.results import SESSIONS, Result, spec
from tests.tracking.samples import evidence
from tracking import create_backtest_tracker
from tracking.evidence import Finding
from tracking.fingerprint import code_fingerprint, configuration_fingerprint, environment_fingerprint
from tracking.gates import evaluate
from tracking.runs import RunRecord
from tracking.tracker import BacktestTracker, Metric

_NUMBERS = itertools.count()
AT = datetime(2026, 11, 20, 21, 0, tzinfo=UTC)


@pytest.fixture
def tracker(shared_store: Settings) -> BacktestTracker:
    return create_backtest_tracker(f"tracker-{next(_NUMBERS)}", shared_store, clock=FixedClock(AT))


def key(tracker: BacktestTracker, result: Result) -> str:
    return tracker.run_key(spec_digest=result.spec.digest, snapshot_id=result.snapshot_id, engine=result.engine)


def logged(tracker: BacktestTracker, result: Result | None = None) -> RunRecord:
    about = evidence(strategy="sma", findings=(Finding(code="few_trades", severity="warning", text="t", remedy="r"),))
    metrics: dict[str, Metric] = {"sharpe": (0.5, 0.1, 0.9), "omega": math.inf, "trades": 1}
    return tracker.log_result(result or Result(spec("sma")), metrics, about, artefacts={"extra": {"a": 1}})


def test_a_result_is_logged_whole(tracker: BacktestTracker) -> None:
    record = logged(tracker)
    assert record.metrics == {"sharpe": 0.5, "sharpe_low": 0.1, "sharpe_high": 0.9, "trades": 1.0}
    assert record.tags["not_finite.omega"] == "inf"
    assert record.tags["finding.few_trades"] == "warning"
    assert record.params["params.fast"] == "20"
    assert record.tags["quant.code"] == code_fingerprint().digest
    assert record.tags["quant.environment"] == environment_fingerprint().digest
    assert len(record.tags["quant.configuration"]) == 64
    expected = {"spec.json", "evidence.json", "findings.json", "extra.json", "equity.parquet", "orders.parquet", "trades.parquet"}
    assert set(record.artefacts) == expected | {"equity.png"}
    pd.testing.assert_series_equal(
        record.table("equity").set_index("session")["equity"], Result(spec("sma")).equity, check_names=False
    )
    assert record.document("spec") == spec("sma").as_dict()
    assert record.path("equity.png").read_bytes().startswith(b"\x89PNG")
    run = tracker.store.client.get_run(record.run_id)
    assert run.info.start_time == int(AT.timestamp() * 1000)
    assert [one.dataset.digest for one in run.inputs.dataset_inputs] == ["5" * 36]


def test_a_finished_run_is_found_by_its_key_and_by_no_other(tracker: BacktestTracker) -> None:
    result = Result(spec("sma"))
    assert tracker.find_run(key(tracker, result)) is None
    record = logged(tracker, result)
    found = tracker.find_run(key(tracker, result))
    assert found is not None
    assert found.run_id == record.run_id
    for other in (
        Result(spec("sma", fast=21)),
        Result(spec("sma"), snapshot_id="6" * 64),
        Result(spec("sma"), engine="backtrader"),
    ):
        assert tracker.find_run(key(tracker, other)) is None


def test_a_run_with_a_missing_or_changed_artefact_is_not_found(tracker: BacktestTracker) -> None:
    record = logged(tracker)
    record.path("orders.parquet").write_bytes(b"other")
    assert tracker.find_run(key(tracker, Result(spec("sma")))) is None
    with pytest.raises(IntegrityError, match=r"orders\.parquet"):
        record.table("orders")
    again = logged(tracker)
    again.path("spec.json").unlink()
    assert tracker.find_run(key(tracker, Result(spec("sma")))) is None


def test_a_run_that_raises_is_failed_and_not_found(tracker: BacktestTracker) -> None:
    wanted = key(tracker, Result(spec("sma")))
    with pytest.raises(ZeroDivisionError), tracker.start_run("bad", {"quant.run_key": wanted}) as run:
        raise ZeroDivisionError
    assert tracker.store.client.get_run(run.info.run_id).info.status == "FAILED"
    assert tracker.find_run(wanted) is None
    with pytest.raises(KeyboardInterrupt), tracker.start_run("stopped") as run:
        raise KeyboardInterrupt
    assert tracker.store.client.get_run(run.info.run_id).info.status == "KILLED"


def _die_in_a_run(settings: Settings, name: str, wanted: str) -> None:
    tracker = create_backtest_tracker(name, settings)
    with tracker.start_run("dies", {"quant.run_key": wanted}):
        tracker.log_backtest_metrics({"sharpe": 9.0})
        os._exit(9)


def test_a_run_left_behind_by_a_killed_process_is_not_found(shared_store: Settings) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_die_in_a_run, args=(shared_store, "tracker-killed", "k" * 64))
    process.start()
    process.join(120)
    assert process.exitcode == 9
    tracker = create_backtest_tracker("tracker-killed", shared_store)
    (left,) = tracker.store.client.search_runs([tracker.experiment_id], "tags.`quant.run_key` = '" + "k" * 64 + "'")
    assert left.info.status == "RUNNING"
    assert tracker.find_run("k" * 64) is None


def test_infinite_and_missing_metrics_become_tags_never_numbers(tracker: BacktestTracker) -> None:
    with tracker.start_run("odd") as run:
        tracker.log_backtest_metrics({"a": math.inf, "b": -math.inf, "c": math.nan, "d": 1.5})
    data = tracker.store.client.get_run(run.info.run_id).data
    assert data.metrics == {"d": 1.5}
    assert {name: data.tags[f"not_finite.{name}"] for name in "abc"} == {"a": "inf", "b": "-inf", "c": "nan"}


def test_a_metric_that_is_no_number_is_refused_by_name(tracker: BacktestTracker) -> None:
    with pytest.raises(InputError, match="metric verdict is 'good'"), tracker.start_run("text"):
        tracker.log_backtest_metrics({"verdict": "good"})  # type: ignore[dict-item]


def test_nested_parameters_become_dotted_and_many_are_logged_in_batches(tracker: BacktestTracker) -> None:
    with tracker.start_run("params") as run:
        tracker.log_backtest_params({"momentum": {"sma_crossover": {"fast": 20}}, "symbols": ["A", "B"], "flag": True})
        tracker.log_backtest_params({f"p{n}": n for n in range(230)})
    params = tracker.store.client.get_run(run.info.run_id).data.params
    assert params["momentum.sma_crossover.fast"] == "20"
    assert params["symbols"] == '["A","B"]'
    assert len(params) == 233


def test_a_parameter_cannot_change_its_value(tracker: BacktestTracker) -> None:
    with tracker.start_run("twice"):
        tracker.log_backtest_params({"fast": 1})
        with pytest.raises(InputError, match="fast"):
            tracker.log_backtest_params({"fast": 2})


def test_logging_needs_an_open_run_and_runs_do_not_nest(tracker: BacktestTracker) -> None:
    with pytest.raises(InputError, match="no run is open"):
        tracker.log_backtest_params({"a": 1})
    with tracker.start_run("outer"), pytest.raises(InputError, match="still open"), tracker.start_run("inner"):
        pass


def test_an_unknown_artefact_lists_the_near_ones(tracker: BacktestTracker) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean orders\.parquet"):
        logged(tracker).table("order")


def test_an_artefact_cannot_leave_its_folder(tracker: BacktestTracker) -> None:
    with pytest.raises(InputError, match="plain file name"):
        tracker.log_result(Result(spec("sma")), {}, artefacts={"../out": {"a": 1}})


def test_a_verdict_is_tagged_on_its_run(tracker: BacktestTracker) -> None:
    record = logged(tracker)
    tracker.log_verdict(record.run_id, evaluate(evidence(trades=1), "paper"))
    tags = tracker.store.client.get_run(record.run_id).data.tags
    assert (tags["verdict.paper"], tags["failed_checks.paper"]) == ("refused", "trades")


def portfolio(**changes: object) -> SimpleNamespace:
    """The part of vectorbt's Portfolio that is read: one closed trade, one open; 100 -> 110 -> 99 -> 121."""
    orders = pd.DataFrame(
        {
            "Column": "A",
            "Timestamp": SESSIONS[[0, 1, 2]],
            "Side": ["Buy", "Sell", "Buy"],
            "Size": [1.0, 1.0, 1.0],
            "Price": [100.0, 110.0, 99.0],
            "Fees": [0.5, 0.5, 0.0],
        }
    )
    trades = pd.DataFrame(
        {
            "Column": "A",
            "Entry Timestamp": SESSIONS[[0, 2]],
            "Exit Timestamp": SESSIONS[[1, 3]],
            "Size": 1.0,
            "Avg Entry Price": [100.0, 99.0],
            "Avg Exit Price": [110.0, 121.0],
            "Entry Fees": [0.5, 0.0],
            "Exit Fees": [0.5, 0.0],
            "PnL": [9.0, 22.0],
            "Return": [0.09, 0.22],
            "Status": ["Closed", "Open"],
        }
    )
    fields: dict[str, object] = {
        "value": lambda: pd.Series([100.0, 110.0, 99.0, 121.0], index=SESSIONS),
        "orders": SimpleNamespace(records_readable=orders),
        "trades": SimpleNamespace(records_readable=trades),
    }
    return SimpleNamespace(**(fields | changes))


def test_a_portfolio_is_measured_by_our_conventions_and_its_open_trade_is_not_closed(tracker: BacktestTracker) -> None:
    with tracker.start_run("vectorbt") as run:
        tracker.log_portfolio_results(portfolio(), "vectorbt")
    metrics = tracker.store.client.get_run(run.info.run_id).data.metrics
    assert metrics["total_return"] == pytest.approx(0.21)
    assert metrics["max_drawdown"] == pytest.approx(0.1)  # 110 -> 99
    assert metrics["trades"] == 1
    returns = [0.1, -0.1, 121 / 99 - 1]
    mean = sum(returns) / 3
    deviation = math.sqrt(sum((one - mean) ** 2 for one in returns) / 2)
    assert metrics["sharpe"] == pytest.approx(math.sqrt(252) * mean / deviation)


def test_what_is_no_portfolio_or_holds_several_accounts_is_refused(tracker: BacktestTracker) -> None:
    with tracker.start_run("bad"):
        with pytest.raises(InputError, match="no vectorbt portfolio"):
            tracker.log_portfolio_results(object(), "vectorbt")
        with pytest.raises(InputError, match="no portfolio of engine 'vectorbot'"):
            tracker.log_portfolio_results(portfolio(), "vectorbot")
        two = pd.DataFrame({"A": [1.0, 2.0], "B": [1.0, 2.0]})
        with pytest.raises(InputError, match="2 accounts"):
            tracker.log_portfolio_results(portfolio(value=lambda: two), "vectorbt")


def test_the_environment_fingerprint_knows_the_packages() -> None:
    found = environment_fingerprint()
    assert any(name.startswith("pandas-") for name in found.packages)
    assert len(found.digest) == len(code_fingerprint().digest) == 64


def test_the_code_fingerprint_changes_with_any_source_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracking.fingerprint as module

    room = tmp_path / "tracking"
    room.mkdir()
    (room / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(module, "__file__", str(room / "fingerprint.py"))
    before = module.code_fingerprint.__wrapped__()
    (room / "a.py").write_text("x = 2\n")
    after = module.code_fingerprint.__wrapped__()
    (room / "a.py").write_text("x = 1\n")
    assert before.digest != after.digest
    assert module.code_fingerprint.__wrapped__() == before
    assert before.commit is None


def test_the_configuration_is_fingerprinted_without_places_and_credentials() -> None:
    plain = configuration_fingerprint(load_settings(environ={}))
    assert configuration_fingerprint(load_settings(environ={"ALPACA_API_SECRET": "s", "QUANT_HOME": "/elsewhere"})) == plain
    assert configuration_fingerprint(load_settings({"convention.fee_bps": 11.0}, environ={})) != plain
