"""Reads a market panel from a lake snapshot: bars as known at a moment, macro values as known at each session's close.

1. `_read_bars` reads the bars of each company, adjusted by what was known (`lake.adjustment.read_adjusted`), and explains what is
   not there (`_explain_absence`).
2. `_lay_out` makes one matrix a field over the union of the symbols' sessions.
3. `_known_at` says when each row could first be known, corrections and late actions included.
4. `_read_macro` aligns the macro series (`align_macro`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from config.calendar import DEFAULT_CALENDAR, session_closes
from config.errors import InputError, QualityError, UnknownNameError, did_you_mean
from features.kernels import FloatArray
from features.macro import align_macro, parse_series
from features.panel import Adjust, MarketPanel
from lake.adjustment import AdjustedBars, read_adjusted
from lake.choice import one_source

if TYPE_CHECKING:
    from lake import Snapshot
    from lake.listings import History

__all__ = ["PanelRequest", "held_macro", "load_panel", "read_panel"]

FIELDS = ("open", "high", "low", "close", "volume")
_BAR_COLUMNS = ["symbol", "session", "event_time", "source", *FIELDS, "basis", "available_at", "ingest_id"]


def load_panel(
    snapshot: Snapshot,
    symbols: tuple[str, ...] | list[str],
    start: date | None = None,
    end: date | None = None,
    as_of: datetime | None = None,
    macro: tuple[str, ...] = (),
    source: str | Mapping[str, str] | None = None,
    *,
    macro_source: str | Mapping[str, str] | None = None,
    interval: str = "1d",
    calendar: str = DEFAULT_CALENDAR,
    adjust: Adjust = "splits",
    action_source: str | tuple[str, ...] | None = None,
    follow_renames: bool = True,
) -> MarketPanel:
    """Read prices and macro values by session.

    Parameters
    ----------
    snapshot : Snapshot
        A published state of the lake.
    symbols : sequence of str
        The columns, in this order. Letters mean the last company that took them on or before `end`; its bars under earlier and
        later letters are in the same column, those of another company that held the letters are not.
    start, end : date, optional
        First and last session, both included.
    as_of : datetime, optional
        Bars, corporate actions and macro vintages are read as known at this aware moment; as known to the snapshot otherwise.
    macro : tuple of str
        Series, newest period known at each close; ``CPILFESL@-12M`` is the value twelve months before that period.
    source, macro_source : str or mapping of str to str, optional
        Which source to read, for all or by symbol (series). Needed where a symbol (series) has several.
    interval : str
        The bars' interval.
    calendar : str
        The exchange whose closes date the sessions. A session it does not hold (a weekend of a crypto symbol) is dated by the
        latest `event_time` of its bars.
    adjust : {"splits", "total", "none"}
        For which corporate actions, as known at `as_of`, prices as traded are adjusted: splits; dividends and capital gains too; or
        nothing. Vendor-adjusted prices are left as they are.
    action_source : str or tuple of str, optional
        Whom to believe about actions; by default all sources, which must agree.
    follow_renames : bool
        False: the bars stored under the letters, whoever held them.

    Returns
    -------
    MarketPanel
        Rows are the union of the symbols' sessions; a symbol without a bar on one of them (or on all) is NaN there, as it is from
        its delisting on (`panel.companies`). Each symbol's last bar is as traded; an action acts on the bars before its ex-date.

    Notes
    -----
    A bar that was corrected after its session appears in its newest version known at `as_of`. To see what was known earlier,
    read with an earlier `as_of`.

    *What adjustment promises.* An action changes all earlier prices of its symbol by one factor, so the ratio of any two prices up
    to a session depends on actions up to that session only: returns, and every feature that stays the same when all its prices are
    multiplied by one number, are the same whether the panel ends there or years later. The *level* of an adjusted price knows later
    actions: a rule such as "above five dollars" belongs on a panel with ``adjust="none"``. Volume is adjusted by splits only, so
    that close × volume is cash traded under "none" and "splits", and lower by later payments under "total".

    Raises
    ------
    UnknownNameError
        A symbol or a macro series is not in the lake.
    InputError
        No symbol, a symbol (or a company) twice, two sources and none chosen, or no bar in the window.
    QualityError
        A symbol has two bars for one session, or the bars cannot be adjusted: see `lake.adjustment.adjusted_bars`.
    """
    request = PanelRequest(
        symbols=tuple(symbols) if not isinstance(symbols, str) else (),
        start=start,
        end=end,
        as_of=as_of,
        macro=tuple(macro),
        source=source,
        macro_source=macro_source,
        interval=interval,
        calendar=calendar,
        adjust=adjust,
        action_source=action_source,
        follow_renames=follow_renames,
    )
    return read_panel(snapshot, request)[0]


@dataclass(frozen=True, kw_only=True)
class PanelRequest:
    """What `load_panel` was asked for; the parameters are the same."""

    symbols: tuple[str, ...]
    start: date | None = None
    end: date | None = None
    as_of: datetime | None = None
    macro: tuple[str, ...] = ()
    source: str | Mapping[str, str] | None = None
    macro_source: str | Mapping[str, str] | None = None
    interval: str = "1d"
    calendar: str = DEFAULT_CALENDAR
    adjust: Adjust = "splits"
    action_source: str | tuple[str, ...] | None = None
    follow_renames: bool = True

    def __post_init__(self) -> None:
        if not self.symbols:
            raise InputError("no symbols were given", remedy='pass a sequence of at least one, as in ("SP500",)')
        twice = sorted({symbol for symbol in self.symbols if self.symbols.count(symbol) > 1})
        if twice:
            raise InputError(f"symbols named twice: {', '.join(twice)}", remedy="name each once")
        if self.start is not None and self.end is not None and self.start > self.end:
            raise InputError(f"start {self.start} lies after end {self.end}", remedy="exchange them")
        if self.as_of is not None and self.as_of.tzinfo is None:
            raise InputError(f"as_of={self.as_of!r} has no time zone", remedy="pass an aware UTC datetime")


def read_panel(snapshot: Snapshot, request: PanelRequest) -> tuple[MarketPanel, pd.DataFrame]:
    """As `load_panel`, and when each row could first be known.

    Returns
    -------
    panel : MarketPanel
    known_at : DataFrame of shape (n_sessions, n_symbols)
        UTC: the session's close, or later where one of the symbol's bars up to that session was corrected since. NaT where the
        symbol has no bar.
    """
    read = _read_bars(snapshot, request)
    bars = read.bars
    sessions, fields = _lay_out(bars, request.symbols)
    closes = _closes(bars, sessions, request.calendar)
    series, macro_ids = _read_macro(snapshot, request, closes, sessions)
    action_ids = read.actions["ingest_id"].unique().to_pylist()
    basis = {row["symbol"]: row["basis"] for row in bars.group_by(["symbol", "basis"]).aggregate([]).to_pylist()}
    panel = MarketPanel(
        **{name: pd.DataFrame(fields[name], index=sessions, columns=list(request.symbols)) for name in FIELDS},
        macro=series,
        basis=dict(sorted(basis.items())),
        adjust=request.adjust,
        companies={symbol: read.histories[symbol] for symbol in request.symbols},
        ingest_ids=tuple(sorted({*bars["ingest_id"].unique().to_pylist(), *action_ids, *macro_ids})),
        snapshot_id=snapshot.id,
    )
    return panel, _known_at(read, request.symbols, sessions, closes)


def held_macro(snapshot: Snapshot, names: Iterable[str], *, as_of: datetime | None = None) -> tuple[str, ...]:
    """Those of the macro names whose series the snapshot holds (as known at `as_of`): what `load_panel` may be asked for."""
    asked = {name: parse_series(name).series for name in dict.fromkeys(names)}
    if not asked or "macro_observations" not in snapshot.tables:
        return ()
    found = snapshot.read("macro_observations", where={"series": sorted(set(asked.values()))}, as_of=as_of, columns=["series"])
    held = set(found["series"].unique().to_pylist())
    return tuple(name for name, series in asked.items() if series in held)


def _read_bars(snapshot: Snapshot, request: PanelRequest) -> AdjustedBars:
    if "equity_bars" not in snapshot.tables:
        raise InputError(f"snapshot {snapshot.id} holds no bars", remedy="ingest some first: quant ingest equity")
    read = read_adjusted(
        snapshot,
        request.symbols,
        start=request.start,
        end=request.end,
        as_of=request.as_of,
        adjust=request.adjust,
        source=request.source,
        action_source=request.action_source,
        interval=request.interval,
        follow_renames=request.follow_renames,
        columns=_BAR_COLUMNS,
    )
    absent = sorted(set(request.symbols) - set(read.bars["symbol"].unique().to_pylist()))
    if absent:
        _explain_absence(snapshot, request, absent, read.histories)
    if read.bars.num_rows == 0:
        first, last = request.start or "the first session", request.end or "the last"
        moment = "" if request.as_of is None else f", as known at {request.as_of:%Y-%m-%d %H:%M %Z}"
        raise InputError(
            f"no bar of {', '.join(request.symbols)} from {first} to {last}{moment}",
            remedy="widen the window; `quant data ls` shows what is there",
        )
    return read


def _explain_absence(snapshot: Snapshot, request: PanelRequest, absent: list[str], companies: Mapping[str, History]) -> None:
    """Refuse symbols that the lake does not hold; one without a bar in the window, or as of the moment, is a column of NaN."""
    held = snapshot.read("equity_bars", where={"interval": [request.interval]}, columns=["symbol", "source"])
    pairs = {(row["symbol"], row["source"]) for row in held.group_by(["symbol", "source"]).aggregate([]).to_pylist()}
    known = sorted({symbol for symbol, _ in pairs})
    for symbol in absent:
        letters = {spell.symbol for spell in companies[symbol].spells}
        if not letters & set(known):
            raise UnknownNameError(f"the lake holds no {request.interval} bar of {symbol!r}", remedy=did_you_mean(symbol, known))
        chosen = request.source if isinstance(request.source, str) else (request.source or {}).get(symbol)
        there = sorted({name for held_symbol, name in pairs if held_symbol in letters})
        if chosen is not None and chosen not in there:
            raise UnknownNameError(f"{symbol} has no bar from source {chosen!r}", remedy=f"it has bars from {', '.join(there)}")


def _lay_out(bars: pa.Table, symbols: tuple[str, ...]) -> tuple[pd.DatetimeIndex, dict[str, FloatArray]]:
    """One matrix a field; rows are the sessions on which any symbol has a bar."""
    days = bars["session"].to_numpy().astype("datetime64[D]").astype(np.int64)
    first = days.min()
    held = np.bincount(days - first) > 0  # days are few and bars are many: counted, not sorted
    unique = (np.flatnonzero(held) + first).astype("datetime64[D]")
    row = (np.cumsum(held) - 1)[days - first]
    column = pc.index_in(bars["symbol"], value_set=pa.array(symbols)).to_numpy()
    cell = row * len(symbols) + column
    bars_in = np.bincount(cell)
    if bars_in.max() > 1:
        place = int(np.flatnonzero(bars_in > 1)[0])
        raise QualityError(
            f"{symbols[place % len(symbols)]} has two bars for the session {unique[place // len(symbols)]}",
            remedy="one of them carries the wrong event time: quant data check",
        )
    fields = {}
    for name in FIELDS:
        matrix = np.full((len(unique), len(symbols)), np.nan)
        matrix[row, column] = bars[name].cast(pa.float64()).to_numpy()
        fields[name] = matrix
    return pd.DatetimeIndex(unique.astype("datetime64[ns]"), name="session"), fields


def _closes(bars: pa.Table, sessions: pd.DatetimeIndex, calendar: str) -> pd.DatetimeIndex:
    """The moment each session closes: the exchange's own, else the latest event time of the session's bars."""
    closes = session_closes(sessions, calendar)
    if not closes.isna().any():
        return closes
    latest = bars.group_by("session").aggregate([("event_time", "max")]).to_pandas().set_index("session")["event_time_max"]
    latest.index = pd.DatetimeIndex(latest.index)
    ends = pd.DatetimeIndex(latest.reindex(sessions))
    return pd.DatetimeIndex(closes.where(closes.notna(), ends.tz_convert("UTC")))


def _known_at(read: AdjustedBars, symbols: tuple[str, ...], sessions: pd.DatetimeIndex, closes: pd.DatetimeIndex) -> pd.DataFrame:
    bars, value_set = read.bars, pa.array(symbols)
    row = sessions.get_indexer(pd.DatetimeIndex(bars["session"].to_numpy()))
    column = pc.index_in(bars["symbol"], value_set=value_set).to_numpy()
    never = np.iinfo(np.int64).min  # also how NumPy writes NaT
    available = np.full((len(sessions), len(symbols)), never)
    available[row, column] = _microseconds(bars["available_at"])
    missing = available == never
    # What adjusts the bars before an ex-date has to be known from then on; of several reports the first will do.
    actions = read.actions.group_by(["symbol", "ex_date", "kind"]).aggregate([("available_at", "min")])
    first = sessions.searchsorted(pd.DatetimeIndex(actions["ex_date"].to_numpy()))
    acts = (first > 0) & (first < len(sessions))
    column = pc.index_in(actions["symbol"], value_set=value_set).to_numpy()
    np.maximum.at(available, (first[acts], column[acts]), _microseconds(actions["available_at_min"])[acts])
    close = closes.to_numpy(dtype="datetime64[us]").astype(np.int64)
    known = np.maximum(np.maximum.accumulate(available, axis=0), close[:, np.newaxis])
    known[missing] = never
    columns = {symbol: pd.DatetimeIndex(known[:, place].astype("datetime64[us]"), tz="UTC") for place, symbol in enumerate(symbols)}
    return pd.DataFrame(columns, index=sessions)


def _microseconds(moments: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(moments.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(), dtype=np.int64)


def _read_macro(
    snapshot: Snapshot, request: PanelRequest, closes: pd.DatetimeIndex, sessions: pd.DatetimeIndex
) -> tuple[dict[str, pd.Series], set[str]]:
    if not request.macro:
        return {}, set()
    if "macro_observations" not in snapshot.tables:
        raise InputError(f"snapshot {snapshot.id} holds no macro series", remedy="ingest some first: quant ingest macro")
    series = sorted({parse_series(name).series for name in request.macro})
    columns = ["series", "period", "vintage", "source", "value", "available_at", "ingest_id"]
    observations = _in_force(snapshot.versions("macro_observations", where={"series": series}, columns=columns), request.as_of)
    absent = sorted(set(series) - set(observations["series"].unique().to_pylist()))
    if absent:
        held = snapshot.read("macro_observations", as_of=request.as_of, columns=["series"])
        known = sorted(held["series"].unique().to_pylist())
        raise UnknownNameError(f"the lake holds no macro series {absent[0]!r}", remedy=did_you_mean(absent[0], known))
    observations = one_source(observations, "series", request.macro_source, argument="macro_source")
    return align_macro(observations, request.macro, closes, sessions), set(observations["ingest_id"].unique().to_pylist())


def _in_force(every: pa.Table, as_of: datetime | None) -> pa.Table:
    """Every version of each observation that was the known one at some moment up to `as_of`.

    A vintage that was assumed and is revised has its old value until then; one that its source corrects under its own date never
    had another.
    """
    if as_of is not None:
        every = every.filter(pc.less_equal(every["available_at"], pa.scalar(as_of, every["available_at"].type)))
    first: dict[tuple[object, ...], datetime] = {}
    rows = every.select(["series", "period", "vintage", "source", "available_at"])
    if rows.num_rows == rows.drop(["available_at"]).group_by(["series", "period", "vintage", "source"]).aggregate([]).num_rows:
        return every
    kept = []
    for number, row in reversed(list(enumerate(rows.to_pylist()))):  # of one key the newest version first
        *key, moment = row.values()
        if tuple(key) not in first or moment < first[tuple(key)]:
            first[tuple(key)] = moment
            kept.append(number)
    return every.take(pa.array(kept[::-1]))
