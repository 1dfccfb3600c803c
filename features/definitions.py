"""What a declared feature is, and what its function may look at."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from config.errors import InputError
from features.panel import MarketPanel

__all__ = ["MACRO", "Feature", "FeatureFunction", "Group", "Known", "Workbench"]

Group = Literal["trend", "momentum", "volatility", "regime", "macro"]
MACRO = "macro:"
_FIELDS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One declared feature.

    Parameters
    ----------
    name : str
        Lower case with underscores; the column's name in the feature table.
    group : {"trend", "momentum", "volatility", "regime", "macro"}
    function : callable
        ``function(known, **params)`` gives a DataFrame of shape (n_sessions, n_symbols), known at each session's close.
    inputs : tuple of str
        What the function may read: fields of the panel (``close``) and macro series (``macro:VIXCLS``).
    warm_up : int
        Sessions of a symbol before the value is complete.
    formula : str
        The definition in one line.
    unit : str
        "fraction", "index 0-100", ...
    source : str
        Where the definition comes from.
    params : mapping
        Keyword arguments of the function.
    version : int
        Raised whenever the function's values change.
    """

    name: str
    group: Group
    function: FeatureFunction = field(repr=False)
    inputs: tuple[str, ...]
    warm_up: int
    formula: str
    unit: str
    source: str
    params: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def macro(self) -> tuple[str, ...]:
        """The macro series among the inputs, as `load_panel` takes them."""
        return tuple(name.removeprefix(MACRO) for name in self.inputs if name.startswith(MACRO))

    def as_dict(self) -> dict[str, Any]:
        """Everything that settles the values, as plain data: what a feature set's version is the digest of."""
        return {
            "name": self.name,
            "version": self.version,
            "inputs": list(self.inputs),
            "params": dict(self.params),
            "warm_up": self.warm_up,
            "formula": self.formula,
        }


class Workbench:
    """A panel with the intermediate results that were computed from it, each of them once."""

    def __init__(self, panel: MarketPanel) -> None:
        self._panel = panel
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returns, made at the first call with this key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def read(self, name: str) -> pd.DataFrame:
        """A field of the panel, or a macro series laid under every symbol on the sessions it has a close.

        A macro series the panel does not hold is NaN throughout.
        """
        if not name.startswith(MACRO):
            return getattr(self._panel, name)  # type: ignore[no-any-return]
        return self.once(name, lambda: self._laid_out(name.removeprefix(MACRO)))  # type: ignore[no-any-return]

    def _laid_out(self, series: str) -> pd.DataFrame:
        close = self._panel.close
        known = self._panel.macro.get(series)
        column = np.full(len(close), np.nan) if known is None else known.to_numpy(dtype=np.float64)
        values = np.where(close.notna().to_numpy(), column[:, np.newaxis], np.nan)
        return pd.DataFrame(values, index=close.index, columns=close.columns)


@dataclass(frozen=True)
class Known:
    """What one feature's function may look at: its declared inputs, and indicators of them, shared with the other features."""

    feature: str
    inputs: tuple[str, ...]
    workbench: Workbench

    def __getitem__(self, name: str) -> pd.DataFrame:
        """A declared input, of shape (n_sessions, n_symbols).

        Raises
        ------
        InputError
            The feature does not declare that input.
        """
        if name not in self.inputs:
            raise InputError(
                f"feature {self.feature!r} reads {name!r}, which it does not declare", remedy=f"add {name!r} to its inputs"
            )
        if not name.startswith(MACRO) and name not in _FIELDS:
            raise InputError(
                f"feature {self.feature!r} declares {name!r}, which no panel has",
                remedy=f"use {', '.join(_FIELDS)} or {MACRO}<series>",
            )
        return self.workbench.read(name)

    def shared(self, indicator: Callable[..., Any], *inputs: str, **params: Hashable) -> Any:
        """``indicator(*inputs, **params)``, computed once for all features that ask for the same."""
        frames = [self[name] for name in inputs]
        key = (indicator, inputs, tuple(sorted(params.items())))
        return self.workbench.once(key, lambda: indicator(*frames, **params))


FeatureFunction = Callable[..., pd.DataFrame]
