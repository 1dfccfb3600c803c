"""A Yahoo that answers any chart or option question from a table of bars as traded, with the traits of the real one.

Held against the recordings by `tests/replay/test_yahoo_service.py`: the same keys, and numbers that agree to the last bit where
the traded prices are known. The traits:

- prices, volumes and dividends are adjusted for every split up to `now`, also those after the window (`_adjusted`); before
  `exact_from` quotients are rounded to six decimals; all are single-precision floats;
- events of the window only, of the kinds asked for, stamped with their session's open;
- the newest session's bar carries the time of the last trade as its stamp, and is unfinished while the session is open (`_newest`);
- null rows, an unknown symbol (404), a window before the first trade (400), intraday windows that go too far back (422);
- options only with the crumb, and only those there are now.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import exchange_calendars as xcals
import numpy as np
import pandas as pd

from tests.replay.recordings import Question, Reply

__all__ = ["CRUMB", "Listing", "YahooService"]

CRUMB = "made.up/Crumb"
_RANGES = ["1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "ytd", "max"]
_LENGTHS = {"1m": 1, "2m": 2, "5m": 5, "15m": 15, "30m": 30, "60m": 60, "1h": 60, "90m": 90}
_DAYS_BACK = {"1m": 30, "2m": 60, "5m": 60, "15m": 60, "30m": 60, "60m": 730, "1h": 730, "90m": 60}
_FIELDS = ("open", "high", "low", "close", "volume")


@dataclass(kw_only=True)
class Listing:
    """One symbol, as traded.

    Parameters
    ----------
    bars : DataFrame
        Index: sessions (naive midnights); open, high, low, close, volume as traded. NaN is sent as null.
    minutes : DataFrame, optional
        Index: starts of one-minute bars, UTC; the same columns.
    splits : mapping of date to (int, int)
        Numerator and denominator, by ex-date.
    dividends, gains : mapping of date to float
        Cash a share as paid, by ex-date.
    unapplied : collection of date
        Splits that are listed, but whose history is left as it was (Yahoo's own fault, now and then).
    unlisted : collection of date
        Splits that are applied to the history and not (yet) listed.
    chains : mapping of date to sequence of dict
        Option contracts by expiry, in Yahoo's own words, calls and puts told apart by their symbols.
    """

    bars: pd.DataFrame
    exchange: str = "NMS"
    full_exchange: str = "NasdaqGS"
    timezone: str = "America/New_York"
    calendar: str = "XNYS"
    currency: str = "USD"
    instrument: str = "EQUITY"
    minutes: pd.DataFrame | None = None
    splits: Mapping[date, tuple[int, int]] = field(default_factory=dict)
    dividends: Mapping[date, float] = field(default_factory=dict)
    gains: Mapping[date, float] = field(default_factory=dict)
    unapplied: Collection[date] = ()
    unlisted: Collection[date] = ()
    chains: Mapping[date, Sequence[dict[str, Any]]] = field(default_factory=dict)
    exact_from: date = date(2012, 1, 1)


class YahooService:
    """Answers as Yahoo would at `now`; move `now`, change `listings`, and it answers as it would then."""

    hosts: Collection[str] = frozenset(
        {"query1.finance.yahoo.com", "query2.finance.yahoo.com", "finance.yahoo.com", "fc.yahoo.com", "guce.yahoo.com"}
    )

    def __init__(self, listings: Mapping[str, Listing], now: datetime) -> None:
        self.listings = dict(listings)
        self.now = now

    def answer(self, question: Question) -> Reply | None:
        """The answer to a question of one of the hosts."""
        path = question.path
        query = {name: value if isinstance(value, str) else value[-1] for name, value in question.query.items()}
        if question.host == "fc.yahoo.com":
            until = "Fri, 01 Jan 2100 00:00:00 GMT"
            cookie = ("Set-Cookie", f"A3=d=made-up; Expires={until}; Domain=.yahoo.com; Path=/; SameSite=None; Secure; HttpOnly")
            return Reply(status=404, body=b"", content_type="text/html", headers=(cookie,))
        if path == "/v1/test/getcrumb":
            return Reply(status=200, body=CRUMB.encode(), content_type="text/plain;charset=utf-8")
        if question.host == "guce.yahoo.com":
            return Reply(status=200, body=b"<html><body>consent</body></html>", content_type="text/html")
        if path.startswith("/v8/finance/chart/"):
            return self._chart(path.rpartition("/")[2], query)
        if path.startswith("/v7/finance/options/"):
            return self._options(path.rpartition("/")[2], query)
        if path.startswith("/v10/finance/quoteSummary/"):
            words = f"Quote not found for symbol: {path.rpartition('/')[2]}"
            return _error("quoteSummary", 404, "Not Found", words)
        return None

    def _chart(self, symbol: str, query: Mapping[str, str]) -> Reply:
        listing = self.listings.get(symbol)
        if listing is None:
            return _error("chart", 404, "Not Found", "No data found, symbol may be delisted")
        interval = query.get("interval", "1d")
        if interval != "1d" and interval not in _LENGTHS:
            words = (
                f"Invalid input - interval={interval} is not supported. Valid intervals: [1m, 2m, 5m, 15m, 30m, 60m, 90m, 1h, 1d]"
            )
            return _error("chart", 422, "Unprocessable Entity", words)
        first, last = self._window(listing, query)
        if interval in _DAYS_BACK and "period1" in query and first < self._seconds() - _DAYS_BACK[interval] * 86_400:
            words = (
                f"{interval} data not available for startTime={first} and endTime={last}. "
                f"The requested range must be within the last {_DAYS_BACK[interval]} days."
            )
            return _error("chart", 422, "Unprocessable Entity", words)
        if last < self._opens(listing)[0]:
            words = f"Data doesn't exist for startDate = {first}, endDate = {last}"
            return _error("chart", 400, "Bad Request", words)
        bars = self._daily(listing) if interval == "1d" else self._intraday(listing, interval)
        bars = bars.loc[(bars["stamp"] >= first) & (bars["stamp"] < last)]
        result: dict[str, Any] = {"meta": self._meta(symbol, listing, interval, query, first)}
        if len(bars):
            result["timestamp"] = [int(stamp) for stamp in bars["stamp"]]
        events = self._events(listing, query.get("events", ""), first, last)
        if events:
            result["events"] = events
        quote = {name: _plain(bars[name]) for name in _FIELDS} if len(bars) else {}
        result["indicators"] = {"quote": [quote]}
        if interval == "1d":
            result["indicators"]["adjclose"] = [{"adjclose": _plain(bars["adjclose"])} if len(bars) else {}]
        return _json(200, {"chart": {"result": [result], "error": None}})

    def _seconds(self) -> int:
        return int(self.now.timestamp())

    def _window(self, listing: Listing, query: Mapping[str, str]) -> tuple[int, int]:
        if "period1" in query:
            return int(query["period1"]), int(query["period2"])
        days = {"1d": 1, "5d": 7, "1mo": 31, "max": 100_000}[query.get("range", "1d")]
        opens = self._opens(listing)
        past = opens[opens <= self._seconds()]
        newest = int(past[-1]) if len(past) else int(opens[0])
        return newest - (days - 1) * 86_400, self._seconds() + 1

    def _schedule(self, listing: Listing) -> pd.DataFrame:
        return _schedule_of(listing.calendar)

    def _opens(self, listing: Listing) -> np.ndarray[Any, Any]:
        """Opens of the listing's sessions, seconds; a day off the calendar opens at midnight there."""
        return self._moments(listing, "open", timedelta(0))

    def _closes(self, listing: Listing) -> np.ndarray[Any, Any]:
        return self._moments(listing, "close", timedelta(hours=16))

    def _moments(self, listing: Listing, column: str, otherwise: timedelta) -> np.ndarray[Any, Any]:
        days = pd.DatetimeIndex(listing.bars.index)
        known = pd.DatetimeIndex(self._schedule(listing)[column].reindex(days))
        instead = days.tz_localize(listing.timezone).tz_convert("UTC") + otherwise
        return np.array(
            [int((moment if pd.notna(moment) else other).timestamp()) for moment, other in zip(known, instead, strict=True)]
        )

    def _effective(self, listing: Listing) -> dict[date, float]:
        """Splits whose day has come, by ex-date."""
        today = pd.Timestamp(self.now).tz_convert(listing.timezone).date()
        return {day: over / under for day, (over, under) in listing.splits.items() if day <= today}

    def _factor(self, listing: Listing, days: pd.DatetimeIndex) -> np.ndarray[Any, Any]:
        factor = np.ones(len(days))
        for day, ratio in self._effective(listing).items():
            if day not in listing.unapplied:
                factor[days < pd.Timestamp(day)] *= ratio
        return factor

    def _adjusted(self, frame: pd.DataFrame, listing: Listing, days: pd.DatetimeIndex) -> pd.DataFrame:
        factor = self._factor(listing, days)
        out = frame.copy()
        early = days < pd.Timestamp(listing.exact_from)
        for name in ("open", "high", "low", "close"):
            quotient = frame[name].to_numpy(dtype=float) / factor
            quotient = np.where(early & (factor != 1.0), np.round(quotient, 6), quotient)
            out[name] = quotient.astype(np.float32).astype(float)
        out["volume"] = np.rint(frame["volume"].to_numpy(dtype=float) * factor)
        return out

    def _daily(self, listing: Listing) -> pd.DataFrame:
        opens, closes = self._opens(listing), self._closes(listing)
        begun = opens <= self._seconds()
        frame = listing.bars.loc[begun, list(_FIELDS)]
        frame = self._newest(frame, int(opens[begun][-1]), int(closes[begun][-1])) if begun.any() else frame
        frame = self._adjusted(frame, listing, pd.DatetimeIndex(frame.index))
        frame["stamp"] = opens[begun]
        newest = min(self._seconds(), int(closes[begun][-1]) + 1) if begun.any() else 0
        if begun.any() and pd.Timestamp(newest, unit="s", tz=listing.timezone).tz_localize(None).normalize() == frame.index[-1]:
            frame.loc[frame.index[-1], "stamp"] = newest  # a day that ends at midnight keeps its own stamp
        factor = pd.Series(1.0, index=frame.index)
        for day, amount in {**listing.dividends}.items():
            before = frame.index < pd.Timestamp(day)
            if before.any() and (frame.index >= pd.Timestamp(day)).any():
                paid = amount / float(self._factor(listing, pd.DatetimeIndex([day]))[0])
                factor[before] *= 1 - paid / frame["close"][before].iloc[-1]
        frame["adjclose"] = (frame["close"] * factor).astype(np.float32).astype(float)
        return frame

    def _newest(self, frame: pd.DataFrame, opened: int, closes: int) -> pd.DataFrame:
        """The newest session's bar as it stands: of an open session what has been traded so far, half way from open to close."""
        if self._seconds() >= closes:
            return frame
        done = (self._seconds() - opened) / (closes - opened)
        frame = frame.copy()
        bar = frame.iloc[-1]
        price = bar["open"] + (bar["close"] - bar["open"]) * done
        frame.iloc[-1] = [bar["open"], max(bar["open"], price), min(bar["open"], price), price, np.rint(bar["volume"] * done)]
        return frame

    def _intraday(self, listing: Listing, interval: str) -> pd.DataFrame:
        minutes = listing.minutes
        if minutes is None or not len(minutes):
            return pd.DataFrame(columns=[*_FIELDS, "stamp"])
        minutes = minutes.loc[minutes.index <= pd.Timestamp(self.now)]
        days = pd.DatetimeIndex(pd.DatetimeIndex(minutes.index).tz_convert(listing.timezone).tz_localize(None).normalize())
        opens = pd.DatetimeIndex(self._schedule(listing)["open"].reindex(days))
        length = timedelta(minutes=_LENGTHS["60m" if interval == "30m" else interval])  # the real one answers 30m with 60m
        start = opens + ((minutes.index - opens) // length) * length
        groups = self._adjusted(minutes[list(_FIELDS)], listing, days).groupby(start)
        frame = groups.agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
        frame["stamp"] = [int(moment.timestamp()) for moment in frame.index]
        newest, closes = frame.index[-1], pd.DatetimeIndex(self._schedule(listing)["close"].reindex(days))[-1]
        if newest <= pd.Timestamp(self.now) < min(newest + length, closes):
            frame.loc[newest, "stamp"] = self._seconds()
        return frame

    def _events(self, listing: Listing, asked: str, first: int, last: int) -> dict[str, Any]:
        kinds = set(asked.replace("|", ",").split(","))
        found: dict[str, Any] = {}

        def stamp(day: date) -> int:
            at = pd.Timestamp(day)
            schedule = self._schedule(listing)
            return int((schedule["open"][at] if at in schedule.index else at.tz_localize(listing.timezone)).timestamp())

        today = pd.Timestamp(self.now).tz_convert(listing.timezone).date()
        for theirs, names, events in (
            ("dividends", {"div", "dividends"}, listing.dividends),
            ("capitalGains", {"capitalGain", "capitalGains"}, listing.gains),
        ):
            if names & kinds:
                rows: dict[str, dict[str, Any]] = {}
                for day, amount in events.items():
                    if day <= today and first <= stamp(day) < last:
                        factor = float(self._factor(listing, pd.DatetimeIndex([day]))[0])
                        rows[str(stamp(day))] = {"amount": round(amount / factor, 6), "date": stamp(day)}
                if rows:
                    found[theirs] = rows
        if {"split", "splits"} & kinds:
            rows = {
                str(stamp(day)): {"date": stamp(day), "numerator": over, "denominator": under, "splitRatio": f"{over}:{under}"}
                for day, (over, under) in listing.splits.items()
                if day <= today and first <= stamp(day) < last and day not in listing.unlisted
            }
            if rows:
                found["splits"] = rows
        return found

    def _meta(self, symbol: str, listing: Listing, interval: str, query: Mapping[str, str], first: int) -> dict[str, Any]:
        daily = self._daily(listing)
        zone = pd.Timestamp(self.now).tz_convert(listing.timezone)
        offset = int((zone.utcoffset() or timedelta(0)).total_seconds())
        last = daily.iloc[-1] if len(daily) else None
        before = daily.loc[daily["stamp"] < first, "close"].dropna()
        opens, closes = self._opens(listing), self._closes(listing)

        def period(start: int, end: int) -> dict[str, Any]:
            return {"timezone": zone.tzname(), "start": start, "end": end, "gmtoffset": offset}

        at = max(int(np.searchsorted(opens, self._seconds(), side="right")) - 1, 0)
        opened, closed = int(opens[at]), int(closes[at])
        meta: dict[str, Any] = {
            "currency": listing.currency,
            "symbol": symbol,
            "exchangeName": listing.exchange,
            "fullExchangeName": listing.full_exchange,
            "instrumentType": listing.instrument,
            "firstTradeDate": int(opens[0]),
            "regularMarketTime": None if last is None else min(self._seconds(), closed + 1),
            "hasPrePostMarketData": True,
            "gmtoffset": offset,
            "timezone": zone.tzname(),
            "exchangeTimezoneName": listing.timezone,
            "regularMarketPrice": None if last is None else round(float(last["close"]), 2),
            "fiftyTwoWeekHigh": _plain(daily["high"].tail(252).dropna().nlargest(1))[-1:][0]
            if daily["high"].notna().any()
            else None,
            "fiftyTwoWeekLow": _plain(daily["low"].tail(252).dropna().nsmallest(1))[-1:][0] if daily["low"].notna().any() else None,
            "regularMarketDayHigh": None if last is None else float(last["high"]),
            "regularMarketDayLow": None if last is None else float(last["low"]),
            "regularMarketVolume": None if last is None or np.isnan(last["volume"]) else int(last["volume"]),
            "longName": f"{symbol} made up",
            "shortName": f"{symbol} made up",
            "chartPreviousClose": None if before.empty else float(before.iloc[-1]),
            "priceHint": 2,
            "currentTradingPeriod": {
                "pre": period(opened - 19_800, opened),
                "regular": period(opened, closed),
                "post": period(closed, closed + 14_400),
            },
            "dataGranularity": interval,
            "range": query.get("range", ""),
            "validRanges": _RANGES,
        }
        if interval != "1d":
            meta |= {"previousClose": meta["chartPreviousClose"], "scale": 3}
            begun = [(int(o), int(c)) for o, c in zip(opens, closes, strict=True) if first <= c and o <= self._seconds()]
            meta["tradingPeriods"] = [[period(o, c)] for o, c in begun]
        return meta

    def _options(self, symbol: str, query: Mapping[str, str]) -> Reply:
        if query.get("crumb") != CRUMB:
            return _error("finance", 401, "Unauthorized", "Invalid Crumb")
        listing = self.listings.get(symbol)
        if listing is None:
            return _json(200, {"optionChain": {"result": [], "error": None}})
        expiries = sorted(listing.chains)
        stamps = {_midnight(day): day for day in expiries}
        asked = stamps.get(int(query["date"])) if "date" in query else (expiries[0] if expiries else None)
        contracts = listing.chains.get(asked, ()) if asked else ()
        meta = self._meta(symbol, listing, "1d", {}, 0)
        names = (
            "currency",
            "exchangeTimezoneName",
            "regularMarketTime",
            "regularMarketPrice",
            "fullExchangeName",
            "symbol",
            "priceHint",
        )
        quote = {
            "language": "en-US",
            "region": "US",
            "quoteType": listing.instrument,
            "exchange": listing.exchange,
            **{name: meta[name] for name in names},
        }
        sides = [[c for c in contracts if c["contractSymbol"][-9] == right] for right in "CP"]
        chain = (
            []
            if asked is None
            else [{"expirationDate": _midnight(asked), "hasMiniOptions": False, "calls": sides[0], "puts": sides[1]}]
        )
        result = {
            "underlyingSymbol": symbol,
            "expirationDates": list(stamps),
            "strikes": sorted({c["strike"] for c in contracts}),
            "hasMiniOptions": False,
            "quote": quote,
            "options": chain,
        }
        return _json(200, {"optionChain": {"result": [result], "error": None}})


@functools.cache
def _schedule_of(calendar: str) -> pd.DataFrame:
    """Opens and closes of an exchange, from the library itself and not from ours."""
    try:
        found = xcals.get_calendar(calendar, start="1990-01-01", end="2035-12-31")
    except ValueError:  # a calendar with bounds of its own
        found = xcals.get_calendar(calendar)
    schedule: pd.DataFrame = found.schedule
    return schedule


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _plain(values: pd.Series) -> list[Any]:
    """JSON numbers as Yahoo writes them: whole ones without a point, absences as null."""
    return [None if np.isnan(value) else int(value) if float(value).is_integer() else float(value) for value in values]


def _json(status: int, document: Any) -> Reply:
    return Reply(
        status=status, body=json.dumps(document, separators=(",", ":")).encode(), content_type="application/json;charset=utf-8"
    )


def _error(envelope: str, status: int, code: str, description: str) -> Reply:
    return _json(status, {envelope: {"result": None, "error": {"code": code, "description": description}}})
