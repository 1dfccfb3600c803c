"""Computes declared features on a panel, each shared intermediate result once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from config.errors import DataError
from features.catalogue import CATALOGUE, get_features
from features.definitions import Feature, Known, Workbench
from features.panel import MarketPanel

__all__ = ["compute"]


def compute(panel: MarketPanel, names: Iterable[str], *, catalogue: Mapping[str, Feature] = CATALOGUE) -> dict[str, pd.DataFrame]:
    """The values of features on a panel.

    Parameters
    ----------
    panel : MarketPanel
        Should begin `warm_up` sessions before the first value that is wanted; exponential averages remember further back.
    names : iterable of str
        Features of the catalogue.

    Returns
    -------
    dict of str to DataFrame of shape (n_sessions, n_symbols)
        Known at each session's close. NaN during the warm-up, on sessions on which the symbol has no bar, and where an input
        is missing (no high and low, no VIX yet, a macro series the panel does not hold): nothing is guessed.

    Raises
    ------
    UnknownNameError
        No feature has that name.
    InputError
        A feature reads what it does not declare.
    DataError
        A feature's function returned another shape than the panel's, or an infinite value.
    """
    workbench = Workbench(panel)
    values: dict[str, pd.DataFrame] = {}
    for feature in get_features(names, catalogue):
        result = feature.function(Known(feature.name, feature.inputs, workbench), **feature.params)
        values[feature.name] = _checked(feature, result, panel)
    return values


def _checked(feature: Feature, result: pd.DataFrame, panel: MarketPanel) -> pd.DataFrame:
    if not (result.index.equals(panel.close.index) and result.columns.equals(panel.close.columns)):
        raise DataError(
            f"feature {feature.name!r} returned shape {result.shape}; the panel has {panel.close.shape}",
            remedy="return one row a session and one column a symbol, in the panel's order",
        )
    infinite = np.isinf(result.to_numpy())
    if infinite.any():
        row, column = (int(place[0]) for place in np.nonzero(infinite))
        raise DataError(
            f"feature {feature.name!r} is infinite on {panel.sessions[row]:%Y-%m-%d} for {panel.symbols[column]}",
            remedy="give NaN where the definition divides by zero",
        )
    return result.copy()
