"""The shipped strategies, by name, and how a configuration becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from backtests.strategies.bollinger_reversion import BollingerReversion
from backtests.strategies.buy_and_hold import BuyAndHold
from backtests.strategies.combo import Combo
from backtests.strategies.parameters import Parameter
from backtests.strategies.rsi_reversion import RsiReversion
from backtests.strategies.sma_crossover import SmaCrossover
from backtests.strategy import Strategy
from config.errors import ConfigError, UnknownNameError, did_you_mean

__all__ = [
    "STRATEGIES",
    "BollingerReversion",
    "BuyAndHold",
    "Combo",
    "Parameter",
    "RsiReversion",
    "SmaCrossover",
    "from_config",
    "get_strategy",
    "neighbours",
    "shipped",
]

STRATEGIES: dict[str, type[Any]] = {
    strategy.name: strategy for strategy in (BollingerReversion, BuyAndHold, Combo, RsiReversion, SmaCrossover)
}
SHIPPED = Path(__file__).parents[2] / "config" / "strategies"


def get_strategy(name: str, params: Mapping[str, Any] | None = None) -> Strategy:
    """A strategy by name.

    Parameters
    ----------
    name : str
        A key of `STRATEGIES`.
    params : mapping, optional
        Without any: the configuration shipped in ``config/strategies/<name>.yaml``. With some: the others take their defaults,
        which are the shipped values too; of `combo` only the parts that are given exist.

    Raises
    ------
    UnknownNameError
        No strategy has that name.
    ConfigError
        An unknown parameter, or a value outside its range.
    """
    if name not in STRATEGIES:
        raise UnknownNameError(f"no strategy is called {name!r}", remedy=did_you_mean(name, tuple(STRATEGIES)))
    kind = STRATEGIES[name]
    if params is None:
        params = _shipped_params(name)
    known = tuple(field.name for field in fields(kind))
    for key in params:
        if key not in known:
            remedy = did_you_mean(str(key), known) if known else f"{name} has no parameters"
            raise ConfigError(f"{name} has no parameter {key!r}", remedy=remedy)
    strategy: Strategy = kind(**params)
    return strategy


def from_config(config: Mapping[str, Any]) -> Strategy:
    """A strategy from a dictionary: ``name`` and its parameters, either beside it or under ``params``.

    Raises
    ------
    ConfigError
        No name, parameters in both places, or as `get_strategy`.
    """
    if "name" not in config:
        raise ConfigError(f"the strategy configuration {dict(config)!r} has no 'name'", remedy=f"names: {', '.join(STRATEGIES)}")
    beside = {key: value for key, value in config.items() if key not in ("name", "params")}
    under = config.get("params")
    if under is not None and beside:
        raise ConfigError(
            f"{config['name']}: parameters both beside the name ({', '.join(beside)}) and under 'params'",
            remedy="put all in one place",
        )
    params = beside if under is None else under
    return get_strategy(str(config["name"]), params or None)


def neighbours(strategy: Strategy) -> list[Strategy]:
    """The near configurations on the declared grid (at most 14, fixed order): for parameter cliffs and overfitting tests."""
    near: list[dict[str, Any]] = getattr(strategy, "neighbours", list)()
    return [type(strategy)(**params) for params in near]


def shipped() -> dict[str, Strategy]:
    """The configurations in ``config/strategies/``, by file name."""
    return {path.stem: from_config(_read(path)) for path in sorted(SHIPPED.glob("*.yaml"))}


def _shipped_params(name: str) -> dict[str, Any]:
    path = SHIPPED / f"{name}.yaml"
    return {key: value for key, value in _read(path).items() if key != "name"} if path.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no strategy configuration", remedy="write 'name:' and the parameters")
    return content
