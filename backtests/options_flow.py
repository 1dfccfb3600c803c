"""The options backtest as a flow: read chain and bars once, run every strategy, count each as a trial, log each as a run.

1. `_load` reads the newest lake snapshot, or a named one (`read_option_inputs`).
2. `_backtest` runs one strategy and computes its metrics.
3. `_record` writes it to the trial ledger and to MLflow (backtests/recording.py); a run that is already there whole is found
   again, not doubled.

Import it as ``backtests.options_bt.options_backtest_flow``; this module is apart because Prefect costs two seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from backtests.options.inputs import OptionInputs, read_option_inputs
from backtests.options.reports import OptionsResult
from backtests.options.rules import OptionStrategy, make_strategy
from backtests.options_bt import run_options, specify
from backtests.recording import record_backtest, show_backtests
from config.clock import Clock, SystemClock
from config.conventions import Convention
from config.errors import InputError
from config.orchestration import flow, some_of, step
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from risk.metrics import performance

__all__ = ["INDEX_CASH", "EvaluatedOptions", "options_backtest_flow"]

INDEX_CASH = 1_000_000.0


@dataclass(frozen=True, kw_only=True)
class EvaluatedOptions:
    """An options backtest with its numbers and where it was logged.

    Parameters
    ----------
    result : OptionsResult
    metrics : mapping of str to float
        As `risk.metrics.performance`, and the counts of option marks by kind.
    run_id : str
        Of the MLflow run.
    """

    result: OptionsResult
    metrics: Mapping[str, float]
    run_id: str


@flow(
    name="options-backtest",
    description="Backtest options strategies on the lake's chains and log every trial",
    run_name=lambda given: _run_words(given["strategies"], given["symbols"], given["experiment_name"]),
    withheld=("settings", "progress", "clock"),
)
def options_backtest_flow(
    symbols: Sequence[str],
    strategies: Sequence[Mapping[str, Any] | str | OptionStrategy],
    experiment_name: str,
    *,
    start: date | None = None,
    end: date | None = None,
    snapshot_id: str | None = None,
    initial_cash: float | None = None,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
) -> list[EvaluatedOptions]:
    """Backtest options strategies over underlyings of the lake, each pair in an account of its own.

    Parameters
    ----------
    symbols : sequence of str
        Underlyings with a chain in the lake.
    strategies : sequence
        Dictionaries (``{'name': 'CoveredCallsStrategy', 'params': {...}}``), names, or strategy objects.
    experiment_name : str
        The MLflow experiment.
    start, end : date, optional
        First and last session; by default those of the chain. They name the trial too, because choosing them is a choice.
    snapshot_id : str, optional
        The lake snapshot; by default the newest published one.
    initial_cash : float, optional
        Contracts are whole and cover 100 shares, which at an index of 2,000 is 200,000. So the account starts with the
        convention's cash or 1,000,000, whichever is more, unless this says otherwise; the specification records it, and
        `progress` is told.
    settings : Settings, optional
    progress : Progress
    clock : Clock, optional
        When the trials were recorded.

    Returns
    -------
    list of EvaluatedOptions
        By symbol, then in the order of the strategies.

    Raises
    ------
    InputError
        No symbols or strategies, parameters out of range, or too little cash for one contract.
    UnknownNameError
        A strategy or a symbol's chain is not known.
    """
    settings = settings or load_settings()
    chosen = _strategies(strategies)
    if isinstance(symbols, str) or not symbols:
        raise InputError(f"symbols = {symbols!r} is not a list of symbols", remedy="pass at least one, as in ['SP500']")
    convention = _convention(settings, initial_cash, progress)
    window = {name: str(day) for name, day in (("start", start), ("end", end)) if day is not None}
    evaluated: list[EvaluatedOptions] = []
    for symbol in symbols:
        inputs = _load(settings, snapshot_id, symbol, start, end, progress)
        for strategy in chosen:
            result, metrics = _backtest(strategy, symbol, inputs, convention, progress)
            run_id = _record(result, metrics, experiment_name, settings, window, clock or SystemClock())
            evaluated.append(EvaluatedOptions(result=result, metrics=metrics, run_id=run_id))
    show_backtests("options-backtest", experiment_name, [(one.result, one.metrics, one.run_id) for one in evaluated])
    return evaluated


def _run_words(configs: Sequence[Any], symbols: Sequence[str], experiment: str) -> str:
    return f"{some_of([_called(one) for one in configs])} on {some_of(symbols)} ({experiment})"


def _called(config: Mapping[str, Any] | str | OptionStrategy) -> str:
    """The name of a configuration, for the name of a run; what is wrong with it is said later."""
    if isinstance(config, str):
        return config
    return str(config.get("name", "unnamed")) if isinstance(config, Mapping) else config.name


def _strategies(given: Sequence[Mapping[str, Any] | str | OptionStrategy]) -> list[OptionStrategy]:
    if isinstance(given, str | Mapping) or not given:
        raise InputError(
            f"strategies = {given!r} is not a list of strategies", remedy="pass a list, as in [{'name': 'CoveredCallsStrategy'}]"
        )
    return [_strategy(one) for one in given]


def _strategy(given: Mapping[str, Any] | str | OptionStrategy) -> OptionStrategy:
    if isinstance(given, str):
        return make_strategy(given)
    if not isinstance(given, Mapping):
        return given
    unknown = set(given) - {"name", "params"}
    if unknown or "name" not in given:
        raise InputError(
            f"an options strategy is a mapping with name and params, not {dict(given)!r}",
            remedy="write {'name': 'CoveredCallsStrategy', 'params': {...}}",
        )
    return make_strategy(str(given["name"]), given.get("params"))


def _convention(settings: Settings, initial_cash: float | None, progress: Progress) -> Convention:
    convention = settings.trading_convention()
    cash = max(convention.initial_cash, INDEX_CASH) if initial_cash is None else initial_cash
    if cash != convention.initial_cash:
        progress.note(f"options account starts with {cash:,.0f} instead of {convention.initial_cash:,.0f}: contracts are whole")
    return replace(convention, initial_cash=cash)


@step(name="load-option-chain", retries=2, run_name=lambda given: f"load options on {given['symbol']}")
def _load(
    settings: Settings, snapshot_id: str | None, symbol: str, start: date | None, end: date | None, progress: Progress
) -> OptionInputs:
    from lake import open_lake

    snapshot = open_lake(settings).snapshot(snapshot_id)
    return read_option_inputs(snapshot, symbol, start=start, end=end, sources=settings.data.options, progress=progress)


@step(name="backtest-options", run_name=lambda given: f"backtest {given['strategy'].name} on {given['symbol']}")
def _backtest(
    strategy: OptionStrategy, symbol: str, inputs: OptionInputs, convention: Convention, progress: Progress
) -> tuple[OptionsResult, dict[str, float]]:
    result = run_options(
        specify(strategy, symbol, convention),
        inputs.chain,
        inputs.bars,
        risk_level=inputs.risk_level,
        snapshot_id=inputs.snapshot_id,
        progress=progress,
    )
    metrics = performance(result.equity, result.trades, result.orders, convention)
    return result, {**metrics, **{f"marks_{kind}": float(count) for kind, count in result.mark_kinds.items()}}


@step(name="record-options-trial", retries=2, run_name=lambda given: f"record {given['result'].spec.name}")
def _record(
    result: OptionsResult,
    metrics: Mapping[str, float],
    experiment_name: str,
    settings: Settings,
    window: Mapping[str, str],
    clock: Clock,
) -> str:
    return record_backtest(
        result,
        metrics,
        experiment_name=experiment_name,
        settings=settings,
        clock=clock,
        window=window,
        artefacts={
            "positions": result.positions,
            "events": result.events,
            "cash_flows": result.cash_flows,
            "notes": list(result.notes),
        },
    )
