"""Simple-moving-average crossover: long from a crossing upwards until one downwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd

from backtests.strategies.parameters import Parameter, check_parameters, near_configurations
from backtests.strategies.rules import below, crossed_above, equal_slices, hold_between
from backtests.strategy import View
from config.errors import ConfigError
from features.indicators import sma

__all__ = ["SmaCrossover"]


@dataclass(frozen=True, kw_only=True)
class SmaCrossover:
    """Long in a symbol from a close at which SMA(`fast`) crosses above SMA(`slow`) until one at which it crosses below.

    A crossing is a change of side, above or below by more than 1e-9 relatively (docs/conventions.md); a tie is neither side
    and changes nothing. Averages that are already apart when they are first known have not crossed: a first position waits
    for the first crossing upwards. From then on the strategy is long while the fast average is above the slow one. Each of n
    symbols has a slice of 1 / n of equity, set when its signal changes and not rebalanced in between. Until `slow` closes are
    known there is no opinion, and none on a session without a close.

    It follows trends. It does not claim an edge: on most markets its crossings cost more than they bring, and the best pair of
    a search is the luckiest one.

    Parameters
    ----------
    fast, slow : int
        Window lengths in sessions, fast below slow.
    """

    name: ClassVar[str] = "sma_crossover"
    family: ClassVar[str] = "sma_crossover"
    features: ClassVar[tuple[str, ...]] = ()
    macro: ClassVar[tuple[str, ...]] = ()
    role: ClassVar[Literal["candidate", "benchmark"]] = "candidate"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(name="fast", low=1, high=500, step=2, whole=True, doc="window of the fast average, in sessions"),
        Parameter(name="slow", low=2, high=1000, step=5, whole=True, doc="window of the slow average, in sessions"),
    )

    fast: int = 20
    slow: int = 50

    def __post_init__(self) -> None:
        check_parameters(self.name, self.parameters, self.params)
        if not self.valid(self.params):
            raise ConfigError(
                f"{self.name}: fast = {self.fast} is not below slow = {self.slow}", remedy="exchange them, or widen the slow window"
            )

    @classmethod
    def valid(cls, params: Mapping[str, Any]) -> bool:
        """Whether fast is below slow."""
        return bool(params["fast"] < params["slow"])

    @property
    def params(self) -> dict[str, Any]:
        """`fast` and `slow`."""
        return {"fast": self.fast, "slow": self.slow}

    @property
    def warm_up(self) -> int:
        """`slow` closes and one more: a crossing has a before and an after."""
        return self.slow + 1

    def neighbours(self) -> list[dict[str, Any]]:
        """Near pairs of windows: steps of 2 and 5 sessions."""
        return near_configurations(self.parameters, self.params, self.valid)

    def targets(self, view: View) -> pd.DataFrame:
        """0 or 1 / n, known at the close; NaN before the warm-up."""
        fast, slow = sma(view.close, self.fast), sma(view.close, self.slow)
        held = hold_between(crossed_above(fast, slow), below(fast, slow))
        return equal_slices(held, slow.notna())
