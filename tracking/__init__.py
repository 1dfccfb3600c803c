"""Runs, trials, evidence, gates, registry and reports.

The names below are imported when first asked for, so that a light command does not pay for MLflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracking.comparator import create_experiment_comparator
    from tracking.evidence import Evidence, Finding
    from tracking.gates import Verdict, evaluate, load_gates
    from tracking.ledger import Trial, TrialLedger
    from tracking.registry import create_model_registry
    from tracking.tracker import create_backtest_tracker

__all__ = [
    "Evidence",
    "Finding",
    "Trial",
    "TrialLedger",
    "Verdict",
    "create_backtest_tracker",
    "create_experiment_comparator",
    "create_model_registry",
    "evaluate",
    "load_gates",
]

_HOMES = {
    "Evidence": "tracking.evidence",
    "Finding": "tracking.evidence",
    "Trial": "tracking.ledger",
    "TrialLedger": "tracking.ledger",
    "Verdict": "tracking.gates",
    "create_backtest_tracker": "tracking.tracker",
    "create_experiment_comparator": "tracking.comparator",
    "create_model_registry": "tracking.registry",
    "evaluate": "tracking.gates",
    "load_gates": "tracking.gates",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tracking' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
