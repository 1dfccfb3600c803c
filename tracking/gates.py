"""Gates: the evidence of one strategy version held against the thresholds of `config/gates.yaml`, one check at a time.

1. `load_gates` reads and validates the file; an unknown, missing or malformed check is refused with its near names.
2. `evaluate` turns the evidence into values (`_values`), holds each against its requirement (`_check`), lays unexpired waivers
   over what failed, and words the outcome.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml

from config.clock import Clock, SystemClock
from config.errors import ConfigError, InputError, did_you_mean
from config.hashing import digest
from tracking.evidence import Evidence

__all__ = [
    "GATES_FILE",
    "Check",
    "Gates",
    "Outcome",
    "PaperRecord",
    "Requirement",
    "Stage",
    "Verdict",
    "Waiver",
    "evaluate",
    "load_gates",
]

GATES_FILE = Path(__file__).resolve().parents[1] / "config" / "gates.yaml"

Stage = Literal["paper", "live"]
Outcome = Literal["promoted", "refused", "baseline"]
Value = float | int | bool | str | None

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_KINDS: dict[str, dict[str, type]] = {
    "paper": {
        "dsr": float,
        "pbo": float,
        "spa_p": float,
        "sharpe_low": float,
        "trades": float,
        "sessions": float,
        "max_drawdown": float,
        "walk_forward_sharpe": float,
        "data_kind": str,
        "universe_point_in_time": bool,
        "serious_findings": float,
    },
    "live": {"paper_alias": bool, "paper_sessions": float, "paper_drift_bps": float},
}
_NEVER_WAIVED = {("live", "data_kind"), ("live", "paper_alias")}
_OFF = "off"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One threshold: a comparison and its bound, or switched off.

    Parameters
    ----------
    name : str
        The check's name, as in the file.
    comparison : str
        One of ``>= <= > < ==``, or ``off``.
    bound : float, str or bool, optional
    """

    name: str
    comparison: str
    bound: Value = None

    @property
    def text(self) -> str:
        """As written in the file: ``>= 0.95``."""
        if self.comparison == _OFF:
            return _OFF
        bound = str(self.bound).lower() if isinstance(self.bound, bool) else self.bound
        return f"{self.comparison} {bound:g}" if isinstance(bound, float) else f"{self.comparison} {bound}"

    def met_by(self, value: Value) -> bool:
        """Whether `value` meets it; NaN meets nothing."""
        if isinstance(value, float) and math.isnan(value):
            return False
        return bool(_COMPARISONS[self.comparison](value, self.bound))


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    """A signed exception: one check of one stage for one strategy version, until a date (that day included, UTC).

    Raises
    ------
    ConfigError
        It is unsigned, gives no reason, does not name a version, or waives what no signature can.
    """

    strategy: str
    spec_digest: str
    stage: Stage
    check: str
    who: str
    reason: str
    expires: date

    def __post_init__(self) -> None:
        label = f"waiver of {self.check!r} for {self.strategy!r}"
        if not (self.who.strip() and self.reason.strip()):
            raise ConfigError(f"{label} needs who signs it and why", remedy="fill in 'who' and 'reason'")
        if len(self.spec_digest) < 8:
            raise ConfigError(
                f"{label} names the version by {self.spec_digest!r}", remedy="give at least eight leading digits of its digest"
            )
        if self.stage not in _KINDS:
            raise ConfigError(f"{label}: no stage is called {self.stage!r}", remedy=did_you_mean(self.stage, list(_KINDS)))
        known = _names(self.stage)
        if self.check not in known:
            raise ConfigError(f"{label}: no check of stage {self.stage!r} has that name", remedy=did_you_mean(self.check, known))
        if (self.stage, self.check) in _NEVER_WAIVED:
            raise ConfigError(f"{label}: {self.check} cannot be waived for {self.stage}", remedy="remove the waiver")

    def covers(self, evidence: Evidence, stage: Stage, today: date) -> bool:
        """Whether it is for this version and stage and has not lapsed."""
        return (
            self.strategy == evidence.strategy
            and evidence.spec_digest.startswith(self.spec_digest)
            and self.stage == stage
            and today <= self.expires
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Gates:
    """The thresholds of every stage, and the waivers."""

    stages: Mapping[str, tuple[Requirement, ...]]
    waivers: tuple[Waiver, ...] = ()

    def requirements(self, stage: Stage) -> tuple[Requirement, ...]:
        """The stage's own, after those of the stage before it."""
        return (*self.stages["paper"], *self.stages["live"]) if stage == "live" else self.stages["paper"]

    @property
    def digest(self) -> str:
        """SHA-256 of the thresholds and waivers."""
        return digest(
            {
                "stages": {stage: {r.name: r.text for r in required} for stage, required in self.stages.items()},
                "waivers": [asdict(waiver) for waiver in self.waivers],
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperRecord:
    """What a version did on paper.

    Parameters
    ----------
    held_alias : bool
        It holds, or has held, the alias `paper`.
    sessions : int, optional
        Sessions traded; None (not known) fails.
    drift_bps : float, optional
        Mean absolute difference from the shadow backtest, basis points of equity a session; None fails.
    """

    held_alias: bool
    sessions: int | None = None
    drift_bps: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check of a verdict.

    Parameters
    ----------
    name, requirement : str
        As in the file.
    value : float, int, bool, str or None
        What the evidence says.
    passed : bool
        True as well where the check does not apply.
    applicable : bool
        False where the evidence cannot have this number, or the check is switched off; `note` says why.
    waiver : Waiver, optional
        Signed and unexpired: the check failed and does not count.
    """

    name: str
    requirement: str
    value: Value
    passed: bool
    applicable: bool = True
    note: str = ""
    waiver: Waiver | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gate says about one strategy version.

    Parameters
    ----------
    strategy, spec_digest : str
        The version judged.
    stage : {"paper", "live"}
    outcome : {"promoted", "refused", "baseline"}
        A benchmark is a baseline whatever its numbers: it is what candidates must beat.
    checks : tuple of Check
        All of them, in the file's order.
    gates_digest : str
        SHA-256 of the thresholds used.
    """

    strategy: str
    spec_digest: str
    stage: Stage
    outcome: Outcome
    checks: tuple[Check, ...]
    gates_digest: str

    @property
    def failed_checks(self) -> tuple[str, ...]:
        """Names of the checks that failed and are not waived."""
        return tuple(check.name for check in self.checks if not check.passed and check.waiver is None)

    @property
    def waived_checks(self) -> tuple[str, ...]:
        """Names of the checks that failed and are waived."""
        return tuple(check.name for check in self.checks if not check.passed and check.waiver is not None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; a number that is not finite becomes its name."""
        document = asdict(self) | {"failed_checks": list(self.failed_checks), "waived_checks": list(self.waived_checks)}
        for check in document["checks"]:
            if isinstance(check["value"], float) and not math.isfinite(check["value"]):
                check["value"] = str(check["value"])
            if check["waiver"] is not None:
                check["waiver"]["expires"] = check["waiver"]["expires"].isoformat()
        return document


def evaluate(
    evidence: Evidence,
    stage: Stage,
    gates: Gates | None = None,
    *,
    paper: PaperRecord | None = None,
    clock: Clock | None = None,
) -> Verdict:
    """Hold the evidence of one strategy version against the gate of a stage.

    Parameters
    ----------
    evidence : Evidence
    stage : {"paper", "live"}
    gates : Gates, optional
        As `load_gates` reads them from ``config/gates.yaml`` unless given.
    paper : PaperRecord, optional
        What the version did on paper; `live` fails without it.
    clock : Clock, optional
        Tells whether a waiver has lapsed; the machine's own unless given.

    Returns
    -------
    Verdict
        Every check appears in it, passed or not.

    Notes
    -----
    A missing value fails, with one exception: `pbo` with a single configuration is not applicable and passes with that note.
    A NaN fails.

    Raises
    ------
    InputError
        No such stage.
    """
    if stage not in _KINDS:
        raise InputError(f"no stage is called {stage!r}", remedy=did_you_mean(stage, list(_KINDS)))
    gates = load_gates() if gates is None else gates
    values = _values(evidence, paper)
    today = (clock or SystemClock()).now().date() if gates.waivers else date.min
    waivers = {waiver.check: waiver for waiver in gates.waivers if waiver.covers(evidence, stage, today)}
    checks = tuple(_check(required, values[required.name], evidence, waivers) for required in gates.requirements(stage))
    if evidence.role == "benchmark":
        outcome: Outcome = "baseline"
    else:
        outcome = "promoted" if all(check.passed or check.waiver for check in checks) else "refused"
    return Verdict(
        strategy=evidence.strategy,
        spec_digest=evidence.spec_digest,
        stage=stage,
        outcome=outcome,
        checks=checks,
        gates_digest=gates.digest,
    )


def _values(evidence: Evidence, paper: PaperRecord | None) -> dict[str, Value]:
    """The evidence under the names of the checks."""
    return {
        "dsr": evidence.dsr,
        "pbo": evidence.pbo,
        "spa_p": evidence.spa_p,
        "sharpe_low": evidence.sharpe_interval[0],
        "trades": evidence.trades,
        "sessions": evidence.sessions,
        "max_drawdown": evidence.max_drawdown,
        "walk_forward_sharpe": evidence.walk_forward_sharpe,
        "data_kind": evidence.data_kind,
        "universe_point_in_time": evidence.universe_point_in_time,
        "serious_findings": sum(finding.severity == "serious" for finding in evidence.findings),
        "paper_alias": paper.held_alias if paper else False,
        "paper_sessions": paper.sessions if paper else None,
        "paper_drift_bps": paper.drift_bps if paper else None,
    }


def _check(required: Requirement, value: Value, evidence: Evidence, waivers: Mapping[str, Waiver]) -> Check:
    name, text = required.name, required.text
    if required.comparison == _OFF:
        return Check(name=name, requirement=text, value=value, passed=True, applicable=False, note="switched off in gates.yaml")
    if value is None and name == "pbo" and evidence.trials <= 1:
        note = "one configuration tried: there was nothing to choose from"
        return Check(name=name, requirement=text, value=None, passed=True, applicable=False, note=note)
    if value is None:
        return Check(
            name=name,
            requirement=text,
            value=None,
            passed=False,
            note="not computed: a missing number fails",
            waiver=waivers.get(name),
        )
    passed = required.met_by(value)
    note = ""
    if name == "serious_findings" and not passed:
        note = ", ".join(finding.code for finding in evidence.findings if finding.severity == "serious")
    return Check(name=name, requirement=text, value=value, passed=passed, note=note, waiver=None if passed else waivers.get(name))


def load_gates(path: Path | None = None) -> Gates:
    """Read the thresholds.

    Parameters
    ----------
    path : Path, optional
        ``config/gates.yaml`` unless given.

    Raises
    ------
    ConfigError
        The file cannot be read, a key is unknown (the near names are listed) or missing, a requirement is not a comparison and
        a bound of the check's type, a waiver is unsigned.
    """
    path = path or GATES_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"cannot read {path}: {problem.strerror}") from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(problem).split())}") from problem
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no mapping of stages", remedy="it needs the sections paper, live and waivers")
    _refuse_unknown(content, [*_KINDS, "waivers"], f"{path}: unknown section")
    stages = {stage: _read_stage(path, stage, content.get(stage)) for stage in _KINDS}
    listed = content.get("waivers") or []
    if not isinstance(listed, list):
        raise ConfigError(f"{path}: waivers is a list, not {listed!r}")
    return Gates(stages=stages, waivers=tuple(_read_waiver(path, number, item) for number, item in enumerate(listed, start=1)))


def _names(stage: str) -> list[str]:
    return [*_KINDS["paper"], *(_KINDS["live"] if stage == "live" else ())]


def _refuse_unknown(content: Mapping[Any, Any], known: list[str], label: str) -> None:
    for key in content:
        if key not in known:
            raise ConfigError(f"{label} {key!r}", remedy=did_you_mean(str(key), known))


def _read_stage(path: Path, stage: str, section: Any) -> tuple[Requirement, ...]:
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: section {stage!r} is missing or not a mapping of checks", remedy="see config/gates.yaml")
    kinds = _KINDS[stage]
    _refuse_unknown(section, list(kinds), f"{path}: {stage}: unknown check")
    for name in kinds:
        if name not in section:
            raise ConfigError(f"{path}: {stage}: no requirement for {name!r}", remedy=f'give one, or write {name}: "off"')
    return tuple(_read_requirement(f"{path}: {stage}.{name}", str(name), text, kinds[name]) for name, text in section.items())


def _read_requirement(where: str, name: str, text: Any, kind: type) -> Requirement:
    if text is False or text == _OFF:  # YAML reads a bare off as false
        return Requirement(name, _OFF)
    comparison, _, bound = str(text).partition(" ")
    remedy = f'write a comparison and a bound, such as "{">= 0.95" if kind is float else "== true" if kind is bool else "== real"}"'
    if comparison not in _COMPARISONS or not bound.strip() or (kind is not float and comparison != "=="):
        raise ConfigError(f"{where}: {text!r} is no requirement", remedy=remedy)
    bound = bound.strip()
    if kind is float:
        try:
            number = float(bound)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"{where}: {bound!r} is not a number", remedy=remedy)
        return Requirement(name, comparison, number)
    if kind is bool:
        if bound not in ("true", "false"):
            raise ConfigError(f"{where}: {bound!r} is neither true nor false", remedy=remedy)
        return Requirement(name, comparison, bound == "true")
    if bound not in ("real", "modelled"):
        raise ConfigError(f"{where}: {bound!r} is neither real nor modelled", remedy=remedy)
    return Requirement(name, comparison, bound)


def _read_waiver(path: Path, number: int, item: Any) -> Waiver:
    label = f"{path}: waiver {number}"
    fields = list(Waiver.__dataclass_fields__)
    if not isinstance(item, dict):
        raise ConfigError(f"{label} is not a mapping", remedy=f"it needs {', '.join(fields)}")
    _refuse_unknown(item, fields, f"{label}: unknown key")
    missing = [name for name in fields if item.get(name) in (None, "")]
    if missing:
        raise ConfigError(f"{label} lacks {', '.join(missing)}", remedy="a waiver is signed, reasoned, dated and for one version")
    expires = item["expires"]
    if type(expires) is not date:
        raise ConfigError(f"{label}: expires is {expires!r}, not a date", remedy="write YYYY-MM-DD")
    return Waiver(**{name: str(item[name]) for name in fields if name != "expires"}, expires=expires)  # type: ignore[arg-type]
