"""The options broker over backtrader's: contracts as pseudo-feeds, fills at quotes, expiry, assignment, cover and marks.

Backtrader carries the clock, the orders, the positions and the trades. Ours are the fills and the money, because its
multiplier charges a hundredth of the price and its short options need no cover. Each session `OptionBroker.next`

1. credits interest on the cash of the session before (`_accrue`);
2. fills share orders at the session's open, or they were filled at the deciding close (`_fill_shares`);
3. settles what expires: in cash, or in shares at the strike (`_expire`);
4. fills option orders at the bid or the ask of the session's snapshot, or cancels them (`_fill_options`);
5. marks every position: mid, else its last mark, never below intrinsic value (`_mark`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import backtrader as bt
import pandas as pd

from backtests.options.chain import ChainBook, Contract
from config.calendar import next_session
from config.conventions import Convention
from config.errors import OrderRefused

__all__ = ["ContractFeed", "Event", "Fill", "Ledger", "OptionBroker", "Reconciliation", "UnderlyingFeed"]


@dataclass(frozen=True, slots=True)
class Fill:
    """One movement of money and position. `quantity` is signed; `cash` is signed and after the fee."""

    session: pd.Timestamp
    symbol: str
    kind: Literal["fill", "expired", "exercised", "assigned", "delivery"]
    quantity: float
    price: float
    multiplier: float
    fee: float

    @property
    def cash(self) -> float:
        """What the movement added to cash."""
        return -self.quantity * self.price * self.multiplier - self.fee


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log: what happened to an order or a position, and why."""

    session: pd.Timestamp
    symbol: str
    event: str
    quantity: float
    price: float
    reason: str


@dataclass(slots=True)
class Ledger:
    """The books beside backtrader's own, for the reconciliation and the report."""

    fills: list[Fill] = field(default_factory=list)
    interest: dict[pd.Timestamp, float] = field(default_factory=dict)
    marks: dict[pd.Timestamp, dict[str, float]] = field(default_factory=dict)
    mark_kinds: Counter[str] = field(default_factory=Counter)
    log: list[Event] = field(default_factory=list)


class Reconciliation:
    """Our own account of the money, from fills and marks alone, to hold against backtrader's cash and positions."""

    def __init__(self) -> None:
        self.seen = 0
        self.held: dict[str, float] = {}
        self.multiplier: dict[str, float] = {}
        self.value = 0.0
        self.flows: list[tuple[pd.Timestamp, str, str, float]] = []

    def change(self, ledger: Ledger, session: pd.Timestamp) -> float:
        """The session's change of equity: cash flows since the last call plus the change of the marked positions."""
        flow = ledger.interest.get(session, 0.0)
        if flow:
            self.flows.append((session, "", "interest", flow))
        for fill in ledger.fills[self.seen :]:
            self.held[fill.symbol] = self.held.get(fill.symbol, 0.0) + fill.quantity
            self.multiplier[fill.symbol] = fill.multiplier
            self.flows.append((fill.session, fill.symbol, fill.kind, fill.cash + fill.fee))
            if fill.fee:
                self.flows.append((fill.session, fill.symbol, "fee", -fill.fee))
            flow += fill.cash
        self.seen = len(ledger.fills)
        marks = ledger.marks[session]
        value = sum(size * marks[name] * self.multiplier[name] for name, size in self.held.items() if size)
        change, self.value = flow + value - self.value, value
        return change


class _Times(bt.CommInfoBase):  # type: ignore[misc, unused-ignore]
    """Stock-like money with a multiplier that multiplies the whole price; fees are taken where orders are filled."""

    params = (("commission", 0.0), ("mult", 1.0), ("stocklike", True), ("commtype", bt.CommInfoBase.COMM_FIXED))

    def getvaluesize(self, size: float, price: float) -> float:
        return size * price * float(self.p.mult)

    def getvalue(self, position: Any, price: float) -> float:
        return float(position.size) * price * float(self.p.mult)

    def getoperationcost(self, size: float, price: float) -> float:
        return abs(size) * price * float(self.p.mult)

    def profitandloss(self, size: float, price: float, newprice: float) -> float:
        return size * (newprice - price) * float(self.p.mult)

    def getcommission(self, size: float, price: float) -> float:
        return 0.0


class UnderlyingFeed(bt.feed.DataBase):  # type: ignore[misc, unused-ignore]
    """The underlying's sessions, from a frame with open and close (an open that is missing stays NaN)."""

    def __init__(self, symbol: str, bars: pd.DataFrame) -> None:
        super().__init__()
        self._name = symbol
        self._bars = bars
        self._at = 0

    def _load(self) -> bool:
        if self._at == len(self._bars):
            return False
        row = self._bars.iloc[self._at]
        self.lines.datetime[0] = bt.date2num(self._bars.index[self._at].to_pydatetime())
        self.lines.open[0] = row["open"]
        self.lines.high[0] = self.lines.low[0] = self.lines.close[0] = row["close"]
        self.lines.volume[0] = self.lines.openinterest[0] = 0.0
        self._at += 1
        return True


class ContractFeed(bt.feed.DataBase):  # type: ignore[misc, unused-ignore]
    """A contract's pseudo-feed, made when it is first traded; the broker pushes one mark a session."""

    def __init__(self, number: int, contract: Contract) -> None:
        super().__init__()
        self.number = number
        self.contract = contract
        self._name = contract.symbol
        self._tz = None

    def push(self, moment: float, mark: float) -> None:
        """Append one session."""
        self.forward()
        self.lines.datetime[0] = moment
        self.lines.open[0] = self.lines.high[0] = self.lines.low[0] = self.lines.close[0] = mark
        self.lines.volume[0] = self.lines.openinterest[0] = 0.0


class OptionBroker(bt.brokers.BackBroker):  # type: ignore[misc, unused-ignore]
    """See the module; `setup` gives it the book, the convention, the commission and the strategy's feed."""

    params = (("checksubmit", False),)

    def setup(
        self, book: ChainBook, feed: UnderlyingFeed, sessions: pd.DatetimeIndex, convention: Convention, commission: float
    ) -> None:
        """Attach what the run needs; called once before the run."""
        self.book, self.feed, self.sessions, self.convention, self.commission_usd = book, feed, sessions, convention, commission
        self.ledger = Ledger()
        self.contracts: dict[int, ContractFeed] = {}
        self.reconciliation = Reconciliation()
        self.setcash(convention.initial_cash)
        self.addcommissioninfo(_Times(mult=1.0), name=feed._name)

    # -- what the strategy asks -------------------------------------------------------------------------------------

    @property
    def session(self) -> pd.Timestamp:
        """The session backtrader's clock stands at."""
        return pd.Timestamp(self.sessions[len(self.feed) - 1])

    def contract_feed(self, number: int) -> ContractFeed:
        """The contract's pseudo-feed, made on first use and marked at the present snapshot."""
        if number not in self.contracts:
            contract = self.book.contracts[number]
            feed = ContractFeed(number, contract)
            self.addcommissioninfo(_Times(mult=contract.multiplier), name=contract.symbol)
            self.contracts[number] = feed
            quote = self.book.quote(self.session, number)
            intrinsic = contract.intrinsic(float(self.feed.close[0]))
            feed.push(float(self.feed.datetime[0]), max(quote.mid if quote and quote.usable else 0.0, intrinsic))
        return self.contracts[number]

    def shares(self) -> float:
        """Shares of the underlying held."""
        return float(self.getposition(self.feed).size)

    def sure_shares(self) -> float:
        """Shares that will be held after the orders under way are filled, or are held now if those are fewer."""
        ordered = sum(float(order.created.size) for order in self.pending if order.data is self.feed)
        return min(self.shares(), self.shares() + ordered)

    def behind_calls(self) -> float:
        """Shares that open short calls stand on."""
        sizes = ((feed, float(self.getposition(feed).size)) for feed in self.open_contracts() if feed.contract.right == "C")
        return sum(-size * feed.contract.multiplier for feed, size in sizes if size < 0)

    def open_contracts(self) -> list[ContractFeed]:
        """Contracts with a position, in the order they were first traded."""
        return [feed for feed in self.contracts.values() if self.getposition(feed).size]

    def equity(self) -> float:
        """Cash plus every position at its mark."""
        value = float(self.cash) + self.shares() * float(self.feed.close[0])
        for feed in self.open_contracts():
            value += float(self.getposition(feed).size) * float(feed.close[0]) * feed.contract.multiplier
        return value

    def note(self, symbol: str, event: str, quantity: float, price: float, reason: str) -> None:
        """Write one entry of the log."""
        self.ledger.log.append(Event(self.session, symbol, event, quantity, price, reason))

    # -- backtrader's hooks -----------------------------------------------------------------------------------------

    def _get_value(self, datas: Any = None, lever: bool = False) -> float:
        return self.equity() if getattr(self, "feed", None) is not None and len(self.feed) else float(self.cash)

    def next(self) -> None:
        """One session; see the module."""
        self._advance()
        self._accrue()
        self._fill_shares(at_open=True)
        self._expire()
        self._fill_options()
        self._mark()

    def fill_at_close(self) -> None:
        """Fill share orders at the close they were decided on (convention `same_close`)."""
        if self.convention.fill == "same_close":
            self._fill_shares(at_open=False)

    # -- the steps --------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Bring the pseudo-feeds that are held or ordered to this session; `_mark` sets their value."""
        ordered = {order.data for order in self.pending}
        for feed in self.contracts.values():
            if self.getposition(feed).size or feed in ordered:
                feed.push(float(self.feed.datetime[0]), float(feed.close[0]))

    def _accrue(self) -> None:
        rate = self.convention.cash_interest_ann / self.convention.sessions_per_year
        if len(self.feed) > 1 and rate:
            interest = float(self.cash) * rate
            self.cash += interest
            self.ledger.interest[self.session] = interest

    def _fill_shares(self, *, at_open: bool) -> None:
        for order in [one for one in self.pending if one.data is self.feed]:
            self.pending.remove(order)
            size = float(order.created.size)
            base = float(self.feed.open[0] if at_open else self.feed.close[0])
            if not base > 0.0:
                self.note(self.feed._name, "cancelled", size, base, "no price to fill at")
                order.cancel()
                self.notify(order)
                continue
            price = base * (1.0 + (self.convention.slippage if size > 0 else -self.convention.slippage))
            if size > 0:
                size = min(size, max(float(self.cash), 0.0) / (price * (1.0 + self.convention.fee)))
                size = size if self.convention.fractional else float(int(size))
            if size == 0.0:
                self.note(self.feed._name, "refused", size, price, "no cash for a share")
                order.margin()
                self.notify(order)
                continue
            self._settle(order, "fill", size, price, abs(size) * price * self.convention.fee)

    def _fill_options(self) -> None:
        for order in [one for one in self.pending if one.data is not self.feed]:
            self.pending.remove(order)
            after = order.info.get("after")
            quote = self.book.quote(self.session, order.data.number)
            size = float(order.created.size)
            reason = ""
            if after is not None and after.status != bt.Order.Completed:
                reason = "the closing order it follows was not filled"
            elif quote is None or not quote.usable:
                reason = "no two-sided quote in the snapshot"
            elif size < 0 and quote.bid <= 0.0:
                reason = "no bid"
            if reason:
                self.note(order.data._name, "cancelled", size, float("nan"), reason)
                order.cancel()
                self.notify(order)
                continue
            assert quote is not None
            price = quote.ask if size > 0 else quote.bid
            fee = abs(size) * self.commission_usd
            short = self._lacking(order.data, size, price, fee)
            if short:
                self.note(order.data._name, "refused", size, price, short)
                order.margin()
                self.notify(order)
                continue
            self._settle(order, "fill", size, price, fee)

    def _lacking(self, feed: ContractFeed, size: float, price: float, fee: float) -> str:
        """Why an option fill cannot be paid for; '' when it can. A call that would be naked is an error, not a reason."""
        contract = feed.contract
        held = float(self.getposition(feed).size)
        opening = max(-(held + size), 0.0) - max(-held, 0.0)
        if opening > 0 and contract.right == "C":
            needed = self.behind_calls() + opening * contract.multiplier
            if needed > self.shares() + 1e-9:
                raise OrderRefused(
                    f"{self.session:%Y-%m-%d}: selling {opening:g} {contract.symbol} would leave calls on {needed:g} shares "
                    f"against {self.shares():g} held",
                    rule="covered_calls",
                    remedy="sell calls only against shares held: a cover ratio of at most 1",
                )
        if opening > 0 and contract.right == "P":
            secured = self._secured() + opening * contract.strike * contract.multiplier
            available = float(self.cash) - size * price * contract.multiplier - fee
            if secured > available + 1e-9:
                return f"puts sold need {secured:.2f} of cash, there is {available:.2f}"
        if size > 0 and held >= 0 and size * price * contract.multiplier + fee > float(self.cash) + 1e-9:
            return f"it costs {size * price * contract.multiplier + fee:.2f}, there is {float(self.cash):.2f} of cash"
        return ""

    def _secured(self) -> float:
        return sum(
            -float(self.getposition(feed).size) * feed.contract.strike * feed.contract.multiplier
            for feed in self.open_contracts()
            if feed.contract.right == "P" and self.getposition(feed).size < 0
        )

    def _expire(self) -> None:
        following = next_session(self.session)
        for feed in self.open_contracts():
            contract = feed.contract
            if contract.expiry >= following:
                continue
            self._drop_orders(feed)
            spot = float(self.feed.open[0] if contract.settlement == "am_cash" else self.feed.close[0])
            size = float(self.getposition(feed).size)
            if not spot > 0.0:
                raise OrderRefused(
                    f"{contract.symbol} settles at the open of {self.session:%Y-%m-%d}, and the underlying has none",
                    rule="settlement_price",
                    remedy="use a source with opens, or contracts that settle at the close",
                )
            # Exercise by exception: in the money by a cent or more.
            worth = contract.intrinsic(spot) if round(contract.intrinsic(spot), 6) >= 0.01 else 0.0
            kind: Any = "expired" if worth == 0.0 else "exercised" if size > 0 else "assigned"
            late = f", late: the underlying has no bar on {contract.expiry:%Y-%m-%d}" if contract.expiry < self.session else ""
            self.note(contract.symbol, kind, size, worth, f"settled at {spot:g} ({contract.settlement}){late}")
            order = self._internal_order(feed, -size)
            if contract.settlement != "physical" or worth == 0.0:
                self._settle(order, kind, -size, worth, 0.0)
                continue
            # Delivery is never dropped for lack of cash; a negative balance is the strategy's to cure at the next session.
            self._settle(order, kind, -size, 0.0, 0.0)
            shares = size * contract.multiplier * (1.0 if contract.right == "C" else -1.0)
            self._settle(self._internal_order(self.feed, shares), "delivery", shares, contract.strike, 0.0)

    def _drop_orders(self, feed: ContractFeed) -> None:
        for order in [one for one in self.pending if one.data is feed]:
            self.pending.remove(order)
            order.cancel()
            self.notify(order)

    def _internal_order(self, feed: Any, size: float) -> Any:
        kind = bt.BuyOrder if size > 0 else bt.SellOrder
        order = kind(owner=self.cerebro.runningstrats[0], data=feed, size=abs(size), exectype=bt.Order.Market)
        order.submit(self)
        order.accept(self)
        return order

    def _settle(self, order: Any, kind: Any, size: float, price: float, fee: float) -> None:
        """Move position and cash, complete the order, tell the strategy, keep our own record."""
        data = order.data
        comminfo = self.getcommissioninfo(data)
        multiplier = float(comminfo.p.mult)
        position = self.getposition(data)
        before = float(position.price)
        after, average, opened, closed = position.update(size, price, data.datetime.datetime(0))
        gain = comminfo.profitandloss(-closed, before, price) if closed else 0.0
        self.cash -= size * price * multiplier + fee
        share = fee / abs(size)
        order.execute(
            self.feed.datetime[0], size, price,
            closed, comminfo.getvaluesize(-closed, before), abs(closed) * share,
            opened, comminfo.getvaluesize(opened, price), abs(opened) * share,
            0.0, gain, after, average,
        )  # fmt: skip
        order.addcomminfo(comminfo)
        if abs(size) < abs(order.created.size):  # shares cut to the cash there was
            order.executed.remsize = 0.0
        order.completed()
        self.notify(order)
        self.ledger.fills.append(Fill(self.session, data._name, kind, size, price, multiplier, fee))

    def _mark(self) -> None:
        marks = {self.feed._name: float(self.feed.close[0])}
        spot = float(self.feed.close[0])
        for feed in self.contracts.values():
            if not self.getposition(feed).size:
                continue
            quote = self.book.quote(self.session, feed.number)
            usable = quote is not None and quote.usable
            value = quote.mid if quote is not None and usable else float(feed.close[0])
            floor = feed.contract.intrinsic(spot)
            self.ledger.mark_kinds["floored" if value < floor else "quoted" if usable else "stale"] += 1
            marks[feed._name] = feed.lines.close[0] = max(value, floor)
        self.ledger.marks[self.session] = marks
