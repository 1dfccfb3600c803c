"""Corporate actions out of the user's own files: CSV (plain or gzipped), JSON, Parquet, or a folder of them.

Each action gets the moment it was announced: as the file says, else the open of its ex-date (`_opens`). A row that cannot be read,
or says nothing that can be acted upon, is refused with its line; the rest of the file is not lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from config.calendar import session_opens, sessions
from config.errors import InputError
from config.settings import Settings
from flows.sources.base import Answer
from flows.sources.file_rows import SOURCE, Files, between, end_of_day, naive_days, refuse_cells, refuse_repeats
from flows.sources.shape import ACTIONS_DATASET, table_of
from flows.sources.tabular import SourceFile, numbers, times

__all__ = ["ActionFiles"]

# Ours, and what it is usually called in files (lower case, blanks as underscores).
ACTION_COLUMNS: dict[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker"),
    "ex_date": ("ex_date", "ex-date", "exdate", "date", "effective_date"),
    "kind": ("kind", "type", "action"),
    "value": ("value", "amount", "ratio"),
    "new_symbol": ("new_symbol", "to_symbol"),
    "announced": ("announced", "announced_at", "announcement_date", "declaration_date", "available_at"),
    "currency": ("currency",),
}
ACTION_KINDS = ("split", "dividend", "special_dividend", "capital_gain", "rename", "delisting", "listing")


class ActionFiles(Files):
    """Corporate actions from files.

    `kind` is split (value: new shares for one old), dividend, special_dividend or capital_gain (value: cash a share that trades on
    the ex-date), rename (`new_symbol` holds from the ex-date on), delisting (the ex-date is the first session without a bar; value:
    final cash a share, where known) or listing (the letters are another company's from the ex-date on).

    Parameters
    ----------
    path : str or Path
        A file, or a folder of files.
    mapping : mapping, or path of a YAML file, optional
        Ours to theirs, where the usual names do not find it: symbol, ex_date, kind, value, new_symbol, announced, currency.
    symbol : str, optional
        Of the whole file. Else a column says it, else the file's name does.
    currency : str, optional
        Of amounts, where no column says it.
    calendar : str, optional
        Of the symbols' exchange; that of the settings unless said otherwise. Where the file does not say when an action was
        announced it counts as known from the open of its ex-date's session (the next one, where the ex-date is none): never before
        it was out, and in time for the first price it acts on. An announcement on a date without a time of day is known at that
        day's end in New York.
    date_format : str, optional
        Of ex-dates not written as 2018-12-31.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        path: str | Path,
        mapping: Mapping[str, str] | str | Path | None = None,
        symbol: str | None = None,
        currency: str | None = None,
        calendar: str | None = None,
        date_format: str | None = None,
    ) -> None:
        super().__init__(path, mapping, ACTION_COLUMNS, symbol)
        self._currency, self._calendar = currency, calendar or settings.data.calendar
        self._date_format = date_format

    def available(self) -> tuple[str, ...]:
        """The symbols in the files."""
        return self._listed("symbol", ("ex_date", "kind"))

    def actions(self, symbols: Sequence[str], start: date | None = None, end: date | None = None) -> Iterator[Answer]:
        """One answer a file that holds any of the symbols; ex-dates from `start` to `end`, both included.

        Raises
        ------
        DataError
            A file is not what it should be as a whole.
        """
        for file, columns, names in self._tables("symbol", ("ex_date", "kind")):
            wanted = names.isin(symbols)
            if wanted.any():
                yield self._answer(file, columns, names, wanted, start, end)

    def _answer(
        self, file: SourceFile, columns: dict[str, str], names: pd.Series, wanted: pd.Series, start: date | None, end: date | None
    ) -> Answer:
        file.refused.clear()
        moments, bad_dates, _ = times(file, columns["ex_date"], self._date_format)
        days = naive_days(moments)
        nothing = pd.Series(np.nan, index=names.index), pd.Series(False, index=names.index)
        values, bad_values = numbers(file, columns["value"]) if "value" in columns else nothing
        announced, bad_announced = self._announced(file, columns, days)
        bad = {columns["ex_date"]: bad_dates}
        bad |= {columns[ours]: cells for ours, cells in (("value", bad_values), ("announced", bad_announced)) if ours in columns}
        good = refuse_cells(file, bad, names, wanted & (bad_dates | between(days, start, end)))
        frame = pd.DataFrame({"symbol": names, "ex_date": days, "value": values, "available_at": announced})
        frame["kind"] = file.frame[columns["kind"]].astype(str).str.strip().str.lower().str.replace(r"[ -]", "_", regex=True)
        frame["new_symbol"] = self._text(file, columns, "new_symbol", None)
        frame["currency"] = self._text(file, columns, "currency", self._currency)
        frame = _refuse_actions(file, frame.loc[good])
        frame = refuse_repeats(file, frame, ["symbol", "ex_date", "kind"], ["value", "new_symbol", "currency"])
        rows = table_of(
            ACTIONS_DATASET,
            {
                **{name: frame[name].to_numpy(dtype=object) for name in ("symbol", "kind", "new_symbol", "currency")},
                "ex_date": pd.DatetimeIndex(frame["ex_date"]).date,
                "source": SOURCE,
                "value": frame["value"].to_numpy(dtype=float),
                "available_at": pd.DatetimeIndex(frame["available_at"]),
            },
            len(frame),
        )
        held = tuple(sorted(names[wanted].unique()))
        request = {"file": file.path.name, "mapping": self._mapping, "calendar": self._calendar, "currency": self._currency}
        return Answer(
            source=SOURCE,
            dataset=ACTIONS_DATASET,
            origin=str(file.path),
            request={**request, "date_format": self._date_format, "names": list(held), "start": start, "end": end},
            payload=file.payload,
            rows=rows,
            names=held,
            refused=tuple(file.refused),
        )

    def _announced(self, file: SourceFile, columns: dict[str, str], days: pd.Series) -> tuple[pd.Series, pd.Series]:
        """When each action became known, and which announcements cannot be read."""
        known = _opens(days, self._calendar)
        bad = pd.Series(False, index=days.index)
        if "announced" not in columns:
            return known, bad
        column = columns["announced"]
        said = file.frame[column].notna() & (file.frame[column].astype(str).str.strip() != "")
        if not said.any():
            return known, bad
        moments, unread, daily = times(replace(file, frame=file.frame[said]), column, None)
        if not daily and moments.dt.tz is None:
            raise InputError(f"{file.path}, column {column}: moments need a time zone, as 2018-12-12T13:30:00Z")
        known.loc[said] = end_of_day(naive_days(moments)) if daily else moments
        bad.loc[said] = unread
        return known, bad

    def _text(self, file: SourceFile, columns: dict[str, str], name: str, otherwise: str | None) -> pd.Series:
        if name not in columns:
            return pd.Series([otherwise] * len(file.frame), index=file.frame.index, dtype=object)
        cells = file.frame[columns[name]]
        text = cells.where(cells.notna(), "").astype(str).str.strip().astype(object)
        given: pd.Series = text.where(text != "", otherwise)
        return given


def _opens(days: pd.Series, calendar: str) -> pd.Series:
    """The open of each day's session, or of the next one where the day is none; NaT for no day, or one past the calendar's end."""
    given = pd.DatetimeIndex(days.dropna().unique())
    opens = pd.Series(pd.NaT, index=given, dtype="datetime64[us, UTC]")
    if len(given):
        open_days = sessions(given.min().date(), "2200-01-01", calendar)
        place = open_days.searchsorted(given)
        there = place < len(open_days)
        opens[there] = session_opens(open_days[place[there]], calendar).as_unit("us").to_numpy()
    return pd.Series(pd.DatetimeIndex(opens.reindex(days)), index=days.index)


def _refuse_actions(file: SourceFile, frame: pd.DataFrame) -> pd.DataFrame:
    """Set aside actions that say nothing that can be acted upon; return the others."""
    kind, value = frame["kind"], frame["value"]
    cash = kind.isin(["dividend", "special_dividend", "capital_gain"])
    known = f"known: {', '.join(ACTION_KINDS)}"
    rules: tuple[tuple[str, pd.Series, Callable[[pd.Series], str]], ...] = (
        ("unknown_kind", ~kind.isin(ACTION_KINDS), lambda row: f"the kind {row['kind']!r} is none; {known}"),
        (
            "ratio_not_positive",
            (kind == "split") & ~(value > 0),
            lambda row: f"a split of {row['value']:g}: give new shares for one",
        ),
        ("value_missing", cash & value.isna(), lambda row: f"a {row['kind']} without an amount"),
        ("dividend_negative", value < 0, lambda row: f"a {row['kind']} of {row['value']:g}"),
        ("new_symbol_missing", (kind == "rename") & frame["new_symbol"].isna(), lambda _: "a rename without new letters"),
        ("not_a_session", frame["available_at"].isna(), lambda row: f"{row['ex_date']:%Y-%m-%d} lies beyond the calendar's end"),
    )
    left = pd.Series(True, index=frame.index)
    for rule, breaks, reason in rules:
        labels = list(frame.index[left & breaks])
        file.refuse(
            labels, rule, [reason(frame.loc[label]) for label in labels], [str(frame.loc[label, "symbol"]) for label in labels]
        )
        left &= ~breaks
    return frame[left]
