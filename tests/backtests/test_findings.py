"""Every finding on a case built to have it, and on one built not to."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtests.findings import FINDING_CODES, find
from backtests.result import ORDER_COLUMNS, TRADE_COLUMNS, BacktestResult
from backtests.strategy import StrategySpec
from config.conventions import REFERENCE, Convention
from features.panel import MarketPanel
from lake.listings import History, Spell
from risk.metrics import performance
from tracking.evidence import Finding

FREE = Convention(fee_bps=0.0, slippage_bps=0.0)


def panel_of(closes: np.ndarray, opens: np.ndarray | None = None, *, basis: str = "as_traded") -> MarketPanel:
    sessions = pd.bdate_range("2000-01-03", periods=closes.size, name="session")
    close = pd.DataFrame({"X": closes}, index=sessions)
    first = close * 1.001 if opens is None else pd.DataFrame({"X": opens}, index=sessions)
    return MarketPanel(open=first, high=close, low=close, close=close, volume=close, basis={"X": basis})  # type: ignore[dict-item]


def result_of(
    returns: np.ndarray,
    *,
    pnl: list[float] | None = None,
    fills: int | None = None,
    fee: float = 0.0,
    quantity: float = 1.0,
    convention: Convention = FREE,
) -> BacktestResult:
    """A result with these session returns, trades of these profits and this many fills at a price of 100 on successive sessions."""
    equity = pd.Series(
        convention.initial_cash * np.concatenate([[1.0], np.cumprod(1.0 + returns)]),
        index=pd.bdate_range("2000-01-03", periods=returns.size + 1, name="session"),
    )
    profits = [float(equity.iloc[-1] - equity.iloc[0]) / 40] * 40 if pnl is None else pnl
    count = 2 * len(profits) if fills is None else fills
    orders = pd.DataFrame(
        [(equity.index[1 + n], "X", "buy" if n % 2 == 0 else "sell", quantity, 100.0, fee) for n in range(count)],
        columns=list(ORDER_COLUMNS),
    )
    trades = pd.DataFrame(
        [("X", equity.index[0], equity.index[1], 1.0, 1.0, 1.0, 0.0, value, 0.0) for value in profits], columns=list(TRADE_COLUMNS)
    )
    return BacktestResult(
        spec=StrategySpec(name="s", family="s", params={}, symbols=("X",), convention=convention),
        engine="vectorbt",
        equity=equity,
        weights=pd.DataFrame({"X": 1.0}, index=equity.index),
        orders=orders,
        trades=trades,
        snapshot_id="s",
    )


def steady(sessions: int = 1000, drift: float = 0.0006) -> np.ndarray:
    """Returns without an extreme session whose mean is exactly the drift."""
    noise = np.random.default_rng(0).uniform(-0.01, 0.01, sessions)
    return noise - noise.mean() + drift


def findings_of(result: BacktestResult, **changes: Any) -> dict[str, Finding]:
    panel = changes.pop("panel", None) or panel_of(np.linspace(100.0, 200.0, len(result.equity)))
    metrics = performance(result.equity, result.trades, result.orders, result.spec.convention)
    found = find(result, metrics=metrics, panel=panel, **changes)
    return {finding.code: finding for finding in found}


def test_a_healthy_result_has_none() -> None:
    assert findings_of(result_of(steady()), benchmark=pd.Series(steady() * 0.5, index=result_of(steady()).returns.index)) == {}


def test_serious_ones_come_first_and_each_has_a_remedy() -> None:
    result = replace(result_of(steady(600), pnl=[5.0] * 12), data_kind="modelled")
    metrics = performance(result.equity, result.trades, result.orders, FREE)
    found = find(
        result,
        metrics=metrics,
        panel=panel_of(np.linspace(1, 2, 601)),
        universe_point_in_time=False,
        not_tradable={"X"},
        neighbourhood=[0.1],
    )
    assert [(finding.code, finding.severity) for finding in found] == [
        ("modelled_data", "serious"),
        ("survivors", "serious"),
        ("few_trades", "warning"),
        ("parameter_cliff", "warning"),
        ("short_history", "warning"),
        ("index_level", "note"),
    ]
    assert all(finding.remedy and finding.text for finding in found)
    assert {finding.code for finding in found} <= set(FINDING_CODES)


@pytest.mark.parametrize(("trades", "severity"), [(9, "serious"), (10, "warning"), (29, "warning"), (30, None)])
def test_few_trades(trades: int, severity: str | None) -> None:
    profit = float(result_of(steady()).equity.iloc[-1]) - 100_000.0
    found = findings_of(result_of(steady(), pnl=[profit / trades] * trades)).get("few_trades")
    assert (found.severity if found else None) == severity
    assert found is None or f"{trades} closed trades" in found.text


def test_a_benchmark_trades_once_by_design() -> None:
    result = result_of(steady(), pnl=[], fills=1)
    assert "few_trades" in findings_of(result)
    assert findings_of(result, role="benchmark") == {}


def test_an_account_without_orders_never_traded_and_has_no_other_finding_on_trades() -> None:
    found = findings_of(result_of(np.zeros(1000), pnl=[], fills=0))
    assert list(found) == ["never_traded"]
    assert found["never_traded"].severity == "serious"


def test_one_trade_makes_the_result() -> None:
    profit = float(result_of(steady()).equity.iloc[-1]) - 100_000.0
    rest = [profit * 0.4 / 39] * 39
    found = findings_of(result_of(steady(), pnl=[profit * 0.6, *rest]))["one_trade"]
    assert found.severity == "warning"
    assert "60%" in found.text
    losing = [-profit * 0.2 / 39] * 39
    assert findings_of(result_of(steady(), pnl=[profit * 1.2, *losing]))["one_trade"].severity == "serious"
    assert "one_trade" not in findings_of(result_of(steady(), pnl=[profit * 0.4, *[profit * 0.6 / 39] * 39]))


def test_five_sessions_make_the_result() -> None:
    # 0.02 % lost a session, but for five that gain 6 %: (1.06)^5 = 1.338 against 0.9998^995 = 0.820, 9.7 % in all.
    returns = np.full(1000, -0.0002)
    returns[[100, 300, 500, 700, 900]] = 0.06
    found = findings_of(result_of(returns))["best_sessions"]
    assert found.severity == "serious"
    assert "-18.0%" in found.text
    assert "9.7%" in found.text
    assert "best_sessions" not in findings_of(result_of(steady()))


def test_costs_dominate() -> None:
    # Eighty fills of 100 × 1000: 8,000,000 traded. Fees of 10 bps and slippage of 5 are close to 12,000.
    profit = 5_000.0
    flat = np.full(1000, (1 + profit / 100_000) ** (1 / 1000) - 1)
    found = findings_of(result_of(flat, quantity=1000.0, fee=100.0, convention=REFERENCE))["costs_dominate"]
    assert found.severity == "warning"
    assert "71% of the gross profit of 17,000" in found.text  # 12,000 of 17,000
    assert "21.3 bps" in found.text  # 17,000 over 8,000,000
    losing = np.full(1000, 0.95 ** (1 / 1000) - 1)
    assert findings_of(result_of(losing, quantity=1000.0, fee=100.0, convention=REFERENCE))["costs_dominate"].severity == "serious"
    assert "costs_dominate" not in findings_of(result_of(flat, quantity=1.0, fee=0.1, convention=REFERENCE))


def test_costs_of_contracts_are_their_fees_and_have_no_break_even() -> None:
    flat = np.full(1000, 1.05 ** (1 / 1000) - 1)
    result = result_of(flat, fee=200.0, convention=REFERENCE)
    result = replace(
        result,
        spec=replace(result.spec, kind="option_legs"),
        orders=result.orders.assign(symbol="SPY200117C00300000"),
        engine="options",
    )
    found = findings_of(result)["costs_dominate"]
    assert "costs of 16,000 take 76% of the gross profit of 21,000; net 5,000" in found.text
    assert "bps" not in found.text


def test_parameter_cliff() -> None:
    result = result_of(steady())
    own = performance(result.equity, result.trades, result.orders, FREE)["sharpe"]
    found = findings_of(result, neighbourhood=[own * 0.4, own * 0.3, own, np.nan])["parameter_cliff"]
    assert found.severity == "warning"
    assert "3 neighbouring" in found.text
    assert findings_of(result, neighbourhood=[-0.1, -0.2, own])["parameter_cliff"].severity == "serious"
    assert "parameter_cliff" not in findings_of(result, neighbourhood=[own * 0.9, own * 0.8, -5.0])
    assert "parameter_cliff" not in findings_of(result, neighbourhood=[])


@pytest.mark.parametrize(("stale", "severity"), [(15, None), (16, "warning"), (40, "serious")])
def test_stale_fills(stale: int, severity: str | None) -> None:
    # Eighty fills on sessions 1 to 80; the first `stale` of those sessions open at the previous close.
    closes = np.linspace(100.0, 200.0, 1001)
    opens = closes * 1.001
    opens[1 : stale + 1] = closes[:stale]
    found = findings_of(result_of(steady()), panel=panel_of(closes, opens)).get("stale_fills")
    assert (found.severity if found else None) == severity
    assert found is None or f"{stale} of 80 fills" in found.text


def test_a_share_of_a_handful_of_fills_is_no_finding() -> None:
    closes = np.linspace(100.0, 200.0, 1001)
    stale = np.concatenate([[99.0], closes[:-1]])
    assert "stale_fills" not in findings_of(result_of(steady(), fills=9), panel=panel_of(closes, stale))
    assert findings_of(result_of(steady(), fills=10), panel=panel_of(closes, stale))["stale_fills"].severity == "serious"


def test_same_close_fills_are_told_and_stale_opens_are_no_matter_then() -> None:
    closes = np.linspace(100.0, 200.0, 1001)
    convention = Convention(fee_bps=0.0, slippage_bps=0.0, fill="same_close")
    found = findings_of(result_of(steady(), convention=convention), panel=panel_of(closes, np.full(1001, np.nan)))
    assert list(found) == ["same_close_fills"]
    assert "the source has no opens" in found["same_close_fills"].text
    stale = np.concatenate([[99.0], closes[:-1]])
    assert list(findings_of(result_of(steady(), convention=convention), panel=panel_of(closes, stale))) == ["same_close_fills"]


def test_vendor_adjusted_prices() -> None:
    found = findings_of(result_of(steady()), panel=panel_of(np.linspace(100.0, 200.0, 1001), basis="vendor_adjusted"))
    assert found["vendor_adjusted"].severity == "warning"
    assert "X" in found["vendor_adjusted"].text


def test_survivors_and_index_levels() -> None:
    assert findings_of(result_of(steady()), universe_point_in_time=False)["survivors"].severity == "serious"
    assert findings_of(result_of(steady()), not_tradable={"X", "Y"})["index_level"].severity == "note"
    assert "index_level" not in findings_of(result_of(steady()), not_tradable={"Y"})


def test_ahead_in_crises_only() -> None:
    # The market gains 0.1 % a session but for 100 sessions of -0.5 % (a fall of 39 %); the strategy stays out of the fall and
    # earns 0.09 % otherwise.
    market = np.full(1000, 0.001)
    market[400:500] = -0.005
    own = np.full(1000, 0.0009)
    own[400:500] = 0.0
    result = result_of(own)
    benchmark = pd.Series(market, index=result.returns.index)
    found = findings_of(result, benchmark=benchmark)["crisis_only"]
    assert "100 sessions of its bear markets" in found.text
    assert "other 900" in found.text
    # Ahead outside too: no finding. A fall of 18 % only: no bear market, so no finding either.
    assert "crisis_only" not in findings_of(result_of(np.where(market < 0, 0.0, 0.0011)), benchmark=benchmark)
    mild = benchmark.where(benchmark > 0, -0.002)
    assert "crisis_only" not in findings_of(result, benchmark=mild)


def test_behind_the_benchmark() -> None:
    result = result_of(steady())
    better = pd.Series(steady() + 0.0001, index=result.returns.index)
    assert findings_of(result, benchmark=better)["behind_benchmark"].severity == "note"
    assert "behind_benchmark" not in findings_of(result, benchmark=better - 0.0002)
    assert "behind_benchmark" not in findings_of(result, benchmark=better, role="benchmark")


@pytest.mark.parametrize(("sessions", "severity"), [(251, "serious"), (252, "warning"), (755, "warning"), (756, None)])
def test_short_history(sessions: int, severity: str | None) -> None:
    found = findings_of(result_of(steady(sessions))).get("short_history")
    assert (found.severity if found else None) == severity


@pytest.mark.parametrize(("value", "said"), [(0.25, "0.25"), (None, "an unknown amount")])
def test_shares_held_past_a_delisting_are_serious(value: float | None, said: str) -> None:
    result = result_of(steady(), fills=3)  # buy, sell, buy: one share is left
    gone = result.equity.index[500]
    spells = (Spell("X", None, gone.date()),)
    panel = replace(
        panel_of(np.full(1001, 100.0)), companies={"X": History(spells=spells, delisted=gone.date(), final_value=value)}
    )
    found = findings_of(result, panel=panel)["held_past_delisting"]
    assert found.severity == "serious"
    assert f"1 of X (delisted {gone.date()}, its holders got {said} a share)" in found.text
    assert "held_past_delisting" not in findings_of(result_of(steady(), fills=4), panel=panel)  # sold again in time
    later = replace(panel, companies={"X": History(spells=spells, delisted=date(2100, 1, 1))})
    assert "held_past_delisting" not in findings_of(result, panel=later)
