"""The search for leaks: the whole catalogue passes on real data, and every classic leak is caught."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from config.errors import DataError, InputError, LeakageError
from features.catalogue import CATALOGUE
from features.engine import compute
from features.leakage import check_catalogue, check_truncation, find_leaks
from features.panel import MarketPanel
from tests.features.panels import real_panel, walk, with_holes

SMALL = walk(120, 2)


def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


def test_the_catalogue_passes_on_the_real_nasdaq() -> None:
    report = check_catalogue(real_panel(), cuts=6, rng=rng())
    assert report.leaks == ()
    assert report.unproven == ()
    assert len(report.cuts) == 6
    assert min(report.compared.values()) > 1_000


def test_the_catalogue_passes_on_symbols_with_holes() -> None:
    report = check_catalogue(with_holes(walk(1000, 4)), cuts=8, rng=rng())
    assert report.leaks == ()
    assert report.unproven == ()


LEAKS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "centred window": lambda close: close.rolling(5, center=True).mean(),
    "full-sample z-score": lambda close: (close - close.mean()) / close.std(),
    "negative shift": lambda close: close.shift(-1),
    "backward fill": lambda close: close.where(close > close.shift(1)).bfill(),
    "interpolation": lambda close: close.where(close > close.shift(1)).interpolate(),
    "full-sample rank": lambda close: close.rank(pct=True),
    "scaling by the maximum": lambda close: close / close.max(),
    "reversed average": lambda close: close.iloc[::-1].ewm(span=5).mean().iloc[::-1],
    "full-sample winsorising": lambda close: close.clip(close.quantile(0.05), close.quantile(0.95), axis=1),
    "sum from the end": lambda close: close.sum() - close[::-1].cumsum()[::-1],
    "Fourier smoothing": lambda close: pd.DataFrame(
        np.fft.irfft(np.fft.rfft(close.to_numpy(), axis=0)[:10], len(close), axis=0), index=close.index, columns=close.columns
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_caught_with_feature_symbol_session_and_size(name: str) -> None:
    def leaking(panel: MarketPanel) -> dict[str, pd.DataFrame]:
        return {"honest": panel.close.shift(1), name: LEAKS[name](panel.close)}

    with pytest.raises(LeakageError) as caught:
        check_truncation(leaking, SMALL, cuts=5, rng=rng())
    text = str(caught.value)
    assert "1 of 2 features know the future" in text
    assert f"{name}: S" in text
    assert "changed by" in text
    (leak,) = find_leaks(leaking, SMALL, cuts=5, rng=rng()).leaks
    assert (leak.feature, leak.symbol in SMALL.symbols, leak.session <= leak.cut, leak.size > 0) == (name, True, True, True)


def test_a_leak_of_the_last_row_only_is_caught() -> None:
    def last_row_is_special(panel: MarketPanel) -> dict[str, pd.DataFrame]:
        result = panel.close.copy()
        result.iloc[-1] = 0.0
        return {"special": result}

    report = find_leaks(last_row_is_special, SMALL, cuts=3, rng=rng())
    (leak,) = report.leaks
    assert leak.future == "cut"
    assert leak.session == leak.cut
    document = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert (
        document["leaks"][0] | {"feature": "special", "other_value": 0.0, "changed": 6} == document["leaks"][0]
    )  # 3 cuts, 2 symbols


def test_a_leak_that_only_a_changed_future_shows_is_caught() -> None:
    def peeks_when_it_can(panel: MarketPanel) -> dict[str, pd.DataFrame]:
        crash = panel.close.pct_change(fill_method=None).shift(-1) < -0.5  # never in the true data
        return {"peek": panel.close.mask(crash, 0.0)}

    (leak,) = find_leaks(peeks_when_it_can, SMALL, cuts=10, rng=rng()).leaks
    assert leak.future == "absurd"


def test_a_macro_series_is_cut_too() -> None:
    def reads_tomorrow(panel: MarketPanel) -> dict[str, pd.DataFrame]:
        return {"vix": panel.macro["VIXCLS"].shift(-1).to_frame("VIX")}

    with pytest.raises(LeakageError, match="vix: VIX on"):
        check_truncation(reads_tomorrow, SMALL, cuts=2, rng=rng())


def test_the_last_bit_counts_unless_a_tolerance_is_given() -> None:
    def rounds_by_length(panel: MarketPanel) -> dict[str, pd.DataFrame]:
        return {"close": panel.close * (1 + 4e-16 * (len(panel.sessions) % 2))}

    cut = [SMALL.sessions[50]]
    (leak,) = find_leaks(rounds_by_length, SMALL, cuts=cut, rng=rng()).leaks
    assert leak.size < 1e-12
    assert find_leaks(rounds_by_length, SMALL, cuts=cut, rng=rng(), tolerance=1e-12).leaks == ()


def test_what_could_not_be_compared_is_said() -> None:
    report = find_leaks(lambda panel: {"empty": panel.close * np.nan}, SMALL, cuts=3, rng=rng())
    assert report.unproven == ("empty",)


def test_the_same_generator_gives_the_same_cuts_and_always_the_last_but_one() -> None:
    def honest(panel: MarketPanel) -> dict[str, pd.DataFrame]:
        return compute(panel, ["roc_5"])

    one, two = (find_leaks(honest, SMALL, cuts=4, rng=rng()) for _ in range(2))
    assert one == two
    assert one.cuts[-1] == SMALL.sessions[-2]
    assert one.require() is one


def test_other_rows_or_names_under_another_future_are_refused() -> None:
    with pytest.raises(DataError, match="other sessions or symbols"):
        find_leaks(lambda panel: {"short": panel.close.iloc[len(panel.sessions) // 2 :]}, SMALL, cuts=2, rng=rng())
    with pytest.raises(DataError, match="other names"):
        find_leaks(lambda panel: {str(len(panel.sessions)): panel.close}, SMALL, cuts=2, rng=rng())


def test_cuts_that_cannot_be_made_are_refused() -> None:
    def honest(panel: MarketPanel) -> dict[str, pd.DataFrame]:
        return {"close": panel.close}

    with pytest.raises(InputError, match="checks nothing"):
        find_leaks(honest, SMALL, cuts=0, rng=rng())
    with pytest.raises(InputError, match="before the last"):
        find_leaks(honest, SMALL, cuts=[SMALL.sessions[-1]], rng=rng())
    with pytest.raises(InputError, match="no future"):
        find_leaks(honest, SMALL.upto(SMALL.sessions[0]), cuts=1, rng=rng())


def test_a_leaking_feature_of_the_catalogue_is_caught_by_the_check_of_the_catalogue() -> None:
    from dataclasses import replace

    leaking = {**CATALOGUE, "rsi_14": replace(CATALOGUE["rsi_14"], function=lambda known, period: known["close"].shift(-period))}
    with pytest.raises(LeakageError, match="1 of 2 features know the future"):
        check_catalogue(SMALL, ["rsi_14", "roc_5"], rng=rng(), catalogue=leaking)
