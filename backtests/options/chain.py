"""An option chain over time, laid out for a backtest: one slice a session, contracts as numbers.

1. `ChainBook.from_rows` checks the rows, keeps the last quote of each contract and session, and numbers the contracts.
2. `ChainBook.on` gives a session's slice, `ChainBook.quote` one contract's quote in it by binary search.
3. `deltas` recomputes deltas from the quotes themselves: vendors' Greeks are not trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from config.errors import InputError, QualityError
from risk.greeks import DAYS_PER_YEAR, forward_from_parity, greeks, implied_volatility

__all__ = ["CHAIN_COLUMNS", "ChainBook", "Contract", "Quote", "Snapshot", "deltas"]

Floats: TypeAlias = NDArray[np.float64]

CHAIN_COLUMNS = (
    "occ_symbol", "session", "quote_time", "available_at", "underlying", "expiry", "strike", "right", "multiplier", "style",
    "settlement", "bid", "ask", "data_kind",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contract:
    """One listed contract. `settlement` is physical, pm_cash (closing value) or am_cash (opening value)."""

    symbol: str
    expiry: pd.Timestamp
    strike: float
    right: Literal["C", "P"]
    multiplier: float
    style: str
    settlement: str

    def intrinsic(self, spot: float) -> float:
        """Value if exercised at `spot`, a share."""
        return max(spot - self.strike, 0.0) if self.right == "C" else max(self.strike - spot, 0.0)


@dataclass(frozen=True, slots=True)
class Quote:
    """Bid and ask of one contract in one snapshot; NaN where the side is missing."""

    bid: float
    ask: float

    @property
    def usable(self) -> bool:
        """Two-sided and sensible: an ask above zero, a bid at or below it (a zero bid is a quote, 0/0 is none)."""
        return bool(self.ask > 0.0 and 0.0 <= self.bid <= self.ask)

    @property
    def mid(self) -> float:
        """Half-way between bid and ask."""
        return (self.bid + self.ask) / 2.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The last quotes of one session; arrays of shape (n_contracts,), ascending by contract number.

    `known` marks the rows that were available when the snapshot was taken: decisions see only those.
    """

    contract: NDArray[np.int64]
    bid: Floats
    ask: Floats
    known: NDArray[np.bool_]


class ChainBook:
    """All quotes of one underlying's options.

    Parameters
    ----------
    contracts : tuple of Contract
        By number.
    slices : mapping of Timestamp to Snapshot
        By session.
    underlying : str
    data_kind : {"real", "modelled"}
        Modelled if any row is.
    """

    def __init__(
        self,
        contracts: tuple[Contract, ...],
        slices: Mapping[pd.Timestamp, Snapshot],
        underlying: str,
        data_kind: Literal["real", "modelled"],
    ) -> None:
        self.contracts = contracts
        self.slices = dict(slices)
        self.underlying = underlying
        self.data_kind = data_kind
        self.strikes = np.array([contract.strike for contract in contracts])
        self.is_call = np.array([contract.right == "C" for contract in contracts])
        self.expiries = np.array([contract.expiry.to_datetime64() for contract in contracts], dtype="datetime64[ns]")

    @classmethod
    def from_rows(cls, rows: pa.Table | pd.DataFrame) -> ChainBook:
        """Read rows of the table `option_quotes`.

        Raises
        ------
        InputError
            No rows, a column is missing, or several underlyings.
        QualityError
            A contract without a positive strike and multiplier, or with an unknown right or settlement.
        """
        lacking = [
            name for name in CHAIN_COLUMNS if name not in (rows.column_names if isinstance(rows, pa.Table) else rows.columns)
        ]
        if lacking:
            raise InputError(f"the option chain lacks the columns {', '.join(lacking)}")
        frame = rows.select(list(CHAIN_COLUMNS)).to_pandas() if isinstance(rows, pa.Table) else rows.loc[:, list(CHAIN_COLUMNS)]
        if frame.empty:
            raise InputError("the option chain has no quotes", remedy="run quant ingest options, or ask for other sessions")
        names = frame["underlying"].unique()
        if len(names) != 1:
            raise InputError(f"the chain holds options on {', '.join(map(str, names))}; an options backtest runs on one underlying")
        code, symbols = pd.factorize(frame["occ_symbol"], sort=True)
        frame = frame.assign(code=code, session=pd.to_datetime(frame["session"]))
        frame = frame.sort_values(["session", "code", "quote_time"], kind="stable").drop_duplicates(
            ["session", "code"], keep="last"
        )
        firsts = frame.drop_duplicates("code").set_index("code").reindex(range(len(symbols)))
        contracts = tuple(_contract(str(symbol), row) for symbol, row in zip(symbols, firsts.to_dict("records"), strict=True))
        kind: Literal["real", "modelled"] = "real" if (frame["data_kind"] == "real").all() else "modelled"
        return cls(contracts, _slices(frame), str(names[0]), kind)

    def on(self, session: pd.Timestamp) -> Snapshot | None:
        """The session's slice; None where there is no chain."""
        return self.slices.get(session)

    def quote(self, session: pd.Timestamp, number: int) -> Quote | None:
        """One contract's quote in the session's snapshot; None where it has no row."""
        snapshot = self.slices.get(session)
        if snapshot is None:
            return None
        at = int(np.searchsorted(snapshot.contract, number))
        if at == snapshot.contract.size or snapshot.contract[at] != number:
            return None
        return Quote(float(snapshot.bid[at]), float(snapshot.ask[at]))


def _contract(symbol: str, row: dict[str, Any]) -> Contract:
    strike, multiplier = float(row["strike"]), float(row["multiplier"])
    if not (strike > 0.0 and multiplier > 0.0):
        raise QualityError(f"{symbol}: strike {strike} and multiplier {multiplier} must be positive")
    if row["right"] not in ("C", "P"):
        raise QualityError(f"{symbol}: right {row['right']!r} is neither C nor P")
    if row["settlement"] not in ("physical", "pm_cash", "am_cash"):
        raise QualityError(
            f"{symbol}: settlement {row['settlement']!r} is not known", remedy="use physical, pm_cash (closing value) or am_cash"
        )
    expiry = pd.Timestamp(row["expiry"])
    return Contract(symbol, expiry, strike, row["right"], multiplier, str(row["style"]), str(row["settlement"]))


def _slices(frame: pd.DataFrame) -> dict[pd.Timestamp, Snapshot]:
    sessions = frame["session"].to_numpy()
    code, bid, ask = frame["code"].to_numpy(), frame["bid"].to_numpy(np.float64), frame["ask"].to_numpy(np.float64)
    quote_time = frame["quote_time"]
    known = (frame["available_at"] <= quote_time.groupby(sessions).transform("max")).to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], sessions[1:] != sessions[:-1]]))
    ends = np.append(starts[1:], len(sessions))
    return {
        pd.Timestamp(sessions[a]): Snapshot(code[a:b], bid[a:b], ask[a:b], known[a:b]) for a, b in zip(starts, ends, strict=True)
    }


def deltas(book: ChainBook, session: pd.Timestamp, numbers: NDArray[np.int64], mid: Floats, spot: float, rate_ann: float) -> Floats:
    """Deltas of one expiry's contracts out of their own mid quotes.

    Parameters
    ----------
    numbers, mid : ndarray of shape (n_contracts,)
        Contracts of one expiry, and their mid quotes in this session's snapshot.
    spot : float
        The underlying's close.
    rate_ann : float
        Continuously compounded; the dividend yield is read off put-call parity at the pair nearest the money (without a pair
        the forward is spot with interest).

    Returns
    -------
    ndarray of shape (n_contracts,)
        NaN where a mid implies no volatility.
    """
    days = (book.expiries[numbers[0]] - session.to_datetime64()) / np.timedelta64(1, "D")
    years = float(days) / DAYS_PER_YEAR
    strike, call = book.strikes[numbers], book.is_call[numbers]
    calls = pd.Series(mid[call], index=strike[call])
    pairs = pd.concat({"C": calls, "P": pd.Series(mid[~call], index=strike[~call])}, axis=1).dropna()
    growth = np.exp(rate_ann * years)
    forward = spot * growth
    if len(pairs):
        nearest = pairs.iloc[[int((pairs["C"] - pairs["P"]).abs().to_numpy().argmin())]]
        forward, _ = forward_from_parity(nearest.index.to_numpy(), nearest["C"], nearest["P"], discount=1.0 / growth)
    carry = rate_ann - np.log(forward / spot) / years
    volatility = implied_volatility(call, mid, spot, strike, years, rate_ann, carry)
    return greeks(call, spot, strike, years, rate_ann, carry, volatility).delta
