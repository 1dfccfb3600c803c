"""What a fill costs: commission, spread and slippage, as the simulated broker charges them and a plan reckons with them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from config.conventions import Convention
from execution.orders import Side, decimal_of, exact

__all__ = ["CostModel"]

_BPS = Decimal(10_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Costs of one fill; all of them nought or more.

    Parameters
    ----------
    fee_bps : Decimal
        Commission on notional, basis points.
    per_order_usd, per_share_usd : Decimal
        Commission for each fill and each share.
    half_spread_bps, slippage_bps : Decimal
        Added to the price of a buy, taken off that of a sale.
    """

    fee_bps: Decimal = Decimal(0)
    per_order_usd: Decimal = Decimal(0)
    per_share_usd: Decimal = Decimal(0)
    half_spread_bps: Decimal = Decimal(0)
    slippage_bps: Decimal = Decimal(0)

    @classmethod
    def from_convention(cls, convention: Convention) -> CostModel:
        """The costs of the trading convention."""
        return cls(
            fee_bps=decimal_of(convention.fee_bps, "convention.fee_bps"),
            slippage_bps=decimal_of(convention.slippage_bps, "convention.slippage_bps"),
        )

    def fill_price(self, side: Side, market: Decimal) -> Decimal:
        """The price paid or received a share, when the market is at `market`."""
        with exact():
            move = (self.half_spread_bps + self.slippage_bps) / _BPS
            return market * (1 + move if side == "buy" else 1 - move)

    def fee(self, quantity: Decimal, price: Decimal) -> Decimal:
        """The commission on a fill of `quantity` (positive) at `price`."""
        with exact():
            return self.per_order_usd + quantity * self.variable_fee(price)

    def variable_fee(self, price: Decimal) -> Decimal:
        """The part of the commission that grows with quantity, a share."""
        with exact():
            return self.per_share_usd + price * self.fee_bps / _BPS

    def share_cost(self, market: Decimal) -> Decimal:
        """Cash that buying one share takes, the commission for the order itself aside."""
        with exact():
            price = self.fill_price("buy", market)
            return price + self.variable_fee(price)
