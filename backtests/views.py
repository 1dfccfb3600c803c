"""Views for strategies: the panel they trade on and the features they declare, read from a lake snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from backtests.strategy import Strategy, View
from config.progress import SILENT, Progress
from features.catalogue import get_features
from features.engine import compute
from features.panel import MarketPanel

if TYPE_CHECKING:
    from lake.snapshot import Snapshot

__all__ = ["load_view", "view_of"]


def view_of(panel: MarketPanel, strategies: Iterable[Strategy]) -> View:
    """The panel with every feature that one of the strategies declares; a macro series the panel lacks leaves NaN."""
    names = tuple(dict.fromkeys(name for strategy in strategies for name in strategy.features))
    return View(panel=panel, features=compute(panel, names) if names else {})


def load_view(
    snapshot: Snapshot,
    symbols: Sequence[str],
    strategies: Sequence[Strategy],
    *,
    start: date | None = None,
    end: date | None = None,
    as_of: datetime | None = None,
    progress: Progress = SILENT,
) -> View:
    """Read what these strategies need from a lake snapshot.

    Parameters
    ----------
    snapshot : Snapshot
    symbols : sequence of str
    strategies : sequence of Strategy
        Macro series they declare themselves must be in the lake. Series that only a feature asks for may be missing: the
        feature says what it does then, and `progress` is told.
    start, end, as_of
        As `features.load_panel`.

    Raises
    ------
    UnknownNameError
        A symbol, or a macro series that a strategy declares, is not in the snapshot.
    """
    from features.macro import parse_series
    from features.point_in_time import load_panel

    wanted = tuple(dict.fromkeys(name for strategy in strategies for name in strategy.features))
    declared = tuple(dict.fromkeys(series for strategy in strategies for series in strategy.macro))
    asked = tuple(dict.fromkeys(series for feature in get_features(wanted) for series in feature.macro))
    held: set[str] = set()
    if asked and snapshot.pinned("macro_observations") is not None:
        held = set(snapshot.read("macro_observations", columns=["series"])["series"].unique().to_pylist())
    optional = tuple(series for series in asked if parse_series(series).series in held)
    absent = [series for series in asked if series not in optional and series not in declared]
    if absent:
        progress.note(f"the lake does not hold {', '.join(absent)}: features that use them do without")
    macro = tuple(dict.fromkeys((*declared, *optional)))
    panel = load_panel(snapshot, list(symbols), start=start, end=end, as_of=as_of, macro=macro)
    return view_of(panel, strategies)
