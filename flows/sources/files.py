"""Bars, corporate actions and macro series out of the user's own files: CSV (plain or gzipped), JSON, Parquet, or a folder of them.

1. `find_files` and `read_table` (flows.sources.tabular) read each file once; `map_columns` finds the columns.
2. `EquityFiles` places each row on a session or a moment (`_place_daily`, `_place_intraday`).
3. `ActionFiles` gives each action the moment it was announced: as the file says, else the open of its ex-date.
4. `MacroFiles` gives each value the moment it was published: as the file says, else by a lag the user must state.

A row that cannot be read is refused with its line, column and value; the rest of the file is not lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from config.calendar import session_opens, sessions
from config.errors import InputError
from config.settings import Settings
from flows.sources.base import Answer
from flows.sources.shape import ACTIONS_DATASET, BAR_FIELDS, BARS_DATASET, MACRO_DATASET, bar_rows, table_of
from flows.sources.tabular import SourceFile, find_files, load_mapping, map_columns, numbers, read_table, stem, times

__all__ = ["ActionFiles", "EquityFiles", "MacroFiles"]

SOURCE = "files"
NEW_YORK = "America/New_York"

# Ours, and what it is usually called in files (lower case, blanks as underscores). An adjusted close is never taken for a close.
BAR_COLUMNS: dict[str, tuple[str, ...]] = {
    "time": ("session", "date", "datetime", "timestamp", "time"),
    "symbol": ("symbol", "ticker"),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c", "close/last", "price"),
    "volume": ("volume", "vol", "v"),
    "currency": ("currency",),
}
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
MACRO_COLUMNS: dict[str, tuple[str, ...]] = {
    "period": ("period", "date", "observation_date"),
    "series": ("series", "series_id"),
    "value": ("value",),
    "vintage": ("vintage", "realtime_start", "vintage_date"),
    "available_at": ("available_at", "published_at"),
    "unit": ("unit", "units"),
}
_INTERVAL = re.compile(r"^(\d+)(m|h)$")


class _Files:
    """What both kinds have in common: files, read once."""

    name = SOURCE
    names_per_request = None
    incremental = False

    def __init__(
        self,
        path: str | Path,
        mapping: Mapping[str, str] | str | Path | None,
        columns: dict[str, tuple[str, ...]],
        only: str | None,
        unnamed: str | None = None,
    ) -> None:
        self._paths = find_files(path)
        self._unnamed = unnamed if len(self._paths) == 1 else None
        self._columns = columns
        self._mapping = load_mapping(mapping, tuple(columns))
        self._only = only
        self._read: list[tuple[SourceFile, dict[str, str], pd.Series]] | None = None
        if only is not None and len(self._paths) > 1:
            raise InputError(
                f"{path} holds {len(self._paths)} files, which cannot all be {only!r}",
                remedy="name files after their symbols, or give them a column that says so",
            )

    def _tables(self, name_column: str, required: Sequence[str]) -> list[tuple[SourceFile, dict[str, str], pd.Series]]:
        """Each file, its columns, and the name (symbol or series) of each row."""
        if self._read is None:
            read: list[tuple[SourceFile, dict[str, str], pd.Series]] = []  # all of them, or none: a failure is met again
            for path in self._paths:
                file = read_table(path)
                columns = map_columns(file, self._mapping, self._columns, required)
                if name_column in columns and self._only is None:
                    names = file.frame[columns[name_column]].astype(str).str.strip()
                else:
                    names = pd.Series(self._only or self._unnamed or stem(path), index=file.frame.index, dtype=object)
                read.append((file, columns, names))
            self._read = read
        return self._read

    def _listed(self, name_column: str, required: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted({name for _, _, names in self._tables(name_column, required) for name in names.unique() if name}))


class EquityFiles(_Files):
    """Bars from files.

    Parameters
    ----------
    path : str or Path
        A file, or a folder of files.
    mapping : mapping, or path of a YAML file, optional
        Ours to theirs, where the usual names do not find it: time, symbol, open, high, low, close, volume, currency.
    symbol : str, optional
        Of the whole file. Else a column says it, else the file's name does.
    unnamed : str, optional
        Of a single file that has no column of symbols, instead of the file's name.
    basis : {"as_traded", "vendor_adjusted"}
        Whether prices were adjusted for splits or dividends by whoever made the file.
    currency, calendar : str
        The calendar is that of the settings unless said otherwise.
    interval : str, optional
        ``1d``, or ``5m``, ``1h``; needed for intraday bars.
    timezone : str, optional
        Of times without an offset; needed for intraday bars that have none. Dates without a time of day are sessions.
    bar_time : {"start", "end"}
        What an intraday bar's time means. A bar is known when it is complete.
    date_format : str, optional
        For dates not written as 2018-12-31: ``%m/%d/%Y``, ``epoch_s``, ``epoch_ms``.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        path: str | Path,
        mapping: Mapping[str, str] | str | Path | None = None,
        symbol: str | None = None,
        unnamed: str | None = None,
        basis: Literal["as_traded", "vendor_adjusted"] = "as_traded",
        currency: str = "USD",
        calendar: str | None = None,
        interval: str | None = None,
        timezone: str | None = None,
        bar_time: Literal["start", "end"] = "start",
        date_format: str | None = None,
    ) -> None:
        if basis not in ("as_traded", "vendor_adjusted"):
            raise InputError(f"basis {basis!r} is neither as_traded nor vendor_adjusted")
        if bar_time not in ("start", "end"):
            raise InputError(f"bar_time {bar_time!r} is neither start nor end")
        if interval is not None and interval != "1d" and not _INTERVAL.match(interval):
            raise InputError(f"interval {interval!r} is not one", remedy="write it as 1d, 1h or 5m")
        super().__init__(path, mapping, BAR_COLUMNS, symbol, unnamed)
        self._basis, self._currency, self._bar_time = basis, currency, bar_time
        self._calendar = calendar or settings.data.calendar
        self._interval, self._timezone, self._date_format = interval, timezone, date_format

    def available(self) -> tuple[str, ...]:
        """The symbols in the files."""
        return self._listed("symbol", ("time", "close"))

    def bars(self, symbols: Sequence[str], start: date | None = None, end: date | None = None) -> Iterator[Answer]:
        """One answer a file that holds any of the symbols.

        Raises
        ------
        DataError
            A file is not what it should be as a whole.
        InputError
            An intraday file needs a time zone or an interval.
        """
        for file, columns, names in self._tables("symbol", ("time", "close")):
            wanted = names.isin(symbols)
            if wanted.any():
                yield self._answer(file, columns, names, wanted, start, end)

    def _answer(
        self, file: SourceFile, columns: dict[str, str], names: pd.Series, wanted: pd.Series, start: date | None, end: date | None
    ) -> Answer:
        file.refused.clear()
        moments, bad_times, daily = times(file, columns["time"], self._date_format)
        daily = self._interval == "1d" or (self._interval is None and daily)
        fields = {name: columns[name] for name in BAR_FIELDS if name in columns}
        frame, bad = _numeric(file, fields)
        bad[columns["time"]] = bad_times
        sessions = self._sessions(file, columns["time"], moments, daily)
        keep = wanted & (bad_times | _between(sessions, start, end))
        good = _refuse_cells(file, bad, names, keep)
        frame = frame.assign(symbol=names, session=sessions, currency=self._currencies(file, columns)).loc[good]
        frame["moment"] = moments.loc[good]
        key = ["symbol", "session"] if daily else ["symbol", "moment"]
        frame = _refuse_repeats(file, frame, key, list(fields))
        rows, refused = bar_rows(
            frame,
            source=SOURCE,
            basis=self._basis,
            currency=frame["currency"],
            calendar=self._calendar,
            describe=file.place,
            interval=self._interval or "1d",
            complete_at=None if daily else self._complete_at(file, frame["moment"]),
        )
        return Answer(
            source=SOURCE,
            dataset=BARS_DATASET,
            origin=str(file.path),
            request={**self._request(file), "names": sorted(names[wanted].unique()), "start": start, "end": end},
            payload=file.payload,
            rows=rows,
            names=tuple(sorted(names[wanted].unique())),
            refused=(*file.refused, *refused),
        )

    def _request(self, file: SourceFile) -> dict[str, Any]:
        return {
            "file": file.path.name,
            "mapping": self._mapping,
            "basis": self._basis,
            "currency": self._currency,
            "calendar": self._calendar,
            "interval": self._interval,
            "timezone": self._timezone,
            "bar_time": self._bar_time,
            "date_format": self._date_format,
        }

    def _currencies(self, file: SourceFile, columns: dict[str, str]) -> pd.Series:
        if "currency" not in columns:
            return pd.Series(self._currency, index=file.frame.index, dtype=object)
        currencies: pd.Series = file.frame[columns["currency"]].replace("", self._currency).astype(str)
        return currencies

    def _sessions(self, file: SourceFile, column: str, moments: pd.Series, daily: bool) -> pd.Series:
        """The date of each row on its exchange: as written for dates, in the exchange's time zone for moments."""
        if daily and moments.dt.tz is None:
            written: pd.Series = moments.dt.normalize()
            return written
        if daily and not isinstance(file.frame[column].dtype, pd.DatetimeTZDtype):
            # "2019-11-26 00:00:00+08:00" means that day there, whatever it is in New York.
            return pd.to_datetime(file.frame[column].astype(str).str.strip().str[:10], format="%Y-%m-%d", errors="coerce")
        zone = getattr(file.frame[column].dtype, "tz", None) if daily else _exchange_zone(self._calendar)
        days: pd.Series = self._aware(file, moments).dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()
        return days

    def _aware(self, file: SourceFile, moments: pd.Series) -> pd.Series:
        if moments.dt.tz is not None:
            return moments
        if self._timezone is None:
            raise InputError(
                f"{file.path} holds times of day without a time zone ({moments.dropna().iloc[0]})",
                remedy="pass timezone, such as timezone='America/New_York'",
            )
        try:
            localized: pd.Series = moments.dt.tz_localize(self._timezone).dt.tz_convert("UTC")
            return localized
        except (KeyError, ValueError) as problem:  # no such zone; or an hour that the clocks' change skipped or doubled
            raise InputError(f"{file.path}: times cannot be read in {self._timezone!r}: {problem}") from problem

    def _complete_at(self, file: SourceFile, moments: pd.Series) -> pd.Series:
        parts = _INTERVAL.match(self._interval or "")
        if parts is None:
            raise InputError(
                f"{file.path} holds intraday times, and the length of a bar is not known",
                remedy="pass interval, such as interval='5m'; or interval='1d' where the time of day means nothing",
            )
        length = pd.Timedelta(minutes=int(parts[1]) * (60 if parts[2] == "h" else 1))
        aware = self._aware(file, moments)
        return aware + length if self._bar_time == "start" else aware


class ActionFiles(_Files):
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
        days = _naive_days(moments)
        nothing = pd.Series(np.nan, index=names.index), pd.Series(False, index=names.index)
        values, bad_values = numbers(file, columns["value"]) if "value" in columns else nothing
        announced, bad_announced = self._announced(file, columns, days)
        bad = {columns["ex_date"]: bad_dates}
        bad |= {columns[ours]: cells for ours, cells in (("value", bad_values), ("announced", bad_announced)) if ours in columns}
        good = _refuse_cells(file, bad, names, wanted & (bad_dates | _between(days, start, end)))
        frame = pd.DataFrame({"symbol": names, "ex_date": days, "value": values, "available_at": announced})
        frame["kind"] = file.frame[columns["kind"]].astype(str).str.strip().str.lower().str.replace(r"[ -]", "_", regex=True)
        frame["new_symbol"] = self._text(file, columns, "new_symbol", None)
        frame["currency"] = self._text(file, columns, "currency", self._currency)
        frame = _refuse_actions(file, frame.loc[good])
        frame = _refuse_repeats(file, frame, ["symbol", "ex_date", "kind"], ["value", "new_symbol", "currency"])
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
        known.loc[said] = _end_of_day(_naive_days(moments)) if daily else moments
        bad.loc[said] = unread
        return known, bad

    def _text(self, file: SourceFile, columns: dict[str, str], name: str, otherwise: str | None) -> pd.Series:
        if name not in columns:
            return pd.Series([otherwise] * len(file.frame), index=file.frame.index, dtype=object)
        cells = file.frame[columns[name]]
        text = cells.where(cells.notna(), "").astype(str).str.strip().astype(object)
        given: pd.Series = text.where(text != "", otherwise)
        return given


class MacroFiles(_Files):
    """Macro series from files.

    Parameters
    ----------
    path : str or Path
    mapping : mapping, or path of a YAML file, optional
        Ours to theirs: period, series, value, vintage, available_at, unit.
    series : str, optional
        Of the whole file. Else a column says it, else the file's name does.
    publication_lag_days : int, optional
        Needed where the file says neither a vintage nor a moment of publication: calendar days from the period's date, as
        written, to the day at whose end (New York) the value counts as known. A month's first day plus 45, for example.
    unit : str
        Where no column says it.
    date_format : str, optional
        Of periods and vintages not written as 2018-12-31.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        path: str | Path,
        mapping: Mapping[str, str] | str | Path | None = None,
        series: str | None = None,
        publication_lag_days: int | None = None,
        unit: str = "not stated",
        date_format: str | None = None,
    ) -> None:
        del settings
        if publication_lag_days is not None and publication_lag_days < 0:
            raise InputError(f"publication_lag_days is {publication_lag_days}: nothing is published before it happens")
        super().__init__(path, mapping, MACRO_COLUMNS, series)
        self._lag, self._unit, self._date_format = publication_lag_days, unit, date_format

    def available(self) -> tuple[str, ...]:
        """The series in the files."""
        return self._listed("series", ("period", "value"))

    def observations(self, series: Sequence[str], start: date | None = None, end: date | None = None) -> Iterator[Answer]:
        """One answer a file that holds any of the series.

        Raises
        ------
        DataError
            A file is not what it should be as a whole.
        InputError
            A file says neither vintages nor publication, and no lag is stated.
        """
        for file, columns, names in self._tables("series", ("period", "value")):
            wanted = names.isin(series)
            if wanted.any():
                yield self._answer(file, columns, names, wanted, start, end)

    def _answer(
        self, file: SourceFile, columns: dict[str, str], names: pd.Series, wanted: pd.Series, start: date | None, end: date | None
    ) -> Answer:
        file.refused.clear()
        periods, bad_periods, _ = times(file, columns["period"], self._date_format)
        periods = _naive_days(periods)
        values, bad_values = numbers(file, columns["value"], missing=("", ".", "NaN", "nan"))
        published, bad_published, kind = self._published(file, columns, periods)
        bad = {columns["period"]: bad_periods, columns["value"]: bad_values, **bad_published}
        good = _refuse_cells(file, bad, names, wanted & (bad_periods | _between(periods, start, end)))
        units = file.frame[columns["unit"]].astype(str) if "unit" in columns else pd.Series(self._unit, index=file.frame.index)
        vintages = published.dt.tz_convert(NEW_YORK).dt.tz_localize(None).dt.normalize()
        frame = pd.DataFrame({"series": names, "period": periods, "vintage": vintages, "value": values, "unit": units}).loc[good]
        frame["available_at"] = published.loc[good]
        frame = _refuse_repeats(file, frame, ["series", "period", "vintage"], ["value"], name="series")
        rows = table_of(
            MACRO_DATASET,
            {
                "series": frame["series"].to_numpy(dtype=object),
                "period": pd.DatetimeIndex(frame["period"]).date,
                "vintage": pd.DatetimeIndex(frame["vintage"]).date,
                "source": SOURCE,
                "value": frame["value"].to_numpy(dtype=float),
                "unit": frame["unit"].to_numpy(dtype=object),
                "vintage_kind": kind,
                "available_at": pd.DatetimeIndex(frame["available_at"]),
            },
            len(frame),
        )
        request = {"file": file.path.name, "mapping": self._mapping, "lag_days": self._lag, "unit": self._unit}
        held = tuple(sorted(names[wanted].unique()))
        return Answer(
            source=SOURCE,
            dataset=MACRO_DATASET,
            origin=str(file.path),
            request={**request, "date_format": self._date_format, "names": list(held), "start": start, "end": end},
            payload=file.payload,
            rows=rows,
            names=held,
            refused=tuple(file.refused),
        )

    def _published(
        self, file: SourceFile, columns: dict[str, str], periods: pd.Series
    ) -> tuple[pd.Series, dict[str, pd.Series], Literal["published", "assumed"]]:
        """When each value became known: as the file says; or at the end of its vintage's day; or after the stated lag."""
        said = [name for name in ("available_at", "vintage") if name in columns]
        if said and self._lag is not None:
            raise InputError(
                f"{file.path} says when values were published (column {columns[said[0]]}); publication_lag_days contradicts it",
                remedy="leave out publication_lag_days",
            )
        if not said:
            if self._lag is None:
                raise InputError(
                    f"{file.path} says neither a vintage nor when its values were published",
                    remedy="state publication_lag_days, so that no backtest sees a value before it was out",
                )
            return _end_of_day(periods + pd.Timedelta(days=self._lag)), {}, "assumed"
        column = columns[said[0]]
        moments, bad, _ = times(file, column, None if said[0] == "available_at" else self._date_format)
        if said[0] == "vintage":
            return _end_of_day(_naive_days(moments)), {column: bad}, "published"
        if moments.dt.tz is None:
            raise InputError(f"{file.path}, column {column}: moments need a time zone, as 2018-12-12T13:30:00Z")
        return moments, {column: bad}, "published"


def _naive_days(moments: pd.Series) -> pd.Series:
    days: pd.Series = (moments if moments.dt.tz is None else moments.dt.tz_localize(None)).dt.normalize()
    return days


def _end_of_day(days: pd.Series) -> pd.Series:
    """The last minute of each day in New York: a publication whose hour is not known is never taken for earlier."""
    ends: pd.Series = (days + pd.Timedelta(hours=23, minutes=59)).dt.tz_localize(NEW_YORK).dt.tz_convert("UTC")
    return ends


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


def _exchange_zone(calendar: str) -> Any:
    import exchange_calendars

    return exchange_calendars.get_calendar(calendar).tz


def _between(days: pd.Series, start: date | None, end: date | None) -> pd.Series:
    keep = pd.Series(True, index=days.index)
    if start is not None:
        keep &= days >= pd.Timestamp(start)
    if end is not None:
        keep &= days <= pd.Timestamp(end)
    return keep


def _numeric(file: SourceFile, fields: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    read = {name: numbers(file, column) for name, column in fields.items()}
    frame = pd.DataFrame({name: values for name, (values, _) in read.items()}, index=file.frame.index)
    return frame, {fields[name]: bad for name, (_, bad) in read.items()}


def _refuse_cells(file: SourceFile, bad: Mapping[str, pd.Series], names: pd.Series, keep: pd.Series) -> pd.Series:
    """Set aside the rows with a cell that cannot be read, the first such cell named; return which rows are left."""
    left = keep.copy()
    for column, cells in bad.items():
        wrong = left & cells
        labels = list(wrong.index[wrong])
        reasons = [f"column {column}: {file.frame.loc[label, column]!r} cannot be read" for label in labels]
        file.refuse(labels, "wrong_type", reasons, [str(names[label]) for label in labels])
        left &= ~cells
    return left


def _refuse_repeats(
    file: SourceFile, frame: pd.DataFrame, key: list[str], values: list[str], *, name: str = "symbol"
) -> pd.DataFrame:
    """Set aside rows that repeat a key: equal ones but the first; different ones all, since nobody can say which is right."""
    alike = frame.duplicated(key, keep=False)
    if not alike.any():
        return frame
    again = frame.duplicated([*key, *values], keep="first")
    conflict = alike & ~frame.duplicated([*key, *values], keep=False)
    groups = frame[alike].groupby(key, sort=False).groups
    place = {label: [other for other in labels if other != label] for labels in groups.values() for label in labels}
    in_conflict = {label for labels in groups.values() if any(conflict[one] for one in labels) for label in labels}
    for label in frame.index[alike]:
        if label in in_conflict:
            rule, reason = "key_in_conflict", f"the same {' and '.join(key)} as {file.unit} {place[label][0]}, with other values"
        elif again[label]:
            rule, reason = "row_repeated", f"repeats {file.unit} {place[label][0]}"
        else:
            continue
        file.refuse([label], rule, [reason], [str(frame.loc[label, name])])
    return frame[~(again | frame.index.isin(list(in_conflict)))]
