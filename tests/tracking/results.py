"""A small result with the shape of `backtests.result.BacktestResult`: four sessions, one trade, one dollar of profit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from config.hashing import digest

SESSIONS = pd.DatetimeIndex(["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07"], name="session")


@dataclass(frozen=True)
class Spec:
    """A specification document."""

    document: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def digest(self) -> str:
        return digest(self.document)

    def as_dict(self) -> dict[str, Any]:
        return dict(self.document)


def spec(name: str, **params: Any) -> Spec:
    return Spec(
        {
            "name": name,
            "family": "sma",
            "kind": "weights",
            "params": params or {"fast": 20, "slow": 50},
            "symbols": ["NASDAQ"],
            "convention": {"fee_bps": 10.0},
        }
    )


@dataclass(frozen=True)
class Result:
    """What a tracker logs."""

    spec: Spec
    engine: str = "vectorbt"
    snapshot_id: str = "5" * 64
    data_kind: str = "real"
    orders_hash: str = "0" * 64
    equity: pd.Series = field(default_factory=lambda: pd.Series([100.0, 100.0, 103.0, 101.0], index=SESSIONS))
    orders: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(
            {
                "session": SESSIONS[[1, 3]],
                "symbol": ["NASDAQ", "NASDAQ"],
                "side": ["buy", "sell"],
                "quantity": [1.0, 1.0],
                "price": [100.0, 101.0],
                "fee": [0.0, 0.0],
            }
        )
    )
    trades: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"symbol": ["NASDAQ"], "pnl": [1.0]}))
