"""The declared features: each against its formula in pandas, its warm-up, its missing inputs, its neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from config.errors import DataError, InputError, UnknownNameError
from features import formulas
from features.catalogue import CATALOGUE, SETS, FeatureSet, feature_set, get_features
from features.definitions import Feature, Known
from features.engine import compute
from features.panel import MarketPanel
from tests.features.panels import FIELDS, only, walk, with_holes

PANEL = walk(1200, 3)
VALUES = compute(PANEL, CATALOGUE)
C, H, L, V = PANEL.close, PANEL.high, PANEL.low, PANEL.volume


def spread_out(name: str) -> pd.DataFrame:
    """A macro series under every symbol."""
    series = PANEL.macro[name]
    return pd.DataFrame(dict.fromkeys(PANEL.symbols, series))


def smoothed(values: pd.DataFrame, weight: float, seed: int) -> pd.DataFrame:
    first = int(values.notna().all(axis=1).to_numpy().argmax()) + seed - 1
    seeded = values.copy()
    seeded.iloc[:first] = np.nan
    seeded.iloc[first] = values.iloc[first - seed + 1 : first + 1].mean()
    return seeded.ewm(alpha=weight, adjust=False).mean()


def by_pandas() -> dict[str, pd.DataFrame]:
    """Each formula as the catalogue words it, written with pandas."""
    logs = np.log(C).diff()
    vol20, vol60 = (logs.rolling(n).std() * np.sqrt(252) for n in (20, 60))
    ma20, sd20 = C.rolling(20).mean(), C.rolling(20).std(ddof=0)
    upper, lower = ma20 + 2 * sd20, ma20 - 2 * sd20
    macd = smoothed(C, 2 / 13, 12) - smoothed(C, 2 / 27, 26)
    before = C.shift(1)
    true_range = H.where(before < H, before) - L.where(before > L, before)
    true_range = true_range.where(before.notna())
    up, down = H.diff(), -L.diff()
    plus = smoothed(up.where((up > down) & (up > 0), 0.0).where(up.notna()), 1 / 14, 14)
    minus = smoothed(down.where((down > up) & (down > 0), 0.0).where(up.notna()), 1 / 14, 14)
    atr = smoothed(true_range, 1 / 14, 14)
    gain, loss = smoothed(C.diff().clip(lower=0), 1 / 14, 14), smoothed((-C.diff()).clip(lower=0), 1 / 14, 14)
    low20, high20 = L.rolling(20).min(), H.rolling(20).max()
    mean_rank = vol20.rolling(756).rank(pct=True)  # without ties the mean rank counts the value itself by half
    share = mean_rank - 0.5 / 756
    credit = (spread_out("BAA") - spread_out("AAA")) / 100
    vix, oil, cpi = spread_out("VIXCLS"), spread_out("DCOILWTICO"), spread_out("CPILFESL")
    yoy = cpi / spread_out("CPILFESL@-12M") - 1
    return {
        **{f"sma_ratio_{n}": C / C.rolling(n).mean() - 1 for n in (20, 50, 200)},
        "sma_cross_20_50": C.rolling(20).mean() / C.rolling(50).mean() - 1,
        "ema_ratio_20": C / smoothed(C, 2 / 21, 20) - 1,
        "macd_histogram": (macd - smoothed(macd, 0.2, 9)) / C,
        "adx_14": smoothed(100 * (plus - minus).abs() / (plus + minus), 1 / 14, 14),
        "directional_balance_14": 100 * (plus - minus) / atr,
        "channel_position_20": (C - low20) / (high20 - low20),
        **{f"roc_{n}": C.pct_change(n, fill_method=None) for n in (5, 20, 60, 120)},
        "momentum_12_1": C.shift(21) / C.shift(252) - 1,
        "rsi_14": 100 - 100 / (1 + gain / loss),
        "zscore_20": (C - ma20) / C.rolling(20).std(),
        "volatility_20": vol20,
        "volatility_60": vol60,
        "volatility_ratio_20_60": vol20 / vol60,
        "atr_14": atr / C,
        "bollinger_width_20": (upper - lower) / ma20,
        "percent_b_20": (C - lower) / (upper - lower),
        "drawdown_252": C / C.rolling(252).max() - 1,
        "volume_ratio_20": V / V.rolling(20).mean(),
        "trend_filter_200": (C.rolling(200).mean() < C).astype(float).where(C.rolling(200).mean().notna()),
        "volatility_regime": ((share > 0.5).astype(float) + (share > 0.8)).where(share.notna()),
        "vix_level": vix,
        "vix_change_5": vix.diff(5),
        "credit_spread": credit,
        "credit_spread_change_60": credit.diff(60),
        "oil_momentum_60": oil.pct_change(60, fill_method=None),
        "core_inflation_yoy": yoy,
        "core_inflation_change_3m": yoy - (spread_out("CPILFESL@-3M") / spread_out("CPILFESL@-15M") - 1),
    }


EXPECTED = by_pandas()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_feature_is_its_formula(name: str) -> None:
    pd.testing.assert_frame_equal(VALUES[name], EXPECTED[name], rtol=1e-7, atol=1e-10)


def test_every_feature_is_checked_against_a_formula_or_by_hand() -> None:
    assert set(CATALOGUE) - set(EXPECTED) == {"risk_level", "risk_components"}
    assert len(CATALOGUE) >= 30


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "risk_level"])
def test_the_warm_up_is_exactly_what_is_missing(name: str) -> None:
    missing = VALUES[name].isna().any(axis=1).to_numpy()
    assert missing[: CATALOGUE[name].warm_up].all()
    assert not missing[CATALOGUE[name].warm_up :].any()


def test_the_risk_level_is_complete_after_its_warm_up() -> None:
    complete = (VALUES["risk_components"] == 4).all(axis=1).to_numpy()
    assert int(complete.argmax()) == CATALOGUE["risk_level"].warm_up
    assert complete[CATALOGUE["risk_level"].warm_up :].all()
    assert VALUES["risk_level"].isin([0.0, 1.0, 2.0, 3.0, 4.0]).all(axis=None)


def flat_then(price: float, vix: float | None) -> MarketPanel:
    """252 flat sessions, the last of them at `price`: a drawdown, no rank (too short), no credit spread."""
    base = walk(252, 1)
    close = pd.DataFrame(100.0, index=base.sessions, columns=["A"])
    close.iloc[-1] = price
    macro = {} if vix is None else {"VIXCLS": pd.Series(vix, index=base.sessions)}
    return MarketPanel(open=close, high=close, low=close, close=close, volume=close, macro=macro)


@pytest.mark.parametrize(
    ("price", "vix", "level"),
    [
        (100.0, 12.0, 0),  # severities 0, 0
        (96.0, 12.0, 0),  # a loss of 4 %: 0
        (88.0, None, 2),  # 12 %, alone
        (88.0, 22.0, 2),  # 2 and 1: 1.5, half up
        (88.0, 30.0, 2),  # 2 and 2: a step must be exceeded
        (88.0, 45.0, 3),  # 2 and 4
        (70.0, 45.0, 4),  # 30 %: 4 and 4
        (100.0, 45.0, 2),  # 0 and 4
    ],
)
def test_the_risk_level_is_the_rounded_mean_of_what_is_there(price: float, vix: float | None, level: int) -> None:
    values = compute(flat_then(price, vix), ["risk_level", "risk_components"])
    assert values["risk_level"]["A"].iloc[-1] == level
    assert values["risk_components"]["A"].iloc[-1] == (1 if vix is None else 2)


def test_the_risk_level_is_missing_only_when_every_component_is() -> None:
    values = compute(flat_then(88.0, None), ["risk_level", "risk_components"])
    assert values["risk_level"]["A"].iloc[:251].isna().all()
    assert values["risk_components"]["A"].iloc[:251].eq(0).all()


def test_a_source_of_closes_only_gives_no_feature_of_the_range() -> None:
    nothing = pd.DataFrame(np.nan, index=C.index, columns=C.columns)
    values = compute(replace(PANEL, open=nothing, high=nothing, low=nothing, volume=nothing), CATALOGUE)
    empty = {name for name, frame in values.items() if frame.isna().all(axis=None)}
    assert empty == {"adx_14", "directional_balance_14", "channel_position_20", "atr_14", "volume_ratio_20"}
    pd.testing.assert_frame_equal(values["rsi_14"], VALUES["rsi_14"], check_exact=True)


def test_a_series_the_panel_does_not_hold_is_never_guessed() -> None:
    values = compute(replace(PANEL, macro={}), CATALOGUE)
    assert {name for name, frame in values.items() if frame.isna().all(axis=None)} == set(SETS["macro"])
    assert (values["risk_components"].iloc[-1] == 2).all()


def test_a_symbols_values_do_not_depend_on_the_others() -> None:
    panel = with_holes(PANEL)
    together = compute(panel, CATALOGUE)
    for symbol in panel.symbols:
        alone = compute(only(panel, symbol), CATALOGUE)
        for name, frame in alone.items():
            own = together[name].loc[frame.index, [symbol]]
            pd.testing.assert_frame_equal(own, frame, check_exact=True, check_freq=False, obj=f"{name} of {symbol}")


def test_there_is_no_value_on_a_session_without_a_bar() -> None:
    panel = with_holes(PANEL)
    for name, frame in compute(panel, CATALOGUE).items():
        assert not frame.where(panel.close.isna()).notna().any(axis=None), name


def test_a_change_of_the_price_scale_changes_no_feature() -> None:
    scaled = replace(
        PANEL, **{name: getattr(PANEL, name) / 8 for name in FIELDS if name != "volume"}, volume=V * 8
    )  # exact in binary
    for name, frame in compute(scaled, CATALOGUE).items():
        pd.testing.assert_frame_equal(frame, VALUES[name], rtol=1e-9, atol=1e-12, obj=name)


def test_intermediate_results_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = formulas.ind.sma
    monkeypatch.setattr(formulas.ind, "sma", lambda close, window: calls.append(window) or real(close, window))
    compute(PANEL, ["sma_ratio_20", "sma_ratio_50", "sma_cross_20_50"])
    assert sorted(calls) == [20, 50]


def test_a_caller_may_change_what_it_was_given() -> None:
    first = compute(PANEL, ["vix_level", "rsi_14"])
    first["vix_level"].iloc[:] = 0.0
    pd.testing.assert_frame_equal(compute(PANEL, ["vix_level"])["vix_level"], EXPECTED["vix_level"])


def test_an_unknown_feature_is_answered_with_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="rsi_14"):
        compute(PANEL, ["rsi_41"])
    with pytest.raises(UnknownNameError, match="momentum"):
        feature_set("momentun")


def declared(function: object, **changes: object) -> dict[str, Feature]:
    return {"mine": replace(CATALOGUE["rsi_14"], name="mine", function=function, params={}, **changes)}


def test_a_feature_may_read_only_what_it_declares() -> None:
    def reads_volume(known: Known) -> pd.DataFrame:
        return known["volume"]

    with pytest.raises(InputError, match="'volume', which it does not declare"):
        compute(PANEL, ["mine"], catalogue=declared(reads_volume))
    assert compute(PANEL, ["mine"], catalogue=declared(reads_volume, inputs=("volume",)))["mine"].equals(V)
    with pytest.raises(InputError, match="which no panel has"):
        compute(PANEL, ["mine"], catalogue=declared(lambda known: known["vwap"], inputs=("vwap",)))


def test_a_result_of_another_shape_or_an_infinite_one_is_refused() -> None:
    with pytest.raises(DataError, match="returned shape"):
        compute(PANEL, ["mine"], catalogue=declared(lambda known: known["close"].iloc[1:]))
    with pytest.raises(DataError, match="infinite on 1999-01-04 for S0"):
        compute(PANEL, ["mine"], catalogue=declared(lambda known: known["close"] / 0.0))


def test_a_set_is_named_by_everything_that_settles_its_values() -> None:
    core = feature_set("core")
    assert core.version == feature_set("core").version
    assert core.version.startswith("core-")
    assert core.names == tuple(CATALOGUE)
    base = set_of(CATALOGUE["rsi_14"])
    changed = [
        replace(CATALOGUE["rsi_14"], version=2),
        replace(CATALOGUE["rsi_14"], params={"period": 15}),
        replace(CATALOGUE["rsi_14"], formula="another"),
        replace(CATALOGUE["rsi_14"], inputs=("open",)),
    ]
    assert len({base.version, *(set_of(feature).version for feature in changed)}) == 5


def set_of(feature: Feature) -> FeatureSet:
    return feature_set(["rsi_14"], catalogue={"rsi_14": feature})


def test_the_order_and_repetition_of_names_do_not_change_a_set() -> None:
    assert feature_set(["roc_5", "rsi_14"]) == feature_set(["rsi_14", "roc_5", "rsi_14"])
    assert [feature.name for feature in get_features(["rsi_14", "roc_5", "rsi_14"])] == ["rsi_14", "roc_5"]


def test_a_set_without_features_or_with_a_bad_label_is_refused() -> None:
    with pytest.raises(InputError, match="names no feature"):
        feature_set([])
    with pytest.raises(InputError, match="cannot be labelled"):
        feature_set(["rsi_14"], label="../x")


def test_every_declaration_is_complete() -> None:
    for name, feature in CATALOGUE.items():
        assert feature.name == name
        assert feature.formula
        assert feature.source
        assert feature.unit
        assert name in SETS[feature.group]
