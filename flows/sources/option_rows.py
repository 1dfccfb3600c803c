"""Option quotes of vendors and files as rows of `option_quotes`: symbols are checked, terms are looked up, nothing is guessed.

1. `listed` reads a contract out of its OCC symbol, compares it with what else the vendor says about it, and finds exercise and
   settlement (`INDEX_ROOTS`; an option on a share or a fund is American and delivers it).
2. `session_of` places a snapshot on the session its quotes are of.
3. `quote_table` makes the rows.

A contract that delivers anything but a hundred shares (what a merger or a spin-off leaves behind) is refused: its price says
nothing about the underlying's, and no column could say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa

from config.calendar import session_opens, sessions
from config.errors import InputError
from config.instruments import format_occ, parse_occ
from flows.sources.base import answer_schema
from flows.sources.json_rows import Refusal
from flows.sources.shape import table_of

__all__ = ["INDEX_ROOTS", "OPTIONS_DATASET", "Listed", "Terms", "as_expiry", "listed", "quote_table", "session_of"]

OPTIONS_DATASET = "option_quotes"
NEW_YORK = ZoneInfo("America/New_York")
SHARES = 100.0


@dataclass(frozen=True, slots=True)
class Terms:
    """Exercise and settlement of an index option, as the exchange's specification has them."""

    underlying: str
    style: Literal["american", "european"]
    settlement: Literal["am_cash", "pm_cash"]


def _terms(underlying: str, style: Literal["american", "european"], **roots: Literal["am_cash", "pm_cash"]) -> dict[str, Terms]:
    return {root: Terms(underlying, style, settlement) for root, settlement in roots.items()}


# Cboe's and Nasdaq's product specifications: an AM contract settles to the opening prices of its last morning.
INDEX_ROOTS: dict[str, Terms] = {
    **_terms("SPX", "european", SPX="am_cash", SPXW="pm_cash", SPXPM="pm_cash"),
    **_terms("XSP", "european", XSP="pm_cash"),
    **_terms("OEX", "american", OEX="pm_cash"),
    **_terms("XEO", "european", XEO="pm_cash"),
    **_terms("VIX", "european", VIX="am_cash", VIXW="am_cash"),
    **_terms("NDX", "european", NDX="am_cash", NDXP="pm_cash"),
    **_terms("XND", "european", XND="pm_cash"),
    **_terms("RUT", "european", RUT="am_cash", RUTW="pm_cash"),
    **_terms("MRUT", "european", MRUT="pm_cash"),
    **_terms("DJX", "european", DJX="am_cash"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One standard contract: the columns of `option_quotes` that do not change from quote to quote."""

    occ_symbol: str
    underlying: str
    expiry: date
    strike: float
    right: Literal["C", "P"]
    multiplier: float
    style: str
    settlement: str

    def columns(self) -> dict[str, Any]:
        """By column name."""
        return {name: getattr(self, name) for name in self.__slots__}


def listed(
    symbol: str,
    underlying: str,
    *,
    multiplier: float | None,
    expiry: date | None = None,
    strike: float | None = None,
    right: str | None = None,
    is_index: bool = False,
) -> Listed | Refusal:
    """Read a contract, or say why it is refused.

    Parameters
    ----------
    symbol : str
        OCC symbol, padded or compact.
    underlying : str
        As it was asked for: ``BRK.B``, ``SPX``.
    multiplier : float, optional
        Units of the underlying a contract is on.
    expiry, strike, right : optional
        What is said beside the symbol; each must agree with it. `right` is C, P, call or put in any case.
    is_index : bool
        The underlying is an index: its options are neither American nor delivered unless `INDEX_ROOTS` says so.
    """
    try:
        contract = parse_occ(symbol)
    except InputError as problem:
        return Refusal("bad_occ_symbol", problem.message)
    said = {"expiry": expiry, "strike": None if strike is None else Decimal(str(strike)), "right": right and right[:1].upper()}
    for name, value in said.items():
        if value is not None and value != getattr(contract, name):
            return Refusal("contradicts_symbol", f"{name} {value} beside {symbol}, which says {getattr(contract, name)}")
    terms = INDEX_ROOTS.get(contract.root)
    if multiplier is None or not multiplier > 0:
        return Refusal("multiplier_missing", f"{symbol} does not say how much of {underlying} it is on ({multiplier})")
    if terms is not None and _bare(underlying) != terms.underlying:
        return Refusal("root_of_another", f"{symbol} is an option on {terms.underlying}, not on {underlying}")
    if terms is None:
        if is_index:
            return Refusal("unknown_settlement", f"exercise and settlement of the index options {contract.root} are not known")
        if contract.root != _bare(underlying) or multiplier != SHARES:
            return Refusal(
                "non_standard_deliverable",
                f"{symbol} ({multiplier:g} units, root {contract.root}) does not deliver {SHARES:g} shares of {underlying}",
            )
    return Listed(
        occ_symbol=format_occ(contract),
        underlying=underlying,
        expiry=contract.expiry,
        strike=float(contract.strike),
        right=contract.right,
        multiplier=float(multiplier),
        style=terms.style if terms else "american",
        settlement=terms.settlement if terms else "physical",
    )


def session_of(newest: datetime | None, answered_at: datetime, calendar: str) -> date:
    """The session that a snapshot's quotes are of.

    Parameters
    ----------
    newest : datetime, optional
        The newest of the quotes' own times, aware; None: they have none.
    answered_at : datetime
        The moment of the answer; without quote times the last session that had opened by then.
    """
    moment = newest or answered_at
    day = moment.astimezone(NEW_YORK).date()
    days = sessions(day - timedelta(days=14), day, calendar)
    if newest is None:
        days = days[session_opens(days, calendar) <= pd.Timestamp(answered_at)]
    found: date = days[-1].date()
    return found


def quote_table(records: Sequence[Mapping[str, Any]], **shared: Any) -> pa.Table:
    """Rows of `option_quotes` from records by column name; a column that a record lacks is NULL.

    Parameters
    ----------
    **shared
        Columns that all rows share.
    """
    columns = {
        name: [shared[name]] * len(records) if name in shared else [record.get(name) for record in records]
        for name in answer_schema(OPTIONS_DATASET).names
    }
    return table_of(OPTIONS_DATASET, columns, len(records))


def as_expiry(value: date | str | None, what: str) -> date | None:
    """A user's bound on expiries: a date, or text as 2026-06-18.

    Raises
    ------
    InputError
        The text is no date.
    """
    if value is None or isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise InputError(f"{what} {value!r} is no date", remedy="write it as 2026-06-18") from None


def _bare(underlying: str) -> str:
    """The letters of an underlying, as in its options' symbols: BRK.B, BRK-B and BRK/B are BRKB."""
    return "".join(letter for letter in underlying.upper() if letter.isalnum())
