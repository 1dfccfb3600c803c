"""What a reader of a backtest should know before trusting it, most serious first, each with its remedy.

`find` runs every check of `_CHECKS` on one case; a check returns a `Finding` with its numbers, or None. *Serious* means that the
headline number cannot be believed as it stands (the gates refuse on it), *warning* that it leans on something, *note* that it means
something else than a newcomer may think.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from backtests.result import BacktestResult
from features.panel import MarketPanel
from risk.metrics import total_return
from risk.trade_metrics import notional
from tracking.evidence import Finding, Severity

__all__ = ["FINDING_CODES", "find"]

_ORDER: dict[Severity, int] = {"serious": 0, "warning": 1, "note": 2}

# Below thirty trades the normal approximation behind every interval is poor; below ten there is hardly a sample.
FEW_TRADES, HARDLY_A_SAMPLE = 30, 10
BEST_SESSIONS = 5
# Half of a profit from one trade, or half of it paid in costs: the rest no longer carries the conclusion by itself.
ONE_TRADE_SHARE = 0.5
COST_SHARE = 0.5
# A plateau keeps most of its height; a neighbourhood at half the chosen Sharpe ratio is a cliff.
CLIFF = 0.5
STALE_SHARE, STALE_SERIOUS, FILLS_FOR_A_SHARE = 0.2, 0.5, 10
# The usual definition of a bear market.
BEAR_MARKET = 0.2
SHORT_YEARS, VERY_SHORT_YEARS = 3.0, 1.0


@dataclass(frozen=True, kw_only=True)
class _Case:
    result: BacktestResult
    metrics: Mapping[str, float]
    panel: MarketPanel
    benchmark: pd.Series | None
    neighbourhood: Sequence[float] | None
    role: Literal["candidate", "benchmark"]
    universe_point_in_time: bool
    not_tradable: frozenset[str]

    @property
    def profit(self) -> float:
        """Account currency, after costs."""
        return float(self.result.equity.iloc[-1]) - self.result.spec.convention.initial_cash

    @property
    def years(self) -> float:
        return len(self.result.returns) / self.result.spec.convention.sessions_per_year


def find(
    result: BacktestResult,
    *,
    metrics: Mapping[str, float],
    panel: MarketPanel,
    benchmark: pd.Series | None = None,
    neighbourhood: Sequence[float] | None = None,
    role: Literal["candidate", "benchmark"] = "candidate",
    universe_point_in_time: bool = True,
    not_tradable: Collection[str] = (),
) -> tuple[Finding, ...]:
    """Look for the known ways in which a backtest misleads.

    Parameters
    ----------
    result : BacktestResult
    metrics : mapping of str to float
        From `risk.metrics.performance` on the same result.
    panel : MarketPanel
        The prices it was run on; equity checks look at its opens, closes and basis.
    benchmark : Series of shape (n_sessions - 1,), optional
        The benchmark's session returns over the result's sessions; without it nothing is compared.
    neighbourhood : sequence of float, optional
        Annualised Sharpe ratios of the configurations next to this one, itself not included; NaN is left out.
    role : {"candidate", "benchmark"}
        A benchmark trades once by design: checks on trades and comparisons with itself do not apply.
    universe_point_in_time : bool
        False when the symbols were chosen with hindsight.
    not_tradable : collection of str
        Symbols that are index levels and not instruments.

    Returns
    -------
    tuple of Finding
        Serious ones first, then in the order of `FINDING_CODES`.
    """
    case = _Case(
        result=result,
        metrics=metrics,
        panel=panel,
        benchmark=benchmark,
        neighbourhood=neighbourhood,
        role=role,
        universe_point_in_time=universe_point_in_time,
        not_tradable=frozenset(not_tradable),
    )
    found = [finding for check in _CHECKS.values() if (finding := check(case)) is not None]
    return tuple(sorted(found, key=lambda finding: _ORDER[finding.severity]))


def _modelled_data(case: _Case) -> Finding | None:
    if case.result.data_kind == "real":
        return None
    return _finding(
        "modelled_data",
        "serious",
        "prices of this run were modelled, not quoted: the result shows what the model implies, not what was paid",
        "run it again on recorded quotes; until then it cannot be promoted",
    )


def _survivors(case: _Case) -> Finding | None:
    if case.universe_point_in_time:
        return None
    return _finding(
        "survivors",
        "serious",
        f"the {len(case.result.spec.symbols)} symbols were chosen with hindsight: those that failed on the way are missing",
        "use a universe with membership dates (table universe_membership), delisted symbols included",
    )


def _never_traded(case: _Case) -> Finding | None:
    if len(case.result.orders):
        return None
    return _finding(
        "never_traded",
        "serious",
        f"no order in {len(case.result.equity)} sessions: every number is the idle account's",
        "check the warm-up, the filters and that the symbols have prices in this period",
    )


def _few_trades(case: _Case) -> Finding | None:
    trades = len(case.result.trades)
    if case.role == "benchmark" or trades >= FEW_TRADES or not len(case.result.orders):
        return None
    return _finding(
        "few_trades",
        "serious" if trades < HARDLY_A_SAMPLE else "warning",
        f"{trades} closed trades; below {FEW_TRADES} the Sharpe ratio and its interval say little",
        "test a longer history or more symbols, or a rule that trades more often",
    )


def _one_trade(case: _Case) -> Finding | None:
    if case.role == "benchmark" or case.profit <= 0.0 or len(case.result.trades) < 2:
        return None
    best = float(case.result.trades["pnl"].max())
    share = best / case.profit
    if share < ONE_TRADE_SHARE:
        return None
    rest = case.profit - best
    return _finding(
        "one_trade",
        "serious" if rest <= 0.0 else "warning",
        f"the best of {len(case.result.trades)} trades earned {best:,.0f}, {share:.0%} of the profit of {case.profit:,.0f}; "
        f"without it {rest:,.0f}",
        "look at that trade; ask whether the rule, and not one event, earned the money",
    )


def _best_sessions(case: _Case) -> Finding | None:
    returns = case.result.returns.to_numpy(dtype=np.float64)
    if case.profit <= 0.0 or returns.size <= 2 * BEST_SESSIONS:
        return None
    kept = np.sort(returns)[:-BEST_SESSIONS]
    without = float(total_return(kept))
    if without > 0.0:
        return None
    return _finding(
        "best_sessions",
        "serious",
        f"without its {BEST_SESSIONS} best of {returns.size} sessions the total return is {without:.1%} "
        f"instead of {float(total_return(returns)):.1%}",
        "expect not to catch them: judge the strategy on the rest, or on more years",
    )


def _costs_dominate(case: _Case) -> Finding | None:
    orders = case.result.orders
    if not len(orders):
        return None
    costs, traded = _costs(case)
    gross = case.profit + costs
    if gross <= 0.0 or costs / gross < COST_SHARE:
        return None
    even = "" if math.isnan(traded) else f"; it breaks even at {gross / traded * 1e4:.1f} bps a fill"
    return _finding(
        "costs_dominate",
        "serious" if case.profit <= 0.0 else "warning",
        f"costs of {costs:,.0f} take {costs / gross:.0%} of the gross profit of {gross:,.0f}; net {case.profit:,.0f}{even}",
        "trade less often (longer windows, a band around the signal) or show that fills are cheaper than assumed",
    )


def _parameter_cliff(case: _Case) -> Finding | None:
    known = np.asarray(case.neighbourhood if case.neighbourhood is not None else (), dtype=np.float64)
    known = known[np.isfinite(known)]
    own = case.metrics["sharpe"]
    if known.size == 0 or not own > 0.0:
        return None
    median = float(np.median(known))
    if median >= CLIFF * own:
        return None
    return _finding(
        "parameter_cliff",
        "serious" if median <= 0.0 else "warning",
        f"the {known.size} neighbouring configurations have a median Sharpe ratio of {median:.2f} against {own:.2f} here",
        "choose from the middle of a plateau, not the peak; a small change of a parameter should not matter",
    )


def _stale_fills(case: _Case) -> Finding | None:
    if case.result.spec.convention.fill != "next_open" or case.result.spec.kind != "weights":
        return None
    stale, checked = _stale_count(case)
    if checked < FILLS_FOR_A_SHARE or stale / checked < STALE_SHARE:
        return None
    return _finding(
        "stale_fills",
        "serious" if stale / checked >= STALE_SERIOUS else "warning",
        f"{stale} of {checked} fills ({stale / checked:.0%}) were at an open that equals the previous close: the source "
        "repeats the close as the open, so these orders were filled before they could be sent",
        "use a source with real opening prices",
    )


def _same_close(case: _Case) -> Finding | None:
    if case.result.spec.convention.fill != "same_close" or not len(case.result.orders):
        return None
    why = "" if case.panel.has_opens else " (the source has no opens)"
    return _finding(
        "same_close_fills",
        "warning",
        f"all {len(case.result.orders)} orders were filled at the close that decided them{why}: nobody can do that",
        "use a source with opens and fill: next_open, or decide on the session before",
    )


def _vendor_adjusted(case: _Case) -> Finding | None:
    adjusted = [symbol for symbol in case.result.spec.symbols if case.panel.basis.get(symbol) == "vendor_adjusted"]
    if not adjusted:
        return None
    return _finding(
        "vendor_adjusted",
        "warning",
        f"prices of {_listed(adjusted)} were adjusted by the vendor with hindsight of later splits and dividends: levels "
        "differ from what was traded, and history changes with each dividend",
        "use prices as traded with a table of corporate actions",
    )


def _held_past_delisting(case: _Case) -> Finding | None:
    """Engines know no delisting: what nobody sells before it stays in the book at its last close."""
    orders, last = case.result.orders, case.result.equity.index[-1]
    held: list[str] = []
    for symbol in case.result.spec.symbols:
        company = case.panel.companies.get(symbol)
        if company is None or company.delisted is None or pd.Timestamp(company.delisted) > last:
            continue
        of_symbol = orders[orders["symbol"] == symbol]
        signed = np.where(of_symbol["side"] == "buy", 1.0, -1.0) * of_symbol["quantity"].to_numpy(dtype=np.float64)
        if abs(signed.sum()) > 1e-6 * max(float(np.abs(signed).sum()), 1.0):
            got = "an unknown amount" if company.final_value is None else f"{company.final_value:g}"
            held.append(f"{signed.sum():.6g} of {symbol} (delisted {company.delisted}, its holders got {got} a share)")
    if not held:
        return None
    return _finding(
        "held_past_delisting",
        "serious",
        f"{_listed(held)} were still held when there was nothing left to hold, and stay in the result at the last close",
        "end the run before the delisting, or leave the symbol out from its announcement on: what its holders lost is not in here",
    )


def _crisis_only(case: _Case) -> Finding | None:
    if case.role == "benchmark" or case.benchmark is None:
        return None
    market, own = case.benchmark.align(case.result.returns, join="inner")
    falling = _bear_markets(market.to_numpy(dtype=np.float64))
    ahead = np.log1p(own.to_numpy(dtype=np.float64)) - np.log1p(market.to_numpy(dtype=np.float64))
    inside, outside = float(ahead[falling].sum()), float(ahead[~falling].sum())
    if not (inside > 0.0 and outside < 0.0 and inside + outside > 0.0):
        return None
    return _finding(
        "crisis_only",
        "warning",
        f"it is ahead of the benchmark by {math.expm1(inside):.1%} in the {int(falling.sum())} sessions of its bear markets and "
        f"behind by {-math.expm1(outside):.1%} in the other {int((~falling).sum())}",
        "treat it as insurance, and ask what it costs in the years without a crisis",
    )


def _behind_benchmark(case: _Case) -> Finding | None:
    if case.role == "benchmark" or case.benchmark is None:
        return None
    market, own = case.benchmark.align(case.result.returns, join="inner")
    theirs, ours = float(total_return(market.to_numpy())), float(total_return(own.to_numpy()))
    if ours >= theirs:
        return None
    return _finding(
        "behind_benchmark",
        "note",
        f"total return {ours:.1%} against {theirs:.1%} of the benchmark over the same {len(own)} sessions",
        "compare the risk taken (volatility, drawdown) before preferring it",
    )


def _short_history(case: _Case) -> Finding | None:
    if case.years >= SHORT_YEARS:
        return None
    return _finding(
        "short_history",
        "serious" if case.years < VERY_SHORT_YEARS else "warning",
        f"{len(case.result.returns)} sessions are {case.years:.1f} years: hardly more than one kind of market",
        "ingest a longer history, or wait",
    )


def _index_level(case: _Case) -> Finding | None:
    levels = [symbol for symbol in case.result.spec.symbols if symbol in case.not_tradable]
    if not levels:
        return None
    return _finding(
        "index_level",
        "note",
        f"{_listed(levels)} is an index level: it cannot be bought, and its dividends are not in these returns",
        "trade a fund on it, and use that fund's prices and dividends",
    )


_CHECKS: dict[str, Callable[[_Case], Finding | None]] = {
    "modelled_data": _modelled_data,
    "survivors": _survivors,
    "never_traded": _never_traded,
    "few_trades": _few_trades,
    "one_trade": _one_trade,
    "best_sessions": _best_sessions,
    "costs_dominate": _costs_dominate,
    "parameter_cliff": _parameter_cliff,
    "stale_fills": _stale_fills,
    "same_close_fills": _same_close,
    "vendor_adjusted": _vendor_adjusted,
    "held_past_delisting": _held_past_delisting,
    "crisis_only": _crisis_only,
    "behind_benchmark": _behind_benchmark,
    "short_history": _short_history,
    "index_level": _index_level,
}
FINDING_CODES = tuple(_CHECKS)


def _finding(code: str, severity: Severity, text: str, remedy: str) -> Finding:
    return Finding(code=code, severity=severity, text=text, remedy=remedy)


def _costs(case: _Case) -> tuple[float, float]:
    """Fees plus slippage, and the notional traded (NaN where it is unknown), in account currency.

    Slippage is inside the fill price of an equity order; an option's spread is in its quote and cannot be told apart here.
    """
    orders = case.result.orders
    traded = notional(orders)
    fees = float(orders["fee"].sum())
    if case.result.spec.kind != "weights":
        return fees, float(traded.sum(skipna=False))
    slip = case.result.spec.convention.slippage
    inside = np.where(orders["side"] == "buy", slip / (1.0 + slip), slip / (1.0 - slip))
    return fees + float((traded * inside).sum()), float(traded.sum(skipna=False))


def _stale_count(case: _Case) -> tuple[int, int]:
    """Fills at an open that repeats the symbol's previous close, and the fills that could be checked."""
    before = case.panel.close.ffill().shift(1)
    stale = checked = 0
    for session, symbol in case.result.orders[["session", "symbol"]].itertuples(index=False, name=None):
        if symbol not in case.panel.open.columns or session not in case.panel.open.index:
            continue
        opened, closed = (float(frame.loc[session, symbol]) for frame in (case.panel.open, before))
        if math.isnan(opened) or math.isnan(closed):
            continue
        checked += 1
        stale += int(opened == closed)
    return stale, checked


def _bear_markets(market: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which sessions lie between a peak and the trough of a fall of at least `BEAR_MARKET`."""
    level = np.concatenate([[1.0], np.cumprod(1.0 + market)])
    falling = np.zeros(level.size, dtype=np.bool_)
    peak = trough = 0
    for place in range(1, level.size + 1):
        if place == level.size or level[place] >= level[peak]:
            if 1.0 - level[trough] / level[peak] >= BEAR_MARKET:
                falling[peak + 1 : trough + 1] = True
            peak = trough = place
        elif level[place] < level[trough]:
            trough = place
    return falling[1:]


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
