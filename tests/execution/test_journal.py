"""The journal by itself: one writer, latched halts, fills once, reasons kept, and nothing written by a reader."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from config.clock import FixedClock
from config.errors import InputError, IntegrityError, LockHeldError, PlanConflict, StorageError, UnknownNameError
from execution.journal import Journal, account_folder
from execution.orders import Fill, OrderState
from tests.execution.world import NOW, TW, World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def fill(name: str, **changes: object) -> Fill:
    given = {
        "execution_id": name,
        "client_order_id": "c",
        "symbol": "SPY",
        "side": "buy",
        "quantity": Decimal(2),
        "price": Decimal("500.25"),
        "fee": Decimal("0.5"),
        "at": NOW,
        "session": date(2026, 11, 20),
    }
    return Fill(**{**given, **changes})  # type: ignore[arg-type]


def test_a_fill_is_booked_once_and_another_story_under_its_id_is_refused(world: World) -> None:
    with world.journal() as journal:
        assert journal.record_fill(fill("1")) is True
        assert journal.record_fill(fill("1")) is False
        assert journal.record_fill(fill("2", side="sell", quantity=Decimal("0.5"))) is True
        assert journal.book() == {"SPY": Decimal("1.5")}
        with pytest.raises(IntegrityError, match="another|now says"):
            journal.record_fill(fill("1", price=Decimal(499)))
        assert journal.book() == {"SPY": Decimal("1.5")}
        assert journal.verify() == 3


def test_a_halt_keeps_its_first_reason_and_resuming_needs_one(world: World) -> None:
    with world.journal() as journal:
        journal.halt("drift")
        world.clock.move_to(NOW + timedelta(minutes=1))
        journal.halt("something else")
        assert journal.halted is not None
        assert (journal.halted.reason, journal.halted.at) == ("drift", NOW.isoformat())
        with pytest.raises(InputError, match="needs a reason"):
            journal.resume("  ")
        assert journal.halted is not None
    with world.journal() as journal:
        assert journal.halted is not None  # latched over a restart
        journal.resume("compared with the statement")
        assert journal.halted is None
        assert [line["kind"] for line in journal.audit()] == ["open", "halt", "halt", "resume"]


def test_only_one_process_writes_and_a_dead_one_lets_go(world: World) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom config.clock import SystemClock\n"
        "from execution.journal import Journal\n"
        "with Journal.open(Path(sys.argv[1]), 'paper', clock=SystemClock()) as journal:\n"
        "    print('open', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(world.folder / "journal")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(LockHeldError, match="account paper"), world.journal():
            pass
    finally:
        other.kill()
        other.communicate()
    with world.journal() as journal:
        assert journal.verify() == 1


def test_a_reader_writes_nothing_and_a_missing_journal_is_named(world: World) -> None:
    with pytest.raises(UnknownNameError, match="no journal"), Journal.read(world.folder / "journal"):
        pass
    with world.journal():
        pass
    with Journal.read(world.folder / "journal") as journal:
        assert journal.account_id == "paper"
        with pytest.raises(StorageError, match="reading"):
            journal.halt("no")


def test_a_stored_plan_comes_back_whole_and_its_orders_wait(world: World) -> None:
    plan = world.plan(TW, run_id="run-1")
    with world.journal() as journal:
        assert journal.record_plan(plan) is True
        assert journal.record_plan(plan) is False
        with pytest.raises(PlanConflict):
            journal.record_plan(replace(plan, snapshot_id="other"))
    with Journal.read(world.folder / "journal") as journal:
        assert journal.plan(plan.plan_id) == plan
        assert tuple(order.request for order in journal.orders(plan.plan_id)) == plan.orders
        assert {order.state for order in journal.orders()} == {"planned"}
        assert journal.last_targets("tw") == {symbol: Decimal(str(weight)) for symbol, weight in TW.items()}
        assert journal.last_targets("nobody") is None
        assert journal.plan("plan-none") is None


def test_an_order_that_no_plan_holds_cannot_be_noted(world: World) -> None:
    state = OrderState(
        client_order_id="x",
        order_id="1",
        symbol="SPY",
        side="buy",
        quantity=Decimal(1),
        filled_quantity=Decimal(0),
        status="accepted",
    )
    with world.journal() as journal:
        with pytest.raises(UnknownNameError):
            journal.record_state(state)
        with pytest.raises(UnknownNameError):
            journal.mark("x", "sending")
        assert journal.verify() == 1  # what failed left no line


def test_an_accounts_name_must_be_able_to_name_a_folder(tmp_path: Path) -> None:
    assert account_folder(tmp_path, "PA3.x-1") == tmp_path / "execution" / "PA3.x-1"
    for name in ("", "../up", "a/b", ".hidden"):
        with pytest.raises(InputError):
            account_folder(tmp_path, name)


def test_an_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(StorageError, match="cannot write"),
        Journal.open(tmp_path / "file" / "account", "paper", clock=FixedClock(NOW)),
    ):
        pass
