"""The trading convention: one object that every engine obeys (docs/conventions.md says it in words)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["REFERENCE", "Convention"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Convention:
    """How a decision becomes a fill, a cost and a number.

    Parameters
    ----------
    fill : {"next_open", "same_close"}
        Where a decision taken on the close of session t is filled: the open of t + 1, or (optimistic, for comparison) the
        close of t itself.
    slippage_bps : float
        Added to the fill price of a buy and taken off that of a sale, in basis points.
    fee_bps : float
        Fee on the notional of each fill, in basis points, both sides.
    initial_cash : float
        Account currency.
    fractional : bool
        Whether quantities may be fractions of a share.
    cash_interest_ann : float
        Yearly rate earned on idle cash, as a fraction.
    risk_free_ann : float
        Yearly rate taken off returns in Sharpe and Sortino, as a fraction.
    sessions_per_year : float
        Annualisation factor.
    """

    fill: Literal["next_open", "same_close"] = "next_open"
    slippage_bps: float = 5.0
    fee_bps: float = 10.0
    initial_cash: float = 100_000.0
    fractional: bool = True
    cash_interest_ann: float = 0.0
    risk_free_ann: float = 0.0
    sessions_per_year: float = 252.0

    @property
    def slippage(self) -> float:
        """Slippage as a fraction of price."""
        return self.slippage_bps / 10_000.0

    @property
    def fee(self) -> float:
        """Fee as a fraction of notional."""
        return self.fee_bps / 10_000.0

    def as_dict(self) -> dict[str, Any]:
        """Every field, for hashing, logging and the strategy's specification."""
        return asdict(self)


REFERENCE = Convention()
