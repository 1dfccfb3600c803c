"""A plan: target weights become frozen orders, priced once, with an id that the same decision always has.

1. `make_plan` takes targets, holdings, prices and cash and finds what must change (`_legs`).
2. Buys are cut until cash stays above its floor after fees and slippage (`_afford`).
3. Sales come first; each order gets its client id (`_request`).

The id comes from account, strategy version and session, never from the wall clock; the digest covers the content. The same id
with another digest is refused by the journal. After a crash the stored plan is run again (`Journal.plan`), not made anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from config.conventions import REFERENCE, Convention
from config.errors import InputError, OrderRefused
from config.hashing import digest, short
from config.settings import RiskSettings
from execution.costs import CostModel
from execution.orders import Mode, OrderRequest, Position, Quote, Side, TimeInForce, client_order_id, decimal_of, exact, round_down

__all__ = ["Plan", "PlanLimits", "make_order_plan", "make_plan", "plan_id"]

Weight = Decimal | float | None
_IN_FORCE: dict[str, TimeInForce] = {"next_open": "opg", "same_close": "cls"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanLimits:
    """What is too small to send, and what stays in cash. An exit is never too small.

    Parameters
    ----------
    min_quantity : Decimal
        Shares.
    min_notional_usd : Decimal
    cash_buffer : Decimal
        Fraction of equity that buys leave untouched.
    """

    min_quantity: Decimal = Decimal(0)
    min_notional_usd: Decimal = Decimal(0)
    cash_buffer: Decimal = Decimal(0)

    @classmethod
    def from_settings(cls, risk: RiskSettings) -> PlanLimits:
        """From section `risk` of the settings."""
        return cls(min_quantity=decimal_of(risk.min_order_size, "risk.min_order_size"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything that one decision will send, and what it was decided on.

    Parameters
    ----------
    plan_id : str
        From account, mode, strategy, version and session.
    session : date
        The session at whose close it was decided.
    version : str
        The strategy version (the digest of its specification).
    run_id : str or None
        The tracking run that the version came from.
    snapshot_id : str
        The lake snapshot that was read.
    targets : mapping of str to str
        Weight by symbol, as text; symbols without an opinion are absent.
    positions, quotes : mapping
        What was held and what it cost when the plan was priced.
    orders : tuple of OrderRequest
        In the order in which they are sent.
    """

    plan_id: str
    account_id: str
    mode: Mode
    strategy: str
    version: str
    session: date
    snapshot_id: str
    equity: Decimal
    cash: Decimal
    targets: Mapping[str, str]
    positions: Mapping[str, Decimal]
    quotes: Mapping[str, Quote]
    orders: tuple[OrderRequest, ...]
    run_id: str | None = None
    convention: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return digest(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Plain values; quantities and money as text."""
        return {
            "plan_id": self.plan_id,
            "account_id": self.account_id,
            "mode": self.mode,
            "strategy": self.strategy,
            "version": self.version,
            "session": self.session.isoformat(),
            "snapshot_id": self.snapshot_id,
            "run_id": self.run_id,
            "equity": str(self.equity),
            "cash": str(self.cash),
            "targets": dict(sorted(self.targets.items())),
            "positions": {symbol: str(quantity) for symbol, quantity in sorted(self.positions.items())},
            "quotes": {s: {"price": str(q.price), "at": q.at.isoformat()} for s, q in sorted(self.quotes.items())},
            "convention": dict(self.convention),
            "orders": [
                {
                    "client_order_id": order.client_order_id,
                    "symbol": order.symbol,
                    "side": order.side,
                    "quantity": f"{order.quantity:f}",
                    "order_type": order.order_type,
                    "time_in_force": order.time_in_force,
                    "part": order.part,
                }
                for order in self.orders
            ],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Plan:
        """Read a stored plan back; equal content gives an equal digest."""
        quotes = {s: Quote(price=Decimal(q["price"]), at=datetime.fromisoformat(q["at"])) for s, q in document["quotes"].items()}
        return cls(
            plan_id=document["plan_id"],
            account_id=document["account_id"],
            mode=document["mode"],
            strategy=document["strategy"],
            version=document["version"],
            session=date.fromisoformat(document["session"]),
            snapshot_id=document["snapshot_id"],
            run_id=document["run_id"],
            equity=Decimal(document["equity"]),
            cash=Decimal(document["cash"]),
            targets=dict(document["targets"]),
            positions={symbol: Decimal(quantity) for symbol, quantity in document["positions"].items()},
            quotes=quotes,
            convention=dict(document["convention"]),
            orders=tuple(OrderRequest(**{**order, "quantity": Decimal(order["quantity"])}) for order in document["orders"]),
        )


def plan_id(account_id: str, strategy: str, version: str, session: date, mode: Mode = "paper") -> str:
    """The id of the plan of one strategy version for one session in one account."""
    return f"plan-{short(digest([account_id, mode, strategy, version, session.isoformat()]), 20)}"


def make_plan(
    *,
    account_id: str,
    strategy: str,
    version: str,
    session: date,
    targets: Mapping[str, Weight],
    positions: Mapping[str, Decimal] | Iterable[Position],
    prices: Mapping[str, Quote],
    equity: Decimal | float,
    cash: Decimal | float,
    snapshot_id: str,
    run_id: str | None = None,
    mode: Mode = "paper",
    previous: Mapping[str, Weight] | None = None,
    convention: Convention = REFERENCE,
    time_in_force: TimeInForce | None = None,
    costs: CostModel | None = None,
    limits: PlanLimits | None = None,
) -> Plan:
    """Turn target weights into a frozen plan.

    Parameters
    ----------
    session : date
        The session at whose close the targets were decided.
    targets : mapping of str to float or None
        Fraction of equity by symbol. None and NaN: no opinion, what is held stays. Nought: exit.
    positions : mapping of str to Decimal, or iterable of Position
        Shares held now.
    prices : mapping of str to Quote
        One for each symbol that is to be traded.
    previous : mapping, optional
        The targets of the plan before (`Journal.last_targets`). A symbol whose target has not changed is not traded: that is
        the convention of every engine. Without it every symbol that is off its target is traded.
    time_in_force : {"day", "opg", "cls"}, optional
        From the convention when not given: the next opening, or the same close.
    costs : CostModel, optional
        From the convention when not given.

    Raises
    ------
    OrderRefused
        Rule ``no_price``: a symbol must be traded and has no price.
    InputError
        A number is missing, infinite, or equity is not positive.

    Notes
    -----
    Quantity = weight × equity / price, rounded down to nine decimals (or whole shares). Where buys would take cash below its
    floor after slippage and fees, all of them are cut in proportion; so from flat to weight 1 the quantity is
    cash / (fill × (1 + fee)), as docs/conventions.md says.
    """
    worth, money = decimal_of(equity, "equity"), decimal_of(cash, "cash")
    if worth <= 0:
        raise InputError(f"equity {worth} of account {account_id} is not positive; nothing can be sized on it")
    held = _held(positions)
    wanted = _weights(targets)
    model = costs if costs is not None else CostModel.from_convention(convention)
    bounds = limits if limits is not None else PlanLimits()
    changed = wanted if previous is None else {s: w for s, w in wanted.items() if w != _weights(previous).get(s)}
    with exact():
        legs = _legs(changed, held, prices, worth, bounds, fractional=convention.fractional)
        floor = bounds.cash_buffer * worth - max(Decimal(0), sum(wanted.values(), Decimal(0)) - 1) * worth
        legs = _afford(legs, money - floor, prices, model, bounds, fractional=convention.fractional)
    name = plan_id(account_id, strategy, version, session, mode)
    in_force = time_in_force if time_in_force is not None else _IN_FORCE[convention.fill]
    legs.sort(key=lambda leg: (leg.side != "sell", leg.symbol, leg.part))
    return Plan(
        plan_id=name,
        account_id=account_id,
        mode=mode,
        strategy=strategy,
        version=version,
        session=session,
        snapshot_id=snapshot_id,
        run_id=run_id,
        equity=worth,
        cash=money,
        targets={symbol: f"{weight:f}" for symbol, weight in wanted.items()},
        positions=held,
        quotes=dict(sorted(prices.items())),  # all of them: the guard values what is held and what is working too
        convention=convention.as_dict(),
        orders=tuple(_request(leg, account_id, strategy, name, in_force) for leg in legs),
    )


def make_order_plan(
    *,
    account_id: str,
    label: str,
    session: date,
    orders: Iterable[tuple[str, Side, Decimal]],
    positions: Mapping[str, Decimal] | Iterable[Position],
    prices: Mapping[str, Quote],
    equity: Decimal,
    cash: Decimal,
    mode: Mode = "paper",
    time_in_force: TimeInForce = "day",
) -> Plan:
    """Turn a list of orders given by hand into a plan of strategy ``manual``; `label` tells one such plan from the next."""
    name = plan_id(account_id, "manual", label, session, mode)
    given = [_Leg(symbol, side, quantity, part) for part, (symbol, side, quantity) in enumerate(orders, start=1)]
    return Plan(
        plan_id=name,
        account_id=account_id,
        mode=mode,
        strategy="manual",
        version=label,
        session=session,
        snapshot_id="",
        equity=equity,
        cash=cash,
        targets={},
        positions=_held(positions),
        quotes=dict(prices),
        orders=tuple(_request(leg, account_id, "manual", name, time_in_force) for leg in given),
    )


@dataclass(frozen=True, slots=True)
class _Leg:
    symbol: str
    side: Side
    quantity: Decimal
    part: int = 1
    opening: bool = True


def _held(positions: Mapping[str, Decimal] | Iterable[Position]) -> dict[str, Decimal]:
    if isinstance(positions, Mapping):
        pairs = [(symbol, decimal_of(quantity, f"position {symbol}")) for symbol, quantity in positions.items()]
    else:
        pairs = [(position.symbol, position.quantity) for position in positions]
    return {symbol: quantity for symbol, quantity in pairs if quantity != 0}


def _weights(targets: Mapping[str, Weight]) -> dict[str, Decimal]:
    """The opinions among the targets."""
    given = {s: w for s, w in targets.items() if w is not None and not (isinstance(w, float) and math.isnan(w))}
    return {str(symbol): decimal_of(weight, f"target {symbol}") for symbol, weight in given.items()}


def _legs(
    wanted: Mapping[str, Decimal],
    held: Mapping[str, Decimal],
    prices: Mapping[str, Quote],
    equity: Decimal,
    limits: PlanLimits,
    *,
    fractional: bool,
) -> list[_Leg]:
    """What must change, a leg or two a symbol: closing ones in full, opening ones rounded down and large enough."""
    legs: list[_Leg] = []
    for symbol, weight in sorted(wanted.items()):
        have = held.get(symbol, Decimal(0))
        if weight == 0 and have == 0:
            continue
        if symbol not in prices:
            raise OrderRefused(
                f"{symbol}: no price, target weight {weight}", rule="no_price", remedy="ingest the symbol, or drop its target"
            )
        price = prices[symbol].price
        want = weight * equity / price
        part = 1
        if have != 0 and (want == 0 or (want > 0) != (have > 0)):
            legs.append(_Leg(symbol, "sell" if have > 0 else "buy", abs(have), part, opening=False))
            have, part = Decimal(0), 2
        change = want - have
        quantity = round_down(abs(change), fractional=fractional)
        if quantity > 0 and quantity >= limits.min_quantity and quantity * price >= limits.min_notional_usd:
            side: Side = "buy" if change > 0 else "sell"
            legs.append(_Leg(symbol, side, quantity, part, opening=abs(want) > abs(have)))
    return legs


def _afford(
    legs: list[_Leg],
    available: Decimal,
    prices: Mapping[str, Quote],
    costs: CostModel,
    limits: PlanLimits,
    *,
    fractional: bool,
) -> list[_Leg]:
    """Cut the opening buys in proportion until what they take is there."""
    budget, variable = available, Decimal(0)
    for leg in legs:
        market = prices[leg.symbol].price
        budget -= costs.per_order_usd
        if leg.side == "sell":
            price = costs.fill_price("sell", market)
            budget += leg.quantity * (price - costs.variable_fee(price))
        elif leg.opening:
            variable += leg.quantity * costs.share_cost(market)
        else:
            budget -= leg.quantity * costs.share_cost(market)
    if variable <= budget:
        return legs
    ratio = max(Decimal(0), budget) / variable
    kept: list[_Leg] = []
    for leg in legs:
        if leg.side == "buy" and leg.opening:
            quantity = round_down(leg.quantity * ratio, fractional=fractional)
            enough = quantity >= limits.min_quantity and quantity * prices[leg.symbol].price >= limits.min_notional_usd
            if quantity > 0 and enough:
                kept.append(replace(leg, quantity=quantity))
        else:
            kept.append(leg)
    return kept


def _request(leg: _Leg, account_id: str, strategy: str, plan: str, in_force: TimeInForce) -> OrderRequest:
    return OrderRequest(
        client_order_id=client_order_id(account_id, strategy, plan, leg.symbol, leg.part),
        symbol=leg.symbol,
        side=leg.side,
        quantity=leg.quantity,
        time_in_force=in_force,
        part=leg.part,
    )
