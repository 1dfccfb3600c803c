"""Why an account did not earn what its shadow backtest did: the difference, attributed, with nothing hidden in a remainder.

`explain_drift` walks from the backtest's profit to the account's in steps, one decision (session and symbol) at a time:

1. *data_revision*: the same decisions on the data as it was then;
2. *signal*, *missed_session*, *sizing_and_rounding*: what was planned instead (`_planned`);
3. *rejected*, *sizing_and_rounding*: what of the plan was not filled, by the reason given (`_planned` too);
4. *late*: filled in another session than meant (`_planned` too);
5. *spread_and_slippage*, *fees*, *cash_interest*: what was paid and received besides.

The residual is not what is left over of that sum by construction: it comes from both sides' own equity statements (for an account:
its broker's cash plus positions at the marks). A cash change that no fill, fee or interest explains appears there.
"""

from __future__ import annotations

import decimal
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal

from config.errors import InputError

__all__ = ["PARTS", "Drift", "DriftFill", "DriftPlan", "explain_drift"]

Number = Decimal | float | int
UnfilledReason = Literal["rejected", "missed_session", "sizing_and_rounding"]

PARTS = (
    "data_revision",
    "signal",
    "missed_session",
    "sizing_and_rounding",
    "rejected",
    "late",
    "spread_and_slippage",
    "fees",
    "cash_interest",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftFill:
    """One fill, of the backtest or of the account.

    Parameters
    ----------
    session : date
        The session it happened in.
    quantity : number
        Shares; bought positive, sold negative.
    price : number
        Paid or received a share, spread and slippage included, fee not.
    fee : number
        Positive, account currency.
    reference : number
        The market's price before spread and slippage (the open, for the reference convention).
    due : date, optional
        The session it was meant for; `session` when not given.
    """

    session: date
    symbol: str
    quantity: Number
    price: Number
    fee: Number
    reference: Number
    due: date | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftPlan:
    """What the account's plan meant to trade in session `due`.

    Parameters
    ----------
    quantity : number
        Shares; to buy positive, to sell negative.
    reference : number
        The market's price in that session, at the moment the fill was due.
    unfilled : {"rejected", "missed_session", "sizing_and_rounding"}
        What to call a part of it that was not filled.
    """

    due: date
    symbol: str
    quantity: Number
    reference: Number
    unfilled: UnfilledReason = "rejected"


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """The difference between two profits, attributed.

    Parameters
    ----------
    expected, achieved : Decimal
        Profit over the window by each side's own equity statement, account currency.
    parts : mapping of str to Decimal
        Every name of `PARTS`; positive where the account did better.
    residual : Decimal
        achieved − expected − the sum of the parts: what the fills, fees and interest of both sides do not explain.
    """

    expected: Decimal
    achieved: Decimal
    parts: Mapping[str, Decimal] = field(default_factory=dict)
    residual: Decimal = Decimal(0)

    @property
    def difference(self) -> Decimal:
        """achieved − expected."""
        return self.achieved - self.expected


def explain_drift(
    *,
    expected_fills: Iterable[DriftFill],
    achieved_fills: Iterable[DriftFill],
    marks: Mapping[str, Number],
    expected_equity: tuple[Number, Number],
    achieved_equity: tuple[Number, Number],
    planned: Iterable[DriftPlan] | None = None,
    revised_marks: Mapping[str, Number] | None = None,
    as_of_fills: Iterable[DriftFill] | None = None,
    missed_sessions: Collection[date] = (),
    expected_interest: Number = 0,
    achieved_interest: Number = 0,
    opening_positions: Mapping[str, Number] | None = None,
) -> Drift:
    """Attribute the difference between a shadow backtest and an account over the same sessions.

    Parameters
    ----------
    expected_fills, achieved_fills : iterable of DriftFill
        The shadow backtest's and the account's, in the window.
    marks : mapping
        Price of each symbol at the end of the window, as the account saw it.
    expected_equity, achieved_equity : tuple of (start, end)
        Each side's own statement: before the first fill and after the last mark.
    planned : iterable of DriftPlan, optional
        What the account's plans meant to do. Without them, what was filled is taken for what was meant.
    revised_marks : mapping, optional
        The marks in the data the backtest read, where it has been revised since.
    as_of_fills : iterable of DriftFill, optional
        The backtest's fills on the data as it was at each decision. Without them, prices of matching fills are compared.
    missed_sessions : collection of date
        Sessions in which the account did not trade at all.
    opening_positions : mapping, optional
        Shares that both sides held when the window opened.

    Returns
    -------
    Drift
        ``expected + sum(parts) + residual == achieved`` exactly.

    Raises
    ------
    InputError
        A traded or held symbol has no mark.

    Notes
    -----
    The profit of a fill of q shares at p is q × (mark − p) − fee, so profits are sums over fills and each step above is one
    difference of such sums. Floats are read by their shortest text; the arithmetic is exact.
    """
    with decimal.localcontext() as context:
        context.prec = 60
        ours = [_Fill.of(fill) for fill in achieved_fills]
        shadow = [_Fill.of(fill) for fill in expected_fills]
        then = shadow if as_of_fills is None else [_Fill.of(fill) for fill in as_of_fills]
        now_marks = {symbol: _number(price, f"mark of {symbol}") for symbol, price in marks.items()}
        old_marks = {**now_marks, **{s: _number(p, f"revised mark of {s}") for s, p in (revised_marks or {}).items()}}
        held = {symbol: _number(quantity, symbol) for symbol, quantity in (opening_positions or {}).items()}
        _require_marks([*ours, *shadow, *then], held, now_marks)
        plans = _merge_plans(planned, ours)
        parts = dict.fromkeys(PARTS, Decimal(0))
        references = _references(ours, plans)
        if as_of_fills is None:
            then = [_repriced(fill, references) for fill in shadow]
        parts["data_revision"] = _market(then, now_marks) - _market(shadow, old_marks) - (_slip(then) - _slip(shadow))
        parts["data_revision"] -= _fees(then) - _fees(shadow)
        parts["data_revision"] += sum((quantity * (now_marks[s] - old_marks[s]) for s, quantity in held.items()), Decimal(0))
        _planned(parts, then, plans, ours, now_marks, missed_sessions)
        parts["spread_and_slippage"] = _slip(then) - _slip(ours)
        parts["fees"] = _fees(then) - _fees(ours)
        parts["cash_interest"] = _number(achieved_interest, "achieved_interest") - _number(expected_interest, "expected_interest")
        expected = _number(expected_equity[1], "expected_equity") - _number(expected_equity[0], "expected_equity")
        achieved = _number(achieved_equity[1], "achieved_equity") - _number(achieved_equity[0], "achieved_equity")
        residual = achieved - expected - sum(parts.values(), Decimal(0))
        return Drift(expected=expected, achieved=achieved, parts=parts, residual=residual)


@dataclass(frozen=True, slots=True)
class _Fill:
    due: date
    session: date
    symbol: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    reference: Decimal

    @classmethod
    def of(cls, fill: DriftFill) -> _Fill:
        where = f"fill of {fill.symbol} on {fill.session}"
        numbers = [_number(value, where) for value in (fill.quantity, fill.price, fill.fee, fill.reference)]
        return cls(fill.due or fill.session, fill.session, fill.symbol, *numbers)

    @property
    def key(self) -> tuple[date, str]:
        return self.due, self.symbol


_Key = tuple[date, str]
_Plans = dict[_Key, tuple[Decimal, Decimal, str]]


def _number(value: Number, where: str) -> Decimal:
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if not number.is_finite():
        raise InputError(f"drift: {where} is {value}", remedy="a drift needs every price and quantity; find the missing one")
    return number


def _require_marks(fills: Sequence[_Fill], held: Mapping[str, Decimal], marks: Mapping[str, Decimal]) -> None:
    missing = sorted(({fill.symbol for fill in fills} | set(held)) - set(marks))
    if missing:
        raise InputError(f"drift: no mark for {', '.join(missing)}", remedy="pass the last close of every symbol traded or held")


def _merge_plans(planned: Iterable[DriftPlan] | None, ours: Sequence[_Fill]) -> _Plans:
    """Signed quantity, market price and name for what stays unfilled, by decision."""
    plans: _Plans = {}
    if planned is None:
        for fill in ours:
            have = plans.get(fill.key, (Decimal(0), fill.reference, "rejected"))
            plans[fill.key] = (have[0] + fill.quantity, have[1], have[2])
        return plans
    for plan in planned:
        key = (plan.due, plan.symbol)
        have = plans.get(key, (Decimal(0), Decimal(0), ""))
        where = f"plan of {plan.symbol} for {plan.due}"
        plans[key] = (have[0] + _number(plan.quantity, where), _number(plan.reference, where), plan.unfilled)
    unplanned = [fill for fill in ours if fill.key not in plans]
    if unplanned:
        first = unplanned[0]
        raise InputError(
            f"drift: a fill of {first.symbol} due {first.due} belongs to no plan", remedy="pass every plan of the window"
        )
    return plans


def _references(ours: Sequence[_Fill], plans: _Plans) -> dict[_Key, Decimal]:
    """The market's price at each decision's due moment, as the account saw it."""
    seen = {fill.key: fill.reference for fill in ours if fill.session == fill.due}
    return {**{key: plan[1] for key, plan in plans.items()}, **seen}


def _repriced(fill: _Fill, references: Mapping[_Key, Decimal]) -> _Fill:
    """A fill of the shadow at the market price the account saw, its slippage in proportion and its fee as they were."""
    reference = references.get(fill.key, fill.reference)
    return _Fill(fill.due, fill.session, fill.symbol, fill.quantity, reference + (fill.price - fill.reference), fill.fee, reference)


def _market(fills: Iterable[_Fill], marks: Mapping[str, Decimal]) -> Decimal:
    return sum((fill.quantity * (marks[fill.symbol] - fill.reference) for fill in fills), Decimal(0))


def _slip(fills: Iterable[_Fill]) -> Decimal:
    return sum((fill.quantity * (fill.price - fill.reference) for fill in fills), Decimal(0))


def _fees(fills: Iterable[_Fill]) -> Decimal:
    return sum((fill.fee for fill in fills), Decimal(0))


def _planned(
    parts: dict[str, Decimal],
    then: Sequence[_Fill],
    plans: _Plans,
    ours: Sequence[_Fill],
    marks: Mapping[str, Decimal],
    missed: Collection[date],
) -> None:
    """From the shadow's quantities to the filled ones, decision by decision."""
    shadow: dict[_Key, list[_Fill]] = defaultdict(list)
    filled: dict[_Key, list[_Fill]] = defaultdict(list)
    for fill in then:
        shadow[fill.key].append(fill)
    for fill in ours:
        filled[fill.key].append(fill)
    for key in sorted({*shadow, *plans}):
        due, symbol = key
        mark = marks[symbol]
        want = sum((fill.quantity for fill in shadow[key]), Decimal(0))
        plan, reference, unfilled = plans.get(key, (Decimal(0), shadow[key][0].reference if shadow[key] else mark, "rejected"))
        have = sum((fill.quantity for fill in filled[key]), Decimal(0))
        # The shadow's own fills of one decision may be at several prices; what they earned is counted at those.
        earned = sum((fill.quantity * (mark - fill.reference) for fill in shadow[key]), Decimal(0))
        name = "sizing_and_rounding"
        if want == 0 or plan == 0 or (want > 0) != (plan > 0):
            name = "missed_session" if due in missed else "signal"
        parts[name] += plan * (mark - reference) - earned
        parts[unfilled] -= (plan - have) * (mark - reference)
        parts["late"] += sum((fill.quantity * (reference - fill.reference) for fill in filled[key]), Decimal(0))
