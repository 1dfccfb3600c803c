"""Promotion: every study is registered, what passes the gate gets the alias `paper`, else the benchmark stands in.

1. `promote_studies` registers each study's specification with its evidence and verdict; `candidate` points at it.
2. Those that the gate promotes get the alias `paper`, of several versions of one strategy the one with the highest deflated
   Sharpe ratio; the highest of all is traded.
3. When none deserves it, the benchmark holds `paper` as the baseline, and says so wherever it appears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from config.clock import Clock, SystemClock
from config.errors import InputError
from config.settings import Settings
from flows.research import Study

__all__ = ["Promotion", "ask_gate", "promote_studies"]


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What came of the gate.

    Parameters
    ----------
    traded : Study
        What holds the alias `paper` and goes to the paper account.
    promoted, refused : tuple of str
        Labels.
    versions : mapping of str to str
        Registry version by label.
    """

    traded: Study
    promoted: tuple[str, ...]
    refused: tuple[str, ...]
    versions: dict[str, str]


def promote_studies(studies: Sequence[Study], settings: Settings, *, who: str, clock: Clock | None = None) -> Promotion:
    """Register every study and move the alias `paper` as the gate says.

    Raises
    ------
    InputError
        Nothing was promoted and there is no benchmark on real data to stand in.
    """
    from tracking.registry import create_model_registry

    clock = clock or SystemClock()
    registry = create_model_registry(settings, clock=clock)
    versions: dict[str, str] = {}
    for study in studies:
        if study.run is None:
            raise InputError(f"{study.label} has no run to be registered from", remedy="log the study first")
        versions[study.label] = registry.register(
            study.result.spec.as_dict(), study.run.run_id, study.evidence, study.verdict, who=who
        )
    deserving = sorted(
        (study for study in studies if study.verdict.outcome == "promoted"), key=lambda study: -(study.evidence.dsr or 0.0)
    )
    baselines = [study for study in studies if study.verdict.outcome == "baseline" and study.evidence.data_kind == "real"]
    if not deserving and not baselines:
        raise InputError("no strategy was promoted and no benchmark can stand in", remedy="run a benchmark beside the candidates")
    moved = deserving or baselines[:1]
    best = {study.result.spec.name: study for study in reversed(moved)}  # one alias a model: of its versions the first holds it
    for study in (study for study in moved if best[study.result.spec.name] is study):
        registry.promote(study.result.spec.name, versions[study.label], "paper", study.verdict, who, clock)
    return Promotion(
        traded=moved[0],
        promoted=tuple(study.label for study in deserving),
        refused=tuple(study.label for study in studies if study.verdict.outcome == "refused"),
        versions=versions,
    )


def ask_gate(
    settings: Settings, model: str, version: str | None, stage: Literal["paper", "live"], *, who: str, go: bool
) -> dict[str, Any]:
    """Hold a registered version's recorded evidence against a gate; with `go`, move the alias if it passes.

    Raises
    ------
    GateRefused
        `go` was asked for and the gate refuses.
    UnknownNameError
        No such strategy or version.
    """
    from tracking.registry import create_model_registry

    registry = create_model_registry(settings)
    number = version or registry.get(model, "candidate").version
    verdict = registry.judge(model, number, stage)
    if go:
        registry.promote(model, number, stage, verdict, who)
    return {"model": model, "version": number, **verdict.as_dict()}
