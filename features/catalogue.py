"""The declared features, and the named sets of them.

To add one: write its function in `features/formulas.py` (or anywhere), declare it here, and run `quant features check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from config.errors import InputError, UnknownNameError, did_you_mean
from config.hashing import digest, short
from features import formulas
from features.definitions import Feature

__all__ = ["CATALOGUE", "SETS", "FeatureSet", "feature_set", "get_features"]

WILDER = "Wilder 1978, New Concepts in Technical Trading Systems"
BOLLINGER = "Bollinger 2001, Bollinger on Bollinger Bands"
APPEL = "Appel 2005, Technical Analysis: Power Tools for Active Investors"
MOMENTUM = "Jegadeesh and Titman 1993, Journal of Finance 48"
BROCK = "Brock, Lakonishok and LeBaron 1992, Journal of Finance 47"
DONCHIAN = "Donchian's channel rule, four weeks"
FABER = "Faber 2007, A Quantitative Approach to Tactical Asset Allocation"
OURS = "defined here (features/formulas.py)"
FRED = "FRED, Federal Reserve Bank of St. Louis"

CLOSE, HIGH, LOW, VOLUME = "close", "high", "low", "volume"
RANGE = (HIGH, LOW, CLOSE)
VIX, OIL, CPI = "macro:VIXCLS", "macro:DCOILWTICO", "macro:CPILFESL"
CREDIT = formulas.SPREAD_INPUTS
RISK_PARAMS = {"window": 20, "past": 756, "peak": 252}
RISK_INPUTS = (CLOSE, *CREDIT, VIX)

_TREND = (
    *(
        Feature(
            name=f"sma_ratio_{window}",
            group="trend",
            function=formulas.sma_ratio,
            inputs=(CLOSE,),
            params={"window": window},
            warm_up=window - 1,
            formula=f"close / sma(close, {window}) - 1",
            unit="fraction",
            source=BROCK,
        )
        for window in (20, 50, 200)
    ),
    Feature(
        name="sma_cross_20_50",
        group="trend",
        function=formulas.sma_cross,
        inputs=(CLOSE,),
        params={"fast": 20, "slow": 50},
        warm_up=49,
        formula="sma(close, 20) / sma(close, 50) - 1",
        unit="fraction",
        source=BROCK,
    ),
    Feature(
        name="ema_ratio_20",
        group="trend",
        function=formulas.ema_ratio,
        inputs=(CLOSE,),
        params={"span": 20},
        warm_up=19,
        formula="close / ema(close, 20) - 1",
        unit="fraction",
        source=APPEL,
    ),
    Feature(
        name="macd_histogram",
        group="trend",
        function=formulas.macd_share,
        inputs=(CLOSE,),
        params={"fast": 12, "slow": 26, "signal": 9},
        warm_up=33,
        formula="(macd - ema(macd, 9)) / close, macd = ema(close, 12) - ema(close, 26)",
        unit="fraction",
        source=APPEL,
    ),
    Feature(
        name="adx_14",
        group="trend",
        function=formulas.adx,
        inputs=RANGE,
        params={"period": 14},
        warm_up=27,
        formula="wilder(100 |di_plus - di_minus| / (di_plus + di_minus), 14)",
        unit="index 0 to 100",
        source=WILDER,
        version=2,
    ),
    Feature(
        name="directional_balance_14",
        group="trend",
        function=formulas.directional_balance,
        inputs=RANGE,
        params={"period": 14},
        warm_up=14,
        formula="di_plus(14) - di_minus(14)",
        unit="index -100 to 100",
        source=WILDER,
        version=2,
    ),
    Feature(
        name="channel_position_20",
        group="trend",
        function=formulas.channel_position,
        inputs=RANGE,
        params={"window": 20},
        warm_up=19,
        formula="(close - min(low, 20)) / (max(high, 20) - min(low, 20))",
        unit="fraction",
        source=DONCHIAN,
    ),
)

_MOMENTUM = (
    *(
        Feature(
            name=f"roc_{periods}",
            group="momentum",
            function=formulas.roc,
            inputs=(CLOSE,),
            params={"periods": periods},
            warm_up=periods,
            formula=f"close / close[-{periods}] - 1",
            unit="fraction",
            source=MOMENTUM,
        )
        for periods in (5, 20, 60, 120)
    ),
    Feature(
        name="momentum_12_1",
        group="momentum",
        function=formulas.momentum,
        inputs=(CLOSE,),
        params={"lookback": 252, "skip": 21},
        warm_up=252,
        formula="close[-21] / close[-252] - 1",
        unit="fraction",
        source=MOMENTUM,
    ),
    Feature(
        name="rsi_14",
        group="momentum",
        function=formulas.rsi,
        inputs=(CLOSE,),
        params={"period": 14},
        warm_up=14,
        formula="100 gain / (gain + loss), each wilder(., 14) of the close's changes",
        unit="index 0 to 100",
        source=WILDER,
    ),
    Feature(
        name="zscore_20",
        group="momentum",
        function=formulas.zscore,
        inputs=(CLOSE,),
        params={"window": 20},
        warm_up=19,
        formula="(close - sma(close, 20)) / std(close, 20, ddof 1)",
        unit="deviations",
        source=BOLLINGER,
    ),
)

_VOLATILITY = (
    *(
        Feature(
            name=f"volatility_{window}",
            group="volatility",
            function=formulas.volatility,
            inputs=(CLOSE,),
            params={"window": window},
            warm_up=window,
            formula=f"std(log returns, {window}, ddof 1) * sqrt(252)",
            unit="fraction a year",
            source="close-to-close estimator, e.g. Hull, Options, Futures and Other Derivatives",
        )
        for window in (20, 60)
    ),
    Feature(
        name="volatility_ratio_20_60",
        group="volatility",
        function=formulas.volatility_ratio,
        inputs=(CLOSE,),
        params={"fast": 20, "slow": 60},
        warm_up=60,
        formula="volatility_20 / volatility_60",
        unit="ratio",
        source=OURS,
    ),
    Feature(
        name="atr_14",
        group="volatility",
        function=formulas.atr_share,
        inputs=RANGE,
        params={"period": 14},
        warm_up=14,
        formula="wilder(true range, 14) / close",
        unit="fraction",
        source=WILDER,
    ),
    Feature(
        name="bollinger_width_20",
        group="volatility",
        function=formulas.bollinger_width,
        inputs=(CLOSE,),
        params={"period": 20, "deviations": 2.0},
        warm_up=19,
        formula="(upper - lower) / middle, bands of 2 std(close, 20, ddof 0)",
        unit="fraction",
        source=BOLLINGER,
    ),
    Feature(
        name="percent_b_20",
        group="volatility",
        function=formulas.percent_b,
        inputs=(CLOSE,),
        params={"period": 20, "deviations": 2.0},
        warm_up=19,
        formula="(close - lower) / (upper - lower), bands of 2 std(close, 20, ddof 0)",
        unit="fraction",
        source=BOLLINGER,
    ),
    Feature(
        name="drawdown_252",
        group="volatility",
        function=formulas.drawdown,
        inputs=(CLOSE,),
        params={"window": 252},
        warm_up=251,
        formula="close / max(close, 252) - 1",
        unit="fraction",
        source=OURS,
    ),
    Feature(
        name="volume_ratio_20",
        group="volatility",
        function=formulas.volume_ratio,
        inputs=(VOLUME,),
        params={"window": 20},
        warm_up=19,
        formula="volume / sma(volume, 20)",
        unit="ratio",
        source=OURS,
    ),
)

_REGIME = (
    Feature(
        name="trend_filter_200",
        group="regime",
        function=formulas.trend_filter,
        inputs=(CLOSE,),
        params={"window": 200},
        warm_up=199,
        formula="1 if close > sma(close, 200) else 0",
        unit="0 or 1",
        source=FABER,
    ),
    Feature(
        name="volatility_regime",
        group="regime",
        function=formulas.volatility_regime,
        inputs=(CLOSE,),
        params={"window": 20, "past": 756},
        warm_up=775,
        formula="rank of volatility_20 in its last 756 sessions: over 0.5 is 1, over 0.8 is 2, else 0",
        unit="0, 1, 2",
        source=OURS,
    ),
    Feature(
        name="risk_level",
        group="regime",
        function=formulas.risk_level,
        inputs=RISK_INPUTS,
        params=RISK_PARAMS,
        warm_up=775,
        formula="rounded mean of the severities (0 to 4) that are there: rank of volatility_20 in 756 sessions, drawdown_252, "
        "rank of credit_spread in 756 sessions, VIX",
        unit="0 to 4",
        source=OURS,
    ),
    Feature(
        name="risk_components",
        group="regime",
        function=formulas.risk_components,
        inputs=RISK_INPUTS,
        params=RISK_PARAMS,
        warm_up=0,
        formula="how many of risk_level's four components are there",
        unit="0 to 4",
        source=OURS,
    ),
)

_MACRO = (
    Feature(
        name="vix_level",
        group="macro",
        function=formulas.macro_level,
        inputs=(CLOSE, VIX),
        params={"series": VIX},
        warm_up=0,
        formula="VIX as known at the stock market's close (the day before's)",
        unit="index points",
        source=FRED,
    ),
    Feature(
        name="vix_change_5",
        group="macro",
        function=formulas.macro_change,
        inputs=(CLOSE, VIX),
        params={"series": VIX, "periods": 5},
        warm_up=5,
        formula="vix_level - vix_level[-5]",
        unit="index points",
        source=FRED,
    ),
    Feature(
        name="credit_spread",
        group="macro",
        function=formulas.spread,
        inputs=(CLOSE, *CREDIT),
        warm_up=0,
        formula="(BAA - AAA) / 100",
        unit="fraction",
        source=FRED,
    ),
    Feature(
        name="credit_spread_change_60",
        group="macro",
        function=formulas.spread_change,
        inputs=(CLOSE, *CREDIT),
        params={"periods": 60},
        warm_up=60,
        formula="credit_spread - credit_spread[-60]",
        unit="fraction",
        source=FRED,
    ),
    Feature(
        name="oil_momentum_60",
        group="macro",
        function=formulas.macro_momentum,
        inputs=(CLOSE, OIL),
        params={"series": OIL, "periods": 60},
        warm_up=60,
        formula="WTI / WTI[-60] - 1",
        unit="fraction",
        source=FRED,
    ),
    Feature(
        name="core_inflation_yoy",
        group="macro",
        function=formulas.inflation,
        inputs=(CLOSE, CPI, f"{CPI}@-12M"),
        params={"series": CPI},
        warm_up=0,
        formula="core CPI of the newest month / of twelve months before - 1, both as known",
        unit="fraction",
        source=FRED,
    ),
    Feature(
        name="core_inflation_change_3m",
        group="macro",
        function=formulas.inflation_change,
        inputs=(CLOSE, CPI, *(f"{CPI}@-{months}M" for months in (3, 12, 15))),
        params={"series": CPI},
        warm_up=0,
        formula="core_inflation_yoy less that of the month three before, all months as known",
        unit="fraction",
        source=FRED,
    ),
)

CATALOGUE: dict[str, Feature] = {f.name: f for f in (*_TREND, *_MOMENTUM, *_VOLATILITY, *_REGIME, *_MACRO)}
SETS: dict[str, tuple[str, ...]] = {
    "core": tuple(CATALOGUE),
    **{
        group: tuple(f.name for f in CATALOGUE.values() if f.group == group)
        for group in dict.fromkeys(f.group for f in CATALOGUE.values())
    },
}


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Features that are computed and stored together.

    Parameters
    ----------
    version : str
        ``<label>-<digest>``: changes with any feature's name, version, inputs, parameters, warm-up or formula.
    features : tuple of Feature
        In the order of the table's columns.
    """

    label: str
    version: str
    features: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(feature.name for feature in self.features)

    @property
    def macro(self) -> tuple[str, ...]:
        """The macro series the features need, as `load_panel` takes them."""
        return tuple(dict.fromkeys(series for feature in self.features for series in feature.macro))

    @property
    def warm_up(self) -> int:
        """Sessions of a symbol before every value is complete."""
        return max((feature.warm_up for feature in self.features), default=0)


def get_features(names: Iterable[str], catalogue: Mapping[str, Feature] = CATALOGUE) -> tuple[Feature, ...]:
    """The declared features of these names, in their order, each once.

    Raises
    ------
    UnknownNameError
        No feature has that name; the message lists the near ones.
    """
    wanted = tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in catalogue:
            raise UnknownNameError(f"no feature is called {name!r}", remedy=did_you_mean(name, tuple(catalogue)))
    return tuple(catalogue[name] for name in wanted)


def feature_set(which: str | Iterable[str], *, label: str = "custom", catalogue: Mapping[str, Feature] = CATALOGUE) -> FeatureSet:
    """A named set ("core", "trend", ...), or features by name under a label of one's own.

    Raises
    ------
    UnknownNameError
        There is no such set or feature.
    InputError
        The label is not made of lower-case letters, digits and underscores, or no feature is named.
    """
    if isinstance(which, str):
        if which not in SETS:
            raise UnknownNameError(f"no feature set is called {which!r}", remedy=did_you_mean(which, tuple(SETS)))
        label, names = which, SETS[which]
    else:
        names = tuple(which)
    if not label.replace("_", "").isalnum() or label != label.lower():
        raise InputError(f"a feature set cannot be labelled {label!r}", remedy="use lower-case letters, digits and underscores")
    features = get_features(names, catalogue)
    if not features:
        raise InputError(f"the feature set {label!r} names no feature", remedy="name at least one; `quant features ls` shows them")
    ordered = sorted(features, key=lambda feature: list(catalogue).index(feature.name))
    version = f"{label}-{short(digest([feature.as_dict() for feature in ordered]), 12)}"
    return FeatureSet(label=label, version=version, features=tuple(ordered))
