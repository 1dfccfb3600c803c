"""Stationary bootstrap: against `arch` and against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from config.errors import InputError, QualityError
from risk.bootstrap import block_length, bootstrap_intervals, stationary_indices
from risk.metrics import cagr, sharpe, total_return


def mean(sample: np.ndarray) -> np.ndarray:
    return np.asarray(sample.mean(axis=-1))


def test_blocks_have_the_wanted_mean_length_and_wrap_around() -> None:
    drawn = stationary_indices(500, 400, 10.0, np.random.default_rng(0))
    assert drawn.shape == (400, 500)
    assert drawn.min() == 0
    assert drawn.max() == 499
    follows = (np.diff(drawn, axis=1) % 500) == 1
    # A block goes on with probability 1 - 1/10; 200,000 draws have a standard error of 0.0007.
    assert follows.mean() == pytest.approx(0.9, abs=0.004)


def test_every_session_is_drawn_equally_often() -> None:
    drawn = stationary_indices(50, 4000, 5.0, np.random.default_rng(1))
    counts = np.bincount(drawn.ravel(), minlength=50) / 4000
    np.testing.assert_allclose(counts, 1.0, atol=0.15)


def test_mean_block_of_one_is_the_plain_bootstrap() -> None:
    drawn = stationary_indices(200, 500, 1.0, np.random.default_rng(2))
    assert ((np.diff(drawn, axis=1) % 200) == 1).mean() == pytest.approx(1 / 200, abs=0.002)


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    # Independent returns: the mean's standard error is σ/√n.
    sample = np.random.default_rng(5).normal(0.001, 0.02, 2000)
    found = bootstrap_intervals(sample, {"mean": mean}, rng=np.random.default_rng(0), samples=4000, mean_block=1.0)["mean"]
    error = sample.std() / math.sqrt(2000)
    assert found.low == pytest.approx(sample.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(sample.mean() + 1.96 * error, abs=0.1 * error)


def test_the_sharpe_interval_equals_that_of_arch() -> None:
    from arch.bootstrap import StationaryBootstrap

    rng = np.random.default_rng(9)
    noise = rng.normal(0.0006, 0.01, 1501)
    sample = noise[1:] + 0.5 * noise[:-1]
    witness = StationaryBootstrap(12, sample, seed=np.random.default_rng(3)).conf_int(
        lambda drawn: np.atleast_1d(sharpe(drawn)), reps=4000, method="percentile"
    )
    found = bootstrap_intervals(sample, {"sharpe": sharpe}, rng=np.random.default_rng(4), samples=4000, mean_block=12.0)["sharpe"]
    assert found.value == sharpe(sample)
    # Monte Carlo error of a 2.5 % percentile from 4000 draws is near 0.02 of this interval's width.
    width = float(witness[1, 0] - witness[0, 0])
    assert found.low == pytest.approx(float(witness[0, 0]), abs=0.06 * width)
    assert found.high == pytest.approx(float(witness[1, 0]), abs=0.06 * width)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    true = 0.05 * math.sqrt(252)
    covered = 0
    for seed in range(200):
        sample = np.random.default_rng(seed).normal(0.0005, 0.01, 400)
        found = bootstrap_intervals(
            sample, {"sharpe": sharpe}, rng=np.random.default_rng(seed), samples=300, level=0.9, mean_block=1.0
        )["sharpe"]
        covered += found.low <= true <= found.high
    # 90 % of 200, three standard errors of 4.2 either way.
    assert 167 <= covered <= 193


def test_the_same_seed_gives_the_same_interval_and_chunks_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.random.default_rng(5).normal(0.001, 0.02, 300)
    metrics = {"sharpe": sharpe, "cagr": cagr}
    first = bootstrap_intervals(sample, metrics, rng=np.random.default_rng(1), samples=200)
    assert bootstrap_intervals(sample, metrics, rng=np.random.default_rng(1), samples=200) == first
    assert bootstrap_intervals(sample, metrics, rng=np.random.default_rng(2), samples=200) != first
    monkeypatch.setattr("risk.bootstrap.CHUNK_CELLS", 900)
    chunked = bootstrap_intervals(sample, metrics, rng=np.random.default_rng(1), samples=200)
    assert chunked["sharpe"].samples == 200
    assert chunked["sharpe"].low == pytest.approx(first["sharpe"].low, abs=0.6)


def test_block_length_grows_with_dependence_and_is_one_for_a_flat_series() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, 3000)
    dependent = np.empty(3000)
    level = 0.0
    for place, shock in enumerate(noise):
        level = 0.8 * level + shock
        dependent[place] = level
    assert 1.0 <= block_length(noise) < 10.0 < block_length(dependent)
    assert block_length(np.zeros(100)) == 1.0
    assert block_length(noise[:5]) == 1.0


def test_a_metric_without_a_value_has_no_interval() -> None:
    found = bootstrap_intervals(
        np.full(50, 0.01), {"sharpe": sharpe, "total": total_return}, rng=np.random.default_rng(0), samples=100
    )
    assert math.isnan(found["sharpe"].value)
    assert math.isnan(found["sharpe"].low)
    assert found["sharpe"].samples == 0
    assert found["total"].low == pytest.approx(1.01**50 - 1)


def test_what_cannot_be_resampled_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="at least 2 returns"):
        bootstrap_intervals([0.1], {"sharpe": sharpe}, rng=rng)
    with pytest.raises(InputError, match="level"):
        bootstrap_intervals([0.1, 0.2], {"sharpe": sharpe}, rng=rng, level=95.0)
    with pytest.raises(InputError, match="at least 1"):
        stationary_indices(10, 10, 0.5, rng)
    with pytest.raises(QualityError, match="position 1"):
        bootstrap_intervals([0.1, math.nan, 0.2], {"sharpe": sharpe}, rng=rng)
