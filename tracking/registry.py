"""The model registry: strategy versions as JSON specifications, and aliases that move only through the gate.

1. `ModelRegistry.register` writes specification, evidence and verdict beside the run and makes an MLflow model version of them.
2. `promote` checks that the verdict is about that version, judges the *recorded* evidence again (`judge`), writes the move to
   the history, makes it, and writes that it is made (`_move`).
3. `get` compares MLflow's alias with the history, finishes a move that was cut short, refuses one made elsewhere, and hands out
   the specification only if its bytes have the SHA-256 that was registered.

MLflow's aliases keep no history and anyone may move them, so the history beside the store is the authority.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from config.clock import Clock, SystemClock
from config.errors import ConfigError, GateRefused, InputError, IntegrityError, UnknownNameError, did_you_mean
from config.hashing import digest, sha256_bytes
from config.locks import exclusive
from config.settings import Settings, load_settings
from tracking.artefacts import plain_json
from tracking.evidence import Evidence, Finding
from tracking.gates import Gates, PaperRecord, Stage, Verdict, evaluate, load_gates
from tracking.history import Entry, History
from tracking.runs import as_record, read_run, search_all
from tracking.store import Store, mlflow_errors, open_store

__all__ = ["ALIASES", "ModelRegistry", "RegisteredStrategy", "create_model_registry", "evidence_from_dict"]

ALIASES = ("candidate", "paper", "live", "previous_live")
_STAGES = {"none": "candidate", "staging": "paper", "production": "live", "archived": None}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.\-]{0,99}")
_SPEC_TAG, _EVIDENCE_TAG, _OUTCOME_TAG, _KIND_TAG = "spec_sha256", "evidence_sha256", "outcome", "data_kind"

logger = logging.getLogger("quantrail.tracking")


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredStrategy:
    """A version an alias points at.

    Parameters
    ----------
    model, alias, version : str
    spec : mapping
        The specification, verified.
    digest : str
        SHA-256 of the specification's canonical JSON.
    run_id : str
        The MLflow run whose evidence earned it.
    outcome : {"promoted", "baseline", "refused"}
        ``baseline``: it stands in as the benchmark; nothing deserved promotion.
    """

    model: str
    alias: str
    version: str
    spec: Mapping[str, Any]
    digest: str
    run_id: str
    outcome: str


def create_model_registry(
    settings: Settings | None = None, *, gates: Gates | None = None, clock: Clock | None = None
) -> ModelRegistry:
    """Open the registry of the tracking store that the settings name."""
    settings = settings or load_settings()
    return ModelRegistry(open_store(settings), settings, gates or load_gates(), clock or SystemClock())


class ModelRegistry:
    """Strategy versions and their aliases; made by `create_model_registry`."""

    def __init__(self, store: Store, settings: Settings, gates: Gates, clock: Clock) -> None:
        self.store = store
        self._client = store.client
        self._gates = gates
        self._clock = clock
        self._history = History(_history_file(store.uri, settings))
        self._lock = settings.home_path / "locks" / "registry.lock"

    def register(
        self, spec: Mapping[str, Any], run_id: str, evidence: Evidence | None, verdict: Verdict | None, *, who: str = "quant"
    ) -> str:
        """Make a version of a specification; the same specification, run and evidence give the same version again.

        Parameters
        ----------
        spec : mapping
            The strategy's specification (`StrategySpec.as_dict()`); its ``name`` names the model.
        run_id : str
            The MLflow run that evaluated it.
        evidence : Evidence or None
            None: the version can never be promoted.
        verdict : Verdict or None
            Kept for the record; a promotion judges the evidence again.

        Returns
        -------
        str
            The version number. The alias `candidate` points at it.

        Raises
        ------
        InputError
            The name is not one MLflow takes, evidence or verdict belong to another specification, or the run logged other evidence.
        """
        model, spec_digest = _model_name(spec), digest(dict(spec))
        for what, about in (("evidence", evidence), ("verdict", verdict)):
            if about is not None and about.spec_digest != spec_digest:
                raise InputError(
                    f"the {what} is about specification {about.spec_digest[:12]}, not {spec_digest[:12]} ({model})",
                    remedy="register a specification with its own evidence",
                )
        evidence_text = plain_json(evidence.as_dict()) if evidence else ""
        self._require_logged(run_id, evidence_text)
        tags = {
            _SPEC_TAG: spec_digest,
            _EVIDENCE_TAG: sha256_bytes(evidence_text.encode()),
            _OUTCOME_TAG: verdict.outcome if verdict else "not judged",
            _KIND_TAG: evidence.data_kind if evidence else "unknown",
        }
        with exclusive(self._lock, "a change of the registry", wait_seconds=60.0):
            version = self._find_version(model, run_id, tags)
            if version is None:
                version = self._unrecorded(model, run_id, tags)
                version = version or self._make_version(model, spec, run_id, evidence_text, verdict, tags)
                details = {**tags, "run_id": run_id}
                self._append(who, model, "registered", version, details=details)
            if self._holder(model, "candidate") != version:
                self._move(model, version, "candidate", who, tags)
        return version

    def _require_logged(self, run_id: str, evidence_text: str) -> None:
        """Where the run logged evidence itself, a version of it is registered with that and no other."""
        run = read_run(self.store, run_id) if evidence_text else None
        if run is None or "evidence.json" not in run.artefacts:
            return
        logged = run.document("evidence")
        different = sorted(name for name, value in json.loads(evidence_text).items() if logged.get(name) != value)
        if different:
            raise InputError(
                f"the evidence given for run {run_id} is not the one it logged: {', '.join(different)}",
                remedy="register the run's own evidence; new evidence is a new run",
            )

    def promote(
        self,
        model_name: str,
        version: str | int,
        alias: str,
        verdict: Verdict,
        who: str,
        clock: Clock | None = None,
        *,
        paper: PaperRecord | None = None,
    ) -> RegisteredStrategy:
        """Point `paper` or `live` at a version whose recorded evidence passes that gate.

        Parameters
        ----------
        verdict : Verdict
            Of this version and stage. It is not taken on trust: the evidence recorded at registration is judged again.
        who : str
            Who asks; goes into the history.
        paper : PaperRecord, optional
            For `live`: what the version did on paper. Whether it held the alias is read from the history, not from here.

        Raises
        ------
        GateRefused
            The verdict is of another version or stage, a check fails, a baseline where something was promoted, or `live`
            without `paper` before.
        """
        if alias not in ("paper", "live"):
            raise InputError(f"no promotion leads to the alias {alias!r}", remedy=did_you_mean(alias, ["paper", "live"]))
        if not who.strip():
            raise InputError("a promotion needs a name: who asks for it", remedy="say so: --who NAME (who='NAME' in Python)")
        stage: Stage = "paper" if alias == "paper" else "live"
        model, number, clock = model_name, str(version), clock or self._clock
        with exclusive(self._lock, "a change of the registry", wait_seconds=60.0):
            tags = self._version_tags(model, number)
            if verdict.spec_digest != tags[_SPEC_TAG] or verdict.stage != stage:
                raise GateRefused(
                    f"the verdict given is about {verdict.spec_digest[:12]} for {verdict.stage}; {model} version {number} is "
                    f"{tags[_SPEC_TAG][:12]} and {stage} was asked for",
                    remedy="evaluate the evidence of this version for this stage",
                )
            judged = self.judge(model, number, stage, paper=paper, clock=clock)
            self._require(judged, verdict, model, number, alias)
            details = {**tags, _OUTCOME_TAG: judged.outcome, "verdict": judged.as_dict()}
            if alias == "live" and (holder := self._holder(model, "live")) and holder != number:
                self._move(model, holder, "previous_live", who, {"reason": f"version {number} goes live"}, clock)
            self._move(model, number, alias, who, details, clock)
            with mlflow_errors(self.store.uri):
                self._client.set_model_version_tag(model, number, _OUTCOME_TAG, judged.outcome)
            if alias == "paper" and judged.outcome == "promoted":
                self._retire_baselines(who, f"{model} version {number} was promoted", clock)
        return self.get(model, alias)

    def get(self, model: str, alias: str) -> RegisteredStrategy:
        """The version an alias points at, verified.

        Raises
        ------
        UnknownNameError
            No such model, or the alias points at nothing. (Halt on this; it is not an instruction to go flat.)
        IntegrityError
            The alias was moved outside the registry, or the specification is not the one registered.
        """
        if alias not in ALIASES:
            raise UnknownNameError(f"no alias is called {alias!r}", remedy=did_you_mean(alias, list(ALIASES)))
        entries = self._history.entries()
        mine = [entry for entry in entries if entry.model == model]
        if not mine:
            raise UnknownNameError(
                f"no strategy is registered as {model!r}", remedy=did_you_mean(model, sorted({entry.model for entry in entries}))
            )
        expected, entry = self._settle(model, alias, mine)
        actual = self._alias(model, alias)
        if actual != expected:
            raise IntegrityError(
                f"alias {alias} of {model} points at version {actual or 'nothing'}, but the history says {expected or 'nothing'}: "
                "it was moved outside the gate",
                remedy="promote the version you mean with `quant promote`",
            )
        if expected is None or entry is None:
            held = sorted({one.alias for one in mine if one.action == "moved"})
            raise UnknownNameError(
                f"{model} has no version with the alias {alias!r}", remedy=f"aliases ever held: {', '.join(held)}"
            )
        spec, run_id, spec_digest = self._specification(model, expected, mine)
        outcome = str(entry.details.get(_OUTCOME_TAG, "not judged"))
        return RegisteredStrategy(
            model=model, alias=alias, version=expected, spec=spec, digest=spec_digest, run_id=run_id, outcome=outcome
        )

    def history(self, model: str | None = None) -> list[Entry]:
        """Every act, oldest first, the chain verified; of one model, or of all."""
        return self._history.entries(model)

    def models(self) -> list[str]:
        """The names of all registered strategies, sorted."""
        return sorted({entry.model for entry in self._history.entries()})

    def register_best_model(self, experiment_name: str, strategy: str, *, metric: str = "sharpe", who: str = "quant") -> str:
        """Register the finished run of a strategy with the highest `metric` in an experiment.

        Returns
        -------
        str
            The version. Its evidence is what the run logged; being best promotes nothing.
        """
        with mlflow_errors(self.store.uri):
            experiment = self._client.get_experiment_by_name(experiment_name)
        if experiment is None:
            with mlflow_errors(self.store.uri):
                known = [one.name for one in self._client.search_experiments()]
            raise UnknownNameError(f"no experiment is called {experiment_name!r}", remedy=did_you_mean(experiment_name, known))
        runs = [run for run in search_all(self.store, experiment.experiment_id) if "spec.json" in run.artefacts]
        mine = [run for run in runs if run.tags.get("strategy") == strategy and metric in run.metrics]
        if not mine:
            known = sorted({run.tags.get("strategy", "") for run in runs})
            raise UnknownNameError(
                f"experiment {experiment_name!r} has no finished run of {strategy!r} with a metric {metric!r}",
                remedy=did_you_mean(strategy, known),
            )
        best = max(mine, key=lambda run: run.metrics[metric])
        evidence = evidence_from_dict(best.document("evidence")) if "evidence.json" in best.artefacts else None
        verdict = evaluate(evidence, "paper", self._gates, clock=self._clock) if evidence else None
        return self.register(best.document("spec"), best.run_id, evidence, verdict, who=who)

    def transition_model_stage(self, model_name: str, version: str | int, stage: str, *, who: str = "quant") -> str:
        """Move a version by the name of an MLflow stage: None, Staging, Production or Archived (or an alias of ours).

        Staging and Production are the aliases `paper` and `live`, and pass the same gate as `promote`: there is no other way.

        Returns
        -------
        str
            The alias, or ``archived``.
        """
        known = [*_STAGES, *ALIASES[:3]]
        key = str(stage).strip().lower()
        if key not in known:
            raise InputError(f"no stage is called {stage!r}", remedy=did_you_mean(key, known))
        number = str(version)
        alias = _STAGES.get(key, key)
        logger.warning("MLflow stages are gone: %s means %s here", stage, f"the alias {alias}" if alias else "no alias")
        if alias in ("paper", "live"):
            self._version_tags(model_name, number)
            judged = self.judge(model_name, number, "paper" if alias == "paper" else "live")
            self.promote(model_name, number, alias, judged, who)
            return alias
        with exclusive(self._lock, "a change of the registry", wait_seconds=60.0):
            tags = self._version_tags(model_name, number)
            for held in ALIASES:
                if self._holder(model_name, held) == number and held != alias:
                    self._remove(model_name, number, held, who, f"transition to {stage}", self._clock)
            if alias:
                self._move(model_name, number, alias, who, tags)
        return alias or "archived"

    def judge(
        self, model: str, version: str, stage: Stage, *, paper: PaperRecord | None = None, clock: Clock | None = None
    ) -> Verdict:
        """Hold the evidence recorded for a version against the gate of today; nothing is moved.

        Raises
        ------
        GateRefused
            The version was registered without evidence.
        IntegrityError
            The evidence is not the one registered.
        """
        tags = self._version_tags(model, version)
        content = self._artefact(model, version, "evidence.json")
        if sha256_bytes(content) != tags[_EVIDENCE_TAG]:
            raise IntegrityError(
                f"the evidence of {model} version {version} is not the one registered", remedy="run and register the strategy again"
            )
        if not content:
            raise GateRefused(f"{model} version {version} was registered without evidence", remedy="register it with its evidence")
        held = any(e.action == "moved" and e.alias == "paper" and e.version == version for e in self._history.entries(model))
        record = PaperRecord(
            held_alias=held, sessions=paper.sessions if paper else None, drift_bps=paper.drift_bps if paper else None
        )
        return evaluate(evidence_from_dict(json.loads(content)), stage, self._gates, paper=record, clock=clock or self._clock)

    def _require(self, judged: Verdict, given: Verdict, model: str, version: str, alias: str) -> None:
        if judged.outcome == "baseline":
            if alias == "live":
                raise GateRefused(f"{model} is a benchmark: it never goes live", remedy="promote a strategy that beats it")
            promoted = self._promoted_on_paper()
            if promoted:
                raise GateRefused(
                    f"{model} is a benchmark and {', '.join(promoted)} holds the alias paper on its merits",
                    remedy="a benchmark stands in only while nothing else was promoted",
                )
            return
        if judged.outcome != "promoted" or given.outcome != "promoted":
            failed = judged.failed_checks or given.failed_checks
            raise GateRefused(
                f"{model} version {version} does not pass the gate to {alias}: {', '.join(failed)}",
                remedy="`quant promote` shows each check; a waiver in config/gates.yaml is signed and expires",
            )

    def _promoted_on_paper(self) -> list[str]:
        holders = {model: self._entry_of(model, "paper") for model in self.models()}
        return [model for model, entry in holders.items() if entry is not None and entry.details.get(_OUTCOME_TAG) == "promoted"]

    def _retire_baselines(self, who: str, reason: str, clock: Clock) -> None:
        for model in self.models():
            entry = self._entry_of(model, "paper")
            if entry is not None and entry.details.get(_OUTCOME_TAG) == "baseline":
                self._remove(model, entry.version, "paper", who, reason, clock)

    def _entry_of(self, model: str, alias: str) -> Entry | None:
        """The entry that put the alias where it is, or None while it points at nothing."""
        acts = [entry for entry in self._history.entries(model) if entry.alias == alias and entry.action in ("moved", "removed")]
        return acts[-1] if acts and acts[-1].action == "moved" else None

    def _holder(self, model: str, alias: str) -> str | None:
        entry = self._entry_of(model, alias)
        return entry.version if entry else None

    def _settle(self, model: str, alias: str, entries: list[Entry]) -> tuple[str | None, Entry | None]:
        """Where the history says the alias is, after finishing a move or removal that was cut short."""
        acts = [entry for entry in entries if entry.alias == alias]
        if not acts:
            return None, None
        last = acts[-1]
        if last.action in ("moving", "removing"):
            with exclusive(self._lock, "a change of the registry", wait_seconds=60.0):
                last = [entry for entry in self._history.entries(model) if entry.alias == alias][-1]
                if last.action == "moving":
                    self._set_alias(model, alias, last.version)
                    last = self._append(last.who, model, "moved", last.version, alias, last.details)
                elif last.action == "removing":
                    self._delete_alias(model, alias)
                    last = self._append(last.who, model, "removed", last.version, alias, last.details)
        return (last.version, last) if last.action == "moved" else (None, None)

    def _move(self, model: str, version: str, alias: str, who: str, details: Mapping[str, Any], clock: Clock | None = None) -> None:
        """Write the move, make it, write that it is made."""
        self._append(who, model, "moving", version, alias, details, clock)
        self._set_alias(model, alias, version)
        self._append(who, model, "moved", version, alias, details, clock)

    def _remove(self, model: str, version: str, alias: str, who: str, reason: str, clock: Clock) -> None:
        self._append(who, model, "removing", version, alias, {"reason": reason}, clock)
        self._delete_alias(model, alias)
        self._append(who, model, "removed", version, alias, {"reason": reason}, clock)

    def _append(
        self,
        who: str,
        model: str,
        action: str,
        version: str,
        alias: str = "",
        details: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> Entry:
        at = (clock or self._clock).now()
        return self._history.append(at=at, who=who, model=model, action=action, version=version, alias=alias, details=details or {})

    def _set_alias(self, model: str, alias: str, version: str) -> None:
        with mlflow_errors(self.store.uri):
            self._client.set_registered_model_alias(model, alias, version)

    def _delete_alias(self, model: str, alias: str) -> None:
        with mlflow_errors(self.store.uri):
            self._client.delete_registered_model_alias(model, alias)

    def _alias(self, model: str, alias: str) -> str | None:
        with mlflow_errors(self.store.uri):
            found = self._client.get_registered_model(model).aliases.get(alias)
        return str(found) if found is not None else None

    def _version_tags(self, model: str, version: str) -> Mapping[str, str]:
        """What was recorded at registration, from the history (MLflow's own tags can be edited)."""
        for entry in reversed(self._history.entries(model)):
            if entry.action == "registered" and entry.version == version:
                return {name: str(value) for name, value in entry.details.items()}
        known = [entry.version for entry in self._history.entries(model) if entry.action == "registered"]
        raise UnknownNameError(
            f"{model!r} has no version {version} registered by quantrail", remedy=f"versions: {', '.join(known) or 'none'}"
        )

    def _find_version(self, model: str, run_id: str, tags: Mapping[str, str]) -> str | None:
        for entry in self._history.entries(model):
            same = all(entry.details.get(name) == tags[name] for name in (_SPEC_TAG, _EVIDENCE_TAG))
            if (
                entry.action == "registered"
                and same
                and entry.details.get("run_id") == run_id
                and self._exists(model, entry.version)
            ):
                return entry.version
        return None

    def _unrecorded(self, model: str, run_id: str, tags: Mapping[str, str]) -> str | None:
        """A version exactly like this one that was made by a process killed before it could write the history."""
        recorded = {entry.version for entry in self._history.entries(model) if entry.action == "registered"}
        with mlflow_errors(self.store.uri):
            made = self._client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
        for one in made:
            if str(one.version) not in recorded and dict(one.tags) == dict(tags) and one.source.endswith(f"/{_place(tags)}"):
                return str(one.version)
        return None

    def _exists(self, model: str, version: str) -> bool:
        with mlflow_errors(self.store.uri):
            return bool(self._client.search_model_versions(f"name = '{model}' and version_number = {int(version)}"))

    def _make_version(
        self,
        model: str,
        spec: Mapping[str, Any],
        run_id: str,
        evidence_text: str,
        verdict: Verdict | None,
        tags: Mapping[str, str],
    ) -> str:
        from mlflow.exceptions import MlflowException

        place = _place(tags)
        with tempfile.TemporaryDirectory(prefix="quantrail-spec-") as folder, mlflow_errors(self.store.uri):
            (Path(folder) / "spec.json").write_text(plain_json(spec), encoding="utf-8")
            (Path(folder) / "evidence.json").write_text(evidence_text, encoding="utf-8")
            (Path(folder) / "verdict.json").write_text(plain_json(verdict.as_dict() if verdict else {}), encoding="utf-8")
            self._client.log_artifacts(run_id, folder, place)
            run = as_record(self._client.get_run(run_id), self.store)
            try:
                self._client.get_registered_model(model)
            except MlflowException:
                self._client.create_registered_model(model, description="A Quantrail strategy: a JSON specification, no code.")
            made = self._client.create_model_version(model, f"{run.artifact_uri}/{place}", run_id, tags=dict(tags))
        return str(made.version)

    def _artefact(self, model: str, version: str, name: str) -> bytes:
        from mlflow.artifacts import download_artifacts

        with mlflow_errors(self.store.uri):
            source = self._client.get_model_version(model, version).source
        try:
            with mlflow_errors(self.store.uri):
                path = download_artifacts(artifact_uri=f"{source}/{name}", tracking_uri=self.store.uri)
            return Path(path).read_bytes()
        except OSError as problem:
            raise IntegrityError(f"{name} of {model} version {version} cannot be read: {problem.strerror}") from problem

    def _specification(self, model: str, version: str, entries: list[Entry]) -> tuple[dict[str, Any], str, str]:
        """The specification, refused unless it is the one registered."""
        details = self._version_tags(model, version)
        content = self._artefact(model, version, "spec.json")
        try:
            spec: Any = json.loads(content)
        except ValueError:
            spec = None
        if not isinstance(spec, dict) or digest(spec) != details[_SPEC_TAG]:
            raise IntegrityError(
                f"the specification of {model} version {version} is not the one registered ({details[_SPEC_TAG][:16]}…)",
                remedy="register it again from its run; the tampered file was not used",
            )
        return spec, details["run_id"], details[_SPEC_TAG]


def evidence_from_dict(document: Mapping[str, Any]) -> Evidence:
    """Read back what `Evidence.as_dict` wrote (numbers that are not finite were written as their names)."""
    fields = dict(document)
    names = ("total_return", "cagr", "volatility_ann", "max_drawdown", "sharpe", "dsr", "pbo", "spa_p", "walk_forward_sharpe")
    for name in names:
        fields[name] = None if fields[name] is None else float(fields[name])
    low, high = fields["sharpe_interval"]
    fields["sharpe_interval"] = (float(low), float(high))
    fields["findings"] = tuple(Finding(**finding) for finding in fields["findings"])
    try:
        return Evidence(**fields)
    except TypeError as problem:
        raise ConfigError(f"this evidence was written by another version: {problem}", remedy="run the strategy again") from problem


def _place(tags: Mapping[str, str]) -> str:
    """Where a version's documents lie among its run's artefacts."""
    return f"registered/{tags[_SPEC_TAG][:16]}-{tags[_EVIDENCE_TAG][:16]}"


def _history_file(uri: str, settings: Settings) -> Path:
    """Beside a SQLite store; for a server, one file a server in the home folder, whoever asks it and with which password."""
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///")).with_suffix(".history.db")
    parts = urlsplit(uri)
    server = urlunsplit((parts.scheme.partition("+")[0], parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return settings.home_path / "mlflow" / f"{sha256_bytes(server.encode())[:16]}.history.db"


def _model_name(spec: Mapping[str, Any]) -> str:
    name = str(spec.get("name", ""))
    if not _NAME.fullmatch(name):
        raise InputError(
            f"a strategy cannot be registered as {name!r}",
            remedy="use letters, digits, _ - . and spaces, at most 100, in the spec's name",
        )
    return name
