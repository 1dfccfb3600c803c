"""What the CFTC's reports hold and how their files and tables name it: categories, columns, addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from config.errors import InputError, did_you_mean

__all__ = ["REPORTS", "Category", "Report", "normal", "report_of"]

LAST_YEAR_IN_BUNDLE = 2016


@dataclass(frozen=True, slots=True)
class Category:
    """A group of traders.

    Parameters
    ----------
    name : str
        As stored.
    columns : tuple of str
        How the column names of this group begin: in the yearly files and in the public tables.
    spreading : bool
        Whether the report counts positions that are long in one month and short in another apart.
    traders : bool
        Whether the report counts the traders.
    """

    name: str
    columns: tuple[str, ...]
    spreading: bool = True
    traders: bool = True


_TOTAL = Category("total_reportable", ("tot_rept", "total_reportable"), spreading=False)
_REST = Category("nonreportable", ("nonrept", "nonreportable"), spreading=False, traders=False)
_LEGACY = (
    Category("noncommercial", ("noncomm", "noncommercial")),
    Category("commercial", ("comm", "commercial"), spreading=False),
    _TOTAL,
    _REST,
)
_DISAGGREGATED = (
    Category("producer_merchant", ("prod_merc",), spreading=False),
    Category("swap_dealer", ("swap",)),
    Category("managed_money", ("m_money",)),
    Category("other_reportable", ("other_rept",)),
    _TOTAL,
    _REST,
)
_FINANCIAL = (
    Category("dealer", ("dealer",)),
    Category("asset_manager", ("asset_mgr",)),
    Category("leveraged_funds", ("lev_money",)),
    Category("other_reportable", ("other_rept",)),
    _TOTAL,
    _REST,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One of the six reports.

    Parameters
    ----------
    name : str
        As stored: legacy, disaggregated or tff, with _futures or _combined (with options) behind it.
    categories : tuple of Category
    table : str
        Id of the public table on publicreporting.cftc.gov.
    yearly : str
        Beginning of the yearly ZIP's name on www.cftc.gov; the year follows.
    bundle : str
        Name of the ZIP with everything up to 2016.
    """

    name: str
    categories: tuple[Category, ...]
    table: str
    yearly: str
    bundle: str

    def files(self, first_year: int | None, last_year: int) -> tuple[tuple[str, int], ...]:
        """The ZIP files that hold the years asked for, each with its last year, the oldest first."""
        found: list[tuple[str, int]] = []
        if first_year is None or first_year <= LAST_YEAR_IN_BUNDLE:
            found.append((f"{self.bundle}.zip", LAST_YEAR_IN_BUNDLE))
        start = max(first_year or 0, LAST_YEAR_IN_BUNDLE + 1)
        found.extend((f"{self.yearly}{year}.zip", year) for year in range(start, last_year + 1))
        return tuple(found)


REPORTS: Mapping[str, Report] = {
    report.name: report
    for report in (
        Report(name="legacy_futures", categories=_LEGACY, table="6dca-aqww", yearly="deacot", bundle="deacot1986_2016"),
        Report(name="legacy_combined", categories=_LEGACY, table="jun7-fc8e", yearly="deahistfo", bundle="deahistfo_1995_2016"),
        Report(
            name="disaggregated_futures",
            categories=_DISAGGREGATED,
            table="72hh-3qpy",
            yearly="fut_disagg_txt_",
            bundle="fut_disagg_txt_hist_2006_2016",
        ),
        Report(
            name="disaggregated_combined",
            categories=_DISAGGREGATED,
            table="kh3c-gbw2",
            yearly="com_disagg_txt_",
            bundle="com_disagg_txt_hist_2006_2016",
        ),
        Report(name="tff_futures", categories=_FINANCIAL, table="gpe5-46if", yearly="fut_fin_txt_", bundle="fin_fut_txt_2006_2016"),
        Report(
            name="tff_combined", categories=_FINANCIAL, table="yw9f-hn96", yearly="com_fin_txt_", bundle="fin_com_txt_2006_2016"
        ),
    )
}


def report_of(name: str) -> Report:
    """The report of that name.

    Raises
    ------
    InputError
        There is none.
    """
    try:
        return REPORTS[name]
    except KeyError:
        raise InputError(f"no report is called {name!r}", remedy=did_you_mean(name, tuple(REPORTS))) from None


def normal(column: str) -> str:
    """A column's name in one spelling: the files say ``Noncommercial Positions-Long (All)``, ``Swap__Positions_Short_All``."""
    plain = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")
    return plain.replace("postions", "positions").replace("spreading", "spread")
