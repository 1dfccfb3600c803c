"""Tradier: option chains as they stand, with Greeks, and daily bars of shares and funds; thin JSON, no client library.

1. `TradierOptions.quotes` asks for the underlying's quote, its expirations, and a chain for each (`_Tradier.ask`).
2. `_quote` reads one contract; what cannot be read, and what is not a standard contract, is refused with the reason.
3. `TradierEquity.bars` asks for daily history.

Tradier writes one result as an object, several as a list, and none as null (or the text "null"): `several` reads all three.
A chain is a snapshot: `quote_time` and `available_at` are the moment of the answer. Greeks come from ORATS about once an hour and
have a moment of their own, `greeks_time`, which can lie more than an hour before the quote.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pandas as pd

from config.calendar import session_closes, session_opens
from config.clock import Clock, SystemClock
from config.errors import InputError, ServiceError, ServiceUnavailable
from config.settings import Settings
from flows.sources.base import Answer, RefusedRow
from flows.sources.http import Reply, VendorClient, require_key
from flows.sources.json_rows import Refusal, number
from flows.sources.option_rows import OPTIONS_DATASET, Listed, as_expiry, listed, quote_table, session_of
from flows.sources.shape import BARS_DATASET, bar_rows, empty_rows

__all__ = ["TradierEquity", "TradierOptions", "several"]

SOURCE = "tradier"
HOST = "https://api.tradier.com"
FIRST_DAY = date(1970, 1, 1)  # "usually the entire lifetime of the company", where a start is given
SETTLING = timedelta(minutes=16)  # without the exchanges' agreements Tradier's data are a quarter of an hour behind
DELAY = timedelta(minutes=10)  # quotes further behind than this, in trading hours, come from a delayed feed

_STAMPS = ("bid_date", "ask_date", "trade_date")
_VOLATILITIES = {"mid": "mid_iv", "smv": "smv_vol", "bid": "bid_iv", "ask": "ask_iv"}
_NUMBERS = {
    "bid": "bid",
    "ask": "ask",
    "bid_size": "bidsize",
    "ask_size": "asksize",
    "last": "last",
    "volume": "volume",
    "open_interest": "open_interest",
}


class _Tradier:
    """The questions that both datasets ask."""

    name = SOURCE
    names_per_request: int | None = 1

    def __init__(self, settings: Settings, clock: Clock | None) -> None:
        key = require_key(settings, SOURCE)
        headers = {"Accept": "application/json", "Authorization": f"Bearer {key.get_secret_value()}"}
        self._http = VendorClient(SOURCE, HOST, settings, headers=headers, secrets=(key,))
        self._clock = clock
        self._calendar = settings.data.calendar
        self._free_at = 0.0  # on the monotonic clock: when the vendor's quota is open again

    def available(self) -> tuple[str, ...] | None:
        """None: it has no list of what it has."""
        return None

    def ask(self, path: str, part: str, **params: str) -> tuple[Reply, Any]:
        """Ask below ``/v1/markets`` and give what the document holds under `part`; None where that is null.

        Raises
        ------
        ServiceUnavailable, RateLimited, ServiceError
            As `VendorClient.get`; or the answer is none of Tradier's.
        """
        wait = self._free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        reply = self._http.get(f"v1/markets/{path}", params)
        self._heed_quota(reply)
        document = reply.json()
        if not isinstance(document, dict) or part not in document:
            words = reply.shown(str(document))
            if isinstance(document, dict) and ("fault" in document or "errors" in document):
                raise ServiceError(
                    f"{reply.origin} was refused: {words}", remedy="check the names and the window that were asked for"
                )
            raise ServiceUnavailable(f"{reply.origin} answered without {part!r}: {words}", remedy="run the same command again")
        held = document[part]
        return reply, None if held in (None, "null") else held

    def underlying(self, name: str) -> tuple[Reply, dict[str, Any] | None]:
        """The quote of a symbol; None: Tradier knows no such symbol."""
        reply, held = self.ask("quotes", "quotes", symbols=vendor_symbol(name), greeks="true")
        found = several((held or {}).get("quote")) if isinstance(held, dict) else []
        return reply, found[0] if found else None

    def answered_at(self, reply: Reply) -> datetime:
        """The moment of an answer: by the clock that was handed in, else the vendor's Date header, else the machine's clock."""
        if self._clock is not None:
            return self._clock.now()
        return reply.answered_at or SystemClock().now()

    def missing(self, dataset: str, name: str, reason: str, replies: Sequence[Reply], request: Mapping[str, Any]) -> Answer:
        """An answer that says there is no such thing."""
        return Answer(
            source=SOURCE,
            dataset=dataset,
            origin=replies[-1].origin,
            request=request,
            payload=joined(replies),
            rows=empty_rows(dataset),
            names=(),
            missing={name: reason},
        )

    def _heed_quota(self, reply: Reply) -> None:
        """Where the answer says that it used up the quota, do not ask again before it is open."""
        left, until = reply.headers.get("x-ratelimit-available", ""), reply.headers.get("x-ratelimit-expiry", "")
        if not (left.lstrip("-").isdigit() and until.isdigit()) or int(left) > 0:
            return
        now = reply.answered_at or SystemClock().now()  # the vendor's own clock where it shows it: ours may be off
        seconds = int(until) / 1000 - now.timestamp()
        self._free_at = time.monotonic() + min(max(seconds, 0.0), 120.0)


class TradierOptions(_Tradier):
    """Option chains as they stand at the moment of asking.

    Parameters
    ----------
    settings : Settings
        ``credentials.tradier`` is the bearer token.
    implied_volatility : {"mid", "smv", "bid", "ask"}
        Which of Tradier's is kept: the one that the mid quote implies (the default); ORATS' smoothed one, of which the Greeks are
        computed; or that of one side, which is absent where that side has no quote. A zero is an absence.
    expiry_from, expiry_to : date or str, optional
        Only chains that expire then, both included.
    clock : Clock, optional
        Tells the moment of an answer instead of the vendor's Date header.
    """

    incremental = False  # a chain is always asked for whole

    def __init__(
        self,
        settings: Settings,
        *,
        implied_volatility: Literal["mid", "smv", "bid", "ask"] = "mid",
        expiry_from: date | str | None = None,
        expiry_to: date | str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if implied_volatility not in _VOLATILITIES:
            raise InputError(f"implied_volatility {implied_volatility!r} is none of {', '.join(_VOLATILITIES)}")
        self._volatility = implied_volatility
        self._from, self._to = as_expiry(expiry_from, "expiry_from"), as_expiry(expiry_to, "expiry_to")
        super().__init__(settings, clock)

    def quotes(self, underlyings: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer an expiry: its payload is the underlying's quote and the chain, a line feed between them.

        Raises
        ------
        InputError
            The window does not hold the session that the chains are of: Tradier has no past ones.
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        for name in underlyings:
            request = {"underlying": name, "implied_volatility": self._volatility}
            quoted, quote = self.underlying(name)
            if quote is None:
                yield self.missing(OPTIONS_DATASET, name, f"tradier knows no symbol {name}", [quoted], request)
                continue
            listing, held = self.ask(
                "options/expirations",
                "expirations",
                symbol=vendor_symbol(name),
                includeAllRoots="true",
                strikes="false",
                contractSize="false",
                expirationType="false",
            )
            expiries = [] if held is None else [_day(one, listing) for one in several(held.get("date"))]
            if not expiries:
                yield self.missing(OPTIONS_DATASET, name, f"tradier lists no options on {name}", [quoted, listing], request)
            for expiry in expiries:
                if (self._from is None or expiry >= self._from) and (self._to is None or expiry <= self._to):
                    yield self._chain(name, quoted, quote, expiry, start, end)

    def _chain(
        self, name: str, quoted: Reply, quote: Mapping[str, Any], expiry: date, start: date | None, end: date | None
    ) -> Answer:
        reply, held = self.ask(
            "options/chains", "options", symbol=vendor_symbol(name), expiration=expiry.isoformat(), greeks="true"
        )
        contracts = [] if held is None else several(held.get("option"))
        moment = self.answered_at(reply)
        newest = max((stamp for one in contracts if (stamp := _stamp(one)) is not None), default=None)
        session = session_of(newest, moment, self._calendar)
        if (start is not None and session < start) or (end is not None and session > end):
            raise InputError(
                f"tradier gives chains as they stand, of the session {session}, which is not between {start} and {end}",
                remedy="leave out the window, or ask a source that has past chains",
            )
        records: list[dict[str, Any]] = []
        refused: list[RefusedRow] = []
        for one in contracts:
            row = self._quote(one, name, expiry, is_index=quote.get("type") == "index")
            if isinstance(row, Refusal):
                refused.append(row.row(name, one))
            else:
                records.append(row)
        rows = quote_table(
            records,
            source=SOURCE,
            data_kind="real",
            quote_time=moment,
            available_at=moment,
            session=session,
            underlying_price=number(quote.get("last")),
        )
        return Answer(
            source=SOURCE,
            dataset=OPTIONS_DATASET,
            origin=reply.origin,
            request={"underlying": name, "expiry": expiry.isoformat(), "implied_volatility": self._volatility},
            payload=joined([quoted, reply]),
            rows=rows,
            names=(name,),
            refused=tuple(refused),
            notes=self._notes(name, newest, moment, session),
        )

    def _quote(self, one: Any, underlying: str, expiry: date, *, is_index: bool) -> dict[str, Any] | Refusal:
        """One contract of a chain."""
        if not isinstance(one, dict):
            return Refusal("wrong_type", f"a contract that is no object: {one!r}")
        try:
            values = {ours: number(one.get(theirs)) for ours, theirs in _NUMBERS.items()}
            strike, size = number(one.get("strike")), number(one.get("contract_size"))
            greeks = self._greeks(one.get("greeks"))
        except (TypeError, ValueError, AttributeError) as problem:
            return Refusal("wrong_type", f"{one.get('symbol')}: {problem}")
        terms = listed(
            str(one.get("symbol")),
            underlying,
            multiplier=size,
            expiry=expiry,
            strike=strike,
            right=one.get("option_type"),
            is_index=is_index,
        )
        return {**terms.columns(), **values, **greeks} if isinstance(terms, Listed) else terms

    def _greeks(self, given: Any) -> dict[str, Any]:
        """Greeks and implied volatility with their own moment; nothing where Tradier has none."""
        if given in (None, "null"):
            return {}
        volatility = number(given.get(_VOLATILITIES[self._volatility]))
        said = given.get("updated_at")
        return {
            **{name: number(given.get(name)) for name in ("delta", "gamma", "vega", "theta", "rho")},
            "implied_volatility": volatility or None,
            "greeks_time": None if said is None else datetime.fromisoformat(said).replace(tzinfo=UTC),
        }

    def _notes(self, name: str, newest: datetime | None, moment: datetime, session: date) -> tuple[str, ...]:
        if newest is None or moment - newest <= DELAY:
            return ()
        days = pd.DatetimeIndex([pd.Timestamp(session)])
        if not session_opens(days, self._calendar)[0] <= moment <= session_closes(days, self._calendar)[0]:
            return ()
        behind = round((moment - newest).total_seconds() / 60)
        return (f"tradier's quotes of options on {name} were {behind} minutes old when they came: the feed is delayed",)


class TradierEquity(_Tradier):
    """Daily bars. Tradier does not say whether it restates its history after splits, and names none: `basis` is `vendor_adjusted`.

    Parameters
    ----------
    settings : Settings
    clock : Clock, optional
        Tells the moment of an answer instead of the vendor's Date header.
    """

    incremental = True

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        super().__init__(settings, clock)

    def bars(self, symbols: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer a symbol; a session that had not closed a quarter of an hour before Tradier answered is left out.

        Raises
        ------
        ServiceUnavailable, RateLimited, ServiceError
            A question was not answered.
        """
        for name in symbols:
            request = {"symbol": name, "interval": "1d", "start": start, "end": end}
            window = {"start": (start or FIRST_DAY).isoformat(), **({} if end is None else {"end": end.isoformat()})}
            reply, held = self.ask(
                "history", "history", symbol=vendor_symbol(name), interval="daily", session_filter="open", **window
            )
            days = [] if held is None else several(held.get("day"))
            if not days:  # no such symbol, or nothing in the window: the quote tells
                quoted, quote = self.underlying(name)
                if quote is None:
                    yield self.missing(BARS_DATASET, name, f"tradier knows no symbol {name}", [reply, quoted], request)
                    continue
            yield self._answer(name, reply, days, request)

    def _answer(self, name: str, reply: Reply, days: Sequence[Any], request: Mapping[str, Any]) -> Answer:
        moment = self.answered_at(reply)
        good: list[dict[str, Any]] = []
        bad: list[RefusedRow] = []
        for one in days:
            try:
                values = {field: number(one.get(field)) for field in ("open", "high", "low", "close", "volume")}
                good.append({"symbol": name, "session": pd.Timestamp(date.fromisoformat(one["date"])), **values})
            except (AttributeError, KeyError, TypeError, ValueError) as problem:
                raw = one if isinstance(one, dict) else {"day": one}
                bad.append(Refusal("wrong_type", f"{name}: a day that cannot be read ({problem})").row(name, raw))
        frame = pd.DataFrame(good, columns=["symbol", "session", "open", "high", "low", "close", "volume"])
        frame["session"] = pd.to_datetime(frame["session"])
        closes = session_closes(pd.DatetimeIndex(frame["session"]), self._calendar)
        frame = frame[~(closes > pd.Timestamp(moment - SETTLING))]  # a day that is no session stays, and is refused as such
        rows, refused = bar_rows(
            frame,
            source=SOURCE,
            basis="vendor_adjusted",
            currency="USD",
            calendar=self._calendar,
            describe=lambda label: f"tradier's history of {name}, day {int(label) + 1}",
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
            notes=("tradier does not say whether its history is restated after splits; its bars are marked vendor_adjusted",),
        )


def several(value: Any) -> list[Any]:
    """Tradier's way with lists: one result is an object, none is null or the text "null"."""
    if value is None or value == "null":
        return []
    return list(value) if isinstance(value, list) else [value]


def vendor_symbol(name: str) -> str:
    """A share class as Tradier writes it: BRK.B and BRK-B are BRK/B."""
    return name.replace(".", "/").replace("-", "/")


def joined(replies: Sequence[Reply]) -> bytes:
    """The bytes of several answers, in the order asked, a line feed between them."""
    return b"\n".join(reply.body for reply in replies)


def _day(text: Any, reply: Reply) -> date:
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        raise ServiceUnavailable(f"{reply.origin} lists the expiration {text!r}, which is no date") from None


def _stamp(one: Any) -> datetime | None:
    """The newest of a quote's own times (milliseconds; 0: never)."""
    if not isinstance(one, dict):
        return None
    stamps = [value for name in _STAMPS if isinstance(value := one.get(name), int) and value > 0]
    return datetime.fromtimestamp(max(stamps) / 1000, UTC) if stamps else None
