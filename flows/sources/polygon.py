"""Polygon.io, now Massive: bars as traded, splits, dividends and option chains; thin JSON, no client library.

1. `_Polygon.pages` asks, checks what each page says of itself (`_checked`) and follows ``next_url``, to the vendor's own host only.
2. `PolygonEquity.bars` reads aggregates (`_bar_page`), asked for with ``adjusted=false``, then `actions`.
3. `PolygonEquity.actions` reads splits and dividends (`_split`, `_dividend`).
4. `PolygonOptions.quotes` reads the snapshot of a whole chain (`_quote`).

A page is an `Answer` of its own, so that each row leads to the bytes it came from. A 200 that says ``status: ERROR`` is an error,
and so is a page that counts other rows than it holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from zoneinfo import ZoneInfo

import pandas as pd

from config.calendar import session_closes
from config.clock import Clock, SystemClock
from config.errors import DataError, InputError, RateLimited, ServiceError, ServiceUnavailable
from config.settings import Settings
from flows.sources.action_rows import ACTIONS_DATASET, Action, action_table, added_up
from flows.sources.base import Answer
from flows.sources.http import Reply, VendorClient, require_key
from flows.sources.json_rows import Refusal, number, read_all
from flows.sources.option_rows import INDEX_ROOTS, OPTIONS_DATASET, Listed, as_expiry, listed, quote_table, session_of
from flows.sources.shape import BARS_DATASET, bar_rows, empty_rows

__all__ = ["PolygonEquity", "PolygonOptions"]

SOURCE = "polygon"
HOST = "https://api.massive.com"
HOSTS = ("api.massive.com", "api.polygon.io")
FIRST_DAY = date(1970, 1, 1)
NEW_YORK = ZoneInfo("America/New_York")
SETTLING = timedelta(minutes=16)  # a delayed plan lacks the last quarter of an hour: a bar that has just ended is not whole there
MOST_BARS, MOST_ACTIONS, MOST_CONTRACTS = "50000", "5000", "250"

_INTERVAL = re.compile(r"^(\d+)(m|h|d)$")
_SPANS = {"m": ("minute", pd.Timedelta(minutes=1)), "h": ("hour", pd.Timedelta(hours=1)), "d": ("day", pd.Timedelta(days=1))}
_FIELDS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
_INDICES = frozenset(terms.underlying for terms in INDEX_ROOTS.values())


class _Polygon:
    """Asking, page by page."""

    name = SOURCE
    names_per_request: int | None = 1

    def __init__(self, settings: Settings, clock: Clock | None) -> None:
        key = require_key(settings, SOURCE)
        headers = {"Accept": "application/json", "Authorization": f"Bearer {key.get_secret_value()}"}
        self._http = VendorClient(SOURCE, HOST, settings, headers=headers, secrets=(key,))
        self._clock = clock
        self._calendar = settings.data.calendar

    def available(self) -> tuple[str, ...] | None:
        """None: asking for every ticker it has would be a download."""
        return None

    def pages(
        self, path: str, params: Mapping[str, Any], *, may_lack: bool = False
    ) -> Iterator[tuple[Reply, dict[str, Any], list[Any]]]:
        """The pages of an answer: the bytes, the document, its results.

        Parameters
        ----------
        may_lack : bool
            A 404 in Polygon's own words (``status: NOT_FOUND``) is an answer without results.

        Raises
        ------
        ServiceUnavailable, RateLimited, ServiceError
            A page did not come, is an error in disguise, or does not hold what it says.
        """
        asked: set[str] = set()
        reply = self._http.get(path, params, allow=(404,) if may_lack else ())
        if _not_found(reply):
            yield reply, {"status": "OK"}, []
            return
        while True:
            document = _checked(reply)
            yield reply, document, _results(reply, document)
            following = document.get("next_url")
            if not following:
                return
            if following in asked:
                raise ServiceUnavailable(
                    f"{reply.origin} leads back to a page that came before", remedy="run the same command again"
                )
            asked.add(following)
            reply = self._http.get(self._below(following))

    def _below(self, following: str) -> str:
        """A ``next_url`` as a path below our base address; the key goes in the header, never in an address.

        Raises
        ------
        ServiceError
            It leads to another host: the key is not sent there.
        """
        parts = urlsplit(following)
        if parts.netloc not in (*HOSTS, urlsplit(self._http.base).netloc):
            raise ServiceError(
                f"{SOURCE} leads to its next page at {parts.netloc or following!r}, which is not its own: not followed"
            )
        query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name.lower() != "apikey"])
        own = urlsplit(self._http.base).path
        return f"{parts.path.removeprefix(own).lstrip('/')}?{query}"

    def answered_at(self, reply: Reply) -> datetime:
        """The moment of an answer: by the clock that was handed in, else the vendor's Date header, else the machine's clock."""
        if self._clock is not None:
            return self._clock.now()
        return reply.answered_at or SystemClock().now()

    def unknown(self, name: str) -> Reply | None:
        """The answer that says there is no such ticker; None where there is one."""
        reply = self._http.get(f"v3/reference/tickers/{_vendor_symbol(name)}", allow=(404,))
        if _not_found(reply):
            return reply
        _checked(reply)
        return None


class PolygonEquity(_Polygon):
    """Bars as traded, with splits and dividends.

    Parameters
    ----------
    settings : Settings
        ``credentials.polygon``.
    interval : str
        ``1d``, or ``1m``, ``5m``, ``1h``: intraday bars include what trades before and after the session.
    clock : Clock, optional
        Tells the moment of an answer instead of the vendor's Date header.
    """

    incremental = True

    def __init__(self, settings: Settings, *, interval: str = "1d", clock: Clock | None = None) -> None:
        found = _INTERVAL.match(interval)
        if found is None or (found[2] == "d" and found[1] != "1"):
            raise InputError(f"interval {interval!r} is not one", remedy="write it as 1d, 1h or 5m")
        self._interval, self._multiplier, (self._span, unit) = interval, found[1], _SPANS[found[2]]
        self._length = unit * int(found[1])
        super().__init__(settings, clock)

    def bars(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer a page of bars, then of splits, then of dividends; a bar that was not complete is left out.

        Raises
        ------
        DataError
            The vendor answered with adjusted prices.
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        for name in symbols:
            first, last = (start or FIRST_DAY).isoformat(), (end or self._today()).isoformat()
            path = f"v2/aggs/ticker/{_vendor_symbol(name)}/range/{self._multiplier}/{self._span}/{first}/{last}"
            request = {"symbol": name, "interval": self._interval, "start": start, "end": end, "adjusted": False}
            empty = True
            for page, (reply, document, results) in enumerate(
                self.pages(path, {"adjusted": "false", "sort": "asc", "limit": MOST_BARS}), start=1
            ):
                empty = empty and not results
                yield self._bar_page(name, reply, document, results, {**request, "page": page})
            if empty and (denied := self.unknown(name)) is not None:
                yield self._missing(name, denied, request)
                continue
            yield from self.actions((name,), start, end)

    def actions(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """Splits and dividends with ex-dates from `start` to `end`; None: those announced for later days too.

        Raises
        ------
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        questions: tuple[tuple[str, str, Callable[[Any, str], Action | Refusal]], ...] = (
            ("splits", "execution_date", _split),
            ("dividends", "ex_dividend_date", _dividend),
        )
        for name in symbols:
            for what, day, read in questions:
                window = {f"{day}.gte": start and start.isoformat(), f"{day}.lte": end and end.isoformat()}
                params = {"ticker": _vendor_symbol(name), **window, "sort": f"{day}.asc", "limit": MOST_ACTIONS}
                request = {"symbol": name, "actions": what, "start": start, "end": end}
                for page, (reply, document, results) in enumerate(self.pages(f"stocks/v1/{what}", params), start=1):
                    yield self._action_page(name, reply, document, results, read, {**request, "page": page})

    def _today(self) -> date:
        """The last day to ask for where none was named: today in New York; its unfinished bar is left out by the answer's clock."""
        return (self._clock or SystemClock()).now().astimezone(NEW_YORK).date()

    def _bar_page(
        self, name: str, reply: Reply, document: Mapping[str, Any], results: Sequence[Any], request: Mapping[str, Any]
    ) -> Answer:
        if document.get("adjusted") is not False and results:
            raise DataError(
                f"{reply.origin} was asked for prices as traded and says adjusted: {document.get('adjusted')!r}",
                remedy="nothing of it was stored; adjusted history cannot be told from prices as traded",
            )
        good, bad = read_all(results, name, self._bar)
        frame = pd.DataFrame(good, columns=["symbol", "session", "complete", *_FIELDS])
        frame["session"] = pd.to_datetime(frame["session"])
        daily = self._interval == "1d"
        complete = (
            session_closes(pd.DatetimeIndex(frame["session"]), self._calendar)
            if daily
            else pd.DatetimeIndex(pd.to_datetime(frame["complete"], utc=True))
        )
        settled = self.answered_at(reply) - (SETTLING if document.get("status") == "DELAYED" else timedelta(0))
        frame = frame[~(complete > pd.Timestamp(settled))]  # NaT, a day that is no session, is refused below
        rows, refused = bar_rows(
            frame,
            source=SOURCE,
            basis="as_traded",
            currency="USD",
            calendar=self._calendar,
            describe=lambda label: f"{name}, bar {int(label) + 1} of page {request['page']}",
            interval=self._interval,
            complete_at=None if daily else pd.to_datetime(frame["complete"], utc=True),
        )
        return Answer(
            source=SOURCE,
            dataset=BARS_DATASET,
            origin=reply.origin,
            request=request,
            payload=reply.body,
            rows=rows,
            names=(name,),
            refused=(*bad, *refused),
            notes=_notes(document),
        )

    def _bar(self, one: Any, name: str) -> dict[str, Any]:
        """One aggregate; `t` is the start of its window, milliseconds, and a day's window starts at midnight in New York."""
        begin = pd.Timestamp(int(one["t"]), unit="ms", tz=UTC)
        local = begin.tz_convert(NEW_YORK)
        return {
            "symbol": name,
            "session": local.tz_localize(None).normalize(),
            "complete": begin + self._length,
            **{ours: number(one.get(theirs)) for ours, theirs in _FIELDS.items()},
        }

    def _action_page(
        self,
        name: str,
        reply: Reply,
        document: Mapping[str, Any],
        results: Sequence[Any],
        read: Callable[[Any, str], Action | Refusal],
        request: Mapping[str, Any],
    ) -> Answer:
        good, bad = read_all(results, name, read)
        moment = self.answered_at(reply)
        return Answer(
            source=SOURCE,
            dataset=ACTIONS_DATASET,
            origin=reply.origin,
            request=request,
            payload=reply.body,
            rows=action_table(added_up(good), source=SOURCE, calendar=self._calendar, answered_at=moment),
            names=(name,) if good or bad else (),
            refused=tuple(bad),
            notes=_notes(document),
        )

    def _missing(self, name: str, reply: Reply, request: Mapping[str, Any]) -> Answer:
        return Answer(
            source=SOURCE,
            dataset=BARS_DATASET,
            origin=reply.origin,
            request=request,
            payload=reply.body,
            rows=empty_rows(BARS_DATASET),
            names=(),
            missing={name: f"polygon knows no ticker {_vendor_symbol(name)}"},
        )


class PolygonOptions(_Polygon):
    """Option chains as they stand at the moment of asking.

    Parameters
    ----------
    settings : Settings
        ``credentials.polygon``. Quotes need a plan that has them: without, bid and ask are NULL.
    expiry_from, expiry_to : date or str, optional
        Only contracts that expire then, both included.
    clock : Clock, optional
        Tells the moment of an answer instead of the vendor's Date header.
    """

    incremental = False  # a chain is always asked for whole

    def __init__(
        self,
        settings: Settings,
        *,
        expiry_from: date | str | None = None,
        expiry_to: date | str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._from, self._to = as_expiry(expiry_from, "expiry_from"), as_expiry(expiry_to, "expiry_to")
        super().__init__(settings, clock)

    def quotes(self, underlyings: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer a page of contracts.

        Raises
        ------
        InputError
            The window does not hold the session that the chain is of: the snapshot has no past ones.
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        for name in underlyings:
            bare = _vendor_symbol(name)
            ticker = f"I:{bare}" if bare in _INDICES else bare
            params = {
                "expiration_date.gte": self._from and self._from.isoformat(),
                "expiration_date.lte": self._to and self._to.isoformat(),
                "limit": MOST_CONTRACTS,
            }
            request = {"underlying": name, "expiry_from": self._from, "expiry_to": self._to}
            found = False
            for page, (reply, document, results) in enumerate(
                self.pages(f"v3/snapshot/options/{ticker}", params, may_lack=True), start=1
            ):
                found = found or bool(results)
                if results:
                    yield self._page(name, reply, document, results, {**request, "page": page}, start, end)
            if not found:
                yield Answer(
                    source=SOURCE,
                    dataset=OPTIONS_DATASET,
                    origin=reply.origin,
                    request=request,
                    payload=reply.body,
                    rows=empty_rows(OPTIONS_DATASET),
                    names=(),
                    missing={name: f"polygon has no options on {ticker}"},
                )

    def _page(
        self,
        name: str,
        reply: Reply,
        document: Mapping[str, Any],
        results: Sequence[Any],
        request: Mapping[str, Any],
        start: date | None,
        end: date | None,
    ) -> Answer:
        moment = self.answered_at(reply)
        newest = max((stamp for one in results if (stamp := _stamp(one)) is not None), default=None)
        session = session_of(newest, moment, self._calendar)
        if (start is not None and session < start) or (end is not None and session > end):
            raise InputError(
                f"polygon gives chains as they stand, of the session {session}, which is not between {start} and {end}",
                remedy="leave out the window, or ask a source that has past chains",
            )
        records, bad = read_all(results, name, _quote)
        rows = quote_table(
            records,
            source=SOURCE,
            data_kind="real",
            quote_time=moment,
            available_at=moment,
            session=session,
            greeks_time=None,
            rho=None,
        )
        delayed = any(isinstance(one, dict) and (one.get("last_quote") or {}).get("timeframe") == "DELAYED" for one in results)
        return Answer(
            source=SOURCE,
            dataset=OPTIONS_DATASET,
            origin=reply.origin,
            request=request,
            payload=reply.body,
            rows=rows,
            names=(name,),
            refused=tuple(bad),
            notes=(*_notes(document), *((f"polygon's quotes of options on {name} are delayed",) if delayed else ())),
        )


def _checked(reply: Reply) -> dict[str, Any]:
    """The document of a page.

    Raises
    ------
    RateLimited, ServiceUnavailable, ServiceError
        It says of itself that it is an error.
    """
    document = reply.json()
    if not isinstance(document, dict):
        raise ServiceUnavailable(f"{reply.origin} answered with a {type(document).__name__}, not with a document")
    status = document.get("status")
    if status in ("OK", "DELAYED"):
        return document
    words = reply.shown(str(document.get("error") or document.get("message") or "no reason given"))
    if "maximum requests" in words.lower():
        raise RateLimited(f"{SOURCE} asks us to wait ({reply.origin}): {words}")
    if status in ("NOT_AUTHORIZED", "AUTH_FAILED", "AUTH_ERROR"):
        raise ServiceError(
            f"{SOURCE} refuses {reply.origin}: {words}",
            remedy="check POLYGON_API_KEY, and how far back its plan goes (name a start date)",
        )
    raise ServiceUnavailable(f"{reply.origin} answered with status {status!r}: {words}", remedy="run the same command again")


def _not_found(reply: Reply) -> bool:
    """Whether Polygon itself says that there is no such thing; another 404 (a proxy's page) is not its JSON, and raises."""
    return reply.status == 404 and reply.json().get("status") == "NOT_FOUND"


def _results(reply: Reply, document: Mapping[str, Any]) -> list[Any]:
    """What a page holds.

    Raises
    ------
    ServiceUnavailable
        It holds other rows than it counts.
    """
    results = document.get("results")
    if results is None:
        results = []
    if not isinstance(results, list):
        raise ServiceUnavailable(f"{reply.origin} answered with results that are a {type(results).__name__}, not a list")
    counted = document.get("resultsCount")
    if counted is not None and counted != len(results):
        raise ServiceUnavailable(
            f"{reply.origin} counts {counted} results and holds {len(results)}", remedy="run the same command again"
        )
    return results


def _split(one: Any, name: str) -> Action | Refusal:
    """New shares for one old, from the ex-date on."""
    new, old = number(one["split_to"]), number(one["split_from"])
    if not new or not old or new < 0 or old < 0:
        return Refusal("ratio_not_positive", f"{name}: a split of {one['split_to']!r} for {one['split_from']!r}")
    return Action(symbol=name, ex_date=date.fromisoformat(one["execution_date"]), kind="split", value=new / old)


def _dividend(one: Any, name: str) -> Action | Refusal:
    """Cash a share as it was declared, in the shares of that day (``split_adjusted_cash_amount`` is another number)."""
    cash = number(one["cash_amount"])
    if cash is None:
        return Refusal("value_missing", f"{name}: a dividend on {one.get('ex_dividend_date')} without an amount")
    said = one.get("declaration_date")
    return Action(
        symbol=name,
        ex_date=date.fromisoformat(one["ex_dividend_date"]),
        kind="dividend",
        value=cash,
        currency=one.get("currency"),
        declared=None if not said else date.fromisoformat(said),
        label=str(one.get("distribution_type")),
    )


def _quote(one: Any, underlying: str) -> dict[str, Any] | Refusal:
    """One contract of a chain."""
    details = one["details"]
    quote, trade, day, greeks = (one.get(part) or {} for part in ("last_quote", "last_trade", "day", "greeks"))
    symbol = str(details["ticker"]).removeprefix("O:")
    if details.get("additional_underlyings"):
        return Refusal("non_standard_deliverable", f"{symbol} also delivers {details['additional_underlyings']!r}")
    terms = listed(
        symbol,
        underlying,
        multiplier=number(details.get("shares_per_contract")),
        expiry=date.fromisoformat(details["expiration_date"]),
        strike=number(details.get("strike_price")),
        right=details.get("contract_type"),
        is_index=details.get("exercise_style") == "european",
    )
    if not isinstance(terms, Listed):
        return terms
    return {
        **terms.columns(),
        **{name: number(quote.get(name)) for name in ("bid", "ask", "bid_size", "ask_size")},
        "last": number(trade.get("price", day.get("close"))),
        "volume": number(day.get("volume")),
        "open_interest": number(one.get("open_interest")),
        "underlying_price": number((one.get("underlying_asset") or {}).get("price")),
        "implied_volatility": number(one.get("implied_volatility")),
        **{name: number(greeks.get(name)) for name in ("delta", "gamma", "vega", "theta")},
    }


def _stamp(one: Any) -> datetime | None:
    """A contract's newest own time, nanoseconds: of its quote, else of its day."""
    if not isinstance(one, dict):
        return None
    parts = [(one.get(part) or {}).get("last_updated") for part in ("last_quote", "day")]
    stamps = [value for value in parts if isinstance(value, int) and value > 0]
    return datetime.fromtimestamp(max(stamps) // 1_000_000_000, UTC) if stamps else None


def _notes(document: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        ("polygon answered with status DELAYED: its data of the last minutes is not there yet",)
        if document["status"] == "DELAYED"
        else ()
    )


def _vendor_symbol(name: str) -> str:
    """A share class as Polygon writes it: BRK/B and BRK-B are BRK.B."""
    return name.replace("/", ".").replace("-", ".")
