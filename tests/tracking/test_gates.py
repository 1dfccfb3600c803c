"""Gates: each threshold decides alone, nothing is silently skipped, waivers are signed and lapse."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from config.clock import FixedClock
from config.errors import ConfigError, InputError
from tests.tracking.samples import DIGEST, evidence
from tracking.evidence import Finding
from tracking.gates import GATES_FILE, Gates, PaperRecord, Waiver, evaluate, load_gates

SERIOUS = Finding(code="same_close", severity="serious", text="t", remedy="r")
WARNING = Finding(code="few_trades", severity="warning", text="t", remedy="r")
TODAY = FixedClock(datetime(2026, 11, 21, 12, 0, tzinfo=UTC))
ON_PAPER = PaperRecord(held_alias=True, sessions=20, drift_bps=5.0)


def write(tmp_path: Path, *, old: str = "", new: str = "", add: str = "") -> Path:
    text = GATES_FILE.read_text()
    assert old in text
    path = tmp_path / "gates.yaml"
    path.write_text(text.replace(old, new, 1) if old else text.replace("waivers: []", add))
    return path


def waiver(**changes: Any) -> Waiver:
    fields: dict[str, Any] = {
        "strategy": "sma_crossover",
        "spec_digest": DIGEST[:8],
        "stage": "paper",
        "check": "trades",
        "who": "A. Person",
        "reason": "trades yearly",
        "expires": date(2026, 11, 21),
    }
    return Waiver(**(fields | changes))


def with_waivers(*waivers: Waiver) -> Gates:
    return Gates(stages=load_gates().stages, waivers=waivers)


def test_evidence_at_every_threshold_is_promoted() -> None:
    at_the_edge = evidence(
        dsr=0.95,
        pbo=0.5,
        spa_p=0.05,
        sharpe_interval=(1e-9, 1.0),
        trades=30,
        sessions=756,
        max_drawdown=0.5,
        walk_forward_sharpe=1e-9,
    )
    verdict = evaluate(at_the_edge, "paper")
    assert verdict.outcome == "promoted"
    assert verdict.failed_checks == ()
    assert len(verdict.checks) == 11


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("dsr", {"dsr": 0.9499}),
        ("dsr", {"dsr": None}),
        ("dsr", {"dsr": math.nan}),
        ("pbo", {"pbo": 0.5001}),
        ("pbo", {"pbo": None, "trials": 2}),
        ("spa_p", {"spa_p": 0.0501}),
        ("spa_p", {"spa_p": None}),
        ("sharpe_low", {"sharpe_interval": (0.0, 1.0)}),
        ("sharpe_low", {"sharpe_interval": (math.nan, math.nan)}),
        ("trades", {"trades": 29}),
        ("sessions", {"sessions": 755}),
        ("max_drawdown", {"max_drawdown": 0.5001}),
        ("walk_forward_sharpe", {"walk_forward_sharpe": 0.0}),
        ("walk_forward_sharpe", {"walk_forward_sharpe": None}),
        ("data_kind", {"data_kind": "modelled"}),
        ("universe_point_in_time", {"universe_point_in_time": False}),
        ("serious_findings", {"findings": (SERIOUS,)}),
    ],
)
def test_each_check_refuses_alone(check: str, changes: dict[str, Any]) -> None:
    verdict = evaluate(evidence(**changes), "paper")
    assert verdict.outcome == "refused"
    assert verdict.failed_checks == (check,)


def test_warnings_do_not_refuse() -> None:
    assert evaluate(evidence(findings=(WARNING,)), "paper").outcome == "promoted"


def test_pbo_of_a_single_configuration_does_not_apply_and_says_so() -> None:
    verdict = evaluate(evidence(pbo=None, trials=1), "paper")
    (pbo,) = [check for check in verdict.checks if check.name == "pbo"]
    assert verdict.outcome == "promoted"
    assert (pbo.passed, pbo.applicable) == (True, False)
    assert "nothing to choose" in pbo.note


def test_a_benchmark_is_a_baseline_whatever_its_numbers() -> None:
    verdict = evaluate(evidence(role="benchmark", trades=0, dsr=None), "paper")
    assert verdict.outcome == "baseline"
    assert verdict.failed_checks == ("dsr", "trades")
    assert evaluate(evidence(role="benchmark"), "paper").outcome == "baseline"


def test_live_asks_everything_of_paper_and_the_time_on_paper() -> None:
    assert evaluate(evidence(), "live", paper=ON_PAPER).outcome == "promoted"
    assert evaluate(evidence(), "live").failed_checks == ("paper_alias", "paper_sessions", "paper_drift_bps")
    short = PaperRecord(held_alias=True, sessions=19, drift_bps=5.01)
    assert evaluate(evidence(dsr=0.1), "live", paper=short).failed_checks == ("dsr", "paper_sessions", "paper_drift_bps")


def test_the_nasdaq_grid_of_253_pairs_is_refused() -> None:
    """DSR 0.9135, PBO 0.7509 and SPA p 0.90 are that grid's published numbers (issue 5): luck, not skill."""
    verdict = evaluate(evidence(dsr=0.9135, pbo=0.7509, spa_p=0.90, trials=253), "paper")
    assert verdict.failed_checks == ("dsr", "pbo", "spa_p")


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(InputError, match="no stage"):
        evaluate(evidence(), "production")  # type: ignore[arg-type]


def test_an_unknown_check_is_refused_with_the_near_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown check 'drs'[\s\S]*did you mean dsr"):
        load_gates(write(tmp_path, old="  dsr:", new="  drs:"))


def test_an_unknown_section_is_refused_with_the_near_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown section 'papper'[\s\S]*did you mean paper"):
        load_gates(write(tmp_path, old="\npaper:", new="\npapper:"))


def test_a_check_left_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no requirement for 'spa_p'"):
        load_gates(write(tmp_path, old='  spa_p: "<= 0.05"\n', new=""))


@pytest.mark.parametrize("bad", ['"0.95"', '">= many"', '">= nan"', '"=> 0.95"', '">="', "0.95", "true", "[1]"])
def test_a_requirement_that_is_no_comparison_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError, match="dsr"):
        load_gates(write(tmp_path, old='dsr: ">= 0.95"', new=f"dsr: {bad}"))


def test_a_check_of_a_word_takes_only_its_own_words(tmp_path: Path) -> None:
    for bad in ('">= real"', '"== reel"'):
        with pytest.raises(ConfigError, match="data_kind"):
            load_gates(write(tmp_path, old='data_kind: "== real"', new=f"data_kind: {bad}"))


@pytest.mark.parametrize("off", ["off", '"off"'])
def test_a_check_switched_off_still_shows(tmp_path: Path, off: str) -> None:
    gates = load_gates(write(tmp_path, old='trades: ">= 30"', new=f"trades: {off}"))
    verdict = evaluate(evidence(trades=2), "paper", gates)
    (trades,) = [check for check in verdict.checks if check.name == "trades"]
    assert verdict.outcome == "promoted"
    assert not trades.applicable
    assert "switched off" in trades.note
    assert gates.digest != load_gates().digest


def test_a_file_that_is_missing_or_no_yaml_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_gates(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("paper: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_gates(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match="no mapping"):
        load_gates(tmp_path / "empty.yaml")


def test_a_waiver_lifts_its_check_on_its_last_day_and_not_after() -> None:
    verdict = evaluate(evidence(trades=3), "paper", with_waivers(waiver()), clock=TODAY)
    assert verdict.outcome == "promoted"
    assert (verdict.failed_checks, verdict.waived_checks) == ((), ("trades",))
    tomorrow = FixedClock(datetime(2026, 11, 22, 0, 0, tzinfo=UTC))
    assert evaluate(evidence(trades=3), "paper", with_waivers(waiver()), clock=tomorrow).failed_checks == ("trades",)


@pytest.mark.parametrize("other", [{"strategy": "other"}, {"spec_digest": "00000000"}, {"stage": "live"}, {"check": "sessions"}])
def test_a_waiver_is_for_one_check_of_one_version_and_stage(other: dict[str, Any]) -> None:
    assert evaluate(evidence(trades=3), "paper", with_waivers(waiver(**other)), clock=TODAY).failed_checks == ("trades",)


def test_modelled_data_cannot_be_waived_for_live_nor_the_paper_alias() -> None:
    for check in ("data_kind", "paper_alias"):
        with pytest.raises(ConfigError, match="cannot be waived"):
            waiver(stage="live", check=check)
    assert waiver(stage="paper", check="data_kind").check == "data_kind"


@pytest.mark.parametrize("bad", [{"who": " "}, {"reason": ""}, {"spec_digest": "3f1c"}, {"check": "luck"}, {"stage": "prod"}])
def test_a_waiver_without_signature_reason_or_version_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        waiver(**bad)


def test_waivers_are_read_from_the_file(tmp_path: Path) -> None:
    listed = (
        "waivers:\n  - {strategy: sma_crossover, spec_digest: 3f1c9a2b, stage: paper, check: trades, "
        "who: A, reason: b, expires: 2026-11-21}"
    )
    gates = load_gates(write(tmp_path, add=listed))
    assert gates.waivers == (waiver(who="A", reason="b"),)
    for broken in (listed.replace("who: A, ", ""), listed.replace("2026-11-21", "soon"), listed.replace("who:", "by:")):
        with pytest.raises(ConfigError, match="waiver 1"):
            load_gates(write(tmp_path, add=broken))


def test_a_verdict_is_plain_json_even_with_nan() -> None:
    gates = with_waivers(waiver())
    document = evaluate(evidence(dsr=math.nan, trades=3), "paper", gates, clock=TODAY).as_dict()
    back = json.loads(json.dumps(document, allow_nan=False))
    values = {check["name"]: check for check in back["checks"]}
    assert values["dsr"]["value"] == "nan"
    assert values["trades"]["waiver"]["expires"] == "2026-11-21"
    assert back["failed_checks"] == ["dsr"]
