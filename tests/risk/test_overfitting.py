"""Probability of backtest overfitting: the published number, a plain implementation, noise and a true edge."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import rankdata

from config.errors import InputError, QualityError
from risk.overfitting import pbo
from tests.risk.reference import grid_returns


def plain_logits(returns: np.ndarray, blocks: int) -> list[float]:
    """The paper's recipe, split by split, without shortcuts."""
    length = returns.shape[0] // blocks
    parts = [returns[start * length : (start + 1) * length] for start in range(blocks)]
    logits = []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        train = np.concatenate([parts[place] for place in chosen])
        test = np.concatenate([parts[place] for place in range(blocks) if place not in chosen])
        winner = (train.mean(axis=0) / train.std(axis=0, ddof=1)).argmax()
        rank = rankdata(test.mean(axis=0) / test.std(axis=0, ddof=1))[winner] / (returns.shape[1] + 1)
        logits.append(math.log(rank / (1 - rank)))
    return logits


def test_the_nasdaq_grid_has_the_published_probability() -> None:
    # Blocks of 5030 // 16 sessions from the start; the last 6 sessions do not fill a block. (Cutting the first 6 instead gives
    # 0.7261, blocks of unequal length 0.7292.)
    returns = grid_returns().to_numpy()
    found = pbo(returns, blocks=16)
    assert found.probability == pytest.approx(0.7509, abs=5e-5)
    assert found.logits.size == 12_870
    assert found.sessions_dropped == 6


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_the_plain_recipe(seed: int) -> None:
    returns = np.random.default_rng(seed).normal(0.0002, 0.01, (103, 7))
    found = pbo(returns, blocks=8)
    expected = plain_logits(returns, 8)
    np.testing.assert_allclose(found.logits, expected, atol=1e-12)
    assert found.probability == np.mean(np.array(expected) <= 1e-12)
    assert found.sessions_dropped == 7


def test_noise_is_overfitted_about_half_of_the_time() -> None:
    found = [pbo(np.random.default_rng(seed).normal(0, 0.01, (480, 20)), blocks=8).probability for seed in range(60)]
    # Each is widely spread, their mean is not: a standard error near 0.03.
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


def test_a_true_edge_is_hardly_ever_overfitted() -> None:
    returns = np.random.default_rng(0).normal(0, 0.01, (2000, 20))
    returns[:, 5] += 0.002
    found = pbo(returns, blocks=16)
    assert found.probability < 0.01
    assert found.loss_probability < 0.01


def test_a_family_that_does_best_where_it_fails_next_is_always_overfitted() -> None:
    # Two mirrored configurations: what gains in one half of the blocks loses in the other, so the winner always comes last.
    base = np.random.default_rng(0).normal(0, 0.01, 400)
    base -= base.mean()
    mirrored = np.column_stack([base, -base])
    assert pbo(mirrored, blocks=8).probability == 1.0


def test_identical_configurations_share_their_rank() -> None:
    one = np.random.default_rng(0).normal(0.001, 0.01, (200, 1))
    found = pbo(np.repeat(one, 3, axis=1), blocks=8)
    np.testing.assert_allclose(found.logits, 0.0, atol=1e-12)
    assert found.probability == 1.0


def test_the_order_of_distinct_configurations_does_not_matter() -> None:
    returns = np.random.default_rng(4).normal(0, 0.01, (320, 9))
    np.testing.assert_allclose(pbo(returns, 8).logits, pbo(returns[:, ::-1], 8).logits, atol=1e-12)


def test_an_idle_configuration_ranks_as_zero() -> None:
    rng = np.random.default_rng(0)
    losing = rng.normal(-0.01, 0.001, (160, 3))
    found = pbo(np.column_stack([np.zeros(160), losing]), blocks=4)
    # Doing nothing wins every training set and every test set: rank 4 of 4, logit ln 4.
    np.testing.assert_allclose(found.logits, math.log(4.0))
    assert found.probability == 0.0


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    returns = np.random.default_rng(2).normal(0, 0.01, (160, 6))
    whole = pbo(returns, 8)
    monkeypatch.setattr("risk.overfitting.CHUNK_CELLS", 17)
    np.testing.assert_allclose(pbo(returns, 8).logits, whole.logits, atol=1e-12)


def test_what_cannot_be_split_is_refused() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (100, 3))
    with pytest.raises(InputError, match="at least two configurations"):
        pbo(noise[:, :1])
    with pytest.raises(InputError, match="even"):
        pbo(noise, 7)
    with pytest.raises(InputError, match="too few"):
        pbo(noise[:20], 16)
    noise[4, 2] = np.nan
    with pytest.raises(QualityError, match="configuration 2 has return nan in row 4"):
        pbo(noise, 8)
