"""Superior predictive ability: against `arch`, against a plain sum, and the published verdict on the NASDAQ grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

from config.errors import InputError, QualityError
from risk import superiority
from risk.superiority import spa_test
from tests.risk.reference import buy_and_hold_equity, grid_returns


def test_the_nasdaq_grid_does_not_beat_buy_and_hold() -> None:
    benchmark = buy_and_hold_equity().pct_change(fill_method=None).iloc[1:].to_numpy()
    found = spa_test(benchmark, grid_returns().to_numpy(), seed=20260101, samples=500)
    # Published: about 0.90.
    assert found.consistent == pytest.approx(0.90, abs=0.04)
    assert found.lower <= found.consistent <= found.upper
    assert found.models == 253


def test_a_real_advantage_is_seen_and_mere_choice_is_not() -> None:
    by_luck = seen = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        benchmark = rng.normal(0.0, 0.01, 500)
        family = benchmark[:, None] + rng.normal(0.0, 0.005, (500, 20))
        by_luck += spa_test(benchmark, family, seed=seed, samples=200).consistent <= 0.05
        family[:, 3] += 0.0012  # five standard errors of the mean difference
        seen += spa_test(benchmark, family, seed=seed, samples=200).consistent <= 0.05
    # At 5 %, more than 4 false alarms in 20 have a chance of 0.3 %.
    assert by_luck <= 4
    assert seen >= 19


def test_models_that_are_the_benchmark_cannot_beat_it() -> None:
    benchmark = np.random.default_rng(0).normal(0.0, 0.01, 200)
    assert spa_test(benchmark, benchmark, seed=1).consistent == 1.0
    with_copy = np.column_stack([benchmark, benchmark + np.random.default_rng(1).normal(0.0, 0.001, 200)])
    assert spa_test(benchmark, with_copy, seed=1, samples=200).models == 1


def test_without_studentising_it_equals_arch() -> None:
    from arch.bootstrap import SPA

    rng = np.random.default_rng(11)
    benchmark = rng.normal(0.0, 0.01, 400)
    family = benchmark[:, None] + rng.normal(0.0002, 0.006, (400, 12)) - np.linspace(0, 0.002, 12)
    witness = SPA(-benchmark, -family, block_size=20, reps=2000, bootstrap="stationary", seed=5)
    witness.compute()
    found = spa_test(benchmark, family, seed=6, samples=4000, mean_block=20.0, studentize=False)
    # Standard error of a p-value near one half from 2000 draws: 0.011.
    assert found.lower == pytest.approx(witness.pvalues["lower"], abs=0.04)
    assert found.consistent == pytest.approx(witness.pvalues["consistent"], abs=0.04)
    assert found.upper == pytest.approx(witness.pvalues["upper"], abs=0.04)
    assert found.lower < found.consistent < found.upper


def test_long_run_deviation_equals_the_papers_sum() -> None:
    centred = np.random.default_rng(0).standard_normal((60, 3))
    centred -= centred.mean(axis=0)
    n, q = 60, 1 / 7.0
    for column in range(3):
        series = centred[:, column]
        total = float(series @ series) / n
        for lag in range(1, n):
            weight = (n - lag) / n * (1 - q) ** lag + lag / n * (1 - q) ** (n - lag)
            total += 2 * weight * float(series[:-lag] @ series[lag:]) / n
        found = superiority._long_run_deviation(centred, 7.0)[column]
        assert found == pytest.approx(math.sqrt(total), rel=1e-10)


def test_studentising_lets_a_calm_model_speak_beside_a_wild_one() -> None:
    rng = np.random.default_rng(0)
    benchmark = rng.normal(0.0, 0.01, 1000)
    calm = benchmark + rng.normal(0.0002, 0.001, 1000)  # six standard errors
    wild = benchmark + rng.normal(0.0, 0.1, 1000)
    both = np.column_stack([calm, wild])
    assert spa_test(benchmark, both, seed=1, samples=400).consistent < 0.01
    assert spa_test(benchmark, both, seed=1, samples=400, studentize=False).consistent > 0.05


def test_a_constant_advantage_is_certain() -> None:
    benchmark = np.random.default_rng(0).normal(0.0, 0.01, 300)
    assert spa_test(benchmark, benchmark + 0.001, seed=1, samples=200).consistent == 0.0
    assert spa_test(benchmark, benchmark - 0.001, seed=1, samples=200).upper == 1.0


def test_the_same_seed_gives_the_same_p_value() -> None:
    rng = np.random.default_rng(0)
    benchmark, family = rng.normal(0.0, 0.01, 300), rng.normal(0.0, 0.01, (300, 4))
    assert spa_test(benchmark, family, seed=1, samples=100) == spa_test(benchmark, family, seed=1, samples=100)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="same sessions"):
        spa_test(np.zeros(20), np.zeros((19, 2)), seed=1)
    with pytest.raises(QualityError, match="model 1 has return nan in row 0"):
        spa_test(np.zeros(20), np.array([[0.0, np.nan]] * 20), seed=1)
