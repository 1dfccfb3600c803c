"""Adjusted bars: prices as traded in the lake, factors computed on each read from the corporate actions known by then.

1. `read_adjusted` reads who held which letters (`lake.listings`), then bars, and gives each to its company (`_of_companies`).
2. It refuses two sources of one symbol (`lake.choice`), two bases, and vendors' histories of two adjustments
   (`lake.readjustment`).
3. `lake.actions` reads splits and payments and lets sources agree (`agree`): one event a company and ex-date.
4. `lake.factors.factors` turns events into two factors a bar; `_apply` multiplies: adjusted = as traded × price_factor ×
   split_factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from config.errors import InputError, QualityError
from lake.actions import CASH_KINDS, Events, agree, read_actions
from lake.choice import one_source
from lake.factors import REFERENCE_DAYS, Factors, factors
from lake.listings import History, Listings, Spell, read_listings
from lake.readjustment import refuse_mixed_adjustments

if TYPE_CHECKING:
    from lake.reading import Tables

__all__ = ["Adjust", "AdjustedBars", "adjusted_bars", "read_adjusted"]

Adjust: TypeAlias = Literal["none", "splits", "total"]
PRICES = ("open", "high", "low", "close")
COLUMNS = (
    "symbol",
    "session",
    "event_time",
    *PRICES,
    "volume",
    "price_factor",
    "split_factor",
    "letters",
    "source",
    "basis",
    "currency",
    "available_at",
    "ingest_id",
)
_COMPUTED = ("price_factor", "split_factor", "letters")
_NEEDED = ("symbol", "session", "source", "close", "basis")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdjustedBars:
    """Adjusted bars, and what they were made of.

    Parameters
    ----------
    bars : pyarrow.Table
        As `adjusted_bars`.
    histories : mapping of str to History
        By symbol as asked: its letters through time, its delisting.
    actions : pyarrow.Table
        The splits and payments that were read: symbol as asked, ex_date, kind, available_at, ingest_id; one row a report.
    """

    bars: pa.Table = field(repr=False)
    histories: Mapping[str, History]
    actions: pa.Table = field(repr=False)


def adjusted_bars(
    snapshot: Tables,
    symbols: Sequence[str],
    *,
    start: date | None = None,
    end: date | None = None,
    as_of: datetime | Literal["end"] | None = None,
    adjust: Adjust = "splits",
    source: str | Mapping[str, str] | None = None,
    action_source: str | Sequence[str] | None = None,
    interval: str = "1d",
    follow_renames: bool = True,
    reference_days: int | None = REFERENCE_DAYS,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Bars of companies, adjusted by the corporate actions that were known.

    Parameters
    ----------
    snapshot : Snapshot
    symbols : sequence of str
        Letters; each means the last company that took them on or before `end` (that is known, without `end`), and gives its
        bars under its earlier and later letters too, but not those of another company that held these.
    start, end : date, optional
        First and last session, both included.
    as_of : datetime or "end", optional
        Bars and actions as known at this aware moment; "end": as seen at the last bar of the read. Else as the snapshot knows them.
    adjust : {"none", "splits", "total"}
        `splits`: prices of all bars on the share count of each symbol's last bar. `total`: dividends, special dividends and
        capital gains too, as if paid out of the price on the ex-date: returns are total returns.
    source : str or mapping of str to str, optional
        Which source of bars, for all or by symbol. Needed where a symbol has several.
    action_source : str or sequence of str, optional
        Which sources of actions are believed; of several that report one ex-date the first in this order. By default all, which
        must agree.
    interval : str
    follow_renames : bool
        False: bars and actions as stored under these letters, whoever held them.
    reference_days : int or None
        How many days the close that a payment is taken out of may lie before its ex-date; see `factors`.
    columns : sequence of str, optional
        Which, and in which order.

    Returns
    -------
    pyarrow.Table
        Sorted by symbol and event time. `symbol` as asked, `letters` those of the day; open, high, low, close × price_factor ×
        split_factor, volume / split_factor; NULL stays NULL. Intraday bars take their session's factors, dividends relative to
        the last bar's close of the session before. Bars of basis vendor_adjusted stay as they are, with factors 1.
        `available_at` and `ingest_id` are the bar's.

    Raises
    ------
    InputError
        A symbol has several sources and none was chosen, or two of the symbols are one company.
    QualityError
        Sources disagree about an action, a payment is not below the price or in another currency, a series mixes two
        bases or two states of a vendor's adjustment, or bars lie under letters before the company took them.
    """
    wanted = COLUMNS if columns is None else tuple(columns)
    unknown = [name for name in wanted if name not in COLUMNS]
    if unknown:
        raise InputError(f"adjusted bars have no column {unknown[0]!r}", remedy=f"there are {', '.join(COLUMNS)}")
    return read_adjusted(
        snapshot,
        symbols,
        start=start,
        end=end,
        as_of=as_of,
        adjust=adjust,
        source=source,
        action_source=action_source,
        interval=interval,
        follow_renames=follow_renames,
        reference_days=reference_days,
        columns=wanted,
    ).bars.select(list(wanted))


def read_adjusted(
    snapshot: Tables,
    symbols: Sequence[str],
    *,
    start: date | None = None,
    end: date | None = None,
    as_of: datetime | Literal["end"] | None = None,
    adjust: Adjust = "splits",
    source: str | Mapping[str, str] | None = None,
    action_source: str | Sequence[str] | None = None,
    interval: str = "1d",
    follow_renames: bool = True,
    reference_days: int | None = REFERENCE_DAYS,
    columns: Sequence[str] = COLUMNS,
) -> AdjustedBars:
    """As `adjusted_bars`, with the companies' histories and the actions. `columns` are read, and what is needed besides."""
    if adjust not in ("none", "splits", "total"):
        raise InputError(f"adjust={adjust!r} is none of none, splits, total")
    asked = (symbols,) if isinstance(symbols, str) else tuple(dict.fromkeys(symbols))
    moment = _end_of(snapshot, asked, end, interval) if as_of == "end" else as_of
    listings = read_listings(snapshot, as_of=moment, action_source=action_source) if follow_renames else Listings()
    known = {symbol: listings.history(symbol, until=end) for symbol in asked}
    _refuse_twins(known)
    needed = (*_NEEDED, *(("currency",) if adjust == "total" else ()))
    stored = [name for name in dict.fromkeys((*needed, *columns)) if name not in _COMPUTED]
    where = {"symbol": _letters(known), "interval": [interval]}
    order = ["event_time"] if "event_time" not in stored else []
    held = snapshot.read("equity_bars", where=where, start=start, end=end, as_of=moment, columns=[*stored, *order])
    given = _of_companies(held, known, "session")
    _refuse_labelled_later(held, given, known, listings)
    bars = one_source(given, "symbol", source, argument="source")
    _refuse_two_bases(bars)
    refuse_mixed_adjustments(snapshot, bars, interval=interval, as_of=moment)
    kinds = {"none": (), "splits": ("split",), "total": ("split", *CASH_KINDS)}[adjust]
    reported = read_actions(snapshot, _letters(known), kinds, as_of=moment, action_source=action_source)
    actions = _of_companies(reported, known, "ex_date", listings)
    if adjust == "total":
        _refuse_other_currency(bars, actions)
    found = None if adjust == "none" else _factors_of(bars, agree(actions, action_source), reference_days)
    return AdjustedBars(bars=_apply(bars, found), histories=known, actions=actions)


def _letters(known: Mapping[str, History]) -> list[str]:
    return sorted({spell.symbol for history in known.values() for spell in history.spells})


def _end_of(snapshot: Tables, symbols: Sequence[str], end: date | None, interval: str) -> datetime | None:
    """The moment at which the last bar of the read was complete; None where there is no bar."""
    listings = read_listings(snapshot)
    where = {"symbol": _letters({symbol: listings.history(symbol, until=end) for symbol in symbols}), "interval": [interval]}
    found = snapshot.read("equity_bars", where=where, end=end, columns=["event_time"])
    last: datetime | None = pc.max(found["event_time"]).as_py()
    return last


def _refuse_twins(known: Mapping[str, History]) -> None:
    holder: dict[Spell, str] = {}
    for symbol, history in known.items():
        for spell in history.spells:
            other = holder.setdefault(spell, symbol)
            if other != symbol:
                raise InputError(
                    f"{other} and {symbol} are one company ({' -> '.join(str(one) for one in history.spells)})",
                    remedy="ask for one of the two, or for the letters as stored: follow_renames=False",
                )


def _of_companies(rows: pa.Table, known: Mapping[str, History], day: str, listings: Listings | None = None) -> pa.Table:
    """The rows, sorted by letters, of each company under the letters it was asked by; `letters` keeps those of the day.

    With `listings`, a row of the very day on which letters were left belongs to who left them, unless somebody took them that day.
    """
    if all(history.plain and history.symbol == symbol for symbol, history in known.items()):
        return rows.append_column("letters", rows["symbol"])
    blocks = _blocks(rows)
    pieces = [rows.slice(0, 0).append_column("letters", rows["symbol"].slice(0, 0))]
    for symbol in sorted(known):
        for spell in known[symbol].spells:
            piece = rows.slice(*blocks.get(spell.symbol, (0, 0)))
            if spell.start is not None:
                piece = piece.filter(pc.greater_equal(piece[day], pa.scalar(spell.start, pa.date32())))
            if spell.end is not None:
                taken = listings is None or any(other.start == spell.end for other in listings.spells(spell.symbol))
                until = pc.less if taken else pc.less_equal
                piece = piece.filter(until(piece[day], pa.scalar(spell.end, pa.date32())))
            named = pa.chunked_array([pa.repeat(pa.scalar(symbol), piece.num_rows)])
            place = rows.schema.get_field_index("symbol")
            piece = piece.append_column("letters", piece["symbol"])
            pieces.append(piece.set_column(place, rows.schema.field(place), named).cast(pieces[0].schema))
    return pa.concat_tables(pieces)


def _blocks(rows: pa.Table) -> dict[str, tuple[int, int]]:
    """First row and number of rows of each symbol, in rows sorted by it."""
    codes, names = _encoded(rows["symbol"])
    edges = np.searchsorted(codes, np.arange(len(names) + 1))
    return {name: (int(edges[at]), int(edges[at + 1] - edges[at])) for at, name in enumerate(names)}


def _encoded(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Each value's number, counted as the values appear, and the values."""
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # no rows
        return np.zeros(0, dtype=np.int64), []
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def _refuse_labelled_later(found: pa.Table, given: pa.Table, known: Mapping[str, History], listings: Listings) -> None:
    """Refuse bars under letters before the company took them, where they may be another company's or its own, labelled later.

    Some vendors file a company's whole history under its letters of today. Where the letters' earlier holder is not known and the
    company's earlier letters have no bar, nobody can tell which it is.
    """
    for symbol, history in known.items():
        for earlier, spell in zip(history.spells, history.spells[1:], strict=False):
            if any(event.out and event.day == spell.start for event in listings.events.get(spell.symbol, ())):
                continue
            before = next((one for one in listings.spells(spell.symbol) if one.end == spell.start), None)
            if before is None or before.start is not None:
                continue
            older = pc.and_(pc.equal(found["symbol"], spell.symbol), pc.less(found["session"], pa.scalar(spell.start, pa.date32())))
            own = pc.and_(pc.equal(given["symbol"], symbol), pc.equal(given["letters"], earlier.symbol))
            if pc.any(older).as_py() and not pc.any(own).as_py():
                raise QualityError(
                    f"{symbol}: {earlier.symbol} became {spell.symbol} on {spell.start}; there are bars of {spell.symbol} before "
                    f"that day and none of {earlier.symbol}: they are another company's, or the source files the whole history "
                    "under today's letters",
                    remedy=f"ingest {earlier.symbol}; or say who held {spell.symbol} before (a rename, delisting or listing of "
                    f"{spell.symbol}); or read the letters as stored: follow_renames=False",
                )


def _refuse_two_bases(bars: pa.Table) -> None:
    if len(bars["basis"].unique()) <= 1:
        return
    held: dict[str, str] = {}
    for row in bars.group_by(["symbol", "basis"]).aggregate([]).to_pylist():
        if held.setdefault(row["symbol"], row["basis"]) != row["basis"]:
            raise QualityError(
                f"{row['symbol']} has prices as traded and prices adjusted by the vendor in one series",
                remedy="read a window that holds one basis only, or ingest the symbol again from one of them",
            )


def _refuse_other_currency(bars: pa.Table, actions: pa.Table) -> None:
    """Refuse a payment in another currency than the price it is to be taken out of; one that names none is believed."""
    paid = actions.filter(pc.and_(pc.is_in(actions["kind"], value_set=pa.array(CASH_KINDS)), pc.is_valid(actions["currency"])))
    if paid["currency"].unique().to_pylist() in ([], bars["currency"].unique().to_pylist()):
        return
    prices: dict[str, set[str]] = {}
    for row in bars.group_by(["symbol", "currency"]).aggregate([]).to_pylist():
        prices.setdefault(row["symbol"], set()).add(row["currency"])
    for row in paid.group_by(["symbol", "currency", "source"]).aggregate([("ex_date", "min")]).to_pylist():
        if row["currency"] not in prices.get(row["symbol"], {row["currency"]}):
            raise QualityError(
                f"{row['symbol']}: {row['source']} tells the payment of {row['ex_date_min']} in {row['currency']}, the prices are "
                f"in {' and '.join(sorted(prices[row['symbol']]))}",
                remedy='ingest it in the currency of the prices and read that source: action_source="…"',
            )


def _factors_of(bars: pa.Table, events: Events, reference_days: int | None) -> Factors:
    """Factors of many series in one call; those a vendor adjusted have no events of ours."""
    codes, names = _encoded(bars["symbol"])
    ours = {name: at for at, name in enumerate(names)}
    if bars["basis"].unique().to_pylist() != ["as_traded"]:
        for code in np.unique(codes[pc.not_equal(bars["basis"], "as_traded").to_numpy()]):
            del ours[names[int(code)]]
    series = np.array([ours.get(symbol, -1) for symbol in events.symbols], dtype=np.int64)
    there = series >= 0
    return factors(
        bars["session"].to_numpy().astype("datetime64[D]"),
        bars["close"].to_numpy(),
        events.ex_dates[there],
        events.ratios[there],
        events.cash[there],
        series=codes,
        event_series=series[there],
        names=names,
        reference_days=reference_days,
    )


def _apply(bars: pa.Table, found: Factors | None) -> pa.Table:
    """Adjusted prices and volume in place of those as traded, and the two factors. NULL stays NULL."""
    ones = np.ones(bars.num_rows) if found is None else None
    price, split = (ones, ones) if found is None else (found.price, found.split)
    if found is not None:
        both = found.price * found.split
        if (both != 1).any():
            for name in PRICES:
                if name in bars.column_names:
                    bars = _replaced(bars, name, pc.multiply(bars[name], pa.array(both)))
        if "volume" in bars.column_names and (found.split != 1).any():
            bars = _replaced(bars, "volume", pc.divide(bars["volume"], pa.array(found.split)))
    return bars.append_column("price_factor", pa.array(price)).append_column("split_factor", pa.array(split))


def _replaced(bars: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    place = bars.schema.get_field_index(name)
    return bars.set_column(place, bars.schema.field(place), values)
