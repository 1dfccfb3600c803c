"""Read a vendor's JSON entry by entry: what cannot be read is refused with the reason, the rest of the answer is not lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flows.sources.base import RefusedRow

__all__ = ["Refusal", "number", "read_all"]

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an entry has no place in its table."""

    rule: str
    reason: str

    def row(self, symbol: str | None, raw: Mapping[str, Any], place: str = "") -> RefusedRow:
        """As a refused row."""
        return RefusedRow(symbol=symbol, rule=self.rule, reason=f"{place}{self.reason}", raw=raw)


def number(value: Any) -> float | None:
    """A number of a vendor's JSON; None where it says there is none (null, an empty text).

    Raises
    ------
    ValueError
        It is something else.
    """
    if value is None or value in ("", "null"):
        return None
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no number")
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value!r} is no finite number")
    return found


def read_all(
    entries: Iterable[Any], symbol: str, read: Callable[[Any, str], Made | Refusal]
) -> tuple[list[Made], list[RefusedRow]]:
    """Read each entry with ``read(entry, symbol)``; what it refuses, and what it cannot read, is set aside as it came."""
    good: list[Made] = []
    bad: list[RefusedRow] = []
    for one in entries:
        raw = one if isinstance(one, dict) else {"entry": one}
        try:
            made = read(one, symbol)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as problem:
            made = Refusal("wrong_type", f"{symbol}: an entry that cannot be read ({type(problem).__name__}: {problem})")
        if isinstance(made, Refusal):
            bad.append(made.row(symbol, raw))
        else:
            good.append(made)
    return good, bad
