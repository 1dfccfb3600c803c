"""Order management: a plan goes out once, whatever happens on the way.

1. `run_plan` refuses when a halt is latched, or when the plan's id is stored with other content.
2. `reconcile` brings the journal to what the broker says.
3. The guard looks at everything not yet sent (`_check`); then the plan is stored.
4. Each order is journalled, synced, and sent (`_send`): sales, a moment for them to fill (`_await_sales`), buys.
5. `reconcile` again books what was filled.

An answer that does not come is not a rejection: ask by id; when the broker has no such order, send the *same* id once more;
when that stays open too, the order is *unknown* and the account halts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from config.clock import Clock
from config.errors import InputError, OrderRefused, PlanConflict, RateLimited, ServiceUnavailable, TradingHalted
from execution.broker import Broker
from execution.guard import Guard, GuardContext
from execution.journal import Journal, JournalOrder
from execution.orders import LIVE_STATUSES, Account, Fill, OrderRequest, OrderState
from execution.plan import Plan
from execution.reconcile import Reconciliation, reconcile, stop

__all__ = ["PlanOutcome", "run_plan"]

_PATIENCE = 6
_LONGEST_WAIT_SECONDS = 60.0
_SALE_WAITS_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOutcome:
    """What became of a plan.

    Parameters
    ----------
    sent : tuple of str
        Client ids that went to the broker in this run (not in an earlier one).
    orders : tuple of JournalOrder
        All orders of the plan as they stand.
    fills : tuple of Fill
        All fills of the plan so far.
    account : Account
        After the run.
    """

    plan: Plan
    sent: tuple[str, ...]
    orders: tuple[JournalOrder, ...]
    fills: tuple[Fill, ...]
    account: Account

    @property
    def rejected(self) -> tuple[JournalOrder, ...]:
        """The orders the broker rejected."""
        return tuple(order for order in self.orders if order.state == "rejected")


def run_plan(
    plan: Plan,
    broker: Broker,
    journal: Journal,
    guard: Guard,
    clock: Clock,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> PlanOutcome:
    """Send what of a plan has not been sent.

    Parameters
    ----------
    sleep : callable
        How to wait when the broker asks us to slow down.

    Raises
    ------
    TradingHalted
        A halt is latched, or was latched now; the message says why.
    PlanConflict
        The id is stored with other content.
    OrderRefused
        A rule of the guard; nothing of this plan was sent in this run.
    ServiceUnavailable, RateLimited
        The broker cannot be read, or keeps asking us to wait; running the plan again is safe.
    """
    if plan.account_id != journal.account_id or plan.mode != journal.mode:
        raise OrderRefused(
            f"plan {plan.plan_id} is for {plan.mode} account {plan.account_id}, the journal for {journal.mode} account "
            f"{journal.account_id}",
            rule="account_changed" if plan.account_id != journal.account_id else "mode_mismatch",
        )
    halt = journal.halted
    if halt is not None:
        raise TradingHalted(f"halted since {halt.at}: {halt.reason}", remedy="put it right, then resume with a reason")
    stored = journal.plan(plan.plan_id)
    if stored is not None and stored.digest != plan.digest:
        raise PlanConflict(
            f"plan {plan.plan_id} of {plan.strategy} for {plan.session} was stored with other content "
            f"({stored.digest[:12]}, now {plan.digest[:12]})",
            remedy="run the stored plan again (Journal.plan), or plan the next session",
        )
    before = reconcile(broker, journal, sleep=sleep)
    unsent = _unsent(plan, journal, known=stored is not None)
    _check(unsent, plan, before, broker, journal, guard, clock)
    journal.record_plan(plan)
    for request in [order for order in unsent if order.side == "sell"]:
        _send(request, broker, journal, sleep)
    _await_sales(plan, broker, journal, sleep)
    for request in [order for order in unsent if order.side == "buy"]:
        _send(request, broker, journal, sleep)
    after = reconcile(broker, journal, sleep=sleep) if unsent else before
    ids = {order.client_order_id for order in plan.orders}
    return PlanOutcome(
        plan=plan,
        sent=tuple(request.client_order_id for request in unsent),
        orders=journal.orders(plan.plan_id),
        fills=tuple(fill for fill in journal.fills() if fill.client_order_id in ids),
        account=after.account,
    )


def _unsent(plan: Plan, journal: Journal, *, known: bool) -> tuple[OrderRequest, ...]:
    """The orders that the broker is not known to have: never sent, or sent and (as `reconcile` has just asked) not there."""
    if not known:
        return plan.orders
    return tuple(order.request for order in journal.orders(plan.plan_id) if order.state in ("planned", "sending", "unknown"))


def _check(
    unsent: tuple[OrderRequest, ...],
    plan: Plan,
    found: Reconciliation,
    broker: Broker,
    journal: Journal,
    guard: Guard,
    clock: Clock,
) -> None:
    for request in unsent:
        if request.order_type != "market":
            raise InputError(f"{request.symbol}: {request.order_type} orders are not sent yet; only market orders are")
    now = clock.now()
    context = GuardContext(
        account=found.account,
        positions=found.positions,
        open_orders=found.open_orders,
        quotes=plan.quotes,
        market=broker.clock(),
        now=now,
        sent_today=journal.sent_on(now.date()),
        together=frozenset(order.client_order_id for order in plan.orders),
    )
    try:
        guard.check(unsent, context)
    except OrderRefused as refusal:
        journal.note("refused", {"plan_id": plan.plan_id, "rule": refusal.rule, "message": refusal.message})
        raise


def _await_sales(plan: Plan, broker: Broker, journal: Journal, sleep: Callable[[float], None]) -> None:
    """Give sales a moment to fill before the buys that their cash pays for; what then still works is the broker's to judge."""
    for wait in (*_SALE_WAITS_SECONDS, None):
        working = [
            order
            for order in journal.orders(plan.plan_id)
            if order.request.side == "sell" and order.request.time_in_force == "day" and order.state in LIVE_STATUSES
        ]
        for order in working:
            state = broker.order_by_client_id(order.request.client_order_id)
            if state is not None:
                journal.record_state(state)
        if not working or wait is None:
            return
        sleep(wait)


def _send(request: OrderRequest, broker: Broker, journal: Journal, sleep: Callable[[float], None]) -> None:
    """Journal, sync, send; on silence ask, and send the same id once more; when that stays open too, halt."""
    name = request.client_order_id
    journal.mark(name, "sending")
    why = ""
    for _ in range(2):
        state, why = _attempt(request, broker, sleep)
        if state is not None:
            journal.record_state(state)
            return
        if why:
            break
    journal.mark(name, "unknown", reason=why or "no answer twice, and the broker has no such order")
    stop(journal, f"order {name} ({request.side} {request.quantity} {request.symbol}) is unknown: {why or 'no answer twice'}")


def _attempt(request: OrderRequest, broker: Broker, sleep: Callable[[float], None]) -> tuple[OrderState | None, str]:
    """One sending. The order's state; or None with why it stays open, or None and nothing when the broker has no such order."""
    try:
        return _patiently(request, broker, sleep), ""
    except ServiceUnavailable as silence:
        try:
            return broker.order_by_client_id(request.client_order_id), ""
        except ServiceUnavailable as again:
            return None, f"{silence.message}; asked by id: {again.message}"


def _patiently(request: OrderRequest, broker: Broker, sleep: Callable[[float], None]) -> OrderState:
    """Send, waiting as long as the broker says that it has not taken the order yet."""
    wait = 1.0
    for attempt in range(1, _PATIENCE + 1):
        try:
            return broker.submit(request)
        except RateLimited as limited:
            if attempt == _PATIENCE:
                raise
            sleep(min(limited.retry_after_seconds or wait, _LONGEST_WAIT_SECONDS))
            wait *= 2
    raise AssertionError("unreachable")
