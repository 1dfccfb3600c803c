"""Equity backtests on backtrader: the same strategies, session by session, to validate the vectorised engine.

1. `run_event` asks the strategy for its targets once and feeds the prices of the convention to backtrader (`_feed`).
2. `_Trader.next_open` sees, before each session's fills, the newest decision that may be filled in it, and sends an order for
   each symbol whose wanted weight differs from the one last acted on (`_purchase`).
3. backtrader fills at the open with slippage (`_broker`); any order that does not complete raises (`notify_order`).
4. `_Trader.next` writes down the account's value after each close; `run_event` returns everything as a `BacktestResult`.

**Decisions.** Targets are computed once over the whole view, for speed. That is allowed only because a strategy's target of a
session does not depend on later rows; `recompute_every` proves it during the run: at every so many sessions the strategy is
asked again with `view.upto(session)`, and a difference raises `LeakageError`. `backtests.strategy_check.check_strategy` does the
same, and more, outside a run.

**backtrader's own behaviour** that is not used here: orders sized at the previous close (cheat-on-open sizes them at the open
they are filled at), slippage dropped at the open (`slip_open`), prices capped at the session's high and low (`slip_out`), and
orders that vanish for lack of cash: quantities are cut to the cash before they are sent. For `fill: same_close` the feed's open
is the close of the same session, and the decision of that session is the one acted on.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np
import pandas as pd

from backtests.decisions import FloatArray, TradingPrices, decide, interest_factors, specification, trading_prices
from backtests.result import BacktestResult
from backtests.strategy import Strategy, View
from backtests.trades import order_frame, round_trips
from config.conventions import REFERENCE, Convention
from config.errors import InputError, LeakageError, QuantError

__all__ = ["run_event"]

_ROUNDING = 1e-14  # of equity: left in cash by a purchase that takes all of it, so that rounding never overdraws
_DUST = 1e-9  # of equity: cash this small is the rounding of an account that is fully invested, and buys nothing


def run_event(
    strategy: Strategy,
    view: View,
    *,
    convention: Convention = REFERENCE,
    snapshot_id: str = "",
    data_kind: Literal["real", "modelled"] = "real",
    recompute_every: int | None = None,
) -> BacktestResult:
    """Backtest one strategy event by event; parameters and result as `run_vectorised`.

    Parameters
    ----------
    recompute_every : int, optional
        Ask the strategy again, with nothing after the session, at every so many sessions, and compare. 1 checks every
        decision; the cost grows with the square of the history.

    Raises
    ------
    InputError, QualityError
        As `run_vectorised`.
    LeakageError
        A recomputed decision differs: the strategy looks ahead.
    QuantError
        backtrader refused an order; this is a fault of the engine, never passed over.
    """
    import backtrader as bt

    prices = trading_prices(view, convention)
    weights = decide(strategy, view)
    if recompute_every is not None:
        _check_decisions(strategy, view, weights, recompute_every)
    cerebro = bt.Cerebro(stdstats=False, cheat_on_open=True, runonce=False, preload=True)
    cerebro.broker = _broker(convention)
    for column, symbol in enumerate(view.symbols):
        cerebro.adddata(_feed(view.sessions, prices, column), name=symbol)
    cerebro.addstrategy(_trader_class(), weights=weights.to_numpy(), prices=prices, convention=convention)
    trader = cerebro.run()[0]
    rows = [(view.sessions[row], view.symbols[column], *fill) for row, column, *fill in trader.fills]
    orders = order_frame(rows)
    return BacktestResult(
        spec=specification(strategy, view, convention),
        engine="backtrader",
        equity=pd.Series(trader.values, index=view.sessions, name="equity"),
        weights=weights,
        orders=orders,
        trades=round_trips(orders),
        snapshot_id=snapshot_id or view.panel.snapshot_id,
        data_kind=data_kind,
    )


def _check_decisions(strategy: Strategy, view: View, weights: pd.DataFrame, every: int) -> None:
    if every < 1:
        raise InputError(f"recompute_every = {every} is not a number of sessions", remedy="use 1 or more, or None")
    for row in range(0, len(view.sessions), every):
        session = view.sessions[row]
        again = decide(strategy, view.upto(session)).to_numpy()[-1]
        before = weights.to_numpy()[row]
        if not np.array_equal(again, before, equal_nan=True):
            raise LeakageError(
                f"strategy {strategy.name}: at {session:%Y-%m-%d} the weights are {before.tolist()} with later rows and "
                f"{again.tolist()} without: it looks ahead",
                remedy="use only rows up to the session; `quant strategy check` finds the cut",
            )


def _broker(convention: Convention) -> Any:
    import backtrader as bt

    broker = bt.brokers.BackBroker(
        coo=True, slip_perc=convention.slippage, slip_open=True, slip_match=True, slip_out=True, shortcash=False
    )
    broker.setcash(convention.initial_cash)
    broker.setcommission(commission=convention.fee)
    return broker


def _feed(sessions: pd.DatetimeIndex, prices: TradingPrices, column: int) -> Any:
    """One symbol's bars. A session without a price keeps its row (no order is sent for it) at the last known value."""
    import backtrader as bt

    opens, closes = prices.valuation[:, column], prices.mark[:, column]
    bars = pd.DataFrame(
        {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes), "close": closes, "volume": 0.0},
        index=sessions.as_unit("ns"),
    )
    return bt.feeds.PandasData(dataname=bars, openinterest=None)


@functools.cache
def _trader_class() -> Any:
    """The backtrader strategy, made when first needed: importing backtrader costs half a second."""
    import backtrader as bt

    class _Trader(bt.Strategy):  # type: ignore[misc,unused-ignore]
        params = (("weights", None), ("prices", None), ("convention", None))

        def __init__(self) -> None:
            self.row = -1
            symbols = self.p.weights.shape[1]
            self.opinion: FloatArray = np.zeros(symbols)
            self.acted: FloatArray = np.zeros(symbols)
            self.values: list[float] = []
            self.fills: list[tuple[Any, ...]] = []
            rate = interest_factors(2, self.p.convention)[1] - 1.0
            self.interest_rate = float(rate)

        def next_open(self) -> None:
            """Before the fills of a session: credit interest, take in the decision, send the orders."""
            self.row += 1
            decided = self.row - self.p.prices.decision_lag
            if decided >= 0:
                newest = self.p.weights[decided]
                self.opinion = np.where(np.isnan(newest), self.opinion, newest)
            cash = self.broker.getcash()
            if self.row and self.interest_rate:
                cash += cash * self.interest_rate
                self.broker.cash = cash  # add_cash() would come after the check of this session's orders
            tradable = ~np.isnan(self.p.prices.fill[self.row])
            moved = np.flatnonzero(tradable & (self.opinion != self.acted))
            if len(moved):
                self._send(moved, cash)
                self.acted[moved] = self.opinion[moved]

        # backtrader calls these instead of next_open in the warm-up and on the first full bar.
        prenext_open = next_open
        nextstart_open = next_open

        def _send(self, moved: Any, cash: float) -> None:
            """Sales first, then purchases from the smallest to the largest, each within the cash that is then left."""
            convention, worth = self.p.convention, self.p.prices.valuation[self.row]
            held = np.array([self.getposition(data).size for data in self.datas])
            equity = cash + float(sum(shares * price for shares, price in zip(held, worth, strict=True) if shares))
            changes = {int(column): self.opinion[column] * equity - held[column] * worth[column] for column in moved}
            for column in sorted(changes, key=lambda column: changes[column]):
                open_price = self.p.prices.fill[self.row, column]
                quantity = self.opinion[column] * equity / worth[column] - held[column]
                if quantity > 0.0:
                    price = open_price * (1.0 + convention.slippage)
                    quantity = _purchase(quantity, price, cash - _ROUNDING * equity, convention)
                    if quantity * price <= _DUST * equity:
                        continue
                    cash -= quantity * price * (1.0 + convention.fee)
                else:
                    quantity = -_whole(min(-quantity, held[column]), convention)
                    cash -= quantity * open_price * (1.0 - convention.slippage) * (1.0 - convention.fee)
                if quantity > 0.0:
                    self.buy(self.datas[column], size=quantity)
                elif quantity < 0.0:
                    self.sell(self.datas[column], size=-quantity)

        def next(self) -> None:
            """After the close."""
            self.values.append(self.broker.getvalue())

        prenext = next

        def notify_order(self, order: Any) -> None:
            """Keep each fill; an order that ends in any other way is an error."""
            if order.status in (order.Submitted, order.Accepted):
                return
            symbol = order.data._name
            if order.status != order.Completed:
                raise QuantError(
                    f"backtrader ended an order for {symbol} of {order.created.size!r} as {order.getstatusname()} on "
                    f"{order.data.datetime.date():%Y-%m-%d} with cash {self.broker.getcash()!r}",
                    remedy="this is a fault in backtests/equity_event.py; please report it with the strategy's configuration",
                )
            done = order.executed
            side = "buy" if order.isbuy() else "sell"
            # By identity: to backtrader, feeds are equal when their newest closes are, so `datas.index` names another symbol then.
            column = next(place for place, data in enumerate(self.datas) if data is order.data)
            self.fills.append((self.row, column, side, abs(done.size), done.price, done.comm))

    return _Trader


def _purchase(quantity: float, price: float, cash: float, convention: Convention) -> float:
    """The quantity, cut to what the cash pays for with the fee."""
    affordable = max(cash, 0.0) / (price * (1.0 + convention.fee))
    return min(_whole(quantity, convention), _whole(affordable, convention))


def _whole(quantity: float, convention: Convention) -> float:
    return quantity if convention.fractional else float(math.floor(quantity))
