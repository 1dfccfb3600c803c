"""Corporate actions of vendors as rows of `corporate_actions`, known when announced, at the latest when they take effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa

from config.calendar import next_session, session_opens
from flows.sources.shape import table_of

__all__ = ["ACTIONS_DATASET", "Action", "action_table", "added_up"]

ACTIONS_DATASET = "corporate_actions"
NEW_YORK = ZoneInfo("America/New_York")
_LAST_MINUTE = time(23, 59)


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """One action.

    Parameters
    ----------
    kind : str
        split, dividend, rename or delisting.
    value : float, optional
        New shares for one old; cash a share as paid.
    declared : date, optional
        The day on which it was announced, where the vendor says.
    label : str
        The vendor's own word for its type.
    """

    symbol: str
    ex_date: date
    kind: str
    value: float | None = None
    new_symbol: str | None = None
    currency: str | None = None
    declared: date | None = None
    label: str = ""


def action_table(actions: Sequence[Action], *, source: str, calendar: str, answered_at: datetime) -> pa.Table:
    """Rows of `corporate_actions`.

    `available_at` is the end of the day of announcement in New York (vendors do not say the hour); without one the open of the
    ex-date's session, at which the price shows it; and never later than `answered_at`, when it was read.
    """
    columns = {
        "symbol": [one.symbol for one in actions],
        "ex_date": [one.ex_date for one in actions],
        "kind": [one.kind for one in actions],
        "source": source,
        "value": [one.value for one in actions],
        "new_symbol": [one.new_symbol for one in actions],
        "currency": [one.currency for one in actions],
        "available_at": [_known(one, calendar, answered_at) for one in actions],
    }
    return table_of(ACTIONS_DATASET, columns, len(actions))


def added_up(actions: Sequence[Action]) -> list[Action]:
    """Payments of different types on one ex-date as one action.

    Others that share a day stay apart: the table keeps one of equals and refuses what contradicts.
    """
    by_day: dict[tuple[date, str, str | None], list[Action]] = {}
    for one in actions:
        by_day.setdefault((one.ex_date, one.kind, one.currency), []).append(one)
    found: list[Action] = []
    for group in by_day.values():
        if group[0].kind != "dividend" or len({one.label for one in group}) < len(group):
            found.extend(group)
            continue
        known = [one.declared for one in group if one.declared is not None]
        declared = max(known) if len(known) == len(group) else None
        found.append(replace(group[0], value=sum(one.value or 0.0 for one in group), declared=declared))
    return found


def _known(action: Action, calendar: str, answered_at: datetime) -> datetime:
    first = next_session(action.ex_date - pd.Timedelta(days=1), calendar)
    known: datetime = min(session_opens(pd.DatetimeIndex([first]), calendar)[0].to_pydatetime(), answered_at)
    if action.declared is None:
        return known
    return min(known, datetime.combine(action.declared, _LAST_MINUTE, NEW_YORK).astimezone(known.tzinfo))
