"""Crypto bars of any exchange that CCXT knows, through CCXT itself; Kraken unless another is named.

1. `CryptoBars._exchange` makes the exchange, watches its session (`flows.sources.watched`) and loads its markets.
2. `_pages` asks for candles from `since` on, page by page, until one is not complete yet or the window ends.
3. `_page` places each candle: a day is a UTC day, known when it ends; the candle that is still open is left out.

A minute without a trade is kept as the exchange gives it: Kraken repeats the last price with a volume of zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from config.clock import Clock
from config.errors import InputError, QuantError, RateLimited, ServiceError, ServiceUnavailable, did_you_mean
from config.settings import Settings
from flows.sources.base import Answer
from flows.sources.json_rows import Refusal, number, read_all
from flows.sources.shape import BARS_DATASET, bar_rows, empty_rows
from flows.sources.watched import Seen, Watch, watch

__all__ = ["CryptoBars"]

SOURCE = "ccxt"
CALENDAR = "24/7"
FIRST_DAY = date(2010, 1, 1)  # before the first exchange
MOST_PAGES = 20_000

_FIELDS = ("open", "high", "low", "close", "volume")
_DAY_MS = 86_400_000
# What an answer must hold to be one: without it CCXT reads no candles instead of an error.
_HOLDS = {"kraken": "result", "coinbase": "candles"}


class CryptoBars:
    """Bars of pairs such as ``BTC/USD``; volume in units of the base currency, prices in the quote currency.

    Rows are of the source ``ccxt_<exchange>``: the same pair has other prices elsewhere.

    Parameters
    ----------
    settings : Settings
        `data.addresses` may name another base address, which then stands for all of the exchange's hosts; a pause of 0 in
        `data.seconds_between_requests` switches CCXT's own limiter off as well.
    exchange : str
        As CCXT calls it: ``kraken``, ``coinbase``, ``binance``.
    interval : str
        As the exchange has them: ``1d``, ``1h``, ``5m``, ``1m``.
    clock : Clock, optional
        Tells the moment of an answer instead of the exchange's Date header.
    """

    names_per_request: int | None = 1
    incremental = True

    def __init__(self, settings: Settings, *, exchange: str = "kraken", interval: str = "1d", clock: Clock | None = None) -> None:
        self._settings, self._id, self._interval, self._clock = settings, exchange, interval, clock
        self._made: tuple[Any, Watch] | None = None
        self._market_bytes: list[Seen] = []

    @property
    def name(self) -> str:
        """``ccxt_kraken``, say."""
        return f"{SOURCE}_{self._id}"

    def available(self) -> tuple[str, ...] | None:
        """None: the list of pairs is the exchange's, and asking for it is a request."""
        return None

    def bars(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer a page of candles.

        Without a `start` days come from the exchange's first on, and shorter bars as far back as one page goes.

        Raises
        ------
        InputError
            CCXT knows no such exchange, or it has no such bars.
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        exchange, watched = self._exchange()
        for name in symbols:
            request = {"symbol": name, "exchange": self._id, "interval": self._interval, "start": start, "end": end}
            market = self._ask(lambda: self._market(exchange, name))  # noqa: B023 - called at once
            if isinstance(market, str):
                pages = self._market_bytes
                yield Answer(
                    source=self.name,
                    dataset=BARS_DATASET,
                    origin=pages[-1].origin,
                    request=request,
                    payload=pages[-1].body,
                    rows=empty_rows(BARS_DATASET),
                    names=(),
                    missing={name: market},
                )
                continue
            for page, (candles, seen) in enumerate(self._pages(exchange, watched, name, start, end), start=1):
                yield self._page(name, market["quote"], candles, seen, {**request, "page": page}, start, end)

    def _exchange(self) -> tuple[Any, Watch]:
        """The exchange, made once."""
        if self._made is not None:
            return self._made
        import ccxt  # 1.6 CPU seconds: it imports every exchange it has

        if self._id not in ccxt.exchanges:
            raise InputError(f"ccxt knows no exchange {self._id!r}", remedy=did_you_mean(self._id, tuple(ccxt.exchanges)))
        made = getattr(ccxt, self._id)()
        if made.has.get("fetchOHLCV") is not True or self._interval not in (made.timeframes or {}):
            has = ", ".join(made.timeframes or {}) or "none"
            raise InputError(f"{self._id} has no bars of {self._interval!r}", remedy=f"it has {has}")
        made.enableRateLimit = self._settings.data.seconds_between_requests.get(SOURCE, 0.0) > 0
        made.has["fetchCurrencies"] = False  # a second request, for networks and fees
        address = self._settings.data.addresses.get(SOURCE)
        if address:
            made.urls["api"] = _elsewhere(made.urls["api"], address.rstrip("/"))
        watched = watch(made.session, SOURCE, self._settings)
        self._ask(made.load_markets)
        self._market_bytes = watched.take()
        self._made = made, watched
        return self._made

    def _market(self, exchange: Any, name: str) -> Any:
        """The pair; or, in words, why there is none."""
        if name not in exchange.markets:
            near = did_you_mean(name, tuple(exchange.markets), listing=0)
            return f"{self._id} has no pair {name}{f'; {near}' if near.startswith('did') else ''}"
        market = exchange.market(name)
        return market if market.get("spot") else f"{name} on {self._id} is a {market.get('type')}, not a pair that is held"

    def _pages(
        self, exchange: Any, watched: Watch, name: str, start: date | None, end: date | None
    ) -> Iterator[tuple[list[Any], list[Seen]]]:
        """Pages of candles, each with its bytes; no candle comes twice."""
        length = exchange.parse_timeframe(self._interval) * 1000
        limit = ((exchange.features or {}).get("spot") or {}).get("fetchOHLCV", {}).get("limit")
        since = _milliseconds(start) if start else _milliseconds(FIRST_DAY) if self._interval == "1d" else None
        until = None if end is None else _milliseconds(end + timedelta(days=1))
        last = -1  # before the first candle
        for _ in range(MOST_PAGES):
            watched.take()
            candles = self._ask(
                lambda: exchange.fetch_ohlcv(name, self._interval, since=since, limit=limit)  # noqa: B023 - called at once
            )
            seen = watched.take()
            self._must_hold(seen)
            fresh = [one for one in candles if one[0] is not None and one[0] > last]
            now = int(watched.moment(seen, self._clock).timestamp() * 1000)
            if fresh:
                yield fresh, seen
                last = fresh[-1][0]
                since = last + length
            elif since is not None and limit is not None:
                since += limit * length  # an exchange that leaves out what did not trade: look behind the empty window
            if since is None or limit is None or since >= min(now, until or now):
                if last < 0:
                    yield [], seen  # nothing in the whole window: what the exchange said last
                return
        raise ServiceUnavailable(f"{self._id} gave {MOST_PAGES} pages of {name} and no end", remedy="ask for a shorter window")

    def _must_hold(self, seen: Sequence[Seen]) -> None:
        part = _HOLDS.get(self._id)
        if not seen:
            raise ServiceUnavailable(f"{self._id} was not asked: ccxt gave candles without an answer")
        if part is not None and f'"{part}"'.encode() not in seen[-1].body:
            words = seen[-1].body[:200].decode("utf-8", "replace")
            raise ServiceUnavailable(f"{seen[-1].origin} answered without {part!r}: {words}", remedy="run the same command again")

    def _ask(self, question: Any) -> Any:
        """Ask through CCXT; its errors by our names.

        Raises
        ------
        ServiceUnavailable, RateLimited, ServiceError
        """
        import ccxt

        try:
            return question()
        except QuantError:
            raise  # named where it happened, by the watch
        except (ccxt.RateLimitExceeded, ccxt.DDoSProtection) as problem:
            raise RateLimited(f"{self._id} asks us to wait: {_words(problem)}") from None
        except (ccxt.OperationFailed, AttributeError, KeyError, TypeError, ValueError, IndexError) as problem:
            raise ServiceUnavailable(
                f"{self._id} gave no answer that ccxt can read ({type(problem).__name__}): {_words(problem)}",
                remedy="run the same command again",
            ) from None
        except ccxt.BaseError as problem:
            raise ServiceError(
                f"{self._id} refused a question ({type(problem).__name__}): {_words(problem)}",
                remedy="check the pair and the window",
            ) from None

    def _page(
        self,
        name: str,
        currency: str,
        candles: Sequence[Any],
        seen: Sequence[Seen],
        request: dict[str, Any],
        start: date | None,
        end: date | None,
    ) -> Answer:
        assert self._made is not None
        exchange, watched = self._made
        length = pd.Timedelta(seconds=exchange.parse_timeframe(self._interval))
        daily = self._interval == "1d"

        def read(one: Any, symbol: str) -> dict[str, Any] | Refusal:
            begin = pd.Timestamp(int(one[0]), unit="ms", tz=UTC)
            if daily and int(one[0]) % _DAY_MS:
                return Refusal("not_a_utc_day", f"{symbol}: a day of {self._id} that begins at {begin:%H:%M} UTC")
            values = {field: number(value) for field, value in zip(_FIELDS, one[1:], strict=True)}
            return {"symbol": symbol, "session": begin.tz_localize(None).normalize(), "complete": begin + length, **values}

        good, bad = read_all(candles, name, read)
        frame = pd.DataFrame(good, columns=["symbol", "session", "complete", *_FIELDS])
        frame["session"], frame["complete"] = pd.to_datetime(frame["session"]), pd.to_datetime(frame["complete"], utc=True)
        frame = frame[frame["complete"] <= pd.Timestamp(watched.moment(seen, self._clock))]
        if start is not None:
            frame = frame[frame["session"] >= pd.Timestamp(start)]
        if end is not None:
            frame = frame[frame["session"] <= pd.Timestamp(end)]
        rows, refused = bar_rows(
            frame,
            source=self.name,
            basis="as_traded",
            currency=currency,
            calendar=CALENDAR,
            describe=lambda label: f"{name}, candle {int(label) + 1} of page {request['page']}",
            interval=self._interval,
            complete_at=None if daily else frame["complete"],
        )
        return Answer(
            source=self.name,
            dataset=BARS_DATASET,
            origin=seen[-1].origin,
            request=request,
            payload=b"\n".join(one.body for one in seen),
            rows=rows,
            names=(name,),
            refused=(*bad, *refused),
            notes=self._notes(name, frame, request, start),
        )

    def _notes(self, name: str, frame: pd.DataFrame, request: dict[str, Any], start: date | None) -> tuple[str, ...]:
        found = []
        idle = int((frame["volume"] == 0).sum())
        if idle:
            found.append(f"{idle} of {len(frame)} bars of {name} on {self._id} are without a trade: their price is the one before")
        if request["page"] == 1 and start is not None and len(frame) and frame["session"].iloc[0] > pd.Timestamp(start):
            found.append(f"{self._id} gives {name} from {frame['session'].iloc[0]:%Y-%m-%d} on, not from {start}")
        return tuple(found)


def _elsewhere(urls: Any, address: str) -> Any:
    """The exchange's addresses with another scheme and host."""
    if isinstance(urls, dict):
        return {name: _elsewhere(one, address) for name, one in urls.items()}
    parts = urlsplit(str(urls))
    return f"{address}{parts.path}"


def _milliseconds(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp() * 1000)


def _words(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:300]
