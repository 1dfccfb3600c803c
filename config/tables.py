"""The lake's tables: columns, keys, partitions. Every row carries three clocks.

- event time (a table's own column): the session, the quote, the period;
- `available_at`: the first moment at which anyone could have known the value;
- `recorded_at` and `ingest_id`: when, and by which ingest, it was stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from config.errors import UnknownNameError, did_you_mean

__all__ = ["CLOCKS", "TABLES", "TableSpec", "feature_table", "table_spec"]

UTC_TIME = pa.timestamp("us", tz="UTC")
CLOCKS: tuple[pa.Field, ...] = (
    pa.field("available_at", UTC_TIME, nullable=False),
    pa.field("recorded_at", UTC_TIME, nullable=False),
    pa.field("ingest_id", pa.string(), nullable=False),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSpec:
    """What one table holds.

    Parameters
    ----------
    name : str
    key : tuple of str
        Names one fact. Rows that share a key are versions of that fact, told apart by `available_at`.
    columns : tuple of pyarrow.Field
        Without the clocks, which `schema` adds.
    event_time : str
        The column that says when the fact happened.
    partition_by : tuple of (str, str)
        (partition column, SQL expression over the row); empty for small tables.
    quotes_vintages : bool
        The source itself says when each version became available, so a changed value keeps the source's `available_at`.
        Elsewhere a changed value became available no earlier than we saw it.
    provenance : tuple of str
        Columns that say where a row came from. They are stored with it, but a change in them alone is no revision.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[pa.Field, ...]
    event_time: str
    partition_by: tuple[tuple[str, str], ...] = ()
    quotes_vintages: bool = False
    provenance: tuple[str, ...] = ()
    doc: str = field(default="")

    @property
    def schema(self) -> pa.Schema:
        """Columns, then clocks."""
        return pa.schema([*self.columns, *CLOCKS])

    @property
    def values(self) -> tuple[str, ...]:
        """The columns that are neither key, clock nor provenance: a change in one of them is a revision."""
        return tuple(column.name for column in self.columns if column.name not in self.key + self.provenance)


def _text(name: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, pa.string(), nullable=nullable)


def _number(name: str) -> pa.Field:
    return pa.field(name, pa.float64())


def _day(name: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, pa.date32(), nullable=nullable)


def _moment(name: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, UTC_TIME, nullable=nullable)


_YEAR_OF_SESSION = (("year", "year(session)"),)

TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        TableSpec(
            name="equity_bars",
            doc="Bars of stocks, funds, indices and crypto pairs. `event_time` is the moment the bar is complete (a daily bar: its "
            "session's close). A source that gives closes only leaves open, high, low and volume NULL. `basis` says whether "
            "prices are as traded or already adjusted by the vendor, with hindsight. `calendar` is the exchange's, by which "
            "the session is one (XNYS, XLON, 24/7).",
            key=("symbol", "interval", "event_time", "source"),
            event_time="event_time",
            columns=(
                _text("symbol"),
                _text("interval"),
                _moment("event_time"),
                _text("source"),
                _day("session"),
                _number("open"),
                _number("high"),
                _number("low"),
                _number("close"),
                _number("volume"),
                _text("basis"),
                _text("currency"),
                _text("calendar"),
            ),
            partition_by=_YEAR_OF_SESSION,
            provenance=("calendar",),
        ),
        TableSpec(
            name="corporate_actions",
            doc="What changes a price or a name, as facts; adjusted prices are computed on read. `kind` and `value`: split "
            "(new shares for one old), dividend, special_dividend and capital_gain (cash a share of those that trade then), rename "
            "(`new_symbol` from the ex-date on), delisting (the ex-date is the first session without a bar; value: final cash a "
            "share where known), listing (the letters belong to another company from the ex-date on).",
            key=("symbol", "ex_date", "kind", "source"),
            event_time="ex_date",
            columns=(
                _text("symbol"),
                _day("ex_date"),
                _text("kind"),
                _text("source"),
                _number("value"),
                _text("new_symbol", nullable=True),
                _text("currency", nullable=True),
            ),
        ),
        TableSpec(
            name="option_quotes",
            doc="Option quotes by OCC symbol. `data_kind` is real or modelled. `greeks_time` is when the vendor computed implied "
            "volatility and Greeks, where that is another moment than the quote's.",
            key=("occ_symbol", "quote_time", "source"),
            event_time="quote_time",
            columns=(
                _text("occ_symbol"),
                _moment("quote_time"),
                _text("source"),
                _day("session"),
                _text("underlying"),
                _day("expiry"),
                _number("strike"),
                _text("right"),
                _number("multiplier"),
                _text("style"),
                _text("settlement"),
                _number("bid"),
                _number("ask"),
                _number("bid_size"),
                _number("ask_size"),
                _number("last"),
                _number("volume"),
                _number("open_interest"),
                _number("underlying_price"),
                _number("implied_volatility"),
                _number("delta"),
                _number("gamma"),
                _number("vega"),
                _number("theta"),
                _number("rho"),
                _moment("greeks_time", nullable=True),
                _text("data_kind"),
            ),
            partition_by=(("month", "strftime(session, '%Y-%m')"),),
        ),
        TableSpec(
            name="macro_observations",
            doc="Macro series, one row a vintage; a NULL value is the source's own 'missing'. `vintage_kind` is published (the "
            "source names the vintage) or assumed (a stated publication lag over one recorded vintage).",
            key=("series", "period", "vintage", "source"),
            event_time="period",
            columns=(
                _text("series"),
                _day("period"),
                _day("vintage"),
                _text("source"),
                _number("value"),
                _text("unit"),
                _text("vintage_kind"),
            ),
            quotes_vintages=True,
        ),
        TableSpec(
            name="cot_positions",
            doc="Commitments of Traders, one row a category of traders; contracts. `report` is legacy, disaggregated or tff, with "
            "_futures or _combined (with options) behind it. Positions of the close on `as_of_date` (a Tuesday, as a rule), "
            "published days later: `available_at` is the publication. `open_interest` is the market's, on each of its rows.",
            key=("report", "market_code", "as_of_date", "category", "source"),
            event_time="as_of_date",
            columns=(
                _text("report"),
                _text("market_code"),
                _day("as_of_date"),
                _text("category"),
                _text("source"),
                _text("market_name"),
                _number("open_interest"),
                _number("long"),
                _number("short"),
                _number("spreading"),
                _number("traders_long"),
                _number("traders_short"),
                _number("traders_spreading"),
            ),
            provenance=("market_name",),
        ),
        TableSpec(
            name="universe_membership",
            doc="Who belonged to a universe, from and to (exclusive; NULL while it lasts, and as long as the end was not known). "
            "`joined_known_at` and `left_known_at` are when either was known; `available_kind` says whether the source announced "
            "it, or it is assumed: known when it took effect, at the open of that day's session.",
            key=("universe", "symbol", "from_date"),
            event_time="from_date",
            columns=(
                _text("universe"),
                _text("symbol"),
                _day("from_date"),
                _day("to_date", nullable=True),
                _text("source"),
                _moment("joined_known_at"),
                _moment("left_known_at", nullable=True),
                _text("available_kind"),
            ),
            quotes_vintages=True,
            provenance=("source",),
        ),
        TableSpec(
            name="ingest_runs",
            doc="One row an ingest: what was asked, what came, what became of it. `ingest_id` is the digest of source, dataset, "
            "request and the answer's hash, so the same answer is the same ingest. `outcome` is started while its rows are being "
            "written, then completed, completed with refusals or unchanged; interrupted where a kill cut it off.",
            key=("run_id",),
            event_time="started_at",
            columns=(
                _text("run_id"),
                _moment("started_at"),
                _text("source"),
                _text("dataset"),
                _text("request"),
                _text("origin"),
                _text("response_sha256"),
                pa.field("response_bytes", pa.int64(), nullable=False),
                pa.field("rows_received", pa.int64(), nullable=False),
                pa.field("rows_new", pa.int64(), nullable=False),
                pa.field("rows_revised", pa.int64(), nullable=False),
                pa.field("rows_unchanged", pa.int64(), nullable=False),
                pa.field("rows_refused", pa.int64(), nullable=False),
                _text("outcome"),
                _text("message", nullable=True),
            ),
        ),
        TableSpec(
            name="quarantine",
            doc="Rows that were refused, as they came (JSON), with the rule that refused them; `state` is held or released. A "
            "released row is in its table, and `released_at`, `released_by`, `release_reason` say when, by whom and why.",
            key=("row_id",),
            event_time="refused_at",
            provenance=("refused_at", "reason", "raw"),
            columns=(
                _text("state"),
                _text("row_id"),
                _moment("refused_at"),
                _text("table_name"),
                _text("symbol", nullable=True),
                _text("rule"),
                _text("reason"),
                _text("raw"),
                _moment("released_at", nullable=True),
                _text("released_by", nullable=True),
                _text("release_reason", nullable=True),
            ),
        ),
        TableSpec(
            name="flags",
            doc="Rows that are stored although they break a rule of lesser severity: which row, which rule, in words. The row is "
            "found by table, symbol (series, underlying, market), event time and source.",
            key=("row_id",),
            event_time="event_time",
            provenance=("reason",),
            columns=(
                _text("row_id"),
                _text("table_name"),
                _text("symbol"),
                _moment("event_time"),
                _text("source"),
                _text("rule"),
                _text("reason"),
            ),
        ),
        TableSpec(
            name="gaps",
            doc="Sessions of its calendar for which a symbol, between its first and last bar, has none. `state`: missing, filled, "
            "no_data (its source was asked for exactly it and has none), not_listed (explained by a corporate action).",
            key=("dataset", "symbol", "session", "source"),
            event_time="session",
            columns=(
                _text("dataset"),
                _text("symbol"),
                _day("session"),
                _text("source"),
                _text("state"),
            ),
        ),
    )
}


def feature_table(set_version: str, features: tuple[str, ...]) -> TableSpec:
    """The table of one feature-set version: one row a (symbol, session), one float64 column a feature.

    Its name is ``features/<set_version>``. `panel_snapshot` is the lake snapshot the values were computed from.
    """
    return TableSpec(
        name=f"features/{set_version}",
        doc="Feature values, known at the session's close.",
        key=("symbol", "session"),
        event_time="session",
        columns=(_text("symbol"), _day("session"), _text("panel_snapshot"), *(_number(name) for name in features)),
        partition_by=_YEAR_OF_SESSION,
        provenance=("panel_snapshot",),
    )


def table_spec(name: str) -> TableSpec:
    """The specification of a fixed table.

    Raises
    ------
    UnknownNameError
        No table has that name.
    """
    try:
        return TABLES[name]
    except KeyError:
        raise UnknownNameError(f"no table is called {name!r}", remedy=did_you_mean(name, tuple(TABLES))) from None
