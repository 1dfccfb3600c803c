"""Proof that a strategy does not look ahead: cut the future off, blank it, make it absurd, and demand the same decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtests.decisions import decide
from backtests.strategy import Strategy, View
from backtests.views import view_of
from config.errors import LeakageError
from config.progress import SILENT, Progress

if TYPE_CHECKING:
    from features.leakage import Leak
    from features.panel import MarketPanel

__all__ = ["StrategyReport", "check_strategy"]


@dataclass(frozen=True, kw_only=True)
class StrategyReport:
    """What a check looked at and found.

    Parameters
    ----------
    strategy : str
    cuts : tuple of Timestamp
        The last sessions that were left as they were.
    compared : int
        Weights compared; zero proves nothing, and `sound` is False then.
    leaks : tuple of Leak
        The weight that changed most.
    """

    strategy: str
    cuts: tuple[pd.Timestamp, ...]
    compared: int
    leaks: tuple[Leak, ...]

    @property
    def sound(self) -> bool:
        """Whether something was compared and nothing differed."""
        return self.compared > 0 and not self.leaks

    def require(self) -> StrategyReport:
        """Return the report, or raise.

        Raises
        ------
        LeakageError
            A weight changed, or nothing could be compared.
        """
        if self.leaks:
            raise LeakageError(
                f"strategy {self.strategy} looks ahead: {self.leaks[0]}",
                remedy="let each row use its own session and earlier ones only",
            )
        if not self.compared:
            raise LeakageError(
                f"strategy {self.strategy}: no weight could be compared at {len(self.cuts)} cuts, so nothing is proved",
                remedy="check it on a longer history than its warm-up",
            )
        return self


def check_strategy(
    strategy: Strategy,
    view: View,
    cuts: int | Sequence[pd.Timestamp],
    rng: np.random.Generator,
    *,
    progress: Progress = SILENT,
) -> StrategyReport:
    """Ask the strategy again under other futures and compare every decision up to the cut, to the last bit.

    Parameters
    ----------
    strategy : Strategy
    view : View
        Its panel is what is cut; declared features are computed again from what is left.
    cuts : int or sequence of Timestamp
        How many sessions to draw (the last but one is always among them), or which.
    rng : numpy.random.Generator
        Draws cuts and absurd prices.

    Returns
    -------
    StrategyReport
        Call `require` to raise on a leak.
    """
    from features.leakage import find_leaks

    def weights(panel: MarketPanel) -> dict[str, pd.DataFrame]:
        return {strategy.name: decide(strategy, view_of(panel, [strategy]))}

    report = find_leaks(weights, view.panel, cuts=cuts, rng=rng, progress=progress)
    return StrategyReport(strategy=strategy.name, cuts=report.cuts, compared=report.compared[strategy.name], leaks=report.leaks)
