"""Feature values in the lake: one wide table a feature-set version, written from panels and read back as panels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from config.errors import InputError, UnknownNameError, did_you_mean
from config.tables import TableSpec

if TYPE_CHECKING:
    from lake import Snapshot

__all__ = ["feature_rows", "load_features", "stored_sets"]

PREFIX = "features/"


def stored_sets(snapshot: Snapshot) -> tuple[str, ...]:
    """The feature-set versions that a snapshot holds."""
    return tuple(sorted(name.removeprefix(PREFIX) for name in snapshot.tables if name.startswith(PREFIX)))


def load_features(
    snapshot: Snapshot,
    set_version: str,
    names: Iterable[str],
    symbols: Sequence[str],
    start: date | None = None,
    end: date | None = None,
    *,
    as_of: datetime | None = None,
) -> dict[str, pd.DataFrame]:
    """Read stored features as panels.

    Parameters
    ----------
    set_version : str
        As `FeatureBuild.set_version` names it.
    names, symbols
        Features (columns of the table) and symbols (columns of the panels), in this order.
    start, end : date, optional
        First and last session, both included.
    as_of : datetime, optional
        Values as known at this aware moment.

    Returns
    -------
    dict of str to DataFrame of shape (n_sessions, n_symbols)
        Known at the session's close; rows are the union of the symbols' sessions, NaN where there is no value.

    Raises
    ------
    UnknownNameError
        No such feature set, feature, or symbol in it.
    """
    table = f"{PREFIX}{set_version}"
    held = stored_sets(snapshot)
    if set_version not in held:
        raise UnknownNameError(
            f"snapshot {snapshot.id} holds no feature set {set_version!r}", remedy=did_you_mean(set_version, held)
        )
    wanted, columns = tuple(dict.fromkeys(names)), list(dict.fromkeys(symbols))
    if not wanted or not columns:
        raise InputError("no feature or no symbol was named", remedy="name at least one of each")
    rows = snapshot.read(
        table, where={"symbol": columns}, start=start, end=end, as_of=as_of, columns=["symbol", "session", *wanted]
    )
    absent = sorted(set(columns) - set(rows["symbol"].unique().to_pylist()))
    if absent:
        built = sorted(snapshot.read(table, as_of=as_of, columns=["symbol"])["symbol"].unique().to_pylist())
        unbuilt = [symbol for symbol in absent if symbol not in built]
        if unbuilt:
            raise UnknownNameError(
                f"feature set {set_version} was not built for {unbuilt[0]!r}", remedy=did_you_mean(unbuilt[0], built)
            )
    days, row = np.unique(rows["session"].to_numpy().astype("datetime64[D]"), return_inverse=True)
    column = pc.index_in(rows["symbol"], value_set=pa.array(columns, pa.string())).to_numpy()
    index = pd.DatetimeIndex(days.astype("datetime64[ns]"), name="session")
    panels = {}
    for name in wanted:
        matrix = np.full((len(index), len(columns)), np.nan)
        matrix[row, column] = rows[name].cast(pa.float64()).to_numpy()
        panels[name] = pd.DataFrame(matrix, index=index, columns=columns)
    return panels


def feature_rows(
    values: Mapping[str, pd.DataFrame], known_at: pd.DataFrame, spec: TableSpec, *, panel_snapshot: str, ingest_id: str
) -> pa.Table:
    """Lay feature panels out as rows of their table, one a (symbol, session) on which the symbol has a bar.

    Parameters
    ----------
    values : mapping of str to DataFrame of shape (n_sessions, n_symbols)
    known_at : DataFrame of shape (n_sessions, n_symbols)
        UTC; NaT where there is no bar, and so no row.
    """
    there = known_at.notna().to_numpy().T
    column, row = np.nonzero(there)
    days = known_at.index.to_numpy(dtype="datetime64[D]")
    moments = np.column_stack(
        [known_at.iloc[:, place].dt.tz_localize(None).to_numpy("datetime64[us]") for place in range(there.shape[0])]
    )
    data = {
        "symbol": pa.array([str(symbol) for symbol in known_at.columns], pa.string()).take(pa.array(column)),
        "session": pa.array(days[row], pa.date32()),
        "panel_snapshot": pa.repeat(pa.scalar(panel_snapshot), len(row)),
        **{name: pa.array(frame.to_numpy()[row, column], pa.float64(), from_pandas=True) for name, frame in values.items()},
        "available_at": pa.array(moments[row, column], pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
        "ingest_id": pa.repeat(pa.scalar(ingest_id), len(row)),
    }
    return pa.table({field.name: data[field.name] for field in spec.schema if field.name != "recorded_at"})
