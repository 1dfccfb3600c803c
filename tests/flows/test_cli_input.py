"""What is typed wrongly is answered with what, where, which value and what to do."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest

from backtests.recording import trials_of
from backtests.strategies import STRATEGIES, get_strategy
from backtests.strategy import StrategySpec
from config.conventions import REFERENCE
from config.errors import ConfigError, InputError, UnknownNameError
from features.point_in_time import PanelRequest
from flows.cli.research import parse_assignments


def test_assignments_nest_by_dots_and_are_read_as_yaml() -> None:
    given = ["fast=5", "momentum.rsi.period=14", "regime_aware.trend_filter=true"]
    assert parse_assignments(given) == {"fast": 5, "momentum": {"rsi": {"period": 14}}, "regime_aware": {"trend_filter": True}}


@pytest.mark.parametrize(
    ("given", "named"),
    [(["fast"], "fast"), (["=5"], "=5"), (["fast=[1"], "fast=[1"), (["fast=3", "fast.x=4"], "fast.x=4"), (["fast='"], "fast='")],
)
def test_an_assignment_that_cannot_be_read_is_named(given: list[str], named: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_assignments(given)
    assert named in caught.value.message
    assert caught.value.remedy


def test_an_unknown_parameter_lists_parameters_and_nothing_else() -> None:
    with pytest.raises(ConfigError) as caught:
        get_strategy("sma_crossover", {"speed": 3})
    assert "fast, slow" in str(caught.value.remedy)
    assert "family" not in str(caught.value.remedy)
    for name in STRATEGIES:
        with pytest.raises(ConfigError):  # a class attribute is no parameter
            get_strategy(name, {"name": "other"})


def test_a_run_over_one_session_has_no_return_to_count() -> None:
    spec = StrategySpec(name="x", family="x", params={}, symbols=("X",), convention=REFERENCE)
    with pytest.raises(InputError, match="single session"):
        trials_of([spec], pd.DataFrame({"x": []}), [0.0], [0])


def test_dates_the_wrong_way_round_are_named() -> None:
    with pytest.raises(InputError, match="2018-12-31 lies after end 2018-01-02"):
        PanelRequest(symbols=("X",), start=date(2018, 12, 31), end=date(2018, 1, 2))


def test_the_history_of_a_strategy_that_is_not_registered_is_no_empty_table() -> None:
    from typer.testing import CliRunner

    from flows.cli.app import app

    answer = CliRunner().invoke(app, ["history", "nosuch"])
    assert isinstance(answer.exception, UnknownNameError)
    assert "nosuch" in answer.exception.message
