"""Options backtests on backtrader: covered calls and protective puts over a chain of real or modelled quotes.

1. `make_strategy` checks a strategy's name and parameters; `specify` writes the document that names its version.
2. `read_option_inputs` reads chain, bars and risk level of a lake snapshot.
3. `run_options` runs the specification (backtests/options/engine.py).
4. `options_backtest_flow` does all of it and records trial and run (backtests/options_flow.py).

The clock: a session's chain is known at its snapshot (a quarter of an hour after the close); decisions on it are filled at
the next session's snapshot, options at the bid or the ask, shares by the convention.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pandas as pd

from backtests.options.rules import (
    OPTION_STRATEGIES,
    CoveredCallsStrategy,
    OptionStrategy,
    ProtectivePutsStrategy,
    make_strategy,
)
from backtests.strategy import StrategySpec
from config.conventions import Convention
from config.errors import InputError
from config.progress import SILENT, Progress

if TYPE_CHECKING:
    from backtests.options.chain import ChainBook
    from backtests.options.inputs import read_option_inputs
    from backtests.options.reports import OptionsResult
    from backtests.options_flow import options_backtest_flow

__all__ = [
    "OPTION_STRATEGIES",
    "CoveredCallsStrategy",
    "OptionStrategy",
    "ProtectivePutsStrategy",
    "make_strategy",
    "options_backtest_flow",
    "read_option_inputs",
    "run_options",
    "specify",
]

# Imported when asked for: Prefect costs two seconds, backtrader and the lake most of one.
_HOMES = {"options_backtest_flow": "backtests.options_flow", "read_option_inputs": "backtests.options.inputs"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def specify(strategy: OptionStrategy, symbol: str, convention: Convention) -> StrategySpec:
    """The document that names this version of an options strategy on one underlying."""
    return StrategySpec(
        name=strategy.name,
        family=strategy.family,
        params=strategy.params,
        symbols=(symbol,),
        convention=convention,
        kind="option_legs",
    )


def run_options(
    spec: StrategySpec,
    chain: ChainBook,
    bars: pd.DataFrame,
    *,
    risk_level: pd.Series | None = None,
    snapshot_id: str = "",
    progress: Progress = SILENT,
) -> OptionsResult:
    """Run one options strategy.

    Parameters
    ----------
    spec : StrategySpec
        Of kind ``option_legs``; `specify` makes it.
    chain : ChainBook
        Quotes on the specification's one symbol.
    bars : DataFrame of shape (n_sessions, 2)
        `open` and `close` of the underlying; index `session` (naive midnights). Sessions without a chain are run too: what is
        held keeps its last mark, never below intrinsic value.
    risk_level : Series of shape (n_sessions,), optional
        The feature `risk_level`, known at each close. Without it `risk_regime_max` is not applied, and the result's notes say
        so.
    snapshot_id : str
        The lake snapshot that chain and bars were read from.

    Returns
    -------
    OptionsResult
        With engine ``options`` and the chain's `data_kind`.

    Raises
    ------
    InputError
        The specification is of another kind or symbol, bars or chain do not fit, or the cash is too little for one whole
        contract of 100.
    OrderRefused
        A call would be sold without shares behind it.
    IntegrityError
        The books do not balance to 1e-6 at some session.
    """
    from backtests.options.engine import simulate
    from backtests.options.reports import build_result

    if spec.kind != "option_legs":
        raise InputError(f"{spec.name} is a strategy of {spec.kind}, not of option legs", remedy="run it with the equity engines")
    if spec.symbols != (chain.underlying,):
        raise InputError(f"{spec.name} is specified for {', '.join(spec.symbols)}, the chain is on {chain.underlying}")
    strategy = make_strategy(spec.name, spec.params)
    books = simulate(strategy, chain, bars, spec.convention, risk_level=risk_level, progress=progress)
    return build_result(spec, books, snapshot_id=snapshot_id, notes=_notes(strategy, chain, bars, risk_level))


def _notes(strategy: OptionStrategy, chain: ChainBook, bars: pd.DataFrame, risk_level: pd.Series | None) -> tuple[str, ...]:
    notes = []
    if chain.data_kind == "modelled":
        notes.append("the option chain is modelled: fills, marks and Greeks are a model's, not a market's")
    without = int((~bars.index.isin(list(chain.slices))).sum())
    if without:
        notes.append(f"{without} of {len(bars)} sessions have no chain: nothing is decided on them, positions keep their last mark")
    if strategy.overlay().risk_regime_max is not None and risk_level is None:
        notes.append("no risk level was given: risk_regime_max was not applied")
    notes.append("dividends on the shares are not credited")
    return tuple(notes)
