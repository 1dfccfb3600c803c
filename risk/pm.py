"""The façade for portfolio work: a risk manager that sizes and watches, a portfolio manager that allocates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from config.errors import InputError
from risk.metrics import checked_equity
from risk.sizing import OptimalPortfolio, minimum_variance, volatility_target_fraction

if TYPE_CHECKING:
    from config.settings import Settings

__all__ = [
    "DrawdownCheck",
    "OptimalPortfolio",
    "PortfolioManager",
    "RiskManager",
    "create_portfolio_manager",
    "create_risk_manager",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawdownCheck:
    """Where an account stands against its drawdown limit.

    Parameters
    ----------
    within_limit : bool
    current, worst : float
        Positive fractions below the running peak, now and at the worst.
    limit : float
    peak_session : object
        The session of the peak that `current` is measured from.
    """

    within_limit: bool
    current: float
    worst: float
    limit: float
    peak_session: object


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskManager:
    """Sizes positions and watches drawdowns against two limits.

    Parameters
    ----------
    max_drawdown : float
        Positive fraction, at most 1.
    max_volatility : float
        Yearly, a positive fraction.
    """

    max_drawdown: float
    max_volatility: float

    def __post_init__(self) -> None:
        if not 0.0 < self.max_drawdown <= 1.0:
            raise InputError(
                f"max_drawdown must be above 0 and at most 1; got {self.max_drawdown!r}", remedy="0.2 allows a fall of 20 %"
            )
        volatility_target_fraction(self.max_volatility, self.max_volatility)  # refuses what is no volatility

    def calculate_position_size(self, capital: float, volatility: float) -> float:
        """Account currency to invest: capital × min(1, max_volatility / volatility), never above the capital.

        Parameters
        ----------
        capital : float
            Account currency, not negative.
        volatility : float
            Of the position, yearly, a positive fraction, from data known at the decision.

        Raises
        ------
        InputError
            Negative capital, or a volatility that is not a positive number.
        """
        if not (np.isfinite(capital) and capital >= 0.0):
            raise InputError(f"capital must be a number that is not negative; got {capital!r}", remedy="pass the account's equity")
        return capital * volatility_target_fraction(volatility, self.max_volatility)

    def check_drawdown(self, equity: pd.Series) -> DrawdownCheck:
        """Compare an equity curve's last value with its running peak.

        Parameters
        ----------
        equity : Series of shape (n_sessions,)
            Account value after each close.

        Returns
        -------
        DrawdownCheck
            `within_limit` is False when the *current* drawdown exceeds the limit (equality is within).

        Raises
        ------
        QualityError
            The curve holds NaN or values that are not positive.
        """
        values = checked_equity(equity)
        depth = 1.0 - values / values.cummax()
        current = float(depth.iloc[-1])
        return DrawdownCheck(
            within_limit=current <= self.max_drawdown,
            current=current,
            worst=float(depth.max()),
            limit=self.max_drawdown,
            peak_session=values.idxmax(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PortfolioManager:
    """Allocates among symbols within a risk manager's limits."""

    risk_manager: RiskManager
    sessions_per_year: float = 252.0

    def optimize_portfolio(self, returns: pd.DataFrame, target_return: float) -> OptimalPortfolio:
        """Long-only weights of least variance that reach a yearly return, and how much capital they may carry.

        Parameters
        ----------
        returns : DataFrame of shape (n_sessions, n_symbols)
            Simple session returns without NaN.
        target_return : float
            Yearly, a fraction.

        Raises
        ------
        InputError
            The target cannot be reached; the message gives the range that can.
        QualityError
            A return is missing.
        """
        return minimum_variance(
            returns, target_return, max_volatility_ann=self.risk_manager.max_volatility, sessions_per_year=self.sessions_per_year
        )


def create_risk_manager(
    max_drawdown: float | None = None, max_volatility: float | None = None, *, settings: Settings | None = None
) -> RiskManager:
    """Make a risk manager; a limit left out is the settings' (`risk.max_drawdown`, `risk.max_volatility`).

    See `RiskManager` for the units.
    """
    from config.settings import load_settings

    if max_drawdown is None or max_volatility is None:
        limits = (settings or load_settings()).risk
        max_drawdown = limits.max_drawdown if max_drawdown is None else max_drawdown
        max_volatility = limits.max_volatility if max_volatility is None else max_volatility
    return RiskManager(max_drawdown=max_drawdown, max_volatility=max_volatility)


def create_portfolio_manager(risk_mgr: RiskManager, *, sessions_per_year: float = 252.0) -> PortfolioManager:
    """Make a portfolio manager that keeps to `risk_mgr`'s limits."""
    return PortfolioManager(risk_manager=risk_mgr, sessions_per_year=sessions_per_year)
