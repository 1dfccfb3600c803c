"""From a chart of Yahoo to rows: what is a finished bar, where it belongs, what was traded and paid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from config.calendar import next_session, session_breaks, session_closes, session_opens
from flows.sources.base import RefusedRow
from flows.sources.shape import empty_rows, plain_row, table_of
from flows.sources.yahoo_chart import Chart, Event, NotApplied, as_traded, factors_after

__all__ = ["action_rows", "finished", "known_next_open", "place", "priced", "taken_back", "within", "without_unsure"]

_DELAYED = timedelta(minutes=30)  # quotes of exchanges that Yahoo has with a delay are a quarter of an hour late


def within(days: pd.Series, window: tuple[date | None, date | None]) -> NDArray[np.bool_]:
    """Which days lie in a window, its first and last day included; an end that is None is open."""
    start, end = window
    inside = np.ones(len(days), dtype=bool)
    if start is not None:
        inside &= (days >= pd.Timestamp(start)).to_numpy()
    if end is not None:
        inside &= (days <= pd.Timestamp(end)).to_numpy()
    return inside


def priced(chart: Chart) -> tuple[pd.DataFrame, list[str]]:
    """The bars that have a price; rows of nulls are days without a trade."""
    bare = chart.bars[["open", "high", "low", "close"]].isna().all(axis=1)
    count = int(bare.sum())
    notes = [f"{chart.symbol}: {count} {'row' if count == 1 else 'rows'} without a price left out"] if count else []
    return chart.bars.loc[~bare], notes


def place(
    frame: pd.DataFrame, chart: Chart, calendar: str, length: timedelta | None, symbol: str
) -> tuple[pd.DataFrame, list[RefusedRow]]:
    """One bar a session; an intraday one on its grid, with the moment it is complete."""
    if length is not None:
        return _on_grid(frame, chart, calendar, length, symbol)
    # The live bar may come beside the day's regular one; it is the newer, and the one the web page shows.
    live = chart.last_trade is not None and len(frame) > 1 and bool((frame["start"].iloc[-1:] == chart.last_trade).all())
    if live and frame["session"].iloc[-1] == frame["session"].iloc[-2]:
        frame = frame.drop(index=frame.index[-2])
    twice = frame.duplicated("session", keep=False)
    refused = [
        RefusedRow(
            symbol=symbol,
            rule="duplicate_key",
            reason=f"Yahoo has {int((frame['session'] == row['session']).sum())} daily bars of {row['session'].date()}",
            raw=plain_row(row),
        )
        for _, row in frame.loc[twice].iterrows()
    ]
    return frame.loc[~twice], refused


def _on_grid(
    frame: pd.DataFrame, chart: Chart, calendar: str, length: timedelta, symbol: str
) -> tuple[pd.DataFrame, list[RefusedRow]]:
    """Bars inside the session that start on its grid; before and after it Yahoo sends some unasked."""
    days = pd.DatetimeIndex(frame["session"])
    opens, closes = session_opens(days, calendar), session_closes(days, calendar)
    breaks, resumes = session_breaks(days, calendar)
    start = pd.DatetimeIndex(frame["start"]).tz_convert("UTC")
    inside = np.asarray((start >= opens) & (start < closes))
    base = pd.DatetimeIndex(np.where(np.asarray(start >= resumes), resumes, opens), tz="UTC")
    ends = pd.DatetimeIndex(np.where(np.asarray(start < breaks), breaks, closes), tz="UTC")
    on_grid = np.asarray((start - base) % length == pd.Timedelta(0))
    complete = pd.DatetimeIndex(np.minimum((start + length).as_unit("ns").asi8, ends.as_unit("ns").asi8), tz="UTC")
    placed = frame.assign(complete_at=pd.Series(complete, index=frame.index))
    unfinished = np.zeros(len(frame), dtype=bool)
    if chart.last_trade is not None and len(frame):
        unfinished[-1] = (
            start[-1] >= chart.last_trade.floor("min") and not on_grid[-1]
        )  # the live bar carries the last trade's time
    refused = [
        RefusedRow(
            symbol=symbol,
            rule="off_the_grid",
            reason=f"a bar of {length} cannot start at {row['start']} in a session that opens at {opening}",
            raw=plain_row(row),
        )
        for (_, row), opening in zip(
            frame.loc[inside & ~on_grid & ~unfinished].iterrows(), opens[inside & ~on_grid & ~unfinished], strict=True
        )
    ]
    no_session = np.asarray(opens.isna())
    return placed.loc[(inside & on_grid) | no_session], refused


def finished(frame: pd.DataFrame, chart: Chart, calendar: str, length: timedelta | None, now: datetime) -> tuple[pd.DataFrame, int]:
    """Without what is no bar yet: its session (the bar's own end) has not come, or Yahoo, which is late, has not seen it."""
    ends = (
        session_closes(pd.DatetimeIndex(frame["session"]), calendar) if length is None else pd.DatetimeIndex(frame["complete_at"])
    )
    moment = pd.Timestamp(now)
    ended = np.asarray(ends <= moment)
    last = frame["session"].max() if len(frame) else None
    unseen = np.asarray(ends > moment - _DELAYED) & np.asarray(frame["session"] == last)
    if chart.last_trade is not None:
        unseen &= np.asarray(ends > chart.last_trade)
    live = ~(ended & ~unseen) & np.asarray(ends.notna())
    return frame.loc[~live], int(live.sum())


def without_unsure(
    frame: pd.DataFrame, chart: Chart, splits: Sequence[Event], unapplied: Sequence[NotApplied], symbol: str
) -> tuple[pd.DataFrame, list[RefusedRow]]:
    """Without the bars of which nobody can say by how many splits they are adjusted."""
    unsure: dict[Any, tuple[str, str]] = {}
    for one in unapplied:
        reason = (
            f"Yahoo lists a split of {one.split.value:g} on {one.split.day}, but its close of {one.upto.date()} is "
            f"{one.step:.4g} times the next one: up to then its prices are not adjusted for the split"
        )
        unsure |= dict.fromkeys(frame.index[frame["session"] <= one.upto], ("split_not_applied", reason))
    seen = chart.bars.loc[chart.bars["close"].notna(), "session"].max()
    for split in splits:
        if pd.notna(seen) and pd.Timestamp(split.day) > seen:
            reason = (
                f"Yahoo lists a split of {split.value:g} on {split.day} and has no bar since: whether it is applied cannot be seen"
            )
            unsure |= dict.fromkeys(frame.index, ("split_not_verified", reason))
    refused = [
        RefusedRow(symbol=symbol, rule=rule, reason=reason, raw=plain_row(frame.loc[label]))
        for label, (rule, reason) in unsure.items()
    ]
    return frame.drop(index=list(unsure)), refused


def taken_back(frame: pd.DataFrame, factors: NDArray[np.float64], symbol: str) -> pd.DataFrame:
    """Prices and volumes as traded; shares are whole where a split changed their number."""
    volume = frame["volume"].to_numpy()
    return pd.DataFrame(
        {
            "symbol": symbol,
            "session": frame["session"],
            **{name: as_traded(frame[name].to_numpy(), factors) for name in ("open", "high", "low", "close")},
            "volume": np.where(factors == 1.0, volume, np.rint(volume / factors)),
            "timestamp": frame["timestamp"],
        },
        index=frame.index,
    )


def known_next_open(rows: Any, calendar: str) -> Any:
    """A fund's value is computed after the close: the next session's open is the first moment it surely was known."""
    days = pd.DatetimeIndex([next_session(day, calendar) for day in rows["session"].to_pylist()])
    at = rows.schema.get_field_index("available_at")
    moments = session_opens(days, calendar).tz_convert(None).as_unit("us").to_numpy()
    return rows.set_column(at, rows.schema.field(at), pa.array(moments, type=rows.schema.field(at).type))


def action_rows(events: Sequence[Event], splits: Sequence[Event], symbol: str, calendar: str, currency: str | None) -> Any:
    """One row a day and kind. Two payments of a kind on one day are one row, splits too."""
    if not events:
        return empty_rows("corporate_actions")
    days = pd.DatetimeIndex([pd.Timestamp(event.day) for event in events])
    factors = np.where([event.kind == "split" for event in events], 1.0, factors_after(days, splits))
    paid = as_traded([event.value for event in events], factors)
    frame = pd.DataFrame(
        {
            "day": days,
            "kind": [event.kind for event in events],
            "value": paid,
            "currency": [None if event.kind == "split" else event.currency or currency for event in events],
        }
    )
    groups = frame.groupby(["day", "kind"], sort=True)
    merged = groups.agg(total=("value", "sum"), ratio=("value", "prod"), currency=("currency", "first")).reset_index()
    is_split = (merged["kind"] == "split").to_numpy()
    ex_days = pd.DatetimeIndex(merged["day"])
    columns: dict[str, Any] = {
        "symbol": symbol,
        "ex_date": ex_days.date,
        "kind": merged["kind"].to_numpy(dtype=object),
        "source": "yahoo",
        "value": np.where(is_split, merged["ratio"], merged["total"]),
        "new_symbol": None,
        "currency": [None if split else value for split, value in zip(is_split, merged["currency"], strict=True)],
        "available_at": _opens_from(ex_days, calendar),
    }
    return table_of("corporate_actions", columns, len(merged))


def _opens_from(days: pd.DatetimeIndex, calendar: str) -> pd.DatetimeIndex:
    """The open of the first session on or after each day."""
    first = pd.DatetimeIndex([next_session(day - pd.Timedelta(days=1), calendar) for day in days])
    return session_opens(first, calendar)
