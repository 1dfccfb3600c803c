"""What every source of data offers, what it answers, and the registry that imports a source only when it is asked for.

A source is made by its factory, ``factory(settings, **options)``, which the registry finds by (name, dataset). It yields
`Answer`s: the bytes as they came and the rows read out of them. It never writes to the lake; `flows.ingest` does.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, Literal, Protocol, overload

import pyarrow as pa

from config.clock import Clock
from config.errors import InputError, UnknownNameError, did_you_mean
from config.hashing import digest, sha256_bytes, short
from config.settings import Settings
from config.tables import table_spec

__all__ = [
    "DATASETS",
    "ActionSource",
    "Answer",
    "DatasetName",
    "EquitySource",
    "MacroSource",
    "OptionSource",
    "PositionSource",
    "RefusedRow",
    "Source",
    "answer_schema",
    "blocks",
    "get_source",
    "source_names",
    "source_options",
    "vendor_of",
]

DatasetName = Literal["equity", "actions", "macro", "options", "cot"]
DATASETS: tuple[DatasetName, ...] = ("equity", "actions", "macro", "options", "cot")


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedRow:
    """A row of an answer that its source could not read or place; it goes to quarantine, the rest of the answer does not.

    Parameters
    ----------
    symbol : str or None
        Symbol, series or OCC symbol, where one could be read.
    rule : str
        Stable name of what it breaks: ``not_a_session``, ``wrong_type``, ``duplicate_key``.
    reason : str
        In words, with the value and, for a file, the line.
    raw : mapping
        The row as it came.
    """

    symbol: str | None
    rule: str
    reason: str
    raw: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of a source: the bytes as they came, and the rows read out of them.

    Parameters
    ----------
    source : str
        Name of the source, as kept on every row.
    dataset : str
        The lake table the rows belong to: ``equity_bars``, ``corporate_actions``, ``macro_observations``, ``option_quotes``,
        ``cot_positions``. One answer that holds rows of two tables is two `Answer`s with the same payload.
    origin : str
        Where the bytes came from: a file (package-relative or as given) or an address, never with a key in it.
    request : mapping
        What was asked, as plain values (dates and strings are fine); never a key. Equal requests must be equal mappings.
    payload : bytes
        The answer, byte for byte (compressed if it came compressed).
    rows : pyarrow.Table
        Columns of `answer_schema(dataset)`: the table's own and `available_at`, without `recorded_at` and `ingest_id`.
    names : tuple of str
        The symbols or series it was asked for and holds.
    refused : tuple of RefusedRow
        Rows that could not become rows of the table.
    missing : mapping of str to str
        Asked for, and the source says it has no such thing: name to reason. A failure of the service is an error, not this.
    notes : tuple of str
        What a reader of the data should know.
    """

    source: str
    dataset: str
    origin: str
    request: Mapping[str, Any]
    payload: bytes = field(repr=False)
    rows: pa.Table = field(repr=False)
    names: tuple[str, ...]
    refused: tuple[RefusedRow, ...] = field(default=(), repr=False)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = answer_schema(self.dataset)
        if self.rows.schema != expected:
            got = {column.name: str(column.type) for column in self.rows.schema}
            wanted = {column.name: str(column.type) for column in expected}
            wrong = {name for name in got.keys() | wanted.keys() if got.get(name) != wanted.get(name)}
            raise TypeError(
                f"rows of {self.origin} are not {self.dataset} rows; differing: {sorted(wrong) or 'order, nullability'}"
            )

    @cached_property
    def response_sha256(self) -> str:
        """SHA-256 of the payload."""
        return sha256_bytes(self.payload)

    @cached_property
    def ingest_id(self) -> str:
        """Sixteen digits that name this answer to this question: asked again with the same answer, it is the same ingest."""
        return short(
            digest(
                {
                    "source": self.source,
                    "dataset": self.dataset,
                    "request": dict(self.request),
                    "response_sha256": self.response_sha256,
                }
            )
        )

    def lake_rows(self) -> pa.Table:
        """The rows as `Lake.write` takes them: with `ingest_id`."""
        return self.rows.append_column(
            pa.field("ingest_id", pa.string(), nullable=False), pa.repeat(pa.scalar(self.ingest_id), self.rows.num_rows)
        )


def answer_schema(dataset: str) -> pa.Schema:
    """Columns of an answer's rows: the table's own, then `available_at`."""
    spec = table_spec(dataset)
    return pa.schema([*spec.columns, spec.schema.field("available_at")])


class Source(Protocol):
    """What every source offers."""

    @property
    def name(self) -> str:
        """The source's name, as kept on every row."""
        ...

    @property
    def names_per_request(self) -> int | None:
        """How many symbols or series go into one request; None: all. A failed request is repeated whole."""
        ...

    @property
    def incremental(self) -> bool:
        """Whether asking for a part of the history costs less than asking for all of it, as with a vendor over a network.

        Such a source of bars or quotes is asked, where no first day was named, only for what is newer than the rows stored from
        it, with `data.overlap_sessions` before them to meet revisions; of a name that is not stored, and after a revision, for
        everything. It must give a name's whole answer to one request, and raise where it cannot. A source without this
        attribute is not incremental.
        """
        ...

    def available(self) -> tuple[str, ...] | None:
        """The symbols or series it has; None where it cannot tell without asking for each."""
        ...


class EquitySource(Source, Protocol):
    """Bars (and, where the source has them, corporate actions)."""

    def bars(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """Bars of sessions from `start` to `end`, both included; None: as far as the source goes."""
        ...


class ActionSource(Source, Protocol):
    """Corporate actions by themselves."""

    def actions(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """Actions with ex-dates from `start` to `end`, both included."""
        ...


class MacroSource(Source, Protocol):
    """Macro series with their vintages."""

    def observations(self, series: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """Observations of periods from `start` to `end`, both included."""
        ...


class OptionSource(Source, Protocol):
    """Option quotes."""

    def quotes(self, underlyings: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """Quotes on `underlyings` of sessions from `start` to `end`, both included."""
        ...


class PositionSource(Source, Protocol):
    """Positions of groups of traders, by market."""

    def positions(self, markets: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """Positions in `markets` (the exchange's contract market codes) as of dates from `start` to `end`, both included."""
        ...


# (name, dataset) -> "module:factory"; a factory takes the settings and the source's own options by keyword.
_REGISTRY: dict[tuple[str, DatasetName], str] = {
    ("bundled", "equity"): "flows.sources.bundled:BundledEquity",
    ("bundled", "macro"): "flows.sources.bundled:BundledMacro",
    ("files", "equity"): "flows.sources.files:EquityFiles",
    ("files", "actions"): "flows.sources.files:ActionFiles",
    ("files", "macro"): "flows.sources.files:MacroFiles",
    ("fred", "macro"): "flows.sources.fred:FredMacro",
    ("cftc", "cot"): "flows.sources.cftc:CftcPositions",
    ("yahoo", "actions"): "flows.sources.yahoo:YahooEquity",
    ("yahoo", "equity"): "flows.sources.yahoo:YahooEquity",
    ("yahoo", "options"): "flows.sources.yahoo_options:YahooOptions",
    ("cboe", "equity"): "flows.sources.cboe:CboeIndices",
    ("modelled", "options"): "flows.sources.modelled_options:ModelledOptions",
    ("polygon", "actions"): "flows.sources.polygon:PolygonEquity",
    ("polygon", "equity"): "flows.sources.polygon:PolygonEquity",
    ("polygon", "options"): "flows.sources.polygon:PolygonOptions",
    ("alpaca", "actions"): "flows.sources.alpaca:AlpacaEquity",
    ("alpaca", "equity"): "flows.sources.alpaca:AlpacaEquity",
    ("alpaca", "options"): "flows.sources.alpaca:AlpacaOptions",
    ("ccxt", "equity"): "flows.sources.ccxt:CryptoBars",
    ("files", "options"): "flows.sources.option_files:OptionFiles",
    ("tradier", "equity"): "flows.sources.tradier:TradierEquity",
    ("tradier", "options"): "flows.sources.tradier:TradierOptions",
}


def source_names(dataset: DatasetName) -> tuple[str, ...]:
    """The sources there are for a dataset."""
    return tuple(name for name, of in _REGISTRY if of == dataset)


def vendor_of(source: Source) -> str:
    """The name under which a source is registered, and limited: ``alpaca``, whose rows may be those of ``alpaca_iex``.

    A source from elsewhere goes by its own name.
    """
    made_by = f"{type(source).__module__}:{type(source).__qualname__}"
    return next((name for (name, _), target in _REGISTRY.items() if target == made_by), source.name)


@overload
def get_source(name: str, dataset: Literal["equity"], settings: Settings, **options: Any) -> EquitySource: ...
@overload
def get_source(name: str, dataset: Literal["actions"], settings: Settings, **options: Any) -> ActionSource: ...
@overload
def get_source(name: str, dataset: Literal["macro"], settings: Settings, **options: Any) -> MacroSource: ...
@overload
def get_source(name: str, dataset: Literal["options"], settings: Settings, **options: Any) -> OptionSource: ...
@overload
def get_source(name: str, dataset: Literal["cot"], settings: Settings, **options: Any) -> PositionSource: ...
def get_source(name: str, dataset: DatasetName, settings: Settings, **options: Any) -> Any:
    """Make a source.

    Parameters
    ----------
    name : str
        As in `source_names(dataset)`.
    dataset : {"equity", "actions", "macro", "options", "cot"}
    settings : Settings
    **options
        The source's own options: ``path`` for files, for example.

    Returns
    -------
    EquitySource, ActionSource, MacroSource, OptionSource or PositionSource

    Raises
    ------
    UnknownNameError
        There is no such source for that dataset.
    InputError
        The source does not know, or lacks, an option.
    """
    factory = _factory(name, dataset)
    _check_options(name, dataset, factory, options)
    return factory(settings, **options)


def source_options(name: str, dataset: DatasetName) -> dict[str, bool]:
    """The options of a user that a source takes, by keyword, and whether it needs each.

    A clock is handed over by code alone: it is no option, neither on the command line nor in the settings.

    Raises
    ------
    UnknownNameError
        There is no such source for that dataset.
    """
    parameters = inspect.signature(_factory(name, dataset)).parameters.values()
    return {one.name: one.default is one.empty for one in parameters if one.kind is one.KEYWORD_ONLY and one.name != "clock"}


def _factory(name: str, dataset: DatasetName) -> Any:
    target = _REGISTRY.get((name, dataset))
    if target is None:
        known = source_names(dataset)
        elsewhere = [of for other, of in _REGISTRY if other == name]
        hint = f" ({name} gives {' and '.join(elsewhere)})" if elsewhere else ""
        near = did_you_mean(name, known, listing=0)
        raise UnknownNameError(
            f"no source of {dataset} data is called {name!r}{hint}",
            remedy=f"{f'{near} ' if near.startswith('did') else ''}available: {', '.join(known)}",
        )
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _check_options(name: str, dataset: str, factory: Any, options: Mapping[str, Any]) -> None:
    accepted = [p for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = [p.name for p in accepted if p.name != "clock"]
    takes_clock = len(known) < len(accepted)
    for option, value in options.items():
        if option == "clock" and takes_clock and (value is None or isinstance(value, Clock)):
            continue
        if option not in known:
            remedy = did_you_mean(option, known) if known else "it takes none"
            raise InputError(f"the source {name} of {dataset} data has no option {option!r}", remedy=remedy)
    lacking = [p.name for p in accepted if p.default is p.empty and p.name not in options]
    if lacking:
        raise InputError(
            f"the source {name} of {dataset} data needs {', '.join(lacking)}",
            remedy=f"pass {' '.join(f'{n}=…' for n in lacking)}; its options are {', '.join(known)}",
        )


def blocks(names: Sequence[str], size: int | None) -> Iterable[tuple[str, ...]]:
    """Cut `names` into requests of at most `size`."""
    step = size or max(len(names), 1)
    return (tuple(names[at : at + step]) for at in range(0, len(names), step))
