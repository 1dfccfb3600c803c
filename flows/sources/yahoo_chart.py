"""What a chart answer of Yahoo says, and what was traded: later splits taken off its prices, volumes and payments.

1. `read_chart` reads bars, events and the exchange out of the answer's bytes (JSON).
2. `splits_not_applied` finds splits that Yahoo lists but has not (or not everywhere) applied to the bars before them.
3. `as_traded` takes a split-adjusted number back to the one that was traded.

Yahoo divides every price and payment before a split by its ratio, and multiplies volumes, whatever is asked for (``auto_adjust``
is about dividends). The numbers are single-precision floats, from about 2015 on of the exact quotient, before that of the quotient
rounded to six decimals; so a traded price is known to within half of Yahoo's last place times the ratio. Of the decimals in that
interval the shortest is taken: 23.056072 before a 28-fold split is 645.57, and no digit is made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from config.errors import ServiceUnavailable

__all__ = ["Chart", "Event", "NotApplied", "as_traded", "factors_after", "read_chart", "splits_not_applied"]

_FIELDS = ("open", "high", "low", "close", "volume")
_MOST_DECIMALS = 10
_AROUND = 10  # sessions before a split within which Yahoo was seen to begin adjusting


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A split (`value`: new shares for one old), a dividend or a capital gain (`value`: cash a share as Yahoo gives it).

    Parameters
    ----------
    day : date
        The ex-date, on the exchange's clock.
    currency : str or None
        Of a payment in another currency than the prices.
    raw : dict
        As it came.
    """

    kind: str
    day: date
    value: float
    currency: str | None
    raw: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart answer.

    Parameters
    ----------
    bars : DataFrame
        Index: position; `timestamp` (seconds as Yahoo gives them), `start` (aware, the exchange's time zone), `session` (naive
        midnight) and open, high, low, close, volume as Yahoo gives them, NaN where it gives null. In Yahoo's order.
    events : tuple of Event
    bad_events : tuple of dict
        Events that could not be read.
    last_trade : Timestamp or None
        The moment of the newest trade that Yahoo knows.
    """

    symbol: str
    exchange: str
    timezone: str
    currency: str | None
    instrument: str
    granularity: str
    last_trade: pd.Timestamp | None
    bars: pd.DataFrame
    events: tuple[Event, ...]
    bad_events: tuple[dict[str, Any], ...]

    def of_kind(self, kind: str) -> list[Event]:
        """The events of one kind, oldest first."""
        return sorted((event for event in self.events if event.kind == kind), key=lambda event: event.day)


@dataclass(frozen=True, kw_only=True, slots=True)
class NotApplied:
    """A split that the bars up to and including session `upto` are not adjusted for."""

    split: Event
    upto: pd.Timestamp
    step: float


def read_chart(document: Any, origin: str) -> Chart:
    """Read a chart answer.

    Parameters
    ----------
    document : object
        The JSON document, without an error in it.
    origin : str
        For the error.

    Raises
    ------
    ServiceUnavailable
        It is no chart: a part is missing, or lists do not fit each other. Asked again, it may be one.
    """
    try:
        result = document["chart"]["result"][0]
        meta = result["meta"]
        zone = str(meta["exchangeTimezoneName"])
        bars = _bars(result, zone)
        traded = meta.get("regularMarketTime")
        events, bad = _events(result.get("events") or {}, zone)
        return Chart(
            symbol=str(meta["symbol"]),
            exchange=str(meta["exchangeName"]),
            timezone=zone,
            currency=meta.get("currency"),
            instrument=str(meta.get("instrumentType", "")),
            granularity=str(meta.get("dataGranularity", "")),
            last_trade=None if traded is None else pd.Timestamp(traded, unit="s", tz="UTC"),
            bars=bars,
            events=events,
            bad_events=bad,
        )
    except (KeyError, IndexError, TypeError, ValueError) as problem:
        raise ServiceUnavailable(
            f"{origin} answered with JSON that is no chart ({type(problem).__name__}: {problem})",
            remedy="run the same command again",
        ) from None


def _bars(result: dict[str, Any], zone: str) -> pd.DataFrame:
    stamps = result.get("timestamp") or []
    quote = (result["indicators"]["quote"] or [{}])[0] or {}
    columns: dict[str, Any] = {"timestamp": np.asarray(stamps, dtype=np.int64)}
    for name in _FIELDS:
        values = quote.get(name)
        if values is not None and len(values) != len(stamps):
            raise ValueError(f"{len(stamps)} time stamps and {len(values)} values of {name}")
        columns[name] = np.full(len(stamps), np.nan) if values is None else np.asarray(values, dtype=np.float64)
    frame = pd.DataFrame(columns)
    start = pd.DatetimeIndex(pd.to_datetime(frame["timestamp"], unit="s", utc=True)).tz_convert(zone)
    frame["start"] = start
    frame["session"] = _session(start, str(result["meta"].get("dataGranularity", "")))
    return frame


def _session(start: pd.DatetimeIndex, granularity: str) -> pd.DatetimeIndex:
    """The day a bar belongs to. Around changes of the clocks Yahoo puts a midnight bar one or two hours too early."""
    if not granularity.endswith(("m", "h")):
        early = (start.hour >= 22) & (start.minute == 0)
        start = start + pd.to_timedelta(np.where(early, 24 - start.hour, 0), unit="h")
    return pd.DatetimeIndex(start.tz_localize(None).normalize())


def _events(events: dict[str, Any], zone: str) -> tuple[tuple[Event, ...], tuple[dict[str, Any], ...]]:
    found: list[Event] = []
    bad: list[dict[str, Any]] = []
    for theirs, kind in (("splits", "split"), ("dividends", "dividend"), ("capitalGains", "capital_gain")):
        for raw in (events.get(theirs) or {}).values():
            try:
                value = float(raw["numerator"]) / float(raw["denominator"]) if kind == "split" else float(raw["amount"])
                day = pd.Timestamp(int(raw["date"]), unit="s", tz="UTC").tz_convert(zone).date()
                if not np.isfinite(value) or value <= 0:
                    raise ValueError(f"{value} is no {kind}")
            except (KeyError, TypeError, ValueError, ZeroDivisionError) as problem:
                bad.append({"kind": kind, "why": f"{type(problem).__name__}: {problem}", **dict(raw)})
                continue
            found.append(Event(kind=kind, day=day, value=value, currency=raw.get("currency") or None, raw=dict(raw)))
    return tuple(found), tuple(bad)


def factors_after(days: pd.DatetimeIndex, splits: Sequence[Event], unapplied: Sequence[NotApplied] = ()) -> NDArray[np.float64]:
    """For each day the product of the ratios of all splits after it that Yahoo has applied to it; shape (n_days,)."""
    factors = np.ones(len(days))
    lacking = {id(one.split): one.upto for one in unapplied}
    for split in splits:
        before = np.asarray(days < pd.Timestamp(split.day))
        if id(split) in lacking:
            before &= np.asarray(days > lacking[id(split)])
        factors[before] *= split.value
    return factors


def as_traded(values: ArrayLike, factor: ArrayLike) -> NDArray[np.float64]:
    """Take split-adjusted numbers back: the shortest decimal that, adjusted and stored as Yahoo does, gives Yahoo's number.

    Parameters
    ----------
    values : array_like of shape (n,)
        As Yahoo gives them: single-precision floats, or decimals. NaN stays NaN.
    factor : array_like of shape (n,)
        By what Yahoo divided; 1 where nothing was split later.

    Returns
    -------
    ndarray of shape (n,)
    """
    given = np.asarray(values, dtype=np.float64)
    by = np.broadcast_to(np.asarray(factor, dtype=np.float64), given.shape)
    with np.errstate(over="ignore"):
        single = given.astype(np.float32)
    is_single = single.astype(np.float64) == given
    half = np.where(is_single, np.abs(np.spacing(single)).astype(np.float64) / 2, np.abs(np.spacing(given)) / 2)
    adjusted = by != 1.0
    six = adjusted & (np.abs(np.round(given, 6) - given) <= half)  # no more than six decimals: rounded before it was stored
    half = np.where(six, half + 0.5e-6, half)
    centre, reach = given * by, half * np.abs(by)
    result = centre.copy()
    open_ = np.isfinite(given)
    for decimals in range(_MOST_DECIMALS + 1):
        rounded = np.round(centre, decimals)
        fits = open_ & (np.abs(rounded - centre) <= reach)
        result[fits] = rounded[fits]
        open_ &= ~fits
    return result


def splits_not_applied(bars: pd.DataFrame, splits: Sequence[Event]) -> list[NotApplied]:
    """Splits that Yahoo lists without having adjusted all bars before them.

    Adjusted closes do not know of a split: around it they are as far apart as on any day. A step of about the split's ratio, at the
    split or within the ten sessions before it, is the split itself, so the bars up to that step are not adjusted. (Yahoo was seen
    to begin one session early.) Ratios between 0.7 and 1.4 cannot be told from a day's move and are believed.

    Parameters
    ----------
    bars : DataFrame
        As `Chart.bars`; closes as Yahoo gives them.
    splits : sequence of Event
    """
    closes = bars.dropna(subset=["close"]).drop_duplicates("session", keep="last").set_index("session")["close"].sort_index()
    found: list[NotApplied] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.log(closes.to_numpy()[:-1] / closes.to_numpy()[1:])  # positive when the price falls
    for split in splits:
        size = np.log(split.value)
        at = int(closes.index.searchsorted(pd.Timestamp(split.day)))  # the first session that trades the new shares
        if abs(size) <= np.log(1.4) or at == 0 or at >= len(closes):
            continue
        low = max(at - 1 - _AROUND, 0)
        near = steps[low:at]
        like = np.flatnonzero(np.abs(near - size) < 0.3 * abs(size))
        if like.size:
            number = low + int(like[-1])
            found.append(NotApplied(split=split, upto=closes.index[number], step=float(np.exp(near[like[-1]]))))
    return found
