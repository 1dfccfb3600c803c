"""Asking the Yahoo source, in tests: a small listing, settings that lead to the fake Yahoo, and what came as frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd

from config.clock import FixedClock
from config.settings import Settings, load_settings
from flows.sources.base import Answer
from flows.sources.yahoo import YahooEquity
from tests.replay import Fault, ReplayServer
from tests.replay.yahoo_service import Listing, YahooService


def bars_of(days: Sequence[str], closes: Sequence[float]) -> pd.DataFrame:
    """Bars that open at the close before and swing by one per cent."""
    close = np.asarray(closes, dtype=float)
    opens = np.concatenate([close[:1], close[:-1]])
    columns = {"open": opens, "high": np.maximum(opens, close) + 1, "low": np.minimum(opens, close) - 1, "close": close}
    return pd.DataFrame({**columns, "volume": 1000.0 * np.arange(1, len(close) + 1)}, index=pd.DatetimeIndex(list(days)))


def settings_for(server: ReplayServer, **more: Any) -> Settings:
    """Yahoo's hosts below the server's address, without waiting between requests."""
    return load_settings(
        {
            "data.addresses": {"yahoo": f"http://127.0.0.1:{server.port}"},
            "data.seconds_between_requests": {"yahoo": 0.0},
            **more,
        }
    )


@contextmanager
def yahoo(
    listings: dict[str, Listing], now: datetime, *, faults: Sequence[Fault] = (), interval: str = "1d", **more: Any
) -> Iterator[tuple[YahooEquity, YahooService, ReplayServer, FixedClock]]:
    """The source, asking a fake Yahoo at that moment."""
    service, clock = YahooService(listings, now), FixedClock(now)
    with ReplayServer(services=[service], faults=faults) as server:
        yield YahooEquity(settings_for(server), interval=interval, clock=clock, **more), service, server, clock


def ask(
    source: YahooEquity, symbol: str, start: date | None = None, end: date | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, list[Answer]]:
    """Bars, actions, answers."""
    answers = list(source.bars([symbol], start, end))
    tables = {answer.dataset: answer.rows.to_pandas() for answer in answers}
    return tables.get("equity_bars", pd.DataFrame()), tables.get("corporate_actions", pd.DataFrame()), answers


SPLIT = Listing(
    bars=bars_of(["2020-08-27", "2020-08-28", "2020-08-31", "2020-09-01"], [500.04, 499.23, 129.04, 134.18]),
    splits={date(2020, 8, 31): (4, 1)},
    dividends={date(2020, 8, 28): 0.82, date(2020, 9, 1): 0.205},
)
AFTER = datetime(2020, 9, 1, 21, tzinfo=UTC)
