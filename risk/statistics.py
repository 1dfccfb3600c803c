"""How much of a Sharpe ratio is luck: probabilistic and deflated Sharpe, minimum track record; overfitting and bootstrap beside it.

Everything here takes Sharpe ratios *per session*, not annualised: divide an annual one by √sessions_per_year. The probability of
backtest overfitting is in `risk.overfitting`, the bootstrap in `risk.bootstrap`, the test of superior predictive ability in
`risk.superiority`; all are re-exported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from risk.bootstrap import Interval, bootstrap_intervals, stationary_indices
from risk.metrics import excess_kurtosis, sharpe, skewness
from risk.overfitting import Overfitting, pbo
from risk.superiority import SpaResult, spa_test

__all__ = [
    "DeflatedSharpe",
    "Interval",
    "Overfitting",
    "SpaResult",
    "bootstrap_intervals",
    "deflated_sharpe",
    "deflated_sharpe_of",
    "expected_max_sharpe",
    "minimum_track_record",
    "pbo",
    "probabilistic_sharpe",
    "probabilistic_sharpe_of",
    "spa_test",
    "stationary_indices",
]

_NORMAL = NormalDist()


def probabilistic_sharpe(observed: float, reference: float, *, n_returns: int, skew: float = 0.0, kurtosis: float = 3.0) -> float:
    """Probability that the true Sharpe ratio exceeds `reference`, given the sample's length and shape.

    Parameters
    ----------
    observed, reference : float
        Sharpe ratios per session.
    n_returns : int
        Returns in the sample, at least 2.
    skew, kurtosis : float
        Of the returns; `kurtosis` is 3 for a normal sample.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    InputError
        Too few returns, or moments that no sample can have.

    Notes
    -----
    Φ((observed − reference) √(n − 1) / √(1 − skew · observed + (kurtosis − 1)/4 · observed²)).
    Source: D. Bailey and M. López de Prado, "The Sharpe ratio efficient frontier", Journal of Risk 15(2), 2012.
    """
    if n_returns < 2:
        raise InputError(f"a probabilistic Sharpe ratio needs at least 2 returns; got {n_returns}", remedy="use a longer sample")
    return _NORMAL.cdf((observed - reference) * math.sqrt(n_returns - 1) / math.sqrt(_variance_factor(observed, skew, kurtosis)))


def probabilistic_sharpe_of(returns: npt.ArrayLike, reference: float = 0.0) -> float:
    """`probabilistic_sharpe` of a sample of session returns against a per-session `reference`; NaN where its Sharpe is NaN.

    Parameters
    ----------
    returns : array of shape (n_returns,)
        Simple session returns, less the risk-free rate where there is one. Moments are the population's (ddof 0), the Sharpe
        ratio's deviation ddof 1.
    """
    observed = float(sharpe(returns, 1.0))
    if math.isnan(observed):
        return math.nan
    values = np.asarray(returns, dtype=np.float64)
    skew, kurtosis = float(skewness(values)), float(excess_kurtosis(values)) + 3.0
    if math.isnan(skew):  # an account that never moved: Sharpe 0, no shape
        skew, kurtosis = 0.0, 3.0
    return probabilistic_sharpe(observed, reference, n_returns=values.size, skew=skew, kurtosis=kurtosis)


def expected_max_sharpe(trial_variance: float, trials: int) -> float:
    """Expected greatest of `trials` independent Sharpe ratios whose true value is zero.

    Parameters
    ----------
    trial_variance : float
        Variance of the trials' Sharpe ratios, per session.
    trials : int
        Independent trials, at least 1; the expectation over one trial is 0.

    Notes
    -----
    √V ((1 − γ) Φ⁻¹(1 − 1/N) + γ Φ⁻¹(1 − 1/(N e))), γ the Euler–Mascheroni constant.
    Source: Bailey and López de Prado, "The deflated Sharpe ratio", Journal of Portfolio Management 40(5), 2014.
    """
    if trials < 1 or not trial_variance >= 0.0:
        raise InputError(
            f"the expected maximum needs at least one trial and a variance that is not negative; got {trials} and {trial_variance}",
            remedy="count every configuration that was evaluated, this one too",
        )
    if trials == 1:
        return 0.0
    low = _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    high = _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(trial_variance) * ((1.0 - np.euler_gamma) * low + np.euler_gamma * high)


def deflated_sharpe(
    observed: float, *, trial_variance: float, trials: int, n_returns: int, skew: float = 0.0, kurtosis: float = 3.0
) -> float:
    """Probability that the true Sharpe ratio is positive, after `trials` attempts to find a good one.

    The probabilistic Sharpe ratio against `expected_max_sharpe`; with one trial, against 0. Parameters as there.
    """
    reference = expected_max_sharpe(trial_variance, trials)
    return probabilistic_sharpe(observed, reference, n_returns=n_returns, skew=skew, kurtosis=kurtosis)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeflatedSharpe:
    """A deflated Sharpe ratio with what it was made from.

    Parameters
    ----------
    probability : float
        The deflated Sharpe ratio, 0 to 1.
    expected_max : float
        Expected greatest Sharpe ratio of the trials under no skill, per session.
    trials : int
    trial_variance : float
        Per session.
    """

    probability: float
    expected_max: float
    trials: int
    trial_variance: float


def deflated_sharpe_of(
    returns: npt.ArrayLike, trial_sharpes: Sequence[float] | npt.NDArray[np.float64], trials: int
) -> DeflatedSharpe:
    """Deflated Sharpe ratio of a sample of session returns, from the ledger's count and the trials' Sharpe ratios.

    Parameters
    ----------
    returns : array of shape (n_returns,)
        Of the strategy in question.
    trial_sharpes : sequence of float
        Sharpe ratio per session of the trials whose ratio is known; NaN (a trial that failed) is left out of the variance.
    trials : int
        How many configurations were ever evaluated, this one included: never fewer than `trial_sharpes` has.

    Raises
    ------
    InputError
        The count is smaller than the list, or there were several trials and fewer than two known ratios.

    Notes
    -----
    The variance over trials has ddof 1. Trials that resemble each other are fewer than their count; counting them all is the
    cautious side.
    """
    known = np.asarray(trial_sharpes, dtype=np.float64)
    if trials < max(known.size, 1):
        raise InputError(
            f"{trials} trials were counted but {known.size} Sharpe ratios given", remedy="give the ledger's count of all trials"
        )
    known = known[np.isfinite(known)]
    if trials > 1 and known.size < 2:
        raise InputError(
            f"{trials} trials were counted but only {known.size} of their Sharpe ratios are known: no variance can be taken",
            remedy="record each trial's Sharpe ratio in the ledger",
        )
    variance = float(known.var(ddof=1)) if trials > 1 else 0.0
    expected = expected_max_sharpe(variance, trials)
    return DeflatedSharpe(
        probability=probabilistic_sharpe_of(returns, expected), expected_max=expected, trials=trials, trial_variance=variance
    )


def minimum_track_record(
    observed: float, reference: float = 0.0, *, skew: float = 0.0, kurtosis: float = 3.0, level: float = 0.95
) -> float:
    """Returns needed before a Sharpe ratio of `observed` exceeds `reference` with probability `level`.

    Parameters
    ----------
    observed, reference : float
        Sharpe ratios per session.

    Returns
    -------
    float
        Number of returns, not rounded; infinite when `observed` does not exceed `reference`.

    Notes
    -----
    Source: Bailey and López de Prado (2012), section "minimum track record length".
    """
    if not 0.5 < level < 1.0:
        raise InputError(f"the level of a track record lies between 0.5 and 1; got {level!r}", remedy="0.95 is the usual one")
    if observed <= reference:
        return math.inf
    return 1.0 + _variance_factor(observed, skew, kurtosis) * (_NORMAL.inv_cdf(level) / (observed - reference)) ** 2


def _variance_factor(observed: float, skew: float, kurtosis: float) -> float:
    if not all(math.isfinite(value) for value in (observed, skew, kurtosis)):
        raise InputError(f"the Sharpe ratio and its moments must be numbers; got {observed}, skew {skew}, kurtosis {kurtosis}")
    factor = 1.0 - skew * observed + (kurtosis - 1.0) / 4.0 * observed**2
    # Every sample has kurtosis >= 1 + skew², and then the factor cannot be negative.
    if kurtosis < (1.0 + skew**2) * (1.0 - 1e-9) or factor <= 0.0:
        raise InputError(
            f"no sample has skew {skew} together with kurtosis {kurtosis}",
            remedy="kurtosis is 3 for a normal sample (not the excess), and at least 1 + skew²",
        )
    return factor
