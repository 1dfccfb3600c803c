"""Compares the strategies of one experiment by what their finished runs logged."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.clock import Clock, SystemClock
from config.errors import IntegrityError, UnknownNameError, did_you_mean
from config.settings import Settings, load_settings
from tracking.report import Curve, ReportData, StrategyRow, write_report
from tracking.runs import RUN_KEY_TAG, RunRecord, search_all
from tracking.store import Store, mlflow_errors, open_store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ExperimentComparator", "create_experiment_comparator"]

_LOWER_IS_BETTER = ("drawdown", "volatility", "var_", "cvar", "pbo", "spa_p", "fees", "turnover")
_BESIDE = ("sharpe", "total_return", "cagr", "max_drawdown", "volatility_ann", "trades", "dsr", "pbo")


def create_experiment_comparator(
    name: str, settings: Settings | None = None, *, clock: Clock | None = None
) -> ExperimentComparator:
    """Open an experiment for comparison.

    Raises
    ------
    UnknownNameError
        No experiment has that name.
    """
    store = open_store(settings or load_settings())
    with mlflow_errors(store.uri):
        found = store.client.get_experiment_by_name(name)
        known = [] if found else [one.name for one in store.client.search_experiments()]
    if found is None:
        raise UnknownNameError(f"no experiment is called {name!r}", remedy=did_you_mean(name, known))
    return ExperimentComparator(store, name, str(found.experiment_id), clock or SystemClock())


class ExperimentComparator:
    """Reads the finished runs of one experiment; made by `create_experiment_comparator`."""

    def __init__(self, store: Store, name: str, experiment_id: str, clock: Clock) -> None:
        self.store = store
        self.name = name
        self.experiment_id = experiment_id
        self._clock = clock

    def compare_strategies(self, metric: str = "sharpe") -> pd.DataFrame:
        """One row a computation (repeated runs of the same one: the newest), best first.

        Parameters
        ----------
        metric : str
            A logged metric. More is better, except for drawdowns, volatility, value at risk, p-values and costs.

        Returns
        -------
        DataFrame
            ``strategy``, the metric, its ``_low`` and ``_high`` where logged, the other headline numbers, ``data_kind``,
            ``verdict``, ``spec_digest``, ``run_id``. Runs without the metric come last (NaN).

        Raises
        ------
        UnknownNameError
            No run logged that metric.
        """
        import pandas as pd

        runs = self._newest()
        known = sorted({name for run in runs for name in run.metrics})
        if metric not in known:
            raise UnknownNameError(f"no run of {self.name!r} logged a metric {metric!r}", remedy=did_you_mean(metric, known))
        columns = dict.fromkeys((metric, f"{metric}_low", f"{metric}_high", *_BESIDE))
        rows = [
            {
                "strategy": _strategy(run),
                **{name: run.metrics.get(name) for name in columns if name in known},
                "data_kind": run.tags.get("data_kind", ""),
                "verdict": run.tags.get("verdict.paper", ""),
                "spec_digest": run.tags.get("spec_digest", ""),
                "run_id": run.run_id,
            }
            for run in runs
        ]
        frame = pd.DataFrame(rows)
        ascending = any(part in metric for part in _LOWER_IS_BETTER)
        return frame.sort_values([metric, "strategy"], ascending=[ascending, True], na_position="last", ignore_index=True)

    def find_best_hyperparameters(self, strategy: str, metric: str = "sharpe") -> dict[str, Any]:
        """The parameters of the strategy's best finished run, as they were logged.

        Returns
        -------
        dict
            Parameter to value (numbers as numbers). Best of what was tried, in sample: the ledger says how many were.

        Raises
        ------
        UnknownNameError
            No finished run of that strategy has the metric.
        """
        table = self.compare_strategies(metric)
        mine = table[(table["strategy"] == strategy) & table[metric].notna()]
        if mine.empty:
            raise UnknownNameError(
                f"no finished run of {strategy!r} in {self.name!r} has a metric {metric!r}",
                remedy=did_you_mean(strategy, sorted(set(table["strategy"]))),
            )
        best = next(run for run in self._newest() if run.run_id == mine["run_id"].iloc[0])
        own = {name.removeprefix("params."): value for name, value in best.params.items() if name.startswith("params.")}
        return {name: _value(value) for name, value in (own or dict(best.params)).items()}

    def generate_performance_report(self, path: str | Path, metric: str = "sharpe") -> Path:
        """Write one self-contained HTML file: the table, and the equity curves that were logged.

        Returns
        -------
        Path
            The file.
        """
        table = self.compare_strategies(metric)
        runs = {run.run_id: run for run in self._newest()}
        ordered = [runs[run_id] for run_id in table["run_id"]]
        data = ReportData(
            title=f"Experiment {self.name}",
            subtitle=f"{len(ordered)} finished runs, ordered by {metric}.",
            made_at=self._clock.now().astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            strategies=tuple(_row(run) for run in ordered),
            curves=tuple(curve for run in ordered[:12] if (curve := _curve(run)) is not None),
            notes=(f"Tracking store: {self.store.shown}",),
        )
        return write_report(data, Path(path))

    def _newest(self) -> list[RunRecord]:
        """The newest finished run of each computation; runs without a key stand for themselves."""
        seen: dict[str, RunRecord] = {}
        for run in search_all(self.store, self.experiment_id):
            seen.setdefault(run.tags.get(RUN_KEY_TAG, run.run_id), run)
        return list(seen.values())


def _strategy(run: RunRecord) -> str:
    return run.tags.get("strategy") or run.name


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _row(run: RunRecord) -> StrategyRow:
    get = run.metrics.get
    low, high = get("sharpe_low"), get("sharpe_high")
    return StrategyRow(
        name=_strategy(run),
        data_kind=run.tags.get("data_kind", ""),
        verdict=run.tags.get("verdict.paper", ""),
        total_return=get("total_return"),
        cagr=get("cagr"),
        volatility_ann=get("volatility_ann"),
        sharpe=get("sharpe"),
        sharpe_interval=(low, high) if low is not None and high is not None else None,
        max_drawdown=get("max_drawdown"),
        trades=int(get("trades", 0.0)) if "trades" in run.metrics else None,
        dsr=get("dsr"),
        pbo=get("pbo"),
        failed_checks=tuple(name for name in run.tags.get("failed_checks.paper", "").split(", ") if name),
    )


def _curve(run: RunRecord) -> Curve | None:
    """The run's equity, or None where it logged none or its file is gone."""
    if "equity.parquet" not in run.artefacts:
        return None
    try:
        table = run.table("equity")
    except IntegrityError:
        return None
    days = tuple(moment.strftime("%Y-%m-%d") for moment in table["session"])
    return Curve(
        name=_strategy(run), days=days, values=tuple(float(v) for v in table["equity"]), data_kind=run.tags.get("data_kind", "")
    )
