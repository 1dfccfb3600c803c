"""The functions behind the catalogue: each takes what is `Known` and gives one value a session and symbol.

Every one is free of the price's scale (ratios, ranks, counts), so a split that is taken back later changes no value beyond
rounding.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from features import indicators as ind
from features.definitions import Known
from features.kernels import FloatArray

__all__ = [
    "adx",
    "atr_share",
    "bollinger_width",
    "channel_position",
    "directional_balance",
    "drawdown",
    "ema_ratio",
    "inflation",
    "inflation_change",
    "macd_share",
    "macro_change",
    "macro_level",
    "macro_momentum",
    "momentum",
    "percent_b",
    "risk_components",
    "risk_level",
    "roc",
    "rsi",
    "sma_cross",
    "sma_ratio",
    "spread",
    "spread_change",
    "trend_filter",
    "volatility",
    "volatility_ratio",
    "volatility_regime",
    "volume_ratio",
    "zscore",
]

# Ranks in the own past at which severity rises from 0 to 1, 2, 3, 4: median, and the tails one calls high, very high, extreme.
RANK_STEPS = (0.5, 0.7, 0.85, 0.95)
# Losses from the year's high; a tenth is called a correction, a fifth a bear market.
DRAWDOWN_STEPS = (0.05, 0.10, 0.15, 0.20)
# Index points: the long-run mean lies near 20; 30 and more is taken for stress (Whaley 2009, J. of Portfolio Management 35).
VIX_STEPS = (20.0, 25.0, 30.0, 40.0)
BAA, AAA, VIX = "macro:BAA", "macro:AAA", "macro:VIXCLS"
SPREAD_INPUTS = (BAA, AAA)


def sma_ratio(known: Known, *, window: int) -> pd.DataFrame:
    """Close over its simple average, less one."""
    return _ratio(known["close"], known.shared(ind.sma, "close", window=window)) - 1.0


def sma_cross(known: Known, *, fast: int, slow: int) -> pd.DataFrame:
    """Fast simple average over the slow one, less one."""
    return _ratio(known.shared(ind.sma, "close", window=fast), known.shared(ind.sma, "close", window=slow)) - 1.0


def ema_ratio(known: Known, *, span: int) -> pd.DataFrame:
    """Close over its exponential average, less one."""
    return _ratio(known["close"], known.shared(ind.ema, "close", span=span)) - 1.0


def macd_share(known: Known, *, fast: int, slow: int, signal: int) -> pd.DataFrame:
    """MACD histogram as a fraction of the close."""
    return _ratio(known.shared(ind.macd, "close", fast=fast, slow=slow, signal=signal).histogram, known["close"])


def adx(known: Known, *, period: int) -> pd.DataFrame:
    """Average directional index, 0 to 100."""
    return known.shared(ind.adx, "high", "low", "close", period=period).adx  # type: ignore[no-any-return]


def directional_balance(known: Known, *, period: int) -> pd.DataFrame:
    """Plus less minus directional indicator, -100 to 100."""
    directional = known.shared(ind.adx, "high", "low", "close", period=period)
    return directional.plus - directional.minus  # type: ignore[no-any-return]


def channel_position(known: Known, *, window: int) -> pd.DataFrame:
    """Place of the close in its Donchian channel: 0 at the lowest low, 1 at the highest high."""
    channel = known.shared(ind.donchian, "high", "low", window=window)
    return _ratio(known["close"] - channel.lower, channel.upper - channel.lower)


def roc(known: Known, *, periods: int) -> pd.DataFrame:
    """Growth of the close."""
    return known.shared(ind.roc, "close", periods=periods)  # type: ignore[no-any-return]


def momentum(known: Known, *, lookback: int, skip: int) -> pd.DataFrame:
    """Growth of the close without the newest month."""
    return known.shared(ind.momentum, "close", lookback=lookback, skip=skip)  # type: ignore[no-any-return]


def rsi(known: Known, *, period: int) -> pd.DataFrame:
    """Wilder's relative strength index, 0 to 100."""
    return known.shared(ind.rsi, "close", period=period)  # type: ignore[no-any-return]


def zscore(known: Known, *, window: int) -> pd.DataFrame:
    """Sample deviations of the close from its average."""
    return known.shared(ind.zscore, "close", window=window)  # type: ignore[no-any-return]


def volatility(known: Known, *, window: int) -> pd.DataFrame:
    """Annualised realised volatility."""
    return known.shared(ind.realised_volatility, "close", window=window)  # type: ignore[no-any-return]


def volatility_ratio(known: Known, *, fast: int, slow: int) -> pd.DataFrame:
    """Short over long realised volatility."""
    return _ratio(
        known.shared(ind.realised_volatility, "close", window=fast), known.shared(ind.realised_volatility, "close", window=slow)
    )


def atr_share(known: Known, *, period: int) -> pd.DataFrame:
    """Average true range as a fraction of the close."""
    return _ratio(known.shared(ind.atr, "high", "low", "close", period=period), known["close"])


def bollinger_width(known: Known, *, period: int, deviations: float) -> pd.DataFrame:
    """Width of the Bollinger bands as a fraction of their middle."""
    bands = known.shared(ind.bollinger, "close", period=period, deviations=deviations)
    return _ratio(bands.upper - bands.lower, bands.middle)


def percent_b(known: Known, *, period: int, deviations: float) -> pd.DataFrame:
    """Place of the close in its Bollinger bands: 0 at the lower, 1 at the upper."""
    bands = known.shared(ind.bollinger, "close", period=period, deviations=deviations)
    return _ratio(known["close"] - bands.lower, bands.upper - bands.lower)


def drawdown(known: Known, *, window: int) -> pd.DataFrame:
    """Loss from the highest close of the window, at most zero."""
    return known.shared(ind.drawdown, "close", window=window)  # type: ignore[no-any-return]


def volume_ratio(known: Known, *, window: int) -> pd.DataFrame:
    """Volume over its simple average."""
    return _ratio(known["volume"], known.shared(ind.sma, "volume", window=window))


def trend_filter(known: Known, *, window: int) -> pd.DataFrame:
    """1 while the close lies above its simple average, else 0."""
    average: pd.DataFrame = known.shared(ind.sma, "close", window=window)
    return (known["close"] > average * (1.0 + ind.TIE)).astype(np.float64).where(average.notna())


def volatility_regime(known: Known, *, window: int, past: int) -> pd.DataFrame:
    """0 calm, 1 elevated, 2 high: where volatility ranks in its own past."""
    rank = _volatility_rank(known, window, past)
    return _severity(rank, (0.5, 0.8))


def risk_level(known: Known, *, window: int, past: int, peak: int) -> pd.DataFrame:
    """0 calm to 4 crisis: the rounded mean (half up) of the severities that are there; NaN only when none is.

    Each component is graded 0 to 4 by four steps: volatility by its rank in the own past (`RANK_STEPS`), drawdown from the
    year's high (`DRAWDOWN_STEPS`), BAA - AAA credit spread by its rank in the past (`RANK_STEPS`), VIX in points (`VIX_STEPS`).
    """
    severities = _severities(known, window, past, peak)
    there = np.sum([~np.isnan(part) for part in severities], axis=0)
    total = np.nansum(severities, axis=0)
    level = np.floor(np.divide(total, there, out=np.full(total.shape, np.nan), where=there > 0) + 0.5)
    return _framed(level, known)


def risk_components(known: Known, *, window: int, past: int, peak: int) -> pd.DataFrame:
    """How many of the four components stand behind `risk_level`; NaN on sessions without a close."""
    severities = _severities(known, window, past, peak)
    there = np.sum([~np.isnan(part) for part in severities], axis=0).astype(np.float64)
    return _framed(there, known).where(known["close"].notna())


def macro_level(known: Known, *, series: str) -> pd.DataFrame:
    """The newest value of a macro series."""
    return known[series]


def macro_change(known: Known, *, series: str, periods: int) -> pd.DataFrame:
    """Difference of what was known now and some sessions ago."""
    return known.shared(ind.change, series, periods=periods)  # type: ignore[no-any-return]


def macro_momentum(known: Known, *, series: str, periods: int) -> pd.DataFrame:
    """Growth between what was known some sessions ago and now."""
    return known.shared(ind.roc, series, periods=periods)  # type: ignore[no-any-return]


def spread(known: Known) -> pd.DataFrame:
    """BAA less AAA corporate yield, a fraction."""
    return known.shared(_credit_spread, *SPREAD_INPUTS)  # type: ignore[no-any-return]


def spread_change(known: Known, *, periods: int) -> pd.DataFrame:
    """Change of the credit spread, a fraction."""
    return ind.change(known.shared(_credit_spread, *SPREAD_INPUTS), periods)


def inflation(known: Known, *, series: str) -> pd.DataFrame:
    """Growth of a price index over twelve months, both months as known now."""
    return _ratio(known[series], known[f"{series}@-12M"]) - 1.0


def inflation_change(known: Known, *, series: str) -> pd.DataFrame:
    """Twelve-month growth less what it was three months earlier, all months as known now."""
    return inflation(known, series=series) - (_ratio(known[f"{series}@-3M"], known[f"{series}@-15M"]) - 1.0)


def _volatility_rank(known: Known, window: int, past: int) -> pd.DataFrame:
    def ranked(close: pd.DataFrame) -> pd.DataFrame:
        return ind.percent_rank(ind.realised_volatility(close, window), past)

    return known.workbench.once(("volatility rank", window, past), lambda: ranked(known["close"]))  # type: ignore[no-any-return]


def _severities(known: Known, window: int, past: int, peak: int) -> list[FloatArray]:
    def grade() -> list[pd.DataFrame]:
        credit = known.shared(_credit_spread, *SPREAD_INPUTS)
        return [
            _severity(_volatility_rank(known, window, past), RANK_STEPS),
            _severity(-known.shared(ind.drawdown, "close", window=peak), DRAWDOWN_STEPS),
            _severity(ind.percent_rank(credit, past), RANK_STEPS),
            _severity(known[VIX], VIX_STEPS),
        ]

    graded = known.workbench.once(("risk severities", window, past, peak), grade)
    return [part.to_numpy() for part in graded]


def _severity(values: pd.DataFrame, steps: tuple[float, ...]) -> pd.DataFrame:
    """How many of the steps the value exceeds; NaN stays NaN."""
    array = values.to_numpy()
    exceeded = np.sum([array > step for step in steps], axis=0).astype(np.float64)
    return pd.DataFrame(np.where(np.isnan(array), np.nan, exceeded), index=values.index, columns=values.columns)


def _credit_spread(lower_grade: pd.DataFrame, higher_grade: pd.DataFrame) -> pd.DataFrame:
    return (lower_grade - higher_grade) / 100.0  # the source quotes per cent


def _framed(values: FloatArray, known: Known) -> pd.DataFrame:
    close = known["close"]
    return pd.DataFrame(values, index=close.index, columns=close.columns)


def _ratio(part: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """`part` / `whole`, NaN where `whole` is zero."""
    return part / whole.where(whole != 0)
