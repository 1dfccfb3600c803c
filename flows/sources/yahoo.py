"""Yahoo through yfinance: daily and intraday bars as traded, splits, dividends, capital gains, and today's option chains.

1. `YahooClient.chart` lets ``yfinance.Ticker.history(auto_adjust=False, actions=True)`` ask, through a session that keeps Yahoo's
   bytes and names failures (`yahoo_session`). The window always ends now, whatever the caller's end: only so the answer holds every
   split that Yahoo has applied to it.
2. `read_chart` reads the bytes; `place` and `finished` leave out what is no bar yet on the exchange's own calendar.
3. `taken_back` takes later splits off prices and volumes, `action_rows` off payments; what cannot be placed is a refused row.

Rows are read from Yahoo's bytes, not from the frame that yfinance makes of them: the frame has volumes of 0 where Yahoo gives none,
rows of NaN for events without a bar, and payments moved to the bar before a day without one.

A symbol that Yahoo does not have is missing; a failure is an error, never a delisting. Yahoo's currency stays as it is: London is
quoted in GBp, which are pence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd

from config.clock import Clock, SystemClock
from config.errors import InputError, ServiceError
from config.settings import Settings
from flows.sources.base import Answer, RefusedRow
from flows.sources.shape import bar_rows, empty_rows
from flows.sources.yahoo_chart import Chart, factors_after, read_chart, splits_not_applied
from flows.sources.yahoo_client import YahooClient, misspelt
from flows.sources.yahoo_exchanges import calendar_of
from flows.sources.yahoo_rows import action_rows, finished, known_next_open, place, priced, taken_back, within, without_unsure

if TYPE_CHECKING:
    from flows.sources.yahoo_session import DataReply

__all__ = ["INTERVALS", "YahooEquity"]

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
        wrong = misspelt(symbol)
        if wrong is not None:
            yield _missing(symbol, request, wrong)
            return
        now = self._clock.now()
        heard = self._client.chart(symbol, self.interval, start, now + _AHEAD)
        reply = heard.reply
        if heard.missing:
            yield _missing(symbol, request, heard.why, reply)
            return
        if heard.why:  # Yahoo knows the symbol and has nothing in this window
            yield _answer("equity_bars", symbol, request, reply, empty_rows("equity_bars"), notes=(f"{symbol}: {heard.why}",))
            return
        chart = read_chart(reply.document, reply.origin)
        if chart.symbol.upper() != symbol:
            raise ServiceError(f"yahoo was asked for {symbol} and answered for {chart.symbol}", remedy=f"ask for {chart.symbol}")
        calendar = calendar_of(chart.exchange, symbol, self._calendar)
        yield self._bar_answer(chart, calendar, request, reply, (start, end), now)
        yield self._action_answer(chart, calendar, request, reply, (start, end))

    def actions(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """Corporate actions by themselves; raises as `bars`."""
        return (answer for answer in self.bars(symbols, start, end) if answer.missing or answer.dataset == "corporate_actions")

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
        unapplied = splits_not_applied(chart.bars, splits)
        frame, notes = priced(chart)
        frame = frame.loc[within(frame["session"], window)]
        frame, refused = place(frame, chart, calendar, length, symbol)
        frame, live = finished(frame, chart, calendar, length, now)
        frame, unsure = without_unsure(frame, chart, splits, unapplied, symbol)
        rows, strays = bar_rows(
            taken_back(frame, factors_after(pd.DatetimeIndex(frame["session"]), splits, unapplied), symbol),
            source=self.name,
            basis="as_traded",
            currency=chart.currency or "XXX",  # ISO 4217: no currency, of an index in points
            calendar=calendar,
            describe=lambda label: f"Yahoo's bar of {frame.loc[label, 'start']}",
            interval=self.interval,
            complete_at=None if length is None else frame["complete_at"],
        )
        if chart.instrument == "MUTUALFUND" and length is None:
            rows = known_next_open(rows, calendar)
        notes += ["bars of sessions that had not closed were left out"] if live else []
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
        keep = within(pd.Series(days), window)
        events = [event for event, kept in zip(chart.events, keep, strict=True) if kept]
        rows = action_rows(events, splits, symbol, calendar, chart.currency)
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


def _missing(symbol: str, request: Mapping[str, Any], why: str, reply: DataReply | None = None) -> Answer:
    return Answer(
        source="yahoo",
        dataset="equity_bars",
        origin=reply.origin if reply else f"https://query2.finance.yahoo.com/v8/finance/chart/{symbol}",
        request=request,
        payload=reply.body if reply else why.encode(),
        rows=empty_rows("equity_bars"),
        names=(),
        missing={symbol: why},
    )
