"""Prices, Greeks and implied volatilities, against published values, mpmath and the relations that bind them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import InputError
from risk.greeks import forward_from_parity, greeks, implied_volatility, price

HOUR = 1.0 / 8760.0

# (call, spot, strike, years, rate, dividend yield, volatility, price), priced by mpmath 1.3 with 60 digits:
#   d1 = (log(S/K) + (r - q + v²/2) T) / (v √T); C = S e^(-qT) N(d1) - K e^(-rT) N(d1 - v √T), N(x) = erfc(-x/√2) / 2.
MPMATH = [
    (True, 100, 100, HOUR, 0.03, 0.01, 0.01, 0.00437755576633816663),
    (False, 100, 99.9, HOUR, 0.03, 0.01, 0.2, 0.0443055247717883103),
    (True, 100, 130, 0.25, 0.05, 0, 0.1, 3.07229320167822146e-7),
    (False, 100, 40, 0.5, 0.02, 0.03, 0.25, 2.53244015880125606e-7),
    (True, 100, 400, 1, 0.01, 0, 0.3, 0.0000266127547830876088),
    (True, 100, 50, 2, 0.04, 0.02, 0.2, 49.9511675855615583),
    (False, 100, 250, 5, 0.03, 0, 3, 215.060858327678044),
    (True, 100, 100, 5, 0, 0, 3, 99.9203769842409188),
    (False, 2695.79, 2000, 0.08, 0.015, 0.02, 0.12, 6.88439753953087587e-18),
    (True, 2695.79, 2800, 0.08, 0.015, 0.02, 0.07, 0.546747487269093296),
    (False, 1, 0.5, 0.02, 0.05, 0.05, 0.5, 2.7390092271941589e-25),
    (True, 100, 1000, 5, 0.1, 0, 1.5, 79.1515783510780338),
    (False, 100, 99, 1 / 365, -0.01, 0, 0.05, 3.90497168587404332e-6),
]

contracts = st.tuples(
    st.floats(10.0, 5000.0),  # spot
    st.floats(0.5, 2.0),  # strike over spot
    st.floats(1.0 / 365.0, 3.0),
    st.floats(-0.01, 0.1),
    st.floats(0.0, 0.06),
    st.floats(0.03, 1.5),
)


def test_the_reference_call_has_the_published_price_and_greeks() -> None:
    # From the project's issue: call 450/460, 30/365 years, r 5 %, q 1.5 %, volatility 18 %.
    found = greeks(True, 450.0, 460.0, 30.0 / 365.0, 0.05, 0.015, 0.18)
    expected = {
        "price": 5.63963400691,
        "delta": 0.364836267495,
        "gamma": 0.0161705465994,
        "vega": 0.484451854971,
        "theta": -0.160305938718,
        "rho": 0.13030412578,
    }
    for name, value in expected.items():
        assert float(getattr(found, name)[0]) == pytest.approx(value, rel=5e-12), name


@pytest.mark.parametrize("case", MPMATH)
def test_prices_agree_with_mpmath_deep_in_and_out_of_the_money(case: tuple[float, ...]) -> None:
    call, *inputs, expected = case
    assert float(price(bool(call), *inputs)[0]) == pytest.approx(expected, rel=1e-9, abs=0.0)


@pytest.mark.parametrize("case", [case for case in MPMATH if not (case[0] and case[2] == 50)])
def test_implied_volatility_finds_the_volatility_mpmath_priced_with(case: tuple[float, ...]) -> None:
    call, spot, strike, years, rate, carry, volatility, value = case
    found = implied_volatility(bool(call), value, spot, strike, years, rate, carry)
    assert float(found[0]) == pytest.approx(volatility, rel=1e-9)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(contracts)
def test_put_call_parity_holds(case: tuple[float, ...]) -> None:
    spot, moneyness, years, rate, carry, volatility = case
    strike = spot * moneyness
    call, put = price([True, False], spot, strike, years, rate, carry, volatility)
    assert call - put == pytest.approx(spot * np.exp(-carry * years) - strike * np.exp(-rate * years), abs=1e-12 * spot)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(contracts, st.booleans())
def test_implied_volatility_reprices_whatever_it_finds(case: tuple[float, ...], call: bool) -> None:
    spot, moneyness, years, rate, carry, volatility = case
    value = price(call, spot, spot * moneyness, years, rate, carry, volatility)
    found = implied_volatility(call, value, spot, spot * moneyness, years, rate, carry)
    if np.isnan(found[0]):  # no time value left that double precision can hold: the wings of a short expiry
        assert greeks(call, spot, spot * moneyness, years, rate, carry, volatility).vega[0] < 1e-9 * spot
        return
    assert found[0] > 0.0
    again = price(call, spot, spot * moneyness, years, rate, carry, found)
    assert again[0] == pytest.approx(value[0], rel=1e-11)
    out_of_the_money = call == (moneyness > np.exp((rate - carry) * years))
    if out_of_the_money and value[0] > 1e-300:
        assert found[0] == pytest.approx(volatility, rel=1e-9)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(contracts, st.booleans())
def test_greeks_are_the_slopes_of_the_price(case: tuple[float, ...], call: bool) -> None:
    spot, moneyness, years, rate, carry, volatility = case
    strike = spot * moneyness
    found = greeks(call, spot, strike, years, rate, carry, volatility)

    def slope(step: float, **moved: float) -> float:
        at = {"spot": spot, "years": years, "rate": rate, "volatility": volatility}
        up, down = ({name: at[name] + sign * moved.get(name, 0.0) for name in at} for sign in (1.0, -1.0))
        values = [float(price(call, p["spot"], strike, p["years"], p["rate"], carry, p["volatility"])[0]) for p in (up, down)]
        return (values[0] - values[1]) / (2.0 * step)

    near = {"rel": 2e-4, "abs": 1e-6 * spot}
    h = 1e-4 * spot * volatility * np.sqrt(years)
    assert float(found.delta[0]) == pytest.approx(slope(h, spot=h), rel=2e-4, abs=1e-6)
    assert float(found.vega[0]) * 100.0 == pytest.approx(slope(1e-5, volatility=1e-5), **near)
    assert float(found.theta[0]) * 365.0 == pytest.approx(-slope(1e-6, years=1e-6), rel=1e-3, abs=1e-4 * spot)
    assert float(found.rho[0]) * 100.0 == pytest.approx(slope(1e-6, rate=1e-6), **near)


def test_no_volatility_exists_at_intrinsic_value_above_the_bounds_or_at_expiry() -> None:
    # Forward 100 (no rates): a call 90 is worth 10 to 100, a put 110 is worth 10 to 110.
    values = implied_volatility(
        [True, True, True, True, False, False, True, True],
        [10.0, 9.0, 100.0, 101.0, 10.0, 110.0, 12.0, np.nan],
        100.0,
        [90.0, 90.0, 90.0, 90.0, 110.0, 110.0, 90.0, 90.0],
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0],
        0.0,
        0.0,
    )
    assert np.isnan(values).all()
    assert np.isnan(implied_volatility(True, 0.0, 100.0, 120.0, 1.0, 0.0, 0.0)[0])


def test_prices_at_expiry_and_without_volatility_are_the_payoff() -> None:
    assert price([True, False, True], 105.0, 100.0, 0.0, 0.05, 0.0, 0.2).tolist() == [5.0, 0.0, 5.0]
    # No volatility: the discounted forward less the discounted strike, 105 - 100 e^(-0.05).
    assert float(price(True, 105.0, 100.0, 1.0, 0.05, 0.0, 0.0)[0]) == pytest.approx(105.0 - 100.0 * np.exp(-0.05), rel=1e-14)
    at_expiry = greeks([True, False], 105.0, 100.0, 0.0, 0.05, 0.0, 0.2)
    assert at_expiry.delta.tolist() == [1.0, 0.0]
    assert at_expiry.gamma.tolist() == [0.0, 0.0]


def test_impossible_arguments_give_nan_and_leave_the_others_alone() -> None:
    found = price(
        True, [100.0, -1.0, np.nan, 100.0, 100.0], [100.0, 100.0, 100.0, 0.0, 100.0], [1.0, 1.0, 1.0, 1.0, -1.0], 0.0, 0.0, 0.2
    )
    assert np.isnan(found).tolist() == [False, True, True, True, True]
    # 100 (2 N(0.1) - 1), and 2 N(0.1) - 1 = 0.0796556746 (Abramowitz and Stegun, table 26.1).
    assert found[0] == pytest.approx(7.96556746, abs=1e-7)


def test_forward_and_discount_come_back_from_a_chain() -> None:
    strikes = np.array([90.0, 95.0, 100.0, 105.0])
    call = price(True, 100.0, strikes, 0.5, 0.04, 0.01, 0.2)
    put = price(False, 100.0, strikes, 0.5, 0.04, 0.01, 0.2)
    forward, discount = forward_from_parity(strikes, call, put)
    assert forward == pytest.approx(100.0 * np.exp(0.015), rel=1e-12)
    assert discount == pytest.approx(np.exp(-0.02), rel=1e-12)
    assert forward_from_parity(strikes[:1], call[:1], put[:1], discount=np.exp(-0.02))[0] == pytest.approx(forward, rel=1e-12)
    with pytest.raises(InputError, match=r"needs 2 strike"):
        forward_from_parity(strikes[:1], call[:1], put[:1])
