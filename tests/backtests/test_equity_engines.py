"""Both engines against plain loops, over real prices and over random markets with holes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtests.decisions import decide
from backtests.equity_event import run_event
from backtests.equity_vectorbt import run_many, run_vectorised
from backtests.parity import compare
from backtests.strategies import get_strategy
from backtests.strategy import View
from config.conventions import Convention
from config.errors import InputError, LeakageError, QualityError
from risk.metrics import performance
from tests.backtests.market import (
    ENGINES,
    Scripted,
    index_view,
    package_folder,
    portfolio_loop,
    small_view,
    ten_line_loop,
    view_from,
)


@pytest.fixture(scope="module")
def nasdaq() -> View:
    return index_view("nasdaq")


def plain_buy_and_hold(close: pd.Series) -> list[float]:
    return [1.0] * len(close)


def plain_sma(close: pd.Series) -> list[float]:
    fast, slow = close.rolling(20).mean(), close.rolling(50).mean()
    held, was_below, wanted = 0.0, False, []
    for quick, calm in zip(fast, slow, strict=True):
        if quick > calm * (1 + 1e-9) and was_below:
            held, was_below = 1.0, False
        elif quick < calm * (1 - 1e-9):
            held, was_below = 0.0, True
        wanted.append(held)
    return wanted


def plain_rsi(close: pd.Series) -> list[float]:
    steps = close.diff().to_numpy()
    gain, loss = np.maximum(steps, 0), np.maximum(-steps, 0)
    up, down, held, wanted = gain[1:15].mean(), loss[1:15].mean(), 0.0, [0.0] * 14
    for t in range(14, len(close)):
        if t > 14:
            up, down = (up * 13 + gain[t]) / 14, (down * 13 + loss[t]) / 14
        strength = 100 - 100 / (1 + up / down)
        held = 1.0 if strength < 30 else 0.0 if strength > 70 else held
        wanted.append(held)
    return wanted


def plain_bollinger(close: pd.Series) -> list[float]:
    held, wanted = 0.0, [0.0] * 19
    for t in range(19, len(close)):
        window = close.to_numpy()[t - 19 : t + 1]
        middle, width = window.mean(), 2 * window.std(ddof=0)
        held = 1.0 if window[-1] < middle - width else 0.0 if window[-1] > middle else held
        wanted.append(held)
    return wanted


RULES: dict[str, Callable[[pd.Series], list[float]]] = {
    "buy_and_hold": plain_buy_and_hold,
    "sma_crossover": plain_sma,
    "rsi_reversion": plain_rsi,
    "bollinger_reversion": plain_bollinger,
}


@pytest.mark.parametrize("market", ["nasdaq", "sp500"])
@pytest.mark.parametrize("name", list(RULES))
def test_both_engines_and_a_ten_line_loop_agree_at_every_session(name: str, market: str) -> None:
    view = index_view(market)
    opens, closes = view.panel.open.iloc[:, 0], view.close.iloc[:, 0]
    equity, fills = ten_line_loop(opens.tolist(), closes.tolist(), RULES[name](closes))
    vectorised, event = (run(get_strategy(name), view) for run in ENGINES.values())
    for result in (vectorised, event):
        assert result.equity.to_numpy() == pytest.approx(np.array(equity), rel=1e-9)
        assert len(result.orders) == fills
        assert len(result.trades) == fills // 2
    parity = compare(vectorised, event)
    assert parity.equal, parity.first_difference
    assert vectorised.orders_hash == event.orders_hash


@pytest.mark.parametrize(
    ("name", "final", "sharpe", "drawdown", "trades"),
    [
        ("buy_and_hold", 300094.596971, 0.3439471908, 0.7793238629, 0),
        ("sma_crossover", 257842.817736, 0.3834865421, 0.5339133010, 46),
    ],
)
@pytest.mark.parametrize("engine", list(ENGINES))
def test_nasdaq_ends_at_the_published_reference(
    nasdaq: View, engine: str, name: str, final: float, sharpe: float, drawdown: float, trades: int
) -> None:
    result = ENGINES[engine](get_strategy(name), nasdaq)
    numbers = performance(result.equity, result.trades, result.orders, Convention())
    assert numbers["final_equity"] == pytest.approx(final, abs=5e-7)
    assert numbers["sharpe"] == pytest.approx(sharpe, abs=5e-11)
    assert numbers["max_drawdown"] == pytest.approx(drawdown, abs=5e-11)
    assert len(result.trades) == trades


@pytest.mark.slow  # Numba compiles for about twenty seconds
def test_the_rust_and_the_numba_engine_give_the_same_orders(nasdaq: View) -> None:
    short = View(panel=nasdaq.panel.upto(nasdaq.sessions[400]))
    results = [run_vectorised(get_strategy("sma_crossover"), short, engine=engine) for engine in ("rust", "numba")]  # type: ignore[arg-type]
    assert compare(*results).equal


def test_twenty_stocks_share_one_account_on_both_engines_as_in_the_loop() -> None:
    table = pd.read_csv(package_folder("skfolio") / "datasets" / "data" / "sp500_dataset.csv.gz", index_col=0, parse_dates=True)
    closes = table.iloc[:600].rename_axis("session").astype(float)
    view = view_from(closes * np.nan, closes)
    convention = Convention(fill="same_close")
    for name in ("buy_and_hold", "bollinger_reversion"):
        strategy = get_strategy(name)
        vectorised, event = (run(strategy, view, convention=convention) for run in ENGINES.values())
        equity, fills = portfolio_loop(view, decide(strategy, view), convention)
        assert len(vectorised.orders) == len(fills) >= closes.shape[1]
        assert vectorised.equity.to_numpy() == pytest.approx(np.array(equity), rel=1e-9)
        parity = compare(vectorised, event)
        assert parity.equal, parity.first_difference


@st.composite
def markets(draw: st.DrawFn) -> tuple[View, Scripted, Convention]:
    sessions, symbols = draw(st.integers(3, 14)), draw(st.integers(1, 3))
    price = st.floats(5.0, 200.0).map(lambda value: round(value, 2))
    column = st.lists(st.one_of(price, price, price, st.just(math.nan)), min_size=sessions, max_size=sessions)
    opens, closes = ([[*draw(column)] for _ in range(symbols)] for _ in range(2))
    for prices in (*opens, *closes):
        prices[-1] = draw(price)  # so that no symbol is refused for having no open at all
    share = st.one_of(st.just(0.0), st.just(math.nan), st.just(1.0), st.floats(0.01, 1.0).map(lambda value: round(value, 3)))
    weights = tuple(
        tuple(weight / symbols for weight in draw(st.lists(share, min_size=sessions, max_size=sessions))) for _ in range(symbols)
    )
    convention = Convention(
        fill=draw(st.sampled_from(["next_open", "same_close"])),
        slippage_bps=draw(st.sampled_from([0.0, 5.0])),
        fee_bps=draw(st.sampled_from([0.0, 10.0])),
        cash_interest_ann=draw(st.sampled_from([0.0, 0.05])),
    )
    return small_view(opens, closes), Scripted(weights=weights), convention


@settings(derandomize=True, deadline=None, max_examples=40)
@given(markets())
def test_any_market_with_holes_gives_the_same_account_in_both_engines_and_the_plain_loop(
    case: tuple[View, Scripted, Convention],
) -> None:
    view, strategy, convention = case
    vectorised, event = (run(strategy, view, convention=convention) for run in ENGINES.values())
    equity, fills = portfolio_loop(view, decide(strategy, view), convention)
    parity = compare(vectorised, event)
    assert parity.equal, parity.first_difference
    assert vectorised.equity.to_numpy() == pytest.approx(np.array(equity), rel=1e-9)
    assert len(vectorised.orders) == len(fills)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_symbols_that_close_at_the_same_price_are_told_apart(engine: str) -> None:
    prices = [[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 5.0]]
    strategy = Scripted(weights=((0.0, 0.0, 0.0, 0.0), (0.5, 0.5, 0.0, 0.0)))
    result = ENGINES[engine](strategy, small_view(prices, prices), convention=Convention(slippage_bps=0.0, fee_bps=0.0))
    # Half of 100,000 at 5 each, bought at the second open; all of it sold at the fourth. Of the first symbol nothing.
    assert [(order.symbol, order.side, order.quantity) for order in result.orders.itertuples()] == [
        ("B", "buy", 10_000.0),
        ("B", "sell", 10_000.0),
    ]
    assert [trade.symbol for trade in result.trades.itertuples()] == ["B"]


@settings(derandomize=True, deadline=None, max_examples=20)
@given(markets())
def test_cash_is_never_negative_and_the_fills_explain_the_final_equity(case: tuple[View, Scripted, Convention]) -> None:
    view, strategy, convention = case
    convention = Convention(fill=convention.fill, slippage_bps=convention.slippage_bps, fee_bps=convention.fee_bps)
    result = run_vectorised(strategy, view, convention=convention)
    cash, held = convention.initial_cash, dict.fromkeys(view.symbols, 0.0)
    for order in result.orders.itertuples():
        sign = 1.0 if order.side == "buy" else -1.0
        cash -= sign * order.quantity * order.price + order.fee
        held[order.symbol] += sign * order.quantity
        assert cash >= -1e-6
    assert all(quantity >= -1e-9 for quantity in held.values())
    worth = cash + sum(held[symbol] * view.close[symbol].iloc[-1] for symbol in view.symbols)
    assert result.equity.iloc[-1] == pytest.approx(worth, rel=1e-9)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(markets(), st.integers(1, 13))
def test_a_prefix_of_the_market_gives_a_prefix_of_the_account(case: tuple[View, Scripted, Convention], rows: int) -> None:
    view, strategy, convention = case
    cut = view.upto(view.sessions[min(rows, len(view.sessions) - 1)])
    if convention.fill == "next_open" and bool(cut.panel.open.isna().all().any()):
        return  # a symbol with closes only in the prefix is refused, which another test holds
    whole, part = (run_vectorised(strategy, some, convention=convention) for some in (view, cut))
    assert part.equity.to_numpy() == pytest.approx(whole.equity.to_numpy()[: len(part.equity)], rel=1e-12)


def test_many_configurations_at_once_equal_each_alone() -> None:
    view = small_view(
        [[10, 11, 12, 11, 13, 12.5], [20, 19, 21, 22, 20, 21]], [[11, 12, 11.5, 12, 12, 13], [19.5, 20, 22, 21, 20, 22]]
    )
    scripts = [
        Scripted(weights=((1, 1, 0, 0, 1, 1), (0, 0, 0, 0, 0, 0))),
        Scripted(weights=((0.5, 0.2, 0.5, 0, 0, 0), (0.5, 0.5, 0.1, 0.1, 0, 0))),
        Scripted(weights=((0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0))),
        Scripted(weights=((0, 1, 0.5, 1, 0, 0), (0, 0, 0.5, 0, 0, 0))),
    ]
    many = run_many(scripts, view)
    for column, script in enumerate(scripts):
        alone = run_vectorised(script, view)
        assert many.equity[column].to_numpy() == pytest.approx(alone.equity.to_numpy(), rel=1e-12)
        assert many.trades[column] == len(alone.trades)
        assert many.orders[column] == len(alone.orders)
    assert many.returns.shape == (5, 4)


def test_many_configurations_in_blocks_equal_one_block(monkeypatch: pytest.MonkeyPatch, nasdaq: View) -> None:
    view = View(panel=nasdaq.panel.upto(nasdaq.sessions[300]))
    strategies = [get_strategy("sma_crossover", {"fast": fast, "slow": 30}) for fast in (3, 5, 8, 13)]
    whole = run_many(strategies, view)
    monkeypatch.setattr("backtests.equity_vectorbt._CELLS_PER_CALL", 700)
    parts = run_many(strategies, view)
    pd.testing.assert_frame_equal(whole.equity, parts.equity)
    assert whole.trades.tolist() == parts.trades.tolist()


def test_round_trips_are_matched_first_in_first_out() -> None:
    # Buys 1,000 at 10 (half), then to 100 % at 20, then sells all at 15, no costs.
    view = small_view([[10, 10, 20, 15, 15]], [[10, 10, 20, 15, 15]])
    result = run_vectorised(
        Scripted(weights=((0.5, 1.0, 0.0, 0.0, 0.0),)), view, convention=Convention(slippage_bps=0.0, fee_bps=0.0)
    )
    # 5,000 at 10; equity at the open of bar 2 is 150,000, so 2,500 more at 20; both lots leave at 15.
    assert result.trades["quantity"].tolist() == pytest.approx([5_000, 2_500])
    assert result.trades["pnl"].tolist() == pytest.approx([25_000, -12_500])
    assert result.trades["return"].tolist() == pytest.approx([0.5, -0.25])


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ((0.0, 1.2, 0.0), "weight 1.2 for A at 2024-01-02"),
        ((0.0, -0.5, 0.0), "weight -0.5 for A at 2024-01-02"),
        ((0.0, math.inf, 0.0), "weight inf for A at 2024-01-02"),
    ],
)
def test_weights_that_are_no_fractions_are_refused_with_symbol_session_and_value(
    engine: str, weights: tuple[float, ...], words: str
) -> None:
    view = small_view([[10.0] * 3], [[10.0] * 3])
    with pytest.raises(InputError, match=words):
        ENGINES[engine](Scripted(weights=(weights,)), view)


def test_weights_that_add_up_to_more_than_one_are_refused_also_when_held_over() -> None:
    view = small_view([[10.0] * 3, [10.0] * 3], [[10.0] * 3, [10.0] * 3])
    with pytest.raises(InputError, match="held at 2024-01-02 add up to 1.4"):
        run_vectorised(Scripted(weights=((0.7, math.nan, math.nan), (0.0, 0.7, 0.7))), view)


def test_a_strategy_of_the_wrong_shape_is_refused() -> None:
    class Wrong(Scripted):
        def targets(self, view: View) -> pd.DataFrame:
            return super().targets(view).iloc[1:]

    with pytest.raises(InputError, match=r"shape \(2, 1\), the view has \(3, 1\)"):
        run_vectorised(Wrong(weights=((0.0, 0.0, 0.0),)), small_view([[10.0] * 3], [[10.0] * 3]))


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize(("bad", "words"), [(0.0, "close 0.0"), (-3.0, "close -3.0"), (math.inf, "close inf")])
def test_a_price_that_is_not_positive_is_refused_with_symbol_and_session(engine: str, bad: float, words: str) -> None:
    view = small_view([[10.0, 10.0, 10.0]], [[10.0, bad, 10.0]])
    with pytest.raises(QualityError, match=f"A: .*{words}.* at 2024-01-02"):
        ENGINES[engine](Scripted(weights=((1.0, 1.0, 1.0),)), view)


def test_the_event_engine_catches_a_strategy_that_looks_ahead_when_asked_to() -> None:
    class Clairvoyant(Scripted):
        def targets(self, view: View) -> pd.DataFrame:
            return (view.close.shift(-1) > view.close).astype(float)

    view = small_view([[10, 11, 10, 12, 11]], [[10, 11, 10, 12, 11]])
    seer = Clairvoyant(weights=())
    assert len(run_event(seer, view).orders) > 0
    with pytest.raises(LeakageError, match=r"2024-01-01 .* it looks ahead"):
        run_event(seer, view, recompute_every=1)
    honest = run_event(get_strategy("bollinger_reversion", {"period": 3}), view, recompute_every=1)
    assert honest.engine == "backtrader"


def test_a_rejected_order_is_an_error_and_never_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    from config.errors import QuantError

    monkeypatch.setattr("backtests.equity_event._purchase", lambda quantity, price, cash, convention: quantity * 2)
    with pytest.raises(QuantError, match="backtrader ended an order for A .* as Margin"):
        run_event(Scripted(weights=((1.0,) * 3,)), small_view([[10.0] * 3], [[10.0] * 3]))


def test_importing_the_engines_costs_neither_vectorbt_nor_backtrader_nor_prefect() -> None:
    code = (
        "import sys, backtests.equity_vectorbt, backtests.equity_event, backtests.search;"
        "print([name for name in ('vectorbt', 'backtrader', 'prefect', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_result_carries_what_the_next_rooms_need(nasdaq: View) -> None:
    result: Any = run_vectorised(get_strategy("sma_crossover"), nasdaq, snapshot_id="abc", data_kind="modelled")
    assert (result.snapshot_id, result.data_kind, result.engine) == ("abc", "modelled", "vectorbt")
    assert result.spec.params == {"fast": 20, "slow": 50}
    assert result.spec.symbols == ("NASDAQ",)
    assert result.weights.shape == nasdaq.close.shape
    assert len(result.returns) == len(nasdaq.sessions) - 1
