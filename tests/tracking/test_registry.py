"""Aliases move only through the gate; the history remembers; a tampered specification is refused."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import GateRefused, InputError, IntegrityError, UnknownNameError
from config.settings import Settings, load_settings
from tests.tracking.results import Result, Spec, spec
from tests.tracking.samples import evidence
from tracking import create_backtest_tracker, create_model_registry
from tracking.evidence import Evidence
from tracking.gates import PaperRecord, Verdict, evaluate
from tracking.history import History
from tracking.registry import ModelRegistry, evidence_from_dict

_NUMBERS = itertools.count()
CLOCK = FixedClock(datetime(2026, 11, 20, 21, 0, tzinfo=UTC))


@pytest.fixture
def registry(shared_store: Settings) -> ModelRegistry:
    """The shared store with a history of its own, so that what one test promotes does not bind another."""
    home = Path(shared_store.home_path) / f"registry-{next(_NUMBERS)}"
    settings = load_settings({"home": str(home), "tracking.artifacts": shared_store.artifacts_path}, environ={})
    made = create_model_registry(shared_store, clock=CLOCK)
    made._history = History(settings.home_path / "history.db")
    return made


def run_of(store: Settings, about: Spec, shown: Evidence | None) -> str:
    tracker = create_backtest_tracker("registry", store)
    return tracker.log_result(Result(about), {"sharpe": shown.sharpe if shown else 0.0}, shown, picture=False).run_id


def candidate(store: Settings, registry: ModelRegistry, **changes: Any) -> tuple[Spec, str, Verdict, str]:
    about = spec(f"sma_{next(_NUMBERS)}")
    shown = evidence(strategy=about.name, spec_digest=about.digest, **changes)
    verdict = evaluate(shown, "paper")
    run_id = run_of(store, about, shown)
    return about, run_id, verdict, registry.register(about.as_dict(), run_id, shown, verdict)


def test_a_version_that_passes_goes_to_paper_and_comes_back_verified(shared_store: Settings, registry: ModelRegistry) -> None:
    about, run_id, verdict, version = candidate(shared_store, registry)
    held = registry.promote(about.name, version, "paper", verdict, "A. Person")
    assert (held.version, held.run_id, held.digest, held.outcome) == ("1", run_id, about.digest, "promoted")
    assert held.spec == about.as_dict()
    assert registry.get(about.name, "candidate").version == "1"
    acts = [(entry.action, entry.alias, entry.who, entry.at) for entry in registry.history(about.name)]
    at = "2026-11-20T21:00:00+00:00"
    assert acts == [
        ("registered", "", "quant", at),
        ("moving", "candidate", "quant", at),
        ("moved", "candidate", "quant", at),
        ("moving", "paper", "A. Person", at),
        ("moved", "paper", "A. Person", at),
    ]


def test_evidence_that_the_run_did_not_log_is_refused(shared_store: Settings, registry: ModelRegistry) -> None:
    about, run_id, verdict, _ = candidate(shared_store, registry, dsr=0.4)
    better = evidence(strategy=about.name, spec_digest=about.digest, dsr=0.99)
    with pytest.raises(InputError, match=f"{run_id} is not the one it logged: dsr"):
        registry.register(about.as_dict(), run_id, better, verdict)


def test_registering_the_same_again_gives_the_same_version(shared_store: Settings, registry: ModelRegistry) -> None:
    about, run_id, verdict, version = candidate(shared_store, registry)
    shown = evidence(strategy=about.name, spec_digest=about.digest)
    assert registry.register(about.as_dict(), run_id, shown, verdict) == version
    newer = replace(shown, trades=47)
    assert registry.register(about.as_dict(), run_of(shared_store, about, newer), newer, verdict) == "2"
    assert registry.get(about.name, "candidate").version == "2"


def test_a_refused_version_moves_nothing(shared_store: Settings, registry: ModelRegistry) -> None:
    about, _, verdict, version = candidate(shared_store, registry, dsr=0.5)
    with pytest.raises(GateRefused, match="dsr"):
        registry.promote(about.name, version, "paper", verdict, "A. Person")
    with pytest.raises(UnknownNameError, match="no version with the alias 'paper'"):
        registry.get(about.name, "paper")


def test_a_forged_verdict_does_not_help_the_recorded_evidence_is_judged_again(
    shared_store: Settings, registry: ModelRegistry
) -> None:
    about, _, verdict, version = candidate(shared_store, registry, dsr=0.5)
    forged = replace(verdict, outcome="promoted", checks=tuple(replace(check, passed=True) for check in verdict.checks))
    with pytest.raises(GateRefused, match="dsr"):
        registry.promote(about.name, version, "paper", forged, "A. Person")


def test_a_verdict_of_another_version_or_stage_is_refused(shared_store: Settings, registry: ModelRegistry) -> None:
    about, _, verdict, version = candidate(shared_store, registry)
    for wrong in (replace(verdict, spec_digest="0" * 64), replace(verdict, stage="live")):
        with pytest.raises(GateRefused, match="the verdict given is about"):
            registry.promote(about.name, version, "paper", wrong, "A. Person")


def test_live_needs_paper_first_and_a_record_there(shared_store: Settings, registry: ModelRegistry) -> None:
    about, _, verdict, version = candidate(shared_store, registry)
    record = PaperRecord(held_alias=True, sessions=25, drift_bps=1.0)
    shown = evidence(strategy=about.name, spec_digest=about.digest)
    live = evaluate(shown, "live", paper=record)
    assert live.outcome == "promoted"  # the caller says it held the alias; the history knows it did not
    with pytest.raises(GateRefused, match="paper_alias"):
        registry.promote(about.name, version, "live", live, "A. Person", paper=record)
    registry.promote(about.name, version, "paper", verdict, "A. Person")
    with pytest.raises(GateRefused, match="paper_sessions"):
        registry.promote(about.name, version, "live", live, "A. Person")
    assert registry.promote(about.name, version, "live", live, "A. Person", paper=record).alias == "live"


def test_the_version_that_was_live_becomes_previous_live(shared_store: Settings, registry: ModelRegistry) -> None:
    about, _, verdict, first = candidate(shared_store, registry)
    record = PaperRecord(held_alias=True, sessions=25, drift_bps=1.0)
    shown = evidence(strategy=about.name, spec_digest=about.digest, trades=60)
    second = registry.register(about.as_dict(), run_of(shared_store, about, shown), shown, verdict)
    for version in (first, second):
        registry.promote(about.name, version, "paper", verdict, "A. Person")
        registry.promote(about.name, version, "live", evaluate(shown, "live", paper=record), "A. Person", paper=record)
    assert registry.get(about.name, "live").version == second
    assert registry.get(about.name, "previous_live").version == first


def test_a_baseline_holds_paper_only_while_nothing_was_promoted(shared_store: Settings, registry: ModelRegistry) -> None:
    hold, _, hold_verdict, hold_version = candidate(shared_store, registry, role="benchmark")
    assert registry.promote(hold.name, hold_version, "paper", hold_verdict, "A. Person").outcome == "baseline"
    about, _, verdict, version = candidate(shared_store, registry)
    registry.promote(about.name, version, "paper", verdict, "A. Person")
    with pytest.raises(UnknownNameError, match="no version with the alias"):
        registry.get(hold.name, "paper")
    with pytest.raises(GateRefused, match="on its merits"):
        registry.promote(hold.name, hold_version, "paper", hold_verdict, "A. Person")
    live = replace(hold_verdict, stage="live")
    with pytest.raises(GateRefused, match="never goes live"):
        registry.promote(hold.name, hold_version, "live", live, "A. Person")


def test_the_old_stage_names_pass_the_same_gate(
    shared_store: Settings, registry: ModelRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    about, _, _, version = candidate(shared_store, registry)
    with caplog.at_level(logging.WARNING, logger="quantrail.tracking"):
        assert registry.transition_model_stage(about.name, int(version), "Staging") == "paper"
    assert "MLflow stages are gone" in caplog.text
    with pytest.raises(GateRefused, match="paper_sessions, paper_drift_bps"):
        registry.transition_model_stage(about.name, version, "Production")
    assert registry.transition_model_stage(about.name, version, "None") == "candidate"
    assert registry.transition_model_stage(about.name, version, "Archived") == "archived"
    with pytest.raises(UnknownNameError):
        registry.get(about.name, "candidate")
    with pytest.raises(InputError, match="did you mean production"):
        registry.transition_model_stage(about.name, version, "Producton")
    bad, _, _, refused = candidate(shared_store, registry, trades=1)
    with pytest.raises(GateRefused, match="trades"):
        registry.transition_model_stage(bad.name, refused, "Staging")


def test_the_best_run_is_registered_with_its_own_evidence(shared_store: Settings, registry: ModelRegistry) -> None:
    tracker = create_backtest_tracker("registry-best", shared_store)
    runs = {}
    for fast, sharpe in ((10, 0.4), (20, 0.9), (30, 0.7)):
        about = spec("best_of_three", fast=fast)
        shown = evidence(strategy=about.name, spec_digest=about.digest, sharpe=sharpe, trades=2)
        runs[fast] = tracker.log_result(Result(about), {"sharpe": sharpe}, shown, picture=False).run_id
    version = registry.register_best_model("registry-best", "best_of_three")
    held = registry.get("best_of_three", "candidate")
    assert (held.version, held.run_id, held.spec["params"]) == (version, runs[20], {"fast": 20})
    with pytest.raises(GateRefused, match="trades"):  # being best promotes nothing
        registry.transition_model_stage("best_of_three", version, "Staging")
    with pytest.raises(UnknownNameError, match="did you mean best_of_three"):
        registry.register_best_model("registry-best", "best_of_tree")
    with pytest.raises(UnknownNameError, match="did you mean registry-best"):
        registry.register_best_model("registry-bset", "best_of_three")


def test_a_tampered_specification_is_refused(shared_store: Settings, registry: ModelRegistry) -> None:
    about, _, _, version = candidate(shared_store, registry)
    source = registry.store.client.get_model_version(about.name, version).source
    file = Path(source.removeprefix("file://")) / "spec.json"
    file.write_text(file.read_text().replace("20", "2"))
    with pytest.raises(IntegrityError, match="not the one registered"):
        registry.get(about.name, "candidate")


def test_tampered_evidence_cannot_earn_a_promotion(shared_store: Settings, registry: ModelRegistry) -> None:
    about, _, verdict, version = candidate(shared_store, registry, trades=1)
    source = registry.store.client.get_model_version(about.name, version).source
    file = Path(source.removeprefix("file://")) / "evidence.json"
    file.write_text(file.read_text().replace('"trades": 1', '"trades": 100'))
    with pytest.raises(IntegrityError, match="evidence"):
        registry.promote(about.name, version, "paper", verdict, "A. Person")


def test_an_alias_moved_around_the_gate_is_refused(shared_store: Settings, registry: ModelRegistry) -> None:
    about, _, _, version = candidate(shared_store, registry, dsr=0.1)
    registry.store.client.set_registered_model_alias(about.name, "paper", version)
    with pytest.raises(IntegrityError, match="moved outside the gate"):
        registry.get(about.name, "paper")


def test_a_move_cut_short_is_finished_by_the_next_reader(
    shared_store: Settings, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    about, _, verdict, version = candidate(shared_store, registry)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(registry, "_set_alias", die)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(about.name, version, "paper", verdict, "A. Person")
    assert registry.history(about.name)[-1].action == "moving"
    assert registry.get(about.name, "paper").version == version
    assert registry.history(about.name)[-1].action == "moved"


def test_a_version_made_just_before_a_kill_is_taken_up_and_not_made_twice(
    shared_store: Settings, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = spec(f"sma_{next(_NUMBERS)}")
    shown = evidence(strategy=about.name, spec_digest=about.digest)
    run_id = run_of(shared_store, about, shown)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(registry, "_append", die)  # MLflow has the version, the history does not
        with pytest.raises(KeyboardInterrupt):
            registry.register(about.as_dict(), run_id, shown, evaluate(shown, "paper"))
    assert registry.history(about.name) == []
    assert registry.register(about.as_dict(), run_id, shown, evaluate(shown, "paper")) == "1"
    assert len(registry.store.client.search_model_versions(f"name = '{about.name}'")) == 1
    assert registry.get(about.name, "candidate").spec == about.as_dict()


def test_an_edited_history_is_noticed(shared_store: Settings, registry: ModelRegistry) -> None:
    about, _, _, _ = candidate(shared_store, registry)
    path = registry._history.path
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("DELETE FROM history WHERE number = 2")
    connection.execute("DROP TRIGGER history_keep")
    connection.execute("UPDATE history SET entry = replace(entry, 'quant', 'other') WHERE number = 2")
    connection.commit()
    connection.close()
    with pytest.raises(IntegrityError, match="entry 2"):
        registry.get(about.name, "candidate")


def test_unknown_models_aliases_and_versions_are_named(shared_store: Settings, registry: ModelRegistry) -> None:
    about, _, verdict, version = candidate(shared_store, registry)
    with pytest.raises(UnknownNameError, match=f"did you mean {about.name}"):
        registry.get(about.name + "x", "paper")
    with pytest.raises(UnknownNameError, match="did you mean paper"):
        registry.get(about.name, "papr")
    with pytest.raises(UnknownNameError, match="no version 7"):
        registry.promote(about.name, 7, "paper", verdict, "A. Person")
    with pytest.raises(InputError, match="no promotion leads"):
        registry.promote(about.name, version, "latest", verdict, "A. Person")
    with pytest.raises(InputError, match="needs a name"):
        registry.promote(about.name, version, "paper", verdict, " ")


def test_a_specification_needs_a_name_mlflow_takes_and_its_own_evidence(registry: ModelRegistry) -> None:
    with pytest.raises(InputError, match="cannot be registered as 'a/b'"):
        registry.register(spec("a/b").as_dict(), "run", None, None)
    with pytest.raises(InputError, match="the evidence is about"):
        registry.register(spec("sma").as_dict(), "run", evidence(), None)


def test_a_version_without_evidence_cannot_be_promoted(shared_store: Settings, registry: ModelRegistry) -> None:
    about = spec(f"bare_{next(_NUMBERS)}")
    version = registry.register(about.as_dict(), run_of(shared_store, about, None), None, None)
    with pytest.raises(GateRefused, match="without evidence"):
        registry.transition_model_stage(about.name, version, "Staging")


def test_evidence_survives_json_with_nan() -> None:
    import json

    from tracking.artefacts import plain_json

    odd = evidence(sharpe=float("nan"), sharpe_interval=(float("-inf"), 1.0), dsr=None)
    back = evidence_from_dict(json.loads(plain_json(odd.as_dict())))
    assert repr(back) == repr(odd)
