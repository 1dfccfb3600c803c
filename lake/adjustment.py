"""Adjusted bars: prices as traded in the lake, factors computed on each read from the corporate actions known by then.

1. `read_adjusted` reads who held which letters (`lake.listings`), then bars, and gives each to its company (`_of_companies`).
2. It refuses two sources of one symbol (`lake.choice`), two bases, and vendors' histories of two adjustments
   (`lake.readjustment`).
3. `lake.actions` reads splits and payments and lets sources agree (`agree`): one event a company and ex-date.
4. `factors` turns events into two factors a bar; `_apply` multiplies: adjusted = as traded × price_factor × split_factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from config.errors import InputError, QualityError
from lake.actions import Events, agree, read_actions
from lake.choice import one_source
from lake.listings import History, Listings, Spell, read_listings
from lake.readjustment import refuse_mixed_adjustments

if TYPE_CHECKING:
    from lake.reading import Tables

__all__ = ["Adjust", "AdjustedBars", "Factors", "adjusted_bars", "factors", "read_adjusted"]

Adjust: TypeAlias = Literal["none", "splits", "total"]
FloatArray: TypeAlias = npt.NDArray[np.float64]
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
class Factors:
    """What each bar is multiplied with.

    Parameters
    ----------
    price : ndarray of shape (n_bars,)
        For cash paid later: the product of 1 − amount / close before the ex-date.
    split : ndarray of shape (n_bars,)
        For splits later: one over the product of new shares for an old one. Volume is divided by it.
    """

    price: FloatArray
    split: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class AdjustedBars:
    """Adjusted bars, and what they were made of.

    Parameters
    ----------
    bars : pyarrow.Table
        As `adjusted_bars`.
    histories : mapping of str to History
        By symbol as asked: its letters through time, its delisting.
    action_ingest_ids : tuple of str
        The ingests of the corporate actions that were read, sorted.
    """

    bars: pa.Table = field(repr=False)
    histories: Mapping[str, History]
    action_ingest_ids: tuple[str, ...] = ()


def factors(
    sessions: npt.NDArray[np.datetime64],
    close: FloatArray,
    ex_dates: npt.NDArray[np.datetime64],
    ratios: FloatArray,
    cash: FloatArray,
    *,
    series: npt.NDArray[np.int64] | None = None,
    event_series: npt.NDArray[np.int64] | None = None,
    names: Sequence[str] = (),
) -> Factors:
    """The factors of bars as traded, by splits and cash of later ex-dates.

    An event acts on the bars before the first session on or after its ex-date; with an ex-date not after a series' first bar, or
    after its last, on none. So the last bar is always as traded, and the factor of one bar to another depends on the events
    between the two only: cutting the future off changes levels by one constant, and no return.

    Parameters
    ----------
    sessions : ndarray of datetime64[D], shape (n_bars,)
        Ascending within a series; an intraday series has several bars a session.
    close : ndarray of shape (n_bars,)
        As traded, in the instrument's currency; NaN where there is none.
    ex_dates : ndarray of datetime64[D], shape (n_events,)
    ratios : ndarray of shape (n_events,)
        New shares for one old; 1 for cash only.
    cash : ndarray of shape (n_events,)
        Amount a share, of the shares that trade on the ex-date: after a split of the same day. 0 for a split only.
    series, event_series : ndarray of int, shapes (n_bars,), (n_events,)
        Which series a bar (ascending) and an event belong to; all to one by default.
    names : sequence of str
        Of the series, for messages.

    Returns
    -------
    Factors
        Never NaN. An event's own: ``1 / ratio`` and ``1 − cash × ratio / P``, P the last close before the ex-date (a NaN close is
        passed over), as in the factor files of QuantConnect's Lean and, for cash alone, CRSP's and Yahoo's adjusted close.

    Raises
    ------
    QualityError
        A ratio is not positive, cash is negative, or not below the price it is paid out of, or there is no such price.

    Examples
    --------
    A dividend of 1 on the third day, out of a close of 50; a two-for-one split on the fourth:

    >>> import numpy as np
    >>> days = np.array(["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"], "datetime64[D]")
    >>> found = factors(days, np.array([40.0, 50.0, 49.0, 25.0]), days[2:], np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    >>> [round(float(value), 4) for value in found.price], [float(value) for value in found.split]
    ([0.98, 0.98, 1.0, 1.0], [0.5, 0.5, 0.5, 1.0])
    """
    bars = len(sessions)
    price, split = np.ones(bars), np.ones(bars)
    of_bar = np.zeros(bars, dtype=np.int64) if series is None else series
    of_event = np.zeros(len(ex_dates), dtype=np.int64) if event_series is None else event_series
    row, first, ratio, paid = _placed(sessions, of_bar, ex_dates, of_event, ratios, cash, names)
    if not len(row):
        return Factors(price=price, split=split)
    reference = _last_close(close, row, first)
    factor = np.ones(len(row))
    pays = paid > 0
    with np.errstate(invalid="ignore"):
        factor[pays] = 1 - (paid * ratio / reference)[pays]
    wrong = np.flatnonzero(pays & ~(factor > 0))
    if len(wrong):
        _refuse_payment(int(wrong[0]), sessions, of_bar, row, paid, ratio, reference, names)
    # Each stretch of bars between two events of a series has one factor: the product of the series' events after it.
    for begin in np.flatnonzero(np.r_[True, first[1:] != first[:-1]]):
        end = int(np.searchsorted(first, first[begin], side="right"))
        lengths = np.diff(np.r_[first[begin], row[begin:end]])
        stretch = slice(int(first[begin]), int(row[end - 1]))
        price[stretch] = np.repeat(np.cumprod(factor[begin:end][::-1])[::-1], lengths)
        split[stretch] = np.repeat(1 / np.cumprod(ratio[begin:end][::-1])[::-1], lengths)
    return Factors(price=price, split=split)


def _placed(
    sessions: npt.NDArray[np.datetime64],
    of_bar: npt.NDArray[np.int64],
    ex_dates: npt.NDArray[np.datetime64],
    of_event: npt.NDArray[np.int64],
    ratios: FloatArray,
    cash: FloatArray,
    names: Sequence[str],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray, FloatArray]:
    """The events that act: the bar each comes before, its series' first bar, ratio and cash; those of one bar in one."""
    bad = np.flatnonzero(~(ratios > 0) | ~np.isfinite(ratios) | ~(cash >= 0) | ~np.isfinite(cash))
    if len(bad):
        at = int(bad[0])
        raise QualityError(
            f"{_name(names, of_event[at])}: the action of {ex_dates[at]} has the ratio {ratios[at]:g} and the amount {cash[at]:g}",
            remedy="a ratio is positive, an amount not negative: correct the corporate action",
        )
    span = np.int64(1) << 32
    days = sessions.astype("datetime64[D]").astype(np.int64)
    bar_key = of_bar * span + days
    row = np.searchsorted(bar_key, of_event * span + ex_dates.astype("datetime64[D]").astype(np.int64), side="left")
    first = np.searchsorted(of_bar, of_event, side="left")
    last = np.searchsorted(of_bar, of_event, side="right")
    acts = (row > first) & (row < last)
    row, first, ratios, cash = row[acts], first[acts], ratios[acts], cash[acts]
    together, event = np.unique(row, return_inverse=True)
    ratio = np.ones(len(together))
    np.multiply.at(ratio, event, ratios)
    paid: FloatArray = np.zeros(len(together))
    np.add.at(paid, event, cash)
    begins = np.zeros(len(together), dtype=np.int64)
    begins[event] = first
    return np.asarray(together, dtype=np.int64), begins, ratio, paid


def _last_close(close: FloatArray, row: npt.NDArray[np.int64], first: npt.NDArray[np.int64]) -> FloatArray:
    """The last close before each row that is a number, of the same series; NaN where there is none."""
    found = close[row - 1].astype(np.float64)
    for event in np.flatnonzero(np.isnan(found)):
        before = np.flatnonzero(~np.isnan(close[first[event] : row[event]]))
        found[event] = close[first[event] + before[-1]] if len(before) else np.nan
    return found


def _refuse_payment(
    at: int,
    sessions: npt.NDArray[np.datetime64],
    of_bar: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
    paid: FloatArray,
    ratio: FloatArray,
    reference: FloatArray,
    names: Sequence[str],
) -> None:
    who, when = _name(names, of_bar[row[at]]), sessions[row[at]]
    before = "no close" if np.isnan(reference[at]) else f"a close of {reference[at]:g}"
    of_old = "" if ratio[at] == 1 else f", {paid[at] * ratio[at]:g} an old share"
    raise QualityError(
        f"{who}: {paid[at]:g} a share is paid on {when}{of_old}, with {before} before it: prices cannot be adjusted",
        remedy="correct the corporate action (its amount, its currency) or the bar; quant data check",
    )


def _name(names: Sequence[str], series: Any) -> str:
    return names[int(series)] if int(series) < len(names) else f"series {int(series)}"


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
        Sources disagree about an action, a payment is not below the price, a series mixes two bases or two states of a vendor's
        adjustment, or bars lie under letters before the company took them.
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
    columns: Sequence[str] = COLUMNS,
) -> AdjustedBars:
    """As `adjusted_bars`, with the companies' histories and the ingests of the actions. `columns` are read, and what is needed."""
    if adjust not in ("none", "splits", "total"):
        raise InputError(f"adjust={adjust!r} is none of none, splits, total")
    asked = (symbols,) if isinstance(symbols, str) else tuple(dict.fromkeys(symbols))
    moment = _end_of(snapshot, asked, end, interval) if as_of == "end" else as_of
    listings = read_listings(snapshot, as_of=moment, action_source=action_source) if follow_renames else Listings()
    known = {symbol: listings.history(symbol, until=end) for symbol in asked}
    _refuse_twins(known)
    stored = [name for name in dict.fromkeys((*_NEEDED, *columns)) if name not in _COMPUTED]
    where = {"symbol": _letters(known), "interval": [interval]}
    order = ["event_time"] if "event_time" not in stored else []
    found = snapshot.read("equity_bars", where=where, start=start, end=end, as_of=moment, columns=[*stored, *order])
    given = _of_companies(found, known, "session")
    _refuse_labelled_later(found, given, known, listings)
    bars = one_source(given, "symbol", source, argument="source")
    _refuse_two_bases(bars)
    refuse_mixed_adjustments(snapshot, bars, interval=interval, as_of=moment)
    if adjust == "none" or not bars.num_rows:
        return AdjustedBars(bars=_apply(bars, None), histories=known)
    reported = read_actions(snapshot, _letters(known), as_of=moment, action_source=action_source, cash=adjust == "total")
    actions = _of_companies(reported, known, "ex_date", listings)
    ingests = tuple(sorted(actions["ingest_id"].unique().to_pylist()))
    applied = _apply(bars, _factors_of(bars, agree(actions, action_source)))
    return AdjustedBars(bars=applied, histories=known, action_ingest_ids=ingests)


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
    held: dict[str, str] = {}
    for row in bars.group_by(["symbol", "basis"]).aggregate([]).to_pylist():
        if held.setdefault(row["symbol"], row["basis"]) != row["basis"]:
            raise QualityError(
                f"{row['symbol']} has prices as traded and prices adjusted by the vendor in one series",
                remedy="read a window that holds one basis only, or ingest the symbol again from one of them",
            )


def _factors_of(bars: pa.Table, events: Events) -> Factors:
    """Factors of many series in one call; those a vendor adjusted have no events of ours."""
    codes, names = _encoded(bars["symbol"])
    traded = pc.equal(bars["basis"], "as_traded").to_numpy()
    ours = {name: at for at, name in enumerate(names)}
    for code in np.unique(codes[~traded]):
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
