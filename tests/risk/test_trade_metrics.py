"""Trade statistics, turnover and exposure against hand calculations."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from config.errors import QualityError
from risk.trade_metrics import exposure, trade_statistics, turnover

SESSIONS = pd.bdate_range("2020-01-01", periods=5)


def fills(*rows: tuple[int, str, str, float, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["session", "symbol", "side", "quantity", "price"])
    return frame.assign(session=[SESSIONS[place] for place in frame["session"]])


def test_trade_statistics_worked_by_hand() -> None:
    numbers = trade_statistics(pd.DataFrame({"pnl": [30.0, -10.0, 0.0, 20.0]}))
    # Two of four won (a trade at zero did not); 50 gained over 10 lost; 40 over four trades.
    assert numbers == {"trades": 4.0, "win_rate": 0.5, "profit_factor": 5.0, "expectancy": 10.0}


def test_profit_factor_without_a_loss_has_no_value() -> None:
    assert math.isnan(trade_statistics(pd.DataFrame({"pnl": [1.0, 2.0]}))["profit_factor"])


def test_a_trade_without_a_profit_is_refused() -> None:
    with pytest.raises(QualityError, match="no profit or loss"):
        trade_statistics(pd.DataFrame({"pnl": [1.0, math.nan]}))


def test_turnover_is_traded_notional_over_mean_equity_a_year() -> None:
    equity = pd.Series([100.0, 100, 100, 100, 100], index=SESSIONS)
    orders = fills((1, "A", "buy", 2.0, 25.0), (3, "A", "sell", 2.0, 25.0))
    # 100 traded over a mean of 100 in four returns, at 252 a year: 63 times a year.
    assert turnover(equity, orders) == pytest.approx(63.0)
    assert turnover(equity, orders.iloc[:0]) == 0.0
    # A contract of 100 units moves a hundred times the notional.
    assert turnover(equity, orders.assign(multiplier=100.0)) == pytest.approx(6300.0)


def test_exposure_is_the_share_of_closes_with_a_position() -> None:
    # Held at the closes of sessions 1 and 2; sold at 3, before its close.
    assert exposure(SESSIONS, fills((1, "A", "buy", 2.0, 25.0), (3, "A", "sell", 2.0, 25.0))) == pytest.approx(2 / 5)
    assert exposure(SESSIONS, fills((1, "A", "buy", 2.0, 25.0))) == pytest.approx(4 / 5)
    assert exposure(SESSIONS, fills((1, "A", "buy", 2.0, 25.0)).iloc[:0]) == 0.0


def test_exposure_counts_overlapping_symbols_once_and_rounding_not_at_all() -> None:
    rows = (
        (0, "A", "buy", 0.1, 10.0),
        (0, "A", "buy", 0.2, 10.0),
        (1, "B", "buy", 1.0, 10.0),
        (2, "A", "sell", 0.3, 10.0),  # 0.1 + 0.2 - 0.3 leaves 5e-17
        (2, "B", "sell", 1.0, 10.0),
    )
    assert exposure(SESSIONS, fills(*rows)) == pytest.approx(2 / 5)


def test_a_short_position_is_exposure_too() -> None:
    assert exposure(SESSIONS, fills((2, "A", "sell", 1.0, 10.0))) == pytest.approx(3 / 5)


def test_an_option_is_held_until_its_expiry_without_an_order() -> None:
    # Sold in the second session, expires on the fourth (2020-01-06): held at the closes of two of five.
    orders = fills((1, "SPY200106C00300000", "sell", 1.0, 2.0))
    assert exposure(SESSIONS, orders) == pytest.approx(2 / 5)


def test_turnover_of_contracts_needs_their_multiplier() -> None:
    equity = pd.Series([100.0] * 5, index=SESSIONS)
    orders = fills((1, "SPY200106C00300000", "sell", 1.0, 2.0), (1, "SPY", "buy", 1.0, 50.0))
    assert math.isnan(turnover(equity, orders))
    # 200 for the contract, 50 for the share, over 100 in four sessions.
    assert turnover(equity, orders.assign(multiplier=[100.0, 1.0])) == pytest.approx(2.5 * 63)
