"""What holds for every run of the options engine: balance, cover, causality, refusals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtests.options.broker import OptionBroker
from backtests.options.chain import ChainBook, Snapshot
from backtests.options.engine import simulate
from backtests.options.reports import OptionsResult
from backtests.options.rules import Leg, Overlay, choose
from backtests.options_bt import CoveredCallsStrategy, OptionStrategy, ProtectivePutsStrategy, make_strategy, run_options, specify
from config.conventions import Convention
from config.errors import InputError, IntegrityError, OrderRefused, UnknownNameError
from risk.greeks import greeks, implied_volatility
from tests.backtests.option_chains import modelled

MILLION = Convention(initial_cash=1_000_000.0)
Market = tuple[ChainBook, pd.DataFrame]


@pytest.fixture(scope="module")
def market() -> Market:
    return modelled("2016-01-04", "2017-03-31")


def run(strategy: OptionStrategy, market: Market, convention: Convention = MILLION, **more: Any) -> OptionsResult:
    return run_options(specify(strategy, "WALK", convention), *market, **more)


def holdings(result: OptionsResult) -> pd.DataFrame:
    """Positions at each session's end, from the fills and the settlements alone: contracts or shares, one column a symbol."""
    orders, events = result.orders, result.events
    settled = events[events["event"].isin(["expired", "assigned", "exercised"])]
    moves = pd.DataFrame(
        {
            "session": [*orders["session"], *settled["session"]],
            "symbol": [*orders["symbol"], *settled["symbol"]],
            "size": [*np.where(orders["side"] == "buy", orders["quantity"], -orders["quantity"]), *-settled["quantity"]],
        }
    )
    table = moves.pivot_table(index="session", columns="symbol", values="size", aggfunc="sum")
    return table.reindex(result.equity.index).fillna(0.0).cumsum()


@pytest.mark.parametrize(
    "strategy",
    [
        CoveredCallsStrategy(),
        CoveredCallsStrategy(call_delta_target=0.4, cover_ratio_max=1.0, profit_target=0.5, stop_loss=1.0, call_roll_dte=7),
        ProtectivePutsStrategy(),
        ProtectivePutsStrategy(put_dte_target=45, put_roll_dte=10, protection_ratio_min=0.2, protection_ratio_max=1.0),
    ],
    ids=["calls", "calls_managed", "puts", "puts_short"],
)
def test_equity_is_cash_flows_plus_marked_positions_at_every_session(strategy: OptionStrategy, market: Market) -> None:
    result = run(strategy, market, replace(MILLION, cash_interest_ann=0.02))
    held = holdings(result)
    marks = result.marks.pivot(index="session", columns="symbol", values="mark").reindex(columns=held.columns)
    multiplier = pd.Series(np.where(held.columns == "WALK", 1.0, 100.0), index=held.columns)
    value = (held.where(held.abs() > 1e-9, 0.0) * marks * multiplier).sum(axis=1)
    cash = 1_000_000.0 + result.cash_flows.groupby("session")["amount"].sum().reindex(result.equity.index).fillna(0.0).cumsum()
    np.testing.assert_allclose(result.equity.to_numpy(), (cash + value).to_numpy(), rtol=0, atol=1e-6)
    assert len(result.trades) > 3


def test_calls_stay_within_the_cover_ratio_and_puts_within_their_bounds(market: Market) -> None:
    for strategy, low, high in ((CoveredCallsStrategy(), 0.0, 0.6), (ProtectivePutsStrategy(), 0.4, 0.8)):
        held = holdings(run(strategy, market))
        contracts = held.drop(columns="WALK").abs().sum(axis=1) * 100.0
        ratio = (contracts / held["WALK"])[contracts > 0]
        assert len(ratio) > 100
        assert ratio.max() <= high + 1e-9
        assert ratio.min() >= low


def test_the_cover_ratio_holds_after_the_share_count_changes() -> None:
    # Shares are sold back to their weight whenever the walk has risen; 0.6 of 14,000 shares leaves no room in whole contracts.
    market = modelled("2016-01-04", "2016-12-30", seed=3, drift=0.002, volatility=0.015)
    strategy = CoveredCallsStrategy(rebalance_band=0.002, underlying_weight=0.8)
    result = run(strategy, market, Convention(initial_cash=30_000_000.0))
    held = holdings(result)
    assert (held["WALK"].diff().iloc[3:] < 0).sum() > 5
    ratio = -held.drop(columns="WALK").sum(axis=1) * 100.0 / held["WALK"]
    assert 0.55 < ratio.max() <= 0.6 + 1e-9
    trimmed = result.events[result.events["reason"].str.startswith("ratio")]
    assert len(trimmed) > 0
    assert (trimmed["quantity"] > 0).all()


@settings(derandomize=True, deadline=None, max_examples=5)
@given(st.integers(0, 10_000), st.floats(-0.003, 0.003), st.floats(0.003, 0.03), st.floats(0.1, 0.5), st.booleans())
def test_the_books_balance_on_any_walk(seed: int, drift: float, volatility: float, delta: float, calls: bool) -> None:
    market = modelled("2016-01-04", "2016-07-29", seed=seed, drift=drift, volatility=volatility)
    strategy: OptionStrategy
    if calls:
        strategy = CoveredCallsStrategy(call_delta_target=delta, cover_ratio_max=1.0)
    else:
        strategy = ProtectivePutsStrategy(put_delta_target=-delta, put_dte_target=60)
    result = run(strategy, market)  # raises IntegrityError where a session's books do not balance
    assert result.equity.notna().all()
    assert result.mark_kinds["stale"] == 0
    floors = result.marks[result.marks["symbol"] != "WALK"]
    assert (floors["mark"] >= 0.0).all()


def test_an_error_in_the_money_stops_the_run(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = OptionBroker._accrue

    def generous(broker: OptionBroker) -> None:
        honest(broker)
        broker.cash += 0.01

    monkeypatch.setattr(OptionBroker, "_accrue", generous)
    with pytest.raises(IntegrityError, match="equity changed by"):
        run(CoveredCallsStrategy(), market)


def test_the_future_does_not_change_the_past(market: Market) -> None:
    book, bars = market
    cut = bars.index[150]
    short = ChainBook(book.contracts, {day: part for day, part in book.slices.items() if day <= cut}, "WALK", "modelled")
    for strategy in (CoveredCallsStrategy(profit_target=0.5), ProtectivePutsStrategy()):
        whole, part = run(strategy, market), run(strategy, (short, bars.loc[:cut]))
        pd.testing.assert_series_equal(whole.equity.loc[:cut], part.equity)
        pd.testing.assert_frame_equal(whole.orders[whole.orders["session"] <= cut], part.orders)


def test_decisions_fill_at_the_next_sessions_bid_or_ask(market: Market) -> None:
    book, bars = market
    result = run(ProtectivePutsStrategy(), market)
    number = {contract.symbol: at for at, contract in enumerate(book.contracts)}
    decided = result.events[result.events["event"] == "decided"].set_index(["symbol", "session"])["quantity"]
    options = result.orders[result.orders["symbol"] != "WALK"]
    assert len(options) > 10
    for order in options.itertuples():
        quote = book.quote(order.session, number[order.symbol])
        assert quote is not None
        assert order.price == (quote.ask if order.side == "buy" else quote.bid)
        before = bars.index[bars.index.get_loc(order.session) - 1]
        assert abs(decided[(order.symbol, before)]) == order.quantity


def test_the_chosen_contract_has_the_delta_and_days_asked_for(market: Market) -> None:
    book, bars = market
    leg = CoveredCallsStrategy().overlay().legs[0]
    session = bars.index[100]
    number = choose(book, session, leg, float(bars["close"].iloc[100]), 0.01)
    assert number is not None
    contract = book.contracts[number]
    days = (contract.expiry - session).days
    assert contract.right == "C"
    assert 30 <= days <= 60
    # Every call of that expiry, at the volatility of its own mid quote and the dividend yield the model was built with.
    spot, part = float(bars["close"].iloc[100]), book.slices[session]
    calls = [n for n in part.contract if book.contracts[n].expiry == contract.expiry and book.is_call[n]]
    mids = np.array([(q.bid + q.ask) / 2 if q and q.bid > 0 else np.nan for q in (book.quote(session, int(n)) for n in calls)])
    strikes = book.strikes[calls]
    volatility = implied_volatility(True, mids, spot, strikes, days / 365, 0.01, 0.02)
    distance = np.abs(greeks(True, spot, strikes, days / 365, 0.01, 0.02, volatility).delta - 0.15)
    assert distance[strikes == contract.strike][0] <= np.nanmin(distance) + 0.005


def test_quotes_that_were_not_known_yet_are_not_chosen(market: Market) -> None:
    book, bars = market
    leg, session, spot = CoveredCallsStrategy().overlay().legs[0], bars.index[100], float(bars["close"].iloc[100])
    first = choose(book, session, leg, spot, 0.01)
    part = book.slices[session]
    late = Snapshot(part.contract, part.bid, part.ask, part.known & (part.contract != first))
    other = ChainBook(book.contracts, {session: late}, "WALK", "modelled")
    assert first is not None
    assert choose(other, session, leg, spot, 0.01) not in (None, first)
    none = Snapshot(part.contract, part.bid, part.ask, np.zeros_like(part.known))
    assert choose(ChainBook(book.contracts, {session: none}, "WALK", "modelled"), session, leg, spot, 0.01) is None


@pytest.mark.parametrize(("level", "opens"), [(2.0, True), (2.5, False), (np.nan, False)])
def test_no_leg_is_opened_while_the_risk_level_is_above_its_limit_or_unknown(level: float, opens: bool, market: Market) -> None:
    risk = pd.Series(level, index=market[1].index)
    result = run(CoveredCallsStrategy(risk_regime_max=2), market, risk_level=risk)
    assert bool((result.orders["symbol"] != "WALK").any()) is opens
    unfiltered = run(CoveredCallsStrategy(risk_regime_max=2), market)
    assert any("risk_regime_max was not applied" in note for note in unfiltered.notes)


@dataclass(frozen=True, kw_only=True)
class TooManyCalls:
    """Sells calls on twice the shares it holds."""

    name: ClassVar[str] = "TooManyCalls"
    family: ClassVar[str] = "naked"

    @property
    def params(self) -> dict[str, Any]:
        return {"commission_usd": 0.65, "rate_ann": 0.01}

    def overlay(self) -> Overlay:
        leg = Leg(right="C", side="sell", delta_target=0.2, dte_min=20, dte_max=60, dte_target=40, ratio_max=2.0)
        return Overlay(underlying_weight=0.9, rebalance_band=0.05, legs=(leg,))


def test_a_call_without_shares_behind_it_is_refused(market: Market) -> None:
    with pytest.raises(OrderRefused, match="would leave calls on") as caught:
        simulate(TooManyCalls(), *market, MILLION)
    assert caught.value.rule == "covered_calls"


@dataclass(frozen=True, kw_only=True)
class SoldPuts:
    """Sells as many puts as half the shares would cover."""

    weight: float
    name: ClassVar[str] = "SoldPuts"
    family: ClassVar[str] = "sold_puts"

    @property
    def params(self) -> dict[str, Any]:
        return {"commission_usd": 0.65, "rate_ann": 0.01}

    def overlay(self) -> Overlay:
        leg = Leg(right="P", side="sell", delta_target=-0.3, dte_min=20, dte_max=60, dte_target=40, ratio_max=0.5)
        return Overlay(underlying_weight=self.weight, rebalance_band=0.1, legs=(leg,))


def test_sold_puts_need_their_strike_in_cash(market: Market) -> None:
    # 0.95 in shares leaves 50,000 of cash; one contract at a strike near 2,000 needs 200,000.
    refused = simulate(SoldPuts(weight=0.95), *market, MILLION).broker.ledger
    assert {event.event for event in refused.log} == {"decided", "refused"}
    assert all("puts sold need" in event.reason for event in refused.log if event.event == "refused")
    # 0.5 in shares leaves 500,000: 250 shares allow one contract, which the cash secures.
    filled = simulate(SoldPuts(weight=0.5), *market, MILLION).broker.ledger
    sold = [fill for fill in filled.fills if fill.symbol != "WALK" and fill.kind == "fill"]
    assert sold
    assert all(fill.quantity == -1.0 for fill in sold)


def test_too_little_cash_for_one_contract_is_said_before_the_run(market: Market) -> None:
    with pytest.raises(InputError, match=r"no whole contract of 100 fits") as caught:
        run(CoveredCallsStrategy(), market, Convention(initial_cash=100_000.0))
    assert "initial_cash" in str(caught.value)
    start = str(caught.value).split("about ")[1].split(" ")[0].replace(",", "")
    assert len(run(CoveredCallsStrategy(), market, Convention(initial_cash=float(start))).orders) > 1


def test_names_and_parameters_are_checked_with_a_remedy() -> None:
    with pytest.raises(UnknownNameError, match="did you mean CoveredCallsStrategy"):
        make_strategy("CoveredCalsStrategy")
    with pytest.raises(InputError, match="did you mean call_delta_target"):
        make_strategy("CoveredCallsStrategy", {"call_delta": 0.2})
    with pytest.raises(InputError, match=r"cover_ratio_max is 1.5"):
        make_strategy("CoveredCallsStrategy", {"cover_ratio_max": 1.5})
    with pytest.raises(InputError, match="put_delta_target is 0.2"):
        make_strategy("ProtectivePutsStrategy", {"put_delta_target": 0.2})
    with pytest.raises(InputError, match="is above"):
        make_strategy("ProtectivePutsStrategy", {"protection_ratio_min": 0.9})


def test_a_run_is_a_pure_function_of_its_inputs_and_says_what_it_ran_on(market: Market) -> None:
    first, second = (run(CoveredCallsStrategy(), market, snapshot_id="abc") for _ in range(2))
    assert first.orders_hash == second.orders_hash
    assert first.equity.equals(second.equity)
    assert (first.engine, first.data_kind, first.snapshot_id) == ("options", "modelled", "abc")
    assert first.spec.kind == "option_legs"
    assert any("modelled" in note for note in first.notes)
