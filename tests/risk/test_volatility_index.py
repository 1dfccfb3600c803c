"""Cboe's method against Cboe's own worked example, a flat smile, and a real chain beside the real index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from config.errors import InputError
from risk.greeks import price
from risk.volatility_index import strip_variance, volatility_index
from tests.risk import cboe_example as cboe


def test_the_near_term_variance_is_that_of_cboes_worked_example() -> None:
    variance = strip_variance(*cboe.near_board(), years=[cboe.NEAR_MINUTES / cboe.YEAR_MINUTES], rate=[cboe.NEAR_RATE])
    # The paper carries more digits than it prints: its own printed terms agree to 1e-8.
    assert float(variance[0]) == pytest.approx(cboe.NEAR_VARIANCE, abs=1e-8)


def test_the_index_of_cboes_two_variances_is_the_printed_one() -> None:
    years = [minutes / cboe.YEAR_MINUTES for minutes in (cboe.NEAR_MINUTES, cboe.NEXT_MINUTES)]
    index = volatility_index(cboe.NEAR_VARIANCE, years[0], cboe.NEXT_VARIANCE, years[1])
    assert float(index) == pytest.approx(cboe.INDEX, abs=0.005)


def test_chains_are_worked_out_apart_from_their_neighbours_and_padding() -> None:
    board = cboe.near_board()
    padded = [np.concatenate([part, np.full((1, 3), np.nan)], axis=1) for part in board]
    twice = [np.concatenate([part, part * (1.0 if row == 0 else 2.0)], axis=0) for row, part in enumerate(padded)]
    years = np.full(2, cboe.NEAR_MINUTES / cboe.YEAR_MINUTES)
    variance = strip_variance(*twice, years=years, rate=[cboe.NEAR_RATE, cboe.NEAR_RATE])
    alone = strip_variance(*board, years=years[:1], rate=[cboe.NEAR_RATE])
    assert variance[0] == pytest.approx(alone[0], rel=1e-12)
    assert variance[1] > 1.5 * variance[0]


def test_a_flat_smile_gives_back_its_volatility() -> None:
    # Demeterfi, Derman, Kamal and Zou (1999): the strip of a flat smile is its variance, up to the spacing of the strikes.
    strike = np.arange(40.0, 250.0, 0.1)[None, :]
    call, put = (price(side, 100.0, strike, 30 / 365, 0.02, 0.0, 0.2) for side in (True, False))
    variance = strip_variance(strike, call, call, put, put, years=[30 / 365], rate=[0.02])
    assert float(np.sqrt(variance[0])) == pytest.approx(0.2, abs=2e-5)


def test_a_chain_without_a_pair_or_of_unequal_shapes_is_not_guessed() -> None:
    strike = np.array([[90.0, 95.0, 100.0]])
    call, none = np.full((1, 3), 5.0), np.full((1, 3), np.nan)
    assert np.isnan(strip_variance(strike, call, call, none, none, years=[0.1], rate=[0.0]))[0]
    with pytest.raises(InputError, match="shapes"):
        strip_variance(strike, call, call, call[:, :2], call, years=[0.1], rate=[0.0])


def test_a_real_chain_a_month_from_expiry_stands_at_the_real_index(shared_data: Path) -> None:
    chain = pd.read_csv(shared_data / "options" / "spxw_2018-01.csv.gz")
    day = chain[(chain["quote_date"] == "01/02/2018") & (chain["expiration"] == "01/31/2018")]
    table = day.pivot(index="strike", columns="option_type", values=["bid", "ask"])
    quotes = [table[part].to_numpy()[None, :] for part in (("bid", "call"), ("ask", "call"), ("bid", "put"), ("ask", "put"))]
    variance = strip_variance(table.index.to_numpy(float)[None, :], *quotes, years=[29 / 365], rate=[0.013])
    # VIX closed at 9.77 on 2018-01-02 (Cboe); this is one expiry of 29 days, not its two weeklies.
    assert 100.0 * float(np.sqrt(variance[0])) == pytest.approx(9.77, abs=0.35)
