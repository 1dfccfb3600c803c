"""What a backtest hands to the gates: the evidence behind one strategy version, and the findings about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["DataKind", "Evidence", "Finding", "Severity"]

DataKind = Literal["real", "modelled"]
Severity = Literal["serious", "warning", "note"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing a reader of a result should know before trusting it.

    Parameters
    ----------
    code : str
        Stable name, such as ``few_trades``.
    severity : {"serious", "warning", "note"}
    text : str
        What was found, with its numbers.
    remedy : str
        What to do about it.
    """

    code: str
    severity: Severity
    text: str
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """The numbers that decide a promotion. None means *not applicable*, and a gate says how it treats that.

    Parameters
    ----------
    strategy : str
        Name as listed.
    spec_digest : str
        SHA-256 of the strategy's specification.
    data_kind : {"real", "modelled"}
    role : {"candidate", "benchmark"}
        A benchmark is what candidates must beat; it is never promoted on its merits.
    sessions, trades : int
        Sample sizes: sessions with a return, closed trades.
    total_return, cagr, volatility_ann, max_drawdown : float
        Fractions; `max_drawdown` is positive (0.3: thirty per cent below the peak).
    sharpe : float
        Annualised.
    sharpe_interval : tuple of (float, float)
        Stationary-bootstrap interval at the level of the settings.
    trials, trials_all : int
        Configurations of this family ever tried on these symbols, and of all families: the ledger's count.
    dsr, pbo, spa_p : float or None
        Deflated Sharpe ratio (of `trials_all`), probability of backtest overfitting, and the p-value of the superior-
        predictive-ability test against the benchmark.
    walk_forward_sharpe : float or None
        Annualised Sharpe of the stitched out-of-sample folds.
    universe_point_in_time : bool
        False when the symbols were chosen with hindsight (survivors).
    findings : tuple of Finding
    """

    strategy: str
    spec_digest: str
    data_kind: DataKind
    role: Literal["candidate", "benchmark"]
    sessions: int
    trades: int
    total_return: float
    cagr: float
    volatility_ann: float
    max_drawdown: float
    sharpe: float
    sharpe_interval: tuple[float, float]
    trials: int
    trials_all: int
    dsr: float | None
    pbo: float | None
    spa_p: float | None
    walk_forward_sharpe: float | None
    universe_point_in_time: bool
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
