"""Bars and macro series out of the user's own files: CSV (plain or gzipped), JSON, Parquet, or a folder of them.

1. `find_files` and `read_table` (flows.sources.tabular) read each file once; `map_columns` finds the columns.
2. `EquityFiles` places each row on a session (`_sessions`), and an intraday bar on the moment it was complete (`_complete_at`).
3. `MacroFiles` gives each value the moment it was published: as the file says, else by a lag the user must state.
4. Corporate actions have a file of their own, `flows/sources/action_files.py`; what all share is in `flows/sources/file_rows.py`.

A row that cannot be read is refused with its line, column and value; the rest of the file is not lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from config.errors import InputError
from config.settings import Settings
from flows.sources.action_files import ActionFiles
from flows.sources.base import Answer
from flows.sources.file_rows import (
    NEW_YORK,
    SOURCE,
    Files,
    between,
    end_of_day,
    naive_days,
    numeric,
    refuse_cells,
    refuse_repeats,
)
from flows.sources.shape import BAR_FIELDS, BARS_DATASET, MACRO_DATASET, bar_rows, table_of
from flows.sources.tabular import SourceFile, numbers, times

__all__ = ["ActionFiles", "EquityFiles", "MacroFiles"]

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
MACRO_COLUMNS: dict[str, tuple[str, ...]] = {
    "period": ("period", "date", "observation_date"),
    "series": ("series", "series_id"),
    "value": ("value",),
    "vintage": ("vintage", "realtime_start", "vintage_date"),
    "available_at": ("available_at", "published_at"),
    "unit": ("unit", "units"),
}
_INTERVAL = re.compile(r"^(\d+)(m|h)$")


class EquityFiles(Files):
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
        frame, bad = numeric(file, fields)
        bad[columns["time"]] = bad_times
        sessions = self._sessions(file, columns["time"], moments, daily)
        keep = wanted & (bad_times | between(sessions, start, end))
        good = refuse_cells(file, bad, names, keep)
        frame = frame.assign(symbol=names, session=sessions, currency=self._currencies(file, columns)).loc[good]
        frame["moment"] = moments.loc[good]
        key = ["symbol", "session"] if daily else ["symbol", "moment"]
        frame = refuse_repeats(file, frame, key, list(fields))
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


class MacroFiles(Files):
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
        periods = naive_days(periods)
        values, bad_values = numbers(file, columns["value"], missing=("", ".", "NaN", "nan"))
        published, bad_published, kind = self._published(file, columns, periods)
        bad = {columns["period"]: bad_periods, columns["value"]: bad_values, **bad_published}
        good = refuse_cells(file, bad, names, wanted & (bad_periods | between(periods, start, end)))
        units = file.frame[columns["unit"]].astype(str) if "unit" in columns else pd.Series(self._unit, index=file.frame.index)
        vintages = published.dt.tz_convert(NEW_YORK).dt.tz_localize(None).dt.normalize()
        frame = pd.DataFrame({"series": names, "period": periods, "vintage": vintages, "value": values, "unit": units}).loc[good]
        frame["available_at"] = published.loc[good]
        frame = refuse_repeats(file, frame, ["series", "period", "vintage"], ["value"], name="series")
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
            return end_of_day(periods + pd.Timedelta(days=self._lag)), {}, "assumed"
        column = columns[said[0]]
        moments, bad, _ = times(file, column, None if said[0] == "available_at" else self._date_format)
        if said[0] == "vintage":
            return end_of_day(naive_days(moments)), {column: bad}, "published"
        if moments.dt.tz is None:
            raise InputError(f"{file.path}, column {column}: moments need a time zone, as 2018-12-12T13:30:00Z")
        return moments, {column: bad}, "published"


def _exchange_zone(calendar: str) -> Any:
    import exchange_calendars

    return exchange_calendars.get_calendar(calendar).tz
