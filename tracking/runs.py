"""Finished runs, read back: their numbers, and their artefacts checked against the digests logged with them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from config.errors import IntegrityError, UnknownNameError, did_you_mean
from config.hashing import digest, sha256_bytes, sha256_file
from config.settings import Settings
from tracking.fingerprint import code_fingerprint
from tracking.store import Store, mlflow_errors

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ARTEFACTS_TAG", "RUN_KEY_TAG", "RunRecord", "as_record", "find_finished_run", "read_run", "run_key", "search_all"]

RUN_KEY_TAG = "quant.run_key"
ARTEFACTS_TAG = "quant.artefacts"

logger = logging.getLogger("quantrail.tracking")


def run_key(*, spec_digest: str, snapshot_id: str, engine: str, settings: Settings) -> str:
    """Name a computation: the same specification on the same data by the same code, engine and evidence settings.

    Returns
    -------
    str
        SHA-256, 64 hex digits. A finished run that carries it need not be computed again.
    """
    return digest(
        {
            "spec": spec_digest,
            "snapshot": snapshot_id,
            "engine": engine,
            "code": code_fingerprint().digest,
            "evidence": settings.evidence.model_dump(),
        }
    )


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One finished run.

    Parameters
    ----------
    run_id, name, experiment_id : str
    params, tags : mapping of str to str
    metrics : mapping of str to float
    artifact_uri : str
    artefacts : mapping of str to str
        File name to SHA-256, as logged.
    """

    run_id: str
    name: str
    experiment_id: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    artifact_uri: str
    artefacts: Mapping[str, str] = field(default_factory=dict)
    store: Store = field(repr=False, compare=False)

    def path(self, name: str) -> Path:
        """The local file of an artefact, fetched from the server where it is not local, checked against its digest.

        Raises
        ------
        UnknownNameError
            The run logged no artefact of that name.
        IntegrityError
            Its bytes are missing or not the ones logged.
        """
        if name not in self.artefacts:
            raise UnknownNameError(f"run {self.run_id} has no artefact {name!r}", remedy=did_you_mean(name, list(self.artefacts)))
        folder = _local_folder(self.artifact_uri)
        if folder is None:
            with mlflow_errors(self.store.uri):
                path = Path(self.store.client.download_artifacts(self.run_id, name))
        else:
            path = folder / name
        if not path.is_file() or sha256_file(path) != self.artefacts[name]:
            raise IntegrityError(
                f"artefact {name} of run {self.run_id} ({path}) is missing or changed since it was logged",
                remedy="run the backtest again",
            )
        return path

    def table(self, name: str) -> pd.DataFrame:
        """A Parquet artefact (``equity``, ``orders``, ``trades``, …) as a DataFrame."""
        import pandas as pd

        return pd.read_parquet(self.path(f"{name}.parquet"))

    def document(self, name: str) -> Any:
        """A JSON artefact (``spec``, ``evidence``, ``findings``, …) as plain values."""
        path = self.path(f"{name}.json")
        content = path.read_bytes()
        if sha256_bytes(content) != self.artefacts[f"{name}.json"]:  # changed between the check and the read
            raise IntegrityError(f"artefact {path} changed while it was read", remedy="run the backtest again")
        return json.loads(content)

    def is_whole(self) -> bool:
        """Whether every artefact logged is there with its own bytes."""
        try:
            for name in self.artefacts:
                self.path(name)
        except IntegrityError:
            return False
        return True


def as_record(run: Any, store: Store) -> RunRecord:
    """An MLflow run as a `RunRecord`."""
    tags = dict(run.data.tags)
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        experiment_id=run.info.experiment_id,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=tags,
        artifact_uri=run.info.artifact_uri,
        artefacts=json.loads(tags.get(ARTEFACTS_TAG, "{}")),
        store=store,
    )


def read_run(store: Store, run_id: str) -> RunRecord | None:
    """The run of that id, or None when the store has none."""
    from mlflow.exceptions import MlflowException

    with mlflow_errors(store.uri):
        try:
            return as_record(store.client.get_run(run_id), store)
        except MlflowException as problem:
            if problem.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def find_finished_run(store: Store, experiment_id: str, key: str) -> RunRecord | None:
    """The newest finished run with that key whose artefacts are all there, or None.

    A run that was killed is left RUNNING by MLflow and one that raised is FAILED: neither is found.
    """
    condition = f"tags.`{RUN_KEY_TAG}` = '{key}' and attributes.status = 'FINISHED'"
    with mlflow_errors(store.uri):
        runs = store.client.search_runs([experiment_id], condition, max_results=20, order_by=["attributes.start_time DESC"])
    for run in runs:
        record = as_record(run, store)
        if record.is_whole():
            return record
        logger.warning("run %s is finished, but artefacts are missing or changed: it is not used again", record.run_id)
    return None


def search_all(store: Store, experiment_id: str, condition: str = "") -> list[RunRecord]:
    """Every finished run of an experiment that meets `condition`, newest first."""
    finished = "attributes.status = 'FINISHED'"
    full = f"{finished} and {condition}" if condition else finished
    records: list[RunRecord] = []
    token: str | None = None
    while True:
        with mlflow_errors(store.uri):
            page = store.client.search_runs(
                [experiment_id], full, max_results=1000, order_by=["attributes.start_time DESC"], page_token=token
            )
        records.extend(as_record(run, store) for run in page)
        token = page.token
        if not token:
            return records


def _local_folder(artifact_uri: str) -> Path | None:
    parsed = urlparse(artifact_uri)
    if parsed.scheme in ("", "file"):
        return Path(unquote(parsed.path))
    return None
