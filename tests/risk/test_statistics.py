"""Probabilistic and deflated Sharpe ratios against the papers' numbers, and the published verdict on the NASDAQ grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

from config.errors import InputError
from risk.metrics import sharpe
from risk.statistics import (
    deflated_sharpe,
    deflated_sharpe_of,
    expected_max_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
    probabilistic_sharpe_of,
)
from tests.risk.reference import grid_returns

# Bailey and López de Prado (2014), numerical example: an annual Sharpe ratio of 2.5 over 1250 sessions of 250 a year, the best
# of 100 trials whose annual ratios have variance 1/2, skew -3, kurtosis 10.
OBSERVED, VARIANCE = 2.5 / math.sqrt(250), 0.5 / 250


def test_expected_maximum_of_the_papers_example() -> None:
    assert expected_max_sharpe(VARIANCE, 100) == pytest.approx(0.11317, abs=5e-6)


def test_deflated_sharpe_of_the_papers_example() -> None:
    found = deflated_sharpe(OBSERVED, trial_variance=VARIANCE, trials=100, n_returns=1250, skew=-3.0, kurtosis=10.0)
    assert found == pytest.approx(0.90040, abs=5e-6)


def test_the_papers_example_passes_at_46_trials_and_fails_at_100() -> None:
    # The paper: with 46 trials the strategy would have been accepted at 95 %, at 88 with normal returns.
    assert deflated_sharpe(OBSERVED, trial_variance=VARIANCE, trials=46, n_returns=1250, skew=-3.0, kurtosis=10.0) >= 0.9495
    assert deflated_sharpe(OBSERVED, trial_variance=VARIANCE, trials=88, n_returns=1250) >= 0.9495
    assert deflated_sharpe(OBSERVED, trial_variance=VARIANCE, trials=100, n_returns=1250, skew=-3.0, kurtosis=10.0) < 0.95


def test_expected_maximum_is_close_to_a_simulated_one() -> None:
    draws = np.random.default_rng(3).standard_normal((20_000, 50)).max(axis=1)
    assert expected_max_sharpe(1.0, 50) == pytest.approx(draws.mean(), abs=0.03)


def test_minimum_track_record_of_the_papers_example() -> None:
    # Bailey and López de Prado (2012): an annual Sharpe ratio of 2 against 1 at 95 % needs 2.73 years of daily normal
    # returns, 4.99 years of monthly ones with skew -0.72 and kurtosis 5.78.
    daily = minimum_track_record(2 / math.sqrt(252), 1 / math.sqrt(252))
    assert daily / 252 == pytest.approx(2.73, abs=0.005)
    monthly = minimum_track_record(2 / math.sqrt(12), 1 / math.sqrt(12), skew=-0.72, kurtosis=5.78)
    assert monthly / 12 == pytest.approx(4.99, abs=0.005)


def test_at_the_minimum_track_record_the_probability_is_the_level() -> None:
    length = minimum_track_record(0.1, 0.04, skew=-1.0, kurtosis=6.0, level=0.9)
    # The formula's n - 1 may be a fraction; the probability is monotone between the whole numbers around it.
    below = probabilistic_sharpe(0.1, 0.04, n_returns=math.floor(length), skew=-1.0, kurtosis=6.0)
    above = probabilistic_sharpe(0.1, 0.04, n_returns=math.ceil(length), skew=-1.0, kurtosis=6.0)
    assert below <= 0.9 <= above
    assert minimum_track_record(0.04, 0.04) == math.inf


def test_probability_of_a_normal_sample_worked_by_hand() -> None:
    # Sharpe 0.1 over 101 normal returns: z = .1 √100 / √(1 + .01/2), Φ(z) from the error function.
    z = 0.1 * 10 / math.sqrt(1.005)
    assert probabilistic_sharpe(0.1, 0.0, n_returns=101) == pytest.approx(0.5 * (1 + math.erf(z / math.sqrt(2))), abs=1e-12)


def test_the_best_of_the_nasdaq_grid_has_the_published_deflated_sharpe() -> None:
    returns = grid_returns()
    per_session = sharpe(returns.to_numpy().T, 1.0)
    best = int(per_session.argmax())
    assert returns.columns[best] == "32/176"
    assert per_session[best] * math.sqrt(252) == pytest.approx(0.589913, abs=5e-7)
    found = deflated_sharpe_of(returns.iloc[:, best], per_session, 253)
    assert found.probability == pytest.approx(0.9135, abs=5e-5)
    assert found.probability < 0.95


def test_with_one_trial_it_is_the_probability_against_zero() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 500)
    assert deflated_sharpe_of(returns, [float(sharpe(returns, 1.0))], 1).probability == probabilistic_sharpe_of(returns)


def test_more_trials_never_raise_it() -> None:
    found = [deflated_sharpe(0.1, trial_variance=0.001, trials=trials, n_returns=1000) for trials in (1, 2, 5, 20, 100, 10_000)]
    assert found == sorted(found, reverse=True)


def test_failed_trials_count_but_have_no_variance() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 500)
    with_failed = deflated_sharpe_of(returns, [0.05, math.nan, 0.01], 3)
    assert with_failed.trials == 3
    assert with_failed.trial_variance == pytest.approx(0.0008)  # deviations ±.02, ddof 1


def test_an_account_that_never_moved_is_even_odds_and_a_constant_gain_has_none() -> None:
    assert probabilistic_sharpe_of(np.zeros(100)) == 0.5
    assert math.isnan(probabilistic_sharpe_of(np.full(100, 0.001)))


def test_one_lucky_session_among_thousands_has_a_probability() -> None:
    # The most extreme shape a sample can have: kurtosis is 1 + skew² up to rounding.
    returns = np.zeros(5000)
    returns[77] = 0.3
    assert 0.5 < probabilistic_sharpe_of(returns) < 1.0


def test_on_pure_noise_the_best_of_many_is_refused() -> None:
    refused = 0
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(0.0, 0.01, (200, 500))
        per_session = sharpe(noise, 1.0)
        refused += deflated_sharpe_of(noise[per_session.argmax()], per_session, 200).probability < 0.95
    assert refused >= 95


def test_a_true_edge_is_accepted() -> None:
    accepted = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        trials = rng.normal(0.0, 0.01, (50, 2520))
        trials[0] += 0.0015  # an annual Sharpe ratio near 2.4 over ten years
        per_session = sharpe(trials, 1.0)
        accepted += deflated_sharpe_of(trials[0], per_session, 50).probability >= 0.95
    assert accepted == 20


def test_counts_that_contradict_each_other_are_refused() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 50)
    with pytest.raises(InputError, match="2 trials were counted but 3"):
        deflated_sharpe_of(returns, [0.1, 0.2, 0.3], 2)
    with pytest.raises(InputError, match="no variance"):
        deflated_sharpe_of(returns, [0.1], 2)
    with pytest.raises(InputError, match="at least one trial"):
        expected_max_sharpe(0.1, 0)


def test_impossible_moments_and_short_samples_are_refused() -> None:
    with pytest.raises(InputError, match="kurtosis"):
        probabilistic_sharpe(0.1, 0.0, n_returns=100, skew=-3.0, kurtosis=3.0)
    with pytest.raises(InputError, match="at least 2"):
        probabilistic_sharpe(0.1, 0.0, n_returns=1)
    with pytest.raises(InputError, match="numbers"):
        probabilistic_sharpe(math.nan, 0.0, n_returns=10)
