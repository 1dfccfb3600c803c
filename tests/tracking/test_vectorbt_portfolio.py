"""What vectorbt really returns is read as its documentation says."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from tracking.portfolio import portfolio_tables


@pytest.mark.slow
def test_a_real_vectorbt_portfolio_is_read() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party warnings at vectorbt's import
        import vectorbt as vbt
    index = pd.DatetimeIndex(pd.bdate_range("2020-01-01", periods=6), name="session")
    close = pd.Series([10.0, 11.0, 12.0, 9.0, 10.0, 15.0], index=index, name="A")  # the signals need the name too
    entries = pd.Series([True, False, False, True, False, False], index=index, name="A")
    exits = pd.Series([False, False, True, False, False, False], index=index, name="A")
    portfolio = vbt.Portfolio.from_signals(close, entries, exits, init_cash=100.0, freq="1D")
    tables = portfolio_tables(portfolio)
    # 10 shares at 10, sold at 12 (120 in cash), 13.33 shares at 9, marked at 15: 200
    np.testing.assert_allclose(tables["equity"]["equity"], [100, 110, 120, 120, 400 / 3, 200])
    assert list(tables["orders"]["side"]) == ["buy", "sell", "buy"]
    np.testing.assert_allclose(tables["orders"]["quantity"], [10, 10, 120 / 9])
    assert list(tables["orders"]["session"]) == list(index[[0, 2, 3]])
    assert len(tables["trades"]) == 1
    assert tables["trades"]["pnl"].iloc[0] == pytest.approx(20.0)
    assert set(tables["trades"]["symbol"]) == {"A"}
