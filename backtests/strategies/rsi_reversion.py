"""RSI mean reversion: buy what has fallen too fast, sell it when it has risen too fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd

from backtests.strategies.parameters import Parameter, check_parameters, near_configurations
from backtests.strategies.rules import above, below, equal_slices, hold_between
from backtests.strategy import View
from config.errors import ConfigError
from features.indicators import rsi

__all__ = ["RsiReversion"]


@dataclass(frozen=True, kw_only=True)
class RsiReversion:
    """Long from a close with RSI < `oversold` until one with RSI > `overbought`.

    RSI is Wilder's, seeded with a simple average; comparisons by more than 1e-9 relatively, a tie is neither. In between the
    position is kept. Each of n symbols has a slice of 1 / n of equity. No opinion until the RSI is known, and on sessions
    without a close.

    It buys weakness and has no stop: in a long fall it holds all the way down. It claims no edge.

    Parameters
    ----------
    period : int
        Of the RSI, in sessions.
    oversold, overbought : float
        Levels of the RSI (0 to 100), oversold below overbought.
    """

    name: ClassVar[str] = "rsi_reversion"
    family: ClassVar[str] = "rsi_reversion"
    features: ClassVar[tuple[str, ...]] = ()
    macro: ClassVar[tuple[str, ...]] = ()
    role: ClassVar[Literal["candidate", "benchmark"]] = "candidate"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(name="period", low=1, high=250, step=1, whole=True, doc="of the RSI, in sessions"),
        Parameter(name="oversold", low=1, high=99, step=2.5, whole=False, doc="level of the RSI below which to buy"),
        Parameter(name="overbought", low=1, high=99, step=2.5, whole=False, doc="level of the RSI above which to sell"),
    )

    period: int = 14
    oversold: float = 30.0
    overbought: float = 70.0

    def __post_init__(self) -> None:
        check_parameters(self.name, self.parameters, self.params)
        if not self.valid(self.params):
            raise ConfigError(
                f"{self.name}: oversold = {self.oversold:g} is not below overbought = {self.overbought:g}", remedy="exchange them"
            )

    @classmethod
    def valid(cls, params: Mapping[str, Any]) -> bool:
        """Whether oversold is below overbought."""
        return bool(params["oversold"] < params["overbought"])

    @property
    def params(self) -> dict[str, Any]:
        """`period`, `oversold` and `overbought`."""
        return {"period": self.period, "oversold": float(self.oversold), "overbought": float(self.overbought)}

    @property
    def warm_up(self) -> int:
        """One close more than the period."""
        return self.period + 1

    def neighbours(self) -> list[dict[str, Any]]:
        """One and two steps along each parameter: 1 session, 2.5 points."""
        return near_configurations(self.parameters, self.params, self.valid)

    def targets(self, view: View) -> pd.DataFrame:
        """0 or 1 / n, known at the close; NaN before the warm-up."""
        strength = rsi(view.close, self.period)
        held = hold_between(below(strength, self.oversold), above(strength, self.overbought))
        return equal_slices(held, strength.notna())
