"""Buy and hold: one equal slice of each symbol, bought once; what every candidate is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd

from backtests.strategies.parameters import Parameter
from backtests.strategies.rules import equal_slices
from backtests.strategy import View

__all__ = ["BuyAndHold"]


@dataclass(frozen=True, kw_only=True)
class BuyAndHold:
    """Hold 1 / n of equity in each of the n symbols, bought at the first session it can be, never rebalanced.

    The target is 1 / n from the first session on; a symbol that lists later is bought when it has its first price. It claims
    nothing: it is the benchmark, with costs paid once.
    """

    name: ClassVar[str] = "buy_and_hold"
    family: ClassVar[str] = "buy_and_hold"
    features: ClassVar[tuple[str, ...]] = ()
    macro: ClassVar[tuple[str, ...]] = ()
    role: ClassVar[Literal["candidate", "benchmark"]] = "benchmark"
    parameters: ClassVar[tuple[Parameter, ...]] = ()

    @classmethod
    def valid(cls, params: Mapping[str, Any]) -> bool:
        """There is nothing to set."""
        return not params

    @property
    def params(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def warm_up(self) -> int:
        """The first close is enough."""
        return 1

    def neighbours(self) -> list[dict[str, Any]]:
        """None: there is nothing to vary."""
        return []

    def targets(self, view: View) -> pd.DataFrame:
        """1 / n in every symbol and session, known at the close."""
        always = pd.DataFrame(1.0, index=view.sessions, columns=view.close.columns)
        return equal_slices(always, always > 0.0)
