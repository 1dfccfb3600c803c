"""Search over a grid of parameters: every valid combination backtested, one row and one column of returns each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtests.equity_vectorbt import run_many
from backtests.strategies import get_strategy
from backtests.strategy import Strategy, StrategySpec, View
from config.conventions import REFERENCE, Convention
from config.errors import ConfigError, InputError
from config.progress import SILENT, Progress
from risk.metrics import max_drawdown, sharpe

__all__ = ["SearchResult", "grid_strategies", "run_search"]


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Parameters
    ----------
    name : str
        The strategy.
    strategies : tuple of Strategy
        Every configuration that was run, in the order of the grid (its last key fastest).
    table : DataFrame of shape (n_configurations, n_keys + 6)
        The grid's parameters, `final_equity` (account currency), `total_return`, `sharpe` (annualised), `max_drawdown`
        (positive fractions), `trades` (closed round trips), `orders` (fills).
    returns : DataFrame of shape (n_sessions - 1, n_configurations)
        Simple session returns, float64; column i is row i of the table.
    skipped : int
        Combinations that make no configuration (fast not below slow); they are no trials.
    skipped_because : str or None
        The first one's reason.
    """

    name: str
    symbols: tuple[str, ...]
    convention: Convention
    strategies: tuple[Strategy, ...]
    table: pd.DataFrame
    returns: pd.DataFrame
    skipped: int
    skipped_because: str | None

    @property
    def best_row(self) -> int:
        """The row of the highest Sharpe ratio; of equal ones the first.

        Raises
        ------
        InputError
            No configuration has one.
        """
        ratios = self.table["sharpe"].to_numpy()
        if np.isnan(ratios).all():
            raise InputError(f"no configuration of {self.name} has a Sharpe ratio", remedy="use more sessions, or another grid")
        return int(np.nanargmax(ratios))

    @property
    def best(self) -> Strategy:
        """The configuration of `best_row`: the luckiest of `len(table)` trials, until the evidence says more."""
        return self.strategies[self.best_row]

    def spec(self, row: int) -> StrategySpec:
        """The specification of one row, as the trial ledger names it."""
        strategy = self.strategies[row]
        return StrategySpec(
            name=strategy.name, family=strategy.family, params=strategy.params, symbols=self.symbols, convention=self.convention
        )


def grid_strategies(name: str, grid: Mapping[str, Sequence[Any]]) -> tuple[list[Strategy], list[dict[str, Any]], list[str]]:
    """The configurations of a grid, the grid's values of each, and why the other combinations make none.

    Parameters
    ----------
    name : str
        A shipped strategy; parameters outside the grid take their defaults.
    grid : mapping of str to sequence
        Values by parameter; a dotted name reaches into a part (``momentum.sma_crossover.fast``).

    Raises
    ------
    UnknownNameError
        No such strategy.
    InputError
        An empty grid or axis.
    ConfigError
        No combination makes a configuration (an unknown parameter, for one).
    """
    empty = [key for key, values in grid.items() if isinstance(values, str) or len(values) == 0]
    if not grid or empty:
        raise InputError(
            f"the grid for {name} has no values for {', '.join(empty) or 'any parameter'}", remedy="give at least one each"
        )
    strategies: list[Strategy] = []
    kept: list[dict[str, Any]] = []
    reasons: list[str] = []
    for values in itertools.product(*grid.values()):
        point = {key: value.item() if hasattr(value, "item") else value for key, value in zip(grid, values, strict=True)}
        try:
            strategies.append(get_strategy(name, _nest(point)))
        except ConfigError as problem:
            reasons.append(str(problem))
            continue
        kept.append(point)
    if not strategies:
        raise ConfigError(f"no combination of the grid is a configuration of {name}; the first: {reasons[0]}")
    return strategies, kept, reasons


def run_search(
    name: str,
    grid: Mapping[str, Sequence[Any]],
    view: View,
    convention: Convention = REFERENCE,
    *,
    limit: int = 20_000,
    progress: Progress = SILENT,
) -> SearchResult:
    """Backtest every valid combination of a grid on the vectorised engine.

    Parameters
    ----------
    name, grid
        As `grid_strategies`.
    view : View
        With the features the strategy declares.
    convention : Convention
    limit : int
        More combinations than this are refused: their returns (8 bytes × sessions each) are kept in memory.

    Returns
    -------
    SearchResult
        Nothing is recorded here; hand it to the trial ledger, or its best result will be believed.

    Raises
    ------
    InputError
        More than `limit` combinations, or as `grid_strategies` and `run_many`.
    """
    combinations = int(np.prod([len(values) for values in grid.values()], dtype=np.int64)) if grid else 0
    if combinations > limit:
        raise InputError(
            f"the grid for {name} has {combinations:,} combinations, more than the limit of {limit:,}",
            remedy="coarsen the grid, or raise the limit",
        )
    strategies, points, reasons = grid_strategies(name, grid)
    many = run_many(strategies, view, convention=convention, progress=progress)
    returns = many.returns
    tracks = np.ascontiguousarray(returns.to_numpy().T)
    final = many.equity.to_numpy()[-1]
    table = pd.DataFrame(points).assign(
        final_equity=final,
        total_return=final / many.equity.to_numpy()[0] - 1.0,
        sharpe=sharpe(tracks, convention.sessions_per_year, convention.risk_free_ann),
        max_drawdown=max_drawdown(tracks),
        trades=many.trades,
        orders=many.orders,
    )
    return SearchResult(
        name=name,
        symbols=view.symbols,
        convention=convention,
        strategies=tuple(strategies),
        table=table,
        returns=returns,
        skipped=len(reasons),
        skipped_because=reasons[0] if reasons else None,
    )


def _nest(point: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in point.items():
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested
