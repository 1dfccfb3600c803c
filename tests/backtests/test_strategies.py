"""The shipped strategies: rules, configurations, neighbours, and no look-ahead."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from backtests.strategies import STRATEGIES, Combo, SmaCrossover, from_config, get_strategy, neighbours, shipped
from backtests.strategies.rules import above, below, crossed_above, hold_between
from backtests.strategy import Strategy, StrategySpec, View
from backtests.strategy_check import check_strategy
from backtests.views import view_of
from config.errors import ConfigError, InputError, LeakageError, UnknownNameError
from tests.backtests.market import Scripted, index_view, small_view

DESIGN = {
    "name": "combo",
    "momentum": {"sma_crossover": {"fast": 20, "slow": 50}, "rsi": {"period": 14, "overbought": 70, "oversold": 30}},
    "mean_reversion": {"bollinger_bands": {"period": 20, "std": 2}},
    "regime_aware": {"risk_regime_filter": {"max_level": 2}, "trend_filter": True},
}


@pytest.fixture(scope="module")
def nasdaq() -> View:
    view = index_view("nasdaq")
    return View(panel=view.panel.upto(view.sessions[900]))


def closes(*values: float) -> View:
    return small_view([list(values)], [list(values)])


def weights(strategy: Strategy, view: View) -> list[float]:
    return [float(value) for value in strategy.targets(view).iloc[:, 0]]


def frame(*values: float) -> pd.DataFrame:
    return pd.DataFrame({"A": values})


def test_a_difference_within_a_billionth_is_a_tie_and_neither_above_nor_below() -> None:
    left, right = frame(100.0, 100.00000005, 100.0000002, 99.9999998, math.nan), frame(100.0, 100.0, 100.0, 100.0, 100.0)
    assert above(left, right)["A"].tolist() == [False, False, True, False, False]
    assert below(left, right)["A"].tolist() == [False, False, False, True, False]
    assert above(left, 100.0)["A"].tolist() == [False, False, True, False, False]


def test_a_crossing_needs_a_before_and_passes_over_ties() -> None:
    line = frame(2.0, 1.0, 0.5, 1.0, 2.0, 1.0, 2.0, 0.5, 2.0)
    assert crossed_above(line, frame(*[1.0] * 9))["A"].tolist() == [False] * 4 + [True, False, False, False, True]


def test_leaving_wins_over_entering() -> None:
    yes, no = frame(1.0, 1.0, 0.0, 0.0) > 0, frame(0.0, 1.0, 0.0, 1.0) > 0
    assert hold_between(yes, no)["A"].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_sma_crossover_buys_at_the_crossing_and_not_before() -> None:
    # SMA(1) is the close, SMA(2) the mean of two: the close crosses it when the price turns.
    view = closes(10, 11, 12, 11, 10, 11, 12, 12, 11)
    got = weights(SmaCrossover(fast=1, slow=2), view)
    # Rising at first: already above when first known, so nothing; falls on bar 3; turns up on bar 5; tie on bar 7; falls on 8.
    assert math.isnan(got[0])
    assert got[1:] == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def test_bollinger_reversion_buys_below_the_band_and_sells_above_the_middle_and_ignores_ties() -> None:
    # Window of 3, half a deviation: (10, 10, 7) has mean 9 and population deviation sqrt(2); 7 < 9 - 0.71.
    view = closes(10, 10, 10, 7, 7, 7, 8)
    got = weights(get_strategy("bollinger_reversion", {"period": 3, "std": 0.5}), view)
    # Bar 4: mean 8, 7 is below it: held. Bar 5: all equal, close on middle and band: kept. Bar 6: mean 7.33, 8 above: sold.
    assert got[2:] == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_rsi_reversion_uses_wilders_average() -> None:
    # Period 2. Changes -1 -1 | +3 +1: gain 0, loss 1: RSI 0. Then gain 1.5, loss 0.5: 75. Then 1.25 and 0.25: 83.3.
    view = closes(10, 9, 8, 11, 12)
    got = weights(get_strategy("rsi_reversion", {"period": 2, "oversold": 30, "overbought": 80}), view)
    assert got[2:] == [1.0, 1.0, 0.0]
    assert weights(get_strategy("rsi_reversion", {"period": 2, "oversold": 30, "overbought": 74.9}), view)[2:] == [1.0, 0.0, 0.0]
    assert weights(get_strategy("rsi_reversion", {"period": 2, "oversold": 30, "overbought": 75}), view)[2:] == [1.0, 1.0, 0.0]


def test_each_of_several_symbols_has_an_equal_slice() -> None:
    view = small_view([[1.0] * 3] * 4, [[1.0] * 3] * 4)
    assert (get_strategy("buy_and_hold").targets(view) == 0.25).all(axis=None)


def test_combo_votes_reverts_and_gates_as_its_text_says() -> None:
    view = closes(10, 11, 12, 11, 10, 9, 8, 12)
    risk = pd.DataFrame({"A": [0, 1, 2, 3, np.nan, 4, 2, 1]}, index=view.sessions, dtype=float)
    trend = pd.DataFrame({"A": [1, 1, 1, 1, 1, 1, 0, 1]}, index=view.sessions, dtype=float)
    view = replace(view, features={"risk_level": risk, "trend_filter_200": trend})
    momentum = {"sma_crossover": {"fast": 1, "slow": 2}}
    assert weights(Combo(momentum=momentum), view)[1:] == [1, 1, 0, 0, 0, 0, 1]
    # An overbought RSI (100 while it only rises) takes the vote back to zero; oversold does not enter a falling trend.
    voted = Combo(momentum={**momentum, "rsi": {"period": 1, "oversold": 30, "overbought": 70}})
    assert weights(voted, view)[1:] == [0.0] * 7
    assert weights(Combo(momentum={"rsi": {"period": 1, "oversold": 30, "overbought": 70}}), view)[1:] == [0, 0, 1, 1, 1, 1, 0]
    bands = {"bollinger_bands": {"period": 2, "std": 0.5}}
    assert weights(Combo(mean_reversion=bands), view)[1:] == [0, 0, 1, 1, 1, 1, 0]
    assert weights(Combo(momentum=momentum, mean_reversion=bands), view)[1:] == [1, 1, 1, 1, 1, 1, 1]
    gated = Combo(
        momentum=momentum, mean_reversion=bands, regime_aware={"risk_regime_filter": {"max_level": 2}, "trend_filter": True}
    )
    assert weights(gated, view)[1:] == [1, 1, 0, 0, 0, 0, 1]
    assert weights(Combo(regime_aware={"risk_regime_filter": {"max_level": 3}}), view) == [1, 1, 1, 1, 0, 0, 1, 1]
    assert weights(Combo(regime_aware={"trend_filter": True}), view) == [1, 1, 1, 1, 1, 1, 0, 1]


def test_the_designs_dictionary_is_the_shipped_combo() -> None:
    combo = from_config(DESIGN)
    assert combo == get_strategy("combo") == shipped()["combo"]
    assert combo.warm_up == 51
    assert from_config({"name": "combo", **combo.params}) == combo


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "combo", "momentun": {}}, "momentum"),
        ({"name": "combo", "momentum": {"sma_crosover": {}}}, "sma_crossover"),
        ({"name": "combo", "momentum": {"rsi": {"periods": 3}}}, "period"),
        ({"name": "combo", "momentum": {"rsi": 3}}, "mapping"),
        ({"name": "combo", "momentum": {"sma_crossover": {"fast": 50, "slow": 20}}}, "not below slow"),
        ({"name": "combo", "regime_aware": {"risk_regime_filter": {"max_level": 9}}}, "from 0 to 4"),
        ({"name": "combo", "momentum": {"rsi": False}}, "no part is configured"),
        ({"name": "sma_crossover", "fast": 20, "slwo": 50}, "slow"),
        ({"name": "sma_crossover", "fast": 20.5}, "whole number"),
        ({"name": "sma_crossover", "fast": 50, "slow": 50}, "not below slow"),
        ({"name": "rsi_reversion", "oversold": 80}, "not below overbought"),
        ({"name": "bollinger_reversion", "std": math.nan}, "from 0.1 to 6"),
        ({"name": "buy_and_hold", "fast": 3}, "no parameter 'fast'"),
        ({"name": "sma_crossover", "fast": 20, "params": {"slow": 50}}, "both beside"),
        ({"fast": 20}, "no 'name'"),
    ],
)
def test_a_wrong_configuration_is_refused_and_the_near_name_or_the_range_is_told(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        from_config(config)
    assert words in str(refusal.value)


def test_an_unknown_strategy_lists_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean sma_crossover"):
        get_strategy("sma_crosover")


def test_combo_without_its_feature_says_how_to_compute_it() -> None:
    with pytest.raises(InputError, match="risk_level"):
        Combo(regime_aware={"risk_regime_filter": True}).targets(closes(1, 2, 3))


def test_defaults_are_the_shipped_values_and_a_specification_survives_json() -> None:
    for name, strategy in shipped().items():
        assert strategy.name == name
        assert isinstance(strategy, Strategy)
        assert get_strategy(name, strategy.params or None) == strategy
        if name != "combo":
            assert STRATEGIES[name]() == strategy
        spec = StrategySpec(name=name, family=strategy.family, params=strategy.params, symbols=("A",))
        assert StrategySpec.from_dict(spec.as_dict()).digest == spec.digest


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "buy_and_hold"])
def test_neighbours_are_eight_to_fourteen_different_near_configurations_in_a_fixed_order(name: str) -> None:
    strategy = get_strategy(name)
    near = neighbours(strategy)
    assert 8 <= len(near) <= 14
    assert strategy not in near
    assert len({str(other.params) for other in near}) == len(near)
    assert near == neighbours(get_strategy(name))


def test_neighbours_stay_valid_at_the_edge_of_the_range() -> None:
    near = neighbours(SmaCrossover(fast=1, slow=2))
    assert near
    assert all(other.params["fast"] < other.params["slow"] for other in near)
    assert neighbours(get_strategy("buy_and_hold")) == []


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_no_shipped_strategy_looks_ahead(name: str, nasdaq: View) -> None:
    strategy = get_strategy(name)
    report = check_strategy(strategy, nasdaq, 4, np.random.default_rng(7)).require()
    assert report.sound
    assert report.compared > 1_000


class Peeking(Scripted):
    """Broken on purpose: buys the day before a rise."""

    name: ClassVar[str] = "peeking"

    def targets(self, view: View) -> pd.DataFrame:
        """The next close decides."""
        return (view.close.shift(-1) > view.close).astype(float)


def test_a_strategy_that_looks_ahead_is_caught_with_symbol_and_session(nasdaq: View) -> None:
    report = check_strategy(Peeking(weights=()), nasdaq, 4, np.random.default_rng(7))
    assert not report.sound
    with pytest.raises(LeakageError, match=r"peeking looks ahead: .*NASDAQ on \d{4}-\d\d-\d\d"):
        report.require()


def test_the_declared_warm_up_is_when_the_first_opinion_comes(nasdaq: View) -> None:
    for name in ("rsi_reversion", "bollinger_reversion"):
        strategy = get_strategy(name)
        known = view_of(nasdaq.panel, [strategy])
        first = int(np.argmax(strategy.targets(known).iloc[:, 0].notna()))
        assert first + 1 == strategy.warm_up
    sma = get_strategy("sma_crossover")
    assert int(np.argmax(sma.targets(nasdaq).iloc[:, 0].notna())) + 2 == sma.warm_up
