"""Puts a strategy behind the alias `paper` of a home folder, with evidence that passes the gate."""

from __future__ import annotations

from typing import Any

from config.settings import Settings
from tests.tracking.samples import evidence


def promote_to_paper(settings: Settings, config: dict[str, Any], symbols: list[str]) -> str:
    """Backtest a configuration on the lake, register it and move the alias; the strategy's name."""
    from backtests.equity_vectorbt import equity_backtest_flow
    from tracking.gates import evaluate
    from tracking.registry import create_model_registry

    (tested,) = equity_backtest_flow(symbols, [config], "paper", settings=settings)
    spec = tested.result.spec
    shown = evidence(strategy=spec.name, spec_digest=spec.digest)
    verdict = evaluate(shown, "paper")
    registry = create_model_registry(settings)
    version = registry.register(spec.as_dict(), tested.run_id, shown, verdict)
    registry.promote(spec.name, version, "paper", verdict, "a test")
    return spec.name
