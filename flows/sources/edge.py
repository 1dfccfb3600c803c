"""Where frames of outside data come in: declared columns (pandera), and each row that does not fit refused by itself.

1. `bar_frame` declares what a frame of bars is, whoever read it.
2. `checked` validates a frame, converts what converts without loss, and turns every failing row into a `RefusedRow` that names its
   place, its column and its value.

What the values mean (a high below a low, a jump) is no matter of the edge: lake.rules says it, in SQL.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from config.errors import DataError
from flows.sources.base import RefusedRow

if TYPE_CHECKING:
    import pandera.pandas as pandera

__all__ = ["Checked", "bar_frame", "checked"]

Checked = tuple[pd.DataFrame, np.ndarray[Any, np.dtype[np.bool_]], tuple[RefusedRow, ...]]


@functools.cache
def bar_frame() -> pandera.DataFrameSchema:
    """A frame of bars: symbol, session, and any of open, high, low, close, volume as numbers or absent."""
    import pandera.pandas as pandera  # a quarter of a second, paid by what reads bars

    def is_a_day(days: pd.Series) -> bool:
        return bool(pd.api.types.is_datetime64_dtype(days))  # naive: a session is a date on its exchange

    number = {
        name: pandera.Column("float64", nullable=True, coerce=True, required=False)
        for name in ("open", "high", "low", "close", "volume")
    }
    named = pandera.Check(lambda symbols: symbols.astype(str).str.strip() != "", name="empty")
    return pandera.DataFrameSchema(
        {
            "symbol": pandera.Column(None, named, nullable=False),
            "session": pandera.Column(None, pandera.Check(is_a_day, name="no dates"), nullable=False),
            **number,
        }
    )


def checked(
    frame: pd.DataFrame,
    schema: pandera.DataFrameSchema,
    *,
    describe: Callable[[Any], str],
    plain: Callable[[pd.Series], dict[str, Any]],
    subject: str = "symbol",
) -> Checked:
    """Part the rows of a frame that are what its schema declares from those that are not.

    Parameters
    ----------
    frame : DataFrame
    schema : DataFrameSchema
    describe : callable
        Words the place of a row from its index label: ``prices.csv line 12``.
    plain : callable
        A row as plain values, for quarantine.
    subject : str
        The column that says what a row is about.

    Returns
    -------
    good : DataFrame
        With the declared types; the index labels it had.
    kept : ndarray of bool
        Which rows of `frame` those are.
    refused : tuple of RefusedRow
        The others, in order: `wrong_type` for a value that is none of its column, `value_missing` for one that must be there.

    Raises
    ------
    DataError
        The frame as a whole is not what it should be: a column is missing, or is of another kind altogether.
    """
    from pandera.errors import SchemaErrors

    numbered = frame.reset_index(drop=True)
    try:
        good = schema.validate(numbered, lazy=True)
    except SchemaErrors as problems:
        cases = problems.failure_cases
        whole = cases[cases["index"].isna() & ~cases["check"].astype(str).str.startswith("dtype(")]
        if len(whole):
            first = whole.iloc[0]
            column = first["column"] or first["failure_case"]
            raise DataError(f"a frame of {len(frame)} rows is no frame of its kind: column {column}: {first['check']}") from None
        rows = cases[cases["index"].notna()].drop_duplicates("index").sort_values("index")
        refused = tuple(_refusal(numbered, frame.index, case, describe, plain, subject) for case in rows.to_dict("records"))
        kept = ~np.isin(np.arange(len(frame)), rows["index"].to_numpy(dtype=np.int64))
        good = schema.validate(numbered.loc[kept])
        return good.set_axis(frame.index[kept]), kept, refused
    return good.set_axis(frame.index), np.ones(len(frame), dtype=bool), ()


def _refusal(
    numbered: pd.DataFrame,
    labels: pd.Index,
    case: dict[str, Any],
    describe: Callable[[Any], str],
    plain: Callable[[pd.Series], dict[str, Any]],
    subject: str,
) -> RefusedRow:
    at = int(case["index"])
    row, column = numbered.iloc[at], str(case["column"])
    missing = case["check"] in ("not_nullable", "empty")
    said = f"column {column} is empty" if missing else f"column {column}: {row[column]!r} cannot be read"
    name = row[subject]
    return RefusedRow(
        symbol=str(name) if pd.notna(name) and str(name).strip() else None,
        rule="value_missing" if missing else "wrong_type",
        reason=f"{describe(labels[at])}: {said}",
        raw=plain(row),
    )
