"""Logs backtests to MLflow: parameters, metrics with intervals, data, code and environment, tables and a picture.

1. `BacktestTracker.start_run` opens a run and ends it as FINISHED, FAILED or KILLED.
2. `log_backtest_params`, `log_backtest_metrics` and `log_portfolio_results` fill it, in batches.
3. `log_result` does all of it for one of our own results: artefacts first (`tracking.artefacts`), their digests as a tag, and
   only then the end of the run, so that a run which is FINISHED is whole and `find_run` may hand it out again.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from config.clock import Clock, SystemClock
from config.errors import InputError, did_you_mean
from config.hashing import canonical_json
from config.settings import Settings, load_settings
from tracking.artefacts import Artefact, write_artefacts
from tracking.evidence import Evidence, Finding
from tracking.fingerprint import code_fingerprint, configuration_fingerprint, environment_fingerprint
from tracking.runs import ARTEFACTS_TAG, RUN_KEY_TAG, RunRecord, as_record, find_finished_run, run_key
from tracking.store import Store, mlflow_errors, open_store

if TYPE_CHECKING:
    import pandas as pd

    from tracking.gates import Verdict

__all__ = ["BacktestTracker", "Metric", "ResultLike", "SpecLike", "create_backtest_tracker"]

# Limits of MLflow's log_batch, and of one parameter's and one tag's text.
_PARAMS_PER_BATCH, _METRICS_PER_BATCH, _TAGS_PER_BATCH = 100, 1000, 100
_PARAM_LENGTH, _TAG_LENGTH = 6000, 8000
_DATASET_DIGEST_LENGTH = 36
_FORBIDDEN = re.compile(r"[^\w\-. :/]")

Metric = float | int | tuple[float, float, float]


class SpecLike(Protocol):
    """A strategy specification, as far as it is logged; `backtests.strategy.StrategySpec` is one."""

    @property
    def name(self) -> str:
        """The strategy's name."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the document."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        ...


class ResultLike(Protocol):
    """A backtest's result, as far as it is logged; `backtests.result.BacktestResult` is one."""

    @property
    def spec(self) -> SpecLike: ...
    @property
    def engine(self) -> str: ...
    @property
    def equity(self) -> pd.Series: ...
    @property
    def orders(self) -> pd.DataFrame: ...
    @property
    def trades(self) -> pd.DataFrame: ...
    @property
    def snapshot_id(self) -> str: ...
    @property
    def data_kind(self) -> str: ...
    @property
    def orders_hash(self) -> str: ...


def create_backtest_tracker(name: str, settings: Settings | None = None, *, clock: Clock | None = None) -> BacktestTracker:
    """Open an experiment for logging.

    Parameters
    ----------
    name : str
        The experiment, made when missing.
    settings : Settings, optional
        `load_settings()` unless given.
    clock : Clock, optional
        Gives the start and end of the runs; the machine's own unless given.
    """
    settings = settings or load_settings()
    store = open_store(settings)
    return BacktestTracker(store, store.experiment(name), settings, clock or SystemClock())


class BacktestTracker:
    """Logs the runs of one experiment; made by `create_backtest_tracker`."""

    def __init__(self, store: Store, experiment_id: str, settings: Settings, clock: Clock) -> None:
        self.store = store
        self.experiment_id = experiment_id
        self._settings = settings
        self._clock = clock
        self._run: Any = None
        self._attached: dict[str, str] = {}

    @contextmanager
    def start_run(self, run_name: str | None = None, tags: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Open a run for the block: FINISHED when it ends, FAILED when it raises, KILLED when it is interrupted.

        Parameters
        ----------
        run_name : str, optional
        tags : mapping, optional

        Yields
        ------
        mlflow.entities.Run
            ``run.info.run_id`` names it.

        Raises
        ------
        InputError
            A run of this tracker is already open.
        """
        if self._run is not None:
            raise InputError(f"run {self._run.info.run_id} is still open", remedy="end its block first; runs do not nest here")
        with mlflow_errors(self.store.uri):
            self._run = self.store.client.create_run(
                self.experiment_id,
                start_time=self._now(),
                run_name=run_name,
                tags=self._fingerprints() | {_name(str(key)): str(value)[:_TAG_LENGTH] for key, value in (tags or {}).items()},
            )
        self._attached = {}
        status = "FAILED"
        try:
            yield self._run
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            run, self._run = self._run, None
            with mlflow_errors(self.store.uri):
                self.store.client.set_terminated(run.info.run_id, status, self._now())

    def log_backtest_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; nested mappings become dotted names, lists become JSON.

        Raises
        ------
        InputError
            No run is open, or a parameter was logged before with another value.
        """
        self._log(params=_flatten(params))

    def log_backtest_metrics(self, metrics: Mapping[str, Metric]) -> None:
        """Log numbers; a triple (value, low, high) becomes three metrics, ``name``, ``name_low`` and ``name_high``.

        A number that is not finite has no rank and is not stored as a metric (MLflow would keep infinity as 1.8e308, and it
        would win every comparison): it is kept as the tag ``not_finite.<name>``.
        """
        finite, odd = _split_metrics(metrics)
        self._log(metrics=finite, tags={f"not_finite.{name}": str(value) for name, value in odd.items()})

    def log_portfolio_results(self, portfolio: Any, engine: str = "vectorbt") -> dict[str, float]:
        """Log a portfolio of a backtesting library: its metrics under our conventions, its equity, orders and trades.

        Parameters
        ----------
        portfolio : vectorbt.Portfolio
            Of one column, or grouped into one.
        engine : {"vectorbt"}

        Returns
        -------
        dict
            The metrics logged, fractions and annualised by 252 sessions whatever the library's own settings.
        """
        from tracking.portfolio import portfolio_metrics, portfolio_tables

        if engine != "vectorbt":
            raise InputError(
                f"no portfolio of engine {engine!r} is understood here",
                remedy=f"{did_you_mean(engine, ['vectorbt'])}; for our own engines use log_result",
            )
        tables = portfolio_tables(portfolio)
        metrics = portfolio_metrics(tables, self._settings.trading_convention())
        self.log_backtest_metrics(metrics)
        self._log(tags={"engine": engine})
        self._attach(dict(tables))
        return metrics

    def log_result(
        self,
        result: ResultLike,
        metrics: Mapping[str, Metric],
        evidence: Evidence | None = None,
        findings: Iterable[Finding] = (),
        artefacts: Mapping[str, Artefact] | None = None,
        *,
        tags: Mapping[str, Any] | None = None,
        picture: bool = True,
    ) -> RunRecord:
        """Log one of our own backtests as one run.

        Parameters
        ----------
        result : ResultLike
        metrics : mapping of str to float or (value, low, high)
        evidence : Evidence, optional
            What the gates decide on; needed to register the run later.
        findings : iterable of Finding
            Besides those the evidence carries.
        artefacts : mapping of str to DataFrame, mapping, list, str or bytes, optional
            Further files, by name without suffix (with suffix for text and bytes).
        tags : mapping, optional
            A ``label`` also names the run, where two versions of one strategy stand side by side.
        picture : bool
            Whether to draw the equity curve (about 0.1 s).

        Returns
        -------
        RunRecord
            The finished run.
        """
        from tracking.artefacts import equity_picture

        spec = result.spec
        noted = list(dict.fromkeys([*(evidence.findings if evidence else ()), *findings]))
        files: dict[str, Artefact] = {
            "spec": spec.as_dict(),
            "equity": result.equity.rename("equity").rename_axis("session").reset_index(),
            "orders": result.orders,
            "trades": result.trades,
            "findings": [_finding(finding) for finding in noted],
            **({"evidence": evidence.as_dict()} if evidence else {}),
            **(artefacts or {}),
        }
        if picture:
            files["equity.png"] = equity_picture(result.equity, f"{spec.name} ({result.data_kind} data)")
        key = run_key(spec_digest=spec.digest, snapshot_id=result.snapshot_id, engine=result.engine, settings=self._settings)
        with self.start_run(run_name=str((tags or {}).get("label", spec.name))) as run:
            self._log_dataset(result)
            finite, odd = _split_metrics(metrics)
            self._log(
                params=_flatten({key: value for key, value in spec.as_dict().items() if key not in ("convention",)}),
                metrics=finite,
                tags=_result_tags(result, key)
                | {f"not_finite.{name}": str(value) for name, value in odd.items()}
                | {f"finding.{finding.code}": finding.severity for finding in noted}
                | {str(name): str(value) for name, value in (tags or {}).items()},
            )
            self._attach(files)
        with mlflow_errors(self.store.uri):
            return as_record(self.store.client.get_run(run.info.run_id), self.store)

    def log_verdict(self, run_id: str, verdict: Verdict) -> None:
        """Tag a run with what the gate said about it."""
        from mlflow.entities import RunTag

        tags = {
            f"verdict.{verdict.stage}": verdict.outcome,
            f"failed_checks.{verdict.stage}": ", ".join(verdict.failed_checks),
            f"waived_checks.{verdict.stage}": ", ".join(verdict.waived_checks),
        }
        with mlflow_errors(self.store.uri):
            self.store.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def run_key(self, *, spec_digest: str, snapshot_id: str, engine: str) -> str:
        """The key under which `log_result` files such a run (`tracking.runs.run_key` with this tracker's settings)."""
        return run_key(spec_digest=spec_digest, snapshot_id=snapshot_id, engine=engine, settings=self._settings)

    def find_run(self, key: str) -> RunRecord | None:
        """The newest FINISHED run with that key and all its artefacts, or None; a killed or failed run is never found."""
        return find_finished_run(self.store, self.experiment_id, key)

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def _open(self) -> Any:
        if self._run is None:
            raise InputError("no run is open", remedy="log inside `with tracker.start_run(...):`")
        return self._run

    def _log(
        self,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        run_id = self._open().info.run_id
        from mlflow.entities import Metric as MlflowMetric
        from mlflow.entities import Param, RunTag

        now = self._now()
        logged_params = [Param(_name(key), value) for key, value in (params or {}).items()]
        logged_metrics = [MlflowMetric(_name(key), value, now, 0) for key, value in (metrics or {}).items()]
        logged_tags = [RunTag(_name(key), value[:_TAG_LENGTH]) for key, value in (tags or {}).items()]
        with mlflow_errors(self.store.uri):
            while logged_params or logged_metrics or logged_tags:
                self.store.client.log_batch(
                    run_id,
                    metrics=logged_metrics[:_METRICS_PER_BATCH],
                    params=logged_params[:_PARAMS_PER_BATCH],
                    tags=logged_tags[:_TAGS_PER_BATCH],
                )
                logged_metrics = logged_metrics[_METRICS_PER_BATCH:]
                logged_params = logged_params[_PARAMS_PER_BATCH:]
                logged_tags = logged_tags[_TAGS_PER_BATCH:]

    def _log_dataset(self, result: ResultLike) -> None:
        """Name the lake snapshot as the run's input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        run_id = self._open().info.run_id
        source = json.dumps({"snapshot_id": result.snapshot_id, "data_kind": result.data_kind})
        dataset = Dataset("lake", result.snapshot_id[:_DATASET_DIGEST_LENGTH] or "none", "quantrail-lake", source)
        with mlflow_errors(self.store.uri):
            self.store.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "backtest")])])

    def _attach(self, files: Mapping[str, Artefact]) -> None:
        """Write the artefacts, hand them over, and record their digests beside those already recorded."""
        run_id = self._open().info.run_id
        with tempfile.TemporaryDirectory(prefix="quantrail-run-") as folder, mlflow_errors(self.store.uri):
            digests = write_artefacts(Path(folder), files)
            self.store.client.log_artifacts(run_id, folder)
        self._attached |= digests
        listed = canonical_json(self._attached)
        if len(listed) > _TAG_LENGTH:
            raise InputError(f"a run takes about 90 artefacts, not {len(self._attached)}", remedy="bundle small ones into tables")
        self._log(tags={ARTEFACTS_TAG: listed})

    def _fingerprints(self) -> dict[str, str]:
        code, environment = code_fingerprint(), environment_fingerprint()
        return {
            "quant.code": code.digest,
            **({"quant.commit": code.commit} if code.commit else {}),
            "quant.environment": environment.digest,
            "quant.configuration": configuration_fingerprint(self._settings),
            "quant.python": environment.python,
        }


def _result_tags(result: ResultLike, key: str) -> dict[str, str]:
    return {
        RUN_KEY_TAG: key,
        "strategy": result.spec.name,
        "spec_digest": result.spec.digest,
        "snapshot_id": result.snapshot_id,
        "engine": result.engine,
        "data_kind": result.data_kind,
        "orders_hash": result.orders_hash,
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {"code": finding.code, "severity": finding.severity, "text": finding.text, "remedy": finding.remedy}


def _name(key: str) -> str:
    """MLflow takes letters, digits and ``_ - . : /`` and space in a name."""
    return _FORBIDDEN.sub("_", key)[:250]


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else canonical_json(value) if isinstance(value, list | tuple) else str(value)
            if len(text) > _PARAM_LENGTH:
                raise InputError(
                    f"parameter {name} is {len(text)} characters long; MLflow takes {_PARAM_LENGTH}", remedy="log it as an artefact"
                )
            flat[name] = text
    return flat


def _split_metrics(metrics: Mapping[str, Metric]) -> tuple[dict[str, float], dict[str, float]]:
    finite: dict[str, float] = {}
    odd: dict[str, float] = {}
    for name, given in metrics.items():
        parts = dict(zip((name, f"{name}_low", f"{name}_high"), given, strict=True)) if isinstance(given, tuple) else {name: given}
        for part, raw in parts.items():
            try:
                value = float(raw)
            except (TypeError, ValueError) as problem:
                raise InputError(f"metric {part} is {raw!r}, not a number", remedy="log texts as tags or parameters") from problem
            (finite if math.isfinite(value) else odd)[part] = value
    return finite, odd
