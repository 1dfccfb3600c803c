"""Alpaca's market data, through its own client: bars as traded, corporate actions, option chains.

1. `_Alpaca.client` makes one of alpaca-py's clients without its retries and watches its session (`flows.sources.watched`).
2. `AlpacaEquity.bars` asks for bars with adjustment, feed and symbol mapping stated (`_bars`), then for `actions`.
3. `AlpacaEquity.actions` reads splits, dividends and renames (`_READERS`); what has no place in the table is refused.
4. `AlpacaOptions.quotes` reads the snapshot of a whole chain (`_quote`).

alpaca-py follows page tokens itself and hands over all pages at once; the pages' bytes, joined by line feeds, are the payload.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pandas as pd

from config.calendar import session_closes
from config.clock import Clock, SystemClock
from config.errors import InputError, ServiceError, ServiceUnavailable
from config.settings import Settings
from flows.sources.action_rows import ACTIONS_DATASET, Action, action_table, added_up
from flows.sources.base import Answer, RefusedRow
from flows.sources.http import address_of, require_key
from flows.sources.json_rows import Refusal, number, read_all
from flows.sources.option_rows import OPTIONS_DATASET, Listed, as_expiry, listed, quote_table, session_of
from flows.sources.shape import BARS_DATASET, bar_rows, empty_rows
from flows.sources.watched import Seen, Watch, watch

__all__ = ["AlpacaEquity", "AlpacaOptions"]

SOURCE = "alpaca"
HOST = "https://data.alpaca.markets"
FIRST_DAY = date(2016, 1, 1)  # Alpaca's bars begin here
AHEAD = timedelta(days=365)  # how far ahead announced actions are asked for
SETTLING = timedelta(minutes=16)  # a plan without the consolidated tape's last quarter of an hour is refused when asked for it
NEW_YORK = ZoneInfo("America/New_York")
SHARES = 100.0

_INTERVAL = re.compile(r"^(\d+)(m|h|d)$")
_UNITS = {"m": ("Minute", pd.Timedelta(minutes=1)), "h": ("Hour", pd.Timedelta(hours=1)), "d": ("Day", pd.Timedelta(days=1))}
_MOST = {"m": 59, "h": 23, "d": 1}
_FIELDS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}


class _NoSymbol(Exception):
    """Alpaca says that it knows no such symbol; in its own words, with the bytes."""

    def __init__(self, words: str, pages: list[Seen]) -> None:
        super().__init__(words)
        self.pages = pages


class _Alpaca:
    """alpaca-py's clients, watched."""

    names_per_request: int | None = 1

    def __init__(self, settings: Settings, clock: Clock | None) -> None:
        self._key, self._secret = require_key(settings, SOURCE), require_key(settings, SOURCE, "alpaca_secret")
        self._settings, self._clock = settings, clock
        self._calendar = settings.data.calendar
        self._clients: dict[str, tuple[Any, Watch]] = {}

    def available(self) -> tuple[str, ...] | None:
        """None: its list of assets belongs to the trading account, not to the data."""
        return None

    def client(self, name: str) -> tuple[Any, Watch]:
        """One of ``alpaca.data.historical``'s clients, answers as they come, and the watch over its session."""
        if name not in self._clients:
            import alpaca.data.historical as historical
            from alpaca.data.historical.corporate_actions import CorporateActionsClient

            factory = CorporateActionsClient if name == "CorporateActionsClient" else getattr(historical, name)
            made = factory(
                api_key=self._key.get_secret_value(),
                secret_key=self._secret.get_secret_value(),
                raw_data=True,
                url_override=address_of(SOURCE, HOST, self._settings),
            )
            made._retry = 0  # it repeats a 429 three times, three seconds apart, whatever the vendor asked for
            self._clients[name] = made, watch(made._session, SOURCE, self._settings, secrets=(self._key, self._secret))
        return self._clients[name]

    def ask(self, client: str, method: str, question: Any) -> tuple[dict[str, Any], list[Seen]]:
        """Ask, all pages; the answer as it came, and the pages' bytes.

        Raises
        ------
        ServiceUnavailable, RateLimited, ServiceError
            As `flows.sources.watched`; or the answer is none of Alpaca's.
        _NoSymbol
            It knows no such symbol.
        """
        from alpaca.common.exceptions import APIError

        made, watched = self.client(client)
        watched.take()
        try:
            answer = getattr(made, method)(question)
        except APIError as problem:
            words, pages = watched.shown(" ".join(str(problem).split())[:200]), watched.take()
            if problem.status_code in (400, 404, 422) and "symbol" in words and pages:
                raise _NoSymbol(words, pages) from None
            raise ServiceError(
                f"{SOURCE} refused a question ({problem.status_code}): {words}", remedy="check the names and the window"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError) as problem:  # JSON, but not Alpaca's
            raise ServiceUnavailable(
                f"{SOURCE} gave an answer that its client cannot read ({type(problem).__name__}: {watched.shown(str(problem))})",
                remedy="run the same command again",
            ) from None
        pages = watched.take()
        if not isinstance(answer, dict) or not pages:
            raise ServiceUnavailable(f"{SOURCE} gave no answer that holds anything", remedy="run the same command again")
        return answer, pages


class AlpacaEquity(_Alpaca):
    """Bars as traded and corporate actions.

    Parameters
    ----------
    settings : Settings
        ``credentials.alpaca`` and ``credentials.alpaca_secret``.
    interval : str
        ``1d``, or ``1m``, ``5m``, ``1h``: intraday bars include what trades before and after the session.
    feed : {"sip", "iex"}
        The consolidated tape (rows of the source ``alpaca``), or the one exchange that the free plan has in full: other prices and
        about a fortieth of the volume, so its rows are of another source, ``alpaca_iex``.
    clock : Clock, optional
        Tells the moment of an answer instead of the vendor's Date header.
    """

    incremental = True

    def __init__(
        self,
        settings: Settings,
        *,
        interval: str = "1d",
        feed: Literal["sip", "iex"] = "sip",
        clock: Clock | None = None,
    ) -> None:
        found = _INTERVAL.match(interval)
        if found is None or not 1 <= int(found[1]) <= _MOST[found[2]]:
            raise InputError(f"interval {interval!r} is not one", remedy="write it as 1d, 1h or 5m (up to 59m and 23h)")
        if feed not in ("sip", "iex"):
            raise InputError(f"feed {feed!r} is neither sip nor iex")
        self._interval, self._amount, (self._unit, unit) = interval, int(found[1]), _UNITS[found[2]]
        self._length, self._feed = unit * int(found[1]), feed
        super().__init__(settings, clock)

    @property
    def name(self) -> str:
        """``alpaca``, or ``alpaca_iex``: bars of one exchange are not revisions of the consolidated tape's."""
        return SOURCE if self._feed == "sip" else f"{SOURCE}_iex"

    def bars(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer a symbol, then its actions; a bar that was not complete is left out.

        Symbols are those of the time: ``FB`` until June 2022, ``META`` from then on. Alpaca would answer with the bars of both.

        Raises
        ------
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        for name in symbols:
            request = {"symbol": name, "interval": self._interval, "start": start, "end": end, "adjustment": "raw"}
            request |= {"feed": self._feed, "asof": "-"}
            if _midnight(start or FIRST_DAY) >= self._last(end):
                continue  # nothing of that window has happened
            try:
                answer, pages = self.ask("StockHistoricalDataClient", "get_stock_bars", self._question(name, start, end))
            except _NoSymbol as refusal:
                yield self._missing(BARS_DATASET, name, request, refusal)
                continue
            yield self._bars(name, answer, pages, request)
            yield from self.actions((name,), start, end)

    def actions(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """Actions with ex-dates from `start` to `end`; None: those announced for the coming year too.

        Raises
        ------
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        from alpaca.data.requests import CorporateActionsRequest

        for name in symbols:
            request = {"symbol": name, "actions": "all", "start": start, "end": end}
            question = CorporateActionsRequest(
                symbols=[_vendor_symbol(name)],
                start=start or FIRST_DAY,
                end=end or self._now().date() + AHEAD,
                limit=None,  # its own default of 1000 would cut off the rest in silence
            )
            try:
                answer, pages = self.ask("CorporateActionsClient", "get_corporate_actions", question)
            except _NoSymbol as refusal:
                yield self._missing(ACTIONS_DATASET, name, request, refusal)
                continue
            yield self._actions(name, answer, pages, request)

    def _question(self, name: str, start: date | None, end: date | None) -> Any:
        from alpaca.data.enums import Adjustment, DataFeed
        from alpaca.data.requests import StockBarsRequest
        from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

        return StockBarsRequest(
            symbol_or_symbols=[_vendor_symbol(name)],
            timeframe=TimeFrame(self._amount, TimeFrameUnit[self._unit]),
            start=_midnight(start or FIRST_DAY),
            end=self._last(end),
            adjustment=Adjustment.RAW,
            feed=DataFeed(self._feed),
            asof="-",
        )

    def _last(self, end: date | None) -> datetime:
        """The last moment to ask for: the end of the last day, and nothing that has not settled."""
        settled = self._now() - (SETTLING if self._feed == "sip" else timedelta(0))
        return settled if end is None else min(settled, _midnight(end + timedelta(days=1)) - timedelta(seconds=1))

    def _bars(self, name: str, answer: Mapping[str, Any], pages: Sequence[Seen], request: Mapping[str, Any]) -> Answer:
        listed_bars = answer.get(_vendor_symbol(name)) or []
        good, bad = read_all(listed_bars, name, self._bar)
        frame = pd.DataFrame(good, columns=["symbol", "session", "complete", *_FIELDS])
        frame["session"] = pd.to_datetime(frame["session"])
        frame["complete"] = pd.to_datetime(frame["complete"], utc=True)
        daily = self._interval == "1d"
        complete = (
            session_closes(pd.DatetimeIndex(frame["session"]), self._calendar) if daily else pd.DatetimeIndex(frame["complete"])
        )
        moment = self.client("StockHistoricalDataClient")[1].moment(pages, self._clock)
        settled = moment - (SETTLING if self._feed == "sip" else timedelta(0))  # a delayed plan lacks the last minutes until then
        frame = frame[~(complete > pd.Timestamp(settled))]  # NaT, a day that is no session, is refused below
        rows, refused = bar_rows(
            frame,
            source=self.name,
            basis="as_traded",
            currency="USD",
            calendar=self._calendar,
            describe=lambda label: f"{name}, bar {int(label) + 1}",
            interval=self._interval,
            complete_at=None if daily else frame["complete"],
        )
        return Answer(
            source=self.name,
            dataset=BARS_DATASET,
            origin=pages[0].origin,
            request=request,
            payload=_joined(pages),
            rows=rows,
            names=(name,),
            refused=(*bad, *refused),
            notes=() if self._feed == "sip" else ("these are the trades of one exchange, IEX: a fortieth of the volume",),
        )

    def _bar(self, one: Any, name: str) -> dict[str, Any]:
        """One bar; `t` is the start of its window, and a day's window starts at midnight in New York."""
        begin = pd.Timestamp(one["t"]).tz_convert(UTC)
        return {
            "symbol": name,
            "session": begin.tz_convert(NEW_YORK).tz_localize(None).normalize(),
            "complete": begin + self._length,
            **{ours: number(one.get(theirs)) for ours, theirs in _FIELDS.items()},
        }

    def _actions(self, name: str, answer: Mapping[str, Any], pages: Sequence[Seen], request: Mapping[str, Any]) -> Answer:
        good: list[Action] = []
        bad: list[RefusedRow] = []
        for what, entries in sorted(answer.items()):
            read = _READERS.get(what, _no_place(what))
            found, refused = read_all(entries, name, read)
            good.extend(found)
            bad.extend(refused)
        moment = self.client("CorporateActionsClient")[1].moment(pages, self._clock)
        return Answer(
            source=self.name,
            dataset=ACTIONS_DATASET,
            origin=pages[0].origin,
            request=request,
            payload=_joined(pages),
            rows=action_table(added_up(good), source=self.name, calendar=self._calendar, answered_at=moment),
            names=(name,) if good or bad else (),
            refused=tuple(bad),
        )

    def _missing(self, dataset: str, name: str, request: Mapping[str, Any], refusal: _NoSymbol) -> Answer:
        return Answer(
            source=self.name,
            dataset=dataset,
            origin=refusal.pages[0].origin,
            request=request,
            payload=_joined(refusal.pages),
            rows=empty_rows(dataset),
            names=(),
            missing={name: f"alpaca refuses the symbol: {refusal}"},
        )

    def _now(self) -> datetime:
        return (self._clock or SystemClock()).now()


class AlpacaOptions(_Alpaca):
    """Option chains as they stand at the moment of asking.

    Parameters
    ----------
    settings : Settings
        ``credentials.alpaca`` and ``credentials.alpaca_secret``.
    feed : {"opra", "indicative"}
        OPRA's quotes, or the free feed, whose quotes Alpaca modifies: rows of the source ``alpaca_indicative``, marked modelled.
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
        feed: Literal["opra", "indicative"] = "opra",
        expiry_from: date | str | None = None,
        expiry_to: date | str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if feed not in ("opra", "indicative"):
            raise InputError(f"feed {feed!r} is neither opra nor indicative")
        self._feed = feed
        self._from, self._to = as_expiry(expiry_from, "expiry_from"), as_expiry(expiry_to, "expiry_to")
        super().__init__(settings, clock)

    @property
    def name(self) -> str:
        """``alpaca``, or ``alpaca_indicative``."""
        return SOURCE if self._feed == "opra" else f"{SOURCE}_indicative"

    def quotes(self, underlyings: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer an underlying.

        Raises
        ------
        InputError
            The window does not hold the session that the chain is of: the snapshot has no past ones.
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        from alpaca.data.enums import OptionsFeed
        from alpaca.data.requests import OptionChainRequest

        for name in underlyings:
            request = {"underlying": name, "feed": self._feed, "expiry_from": self._from, "expiry_to": self._to}
            question = OptionChainRequest(
                underlying_symbol=_vendor_symbol(name),
                feed=OptionsFeed(self._feed),
                expiration_date_gte=self._from,
                expiration_date_lte=self._to,
            )
            try:
                answer, pages = self.ask("OptionHistoricalDataClient", "get_option_chain", question)
                reason = f"alpaca has no options on {name}"
            except _NoSymbol as refusal:
                answer, pages, reason = {}, refusal.pages, f"alpaca refuses the symbol: {refusal}"
            if answer:
                yield self._chain(name, answer, pages, request, start, end)
                continue
            yield Answer(
                source=self.name,
                dataset=OPTIONS_DATASET,
                origin=pages[0].origin,
                request=request,
                payload=_joined(pages),
                rows=empty_rows(OPTIONS_DATASET),
                names=(),
                missing={name: reason},
            )

    def _chain(
        self,
        name: str,
        answer: Mapping[str, Any],
        pages: Sequence[Seen],
        request: Mapping[str, Any],
        start: date | None,
        end: date | None,
    ) -> Answer:
        moment = self.client("OptionHistoricalDataClient")[1].moment(pages, self._clock)
        contracts = [{"symbol": symbol, **(one if isinstance(one, dict) else {"snapshot": one})} for symbol, one in answer.items()]
        stamps = [stamp for one in contracts if (stamp := _stamp(one)) is not None]
        session = session_of(max(stamps, default=None), moment, self._calendar)
        if (start is not None and session < start) or (end is not None and session > end):
            raise InputError(
                f"alpaca gives chains as they stand, of the session {session}, which is not between {start} and {end}",
                remedy="leave out the window, or ask a source that has past chains",
            )
        records, bad = read_all(contracts, name, _quote)
        indicative = self._feed == "indicative"
        rows = quote_table(
            records,
            source=self.name,
            data_kind="modelled" if indicative else "real",
            quote_time=moment,
            available_at=moment,
            session=session,
        )
        return Answer(
            source=self.name,
            dataset=OPTIONS_DATASET,
            origin=pages[0].origin,
            request=request,
            payload=_joined(pages),
            rows=rows,
            names=(name,),
            refused=tuple(bad),
            notes=("alpaca's indicative quotes are modified ones; they are marked modelled",) if indicative else (),
        )


def _quote(one: Any, underlying: str) -> dict[str, Any] | Refusal:
    """One contract of a chain.

    The snapshot does not say the contract's size. The Options Clearing Corporation adds a digit to the root of every contract that
    delivers anything but a hundred shares, and `listed` refuses such a root.
    """
    quote, trade, day, greeks = (one.get(part) or {} for part in ("latestQuote", "latestTrade", "dailyBar", "greeks"))
    terms = listed(one["symbol"], underlying, multiplier=SHARES)
    if not isinstance(terms, Listed):
        return terms
    return {
        **terms.columns(),
        **{
            ours: number(quote.get(theirs))
            for ours, theirs in (("bid", "bp"), ("ask", "ap"), ("bid_size", "bs"), ("ask_size", "as"))
        },
        "last": number(trade.get("p")),
        "volume": number(day.get("v")),
        "implied_volatility": number(one.get("impliedVolatility")),
        **{name: number(greeks.get(name)) for name in ("delta", "gamma", "vega", "theta", "rho")},
    }


def _stamp(one: Mapping[str, Any]) -> datetime | None:
    """The time of a contract's latest quote."""
    said = (one.get("latestQuote") or {}).get("t")
    try:
        return None if said is None else pd.Timestamp(said).to_pydatetime(warn=False)
    except ValueError:
        return None


def _split(one: Any, name: str) -> Action | Refusal:
    new, old = number(one["new_rate"]), number(one["old_rate"])
    if not new or not old or new < 0 or old < 0:
        return Refusal("ratio_not_positive", f"{name}: a split of {one['new_rate']!r} for {one['old_rate']!r}")
    return Action(symbol=name, ex_date=date.fromisoformat(one["ex_date"]), kind="split", value=new / old)


def _stock_dividend(one: Any, name: str) -> Action:
    """Shares paid on shares: 0.05 a share leaves 1.05 for one."""
    return Action(symbol=name, ex_date=date.fromisoformat(one["ex_date"]), kind="split", value=1.0 + float(one["rate"]))


def _cash_dividend(one: Any, name: str) -> Action:
    """Cash a share; of a foreign one Alpaca does not say the currency."""
    currency = None if one.get("foreign") else "USD"
    return Action(
        symbol=name,
        ex_date=date.fromisoformat(one["ex_date"]),
        kind="dividend",
        value=float(one["rate"]),
        currency=currency,
        label=str(one.get("special")),
    )


def _name_change(one: Any, name: str) -> Action:
    """The row is of the old letters, whichever were asked for."""
    del name
    return Action(
        symbol=one["old_symbol"], ex_date=date.fromisoformat(one["process_date"]), kind="rename", new_symbol=one["new_symbol"]
    )


_READERS: dict[str, Callable[[Any, str], Action | Refusal]] = {
    "forward_splits": _split,
    "reverse_splits": _split,
    "stock_dividends": _stock_dividend,
    "cash_dividends": _cash_dividend,
    "name_changes": _name_change,
}


def _no_place(what: str) -> Callable[[Any, str], Refusal]:
    """Of a merger or a removal Alpaca does not say the first session without a bar, which a delisting is; others have no kind."""
    return lambda _, name: Refusal(
        "no_place_for_action", f"{name}: {what} are no facts that {ACTIONS_DATASET} can hold; state it by quant ingest actions"
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), NEW_YORK)


def _joined(pages: Sequence[Seen]) -> bytes:
    return b"\n".join(page.body for page in pages)


def _vendor_symbol(name: str) -> str:
    """A share class as Alpaca writes it: BRK/B and BRK-B are BRK.B."""
    return name.replace("/", ".").replace("-", ".")
