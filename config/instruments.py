"""What is traded: instruments by symbol, and option symbols in the OCC's 21-character form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from config.errors import InputError

__all__ = ["OptionContract", "format_occ", "parse_occ"]

_OCC = re.compile(r"^([A-Z0-9./]{1,6}) *(\d{6})([CP])(\d{8})$")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionContract:
    """One listed option.

    Parameters
    ----------
    strike : Decimal
        In the underlying's currency, to a tenth of a cent.
    right : {"C", "P"}
    """

    root: str
    expiry: date
    right: Literal["C", "P"]
    strike: Decimal


def format_occ(contract: OptionContract) -> str:
    """The compact OCC symbol, without the padding blanks: ``AAPL140621C00650000``.

    Raises
    ------
    InputError
        The strike has more than three decimals or does not fit eight digits.
    """
    mills = contract.strike * 1000
    if mills != mills.to_integral_value() or not 0 < mills < 10**8:
        raise InputError(
            f"strike {contract.strike} of {contract.root} cannot be written in an OCC symbol",
            remedy="OCC strikes run from 0.001 to 99999.999 in steps of 0.001",
        )
    return f"{contract.root}{contract.expiry:%y%m%d}{contract.right}{int(mills):08d}"


def parse_occ(symbol: str) -> OptionContract:
    """Read an OCC symbol, padded or compact.

    Raises
    ------
    InputError
        The text is not an OCC symbol.
    """
    found = _OCC.match(symbol.strip().upper())
    if not found:
        raise InputError(f"{symbol!r} is not an OCC option symbol", remedy="write it as AAPL140621C00650000")
    root, day, right, mills = found.groups()
    try:
        expiry = datetime.strptime(day, "%y%m%d").date()
    except ValueError as problem:
        raise InputError(f"{symbol!r} carries the impossible expiry {day}") from problem
    return OptionContract(root=root, expiry=expiry, right="C" if right == "C" else "P", strike=Decimal(int(mills)) / 1000)
