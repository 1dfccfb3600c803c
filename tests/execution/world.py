"""The world of EXECUTION_SCENARIOS.md: 100,000 in cash, SPY 500, QQQ 400, TLT 100, Friday 2026-11-20 15:00 UTC, no costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from config.clock import FixedClock
from config.conventions import Convention
from config.settings import load_settings
from execution.broker import Broker
from execution.guard import Guard, GuardLimits
from execution.journal import Journal
from execution.oms import PlanOutcome, run_plan
from execution.orders import Quote
from execution.plan import Plan, make_plan
from execution.simulated import SimulatedBroker

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
SESSION = date(2026, 11, 19)
PRICES = {"SPY": Decimal(500), "QQQ": Decimal(400), "TLT": Decimal(100)}
TW = {"SPY": 0.4, "QQQ": 0.3, "TLT": 0.3}
FREE = Convention(slippage_bps=0.0, fee_bps=0.0, initial_cash=100_000.0)


@dataclass
class World:
    """One account at the simulated broker, its journal's folder and a clock."""

    folder: Path
    clock: FixedClock
    broker: SimulatedBroker
    convention: Convention = FREE
    prices: Mapping[str, Decimal] = None  # type: ignore[assignment]

    def restart(self, **changes: Any) -> World:
        """The same account in a new process."""
        multiplier = changes.pop("multiplier", 2)
        again = SimulatedBroker(
            self.folder / "broker.db", "paper", clock=self.clock, convention=self.convention, multiplier=multiplier
        )
        self.broker.close()
        return replace(self, broker=again, **changes)

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """The journal, for writing."""
        with Journal.open(self.folder / "journal", "paper", clock=self.clock) as journal:
            yield journal

    def quotes(self, at: datetime | None = None) -> dict[str, Quote]:
        """Fresh quotes."""
        return {symbol: Quote(price=price, at=at or self.clock.now()) for symbol, price in self.prices.items()}

    def plan(self, targets: Mapping[str, float], *, session: date = SESSION, **changes: Any) -> Plan:
        """A plan for now, at the broker's own numbers."""
        account = self.broker.account()
        given: dict[str, Any] = {
            "account_id": "paper",
            "strategy": "tw",
            "version": "v1",
            "session": session,
            "targets": targets,
            "positions": self.broker.positions(),
            "prices": self.quotes(),
            "equity": account.equity,
            "cash": account.cash,
            "snapshot_id": "snap",
            "convention": self.convention,
            "time_in_force": "day",
        }
        return make_plan(**{**given, **changes})

    def run(self, plan: Plan, *, limits: Guard | None = None, broker: Broker | None = None) -> PlanOutcome:
        """Run a plan."""
        with self.journal() as journal:
            return run_plan(plan, broker or self.broker, journal, limits or guard(), self.clock, sleep=lambda _: None)

    def count(self) -> int:
        """Orders at the broker, the rejected ones included."""
        return int(self.broker._db.execute("select count(*) from orders").fetchone()[0])

    def held(self) -> dict[str, Decimal]:
        """Positions at the broker."""
        return {position.symbol: position.quantity for position in self.broker.positions()}


def make_world(folder: Path, *, multiplier: int = 2, convention: Convention = FREE) -> World:
    """A fresh world."""
    clock = FixedClock(NOW)
    broker = SimulatedBroker(folder / "broker.db", "paper", clock=clock, convention=convention, multiplier=multiplier)
    for symbol, price in PRICES.items():
        broker.on_quote(symbol, price)
    return World(folder=folder, clock=clock, broker=broker, convention=convention, prices=PRICES)


def guard(**changes: Any) -> Guard:
    """The guard of the default settings, with changes to section `risk`."""
    settings = load_settings({f"risk.{name}": value for name, value in changes.items()}, environ={})
    return Guard(GuardLimits.from_settings(settings.risk))
