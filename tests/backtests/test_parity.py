"""Parity finds what differs, and says nothing differs only when nothing does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backtests.equity_event import run_event
from backtests.equity_vectorbt import run_vectorised
from backtests.parity import compare
from backtests.strategies import get_strategy
from backtests.strategy import View
from config.conventions import Convention
from config.errors import InputError
from tests.backtests.market import index_view


@pytest.fixture(scope="module")
def nasdaq() -> View:
    view = index_view("nasdaq")
    return View(panel=view.panel.upto(view.sessions[400]))


def test_the_two_engines_are_equal(nasdaq: View) -> None:
    strategy = get_strategy("sma_crossover")
    parity = compare(run_vectorised(strategy, nasdaq), run_event(strategy, nasdaq))
    assert parity.equal
    assert parity.first_difference is None
    assert parity.max_relative_equity_difference < 1e-12
    assert parity.orders_left == parity.orders_right > 0
    assert parity.engines == ("vectorbt", "backtrader")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Convention(slippage_bps=5.01), "order 1"),
        (Convention(fee_bps=10.01), "order 1"),
        (Convention(fill="same_close"), "order 1"),
        (Convention(fractional=False), "order 1"),
        (Convention(cash_interest_ann=0.01), "order 1"),
    ],
)
def test_a_different_setting_of_one_engine_is_caught(nasdaq: View, other: Convention, words: str) -> None:
    strategy = get_strategy("sma_crossover")
    parity = compare(run_vectorised(strategy, nasdaq), run_event(strategy, nasdaq, convention=other))
    assert not parity.equal
    assert parity.first_difference is not None
    assert words in parity.first_difference


def test_slippage_dropped_at_the_open_is_caught(nasdaq: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """backtrader's default: slip_open=False."""
    import backtests.equity_event as event

    real = event._broker

    def forgetful(convention: Convention) -> object:
        broker = real(convention)
        broker.p.slip_open = False
        return broker

    monkeypatch.setattr(event, "_broker", forgetful)
    strategy = get_strategy("sma_crossover")
    parity = compare(run_vectorised(strategy, nasdaq), run_event(strategy, nasdaq))
    assert not parity.equal
    assert parity.max_relative_equity_difference > 1e-4


def test_a_missing_order_and_a_changed_equity_are_named(nasdaq: View) -> None:
    left = run_vectorised(get_strategy("bollinger_reversion"), nasdaq)
    short = replace(left, orders=left.orders.iloc[:-1])
    assert "on the left only" in str(compare(left, short).first_difference)
    bent = left.equity.copy()
    bent.iloc[200] *= 1 + 2e-9
    parity = compare(left, replace(left, equity=bent))
    assert not parity.equal
    assert f"equity at {nasdaq.sessions[200]:%Y-%m-%d}" in str(parity.first_difference)
    assert compare(left, replace(left, equity=bent), tolerance=1e-8).equal


def test_results_over_other_sessions_cannot_be_compared(nasdaq: View) -> None:
    strategy = get_strategy("buy_and_hold")
    whole, part = run_vectorised(strategy, nasdaq), run_vectorised(strategy, nasdaq.upto(nasdaq.sessions[100]))
    with pytest.raises(InputError, match="other sessions: 401 from"):
        compare(whole, part)
    with pytest.raises(InputError, match="tolerance"):
        compare(whole, whole, tolerance=0.0)
