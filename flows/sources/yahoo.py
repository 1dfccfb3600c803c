"""Yahoo through yfinance: daily and intraday bars as traded, splits, dividends, capital gains, and today's option chains.

1. `_Client.chart` lets ``yfinance.Ticker.history(auto_adjust=False, actions=True)`` ask, through a session that keeps Yahoo's bytes
   and names failures (`yahoo_session`). The window always ends now, whatever the caller's end: only so the answer holds every split
   that Yahoo has applied to it. (It also keeps yfinance from answering out of its own cache.)
2. `read_chart` reads the bytes (`yahoo_chart`), `_finished` leaves out what is no bar yet on the exchange's own calendar.
3. `_bar_answer` takes later splits off prices and volumes, `_action_answer` off payments; what cannot be placed is a refused row.

Rows are read from Yahoo's bytes, not from the frame that yfinance makes of them: the frame has volumes of 0 where Yahoo gives none,
rows of NaN for events without a bar, and payments moved to the bar before a day without one.

A symbol that Yahoo does not have is missing; a failure is an error, never a delisting. Yahoo's currency stays as it is: London is
quoted in GBp, which are pence.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from config.calendar import next_session, session_closes, session_opens
from config.clock import Clock, SystemClock
from config.errors import InputError, QuantError, ServiceError, ServiceUnavailable
from config.settings import Settings
from flows.sources.base import Answer, RefusedRow
from flows.sources.shape import bar_rows, empty_rows, plain_row, table_of
from flows.sources.yahoo_chart import Chart, Event, NotApplied, as_traded, factors_after, read_chart, splits_not_applied
from flows.sources.yahoo_exchanges import calendar_of

if TYPE_CHECKING:
    from flows.sources.yahoo_session import DataReply, YahooSession

__all__ = ["INTERVALS", "YahooClient", "YahooEquity"]

# Yahoo answers 30m with bars of 60 minutes (yfinance makes them of 15m), and weeks and months are no bars of a session.
INTERVALS = {
    "1d": None,
    "1m": timedelta(minutes=1),
    "2m": timedelta(minutes=2),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "60m": timedelta(hours=1),
    "1h": timedelta(hours=1),
    "90m": timedelta(minutes=90),
}
_AHEAD = timedelta(days=2)  # the window ends after today's events, which Yahoo stamps with the session's open
_DELAYED = timedelta(minutes=30)  # quotes of exchanges that Yahoo has with a delay are a quarter of an hour late
_ISIN = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")
_caches: dict[str, str] = {}  # where yfinance keeps its caches, as last set by us
_ONE_AT_A_TIME = threading.RLock()  # yfinance keeps one session, one crumb and one configuration a process


class YahooEquity:
    """Bars and corporate actions from Yahoo.

    Parameters
    ----------
    settings : Settings
        `data.timeout_seconds`, `data.seconds_between_requests`, `data.addresses`.
    interval : str
        As in `INTERVALS`; intraday bars go back 8 (1m), 60 (2m to 15m, 90m) or 730 days (1h), which are Yahoo's limits.
    calendar : str, optional
        The exchange calendar, instead of the one of the exchange that Yahoo names.
    clock : Clock, optional
        Says which session has closed.

    Notes
    -----
    `available_at` of a daily bar is its session's close; of a mutual fund's net asset value, which is computed after it, the next
    session's open; of an intraday bar its end; of a corporate action the open of its ex-date, from which on the price shows it.
    """

    name = "yahoo"
    names_per_request: int | None = 1
    incremental = True

    def __init__(
        self, settings: Settings, *, interval: str = "1d", calendar: str | None = None, clock: Clock | None = None
    ) -> None:
        if interval not in INTERVALS:
            raise InputError(f"yahoo has no bars of {interval!r} here", remedy=f"use one of {', '.join(INTERVALS)}")
        self.interval = interval
        self._calendar = calendar
        self._clock = clock or SystemClock()
        self._client = YahooClient(settings)

    def available(self) -> None:
        """Yahoo does not list what it has: it is asked for each symbol."""
        return

    def bars(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """Bars, then corporate actions, of each symbol, sessions and ex-dates from `start` to `end`.

        Raises
        ------
        ServiceUnavailable, RateLimited
            No answer, or none that can be read; asked to wait. Both are cured by asking again.
        ServiceError
            Yahoo refuses the question: an intraday window too far back, for instance.
        QualityError
            The symbol's exchange has no calendar here.
        """
        for symbol in symbols:
            yield from self._of_symbol(symbol, start, end)

    def _of_symbol(self, symbol: str, start: date | None, end: date | None) -> Iterator[Answer]:
        request = {
            "symbol": symbol,
            "interval": self.interval,
            "start": None if start is None else start.isoformat(),
            "end": None if end is None else end.isoformat(),
        }
        wrong = _misspelt(symbol)
        if wrong is not None:
            yield _missing(symbol, request, wrong)
            return
        now = self._clock.now()
        reply, why = self._client.chart(symbol, self.interval, start, now + _AHEAD)
        if reply is None:
            yield _missing(symbol, request, why)
            return
        if why:  # Yahoo knows the symbol and has nothing in this window
            yield _answer("equity_bars", symbol, request, reply, empty_rows("equity_bars"), notes=(f"{symbol}: {why}",))
            return
        chart = read_chart(reply.document, reply.origin)
        if chart.symbol.upper() != symbol:
            raise ServiceError(f"yahoo was asked for {symbol} and answered for {chart.symbol}", remedy=f"ask for {chart.symbol}")
        calendar = calendar_of(chart.exchange, symbol, self._calendar)
        yield self._bar_answer(chart, calendar, request, reply, (start, end), now)
        yield self._action_answer(chart, calendar, request, reply, (start, end))

    def _bar_answer(
        self,
        chart: Chart,
        calendar: str,
        request: Mapping[str, Any],
        reply: DataReply,
        window: tuple[date | None, date | None],
        now: datetime,
    ) -> Answer:
        symbol = str(request["symbol"])
        length = INTERVALS[self.interval]
        splits = chart.of_kind("split")
        unapplied = splits_not_applied(chart.bars, splits) if length is None else []
        frame, notes = _priced(chart)
        frame = frame.loc[_within(frame["session"], window)]
        frame, refused = _place(frame, chart, calendar, length, symbol)
        frame, live = _finished(frame, chart, calendar, length, now)
        frame, unsure = _without_unsure(frame, chart, splits, unapplied, symbol)
        rows, strays = bar_rows(
            _taken_back(frame, factors_after(pd.DatetimeIndex(frame["session"]), splits, unapplied), symbol),
            source=self.name,
            basis="as_traded",
            currency=chart.currency or "XXX",  # ISO 4217: no currency, of an index in points
            calendar=calendar,
            describe=lambda label: f"Yahoo's bar of {frame.loc[label, 'start']}",
            interval=self.interval,
            complete_at=None if length is None else frame["complete_at"],
        )
        if chart.instrument == "MUTUALFUND" and length is None:
            rows = _known_next_open(rows, calendar)
        notes += [f"{symbol}: {live} unfinished {'bar' if live == 1 else 'bars'} left out"] if live else []
        return _answer("equity_bars", symbol, request, reply, rows, (*refused, *unsure, *strays), notes)

    def _action_answer(
        self,
        chart: Chart,
        calendar: str,
        request: Mapping[str, Any],
        reply: DataReply,
        window: tuple[date | None, date | None],
    ) -> Answer:
        symbol = str(request["symbol"])
        splits = chart.of_kind("split")
        days = pd.DatetimeIndex([pd.Timestamp(event.day) for event in chart.events])
        keep = _within(pd.Series(days), window)
        events = [event for event, kept in zip(chart.events, keep, strict=True) if kept]
        rows = _action_rows(events, splits, symbol, calendar, chart.currency)
        refused = tuple(
            RefusedRow(symbol=symbol, rule="wrong_type", reason=f"{bad['kind']} of {symbol}: {bad['why']}", raw=bad)
            for bad in chart.bad_events
        )
        both = {e.day for e in events if e.kind == "dividend"} & {e.day for e in events if e.kind == "capital_gain"}
        notes = [
            f"{symbol}: Yahoo has a dividend and a capital gain on {day}; of some funds its dividend includes the gain"
            for day in sorted(both)
        ]
        return _answer("corporate_actions", symbol, request, reply, rows, refused, notes)


class YahooClient:
    """yfinance, one call at a time, with a session that keeps Yahoo's bytes.

    yfinance's session, crumb, configuration and caches belong to the process: each call holds a lock, sets them, and puts the
    configuration back. Its small caches (time zones of symbols, a cookie) are kept in ``<home>/cache/yfinance``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: YahooSession | None = None

    def chart(self, symbol: str, interval: str, start: date | None, end: datetime) -> tuple[DataReply | None, str]:
        """Ask for a chart from `start` (None: the first day there is) to `end`.

        Returns
        -------
        reply : DataReply or None
            None: Yahoo has no such symbol.
        why : str
            Yahoo's reason for no symbol, or for a window without bars; else empty.
        """
        from flows.sources.yahoo_session import Told

        window: dict[str, Any] = {"period": "max", "end": end} if start is None else {"start": start, "end": end}
        with self.asking() as (yfinance, session):
            try:
                yfinance.Ticker(symbol, session=session).history(
                    interval=interval,
                    auto_adjust=False,
                    actions=True,
                    prepost=False,
                    timeout=self._settings.data.timeout_seconds,
                    **window,
                )
            except Told as told:
                return self._told(told, symbol)
            except QuantError:
                raise
            except Exception as problem:
                # yfinance found no bars, or could not frame them. The bytes, if there are any, say what Yahoo said.
                if not session.replies:
                    words = f"yfinance failed before Yahoo answered about {symbol} ({type(problem).__name__}: {problem})"
                    raise ServiceUnavailable(words, remedy="run the same command again") from problem
            return _last(session.replies, symbol, {"interval": interval}), ""

    def _told(self, told: Any, symbol: str) -> tuple[DataReply | None, str]:
        if told.code == "Not Found":
            return None, f"yahoo: {told.description}"
        if "Data doesn't exist for startDate" in told.description:
            return told.reply, f"yahoo has no bars in this window ({told.description})"
        raise ServiceError(
            f"yahoo refuses the question about {symbol}: {told.code}: {told.description}",
            remedy="check the symbol, the interval and how far back the window goes",
        )

    @contextmanager
    def asking(self) -> Iterator[tuple[Any, YahooSession]]:
        """yfinance and the session, for one question."""
        import yfinance

        from flows.sources.yahoo_session import YahooSession

        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # yfinance 1.7 on pandas 3 warns of its own code, a dozen times a call
            if self._session is None:
                self._session = YahooSession(self._settings)
            _keep_caches_in(yfinance, str(self._settings.home_path / "cache" / "yfinance"))
            before = yfinance.config.debug.hide_exceptions, yfinance.config.network.retries
            yfinance.config.debug.hide_exceptions, yfinance.config.network.retries = False, 0
            yfinance.data.YfData.cache_get.cache_clear()  # else a symbol's answer of this morning is this evening's
            self._session.replies.clear()
            try:
                yield yfinance, self._session
            finally:
                yfinance.config.debug.hide_exceptions, yfinance.config.network.retries = before


def _keep_caches_in(yfinance: Any, folder: str) -> None:
    if _caches.get("folder") != folder:
        yfinance.set_tz_cache_location(folder)
        _caches["folder"] = folder


def _last(replies: Sequence[DataReply], symbol: str, like: Mapping[str, str]) -> DataReply:
    """The answer to the question itself, after those to yfinance's own."""
    reply = replies[-1]
    if reply.status in (401, 403):
        raise ServiceUnavailable(
            f"yahoo refuses the crumb it gave itself ({reply.status} from {reply.origin})",
            remedy="wait a minute and run it again; remove the folder cache/yfinance in the home folder if it lasts",
        )
    wrong = {name: reply.params.get(name) for name, value in like.items() if reply.params.get(name) != value}
    if wrong or "period2" not in reply.params:
        raise ServiceUnavailable(f"yfinance did not ask yahoo for the chart of {symbol}, only {reply.origin}")
    return reply


def _misspelt(symbol: str) -> str | None:
    if symbol != symbol.upper():
        return f"yahoo writes its symbols in capitals: {symbol.upper()}"
    if _ISIN.fullmatch(symbol):
        return "this is an ISIN; yahoo's bars are asked for by symbol"
    return None


def _answer(
    dataset: str,
    symbol: str,
    request: Mapping[str, Any],
    reply: DataReply,
    rows: Any,
    refused: Sequence[RefusedRow] = (),
    notes: Sequence[str] = (),
) -> Answer:
    return Answer(
        source="yahoo",
        dataset=dataset,
        origin=reply.origin,
        request=request,
        payload=reply.body,
        rows=rows,
        names=(symbol,),
        refused=tuple(refused),
        notes=tuple(notes),
    )


def _missing(symbol: str, request: Mapping[str, Any], why: str) -> Answer:
    return Answer(
        source="yahoo",
        dataset="equity_bars",
        origin=f"https://query2.finance.yahoo.com/v8/finance/chart/{symbol}",
        request=request,
        payload=why.encode(),
        rows=empty_rows("equity_bars"),
        names=(),
        missing={symbol: why},
    )


def _within(days: pd.Series, window: tuple[date | None, date | None]) -> NDArray[np.bool_]:
    start, end = window
    inside = np.ones(len(days), dtype=bool)
    if start is not None:
        inside &= (days >= pd.Timestamp(start)).to_numpy()
    if end is not None:
        inside &= (days <= pd.Timestamp(end)).to_numpy()
    return inside


def _priced(chart: Chart) -> tuple[pd.DataFrame, list[str]]:
    """The bars that have a price; rows of nulls are days without a trade."""
    bare = chart.bars[["open", "high", "low", "close"]].isna().all(axis=1)
    notes = [f"{chart.symbol}: {int(bare.sum())} rows without a price left out"] if bare.any() else []
    return chart.bars.loc[~bare], notes


def _place(
    frame: pd.DataFrame, chart: Chart, calendar: str, length: timedelta | None, symbol: str
) -> tuple[pd.DataFrame, list[RefusedRow]]:
    """One bar a session; an intraday one on its grid, with the moment it is complete."""
    if length is not None:
        return _on_grid(frame, chart, calendar, length, symbol)
    # The live bar may come beside the day's regular one; it is the newer, and the one the web page shows.
    live = chart.last_trade is not None and len(frame) > 1 and bool((frame["start"].iloc[-1:] == chart.last_trade).all())
    if live and frame["session"].iloc[-1] == frame["session"].iloc[-2]:
        frame = frame.drop(index=frame.index[-2])
    twice = frame.duplicated("session", keep=False)
    refused = [
        RefusedRow(
            symbol=symbol,
            rule="duplicate_key",
            reason=f"Yahoo has {int((frame['session'] == row['session']).sum())} daily bars of {row['session'].date()}",
            raw=plain_row(row),
        )
        for _, row in frame.loc[twice].iterrows()
    ]
    return frame.loc[~twice], refused


def _on_grid(
    frame: pd.DataFrame, chart: Chart, calendar: str, length: timedelta, symbol: str
) -> tuple[pd.DataFrame, list[RefusedRow]]:
    """Bars inside the session that start on its grid; before and after it Yahoo sends some unasked."""
    from config.calendar import session_breaks

    days = pd.DatetimeIndex(frame["session"])
    opens, closes = session_opens(days, calendar), session_closes(days, calendar)
    breaks, resumes = session_breaks(days, calendar)
    start = pd.DatetimeIndex(frame["start"]).tz_convert("UTC")
    inside = np.asarray((start >= opens) & (start < closes))
    base = pd.DatetimeIndex(np.where(np.asarray(start >= resumes), resumes, opens), tz="UTC")
    ends = pd.DatetimeIndex(np.where(np.asarray(start < breaks), breaks, closes), tz="UTC")
    on_grid = np.asarray((start - base) % length == pd.Timedelta(0))
    complete = pd.DatetimeIndex(np.minimum((start + length).as_unit("ns").asi8, ends.as_unit("ns").asi8), tz="UTC")
    placed = frame.assign(complete_at=pd.Series(complete, index=frame.index))
    unfinished = np.zeros(len(frame), dtype=bool)
    if chart.last_trade is not None and len(frame):
        unfinished[-1] = (
            start[-1] >= chart.last_trade.floor("min") and not on_grid[-1]
        )  # the live bar carries the last trade's time
    refused = [
        RefusedRow(
            symbol=symbol,
            rule="off_the_grid",
            reason=f"a bar of {length} cannot start at {row['start']} in a session that opens at {opening}",
            raw=plain_row(row),
        )
        for (_, row), opening in zip(
            frame.loc[inside & ~on_grid & ~unfinished].iterrows(), opens[inside & ~on_grid & ~unfinished], strict=True
        )
    ]
    no_session = np.asarray(opens.isna())
    return placed.loc[(inside & on_grid) | no_session], refused


def _finished(
    frame: pd.DataFrame, chart: Chart, calendar: str, length: timedelta | None, now: datetime
) -> tuple[pd.DataFrame, int]:
    """Without what is no bar yet: its session (the bar's own end) has not come, or Yahoo, which is late, has not seen it."""
    ends = (
        session_closes(pd.DatetimeIndex(frame["session"]), calendar) if length is None else pd.DatetimeIndex(frame["complete_at"])
    )
    moment = pd.Timestamp(now)
    ended = np.asarray(ends <= moment)
    last = frame["session"].max() if len(frame) else None
    unseen = np.asarray(ends > moment - _DELAYED) & np.asarray(frame["session"] == last)
    if chart.last_trade is not None:
        unseen &= np.asarray(ends > chart.last_trade)
    live = ~(ended & ~unseen) & np.asarray(ends.notna())
    return frame.loc[~live], int(live.sum())


def _without_unsure(
    frame: pd.DataFrame, chart: Chart, splits: Sequence[Event], unapplied: Sequence[NotApplied], symbol: str
) -> tuple[pd.DataFrame, list[RefusedRow]]:
    """Without the bars of which nobody can say by how many splits they are adjusted."""
    unsure: dict[Any, tuple[str, str]] = {}
    for one in unapplied:
        reason = (
            f"Yahoo lists a split of {one.split.value:g} on {one.split.day}, but its prices fall by {one.step:.4g} after "
            f"{one.upto.date()}: they are not adjusted for it up to then"
        )
        unsure |= dict.fromkeys(frame.index[frame["session"] <= one.upto], ("split_not_applied", reason))
    seen = chart.bars.loc[chart.bars["close"].notna(), "session"].max()
    for split in splits:
        if pd.notna(seen) and pd.Timestamp(split.day) > seen:
            reason = (
                f"Yahoo lists a split of {split.value:g} on {split.day} and has no bar since: whether it is applied cannot be seen"
            )
            unsure |= dict.fromkeys(frame.index, ("split_not_verified", reason))
    refused = [
        RefusedRow(symbol=symbol, rule=rule, reason=reason, raw=plain_row(frame.loc[label]))
        for label, (rule, reason) in unsure.items()
    ]
    return frame.drop(index=list(unsure)), refused


def _taken_back(frame: pd.DataFrame, factors: NDArray[np.float64], symbol: str) -> pd.DataFrame:
    """Prices and volumes as traded; shares are whole where a split changed their number."""
    volume = frame["volume"].to_numpy()
    return pd.DataFrame(
        {
            "symbol": symbol,
            "session": frame["session"],
            **{name: as_traded(frame[name].to_numpy(), factors) for name in ("open", "high", "low", "close")},
            "volume": np.where(factors == 1.0, volume, np.rint(volume / factors)),
            "timestamp": frame["timestamp"],
        },
        index=frame.index,
    )


def _known_next_open(rows: Any, calendar: str) -> Any:
    """A fund's value is computed after the close: the next session's open is the first moment it surely was known."""
    days = pd.DatetimeIndex([next_session(day, calendar) for day in rows["session"].to_pylist()])
    place = rows.schema.get_field_index("available_at")
    import pyarrow as pa

    moments = pa.array(session_opens(days, calendar).tz_convert("UTC").as_unit("us"), type=rows.schema.field(place).type)
    return rows.set_column(place, rows.schema.field(place), moments)


def _action_rows(events: Sequence[Event], splits: Sequence[Event], symbol: str, calendar: str, currency: str | None) -> Any:
    """One row a day and kind. Two payments of a kind on one day are one row, splits too."""
    if not events:
        return empty_rows("corporate_actions")
    days = pd.DatetimeIndex([pd.Timestamp(event.day) for event in events])
    factors = np.where([event.kind == "split" for event in events], 1.0, factors_after(days, splits))
    paid = as_traded([event.value for event in events], factors)
    frame = pd.DataFrame(
        {
            "day": days,
            "kind": [event.kind for event in events],
            "value": paid,
            "currency": [None if event.kind == "split" else event.currency or currency for event in events],
        }
    )
    groups = frame.groupby(["day", "kind"], sort=True)
    merged = groups.agg(total=("value", "sum"), ratio=("value", "prod"), currency=("currency", "first")).reset_index()
    is_split = (merged["kind"] == "split").to_numpy()
    ex_days = pd.DatetimeIndex(merged["day"])
    columns: dict[str, Any] = {
        "symbol": symbol,
        "ex_date": ex_days.date,
        "kind": merged["kind"].to_numpy(dtype=object),
        "source": "yahoo",
        "value": np.where(is_split, merged["ratio"], merged["total"]),
        "new_symbol": None,
        "currency": [None if split else value for split, value in zip(is_split, merged["currency"], strict=True)],
        "available_at": _opens_from(ex_days, calendar),
    }
    return table_of("corporate_actions", columns, len(merged))


def _opens_from(days: pd.DatetimeIndex, calendar: str) -> pd.DatetimeIndex:
    """The open of the first session on or after each day."""
    first = pd.DatetimeIndex([next_session(day - pd.Timedelta(days=1), calendar) for day in days])
    return session_opens(first, calendar)
