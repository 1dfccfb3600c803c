"""Options strategies as data: shares held, legs over them, and when to roll, take profit, stop or stand aside.

1. A strategy class checks its parameters and writes them down as `Overlay` and `Leg` (`CoveredCallsStrategy.overlay`).
2. `choose` finds the contract of a leg in a session's snapshot: expiry by days, then strike by delta.
3. `wanted_contracts` says how many whole contracts the leg's ratio allows over the shares held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from backtests.options.chain import ChainBook, deltas
from config.errors import InputError, UnknownNameError, did_you_mean

__all__ = [
    "OPTION_STRATEGIES",
    "CoveredCallsStrategy",
    "Leg",
    "OptionStrategy",
    "Overlay",
    "ProtectivePutsStrategy",
    "choose",
    "make_strategy",
    "wanted_contracts",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """One option leg over the shares.

    Parameters
    ----------
    right : {"C", "P"}
    side : {"sell", "buy"}
    delta_target : float
        Signed: positive for calls, negative for puts.
    dte_min, dte_max : int
        Calendar days to expiry at entry, both included.
    dte_target : int
        The expiry nearest to it is taken; of two equally near, the earlier.
    ratio_min, ratio_max : float
        Bounds of contracts times multiplier over shares held, kept at entry and whenever the share count changes.
    roll_dte : int
        Closed and replaced at this many days to expiry or fewer; 0 holds to expiry.
    profit_target : float, optional
        Closed when the gain reaches this fraction of the entry price.
    stop_loss : float, optional
        Closed when the loss reaches this fraction of the entry price.
    """

    right: Literal["C", "P"]
    side: Literal["sell", "buy"]
    delta_target: float
    dte_min: int
    dte_max: int
    dte_target: int
    ratio_min: float = 0.0
    ratio_max: float
    roll_dte: int = 0
    profit_target: float | None = None
    stop_loss: float | None = None

    @property
    def sign(self) -> int:
        """1 for a bought leg, -1 for a sold one."""
        return 1 if self.side == "buy" else -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlay:
    """Shares and the legs over them.

    Parameters
    ----------
    underlying_weight : float
        Fraction of equity held in shares; the rest is cash for settlements and premiums.
    rebalance_band : float
        Shares are traded back to `underlying_weight` when their weight is further from it than this and cash allows; whatever the
        band, shares are sold when a settlement left cash negative.
    legs : tuple of Leg
    risk_regime_max : float, optional
        No leg is opened while the risk level is above it, or unknown.
    """

    underlying_weight: float
    rebalance_band: float
    legs: tuple[Leg, ...]
    risk_regime_max: float | None = None


@runtime_checkable  # Prefect builds a schema of the flow that takes one
class OptionStrategy(Protocol):
    """What an options strategy offers: a name, a family, parameters, and itself as data."""

    name: ClassVar[str]
    family: ClassVar[str]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters, by name; `commission_usd` and `rate_ann` are among them."""
        ...

    def overlay(self) -> Overlay:
        """The strategy as data."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Common:
    """Parameters of every overlay; see `Overlay` and `Leg`.

    `commission_usd` is paid per contract on every option fill (not on expiry); `rate_ann` discounts when deltas are computed.
    """

    underlying_weight: float = 0.95
    rebalance_band: float = 0.04
    profit_target: float | None = None
    stop_loss: float | None = None
    commission_usd: float = 0.65
    rate_ann: float = 0.01

    @property
    def params(self) -> dict[str, Any]:
        """The parameters, by name."""
        return asdict(self)

    def _check(self, name: str, ranges: Mapping[str, tuple[float, float]]) -> None:
        common: dict[str, tuple[float, float]] = {
            "underlying_weight": (0.0, 1.0),
            "rebalance_band": (0.0, 1.0),
            "profit_target": (0.0, math.inf),
            "stop_loss": (0.0, math.inf),
            "commission_usd": (0.0, 100.0),
            "rate_ann": (-0.1, 1.0),
        }
        for parameter, (low, high) in {**common, **ranges}.items():
            value = getattr(self, parameter)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise InputError(f"{name}: {parameter} is {value!r}; it must be a number from {low:g} to {high:g}")


@dataclass(frozen=True, kw_only=True)
class CoveredCallsStrategy(_Common):
    """Calls sold against shares held.

    Parameters
    ----------
    call_delta_target : float
        Delta of the calls sold.
    call_dte_min, call_dte_max : int
        Days to expiry at entry; the expiry nearest the middle is taken.
    cover_ratio_max : float
        At most this fraction of the shares is called away: contracts are rounded down.
    risk_regime_max : float, optional
        Nothing is sold while the risk level is above it.
    call_roll_dte : int
        Bought back and sold anew at this many days or fewer; 0 holds to expiry.
    """

    name: ClassVar[str] = "CoveredCallsStrategy"
    family: ClassVar[str] = "covered_calls"

    call_delta_target: float = 0.15
    call_dte_min: int = 30
    call_dte_max: int = 60
    cover_ratio_max: float = 0.6
    risk_regime_max: float | None = None
    call_roll_dte: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "call_delta_target": (0.001, 0.999),
            "call_dte_min": (1, 3650),
            "call_dte_max": (1, 3650),
            "cover_ratio_max": (0.0, 1.0),
            "call_roll_dte": (0, 3650),
        }
        self._check(self.name, ranges)
        if self.call_dte_min > self.call_dte_max or self.call_roll_dte >= self.call_dte_min:
            raise InputError(
                f"{self.name}: call_roll_dte {self.call_roll_dte}, call_dte_min {self.call_dte_min} and call_dte_max "
                f"{self.call_dte_max} are not ascending"
            )

    def overlay(self) -> Overlay:
        """The strategy as data."""
        leg = Leg(
            right="C",
            side="sell",
            delta_target=self.call_delta_target,
            dte_min=self.call_dte_min,
            dte_max=self.call_dte_max,
            dte_target=(self.call_dte_min + self.call_dte_max) // 2,
            ratio_max=self.cover_ratio_max,
            roll_dte=self.call_roll_dte,
            profit_target=self.profit_target,
            stop_loss=self.stop_loss,
        )
        return Overlay(
            underlying_weight=self.underlying_weight,
            rebalance_band=self.rebalance_band,
            legs=(leg,),
            risk_regime_max=self.risk_regime_max,
        )


@dataclass(frozen=True, kw_only=True)
class ProtectivePutsStrategy(_Common):
    """Puts bought against shares held.

    Parameters
    ----------
    put_delta_target : float
        Delta of the puts bought, negative.
    put_dte_target : int
        Days to expiry at entry; the nearest listed expiry later than `put_roll_dte` is taken.
    protection_ratio_min, protection_ratio_max : float
        Bounds of the fraction of the shares that is protected. As many whole contracts as the upper bound allows; none, and a
        log entry that says so, where whole contracts cannot reach the lower bound.
    put_roll_dte : int
        Sold and bought anew at this many days or fewer; 0 holds to expiry.
    """

    name: ClassVar[str] = "ProtectivePutsStrategy"
    family: ClassVar[str] = "protective_puts"

    put_delta_target: float = -0.20
    put_dte_target: int = 90
    protection_ratio_min: float = 0.4
    protection_ratio_max: float = 0.8
    put_roll_dte: int = 30
    risk_regime_max: float | None = None

    def __post_init__(self) -> None:
        ranges = {
            "put_delta_target": (-0.999, -0.001),
            "put_dte_target": (1, 3650),
            "protection_ratio_min": (0.0, 1.0),
            "protection_ratio_max": (0.0, 1.0),
            "put_roll_dte": (0, 3650),
        }
        self._check(self.name, ranges)
        if self.protection_ratio_min > self.protection_ratio_max:
            raise InputError(
                f"{self.name}: protection_ratio_min {self.protection_ratio_min} is above protection_ratio_max "
                f"{self.protection_ratio_max}"
            )
        if self.put_roll_dte >= self.put_dte_target:
            raise InputError(f"{self.name}: put_roll_dte {self.put_roll_dte} is not below put_dte_target {self.put_dte_target}")

    def overlay(self) -> Overlay:
        """The strategy as data."""
        leg = Leg(
            right="P",
            side="buy",
            delta_target=self.put_delta_target,
            dte_min=self.put_roll_dte + 1,
            dte_max=3650,
            dte_target=self.put_dte_target,
            ratio_min=self.protection_ratio_min,
            ratio_max=self.protection_ratio_max,
            roll_dte=self.put_roll_dte,
            profit_target=self.profit_target,
            stop_loss=self.stop_loss,
        )
        return Overlay(
            underlying_weight=self.underlying_weight,
            rebalance_band=self.rebalance_band,
            legs=(leg,),
            risk_regime_max=self.risk_regime_max,
        )


OPTION_STRATEGIES: dict[str, type[CoveredCallsStrategy] | type[ProtectivePutsStrategy]] = {
    strategy.name: strategy for strategy in (CoveredCallsStrategy, ProtectivePutsStrategy)
}


def make_strategy(name: str, params: Mapping[str, Any] | None = None) -> OptionStrategy:
    """An options strategy by its name.

    Raises
    ------
    UnknownNameError
        No options strategy has that name.
    InputError
        An unknown parameter, or a value outside its range.
    """
    if name not in OPTION_STRATEGIES:
        raise UnknownNameError(f"no options strategy is called {name!r}", remedy=did_you_mean(name, tuple(OPTION_STRATEGIES)))
    kind = OPTION_STRATEGIES[name]
    known = [item.name for item in fields(kind)]
    for parameter in params or {}:
        if parameter not in known:
            raise InputError(f"{name} has no parameter {parameter!r}", remedy=did_you_mean(parameter, known))
    return kind(**dict(params or {}))


def choose(book: ChainBook, session: pd.Timestamp, leg: Leg, spot: float, rate_ann: float) -> int | None:
    """The contract of a leg in a session's snapshot, by number; None where the snapshot has none.

    Among the expiries within the leg's days, the one nearest its target; in it, the strike whose delta is nearest the target
    (of two equally near, the one further out of the money). Only quotes with a bid and an ask that were known then count.
    """
    snapshot = book.on(session)
    if snapshot is None:
        return None
    days = (book.expiries[snapshot.contract] - session.to_datetime64()) / np.timedelta64(1, "D")
    good = snapshot.known & (snapshot.bid > 0.0) & (snapshot.ask >= snapshot.bid) & (days >= leg.dte_min) & (days <= leg.dte_max)
    mine = good & (book.is_call[snapshot.contract] == (leg.right == "C"))
    if not mine.any():
        return None
    listed = np.unique(days[mine])
    chosen = listed[int(np.argmin(np.abs(listed - leg.dte_target)))]
    expiry = good & (days == chosen)
    numbers = snapshot.contract[expiry]
    delta = deltas(book, session, numbers, (snapshot.bid + snapshot.ask)[expiry] / 2.0, spot, rate_ann)
    usable = mine[expiry] & np.isfinite(delta)
    if not usable.any():
        return None
    numbers, delta = numbers[usable], delta[usable]
    order = np.lexsort((np.abs(delta), np.round(np.abs(delta - leg.delta_target), 12)))
    return int(numbers[order[0]])


def wanted_contracts(leg: Leg, shares: float, multiplier: float) -> int:
    """As many whole contracts as the upper ratio allows; 0 where whole contracts cannot reach the lower one."""
    contracts = math.floor(leg.ratio_max * shares / multiplier + 1e-9)
    return contracts if contracts * multiplier >= leg.ratio_min * shares - 1e-9 else 0
