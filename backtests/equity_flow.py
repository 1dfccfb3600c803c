"""The equity backtest as a flow: read the panel once, run every configuration, count each as a trial, log each as a run.

1. `_strategies` reads the configurations.
2. `_load` opens the lake snapshot and reads panel and features (`load_view`).
3. `_backtest` runs one strategy on the vectorised engine and computes its metrics.
4. `_record` writes it to the trial ledger and to MLflow (backtests/recording.py); a run that is there whole is found again.

Import it as ``backtests.equity_vectorbt.equity_backtest_flow``; this module is apart because Prefect costs two seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from backtests.equity_vectorbt import run_vectorised
from backtests.recording import record_backtest, show_backtests
from backtests.result import BacktestResult
from backtests.strategies import from_config, get_strategy
from backtests.strategy import Strategy, View
from backtests.views import load_view
from config.clock import Clock, SystemClock
from config.conventions import Convention
from config.errors import InputError
from config.orchestration import flow, some_of, step
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from risk.metrics import performance

__all__ = ["EvaluatedBacktest", "equity_backtest_flow"]


@dataclass(frozen=True, kw_only=True)
class EvaluatedBacktest:
    """A backtest with its numbers and where it was logged.

    Parameters
    ----------
    result : BacktestResult
    metrics : mapping of str to float
        As `risk.metrics.performance`.
    run_id : str
        Of the MLflow run.
    """

    result: BacktestResult
    metrics: Mapping[str, float]
    run_id: str


@flow(
    name="equity-backtest",
    description="Backtest equity strategies on the lake and log every trial",
    run_name=lambda given: _run_words(given["strategy_configs"], given["symbols"], given["experiment_name"]),
    withheld=("settings", "progress", "clock"),
)
def equity_backtest_flow(
    symbols: Sequence[str],
    strategy_configs: Sequence[Mapping[str, Any] | str | Strategy],
    experiment_name: str,
    *,
    start: date | None = None,
    end: date | None = None,
    snapshot_id: str | None = None,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
) -> list[EvaluatedBacktest]:
    """Backtest configurations over symbols of the lake.

    Parameters
    ----------
    symbols : sequence of str
        All in one account: each strategy trades them together.
    strategy_configs : sequence
        Dictionaries (``{'name': 'combo', 'momentum': {...}}``), names of shipped strategies, or Strategy objects.
    experiment_name : str
        The MLflow experiment.
    start, end : date, optional
        First and last session; they name the trial too, because choosing them is a choice.
    snapshot_id : str, optional
        The lake snapshot; by default the newest published one.
    settings : Settings, optional
    progress : Progress
    clock : Clock, optional
        When the trials were recorded.

    Returns
    -------
    list of EvaluatedBacktest
        In the order of the configurations.

    Raises
    ------
    InputError
        No symbols or configurations; a symbol with closing prices only under a convention that fills at the open.
    """
    settings = settings or load_settings()
    strategies = _strategies(strategy_configs)
    if isinstance(symbols, str) or not symbols:
        raise InputError(f"symbols = {symbols!r} is not a list of symbols", remedy="pass at least one, as in ['SP500']")
    convention = settings.trading_convention()
    view = _load(settings, snapshot_id, tuple(symbols), strategies, start, end, progress)
    window = {name: str(day) for name, day in (("start", start), ("end", end)) if day is not None}
    progress.stage("equity backtests", len(strategies))
    evaluated: list[EvaluatedBacktest] = []
    for strategy in strategies:
        result, metrics = _backtest(strategy, view, convention)
        run_id = _record(result, metrics, experiment_name, settings, window, clock or SystemClock())
        evaluated.append(EvaluatedBacktest(result=result, metrics=metrics, run_id=run_id))
        progress.advance()
    show_backtests("equity-backtest", experiment_name, [(one.result, one.metrics, one.run_id) for one in evaluated])
    return evaluated


def _run_words(configs: Sequence[Any], symbols: Sequence[str], experiment: str) -> str:
    return f"{some_of([_called(one) for one in configs])} on {some_of(symbols)} ({experiment})"


def _called(config: Mapping[str, Any] | str | Strategy) -> str:
    """The name of a configuration, for the name of a run; what is wrong with it is said later."""
    if isinstance(config, str):
        return config
    return str(config.get("name", "unnamed")) if isinstance(config, Mapping) else config.name


def _strategies(configs: Sequence[Mapping[str, Any] | str | Strategy]) -> list[Strategy]:
    if isinstance(configs, str | Mapping) or not configs:
        raise InputError(
            f"strategy_configs = {configs!r} is not a list of configurations", remedy="pass a list, as in [{'name': 'combo', ...}]"
        )
    return [_strategy(config) for config in configs]


def _strategy(config: Mapping[str, Any] | str | Strategy) -> Strategy:
    if isinstance(config, str):
        return get_strategy(config)
    return from_config(config) if isinstance(config, Mapping) else config


@step(name="load-panel", retries=2, run_name=lambda given: f"load {some_of(given['symbols'])}")
def _load(
    settings: Settings,
    snapshot_id: str | None,
    symbols: tuple[str, ...],
    strategies: Sequence[Strategy],
    start: date | None,
    end: date | None,
    progress: Progress,
) -> View:
    from lake import open_lake

    snapshot = open_lake(settings).snapshot(snapshot_id)
    return load_view(snapshot, symbols, strategies, start=start, end=end, progress=progress)


@step(name="backtest-equities", run_name=lambda given: f"backtest {given['strategy'].name}")
def _backtest(strategy: Strategy, view: View, convention: Convention) -> tuple[BacktestResult, dict[str, float]]:
    result = run_vectorised(strategy, view, convention=convention)
    return result, performance(result.equity, result.trades, result.orders, convention)


@step(name="record-trial", retries=2, run_name=lambda given: f"record {given['result'].spec.name}")
def _record(
    result: BacktestResult,
    metrics: Mapping[str, float],
    experiment_name: str,
    settings: Settings,
    window: Mapping[str, str],
    clock: Clock,
) -> str:
    return record_backtest(result, metrics, experiment_name=experiment_name, settings=settings, clock=clock, window=window)
