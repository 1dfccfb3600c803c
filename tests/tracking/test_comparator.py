"""The comparator reads finished runs: each computation once, best first, and never an infinite winner."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.clock import FixedClock
from config.errors import UnknownNameError
from config.settings import Settings
from tests.tracking.results import Result, spec
from tracking import create_backtest_tracker, create_experiment_comparator
from tracking.comparator import ExperimentComparator

EXPERIMENT = "comparator"


@pytest.fixture(scope="module")
def comparator(shared_store: Settings) -> ExperimentComparator:
    tracker = create_backtest_tracker(EXPERIMENT, shared_store)
    for name, fast, sharpe, drawdown in (
        ("sma", 10, 0.2, 0.5),
        ("sma", 20, 0.8, 0.4),
        ("rsi", 14, 0.5, 0.1),
        ("odd", 1, math.inf, 0.9),
    ):
        result = Result(spec(name, fast=fast, label="x"), data_kind="modelled" if name == "rsi" else "real")
        tracker.log_result(result, {"sharpe": (sharpe, sharpe - 1, sharpe + 1), "max_drawdown": drawdown}, picture=False)
    tracker.log_result(Result(spec("sma", fast=20, label="x")), {"sharpe": 0.8, "max_drawdown": 0.4}, picture=False)
    with pytest.raises(ZeroDivisionError), tracker.start_run("failed"):
        raise ZeroDivisionError
    clock = FixedClock(datetime(2026, 11, 20, 21, 0, tzinfo=UTC))
    return create_experiment_comparator(EXPERIMENT, shared_store, clock=clock)


def test_strategies_are_ordered_best_first_and_each_computation_once(comparator: ExperimentComparator) -> None:
    table = comparator.compare_strategies("sharpe")
    assert list(table["strategy"]) == ["sma", "rsi", "sma", "odd"]
    assert table["sharpe"].dropna().to_list() == [0.8, 0.5, 0.2]
    assert math.isnan(table["sharpe"].iloc[-1])  # the infinite one has no number to win with
    assert list(table["data_kind"]) == ["real", "modelled", "real", "real"]


def test_less_drawdown_is_better(comparator: ExperimentComparator) -> None:
    assert comparator.compare_strategies("max_drawdown")["max_drawdown"].to_list() == [0.1, 0.4, 0.5, 0.9]


def test_the_best_parameters_are_numbers_again(comparator: ExperimentComparator) -> None:
    assert comparator.find_best_hyperparameters("sma") == {"fast": 20, "label": "x"}


def test_unknown_metrics_strategies_and_experiments_list_the_near_names(
    comparator: ExperimentComparator, shared_store: Settings
) -> None:
    with pytest.raises(UnknownNameError, match="did you mean sharpe"):
        comparator.compare_strategies("sharp")
    with pytest.raises(UnknownNameError, match="did you mean sma"):
        comparator.find_best_hyperparameters("smaa")
    with pytest.raises(UnknownNameError, match="did you mean comparator"):
        create_experiment_comparator("comparater", shared_store)


def test_the_report_stands_alone_and_labels_modelled_data(comparator: ExperimentComparator, tmp_path: Path) -> None:
    path = comparator.generate_performance_report(tmp_path / "report.html")
    text = path.read_text()
    assert "Experiment comparator" in text
    assert "modelled data" in text
    assert text.count('<svg class="chart"') == 2
    assert "http" not in text
