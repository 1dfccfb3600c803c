"""Walk-forward and evidence: what is chosen, what is purged, and the published verdict on the NASDAQ grid."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtests.result import ORDER_COLUMNS, TRADE_COLUMNS, BacktestResult
from backtests.strategy import StrategySpec
from backtests.validation import build_evidence, walk_forward
from config.conventions import Convention
from config.errors import InputError, QualityError
from config.settings import EvidenceSettings
from risk.metrics import sharpe
from risk.statistics import probabilistic_sharpe_of
from tests.risk.reference import buy_and_hold_equity, crossover, grid_returns, nasdaq, reference_equity
from tracking.evidence import Evidence, Finding

SETTINGS = EvidenceSettings(bootstrap_samples=400, interval_level=0.95, pbo_blocks=8, walk_forward_folds=5, seed=20260101)


def result_of(equity: pd.Series, *, trades: int = 0, name: str = "sma_crossover", **spec: Any) -> BacktestResult:
    closed = pd.DataFrame(
        [("X", equity.index[0], equity.index[-1], 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)] * trades, columns=list(TRADE_COLUMNS)
    )
    return BacktestResult(
        spec=StrategySpec(name=name, family=name, params={}, symbols=("X",), **spec),
        engine="vectorbt",
        equity=equity,
        weights=pd.DataFrame({"X": 1.0}, index=equity.index),
        orders=pd.DataFrame(columns=list(ORDER_COLUMNS)),
        trades=closed,
        snapshot_id="s",
    )


def equity_from(returns: pd.Series | np.ndarray) -> pd.Series:
    values = 100_000.0 * np.concatenate([[1.0], np.cumprod(1.0 + np.asarray(returns))])
    return pd.Series(values, index=pd.bdate_range("2010-01-01", periods=values.size))


def matrix(seed: int, sessions: int, configurations: int) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(0.0002, 0.01, (sessions, configurations))
    names = [f"c{number}" for number in range(configurations)]
    return pd.DataFrame(values, index=pd.bdate_range("2010-01-01", periods=sessions + 1)[1:], columns=names)


def evidence_of(result: BacktestResult, family: pd.DataFrame, **changes: Any) -> Evidence:
    arguments: dict[str, Any] = {
        "settings": SETTINGS,
        "trials": family.shape[1],
        "trials_all": family.shape[1],
        "trial_sharpes": sharpe(family.to_numpy().T, 1.0),
        "returns_matrix": family,
        "benchmark_returns": None,
        "walk_forward": None,
        "role": "candidate",
        "universe_point_in_time": True,
    }
    return build_evidence(result, **{**arguments, **changes})


def test_folds_are_equal_reach_the_last_session_and_leave_out_the_purged_one() -> None:
    returns = matrix(0, 103, 3)
    found = walk_forward(returns, folds=5)
    sessions = returns.index
    # 103 // 6 = 17 a part; the first training set has the 18 that are left, less one purged.
    assert [(fold.train, fold.test) for fold in found.folds[:2]] == [
        ((sessions[0], sessions[16]), (sessions[18], sessions[34])),
        ((sessions[0], sessions[33]), (sessions[35], sessions[51])),
    ]
    assert found.folds[-1].test[1] == sessions[-1]
    assert found.returns.index.equals(sessions[18:])


def test_rolling_folds_train_on_as_much_as_the_first_one() -> None:
    returns = matrix(0, 103, 3)
    found = walk_forward(returns, folds=5, mode="rolling")
    spans = {returns.index.get_loc(fold.train[1]) - returns.index.get_loc(fold.train[0]) + 1 for fold in found.folds}
    assert spans == {17}
    assert found.folds[1].train[0] == returns.index[17]


@pytest.mark.parametrize("mode", ["anchored", "rolling"])
def test_each_fold_holds_the_best_of_its_training_sessions(mode: Any) -> None:
    returns = matrix(3, 300, 6)
    found = walk_forward(returns, folds=4, mode=mode)
    for fold in found.folds:
        train = returns.loc[fold.train[0] : fold.train[1]]
        ratios = train.mean() / train.std()
        assert fold.configuration == ratios.idxmax()
        assert fold.train_sharpe == pytest.approx(ratios.max() * math.sqrt(252))
        pd.testing.assert_series_equal(
            found.returns.loc[fold.test[0] : fold.test[1]],
            returns.loc[fold.test[0] : fold.test[1], fold.configuration],
            check_names=False,
        )
    assert found.sharpe == pytest.approx(found.returns.mean() / found.returns.std() * math.sqrt(252))


def test_the_past_alone_decides() -> None:
    # Whatever happens in a fold and after it, and in the purged session before it, the choice stays.
    returns = matrix(5, 240, 8)
    chosen = walk_forward(returns, folds=3).folds
    for number, fold in enumerate(chosen):
        poisoned = returns.copy()
        poisoned.iloc[returns.index.get_loc(fold.train[1]) + 1 :] = np.random.default_rng(99).normal(0, 0.05, 8)
        again = walk_forward(poisoned, folds=3).folds
        assert [f.configuration for f in again[: number + 1]] == [f.configuration for f in chosen[: number + 1]]


def test_switching_costs_a_round_trip_on_the_first_session_of_the_fold() -> None:
    # The first configuration leads in the first 30 sessions, the second from then on: one switch, at the third fold.
    returns = matrix(0, 120, 2) * 0.1
    returns.iloc[:30, 0] += 0.01
    returns.iloc[30:, 1] += 0.02
    free = walk_forward(returns, folds=3)
    paid = walk_forward(returns, folds=3, switch_cost=0.003)
    assert [fold.configuration for fold in free.folds] == ["c0", "c0", "c1"]
    first = free.folds[2].test[0]
    assert paid.returns[first] == pytest.approx((1 + free.returns[first]) * 0.997 - 1)
    pd.testing.assert_series_equal(paid.returns.drop(first), free.returns.drop(first))


def test_choosing_among_noise_earns_nothing_out_of_sample() -> None:
    found = [walk_forward(matrix(seed, 600, 40) - 0.0002, folds=5).sharpe for seed in range(40)]
    # Two years out of sample have a standard error of 0.7 a seed, 0.11 over forty.
    assert np.mean(found) == pytest.approx(0.0, abs=0.35)


def test_walk_forward_refuses_what_it_cannot_cut() -> None:
    with pytest.raises(InputError, match="cannot be cut into 5"):
        walk_forward(matrix(0, 12, 2), folds=5)
    returns = matrix(0, 100, 2)
    returns.iloc[7, 1] = math.nan
    with pytest.raises(QualityError, match=f"c1 has return nan on {returns.index[7]}"):
        walk_forward(returns)


def test_the_best_of_the_nasdaq_grid_gets_the_published_evidence_and_is_refused() -> None:
    returns = grid_returns()
    prices = nasdaq()
    closes = prices["Close"].to_numpy()
    equity, trades = reference_equity(crossover(32, 176, closes), prices["Open"].to_numpy(), closes)
    benchmark = buy_and_hold_equity().pct_change(fill_method=None).iloc[1:]
    found = evidence_of(
        result_of(pd.Series(equity, index=prices.index), trades=trades),
        returns,
        settings=SETTINGS.model_copy(update={"pbo_blocks": 16}),
        benchmark_returns=benchmark,
        walk_forward=walk_forward(returns),
    )
    assert found.sharpe == pytest.approx(0.589913, abs=5e-7)
    assert found.dsr == pytest.approx(0.9135, abs=5e-5)
    assert found.pbo == pytest.approx(0.7509, abs=5e-5)
    assert found.spa_p == pytest.approx(0.90, abs=0.05)
    assert found.sharpe_interval[0] < found.sharpe < found.sharpe_interval[1]
    assert (found.trials, found.trials_all, found.sessions, found.trades) == (253, 253, 5030, trades)
    assert found.walk_forward_sharpe is not None
    # What was chosen with hindsight does not hold out of sample.
    assert found.walk_forward_sharpe < found.sharpe


def test_one_trial_has_no_overfitting_and_its_deflated_sharpe_is_the_plain_probability() -> None:
    family = matrix(1, 600, 1)
    found = evidence_of(result_of(equity_from(family["c0"])), family)
    assert found.pbo is None
    assert found.spa_p is None
    assert found.walk_forward_sharpe is None
    assert found.dsr == pytest.approx(probabilistic_sharpe_of(family["c0"]), abs=1e-12)


def test_trials_of_other_families_lower_the_deflated_sharpe() -> None:
    family = matrix(1, 600, 5)
    result = result_of(equity_from(family["c0"]))
    alone = evidence_of(result, family)
    ratios = np.concatenate([sharpe(family.to_numpy().T, 1.0), sharpe(matrix(2, 600, 400).to_numpy().T, 1.0)])
    among_many = evidence_of(result, family, trials_all=405, trial_sharpes=ratios)
    assert alone.dsr is not None
    assert among_many.dsr is not None
    assert among_many.dsr < alone.dsr
    assert (among_many.trials, among_many.trials_all) == (5, 405)


def test_the_same_inputs_give_the_same_evidence_and_another_version_its_own_draws() -> None:
    family = matrix(1, 400, 3)
    result = result_of(equity_from(family["c0"]))
    first = evidence_of(result, family)
    assert evidence_of(result, family) == first
    other = evidence_of(replace(result, spec=replace(result.spec, params={"fast": 3})), family)
    assert other.sharpe == first.sharpe
    assert other.sharpe_interval != first.sharpe_interval
    reseeded = evidence_of(result, family, settings=SETTINGS.model_copy(update={"seed": 1}))
    assert reseeded.sharpe_interval != first.sharpe_interval


def test_the_risk_free_rate_of_the_convention_is_taken_off() -> None:
    family = matrix(1, 600, 1)
    equity = equity_from(family["c0"])
    plain = evidence_of(result_of(equity), family)
    dear = evidence_of(result_of(equity, convention=Convention(risk_free_ann=0.05)), family)
    assert dear.sharpe < plain.sharpe
    assert dear.sharpe_interval[1] < plain.sharpe_interval[1]
    assert dear.dsr is not None
    assert plain.dsr is not None
    assert dear.dsr < plain.dsr
    assert dear.dsr == pytest.approx(probabilistic_sharpe_of(family["c0"] - 0.05 / 252), abs=1e-12)


def test_labels_pass_through_unchanged() -> None:
    family = matrix(1, 300, 2)
    note = Finding(code="few_trades", severity="warning", text="t", remedy="r")
    result = replace(result_of(equity_from(family["c0"])), data_kind="modelled")
    found = evidence_of(result, family, role="benchmark", universe_point_in_time=False, findings=(note,))
    assert (found.role, found.universe_point_in_time, found.findings, found.data_kind) == ("benchmark", False, (note,), "modelled")
    assert found.spec_digest == result.spec.digest


def test_an_account_that_never_traded_has_evidence_too() -> None:
    family = matrix(1, 300, 2)
    family["c0"] = 0.0
    found = evidence_of(result_of(equity_from(family["c0"])), family)
    assert (found.sharpe, found.sharpe_interval, found.total_return) == (0.0, (0.0, 0.0), 0.0)
    assert found.dsr is not None
    assert found.dsr <= 0.5


def test_a_record_that_never_varies_shows_no_skill() -> None:
    # Idle cash at interest: the same gain each session, a Sharpe ratio without a value.
    family = matrix(1, 300, 2)
    family["c0"] = 0.0001
    found = evidence_of(result_of(equity_from(family["c0"])), family)
    assert (found.sharpe, found.sharpe_interval, found.dsr) == (0.0, (0.0, 0.0), None)
    assert found.total_return == pytest.approx(1.0001**300 - 1)


def test_counts_and_sessions_that_contradict_each_other_are_refused() -> None:
    family = matrix(1, 300, 3)
    result = result_of(equity_from(family["c0"]))
    with pytest.raises(InputError, match="contradict"):
        evidence_of(result, family, trials=4, trials_all=3)
    with pytest.raises(InputError, match="3 Sharpe ratios given"):
        evidence_of(result, family, trials=2, trials_all=2)
    with pytest.raises(InputError, match="family's returns cover 299"):
        evidence_of(result, family.iloc[1:])
    with pytest.raises(InputError, match="benchmark's returns cover 10"):
        evidence_of(result, family, benchmark_returns=family["c1"].iloc[:10])
