"""Finds values that know the future: compute again without it, and with another one, and demand the same past.

1. Cuts are drawn (`_draw_cuts`).
2. At each cut the future is taken away (`cut`), blanked (`missing`) and replaced by absurd values (`absurd`): `_futures`.
3. Every value up to the cut must be what it was with the true future (`_compare`), to the last bit unless a tolerance is given.

The three differ on purpose: `bfill` shows when the future is there but other, a full-sample mean when it is gone, and a rule
such as "the last row is special" only when it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from config.errors import DataError, InputError, LeakageError
from config.progress import SILENT, Progress
from features.catalogue import CATALOGUE
from features.definitions import Feature
from features.engine import compute
from features.kernels import FloatArray
from features.panel import MarketPanel

__all__ = ["ComputeFunction", "Leak", "LeakageReport", "check_catalogue", "check_truncation", "find_leaks"]

ComputeFunction: TypeAlias = Callable[[MarketPanel], Mapping[str, pd.DataFrame]]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Future: TypeAlias = Literal["cut", "missing", "absurd"]
_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One feature's past that changed with the future: the value that changed most, and how many did.

    Parameters
    ----------
    session : Timestamp
        The row of the value.
    cut : Timestamp
        The last session that was left as it was.
    future : {"cut", "missing", "absurd"}
        What was done to the sessions after it.
    size : float
        Absolute change; infinite when a number became NaN, or the other way round.
    changed : int
        Values of this feature that differed, over all cuts and futures.
    """

    feature: str
    symbol: str
    session: pd.Timestamp
    cut: pd.Timestamp
    future: Future
    true_value: float
    other_value: float
    size: float
    changed: int = 1

    def __str__(self) -> str:
        return (
            f"{self.feature}: {self.symbol} on {self.session:%Y-%m-%d} was {self.true_value:.10g} and is {self.other_value:.10g} "
            f"({self.future} after {self.cut:%Y-%m-%d}; {self.changed} values changed)"
        )


@dataclass(frozen=True, kw_only=True)
class LeakageReport:
    """What a search for leaks looked at and found.

    Parameters
    ----------
    compared : mapping of str to int
        Numbers that were compared, by feature. Zero proves nothing: `unproven` lists those.
    leaks : tuple of Leak
        One for each leaking feature.
    """

    cuts: tuple[pd.Timestamp, ...]
    compared: Mapping[str, int]
    leaks: tuple[Leak, ...]

    @property
    def unproven(self) -> tuple[str, ...]:
        """Features that had no value on this panel, so that nothing could be compared."""
        return tuple(name for name, count in self.compared.items() if count == 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; an infinite size (a number against NaN) and NaN as None."""

        def plain(leak: Leak) -> dict[str, Any]:
            numbers = {name: getattr(leak, name) for name in ("true_value", "other_value", "size")}
            return {
                "feature": leak.feature,
                "symbol": leak.symbol,
                "session": f"{leak.session:%Y-%m-%d}",
                "cut": f"{leak.cut:%Y-%m-%d}",
                "future": leak.future,
                "changed": leak.changed,
                **{name: value if np.isfinite(value) else None for name, value in numbers.items()},
            }

        return {
            "cuts": [f"{cut:%Y-%m-%d}" for cut in self.cuts],
            "compared": dict(self.compared),
            "unproven": list(self.unproven),
            "leaks": [plain(leak) for leak in self.leaks],
        }

    def require(self) -> LeakageReport:
        """Return the report, or raise.

        Raises
        ------
        LeakageError
            A value changed; the message lists feature, symbol, session and size.
        """
        if not self.leaks:
            return self
        listed = "\n  ".join(f"{leak}, changed by {leak.size:.3g}" for leak in self.leaks[:_LISTED])
        more = f"\n  and {len(self.leaks) - _LISTED} more features" if len(self.leaks) > _LISTED else ""
        raise LeakageError(
            f"{len(self.leaks)} of {len(self.compared)} features know the future:\n  {listed}{more}",
            remedy="let each row use its own session and earlier ones only: no centred window, negative shift, backward fill, "
            "or statistic over the whole sample",
        )


def find_leaks(
    compute_fn: ComputeFunction,
    panel: MarketPanel,
    *,
    cuts: int | Sequence[pd.Timestamp],
    rng: np.random.Generator,
    tolerance: float = 0.0,
    progress: Progress = SILENT,
) -> LeakageReport:
    """Compare what a function says of the past under the true future and under others.

    Parameters
    ----------
    compute_fn : callable
        ``compute_fn(panel)`` gives named DataFrames over the panel's sessions: features, or a strategy's target weights
        (``lambda panel: {"weights": strategy.targets(view_of(panel))}``). It must not keep anything between calls.
    cuts : int or sequence of Timestamp
        How many sessions to draw, or the last sessions to leave as they are. Drawn ones always include the last but one.
    rng : numpy.random.Generator
        Draws the cuts and the absurd values.
    tolerance : float
        Allowed change, relative to the value where that exceeds one. Zero demands equality to the last bit.

    Raises
    ------
    InputError
        The panel has fewer than two sessions, or a cut is not among those before the last.
    DataError
        The function returns other names or sessions under another future.
    """
    moments = _draw_cuts(panel, cuts, rng)
    truth = compute_fn(panel)
    compared = dict.fromkeys(truth, 0)
    worst: dict[str, Leak] = {}
    progress.stage("looking for leaks", len(moments))
    for cut in moments:
        for future, other_panel in _futures(panel, cut, rng):
            others = compute_fn(other_panel)
            if set(others) != set(truth):
                raise DataError(f"under the future {future!r} other names were returned: {sorted(set(others) ^ set(truth))}")
            for name, frame in truth.items():
                leak, count = _compare(name, frame, others[name], cut, future, tolerance)
                compared[name] += count
                if leak is not None:
                    worst[name] = _worse(worst.get(name), leak)
        progress.advance()
    return LeakageReport(cuts=moments, compared=compared, leaks=tuple(worst.values()))


def check_truncation(
    compute_fn: ComputeFunction,
    panel: MarketPanel,
    *,
    cuts: int | Sequence[pd.Timestamp],
    rng: np.random.Generator,
    tolerance: float = 0.0,
    progress: Progress = SILENT,
) -> LeakageReport:
    """As `find_leaks`, and raise if there is one.

    Raises
    ------
    LeakageError
        A value of the past changed with the future; the message lists feature, symbol, session and size.
    """
    return find_leaks(compute_fn, panel, cuts=cuts, rng=rng, tolerance=tolerance, progress=progress).require()


def check_catalogue(
    panel: MarketPanel,
    names: Iterable[str] | None = None,
    *,
    cuts: int | Sequence[pd.Timestamp] = 8,
    rng: np.random.Generator,
    catalogue: Mapping[str, Feature] = CATALOGUE,
    progress: Progress = SILENT,
) -> LeakageReport:
    """Check declared features on a panel, to the last bit; `quant features check` shows the report.

    Raises
    ------
    LeakageError
        A feature knows the future.
    UnknownNameError
        No feature has one of the names.
    """
    wanted = tuple(catalogue if names is None else names)
    return check_truncation(lambda p: compute(p, wanted, catalogue=catalogue), panel, cuts=cuts, rng=rng, progress=progress)


def _draw_cuts(panel: MarketPanel, cuts: int | Sequence[pd.Timestamp], rng: np.random.Generator) -> tuple[pd.Timestamp, ...]:
    candidates = panel.sessions[:-1]
    if len(candidates) == 0:
        raise InputError(f"a panel of {len(panel.sessions)} sessions has no future to take away", remedy="use a longer window")
    if not isinstance(cuts, int):
        wrong = [cut for cut in cuts if cut not in candidates]
        if wrong or not cuts:
            raise InputError(f"cuts {wrong} are not among the panel's sessions before the last", remedy="name at least one that is")
        return tuple(sorted(cuts))
    if cuts < 1:
        raise InputError(f"cuts={cuts} checks nothing", remedy="use at least 1")
    drawn = rng.choice(len(candidates), size=min(cuts, len(candidates)), replace=False)
    return tuple(candidates[row] for row in sorted({*drawn.tolist()[1:], len(candidates) - 1}))


def _futures(panel: MarketPanel, cut: pd.Timestamp, rng: np.random.Generator) -> Iterator[tuple[Future, MarketPanel]]:
    yield "cut", panel.upto(cut)
    later = np.asarray(panel.sessions > cut)
    yield "missing", _repainted(panel, lambda values: np.where(_down(later, values), np.nan, values))

    def absurd(values: FloatArray) -> FloatArray:
        noise = np.exp(rng.uniform(-12.0, 12.0, size=values.shape))  # six millionths to 160,000, where there was a value or none
        return np.where(_down(later, values), noise, values)

    yield "absurd", _repainted(panel, absurd)


def _down(rows: BoolArray, values: FloatArray) -> BoolArray:
    return rows.reshape(-1, *([1] * (values.ndim - 1)))


def _repainted(
    panel: MarketPanel,
    paint: Callable[[FloatArray], FloatArray],
) -> MarketPanel:
    def frame(old: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(paint(old.to_numpy(dtype=np.float64)), index=old.index, columns=old.columns)

    macro = {
        name: pd.Series(paint(series.to_numpy(dtype=np.float64)), index=series.index, name=series.name)
        for name, series in panel.macro.items()
    }
    return replace(
        panel,
        open=frame(panel.open),
        high=frame(panel.high),
        low=frame(panel.low),
        close=frame(panel.close),
        volume=frame(panel.volume),
        macro=macro,
    )


def _compare(
    name: str, truth: pd.DataFrame, other: pd.DataFrame, cut: pd.Timestamp, future: Future, tolerance: float
) -> tuple[Leak | None, int]:
    """The largest change up to the cut, and how many values were compared that are numbers in either."""
    past, again = truth.loc[:cut], other.loc[:cut]
    if not (past.index.equals(again.index) and past.columns.equals(again.columns)):
        raise DataError(
            f"{name!r} returns other sessions or symbols once the future is {future!r} after {cut:%Y-%m-%d}: "
            f"{again.shape} instead of {past.shape}",
            remedy="return one row a session and one column a symbol of the panel that is given",
        )
    was, now = past.to_numpy(dtype=np.float64), again.to_numpy(dtype=np.float64)
    number = ~(np.isnan(was) & np.isnan(now))
    with np.errstate(invalid="ignore"):
        size = np.where(was == now, 0.0, np.abs(was - now))
    size = np.where(np.isnan(size) & number, np.inf, size)
    allowed = tolerance * np.maximum(1.0, np.where(np.isnan(was), 1.0, np.abs(was)))
    leaking = number & (size > allowed)
    if not leaking.any():
        return None, int(number.sum())
    row, column = (int(place) for place in np.unravel_index(np.argmax(np.where(leaking, size, -1.0)), size.shape))
    return Leak(
        feature=name,
        symbol=str(past.columns[column]),
        session=past.index[row],
        cut=cut,
        future=future,
        true_value=float(was[row, column]),
        other_value=float(now[row, column]),
        size=float(size[row, column]),
        changed=int(leaking.sum()),
    ), int(number.sum())


def _worse(one: Leak | None, other: Leak) -> Leak:
    if one is None:
        return other
    return replace(max(one, other, key=lambda leak: leak.size), changed=one.changed + other.changed)
