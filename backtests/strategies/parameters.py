"""Declared parameters: their ranges, their checks, and the near configurations on their grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from config.errors import ConfigError

__all__ = ["Parameter", "check_parameters", "near_configurations"]

_MOST = 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One number of a strategy.

    Parameters
    ----------
    name : str
    low, high : float
        The range that is allowed, both included.
    step : float
        The grid's step: what *near* means.
    whole : bool
        Whether only whole numbers make sense (a window).
    doc : str
        What it is, with its unit.
    """

    name: str
    low: float
    high: float
    step: float
    whole: bool
    doc: str

    def check(self, owner: str, value: Any) -> None:
        """Refuse a value of another type or outside the range.

        Raises
        ------
        ConfigError
            Names the strategy, the parameter, the value and the range.
        """
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or (self.whole and value != int(value)) or not self.low <= value <= self.high:
            kind = "whole number" if self.whole else "number"
            raise ConfigError(
                f"{owner}: {self.name} = {value!r} is not a {kind} from {self.low:g} to {self.high:g}",
                remedy=f"{self.name}: {self.doc}",
            )

    def moved(self, value: float, steps: int) -> float | int:
        """The value some steps further on the grid."""
        there = value + steps * self.step
        return round(there) if self.whole else round(there, 10)


def check_parameters(owner: str, declared: Sequence[Parameter], values: Mapping[str, Any]) -> None:
    """Check every declared parameter; see `Parameter.check`."""
    for parameter in declared:
        parameter.check(owner, values[parameter.name])


def near_configurations(
    declared: Sequence[Parameter], values: Mapping[str, Any], valid: Callable[[Mapping[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Up to 14 valid configurations near `values`, nearest first, in a fixed order, without `values` itself.

    Parameters
    ----------
    declared : sequence of Parameter
        With one parameter, four steps each way are tried; with two, the surrounding square and two steps along each axis;
        with more, one step along each axis, then two.
    values : mapping
    valid : callable
        Whether a configuration makes sense as a whole.
    """
    reach = 4 if len(declared) == 1 else 2
    if len(declared) <= 2:
        moves = [move for move in itertools.product(range(-reach, reach + 1), repeat=len(declared)) if _near(move)]
    else:
        axes = range(len(declared))
        moves = [tuple(step if axis == here else 0 for here in axes) for step in (-1, 1, -2, 2) for axis in axes]
    moves.sort(key=lambda move: sum(abs(step) for step in move))
    found: list[dict[str, Any]] = []
    for move in moves:
        pairs = list(zip(declared, move, strict=True))
        there = {**values, **{p.name: p.moved(values[p.name], step) for p, step in pairs if step}}
        inside = all(p.low <= there[p.name] <= p.high for p in declared)
        if inside and valid(there) and there not in found:
            found.append(there)
    return found[:_MOST]


def _near(move: tuple[int, ...]) -> bool:
    away = [abs(step) for step in move if step]
    return bool(away) and (len(away) == 1 or max(away) == 1)
