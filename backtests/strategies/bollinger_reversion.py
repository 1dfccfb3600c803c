"""Bollinger mean reversion: buy below the lower band, sell above the middle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd

from backtests.strategies.parameters import Parameter, check_parameters, near_configurations
from backtests.strategies.rules import above, below, equal_slices, hold_between
from backtests.strategy import View
from features.indicators import bollinger

__all__ = ["BollingerReversion", "bollinger_held"]


def bollinger_held(close: pd.DataFrame, period: int, std: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rule's state (0.0 or 1.0) and where it is known, both of shape (n_sessions, n_symbols)."""
    bands = bollinger(close, period, std)
    return hold_between(below(close, bands.lower), above(close, bands.middle)), bands.lower.notna()


@dataclass(frozen=True, kw_only=True)
class BollingerReversion:
    """Long from a close below the lower band until one above the middle band.

    The middle is SMA(`period`), the lower band lies `std` population deviations (ddof 0) below it; the bands of a session hold
    that session's close. Comparisons by more than 1e-9 relatively: a close on a band is neither below nor above it, so nothing
    is bought or sold on it. In between the position is kept. Each of n symbols has a slice of 1 / n of equity. No opinion
    until the bands are known, and on sessions without a close.

    It buys weakness and has no stop: in a long fall it holds until the average has come down. It claims no edge.

    Parameters
    ----------
    period : int
        Window of the bands, in sessions.
    std : float
        Their half width, in deviations.
    """

    name: ClassVar[str] = "bollinger_reversion"
    family: ClassVar[str] = "bollinger_reversion"
    features: ClassVar[tuple[str, ...]] = ()
    macro: ClassVar[tuple[str, ...]] = ()
    role: ClassVar[Literal["candidate", "benchmark"]] = "candidate"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(name="period", low=2, high=500, step=2, whole=True, doc="window of the bands, in sessions"),
        Parameter(name="std", low=0.1, high=6.0, step=0.25, whole=False, doc="half width of the bands, in deviations"),
    )

    period: int = 20
    std: float = 2.0

    def __post_init__(self) -> None:
        check_parameters(self.name, self.parameters, self.params)

    @classmethod
    def valid(cls, params: Mapping[str, Any]) -> bool:
        """Any pair within the ranges."""
        return bool(params)

    @property
    def params(self) -> dict[str, Any]:
        """`period` and `std`."""
        return {"period": self.period, "std": float(self.std)}

    @property
    def warm_up(self) -> int:
        """`period` closes."""
        return self.period

    def neighbours(self) -> list[dict[str, Any]]:
        """Near pairs: steps of 2 sessions and a quarter deviation."""
        return near_configurations(self.parameters, self.params, self.valid)

    def targets(self, view: View) -> pd.DataFrame:
        """0 or 1 / n, known at the close; NaN before the warm-up."""
        return equal_slices(*bollinger_held(view.close, self.period, self.std))
