"""The market as it was known: one matrix a field, sessions down, symbols across."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lake.listings import History

__all__ = ["Adjust", "MarketPanel", "PriceBasis"]

PriceBasis = Literal["as_traded", "vendor_adjusted"]
Adjust = Literal["none", "splits", "total"]


@dataclass(frozen=True, kw_only=True)
class MarketPanel:
    """Prices and macro values by session. Every value of a row was known at that session's close.

    Parameters
    ----------
    open, high, low, close, volume : DataFrame of shape (n_sessions, n_symbols)
        NaN where the source has no value, and from a delisting on. Prices in the instrument's currency.
    macro : mapping of str to Series of shape (n_sessions,)
        The newest value available at each session's close; NaN before the first and once the series is stale.
    basis : mapping of str to {"as_traded", "vendor_adjusted"}
        By symbol. Vendor-adjusted prices were made with hindsight of later splits and dividends.
    adjust : {"none", "splits", "total"}
        What prices as traded were adjusted for; see `features.point_in_time.load_panel`.
    companies : mapping of str to History
        By symbol: the company's letters through time, its delisting (`delisted`, the first session without a bar) and the cash a
        share its holders got then (`final_value`, None where that is not known).
    ingest_ids : tuple of str
        The ingests whose rows are in this panel.
    snapshot_id : str
        The lake snapshot it was read from.
    """

    open: pd.DataFrame
    high: pd.DataFrame
    low: pd.DataFrame
    close: pd.DataFrame
    volume: pd.DataFrame
    macro: Mapping[str, pd.Series] = field(default_factory=dict)
    basis: Mapping[str, PriceBasis] = field(default_factory=dict)
    adjust: Adjust = "splits"
    companies: Mapping[str, History] = field(default_factory=dict)
    ingest_ids: tuple[str, ...] = ()
    snapshot_id: str = ""

    @property
    def sessions(self) -> pd.DatetimeIndex:
        """The rows: naive midnights, ascending."""
        return pd.DatetimeIndex(self.close.index)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(str(symbol) for symbol in self.close.columns)

    @property
    def has_opens(self) -> bool:
        """Whether any symbol has an opening price; a source of closes only has none."""
        return bool(self.open.notna().to_numpy().any())

    def upto(self, session: pd.Timestamp) -> MarketPanel:
        """The same panel without anything after `session`."""
        companies = {symbol: company.upto(session.date()) for symbol, company in self.companies.items()}
        return replace(self._rows(slice(None, session)), companies=companies)

    def since(self, session: pd.Timestamp) -> MarketPanel:
        """The same panel without anything before `session`."""
        return self._rows(slice(session, None))

    def _rows(self, rows: slice) -> MarketPanel:
        return replace(
            self,
            open=self.open.loc[rows],
            high=self.high.loc[rows],
            low=self.low.loc[rows],
            close=self.close.loc[rows],
            volume=self.volume.loc[rows],
            macro={name: series.loc[rows] for name, series in self.macro.items()},
        )
