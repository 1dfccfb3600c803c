"""A paper session of twenty recorded-like bars: plan at the close, fill at the next open, drift to the cent, and any restart."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.calendar import session_closes, sessions
from config.clock import FixedClock
from config.conventions import REFERENCE, Convention
from config.errors import InputError
from execution.costs import CostModel
from execution.guard import Guard
from execution.journal import Journal
from execution.oms import run_plan
from execution.orders import OrderRequest, Quote, exact, signed
from execution.plan import PlanLimits, make_plan
from execution.reconcile import reconcile
from execution.simulated import Bar, SimulatedBroker
from risk.drift import DriftFill, explain_drift
from tests.execution.world import guard

DAYS = sessions("2026-10-12", "2026-11-06")
CLOSES = [moment.to_pydatetime() for moment in session_closes(DAYS)]
# Opens and closes that wander and gap, by a rule that can be followed by hand: no generator.
OPENS = {"SPX": [4000.0 + 13 * ((7 * n) % 11) for n in range(20)], "NDX": [12000.0 - 29 * ((5 * n) % 13) for n in range(20)]}
ENDS = {
    "SPX": [4003.5 + 13 * ((7 * n + 3) % 11) for n in range(20)],
    "NDX": [11990.25 - 29 * ((5 * n + 4) % 13) for n in range(20)],
}
WEIGHTS = {
    "SPX": [0.5, 0.5, 0.0, 0.0, 1.0, 0.25, 0.25, 0.6] + [0.6] * 12,
    "NDX": [0.5, 0.3, 0.3, 1.0, 0.0, 0.75, 0.0, 0.4] + [0.4] * 12,
}
Wrap = Callable[[Any, str], Any]


def day(n: int) -> date:
    return DAYS[n].date()


def bars(n: int) -> dict[str, Bar]:
    return {s: Bar(open=Decimal(str(OPENS[s][n])), close=Decimal(str(ENDS[s][n]))) for s in OPENS}


class Session:
    """What a flow does, one session after the other, from whatever was left by the last process."""

    def __init__(
        self, folder: Path, *, convention: Convention = REFERENCE, wrap: Callable[[Any, str], Any] = lambda x, _: x
    ) -> None:
        self.folder, self.convention, self.wrap = folder, convention, wrap
        self.clock = FixedClock(CLOSES[0])
        self.broker = SimulatedBroker(folder / "broker.db", "paper", clock=self.clock, convention=convention)
        self.guard: Guard = guard()

    def play(self, first: int = 0, last: int = 20) -> None:
        """Sessions `first` to `last`, both fed and decided; safe to repeat."""
        with Journal.open(self.folder / "journal", "paper", clock=self.clock) as real:
            journal, broker = self.wrap(real, "journal"), self.wrap(self.broker, "broker")
            for n in range(first, last):
                self.clock.move_to(CLOSES[n])
                broker.on_session(day(n), bars(n))
                reconcile(broker, journal)
                self.decide(n, broker, journal)

    def decide(self, n: int, broker: Any, journal: Any) -> None:
        """Plan once; after a crash run the stored plan."""
        stored = [plan for plan in journal.plans() if plan.session == day(n)]
        if stored:
            run_plan(stored[0], broker, journal, self.guard, self.clock)
            return
        account = broker.account()
        plan = make_plan(
            account_id="paper",
            strategy="turns",
            version="v1",
            session=day(n),
            targets={symbol: weights[n] for symbol, weights in WEIGHTS.items()},
            positions=broker.positions(),
            prices={s: Quote(price=Decimal(str(ENDS[s][n])), at=CLOSES[n]) for s in ENDS},
            equity=account.equity,
            cash=account.cash,
            snapshot_id="snap",
            previous=journal.last_targets("turns"),
            convention=self.convention,
            limits=PlanLimits.from_settings(_risk()),
        )
        run_plan(plan, broker, journal, self.guard, self.clock)

    def statement(self) -> tuple[Any, ...]:
        """Everything that two runs must agree on."""
        return (
            self.broker.account(),
            self.broker.positions(),
            self.broker.fills(None),
            self.broker.equity_by_session(),
        )


def _risk() -> Any:
    from config.settings import load_settings

    return load_settings(environ={}).risk


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Session:
    session = Session(tmp_path_factory.mktemp("paper"))
    session.play()
    return session


def test_orders_decided_at_a_close_are_filled_at_the_next_open_with_slippage_and_fee(undisturbed: Session) -> None:
    first = [fill for fill in undisturbed.broker.fills(None) if fill.session == day(1)]
    assert {fill.symbol for fill in first} == {"SPX", "NDX"}
    for fill in first:
        opened = Decimal(str(OPENS[fill.symbol][1]))
        assert fill.reference == opened
        assert fill.price == opened * Decimal("1.0005")
        assert fill.fee == fill.quantity * fill.price * Decimal("0.001")
        assert fill.at == datetime.fromisoformat("2026-10-13T13:30:00+00:00")  # half past nine in New York, summer time
    assert not [fill for fill in undisturbed.broker.fills(None) if fill.session == day(0)]


def test_only_a_change_of_target_is_traded(undisturbed: Session) -> None:
    with Journal.read(undisturbed.folder / "journal") as journal:
        traded = {plan.session: {order.symbol for order in plan.orders} for plan in journal.plans()}
    for n in range(1, 20):
        assert traded[day(n)] <= {symbol for symbol in WEIGHTS if WEIGHTS[symbol][n] != WEIGHTS[symbol][n - 1]}
    assert traded[day(1)] == {"NDX"}
    assert all(not traded[day(n)] for n in range(8, 20))


def test_cash_is_never_below_nought_and_every_cent_is_accounted_for(undisturbed: Session) -> None:
    with exact():
        cash, held = Decimal("100000.0"), dict.fromkeys(OPENS, Decimal(0))
        for fill in undisturbed.broker.fills(None):
            cash -= signed(fill.side, fill.quantity) * fill.price + fill.fee
            held[fill.symbol] += signed(fill.side, fill.quantity)
            assert cash >= 0
        account = undisturbed.broker.account()
        assert account.cash == cash
        assert account.equity == cash + sum(quantity * Decimal(str(ENDS[symbol][19])) for symbol, quantity in held.items())
    assert undisturbed.broker.equity_by_session()[day(19)] == account.equity


def test_an_all_in_plan_that_gaps_up_is_cut_to_the_cash_and_says_so(undisturbed: Session) -> None:
    with Journal.read(undisturbed.folder / "journal") as journal:
        cut = [order for order in journal.orders() if order.state == "canceled"]
    assert cut
    for order in cut:
        assert order.request.side == "buy"
        assert Decimal(0) < order.filled < order.request.quantity
        assert "cut to the cash" in order.reason


def test_the_journal_verifies_and_agrees_with_the_broker(undisturbed: Session) -> None:
    with Journal.read(undisturbed.folder / "journal") as journal:
        assert journal.verify() > 40
        assert journal.book() == {p.symbol: p.quantity for p in undisturbed.broker.positions()}
        assert journal.fills() == undisturbed.broker.fills(None)
        assert all(plan.snapshot_id == "snap" and plan.version == "v1" for plan in journal.plans())


def test_played_again_from_the_start_in_a_new_process_nothing_changes(undisturbed: Session) -> None:
    before = undisturbed.statement()
    again = Session(undisturbed.folder)
    again.clock.move_to(CLOSES[0])
    with Journal.open(again.folder / "journal", "paper", clock=again.clock) as journal:
        for n in range(20):
            again.broker.on_session(day(n), bars(n))
        reconcile(again.broker, journal)
    assert again.statement() == before
    again.broker.close()


def test_a_session_cannot_be_played_with_other_bars_or_backwards(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.play(0, 2)
    with pytest.raises(InputError, match="other bars"):
        session.broker.on_session(day(1), bars(2))
    with pytest.raises(InputError, match="before"):
        session.broker.on_session(date(2026, 10, 9), bars(0))


def test_an_order_without_a_bar_or_an_open_expires_and_is_not_filled_at_an_invented_price(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.play(0, 1)
    session.broker.on_session(day(1), {"SPX": Bar(open=None, close=Decimal(4000))})
    with Journal.open(tmp_path / "journal", "paper", clock=session.clock) as journal:
        reconcile(session.broker, journal)
        reasons = {order.request.symbol: (order.state, order.reason) for order in journal.orders()}
    assert reasons["SPX"][0] == reasons["NDX"][0] == "expired"
    assert "closes only" in reasons["SPX"][1]
    assert "no bar" in reasons["NDX"][1]
    assert session.broker.positions() == ()


def test_same_close_fills_at_the_close_of_the_decision(tmp_path: Path) -> None:
    session = Session(tmp_path, convention=Convention(fill="same_close"))
    session.play(0, 1)
    fills = session.broker.fills(None)
    assert {fill.session for fill in fills} == {day(0)}
    assert {fill.symbol: fill.reference for fill in fills} == {s: Decimal(str(ENDS[s][0])) for s in ENDS}


def test_interest_is_paid_by_session_on_idle_cash(tmp_path: Path) -> None:
    session = Session(tmp_path, convention=Convention(cash_interest_ann=0.0252))
    session.broker.on_session(day(0), bars(0))
    session.broker.on_session(day(1), bars(1))
    # 0.0252 / 252 = one basis point a session: 10, then 10.001.
    assert session.broker.account().cash == Decimal("100020.001")
    assert list(session.broker.interest_by_session().values()) == [Decimal(10), Decimal("10.001")]


def test_drift_against_a_shadow_that_sizes_at_the_open_has_no_residual(undisturbed: Session) -> None:
    """The shadow sizes at the open it fills at (so by the convention), the account at the close before: that is the drift."""
    shadow, cash, held = list[DriftFill](), Decimal("100000.0"), dict.fromkeys(OPENS, Decimal(0))
    model = CostModel.from_convention(REFERENCE)
    with exact():
        for n in range(1, 20):
            opened = {symbol: Decimal(str(OPENS[symbol][n])) for symbol in OPENS}
            equity = cash + sum((held[s] * opened[s] for s in held), Decimal(0))
            changed = [s for s in OPENS if n == 1 or WEIGHTS[s][n - 1] != WEIGHTS[s][n - 2]]
            wanted = {s: Decimal(str(WEIGHTS[s][n - 1])) * equity / opened[s] - held[s] for s in changed}
            for symbol, quantity in sorted(wanted.items(), key=lambda item: item[1]):
                if quantity == 0:
                    continue
                price = model.fill_price("buy" if quantity > 0 else "sell", opened[symbol])
                size = min(quantity, cash / (price + model.variable_fee(price))) if quantity > 0 else quantity
                size = size.quantize(Decimal("1e-12"), rounding="ROUND_DOWN")
                fee = model.fee(abs(size), price)
                cash -= size * price + fee
                held[symbol] += size
                shadow.append(
                    DriftFill(session=day(n), symbol=symbol, quantity=size, price=price, fee=fee, reference=opened[symbol])
                )
        end = cash + sum((held[s] * Decimal(str(ENDS[s][19])) for s in held), Decimal(0))
    achieved = [
        DriftFill(
            session=f.session,
            symbol=f.symbol,
            quantity=signed(f.side, f.quantity),
            price=f.price,
            fee=f.fee,
            reference=f.reference or f.price,
        )
        for f in undisturbed.broker.fills(None)
    ]
    account = undisturbed.broker.account()
    drift = explain_drift(
        expected_fills=shadow,
        achieved_fills=achieved,
        marks=undisturbed.broker.marks(),
        expected_equity=(100_000, end),
        achieved_equity=(100_000, account.equity),
    )
    assert drift.residual == 0
    assert abs(drift.difference) > Decimal("0.01")
    assert {name for name, value in drift.parts.items() if abs(value) > Decimal("0.001")} <= {
        "sizing_and_rounding",
        "spread_and_slippage",
        "fees",
    }
    undisturbed.broker._db.execute("begin")
    undisturbed.broker._put("cash", str(account.cash - Decimal("7.77")))
    robbed = undisturbed.broker._equity()
    undisturbed.broker._db.execute("rollback")
    found = explain_drift(
        expected_fills=shadow,
        achieved_fills=achieved,
        marks=undisturbed.broker.marks(),
        expected_equity=(100_000, end),
        achieved_equity=(100_000, robbed),
    )
    assert abs(found.residual + Decimal("7.77")) < Decimal("1e-9")


class Killed(BaseException):
    """The process dies here; nothing catches it."""


class Mortal:
    """Passes calls through, and dies before or after the one whose turn it is."""

    def __init__(self, inner: Any, countdown: list[int]) -> None:
        self._inner, self._countdown = inner, countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            self._tick()
            answer = found(*given, **named)
            self._tick()
            return answer

        return call

    def _tick(self) -> None:
        self._countdown[0] -= 1
        if self._countdown[0] == 0:
            raise Killed


def test_killed_between_any_two_steps_no_order_is_doubled_or_lost(tmp_path: Path) -> None:
    """The first three sessions, killed before and after every call to journal and broker in turn, then run again."""
    whole = Session(tmp_path / "whole")
    counter = [10**9]
    Session(tmp_path / "count", wrap=lambda inner, _: Mortal(inner, counter)).play(0, 3)
    steps = 10**9 - counter[0]
    whole.play(0, 3)
    expected = whole.statement()
    assert steps > 100
    for step in range(1, steps + 1, 3 if steps > 300 else 1):
        folder = tmp_path / f"killed-{step}"
        countdown = [step]
        dying = Session(folder, wrap=lambda inner, _, countdown=countdown: Mortal(inner, countdown))  # type: ignore[misc]
        with pytest.raises(Killed):
            dying.play(0, 3)
        dying.broker.close()
        again = Session(folder)
        again.play(_where(again), 3)
        assert again.statement() == expected, f"killed at step {step}"
        with Journal.read(folder / "journal") as journal:
            journal.verify()
            assert journal.book() == {p.symbol: p.quantity for p in again.broker.positions()}
        again.broker.close()


@pytest.mark.slow
def test_kill_9_at_any_moment_no_order_is_doubled_or_lost(tmp_path: Path) -> None:
    """A real process, really killed, a hundred times over; the next one continues on the same files until it is through."""
    whole = Session(tmp_path / "whole")
    whole.play(0, 6)
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom tests.execution import test_paper_session as t\n"
        "class Die(t.Mortal):\n"
        "    def _tick(self):\n"
        "        self._countdown[0] -= 1\n"
        "        if self._countdown[0] == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "count = [int(sys.argv[2])]\n"
        "s = t.Session(Path(sys.argv[1]), wrap=lambda inner, _: Die(inner, count))\n"
        "s.play(t._where(s), 6)\n"
    )
    kills, round_ = 0, 0
    while kills < 100:
        folder = tmp_path / f"round-{round_}"
        for attempt in range(40):
            # Steps 1, 8, 15, ... of the first process of each round, then shorter and shorter lives.
            life = 3 + (7 * (kills + attempt)) % 97
            done = subprocess.run([sys.executable, "-c", script, str(folder), str(life)], check=False, capture_output=True)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, done.stderr.decode()
            kills += 1
        again = Session(folder)
        again.play(_where(again), 6)
        assert again.statement() == whole.statement(), f"round {round_}"
        with Journal.read(folder / "journal") as journal:
            journal.verify()
        again.broker.close()
        round_ += 1


def _where(session: Session) -> int:
    """The session to continue with: the last one played, else the first."""
    return max(0, len(session.broker.equity_by_session()) - 1)


_order = st.tuples(st.sampled_from(["SPX", "NDX"]), st.sampled_from(["buy", "sell"]), st.integers(1, 40_000))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(days=st.lists(st.lists(_order, max_size=4), min_size=1, max_size=5), fee=st.integers(0, 50), slip=st.integers(0, 50))
def test_cash_is_conserved_whatever_is_ordered(
    tmp_path_factory: pytest.TempPathFactory, days: list[list[tuple[str, Any, int]]], fee: int, slip: int
) -> None:
    convention = Convention(fee_bps=float(fee), slippage_bps=float(slip))
    session = Session(tmp_path_factory.mktemp("cash"), convention=convention)
    session.broker.on_session(day(0), bars(0))
    for n, orders in enumerate(days, start=1):
        session.clock.move_to(CLOSES[n - 1])
        for part, (symbol, side, thousandths) in enumerate(orders):
            name = f"{n}-{part}"
            quantity = Decimal(thousandths) / 1000
            session.broker.submit(
                OrderRequest(client_order_id=name, symbol=symbol, side=side, quantity=quantity, time_in_force="opg")
            )
        session.broker.on_session(day(n), bars(n))
    with exact():
        cash, held = Decimal("100000.0"), dict.fromkeys(OPENS, Decimal(0))
        for fill in session.broker.fills(None):
            cash -= signed(fill.side, fill.quantity) * fill.price + fill.fee
            held[fill.symbol] += signed(fill.side, fill.quantity)
    account = session.broker.account()
    assert account.cash == cash
    assert cash >= 0
    assert {p.symbol: p.quantity for p in session.broker.positions()} == {s: q for s, q in held.items() if q != 0}
    assert all(quantity >= 0 for quantity in held.values())
    session.broker.close()
