"""Option chains out of the user's own files: CSV (plain or gzipped), JSON, Parquet, or a folder of them.

1. `find_files`, `read_table` and `map_columns` (flows.sources.tabular) read each file once and find its columns.
2. `_quoted` says when each row was quoted: by a column, as a moment or as a session; or by `quoted_at`, for a whole file.
3. `_contracts` reads or builds the OCC symbol of each contract, checks it against the other columns, and looks its terms up.

A row that cannot be read, and a contract that has no place in the table, is refused with its line; the rest is not lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from config.calendar import session_closes
from config.errors import DataError, InputError
from config.instruments import OptionContract, format_occ, parse_occ
from config.settings import Settings
from flows.sources.base import Answer
from flows.sources.json_rows import Refusal
from flows.sources.option_rows import INDEX_ROOTS, OPTIONS_DATASET, Listed, listed, session_of
from flows.sources.shape import table_of
from flows.sources.tabular import SourceFile, find_files, load_mapping, map_columns, numbers, read_table, stem, times

__all__ = ["OptionFiles"]

SOURCE = "files"
SHARES = 100.0

# Ours, and what it is usually called in files (lower case, blanks as underscores).
OPTION_COLUMNS: dict[str, tuple[str, ...]] = {
    "time": ("quote_time", "quote_datetime", "quote_date", "quotedate", "session", "date", "datetime", "timestamp"),
    "underlying": ("underlying", "underlying_symbol", "ticker"),
    "occ_symbol": ("occ_symbol", "contractsymbol", "contract_symbol", "option_symbol", "optionsymbol", "optionroot"),
    "expiry": ("expiry", "expiration", "expiration_date"),
    "strike": ("strike", "strike_price"),
    "right": ("right", "option_type", "type", "call_put"),
    "multiplier": ("multiplier", "contract_size", "contractsize"),
    "bid": ("bid",),
    "ask": ("ask",),
    "bid_size": ("bid_size", "bidsize"),
    "ask_size": ("ask_size", "asksize"),
    "last": ("last", "last_price", "lastprice"),
    "volume": ("volume",),
    "open_interest": ("open_interest", "openinterest"),
    "underlying_price": ("underlying_price", "underlying_last", "spot"),
    "implied_volatility": ("implied_volatility", "impliedvolatility", "impliedvol", "iv"),
    "delta": ("delta",),
    "gamma": ("gamma",),
    "vega": ("vega",),
    "theta": ("theta",),
    "rho": ("rho",),
}
_NUMBERS = tuple(OPTION_COLUMNS)[7:]
_SIZES = {"REGULAR": "100", "MINI": "10"}  # in words, as Yahoo writes them


class OptionFiles:
    """Option quotes from files.

    Greeks are kept as they are written: vega and rho a point, theta a calendar day, as the table has them, is for the file to meet.

    Parameters
    ----------
    path : str or Path
        A file, or a folder of files.
    mapping : mapping, or path of a YAML file, optional
        Ours to theirs, where the usual names do not find it: time, underlying, occ_symbol, expiry, strike, right, multiplier, bid,
        ask, bid_size, ask_size, last, volume, open_interest, underlying_price, implied_volatility, delta, gamma, vega, theta, rho.
    underlying : str, optional
        Of the whole file, where no column says it.
    quote_time : str
        When rows that name a day only were quoted: ``close`` (of the session), or a time of day on the exchange, as 15:45.
    quoted_at : str, optional
        For files without a column of times: the moment of the whole file, with its offset, as 2026-06-25T20:00:00Z.
    timezone : str, optional
        Of moments without an offset.
    date_format, expiry_format : str, optional
        For dates not written as 2018-12-31: ``%m/%d/%Y``. Expiries are read as quote dates are, unless said otherwise.
    multiplier : float
        Units of the underlying a contract is on, where no column says it.
    calendar : str, optional
        That of the settings unless said otherwise.
    data_kind : {"real", "modelled"}
    """

    name = SOURCE
    names_per_request: int | None = None
    incremental = False

    def __init__(
        self,
        settings: Settings,
        *,
        path: str | Path,
        mapping: Mapping[str, str] | str | Path | None = None,
        underlying: str | None = None,
        quote_time: str = "close",
        quoted_at: str | None = None,
        timezone: str | None = None,
        date_format: str | None = None,
        expiry_format: str | None = None,
        multiplier: float = SHARES,
        calendar: str | None = None,
        data_kind: Literal["real", "modelled"] = "real",
    ) -> None:
        if data_kind not in ("real", "modelled"):
            raise InputError(f"data_kind {data_kind!r} is neither real nor modelled")
        self._paths = find_files(path)
        self._mapping = load_mapping(mapping, tuple(OPTION_COLUMNS))
        self._underlying, self._timezone = underlying, timezone
        self._time_of_day = None if quote_time == "close" else _time_of_day(quote_time)
        self._quoted_at = None if quoted_at is None else _moment(quoted_at)
        self._date_format, self._expiry_format = date_format, expiry_format or date_format
        self._multiplier = float(multiplier)
        self._calendar = calendar or settings.data.calendar
        self._data_kind = data_kind
        self._read: list[tuple[SourceFile, dict[str, str], pd.Series]] | None = None
        self._stated = {
            "mapping": self._mapping,
            "underlying": underlying,
            "quote_time": quote_time,
            "quoted_at": quoted_at,
            "timezone": timezone,
            "date_format": date_format,
            "expiry_format": expiry_format,
            "multiplier": self._multiplier,
            "calendar": self._calendar,
            "data_kind": data_kind,
        }

    def available(self) -> tuple[str, ...] | None:
        """The underlyings in the files."""
        return tuple(sorted({name for _, _, names in self._tables() for name in names.unique() if name}))

    def quotes(self, underlyings: Sequence[str], start: date | None = None, end: date | None = None) -> Iterator[Answer]:
        """One answer a file that holds any of the underlyings.

        Raises
        ------
        DataError
            A file is not what it should be as a whole.
        InputError
            A file does not say when it was quoted, or not in which time zone.
        """
        for file, columns, names in self._tables():
            wanted = names.isin(underlyings)
            if wanted.any():
                yield self._answer(file, columns, names, wanted, start, end)

    def _tables(self) -> list[tuple[SourceFile, dict[str, str], pd.Series]]:
        """Each file, its columns, and the underlying of each row."""
        if self._read is None:
            self._read = []
            for path in self._paths:
                file = read_table(path)
                columns = map_columns(file, self._mapping, OPTION_COLUMNS, () if self._quoted_at else ("time",))
                if self._quoted_at and "time" in columns:
                    raise InputError(
                        f"{path} says when its rows were quoted (column {columns['time']}); quoted_at contradicts it",
                        remedy="leave out quoted_at",
                    )
                if "occ_symbol" not in columns:
                    map_columns(file, self._mapping, OPTION_COLUMNS, ("expiry", "strike", "right"))  # says which is lacking
                self._read.append((file, columns, self._names(file, columns)))
        return self._read

    def _names(self, file: SourceFile, columns: Mapping[str, str]) -> pd.Series:
        """The underlying of each row; of an index by its own letters, where the file has those of a root (SPXW is on SPX)."""
        if self._underlying is not None:
            return pd.Series(self._underlying, index=file.frame.index, dtype=object)
        if "underlying" in columns:
            names = file.frame[columns["underlying"]].astype(str).str.strip()
        elif "occ_symbol" in columns:
            roots = file.frame[columns["occ_symbol"]].astype(str).str.strip()
            names = roots.map({one: _root(one) or "" for one in roots.unique()})
        else:
            names = pd.Series(stem(file.path), index=file.frame.index, dtype=object)
        own = {one: INDEX_ROOTS[one].underlying if one in INDEX_ROOTS else one for one in names.unique()}
        return names.map(own).astype(object)

    def _answer(
        self, file: SourceFile, columns: dict[str, str], names: pd.Series, wanted: pd.Series, start: date | None, end: date | None
    ) -> Answer:
        file.refused.clear()
        moments, sessions, bad = self._quoted(file, columns)
        keep = wanted & (bad | _between(sessions, start, end))
        keep = _refuse(file, names, keep, bad, "wrong_type", lambda label: _unread(file, columns["time"], label))
        keep = _refuse(
            file,
            names,
            keep,
            moments.isna(),
            "not_a_session",
            lambda label: f"{_said(sessions[label])} is not a session of {self._calendar}",
        )
        values: dict[str, pd.Series] = {}
        for name in _NUMBERS:
            if name in columns:
                values[name], wrong = numbers(file, columns[name], missing=("", "NaN", "nan"))
                keep = _refuse(file, names, keep, wrong, "wrong_type", lambda label, of=columns[name]: _unread(file, of, label))
        contracts, keep = self._contracts(file, columns, names, keep)
        count = int(keep.sum())
        shared = {
            **{name: contracts[name].to_numpy() for name in contracts.columns},
            **{name: values[name].loc[keep].to_numpy(dtype=float) if name in values else None for name in _NUMBERS},
            "quote_time": pd.DatetimeIndex(moments.loc[keep]),
            "available_at": pd.DatetimeIndex(moments.loc[keep]),
            "session": pd.DatetimeIndex(sessions.loc[keep]).date,
            "source": SOURCE,
            "data_kind": self._data_kind,
            "greeks_time": None,
        }
        held = tuple(sorted(names[wanted].unique()))
        return Answer(
            source=SOURCE,
            dataset=OPTIONS_DATASET,
            origin=str(file.path),
            request={"file": file.path.name, **self._stated, "names": list(held), "start": start, "end": end},
            payload=file.payload,
            rows=table_of(OPTIONS_DATASET, shared, count),
            names=held,
            refused=tuple(file.refused),
        )

    def _quoted(self, file: SourceFile, columns: Mapping[str, str]) -> tuple[pd.Series, pd.Series, pd.Series]:
        """The moment and the session (naive midnight) of each row, and which times cannot be read."""
        index = file.frame.index
        if self._quoted_at is not None:
            session = session_of(None, self._quoted_at, self._calendar)
            moments = pd.Series(pd.Timestamp(self._quoted_at), index=index)
            return moments, pd.Series(pd.Timestamp(session), index=index), pd.Series(False, index=index)
        given, bad, daily = times(file, columns["time"], self._date_format)
        if daily:
            days = (given if given.dt.tz is None else given.dt.tz_localize(None)).dt.normalize()
            unique = pd.DatetimeIndex(days.dropna().unique())
            closes = pd.Series(session_closes(unique, self._calendar), index=unique)
            if self._time_of_day is not None:
                at = pd.Timedelta(hours=self._time_of_day.hour, minutes=self._time_of_day.minute)
                fixed = (unique + at).tz_localize(_exchange_zone(self._calendar)).tz_convert("UTC")
                closes = pd.Series(fixed, index=unique).where(closes.notna())
            return pd.Series(days.map(closes), index=index), days, bad
        aware = given if given.dt.tz is not None else self._localized(file, given)
        days = aware.dt.tz_convert(_exchange_zone(self._calendar)).dt.tz_localize(None).dt.normalize()
        unique = pd.DatetimeIndex(days.dropna().unique())
        is_open = pd.Series(session_closes(unique, self._calendar).notna(), index=unique)
        return aware.dt.tz_convert("UTC").where(days.map(is_open).fillna(False).astype(bool)), days, bad

    def _localized(self, file: SourceFile, moments: pd.Series) -> pd.Series:
        if self._timezone is None:
            raise InputError(
                f"{file.path} holds times of day without a time zone ({moments.dropna().iloc[0]})",
                remedy="pass timezone, such as timezone='America/New_York'",
            )
        try:
            localized: pd.Series = moments.dt.tz_localize(self._timezone)
            return localized
        except (KeyError, ValueError) as problem:  # no such zone; or an hour that the clocks' change skipped or doubled
            raise InputError(f"{file.path}: times cannot be read in {self._timezone!r}: {problem}") from problem

    def _contracts(
        self, file: SourceFile, columns: Mapping[str, str], names: pd.Series, keep: pd.Series
    ) -> tuple[pd.DataFrame, pd.Series]:
        """The contract of each row, as the table's columns, and which rows are left."""
        given, keep = self._terms(file, columns, names, keep)
        left = given.loc[keep]
        code = left.groupby(list(left.columns), dropna=False, sort=False).ngroup()
        first = left.loc[~code.duplicated()]
        made = [self._listed(*key) for key in first.itertuples(index=False, name=None)]  # once a contract, not once a row
        refusals = {number: one for number, one in enumerate(made) if isinstance(one, Refusal)}
        wrong = code.isin(list(refusals))
        for label in list(code.index[wrong]):
            refusal = refusals[int(code.loc[label])]
            file.refuse([label], refusal.rule, [refusal.reason], [str(names.loc[label])])
        keep = keep & ~keep.index.isin(wrong.index[wrong])
        columns_of = [one.columns() if isinstance(one, Listed) else {} for one in made]
        every = pd.DataFrame(columns_of, columns=list(Listed.__slots__))
        return every.take(code[~wrong].to_numpy()), keep

    def _terms(
        self, file: SourceFile, columns: Mapping[str, str], names: pd.Series, keep: pd.Series
    ) -> tuple[pd.DataFrame, pd.Series]:
        """What a file says of each contract, as `_listed` takes it; None where it is silent."""
        index = file.frame.index
        silent = pd.Series([None] * len(index), index=index, dtype=object)
        frame = pd.DataFrame({"symbol": silent, "underlying": names, "root": names}, index=index)
        if "occ_symbol" in columns:
            frame["symbol"] = file.frame[columns["occ_symbol"]].astype(str).str.strip()
        if "underlying" in columns:
            frame["root"] = file.frame[columns["underlying"]].astype(str).str.strip()
        frame["expiry"], frame["strike"], frame["right"], frame["multiplier"] = silent, silent, silent, self._multiplier
        if "expiry" in columns:
            days, wrong, _ = times(file, columns["expiry"], self._expiry_format)
            keep = _refuse(file, names, keep, wrong, "wrong_type", lambda label: _unread(file, columns["expiry"], label))
            frame["expiry"] = (days if days.dt.tz is None else days.dt.tz_localize(None)).dt.date
        if "strike" in columns:
            strikes, wrong = numbers(file, columns["strike"])
            keep = _refuse(
                file, names, keep, wrong | strikes.isna(), "wrong_type", lambda label: _unread(file, columns["strike"], label)
            )
            frame["strike"] = strikes
        if "right" in columns:
            rights = file.frame[columns["right"]].astype(str).str.strip().str.upper().str[:1]
            keep = _refuse(
                file, names, keep, ~rights.isin(["C", "P"]), "unknown_right", lambda label: _unread(file, columns["right"], label)
            )
            frame["right"] = rights
        if "multiplier" in columns:
            sized = SourceFile(
                path=file.path, payload=b"", unit=file.unit, frame=file.frame[[columns["multiplier"]]].replace(_SIZES)
            )
            frame["multiplier"], wrong = numbers(sized, columns["multiplier"])
            keep = _refuse(file, names, keep, wrong, "wrong_type", lambda label: _unread(file, columns["multiplier"], label))
        return frame, keep

    def _listed(
        self,
        symbol: str | None,
        underlying: str,
        root: str,
        expiry: date | None,
        strike: float | None,
        right: str | None,
        multiplier: float | None,
    ) -> Listed | Refusal:
        """One contract: read out of its symbol, or its symbol built."""
        if symbol is None:
            if expiry is None or strike is None or right is None:
                raise DataError(f"an option on {underlying} without expiry, strike and right, or its symbol")
            letters = "".join(letter for letter in root.upper() if letter.isalnum())
            try:
                symbol = format_occ(
                    OptionContract(root=letters, expiry=expiry, right="C" if right == "C" else "P", strike=Decimal(str(strike)))
                )
            except InputError as problem:
                return Refusal("bad_strike", problem.message)
        size = None if multiplier is None or np.isnan(multiplier) else multiplier
        return listed(symbol, underlying, multiplier=size, expiry=expiry, strike=strike, right=right)


def _refuse(file: SourceFile, names: pd.Series, keep: pd.Series, wrong: pd.Series, rule: str, reason: Any) -> pd.Series:
    """Set aside those of the rows that are kept which are wrong; which rows are left."""
    labels = list(keep.index[keep & wrong])
    file.refuse(labels, rule, [reason(label) for label in labels], [str(names[label]) for label in labels])
    return keep & ~wrong


def _unread(file: SourceFile, column: str, label: Any) -> str:
    return f"column {column}: {file.frame.loc[label, column]!r} cannot be read"


def _said(day: Any) -> str:
    return f"{pd.Timestamp(day).date()}"


def _between(days: pd.Series, start: date | None, end: date | None) -> pd.Series:
    keep = pd.Series(True, index=days.index)
    if start is not None:
        keep &= days >= pd.Timestamp(start)
    if end is not None:
        keep &= days <= pd.Timestamp(end)
    return keep


def _root(symbol: str) -> str | None:
    try:
        return parse_occ(symbol).root
    except InputError:
        return None


def _exchange_zone(calendar: str) -> Any:
    import exchange_calendars

    return exchange_calendars.get_calendar(calendar).tz


def _time_of_day(text: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise InputError(f"quote_time {text!r} is neither 'close' nor a time of day", remedy="write it as 15:45") from None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"quoted_at {text!r} is no moment", remedy="write it as 2026-06-25T20:00:00Z") from None
    if moment.tzinfo is None:
        raise InputError(f"quoted_at {text!r} has no offset", remedy="write it as 2026-06-25T20:00:00Z")
    return moment.astimezone(ZoneInfo("UTC"))
