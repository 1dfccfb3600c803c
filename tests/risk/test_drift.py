"""Drift: every part by a hand calculation, the sum exact, and a residual that shows what nobody can explain."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import InputError
from risk.drift import PARTS, Drift, DriftFill, DriftPlan, explain_drift

DAY, NEXT = date(2026, 11, 19), date(2026, 11, 20)


def fill(quantity: float, price: float, *, reference: float | None = None, fee: float = 0.0, **changes: Any) -> DriftFill:
    given: dict[str, Any] = {"session": DAY, "symbol": "SPY", **changes}
    return DriftFill(quantity=quantity, price=price, fee=fee, reference=price if reference is None else reference, **given)


def profit(fills: list[DriftFill], marks: dict[str, float]) -> Decimal:
    """What a ledger would show: cash out and in, plus what is held at the marks."""
    cash, held = Decimal(0), dict.fromkeys(marks, Decimal(0))
    for one in fills:
        cash -= Decimal(str(one.quantity)) * Decimal(str(one.price)) + Decimal(str(one.fee))
        held[one.symbol] += Decimal(str(one.quantity))
    return cash + sum((quantity * Decimal(str(marks[symbol])) for symbol, quantity in held.items()), Decimal(0))


def drift(expected: list[DriftFill], achieved: list[DriftFill], mark: float = 110.0, **given: Any) -> Drift:
    """The drift of two accounts that start with 1,000 and whose statements a ledger made."""
    marks = {"SPY": mark}
    return explain_drift(
        expected_fills=expected,
        achieved_fills=achieved,
        marks=marks,
        expected_equity=(1000, 1000 + profit(expected, given.get("revised_marks", marks))),
        achieved_equity=(1000, 1000 + profit(achieved, marks)),
        **given,
    )


def only(found: Drift, **parts: str) -> None:
    """Exactly these parts are not nought, they make the whole difference, and nothing is left."""
    assert {name: value for name, value in found.parts.items() if value != 0} == {n: Decimal(v) for n, v in parts.items()}
    assert found.residual == 0
    assert found.difference == sum((Decimal(value) for value in parts.values()), Decimal(0))
    assert tuple(found.parts) == PARTS


def test_two_equal_accounts_do_not_drift() -> None:
    found = drift([fill(2, 100.05, reference=100, fee=0.2)], [fill(2, 100.05, reference=100, fee=0.2)])
    only(found)
    assert found.expected == Decimal("19.7")  # 2 × (110 − 100.05) − 0.2


def test_a_fee_is_a_fee() -> None:
    only(drift([fill(2, 100, fee=0.2)], [fill(2, 100, fee=0.5)]), fees="-0.3")


def test_a_worse_price_in_the_same_market_is_slippage() -> None:
    # 2 shares at 100.25 for 100.05, the market at 100 for both: 2 × 0.20.
    only(drift([fill(2, 100.05, reference=100)], [fill(2, 100.25, reference=100)]), spread_and_slippage="-0.4")


def test_a_smaller_order_is_sizing() -> None:
    # Half a share less that would have earned 10.
    only(drift([fill(2, 100)], [fill(1.5, 100)]), sizing_and_rounding="-5")


def test_a_rejected_order_is_what_it_would_have_earned() -> None:
    plan = DriftPlan(due=DAY, symbol="SPY", quantity=2, reference=100, unfilled="rejected")
    only(drift([fill(2, 100)], [], planned=[plan]), rejected="-20")


def test_a_missed_session_is_told_from_another_signal() -> None:
    only(drift([fill(2, 100)], [], planned=[], missed_sessions=[DAY]), missed_session="-20")
    only(drift([fill(2, 100)], [], planned=[]), signal="-20")
    opposite = DriftPlan(due=DAY, symbol="SPY", quantity=-1, reference=100)
    only(drift([fill(2, 100)], [fill(-1, 100)], planned=[opposite]), signal="-30")


def test_a_late_fill_costs_what_the_market_moved() -> None:
    plan = DriftPlan(due=DAY, symbol="SPY", quantity=2, reference=100)
    late = fill(2, 103, session=NEXT, due=DAY)
    only(drift([fill(2, 100)], [late], planned=[plan]), late="-6")


def test_a_price_that_was_revised_is_data_revision() -> None:
    # The backtest reads an open of 99 today; the account saw 100 then. The mark was 110 and is 111 now.
    only(drift([fill(2, 99)], [fill(2, 100)]), data_revision="-2")
    only(drift([fill(2, 100)], [fill(2, 100)], revised_marks={"SPY": 111.0}), data_revision="-2")


def test_a_decision_that_only_revised_data_makes_is_data_revision() -> None:
    only(drift([fill(2, 100)], [], planned=[], as_of_fills=[]), data_revision="-20")


def test_interest_is_named() -> None:
    found = explain_drift(
        expected_fills=[],
        achieved_fills=[],
        marks={},
        expected_equity=(1000, 1000),
        achieved_equity=(1000, 1001.5),
        achieved_interest=1.5,
    )
    only(found, cash_interest="1.5")


def test_cash_that_nobody_can_explain_is_the_residual_and_no_part_hides_it() -> None:
    marks, fills = {"SPY": 110.0}, [fill(2, 100, fee=0.2)]
    found = explain_drift(
        expected_fills=fills,
        achieved_fills=fills,
        marks=marks,
        expected_equity=(1000, 1000 + profit(fills, marks)),
        achieved_equity=(1000, 1000 + profit(fills, marks) - Decimal("12.34")),
    )
    assert found.residual == Decimal("-12.34")
    assert set(found.parts.values()) == {Decimal(0)}


def test_a_backtest_whose_fills_do_not_make_its_equity_is_a_residual_too() -> None:
    fills = [fill(2, 100)]
    found = explain_drift(
        expected_fills=fills, achieved_fills=fills, marks={"SPY": 110}, expected_equity=(1000, 1021), achieved_equity=(1000, 1020)
    )
    assert found.residual == Decimal(-1)


def test_holdings_from_before_the_window_are_counted_on_both_sides() -> None:
    found = explain_drift(
        expected_fills=[],
        achieved_fills=[],
        marks={"SPY": 110},
        revised_marks={"SPY": 112},
        expected_equity=(1000, 1006),
        achieved_equity=(1000, 1000),
        opening_positions={"SPY": 3},
    )
    only(found, data_revision="-6")


def test_a_symbol_without_a_mark_is_refused() -> None:
    with pytest.raises(InputError, match="no mark for SPY"):
        explain_drift(expected_fills=[fill(1, 100)], achieved_fills=[], marks={}, expected_equity=(1, 1), achieved_equity=(1, 1))


def test_a_fill_without_its_plan_is_refused() -> None:
    with pytest.raises(InputError, match="belongs to no plan"):
        drift([], [fill(1, 100)], planned=[])


_fills = st.lists(
    st.builds(
        lambda day, quantity, reference, slip, fee: fill(
            quantity / 1000, (reference + slip) / 100, reference=reference / 100, fee=fee / 100, session=date(2026, 11, day)
        ),
        st.integers(2, 6),
        st.integers(-5000, 5000).filter(bool),
        st.integers(5000, 15000),
        st.integers(-50, 50),
        st.integers(0, 500),
    ),
    max_size=6,
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(expected=_fills, achieved=_fills, as_of=st.none() | _fills, mark=st.integers(5000, 15000))
def test_whatever_happened_the_parts_sum_to_the_difference(
    expected: list[DriftFill], achieved: list[DriftFill], as_of: list[DriftFill] | None, mark: int
) -> None:
    found = drift(expected, achieved, mark / 100, as_of_fills=as_of)
    assert found.residual == 0
    assert found.expected + sum(found.parts.values()) == found.achieved
