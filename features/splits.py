"""Prices as traded, put on the share count of the panel's last session by the splits known at the time of asking."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from config.errors import QualityError

__all__ = ["split_factors"]


def split_factors(actions: pa.Table, symbols: tuple[str, ...], sessions: pd.DatetimeIndex) -> npt.NDArray[np.float64] | None:
    """What each price is divided by, and each volume multiplied with: the product of the splits that came later.

    Parameters
    ----------
    actions : Table
        Rows of `corporate_actions`, of kind split, as known at `as_of`; several sources may report the same split.
    symbols, sessions
        The panel's; a split after its last session is not taken back.

    Returns
    -------
    ndarray of shape (n_sessions, n_symbols), or None where nothing is to be adjusted
        A split of ex-date d counts on the sessions before d.

    Raises
    ------
    QualityError
        A split's value is not positive, or sources disagree about it.
    """
    splits: dict[tuple[str, pd.Timestamp], tuple[float, str]] = {}
    for row in actions.select(["symbol", "ex_date", "source", "value"]).to_pylist():
        key, value, source = (row["symbol"], pd.Timestamp(row["ex_date"])), row["value"], row["source"]
        if key[0] not in symbols or not sessions[0] < key[1] <= sessions[-1]:
            continue
        if value is None or not value > 0:
            raise QualityError(f"{key[0]}: the split of {key[1]:%Y-%m-%d} from {source} is {value}", remedy="correct the action")
        other = splits.setdefault(key, (value, source))
        if other[0] != value:
            raise QualityError(
                f"{key[0]}: {other[1]} and {source} disagree about the split of {key[1]:%Y-%m-%d}: {other[0]:g} and {value:g}",
                remedy="correct one of the two corporate actions, then read again",
            )
    if not splits:
        return None
    factors = np.ones((len(sessions), len(symbols)))
    for (symbol, ex_date), (value, _) in sorted(splits.items()):
        factors[: int(sessions.searchsorted(ex_date)), symbols.index(symbol)] *= value
    return factors
