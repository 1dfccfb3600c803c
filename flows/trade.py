"""A paper session: a registered strategy traded on the simulated broker over recorded bars, one session at a time.

1. `trade_flow` reads the version behind the alias `paper` from the registry, its specification verified.
2. For each decision session `_decide` reads the lake *as of that close*, asks the strategy, and freezes a plan; a plan that is in
   the journal already is taken as it stands, so a killed run continues where it stopped.
3. `run_plan` reconciles, guards, journals and sends; then the next session's bars are played (`SimulatedBroker.on_session`).
4. `_drift` runs the shadow backtest over the same sessions and explains every cent of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import pandas as pd

from backtests.strategy import Strategy, StrategySpec, View
from config.artifacts import show_table
from config.clock import FixedClock, SystemClock
from config.errors import InputError
from config.orchestration import flow, step
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from execution.journal import Journal, JournalOrder, account_folder
from execution.oms import run_plan
from execution.orders import Fill, Quote, signed
from execution.plan import Plan, PlanLimits, make_plan, plan_id
from execution.reconcile import reconcile
from execution.simulated import Bar, SimulatedBroker
from risk.drift import Drift, DriftFill, DriftPlan, explain_drift

if TYPE_CHECKING:
    from config.conventions import Convention
    from features.panel import MarketPanel
    from lake import Snapshot
    from tracking.registry import RegisteredStrategy

__all__ = ["PaperRun", "played_sessions", "strategy_of", "trade_flow"]


@dataclass(frozen=True, kw_only=True)
class PaperRun:
    """A paper account after its sessions.

    Parameters
    ----------
    registered : RegisteredStrategy
        The version traded.
    sessions : tuple of date
        In which orders could fill; decisions were taken at the close before each.
    sent : int
        Orders sent in this run; those of an earlier run of the same sessions are not sent again.
    new_sessions : int
        Of `sessions`, those first played in this run.
    equity, expected : Series over the decision session before the first, then `sessions`
        By the broker's own statement, and of the shadow backtest.
    reconciled : bool
        The journal's book equals the broker's.
    audit_lines : int
        Lines of the hash-chained audit, verified.
    """

    account: str
    registered: RegisteredStrategy
    sessions: tuple[date, ...]
    plans: tuple[Plan, ...]
    orders: tuple[JournalOrder, ...]
    fills: tuple[Fill, ...]
    sent: int
    new_sessions: int
    equity: pd.Series
    expected: pd.Series
    drift: Drift
    reconciled: bool
    audit_lines: int

    @property
    def order_list(self) -> list[dict[str, Any]]:
        """Every fill as plain values: id, symbol, side, quantity, price, fee, session."""
        return [
            {
                "id": fill.client_order_id,
                "symbol": fill.symbol,
                "side": fill.side,
                "quantity": float(fill.quantity),
                "price": float(fill.price),
                "fee": float(fill.fee),
                "session": fill.session.isoformat(),
            }
            for fill in self.fills
        ]


@dataclass(frozen=True, kw_only=True)
class _Fixed:
    """Targets that are known already, as a strategy: for the shadow backtest of a window."""

    weights: pd.DataFrame
    name: ClassVar[str] = "shadow"
    family: ClassVar[str] = "shadow"
    features: ClassVar[tuple[str, ...]] = ()
    macro: ClassVar[tuple[str, ...]] = ()
    role: ClassVar[Literal["candidate", "benchmark"]] = "candidate"
    params: ClassVar[dict[str, Any]] = {}
    warm_up: ClassVar[int] = 0

    def targets(self, view: View) -> pd.DataFrame:
        """The rows of the view's sessions."""
        return self.weights.loc[view.sessions]


def strategy_of(spec: StrategySpec) -> Strategy:
    """The strategy a specification describes.

    Raises
    ------
    InputError
        It trades option legs; those have no paper gateway yet.
    """
    from backtests.strategies import get_strategy

    if spec.kind != "weights":
        raise InputError(
            f"{spec.name} trades option legs, which the paper account does not take yet", remedy="promote an equity strategy"
        )
    return get_strategy(spec.name, dict(spec.params))


def _run_words(model: str, sessions: int, through: date | None) -> str:
    last = "the last" if through is None else f"to {through}, the last"
    return f"{model} on paper, {last} {'session' if sessions == 1 else f'{sessions} sessions'}"


@flow(
    name="trade",
    description="Trade what holds the alias paper on the simulated broker, reconcile, explain the drift",
    run_name=lambda given: _run_words(given["model"], given["sessions"], given["through"]),
    withheld=("settings", "progress"),
)
def trade_flow(
    model: str,
    sessions: int = 20,
    *,
    through: date | None = None,
    account: str | None = None,
    snapshot_id: str | None = None,
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> PaperRun:
    """Trade the version behind the alias `paper` on an account of its own, up to the newest session of a snapshot.

    Parameters
    ----------
    model : str
        A registered strategy.
    sessions : int
        In how many sessions the orders of a new account may fill. An account that is there goes on from where it stopped, and
        the report covers all its sessions: a shorter stretch would begin with positions its backtest does not have.
    through : date, optional
        The last session; the last recorded one when left out.
    account : str, optional
        The paper account; one of the version's own when left out, for what another version holds is neither its book nor its
        record. A session that was played stays as it was played, also when
        its bars were revised since; the difference is then in the drift.
    snapshot_id : str, optional
        The newest when left out. Bars and macro values are read as of each decision, whatever the snapshot holds beyond.

    Raises
    ------
    UnknownNameError
        The alias points at nothing. (That halts; it is not an instruction to go flat.)
    TradingHalted
        A halt is latched for the account.
    InputError
        Fewer sessions are in the lake than were asked for, or the account has traded beyond the last one.
    """
    from lake import open_lake
    from tracking.registry import create_model_registry

    settings = settings or load_settings()
    registered = create_model_registry(settings).get(model, "paper")
    spec = StrategySpec.from_dict(registered.spec)
    snapshot = open_lake(settings).snapshot(snapshot_id)
    account = account or f"{settings.execution.account}-{spec.name[:32]}-{registered.digest[:8]}"
    run = _trade(registered, spec, snapshot, sessions, through, account, settings, progress)
    _show_on_page(run)
    return run


def _show_on_page(run: PaperRun) -> None:
    """The session's fills as a table on the flow run's page."""
    drift = run.drift
    parts = (
        ", ".join(f"{name} {float(part):,.2f}" for name, part in drift.parts.items() if abs(part) >= Decimal("0.005")) or "no part"
    )
    about = [
        f"**{run.registered.model} version {run.registered.version}**, account `{run.account}`, "
        f"{run.sessions[0]} to {run.sessions[-1]}. Orders: {len(run.orders)}, sent now: {run.sent}, fills: {len(run.fills)}",
        f"equity {float(run.equity.iloc[-1]):,.2f}, its backtest {float(run.expected.iloc[-1]):,.2f}; "
        f"drift {float(drift.difference):,.2f} ({parts}; unexplained {float(drift.residual):,.2f})",
        f"journal and broker {'agree' if run.reconciled else '**DISAGREE**'}; {run.audit_lines} audit lines verified",
    ]
    first = ("session", "symbol", "side")
    rows = [{**{name: fill[name] for name in first}, **fill, **_rounded(fill)} for fill in run.order_list]
    show_table(f"paper-session-{run.registered.model}", rows, "\n\n".join(about))


def _rounded(fill: Mapping[str, Any]) -> dict[str, str]:
    """Amounts as a person reads them; the whole digits are in the journal."""
    digits = {"quantity": 4, "price": 4, "fee": 2}
    return {name: f"{fill[name]:,.{count}f}" for name, count in digits.items()}


def _trade(
    registered: RegisteredStrategy,
    spec: StrategySpec,
    snapshot: Snapshot,
    count: int,
    through: date | None,
    account: str,
    settings: Settings,
    progress: Progress,
) -> PaperRun:
    from config.calendar import session_closes
    from features.point_in_time import load_panel

    strategy = strategy_of(spec)
    market = load_panel(snapshot, spec.symbols, end=through)
    window = _window(market.sessions, count, played_sessions(settings, account), account)
    closes = [moment.to_pydatetime() for moment in session_closes(window, settings.data.calendar)]
    folder = account_folder(settings.home_path, account)
    clock = FixedClock(closes[0])
    broker = SimulatedBroker(
        folder / "broker.db", account, clock=clock, convention=spec.convention, initial_cash=spec.convention.initial_cash
    )
    limits = PlanLimits.from_settings(settings.risk)
    weights: dict[pd.Timestamp, pd.Series] = {}
    sent = 0
    before = len(broker.equity_by_session())
    try:
        with Journal.open(folder, account, clock=clock) as journal:
            if not _played(broker, window[0].date()):
                broker.on_session(window[0].date(), _bars(market, window[0]))
                before += 1

            def play(row: int) -> int:
                """Decide at a session's close, send, and play the next session; return how many orders were sent."""
                new, due = 0, window[row + 1]
                clock.move_to(closes[row])
                plan, weights[window[row]] = _decide(
                    registered, spec, strategy, snapshot, window[row], closes[row], broker, journal, limits
                )
                played = _played(broker, due.date())
                if not played:
                    new = len(run_plan(plan, broker, journal, _guard(settings), clock).sent)
                clock.move_to(closes[row + 1])
                if not played:
                    broker.on_session(due.date(), _bars(market, due))
                return new

            # Without retries: what was sent is in the journal, and the next run goes on from there.
            play_one = step(name="paper-session", run_name=lambda given: f"session {window[given['row'] + 1].date()}")(play)
            progress.stage("Paper session", len(window) - 1)
            for row in range(len(window) - 1):
                sent += play_one(row)
                progress.advance()
            found = reconcile(broker, journal)
            plans = tuple(plan for plan in journal.plans() if window[0].date() <= plan.session <= window[-1].date())
            ours = {order.client_order_id for plan in plans for order in plan.orders}
            orders = tuple(order for order in journal.orders() if order.request.client_order_id in ours)
            fills = tuple(fill for fill in journal.fills() if fill.client_order_id in ours)
            expected, drift = _drift(spec, weights, market, window, plans, orders, fills, broker)
            return PaperRun(
                account=account,
                registered=registered,
                sessions=tuple(day.date() for day in window[1:]),
                plans=plans,
                orders=orders,
                fills=fills,
                sent=sent,
                new_sessions=len(broker.equity_by_session()) - before,
                equity=_statement(broker, window),
                expected=expected,
                drift=drift,
                reconciled=found.positions == journal.book(),
                audit_lines=journal.verify(),
            )
    finally:
        broker.close()


def played_sessions(settings: Settings, account: str) -> tuple[date, ...]:
    """The sessions a simulated account has played, oldest first; none where there is no such account."""
    path = account_folder(settings.home_path, account) / "broker.db"
    if not path.is_file():
        return ()
    broker = SimulatedBroker(path, account, clock=SystemClock())
    try:
        return tuple(sorted(broker.equity_by_session()))
    finally:
        broker.close()


def _window(sessions: pd.DatetimeIndex, count: int, played: Sequence[date], account: str) -> pd.DatetimeIndex:
    """The decision session before the first, then every session orders may fill in."""
    if not played:
        if count < 1 or len(sessions) < count + 1:
            raise InputError(
                f"{count} sessions were asked for, the lake holds {len(sessions)}", remedy="ask for fewer, or ingest more"
            )
        return sessions[-count - 1 :]
    window = sessions[sessions >= pd.Timestamp(played[0])]
    if sessions[-1].date() < played[-1] or len(window) < 2:
        raise InputError(
            f"account {account} has traded from {played[0]} to {played[-1]}, the data asked for ends on {sessions[-1]:%Y-%m-%d}",
            remedy="trade up to a later session, on a newer snapshot",
        )
    return window


def _guard(settings: Settings) -> Any:
    from execution.guard import Guard, GuardLimits

    return Guard(limits=GuardLimits.from_settings(settings.risk))


def _played(broker: SimulatedBroker, session: date) -> bool:
    """Whether the session's bars were played by an earlier run; its plan can then no longer be filled as it was meant."""
    return session in broker.equity_by_session()


def _cell(frame: pd.DataFrame, session: pd.Timestamp, symbol: str) -> float:
    return float(cast("Any", frame.at[session, symbol]))


def _bars(market: MarketPanel, session: pd.Timestamp) -> dict[str, Bar]:
    bars = {}
    for symbol in market.symbols:
        opened, closed = _cell(market.open, session, symbol), _cell(market.close, session, symbol)
        if not math.isnan(closed):  # a symbol without a close has no bar that day
            bars[symbol] = Bar(open=Decimal(str(opened)) if not math.isnan(opened) else None, close=Decimal(str(closed)))
    return bars


def _decide(
    registered: RegisteredStrategy,
    spec: StrategySpec,
    strategy: Strategy,
    snapshot: Snapshot,
    session: pd.Timestamp,
    close: datetime,
    broker: SimulatedBroker,
    journal: Journal,
    limits: PlanLimits,
) -> tuple[Plan, pd.Series]:
    """The plan of one session and the targets behind it, from nothing that was not known at its close."""
    from backtests.views import load_view

    account = broker.account()
    stored = journal.plan(plan_id(account.account_id, spec.name, registered.digest, session.date()))
    if stored is not None:
        return stored, pd.Series({symbol: float(weight) for symbol, weight in stored.targets.items()}, dtype="float64")
    view = load_view(snapshot, spec.symbols, [strategy], end=session.date(), as_of=close)
    panel, targets = view.panel, strategy.targets(view).ffill().iloc[-1]
    prices = {
        symbol: Quote(price=Decimal(str(_cell(panel.close, session, symbol))), at=close)
        for symbol in spec.symbols
        if not math.isnan(_cell(panel.close, session, symbol))
    }
    plan = make_plan(
        account_id=account.account_id,
        strategy=spec.name,
        version=registered.digest,
        session=session.date(),
        targets={str(symbol): float(weight) for symbol, weight in targets.items()},
        positions=broker.positions(),
        prices=prices,
        equity=account.equity,
        cash=account.cash,
        snapshot_id=snapshot.id,
        run_id=registered.run_id,
        previous=journal.last_targets(spec.name),
        convention=spec.convention,
        limits=limits,
    )
    return plan, targets


def _statement(broker: SimulatedBroker, window: pd.DatetimeIndex) -> pd.Series:
    stated = broker.equity_by_session()
    return pd.Series([float(stated[day.date()]) for day in window], index=window, name="equity")


def _drift(
    spec: StrategySpec,
    weights: Mapping[pd.Timestamp, pd.Series],
    market: MarketPanel,
    window: pd.DatetimeIndex,
    plans: tuple[Plan, ...],
    orders: tuple[JournalOrder, ...],
    fills: tuple[Fill, ...],
    broker: SimulatedBroker,
) -> tuple[pd.Series, Drift]:
    """The shadow backtest over the window, and where the account's profit differs from its."""
    from backtests.equity_vectorbt import run_vectorised

    decided = pd.DataFrame(dict(weights)).T.reindex(index=window, columns=list(spec.symbols))
    shadow = run_vectorised(_Fixed(weights=decided), View(panel=market.since(window[0])), convention=spec.convention)
    following = dict(zip([day.date() for day in window[:-1]], [day.date() for day in window[1:]], strict=True))
    same_close = spec.convention.fill == "same_close"
    due = {plan.plan_id: plan.session if same_close else following[plan.session] for plan in plans}
    of_order = {order.request.client_order_id: order for order in orders}
    price = market.close if same_close else market.open
    stated, paid = broker.equity_by_session(), broker.interest_by_session()

    def market_price(day: date, symbol: str) -> Decimal:
        return Decimal(str(_cell(price, pd.Timestamp(day), symbol)))

    drift = explain_drift(
        expected_fills=[
            DriftFill(
                session=row["session"].date(),
                symbol=row["symbol"],
                quantity=row["quantity"] if row["side"] == "buy" else -row["quantity"],
                price=row["price"],
                fee=row["fee"],
                reference=market_price(row["session"].date(), row["symbol"]),
            )
            for row in shadow.orders.to_dict("records")
        ],
        achieved_fills=[
            DriftFill(
                session=fill.session,
                symbol=fill.symbol,
                quantity=signed(fill.side, fill.quantity),
                price=fill.price,
                fee=fill.fee,
                reference=fill.reference if fill.reference is not None else fill.price,
                due=due[of_order[fill.client_order_id].plan_id],
            )
            for fill in fills
        ],
        planned=[
            DriftPlan(
                due=due[plan.plan_id],
                symbol=order.symbol,
                quantity=signed(order.side, order.quantity),
                reference=market_price(due[plan.plan_id], order.symbol),
                unfilled="rejected" if of_order[order.client_order_id].state == "rejected" else "sizing_and_rounding",
            )
            for plan in plans
            for order in plan.orders
        ],
        marks=broker.marks(),
        revised_marks=_marks(market, same_close=same_close),
        expected_equity=(spec.convention.initial_cash, float(shadow.equity.iloc[-1])),
        achieved_equity=(stated[window[0].date()], stated[window[-1].date()]),
        expected_interest=_interest(shadow.orders, window, spec.convention),
        achieved_interest=sum((paid[day.date()] for day in window[1:]), Decimal(0)),
    )
    return shadow.equity, replace(drift, residual=drift.residual.quantize(Decimal("0.000001")) + 0)


def _marks(market: MarketPanel, *, same_close: bool) -> dict[str, float]:
    """The last price of each symbol as the backtest marks it; none where the data has no price at all."""
    known = market.close if same_close else market.close.fillna(market.open)
    last = known.ffill().iloc[-1].dropna()
    return {str(symbol): float(price) for symbol, price in last.items()}


def _interest(orders: pd.DataFrame, window: pd.DatetimeIndex, convention: Convention) -> float:
    """What the backtest's cash earned, credited before each session's fills: from its orders, not from its equity."""
    rate, cash, earned = convention.cash_interest_ann / convention.sessions_per_year, convention.initial_cash, 0.0
    signs = orders["side"].map({"buy": -1.0, "sell": 1.0}).astype("float64")
    flows = (signs * orders["price"] * orders["quantity"] - orders["fee"]).groupby(orders["session"]).sum()
    for row, session in enumerate(window):
        interest = cash * rate if row else 0.0
        earned, cash = earned + interest, cash + interest + float(flows.get(session, 0.0))
    return earned
