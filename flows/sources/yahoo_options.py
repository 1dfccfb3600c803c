"""Option chains from Yahoo through yfinance, as they stand at the moment of asking: Yahoo keeps no past ones.

1. `YahooOptions.quotes` asks for the nearest expiry, which also lists the others, then for each of them.
2. `_chain` reads one expiry out of Yahoo's bytes; a contract that cannot be read or placed is a refused row.

Yahoo gives bid and ask without sizes and without a time of their own: a quote's time is the moment of the answer. Outside the
session bid and ask are mostly zero, and the implied volatility is what Yahoo's solver starts from: where both are zero there is no
quote, and bid, ask and implied volatility are absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from config.clock import Clock, SystemClock
from config.errors import InputError, ServiceUnavailable
from config.settings import Settings
from flows.sources.base import Answer, RefusedRow
from flows.sources.json_rows import Refusal, number
from flows.sources.option_rows import OPTIONS_DATASET, as_expiry, listed, quote_table, session_of
from flows.sources.shape import empty_rows
from flows.sources.yahoo_client import Heard, YahooClient, misspelt
from flows.sources.yahoo_exchanges import calendar_of

if TYPE_CHECKING:
    from flows.sources.yahoo_session import DataReply

__all__ = ["YahooOptions"]

_MULTIPLIERS = {"REGULAR": 100.0, "MINI": 10.0}
_NUMBERS = {
    "bid": "bid",
    "ask": "ask",
    "last": "lastPrice",
    "volume": "volume",
    "open_interest": "openInterest",
    "implied_volatility": "impliedVolatility",
}


class YahooOptions:
    """Option chains as they stand.

    Parameters
    ----------
    settings : Settings
        `data.timeout_seconds`, `data.seconds_between_requests`, `data.addresses`.
    expiry_from, expiry_to : date or str, optional
        Only chains that expire then, both included; each is a request.
    calendar : str, optional
        The exchange calendar, instead of the one of the exchange that Yahoo names.
    clock : Clock, optional
        Tells the moment of an answer, `quote_time` and `available_at`.
    """

    name = "yahoo"
    names_per_request: int | None = 1
    incremental = False

    def __init__(
        self,
        settings: Settings,
        *,
        expiry_from: date | str | None = None,
        expiry_to: date | str | None = None,
        calendar: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._from, self._to = as_expiry(expiry_from, "expiry_from"), as_expiry(expiry_to, "expiry_to")
        self._calendar = calendar
        self._clock = clock or SystemClock()
        self._client = YahooClient(settings)

    def available(self) -> None:
        """Yahoo does not list what it has: it is asked for each symbol."""
        return

    def quotes(self, underlyings: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer an expiry.

        Raises
        ------
        InputError
            The window does not hold the session that the chains are of: Yahoo has no past ones.
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        for underlying in underlyings:
            wrong = misspelt(underlying)
            if wrong is not None:
                yield _missing(underlying, wrong)
                continue
            yield from self._of_underlying(underlying, start, end)

    def _of_underlying(self, underlying: str, start: date | None, end: date | None) -> Iterator[Answer]:
        nearest, replies = self._ask(underlying)
        if not replies:
            known = not nearest.missing and _result(nearest.reply) is not None
            why = nearest.why or f"yahoo {'lists no options on' if known else 'knows no symbol'} {underlying}"
            yield _missing(underlying, why, nearest.reply)
        for expiry, (reply, moment) in replies.items():
            if (self._from is None or expiry >= self._from) and (self._to is None or expiry <= self._to):
                yield self._chain(underlying, expiry, reply, moment, (start, end))

    def _ask(self, underlying: str) -> tuple[Heard, dict[date, tuple[DataReply, datetime]]]:
        """The first answer, and those that are wanted with their moments, by expiry."""
        with self._client.asking() as (yfinance, session):
            ticker = yfinance.Ticker(underlying, session=session)
            nearest = self._client.chain(ticker, None)
            found = None if nearest.why else _result(nearest.reply)
            if found is None:
                return nearest, {}
            replies = {_day(chain["expirationDate"]): (nearest.reply, self._clock.now()) for chain in found["options"]}
            for expiry in sorted({_day(stamp) for stamp in found["expirationDates"]} - replies.keys()):
                if (self._from is not None and expiry < self._from) or (self._to is not None and expiry > self._to):
                    continue
                heard = self._client.chain(ticker, expiry.isoformat())
                if heard.why:
                    raise ServiceUnavailable(f"yahoo listed {underlying} expiring on {expiry} and then had none: {heard.why}")
                replies[expiry] = (heard.reply, self._clock.now())
            return nearest, replies

    def _chain(
        self, underlying: str, expiry: date, reply: DataReply, moment: datetime, window: tuple[date | None, date | None]
    ) -> Answer:
        result = _result(reply)
        if result is None:
            raise ServiceUnavailable(f"{reply.origin} holds no chain", remedy="run the same command again")
        quote = result["quote"]
        start, end = window
        session = session_of(None, moment, calendar_of(str(quote.get("exchange")), underlying, self._calendar))
        if (start is not None and session < start) or (end is not None and session > end):
            raise InputError(
                f"yahoo gives chains as they stand, of the session {session}, which is not between {start} and {end}",
                remedy="leave out the window, or ask a source that has past chains",
            )
        records: list[dict[str, Any]] = []
        refused: list[RefusedRow] = []
        contracts = [(right, one) for chain in result["options"] for right in ("calls", "puts") for one in chain[right]]
        for right, one in contracts:
            row = _record(one, underlying, expiry, right, is_index=quote.get("quoteType") == "INDEX")
            if isinstance(row, Refusal):
                refused.append(row.row(underlying, one if isinstance(one, dict) else {"contract": one}))
            else:
                records.append(row)
        unquoted = any(record["ask"] is None for record in records)
        notes = (
            ["contracts with bid and ask zero (the market is closed, or nobody quotes) are stored without a quote"]
            if unquoted
            else []
        )
        return Answer(
            source=self.name,
            dataset=OPTIONS_DATASET,
            origin=reply.origin,
            request={"underlying": underlying, "expiry": expiry.isoformat()},
            payload=reply.body,
            rows=quote_table(
                records,
                source=self.name,
                data_kind="real",
                quote_time=moment,
                available_at=moment,
                session=session,
                underlying_price=number(quote.get("regularMarketPrice")),
            ),
            names=(underlying,),
            refused=tuple(refused),
            notes=tuple(notes),
        )


def _record(one: Any, underlying: str, expiry: date, right: str, *, is_index: bool) -> dict[str, Any] | Refusal:
    """One contract of a chain."""
    if not isinstance(one, dict):
        return Refusal("wrong_type", f"a contract that is no object: {one!r}")
    symbol = str(one.get("contractSymbol"))
    try:
        values = {ours: number(one.get(theirs)) for ours, theirs in _NUMBERS.items()}
        strike = number(one.get("strike"))
    except (TypeError, ValueError) as problem:
        return Refusal("wrong_type", f"{symbol}: {problem}")
    size = _MULTIPLIERS.get(str(one.get("contractSize")))
    terms = listed(symbol, underlying, multiplier=size, expiry=expiry, strike=strike, right=right, is_index=is_index)
    if isinstance(terms, Refusal):
        return terms
    if not values["bid"] and not values["ask"]:
        values |= {"bid": None, "ask": None, "implied_volatility": None}
    return {**terms.columns(), **values}


def _result(reply: DataReply) -> dict[str, Any] | None:
    """What is said of the underlying; None: nothing is.

    Raises
    ------
    ServiceUnavailable
        It is no answer about options.
    """
    try:
        results = reply.document["optionChain"]["result"]
        if not results:
            return None
        found: dict[str, Any] = results[0]
        if not all(isinstance(found[name], kind) for name, kind in (("expirationDates", list), ("options", list), ("quote", dict))):
            raise TypeError("expirationDates, options or quote")
        for chain in found["options"]:
            chain["expirationDate"], list(chain["calls"]), list(chain["puts"])
        return found
    except (KeyError, IndexError, TypeError) as problem:
        raise ServiceUnavailable(
            f"{reply.origin} answered with JSON that is no option chain ({type(problem).__name__}: {problem})",
            remedy="run the same command again",
        ) from None


def _day(stamp: int) -> date:
    return datetime.fromtimestamp(stamp, UTC).date()


def _missing(underlying: str, why: str, reply: DataReply | None = None) -> Answer:
    return Answer(
        source="yahoo",
        dataset=OPTIONS_DATASET,
        origin=reply.origin if reply else f"https://query2.finance.yahoo.com/v7/finance/options/{underlying}",
        request={"underlying": underlying},
        payload=reply.body if reply else why.encode(),
        rows=empty_rows(OPTIONS_DATASET),
        names=(),
        missing={underlying: why},
    )
