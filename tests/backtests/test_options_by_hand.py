"""The options engine against calculations by hand, to the cent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backtests.options.chain import ChainBook
from backtests.options.reports import OptionsResult
from backtests.options_bt import CoveredCallsStrategy, OptionStrategy, ProtectivePutsStrategy, run_options, specify
from config.conventions import Convention
from tests.backtests.option_chains import bars_of, real_spxw, rows_of

CALL = "TEST180119C00105000"
PUT = "TEST180119P00095000"

# The call is decided on the chain of 3 January and filled on that of the 4th. On the 5th it reads 0/0, later it is not quoted.
QUOTES = [
    ("2018-01-03", "2018-01-19", "C", 105.0, 1.00, 1.10),
    ("2018-01-03", "2018-01-19", "P", 95.0, 0.80, 0.90),
    ("2018-01-04", "2018-01-19", "C", 105.0, 1.20, 1.30),
    ("2018-01-04", "2018-01-19", "P", 95.0, 0.60, 0.70),
    ("2018-01-05", "2018-01-19", "C", 105.0, 0.00, 0.00),
    ("2018-01-05", "2018-01-19", "P", 95.0, 0.20, 0.30),
]


def bars(last: float) -> pd.DataFrame:
    return bars_of(
        {
            "2018-01-02": (100.0, 100.0),
            "2018-01-03": (101.0, 101.0),
            "2018-01-04": (101.5, 102.0),
            "2018-01-05": (103.0, 106.5),
            "2018-01-08": (106.0, 105.5),
            "2018-01-19": (106.0, last),
            "2018-01-22": (last, last),
        }
    )


def run(strategy: OptionStrategy, last: float = 107.0, **constant: object) -> OptionsResult:
    book = ChainBook.from_rows(rows_of(QUOTES, **constant))
    return run_options(specify(strategy, "TEST", Convention(initial_cash=100_000.0)), book, bars(last))


COVERED = CoveredCallsStrategy(call_delta_target=0.3, call_dte_min=10, call_dte_max=60)
PROTECTED = ProtectivePutsStrategy(put_delta_target=-0.2, put_dte_target=16, put_roll_dte=0)

# Shares: 0.95 × 100,000 / 100 = 950, bought at 101 × 1.0005 = 101.0505 for 95,997.975, fee 10 bps 95.997975.
CASH_AFTER_SHARES = 100_000.0 - 95_997.975 - 95.997975  # 3,906.027025
# Calls: 0.6 × 950 / 100 = 5.7, so 5 whole ones, at the bid of the 4th: 5 × 100 × 1.20 = 600, fee 5 × 0.65 = 3.25.
CASH_AFTER_CALLS = CASH_AFTER_SHARES + 600.0 - 3.25  # 4,502.777025


def test_a_covered_call_assigned_in_cash_is_right_to_the_cent() -> None:
    result = run(COVERED)
    # Assigned at 107: 5 × 100 × 2.00 = 1,000 is paid.
    expected = {
        "2018-01-02": 100_000.0,
        "2018-01-03": CASH_AFTER_SHARES + 950 * 101.0,
        "2018-01-04": CASH_AFTER_CALLS + 950 * 102.0 - 500 * 1.25,  # marked at the mid
        "2018-01-05": CASH_AFTER_CALLS + 950 * 106.5 - 500 * 1.50,  # 0/0: the last mark, lifted to intrinsic value
        "2018-01-08": CASH_AFTER_CALLS + 950 * 105.5 - 500 * 1.50,  # no quote: the last mark
        "2018-01-19": CASH_AFTER_CALLS - 1_000.0 + 950 * 107.0,
        "2018-01-22": CASH_AFTER_CALLS - 1_000.0 + 950 * 107.0,
    }
    np.testing.assert_allclose(result.equity.to_numpy(), list(expected.values()), rtol=0, atol=1e-8)
    assert result.mark_kinds == {"quoted": 1, "stale": 1, "floored": 1}
    assert result.orders[["symbol", "side", "quantity", "price"]].values.tolist() == [
        ["TEST", "buy", 950.0, pytest.approx(101.0505)],
        [CALL, "sell", 5.0, 1.20],
    ]
    trade = result.trades.iloc[0]
    assert (trade["symbol"], trade["quantity"], trade["exit_price"]) == (CALL, -5.0, 2.0)
    assert trade["pnl"] == pytest.approx(5 * 100 * (1.20 - 2.00) - 3.25, abs=1e-9)  # -403.25
    position = result.positions.iloc[0]
    assert (position["entry_reason"], position["exit_reason"]) == ("entry at 16 days", "assigned")


@pytest.mark.parametrize(
    ("last", "kind", "paid"), [(105.00, "expired", 0.0), (105.01, "assigned", 5.0), (150.0, "assigned", 22_500.0)]
)
def test_in_the_money_by_a_cent_is_assigned_and_never_dropped_for_lack_of_cash(last: float, kind: str, paid: float) -> None:
    result = run(COVERED, last)
    assert result.equity["2018-01-19"] == pytest.approx(CASH_AFTER_CALLS - paid + 950 * last, abs=1e-8)
    assert kind in set(result.events["event"])
    cash = 100_000.0 + result.cash_flows.set_index("session").loc[:"2018-01-19", "amount"].sum()
    assert cash == pytest.approx(CASH_AFTER_CALLS - paid, abs=1e-8)
    # At 150 the cash is short by 17,997: shares are sold at the next open to make it good.
    sold = result.orders[(result.orders["symbol"] == "TEST") & (result.orders["side"] == "sell")]
    assert len(sold) == (1 if last == 150.0 else 0)


def test_a_saturday_expiry_settles_on_friday_and_a_missing_bar_is_said() -> None:
    saturday = [(day, "2018-01-20", *rest) for day, _, *rest in QUOTES]
    book = ChainBook.from_rows(rows_of(saturday))
    result = run_options(specify(COVERED, "TEST", Convention(initial_cash=100_000.0)), book, bars(107.0))
    settled = result.events[result.events["event"] == "assigned"].iloc[0]
    assert settled["session"] == pd.Timestamp("2018-01-19")
    assert "late" not in settled["reason"]
    gap = bars(107.0).drop(pd.Timestamp("2018-01-19"))
    late = run_options(specify(COVERED, "TEST", Convention(initial_cash=100_000.0)), ChainBook.from_rows(rows_of(QUOTES)), gap)
    assert "late: the underlying has no bar on 2018-01-19" in late.events.iloc[-1]["reason"]


def test_physical_assignment_delivers_a_hundred_shares_a_contract_at_the_strike() -> None:
    result = run(COVERED, settlement="physical", style="american")
    assert result.equity["2018-01-19"] == pytest.approx(CASH_AFTER_CALLS + 500 * 105.0 + 450 * 107.0, abs=1e-8)
    delivered = result.trades[result.trades["symbol"] == "TEST"].iloc[0]
    assert (delivered["quantity"], delivered["exit_price"]) == (500.0, 105.0)


def test_bought_puts_cost_the_ask_and_pay_their_intrinsic_value() -> None:
    # 0.8 × 950 / 100 = 7.6, so 7 puts at the ask of the 4th: 7 × 100 × 0.70 = 490, fee 7 × 0.65 = 4.55. At 90 they pay 5 each.
    result = run(PROTECTED, 90.0)
    assert result.equity["2018-01-04"] == pytest.approx(CASH_AFTER_SHARES - 494.55 + 950 * 102.0 + 700 * 0.65, abs=1e-8)
    assert result.equity["2018-01-19"] == pytest.approx(CASH_AFTER_SHARES - 494.55 + 950 * 90.0 + 700 * 5.0, abs=1e-8)
    trade = result.trades[result.trades["symbol"] == PUT].iloc[0]
    assert trade["pnl"] == pytest.approx(7 * 100 * (5.00 - 0.70) - 4.55, abs=1e-9)  # 3,005.45
    assert "exercised" in set(result.events["event"])


def test_an_order_without_a_quote_in_the_next_snapshot_is_cancelled_and_decided_anew() -> None:
    quotes = [q if q[0] != "2018-01-04" or q[2] == "P" else (*q[:4], 0.0, 0.0) for q in QUOTES]
    book = ChainBook.from_rows(rows_of(quotes))
    result = run_options(specify(COVERED, "TEST", Convention(initial_cash=100_000.0)), book, bars(107.0))
    cancelled = result.events[result.events["event"] == "cancelled"]
    assert cancelled[["symbol", "reason"]].values.tolist() == [[CALL, "no two-sided quote in the snapshot"]]
    assert set(result.orders["symbol"]) == {"TEST"}


def test_a_real_covered_call_of_january_2018_is_right_to_the_cent(shared_data: Path) -> None:
    rows, prices = real_spxw(shared_data)
    strategy = CoveredCallsStrategy(call_delta_target=0.1043, call_dte_min=20, call_dte_max=60)
    convention = Convention(initial_cash=1_000_000.0, fill="same_close")
    result = run_options(specify(strategy, "SPXW", convention), ChainBook.from_rows(rows), prices)
    # The file: on 2018-01-02 the 2750 call has delta 0.1043; on 01-03 its bid is 4.80; the index ends 01-31 at 2,823.89.
    # 950,000 buys 352 shares; 0.6 × 352 / 100 = 2.1, so 2 contracts: 2 × (100 × (4.80 - 73.89) - 0.65) = -13,819.30.
    trade = result.trades[result.trades["symbol"] == "SPXW180131C02750000"].iloc[0]
    assert (trade["entry_session"], trade["exit_session"]) == (pd.Timestamp("2018-01-03"), pd.Timestamp("2018-01-31"))
    assert (trade["quantity"], trade["entry_price"]) == (-2.0, 4.80)
    assert round(trade["pnl"], 2) == -13_819.30
    assert result.mark_kinds["stale"] == 0
    assert result.data_kind == "real"
