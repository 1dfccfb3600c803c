"""A strategy: a pure function of what was known, with a specification that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import pandas as pd

from config.conventions import REFERENCE, Convention
from config.hashing import digest
from features.panel import MarketPanel

__all__ = ["Strategy", "StrategySpec", "View"]


@dataclass(frozen=True, kw_only=True)
class View:
    """What a strategy may look at: the market panel and the features it declared, nothing after the last row.

    Parameters
    ----------
    panel : MarketPanel
    features : mapping of str to DataFrame of shape (n_sessions, n_symbols)
        The declared features, aligned to the panel.
    """

    panel: MarketPanel
    features: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def sessions(self) -> pd.DatetimeIndex:
        """The rows."""
        return self.panel.sessions

    @property
    def symbols(self) -> tuple[str, ...]:
        """The columns."""
        return self.panel.symbols

    @property
    def close(self) -> pd.DataFrame:
        """Closing prices."""
        return self.panel.close

    def upto(self, session: pd.Timestamp) -> View:
        """The same view without anything after `session`."""
        return replace(
            self, panel=self.panel.upto(session), features={name: frame.loc[:session] for name, frame in self.features.items()}
        )


@runtime_checkable
class Strategy(Protocol):
    """What every equity strategy offers; see `backtests/strategies/`."""

    name: ClassVar[str]
    family: ClassVar[str]
    features: ClassVar[tuple[str, ...]]
    macro: ClassVar[tuple[str, ...]]
    role: ClassVar[Literal["candidate", "benchmark"]]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters, by name."""
        ...

    @property
    def warm_up(self) -> int:
        """Sessions needed before the first decision."""
        ...

    def targets(self, view: View) -> pd.DataFrame:
        """Target weights, decided at each session's close.

        Returns
        -------
        DataFrame of shape (n_sessions, n_symbols)
            Fraction of equity; NaN means no opinion (keep what is held).
        """
        ...


@dataclass(frozen=True, kw_only=True)
class StrategySpec:
    """The small JSON document that is a strategy version: what is registered, hashed and traded."""

    name: str
    family: str
    params: Mapping[str, Any]
    symbols: tuple[str, ...]
    convention: Convention = REFERENCE
    kind: Literal["weights", "option_legs"] = "weights"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "family": self.family,
            "kind": self.kind,
            "params": dict(self.params),
            "symbols": list(self.symbols),
            "convention": self.convention.as_dict(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> StrategySpec:
        """Read a specification back."""
        return cls(
            name=document["name"],
            family=document["family"],
            kind=document["kind"],
            params=dict(document["params"]),
            symbols=tuple(document["symbols"]),
            convention=Convention(**document["convention"]),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the document."""
        return digest(self.as_dict())
