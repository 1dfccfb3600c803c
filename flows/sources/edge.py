"""Where frames of bars come in: declared columns and types, and each row that does not fit refused by itself.

`checked` converts what converts, and turns every failing row into a `RefusedRow` that names its place, its column and its value.
What the values mean (a high below a low, a jump) is no matter of the edge: lake.rules says it, in SQL.

Not pandera: measured with 0.35 and pyarrow 25.0.1, importing it makes pyarrow read aware datetimes of a zone other than UTC as if
they were UTC, in the whole process and without a word. Prices would be known hours too early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from config.errors import DataError
from flows.sources.base import RefusedRow

__all__ = ["Checked", "checked"]

Checked = tuple[pd.DataFrame, np.ndarray[Any, np.dtype[np.bool_]], tuple[RefusedRow, ...]]
_NUMBERS = ("open", "high", "low", "close", "volume")


def checked(frame: pd.DataFrame, *, describe: Callable[[Any], str], plain: Callable[[pd.Series], dict[str, Any]]) -> Checked:
    """Part the rows of a frame of bars that are bars from those that are not.

    Parameters
    ----------
    frame : DataFrame
        `symbol`, `session` (naive midnights) and any of open, high, low, close, volume.
    describe : callable
        Words the place of a row from its index label: ``prices.csv line 12``.
    plain : callable
        A row as plain values, for quarantine.

    Returns
    -------
    good : DataFrame
        Prices and volumes as float64, NaN where absent; the index labels it had.
    kept : ndarray of bool
        Which rows of `frame` those are.
    refused : tuple of RefusedRow
        The others, in order: `wrong_type` for what is no number, `value_missing` where symbol or session is empty.

    Raises
    ------
    DataError
        The frame as a whole is none of bars: a column is missing, or sessions are no dates.
    """
    for column in ("symbol", "session"):
        if column not in frame.columns:
            raise DataError(f"a frame of {len(frame)} rows is no frame of bars: it has no column {column}")
    if not pd.api.types.is_datetime64_dtype(frame["session"]):
        raise DataError(
            f"a frame of {len(frame)} rows is no frame of bars: column session holds {frame['session'].dtype}, no dates"
        )
    symbols = frame["symbol"]
    bad = {
        "symbol": np.asarray(symbols.isna() | (symbols.astype(str).str.strip() == "")),
        "session": np.asarray(frame["session"].isna()),
    }
    numbers: dict[str, Any] = {}
    for name in _NUMBERS:
        if name in frame.columns:
            values = pd.to_numeric(frame[name], errors="coerce").astype("float64")
            bad[name] = np.asarray(values.isna() & frame[name].notna())
            numbers[name] = values
    wrong = np.logical_or.reduce(list(bad.values()))
    refused = tuple(_refusal(frame, int(at), bad, describe, plain) for at in np.flatnonzero(wrong))
    return frame.assign(**numbers).loc[~wrong], ~wrong, refused


def _refusal(
    frame: pd.DataFrame,
    at: int,
    bad: dict[str, Any],
    describe: Callable[[Any], str],
    plain: Callable[[pd.Series], dict[str, Any]],
) -> RefusedRow:
    column = next(name for name, cells in bad.items() if cells[at])
    row, missing = frame.iloc[at], column in ("symbol", "session")
    said = f"column {column} is empty" if missing else f"column {column}: {row[column]!r} cannot be read"
    name = row["symbol"]
    return RefusedRow(
        symbol=None if column == "symbol" else str(name),
        rule="value_missing" if missing else "wrong_type",
        reason=f"{describe(frame.index[at])}: {said}",
        raw=plain(row),
    )
