"""The demo's page says only what is so, briefly."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from flows.demo_report import _findings, _worded
from tests.tracking.samples import evidence
from tracking.evidence import Finding

DECLARED = {"a": {"x": 1, "y": 2}, "b": {"c": {"z": 3}}, "d": True, "e": 5}


def test_few_parameters_are_shown_whole_and_of_many_only_what_differs() -> None:
    assert _worded({"fast": 5, "slow": 20}, {"fast": 20, "slow": 50}) == "fast=5, slow=20"
    assert _worded(DECLARED, DECLARED) == "as declared"
    assert _worded({**DECLARED, "b": {"c": {"z": 4}}}, DECLARED) == "as declared, but b.c.z=4"


def test_a_finding_of_several_strategies_stands_once_and_names_them() -> None:
    same = Finding(code="index_level", severity="note", text="an index", remedy="a fund")
    own = Finding(code="few_trades", severity="warning", text="3 trades", remedy="more")
    both = replace(evidence(), findings=(same, own)), replace(evidence(), findings=(same,))
    studies = [SimpleNamespace(label=label, evidence=one) for label, one in zip(("one", "two"), both, strict=True)]
    rows = _findings(cast("Any", studies))
    assert {(row.strategy, row.code) for row in rows} == {("one, two", "index_level"), ("one", "few_trades")}
