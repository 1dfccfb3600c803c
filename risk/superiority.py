"""Hansen's test of superior predictive ability: does the best of several models really beat a benchmark?

1. `spa_test` takes each model's return over the benchmark's and its long-run deviation (`_long_run_deviation`).
2. Stationary-bootstrap resamples of all models at once come as counts of how often each session was drawn, so that their means are
   one matrix product (`_resampled_means`).
3. The greatest studentised mean is compared with those of the resamples, recentred in three ways.

Source: P. Hansen, "A test for superior predictive ability", Journal of Business & Economic Statistics 23(4), 2005.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.errors import InputError, QualityError
from risk.bootstrap import one_record, stationary_indices

__all__ = ["SpaResult", "spa_test"]

FloatArray = npt.NDArray[np.float64]

# A deviation below this is rounding: a model that differs from the benchmark by a constant.
FLOOR = 1e-12
CHUNK_CELLS = 500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaResult:
    """P-values of the test; `consistent` is the one to use, the others bound it.

    Parameters
    ----------
    lower, consistent, upper : float
    models : int
        Models that were ahead of the benchmark on some session.
    """

    lower: float
    consistent: float
    upper: float
    models: int


def spa_test(
    benchmark: npt.ArrayLike,
    models: npt.ArrayLike,
    *,
    seed: int,
    samples: int = 1000,
    mean_block: float | None = None,
    studentize: bool = True,
) -> SpaResult:
    """Test whether the best of several models beats a benchmark in mean return.

    Parameters
    ----------
    benchmark : array of shape (n_returns,)
        Simple session returns.
    models : array of shape (n_returns, n_models)
        Over the same sessions.
    seed : int
        Of the bootstrap.
    samples : int
        Resamples.
    mean_block : float, optional
        ⌊√n_returns⌋ when not given.
    studentize : bool
        Divide each model's advantage by its long-run deviation, as the paper does, so that a wild model does not drown the
        others. Without it this is the statistic of `arch.bootstrap.SPA` 8.0, whose `studentize` does not reach its statistic.

    Returns
    -------
    SpaResult
        A small p-value says that the best model's advantage is more than the luck of choosing among all of them. Models that are
        never ahead of the benchmark on any session cannot beat it and are left out; when none is left the p-values are 1.

    Raises
    ------
    InputError
        Models and benchmark of different length, or fewer than 10 returns.
    QualityError
        A return is NaN or infinite; the message names model and row.
    """
    ahead = _differences(benchmark, models)
    sessions, count = ahead.shape
    if count == 0:
        return SpaResult(lower=1.0, consistent=1.0, upper=1.0, models=0)
    block = float(math.isqrt(sessions)) if mean_block is None else mean_block
    mean = ahead.mean(axis=0)
    deviation = _long_run_deviation(ahead - mean, block)
    scale = deviation if studentize else np.ones(count)
    observed = max(float((mean / scale).max()), 0.0) if studentize else float(mean.max())
    # A model this far behind has no say in the limit; it is compared with its own mean left in.
    hopeless = mean < -deviation * math.sqrt(2.0 * math.log(math.log(sessions)) / sessions)
    centres = (np.maximum(mean, 0.0), np.where(hopeless, 0.0, mean), mean)
    exceeded = np.zeros(3)
    for drawn in _resampled_means(ahead, samples, block, np.random.default_rng(seed)):
        exceeded += [float((((drawn - centre) / scale).max(axis=1) > observed).sum()) for centre in centres]
    lower, consistent, upper = (exceeded / samples).tolist()
    return SpaResult(lower=lower, consistent=consistent, upper=upper, models=count)


def _differences(benchmark: npt.ArrayLike, models: npt.ArrayLike) -> FloatArray:
    """Each model's return over the benchmark's, without the models that are not ahead of it on a single session."""
    base = one_record(benchmark)
    family = np.asarray(models, dtype=np.float64)
    family = family[:, None] if family.ndim == 1 else family
    if family.ndim != 2 or family.shape[0] != base.size or base.size < 10:
        raise InputError(
            f"models and benchmark must cover the same sessions, at least 10; got {family.shape} and {base.shape}",
            remedy="align both on their common sessions",
        )
    if not np.isfinite(family).all():
        row, column = np.argwhere(~np.isfinite(family))[0]
        raise QualityError(f"model {column} has return {family[row, column]} in row {row}", remedy="drop that model or session")
    ahead = family - base[:, None]
    return np.asarray(ahead[:, ahead.max(axis=0, initial=0.0) > FLOOR])


def _long_run_deviation(centred: FloatArray, mean_block: float) -> FloatArray:
    """√ of the variance of √n × the stationary bootstrap's mean: all autocovariances with that bootstrap's weights."""
    sessions, count = centred.shape
    lags = np.arange(1, sessions)
    ends = 1.0 - 1.0 / mean_block
    weights = (1.0 - lags / sessions) * ends**lags + (lags / sessions) * ends ** (sessions - lags)
    # Padded to twice the length, so that the transform's covariances do not wrap around.
    length = 1 << (2 * sessions - 1).bit_length()
    step = max(1, CHUNK_CELLS // length)
    variance = np.empty(count)
    for start in range(0, count, step):
        spectrum = np.fft.rfft(centred[:, start : start + step], length, axis=0)
        covariance = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, length, axis=0)[:sessions] / sessions
        variance[start : start + step] = covariance[0] + 2.0 * weights @ covariance[1:]
    return np.asarray(np.maximum(np.sqrt(np.maximum(variance, 0.0)), FLOOR))


def _resampled_means(ahead: FloatArray, samples: int, mean_block: float, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Mean advantages of the resamples, shape (n_samples of the chunk, n_models); all models share the drawn sessions."""
    sessions = ahead.shape[0]
    step = max(1, CHUNK_CELLS // max(sessions, ahead.shape[1]))
    for start in range(0, samples, step):
        count = min(step, samples - start)
        drawn = stationary_indices(sessions, count, mean_block, rng) + np.arange(count)[:, None] * sessions
        times = np.bincount(drawn.ravel(), minlength=count * sessions).reshape(count, sessions)
        yield times.astype(np.float64) @ ahead / sessions
