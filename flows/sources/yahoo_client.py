"""yfinance, asked politely: one call at a time, through a session that keeps Yahoo's bytes and names failures."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from config.errors import QuantError, ServiceError, ServiceUnavailable
from config.settings import Settings

if TYPE_CHECKING:
    from flows.sources.yahoo_session import DataReply, YahooSession

__all__ = ["Heard", "YahooClient", "misspelt"]

_AGAIN = "run the same command again"
_ISIN = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")
_caches: dict[str, str] = {}  # where yfinance keeps its caches, as last set by us
_ONE_AT_A_TIME = threading.RLock()  # yfinance keeps one session, one crumb and one configuration a process


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What Yahoo answered.

    Parameters
    ----------
    reply : DataReply
    why : str
        Why there are no rows in it; empty: there may be.
    missing : bool
        Yahoo has no such symbol.
    """

    reply: DataReply
    why: str = ""
    missing: bool = False


class YahooClient:
    """yfinance, one call at a time, with a session that keeps Yahoo's bytes.

    yfinance's session, crumb, configuration and caches belong to the process: each call holds a lock, sets them, and puts the
    configuration back. Its small caches (time zones of symbols, a cookie) are kept in ``<home>/cache/yfinance``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: YahooSession | None = None

    def chart(self, symbol: str, interval: str, start: date | None, end: datetime) -> Heard:
        """Ask for a chart from the day before `start` (None: the first day there is) to `end`.

        Raises
        ------
        ServiceUnavailable, RateLimited
            No answer that can be read; asked to wait.
        ServiceError
            Yahoo refuses the question.
        """
        # A moment, not a date: a date would be one in the time zone that yfinance remembers for the symbol.
        first = None if start is None else datetime(start.year, start.month, start.day, tzinfo=UTC) - timedelta(days=1)
        window: dict[str, Any] = {"period": "max", "end": end} if first is None else {"start": first, "end": end}
        with self.asking() as (yfinance, session):
            ticker = yfinance.Ticker(symbol, session=session)

            def ask() -> None:
                ticker.history(interval=interval, auto_adjust=False, actions=True, prepost=False, **window)

            heard = _heard(ask, session, symbol)
            if not heard.why:
                _require_answer_to(heard.reply, {"interval": interval}, "period2")
            return heard

    def chain(self, ticker: Any, expiry: str | None) -> Heard:
        """Ask for the contracts of one expiry (None: the nearest one), inside `asking`; raises as `chart`."""
        heard = _heard(lambda: ticker.option_chain(expiry), ticker.session, ticker.ticker)
        if not heard.why:
            _require_answer_to(heard.reply, {})
        return heard

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
            logger = logging.getLogger("yfinance")
            level = logger.level
            logger.setLevel(logging.CRITICAL)  # it words lost cookies and unknown symbols as warnings and errors of its own
            yfinance.config.debug.hide_exceptions, yfinance.config.network.retries = False, 0
            yfinance.data.YfData.cache_get.cache_clear()  # else a symbol's answer of this morning is this evening's
            self._session.replies.clear()
            try:
                yield yfinance, self._session
            finally:
                logger.setLevel(level)
                yfinance.config.debug.hide_exceptions, yfinance.config.network.retries = before


def _keep_caches_in(yfinance: Any, folder: str) -> None:
    if _caches.get("folder") != folder:
        yfinance.set_tz_cache_location(folder)
        _caches["folder"] = folder


def _heard(ask: Callable[[], object], session: YahooSession, symbol: str) -> Heard:
    """Let yfinance ask; what Yahoo said is in the session."""
    from flows.sources.yahoo_session import Told

    session.replies.clear()
    try:
        ask()
    except Told as told:
        if told.no_such_symbol:
            return Heard(reply=told.reply, why=f"yahoo: {told.description}", missing=True)
        if "Data doesn't exist for startDate" in told.description:
            return Heard(reply=told.reply, why=f"yahoo has no bars in this window ({told.description})")
        raise ServiceError(
            f"yahoo refuses the question about {symbol}: {told}",
            remedy="check the symbol, the interval and how far back the window goes",
        ) from None
    except QuantError:
        raise
    except Exception as problem:
        # yfinance found no bars, or could not frame them. The bytes, if there are any, say what Yahoo said.
        if not session.replies:
            words = f"yfinance failed before Yahoo answered about {symbol} ({type(problem).__name__}: {problem})"
            raise ServiceUnavailable(words, remedy=_AGAIN) from problem
    if not session.replies:
        raise ServiceUnavailable(f"yfinance did not ask Yahoo about {symbol}", remedy=_AGAIN)
    return Heard(reply=session.replies[-1])


def _require_answer_to(reply: DataReply, asked: Mapping[str, str], *names: str) -> None:
    """Make sure that it answers the question itself, and not one of yfinance's own before it."""
    if reply.status in (401, 403):
        raise ServiceUnavailable(
            f"yahoo refuses the crumb it gave itself ({reply.status} from {reply.origin})",
            remedy="wait a minute and run it again; remove the folder cache/yfinance in the home folder if it lasts",
        )
    other = any(reply.params.get(name) != value for name, value in asked.items())
    if other or any(name not in reply.params for name in names):
        raise ServiceUnavailable(f"yfinance stopped before the question itself, after {reply.origin}", remedy=_AGAIN)


def misspelt(symbol: str) -> str | None:
    """Why Yahoo cannot know a symbol that is written so; None where it may."""
    if symbol != symbol.upper():
        return f"yahoo writes its symbols in capitals: {symbol.upper()}"
    if _ISIN.fullmatch(symbol):
        return "this is an ISIN; yahoo's bars are asked for by symbol"
    return None
