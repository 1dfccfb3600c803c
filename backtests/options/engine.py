"""One run of an options strategy on backtrader, reconciled at every session.

1. `simulate` checks that whole contracts fit the money (`_require_size`) and starts cerebro with the broker and `_Overlay`.
2. Each session backtrader calls the broker (fills, expiries, marks: `broker`), then `_Overlay.next`, which decides on the
   chain of that session: shares (`_rebalance`), open legs (`_manage`), new legs (`_enter`). Orders go to the next snapshot.
3. `_reconcile` demands at every session that the change of equity is cash flows plus the change of marks.
4. The books become an `OptionsResult` (`reports`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from backtests.options.broker import ContractFeed, OptionBroker, UnderlyingFeed
from backtests.options.chain import ChainBook
from backtests.options.rules import Leg, OptionStrategy, Overlay, choose, wanted_contracts
from config.conventions import Convention
from config.errors import InputError, IntegrityError
from config.progress import SILENT, Progress

__all__ = ["Books", "simulate"]

TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Books:
    """What a run leaves behind: equity by session and the broker with its ledger."""

    equity: pd.Series
    broker: OptionBroker
    overlay: Overlay


def simulate(
    strategy: OptionStrategy,
    book: ChainBook,
    bars: pd.DataFrame,
    convention: Convention,
    *,
    risk_level: pd.Series | None = None,
    progress: Progress = SILENT,
) -> Books:
    """Run the strategy over the sessions of `bars`.

    Parameters
    ----------
    bars : DataFrame of shape (n_sessions, 2)
        `open` (NaN where there is none) and `close` of the underlying; index `session`.
    risk_level : Series of shape (n_sessions,), optional
        Known at each session's close; without it the strategy's `risk_regime_max` is not applied.

    Raises
    ------
    InputError
        No sessions, closes missing, no opens under `next_open`, or too little money for one contract.
    OrderRefused
        A call would be sold without shares behind it.
    IntegrityError
        The books do not balance (an error in the engine, never in the data).
    """
    overlay = strategy.overlay()
    _require_bars(bars, convention)
    _require_size(overlay, book, float(bars["close"].iloc[0]), convention)
    cerebro = bt.Cerebro(stdstats=False, runonce=False)
    feed = UnderlyingFeed(book.underlying, bars)
    broker = OptionBroker()
    broker.setup(book, feed, pd.DatetimeIndex(bars.index), convention, float(strategy.params["commission_usd"]))
    cerebro.broker = broker
    cerebro.adddata(feed, name=book.underlying)
    progress.stage(f"options {strategy.name}", len(bars))
    cerebro.addstrategy(
        _Overlay, overlay=overlay, rate_ann=float(strategy.params["rate_ann"]), risk_level=risk_level, progress=progress
    )
    run = cerebro.run()[0]
    equity = pd.Series(run.equity, index=pd.DatetimeIndex(bars.index, name="session"), name="equity")
    return Books(equity=equity, broker=broker, overlay=overlay)


def _require_bars(bars: pd.DataFrame, convention: Convention) -> None:
    if len(bars) < 2:
        raise InputError(f"an options backtest needs at least two sessions of the underlying, there are {len(bars)}")
    close = bars["close"].to_numpy()
    if not (np.isfinite(close) & (close > 0.0)).all():
        day = bars.index[int(np.argmin(np.isfinite(close) & (close > 0.0)))]
        raise InputError(f"the underlying has no close on {day:%Y-%m-%d}", remedy="ask for sessions it covers")
    if convention.fill == "next_open" and bars["open"].isna().all():
        raise InputError(
            "the underlying has closes only, and the convention fills at the next open", remedy="set convention.fill to same_close"
        )


def _require_size(overlay: Overlay, book: ChainBook, close: float, convention: Convention) -> None:
    shares = overlay.underlying_weight * convention.initial_cash / close
    multiplier = book.contracts[0].multiplier
    for leg in overlay.legs:
        if leg.ratio_max > 0.0 and wanted_contracts(leg, shares, multiplier) == 0:
            needed = multiplier / leg.ratio_max * close / overlay.underlying_weight if overlay.underlying_weight else math.inf
            raise InputError(
                f"{convention.initial_cash:,.0f} of cash buys {shares:.1f} shares of {book.underlying} at {close:,.2f}: no whole "
                f"contract of {multiplier:g} fits the ratio {leg.ratio_min:g} to {leg.ratio_max:g}",
                remedy=f"start with about {math.ceil(needed / 1000) * 1000:,.0f} or more (initial_cash)",
            )


class _Overlay(bt.Strategy):  # type: ignore[misc, unused-ignore]
    """Shares and legs over them; decides after the session's snapshot, trades at the next one."""

    params = (("overlay", None), ("rate_ann", 0.0), ("risk_level", None), ("progress", SILENT))

    def __init__(self) -> None:
        self.equity: list[float] = []
        self.legs: dict[int, Leg] = {}

    # -- backtrader's hooks -----------------------------------------------------------------------------------------

    def next(self) -> None:
        broker: OptionBroker = self.broker
        last = len(self.data) == len(broker.sessions)  # a decision on the last session would never be filled
        if not last:
            self._rebalance(broker)
            broker.fill_at_close()
        self.equity.append(broker.equity())
        _reconcile(broker, self.equity)
        self.p.progress.advance()
        if not last:
            self._manage(broker)
            self._enter(broker)

    # -- decisions --------------------------------------------------------------------------------------------------

    def _rebalance(self, broker: OptionBroker) -> None:
        overlay: Overlay = self.p.overlay
        equity, close, shares, cash = broker.equity(), float(self.data.close[0]), broker.shares(), float(broker.cash)
        change = overlay.underlying_weight * equity / close - shares
        if cash < 0.0:  # a settlement took more than there was: shares make it good, with a hundredth for the costs
            change = min(change, 1.01 * cash / close)
        else:
            change = min(change, cash / close)
            if shares and abs(change) * close <= overlay.rebalance_band * equity:
                return
        # Shares behind calls are not sold from under them.
        change = max(change, min(broker.behind_calls() - shares, 0.0))
        change = change if broker.convention.fractional else float(math.trunc(change))
        if change > 0.0:
            self.buy(data=self.data, size=change)
        elif change < 0.0:
            self.sell(data=self.data, size=-change)

    def _manage(self, broker: OptionBroker) -> None:
        for feed in broker.open_contracts():
            leg = self.legs[feed.number]
            size = float(broker.getposition(feed).size)
            days = (feed.contract.expiry - broker.session).days
            reason = self._exit_reason(broker, feed, leg, days)
            if reason:
                closing = self._trade(feed, -size, reason)
                if reason.startswith("roll"):
                    self._open(broker, leg, after=closing)
                continue
            shares = broker.sure_shares()
            wanted = wanted_contracts(leg, shares, feed.contract.multiplier)
            ratio = abs(size) * feed.contract.multiplier / shares if shares else math.inf
            if ratio > leg.ratio_max + 1e-9 or ratio < leg.ratio_min - 1e-9:
                change = leg.sign * wanted - size
                if change:
                    self._trade(feed, change, f"ratio {ratio:.3f} outside {leg.ratio_min:g} to {leg.ratio_max:g}")

    def _exit_reason(self, broker: OptionBroker, feed: ContractFeed, leg: Leg, days: int) -> str:
        if leg.roll_dte and days <= leg.roll_dte:
            return f"roll at {days} days"
        entry = float(broker.getposition(feed).price)
        gain = leg.sign * (float(feed.close[0]) - entry) / entry if entry else 0.0
        if leg.profit_target is not None and gain >= leg.profit_target:
            return f"profit target: {gain:.1%} of the entry price"
        if leg.stop_loss is not None and gain <= -leg.stop_loss:
            return f"stop: {gain:.1%} of the entry price"
        return ""

    def _enter(self, broker: OptionBroker) -> None:
        busy = {self.legs[feed.number] for feed in broker.open_contracts()}
        busy |= {self.legs[order.data.number] for order in broker.pending if order.data is not self.data}
        for leg in self.p.overlay.legs:
            if leg not in busy:
                self._open(broker, leg)

    def _open(self, broker: OptionBroker, leg: Leg, after: Any = None) -> None:
        if not self._calm(broker):
            return
        number = choose(broker.book, broker.session, leg, float(self.data.close[0]), self.p.rate_ann)
        if number is None:
            return
        contract = broker.book.contracts[number]
        shares = broker.sure_shares()
        contracts = wanted_contracts(leg, shares, contract.multiplier)
        if contracts == 0:
            if shares:
                reason = f"no whole contract keeps the ratio {leg.ratio_min:g} to {leg.ratio_max:g} of {shares:.1f} shares"
                broker.note(contract.symbol, "stood_aside", 0.0, math.nan, reason)
            return
        self.legs[number] = leg
        days = (contract.expiry - broker.session).days
        self._trade(broker.contract_feed(number), leg.sign * contracts, f"entry at {days} days", after=after)

    def _calm(self, broker: OptionBroker) -> bool:
        limit = self.p.overlay.risk_regime_max
        if limit is None or self.p.risk_level is None:
            return True
        # NaN compares false: an unknown level stands aside.
        return bool(self.p.risk_level.get(broker.session, math.nan) <= limit)

    def _trade(self, feed: ContractFeed, size: float, reason: str, after: Any = None) -> Any:
        send = self.buy if size > 0 else self.sell
        self.broker.note(feed._name, "decided", size, float(feed.close[0]), reason)
        return send(data=feed, size=abs(size), after=after)


def _reconcile(broker: OptionBroker, equity: list[float]) -> None:
    """Our books against backtrader's: the session's change of equity is cash flows plus the change of marks, to 1e-6."""
    session = broker.session
    before = equity[-2] if len(equity) > 1 else broker.convention.initial_cash
    expected, actual = broker.reconciliation.change(broker.ledger, session), equity[-1] - before
    if not abs(expected - actual) <= TOLERANCE * max(1.0, abs(equity[-1]) * 1e-6):
        raise IntegrityError(
            f"{session:%Y-%m-%d}: equity changed by {actual!r}, cash flows and marks say {expected!r}",
            remedy="this is an error in the engine: please report it with the strategy and the snapshot id",
        )
