"""The combined strategy: momentum by vote, mean reversion by bands, gated by the regime; configured by a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from backtests.strategies.bollinger_reversion import BollingerReversion, bollinger_held
from backtests.strategies.parameters import Parameter, near_configurations
from backtests.strategies.rsi_reversion import RsiReversion
from backtests.strategies.rules import above, below, equal_slices
from backtests.strategies.sma_crossover import SmaCrossover
from backtests.strategy import View
from config.errors import ConfigError, InputError, did_you_mean
from features.indicators import rsi, sma

__all__ = ["Combo"]

_RISK, _TREND = "risk_level", "trend_filter_200"
_PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "momentum": {
        "sma_crossover": {"fast": 20, "slow": 50},
        "rsi": {"period": 14, "oversold": 30.0, "overbought": 70.0},
    },
    "mean_reversion": {"bollinger_bands": {"period": 20, "std": 2.0}},
    "regime_aware": {"risk_regime_filter": {"max_level": 2}, "trend_filter": {}},
}
_CHECKED_BY: dict[str, type[SmaCrossover] | type[RsiReversion] | type[BollingerReversion]] = {
    "sma_crossover": SmaCrossover,
    "rsi": RsiReversion,
    "bollinger_bands": BollingerReversion,
}
_LEVEL = Parameter(name="max_level", low=0, high=4, step=1, whole=True, doc="highest risk level (0 to 4) that is held through")

Part = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Combo:
    """Long while momentum or mean reversion says so and the regime allows it.

    Configured as users of the earlier system write it::

        {'name': 'combo',
         'momentum': {'sma_crossover': {'fast': 20, 'slow': 50}, 'rsi': {'period': 14, 'overbought': 70, 'oversold': 30}},
         'mean_reversion': {'bollinger_bands': {'period': 20, 'std': 2}},
         'regime_aware': {'risk_regime_filter': {'max_level': 2}, 'trend_filter': True}}

    Decided for each symbol at each close; every comparison by more than 1e-9 relatively, a tie counts as neither:

    1. **Momentum** is a vote. `sma_crossover`: +1 while SMA(fast) > SMA(slow), -1 while it is below. `rsi`: +1 while the RSI is
       below `oversold`, -1 while it is above `overbought`, else 0. Momentum is long while the votes add up to more than 0: with
       both members an overbought RSI takes a rising trend out of the market, and an oversold one does not bring a falling
       trend in.
    2. **Mean reversion** is the state of `BollingerReversion`: long from a close below the lower band until one above the
       middle.
    3. The signal is long while 1 or 2 is. With neither configured it is always long, so that the regime part alone works.
    4. **Regime** shuts the signal off: `risk_regime_filter` while the feature `risk_level` is above `max_level` or unknown,
       `trend_filter` while the feature `trend_filter_200` is 0 or unknown.

    Any subset of the parts works; an empty member takes its defaults, and False leaves it out. Each of n symbols has a slice
    of 1 / n of equity. No opinion until every configured momentum and mean-reversion indicator is known, and on sessions
    without a close. It claims no edge; its many parameters make it easy to fit to the past.

    Parameters
    ----------
    momentum, mean_reversion, regime_aware : mapping
        As above.

    Raises
    ------
    ConfigError
        An unknown member or key (the near names are listed), a value outside its range, or no part at all.
    """

    name: ClassVar[str] = "combo"
    family: ClassVar[str] = "combo"
    features: ClassVar[tuple[str, ...]] = (_RISK, _TREND)
    macro: ClassVar[tuple[str, ...]] = ()
    role: ClassVar[Literal["candidate", "benchmark"]] = "candidate"
    parameters: ClassVar[tuple[Parameter, ...]] = (_LEVEL,)

    momentum: Mapping[str, Any] = field(default_factory=dict)
    mean_reversion: Mapping[str, Any] = field(default_factory=dict)
    regime_aware: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in _PARTS:
            object.__setattr__(self, part, _complete(part, getattr(self, part)))
        if not (self.momentum or self.mean_reversion or self.regime_aware):
            raise ConfigError("combo: no part is configured", remedy=f"give at least one of {', '.join(_PARTS)}")

    @classmethod
    def valid(cls, params: Mapping[str, Any]) -> bool:
        """Whether a combined strategy can be made of `params`."""
        try:
            cls(**params)
        except ConfigError:
            return False
        return True

    @property
    def params(self) -> dict[str, Any]:
        """The configured parts, with their defaults filled in."""
        parts = {part: getattr(self, part) for part in _PARTS}
        return {part: {name: _plain(member) for name, member in members.items()} for part, members in parts.items() if members}

    @property
    def warm_up(self) -> int:
        """Closes until every configured indicator is known; the regime features have warm-ups of their own."""
        needs = [1]
        for name, member in {**self.momentum, **self.mean_reversion}.items():
            needs.append(_CHECKED_BY[name](**member).warm_up)
        return max(needs)

    def neighbours(self) -> list[dict[str, Any]]:
        """One step along each configured number, then two, at most 14 in all."""
        return [_nest(flat, self.params) for flat in near_configurations(self._declared(), self._flat(), self._valid_flat)]

    def targets(self, view: View) -> pd.DataFrame:
        """0 or 1 / n, known at the close; NaN before the warm-up.

        Raises
        ------
        InputError
            A regime part is configured and the view lacks its feature.
        """
        long, known = self._signal(view.close)
        for name, member in self.regime_aware.items():
            long = long & _gate(name, member, view)
        return equal_slices(long, known)

    def _signal(self, close: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        known = close.notna()
        if not (self.momentum or self.mean_reversion):
            return known, known
        long = pd.DataFrame(False, index=close.index, columns=close.columns)
        if self.momentum:
            votes, told = _votes(close, self.momentum)
            long, known = long | (votes > 0.0), known & told
        if self.mean_reversion:
            held, told = bollinger_held(close, **self.mean_reversion["bollinger_bands"])
            long, known = long | (held > 0.0), known & told
        return long, known

    def _declared(self) -> list[Parameter]:
        declared: list[Parameter] = []
        for name, member in {**self.momentum, **self.mean_reversion}.items():
            declared += [_renamed(p, f"{name}.{p.name}") for p in _CHECKED_BY[name].parameters if p.name in member]
        if "risk_regime_filter" in self.regime_aware:
            declared.append(_renamed(_LEVEL, "risk_regime_filter.max_level"))
        return declared

    def _flat(self) -> dict[str, Any]:
        members = {**self.momentum, **self.mean_reversion, **self.regime_aware}
        return {f"{name}.{key}": value for name, member in members.items() for key, value in member.items()}

    def _valid_flat(self, flat: Mapping[str, Any]) -> bool:
        return self.valid(_nest(flat, self.params))


def _complete(part: str, given: Any) -> dict[str, Part]:
    """Check one part and fill in the defaults of its members."""
    known = _PARTS[part]
    if not isinstance(given, Mapping):
        raise ConfigError(f"combo: {part} is {given!r}, not a mapping of its members", remedy=f"members: {', '.join(known)}")
    complete: dict[str, Part] = {}
    for name, member in given.items():
        if name not in known:
            raise ConfigError(f"combo: {part} has no member {name!r}", remedy=did_you_mean(str(name), tuple(known)))
        if member is False or member is None:
            continue
        values = {} if member is True else member
        if not isinstance(values, Mapping):
            raise ConfigError(f"combo: {part}.{name} is {member!r}", remedy="give a mapping, or True for the defaults")
        for key in values:
            if key not in known[name]:
                near = did_you_mean(str(key), tuple(known[name])) if known[name] else "it has none"
                raise ConfigError(f"combo: {part}.{name} has no parameter {key!r}", remedy=near)
        merged = {**known[name], **values}
        if name == "risk_regime_filter":
            _LEVEL.check("combo", merged["max_level"])
        complete[name] = _CHECKED_BY[name](**merged).params if name in _CHECKED_BY else merged
    return complete


def _votes(close: pd.DataFrame, momentum: Mapping[str, Part]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sum of the votes, and where every voter is known."""
    votes = pd.DataFrame(0.0, index=close.index, columns=close.columns)
    known = close.notna()
    if "sma_crossover" in momentum:
        fast, slow = (sma(close, momentum["sma_crossover"][speed]) for speed in ("fast", "slow"))
        votes = votes + above(fast, slow).astype(np.float64) - below(fast, slow).astype(np.float64)
        known = known & slow.notna()
    if "rsi" in momentum:
        rule = momentum["rsi"]
        strength = rsi(close, rule["period"])
        fallen, risen = below(strength, rule["oversold"]), above(strength, rule["overbought"])
        votes = votes + fallen.astype(np.float64) - risen.astype(np.float64)
        known = known & strength.notna()
    return votes, known


def _gate(name: str, member: Part, view: View) -> pd.DataFrame:
    """Where one regime filter lets positions be held."""
    feature = _RISK if name == "risk_regime_filter" else _TREND
    if feature not in view.features:
        raise InputError(
            f"combo: {name} needs the feature {feature!r}, which the view does not have",
            remedy=f"compute it: features.compute(panel, [{feature!r}])",
        )
    values = view.features[feature].reindex(index=view.sessions, columns=view.close.columns)
    return values <= member["max_level"] if name == "risk_regime_filter" else values > 0.0


def _plain(member: Part) -> Any:
    return dict(member) if member else True


def _renamed(parameter: Parameter, name: str) -> Parameter:
    return Parameter(
        name=name, low=parameter.low, high=parameter.high, step=parameter.step, whole=parameter.whole, doc=parameter.doc
    )


def _nest(flat: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Put flat values (``sma_crossover.fast``) back into the shape of `like`."""
    nested: dict[str, Any] = {}
    for part, members in like.items():
        nested[part] = {
            name: {key: flat[f"{name}.{key}"] for key in member} if isinstance(member, dict) else member
            for name, member in members.items()
        }
    return nested
