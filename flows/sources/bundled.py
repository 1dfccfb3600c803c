"""Real prices and macro series that ship inside two installed packages, read as bytes and verified against their hashes.

1. `_read_package_file` finds a file without importing its package (that would take seconds) and verifies its SHA-256.
2. `BundledEquity.bars` reads indices (`_index_frame`) and stocks (`_stock_frame`) and gives each bar its session's close.
3. `BundledMacro.observations` reads the series and gives each value the moment of `PUBLICATION`, never earlier than it was out.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from config.errors import IntegrityError
from config.hashing import sha256_bytes
from config.settings import Settings
from flows.sources.base import Answer
from flows.sources.shape import BARS_DATASET, MACRO_DATASET, bar_rows, table_of

__all__ = [
    "BUNDLED_INDICES",
    "BUNDLED_SERIES",
    "BUNDLED_STOCKS",
    "BUNDLED_SYMBOLS",
    "PUBLICATION",
    "BundledEquity",
    "BundledMacro",
    "Publication",
]

SOURCE = "bundled"
NEW_YORK = "America/New_York"


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageFile:
    """A data file inside an installed package, with the hash it must have."""

    package: str
    version: str
    path: str
    sha256: str

    @property
    def origin(self) -> str:
        """How the file is named to people: package, version and path."""
        return f"{self.package}=={self.version}:{self.path}"


def _arch(name: str, sha256: str) -> PackageFile:
    return PackageFile(package="arch", version="8.0.0", path=f"data/{name}.csv.gz", sha256=sha256)


SP500 = _arch("sp500/sp500", "1e028cbb9c400cc018c816ccc439b33c919387e726c3ed5ca2c05c82746059de")
NASDAQ = _arch("nasdaq/nasdaq", "b2009535343ebb14e0aa11ed086788d2997a416ffe4f9450eed9a561ae30ac59")
VIX = _arch("vix/vix", "410bd07360dc798f7206d681b8347c6150e7fbd8b05fb1ae29bbe2c9985d66ef")
WTI = _arch("wti/wti", "b83498894138a65cdc14a67fc1716aa90b3cfda274f976bd3692cc3f1500084d")
CORE_CPI = _arch("core_cpi/core-cpi", "81fc912d5967ad23f4b3722a10f76867034405354b8f03f3951ebce31e5bd412")
YIELDS = _arch("default/default", "cc5453068cedc7ef4836956358dce1d20eaf1e639b69c3107a7531a8e6bb982d")
STOCKS = PackageFile(
    package="skfolio",
    version="1.12.2",
    path="datasets/data/sp500_dataset.csv.gz",
    sha256="ee21cac28befb1d0a739a9ceb22184f995394726aa0cfde9a21941d1ac04ac0d",
)

_INDEX_FILES = {"SP500": SP500, "NASDAQ": NASDAQ}
BUNDLED_INDICES = tuple(_INDEX_FILES)
# Chosen with hindsight: twenty companies that were still there, and large, at the end of 2022.
BUNDLED_STOCKS: tuple[str, ...] = (
    "AAPL",
    "AMD",
    "BAC",
    "BBY",
    "CVX",
    "GE",
    "HD",
    "JNJ",
    "JPM",
    "KO",
    "LLY",
    "MRK",
    "MSFT",
    "PEP",
    "PFE",
    "PG",
    "RRC",
    "UNH",
    "WMT",
    "XOM",
)
BUNDLED_SYMBOLS = BUNDLED_INDICES + BUNDLED_STOCKS


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """How a bundled macro series is read, and when its values count as published.

    The files hold one vintage each, recorded in January 2019, so the moment of publication is assumed: a rule that is never
    early is worth more than one that is right on average.

    Parameters
    ----------
    released : callable
        From periods (naive midnights) to the assumed release days.
    at : str
        Time of day in New York.
    why : str
        The reasoning, from the publisher's own calendar.
    """

    file: PackageFile
    column: str
    unit: str
    released: Callable[[pd.DatetimeIndex], pd.DatetimeIndex]
    at: str
    why: str


def _same_day(periods: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return periods


def _days_later(days: int) -> Callable[[pd.DatetimeIndex], pd.DatetimeIndex]:
    return lambda periods: periods + pd.Timedelta(days=days)


def _three_days_after_next_month(periods: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(periods + pd.offsets.MonthEnd(0) + pd.offsets.MonthEnd(1) + pd.Timedelta(days=3))


def _day_of_next_month(day: int) -> Callable[[pd.DatetimeIndex], pd.DatetimeIndex]:
    return lambda periods: pd.DatetimeIndex(periods + pd.offsets.MonthEnd(0) + pd.Timedelta(days=day))


_MOODYS_WHY = (
    "Moody's average of the month's daily yields, known to subscribers when the month ends and to the public with the Federal "
    "Reserve's H.15, which until October 2016 came out on Mondays: at the latest on the 7th, or on the 8th after a Monday holiday."
)

PUBLICATION: dict[str, Publication] = {
    "VIXCLS": Publication(
        file=VIX,
        column="vix",
        unit="index",
        released=_same_day,
        at="16:15",
        why="Cboe computes the closing value at 16:15 New York: after the stock market's close, so a decision at that close sees "
        "the day before. On half days it is out at 13:15; 16:15 is kept.",
    ),
    "DCOILWTICO": Publication(
        file=WTI,
        column="DCOILWTICO",
        unit="USD a barrel",
        released=_days_later(9),
        at="18:00",
        why="The Energy Information Administration publishes daily spot prices once a week, on Wednesdays, up to that Monday: a "
        "Tuesday's price waits eight days, nine when a holiday moves the release to Thursday.",
    ),
    "CPILFESL": Publication(
        file=CORE_CPI,
        column="CPILFESL",
        unit="index, 1982-1984 = 100",
        released=_three_days_after_next_month,
        at="08:30",
        why="The Bureau of Labor Statistics releases a month's index at 08:30, mostly between the 10th and the 26th of the next "
        "month; of all releases since 1957 the latest came on 1 February 1996 (December 1995, after a shutdown) and on 3 March "
        "1964. The third day of the month after next is never early. The values are seasonally adjusted as of January 2019, "
        "revised since their first release, and before 1978 calculated backwards.",
    ),
    "AAA": Publication(
        file=YIELDS, column="AAA", unit="per cent a year", released=_day_of_next_month(8), at="18:00", why=_MOODYS_WHY
    ),
    "BAA": Publication(
        file=YIELDS, column="BAA", unit="per cent a year", released=_day_of_next_month(8), at="18:00", why=_MOODYS_WHY
    ),
}
BUNDLED_SERIES = tuple(PUBLICATION)


class BundledEquity:
    """Daily bars: two indices 1999-2018 (as traded, with volume) and twenty stocks 1990-2022 (closes only, vendor-adjusted).

    The stocks' open, high, low and volume are NULL: the file has none, and none is invented.
    """

    name = SOURCE
    names_per_request = None
    incremental = False

    def __init__(self, settings: Settings) -> None:
        self._calendar = settings.data.calendar

    def available(self) -> tuple[str, ...]:
        """The symbols there are."""
        return BUNDLED_SYMBOLS

    def bars(self, symbols: Sequence[str], start: date | None = None, end: date | None = None) -> Iterator[Answer]:
        """One answer a file: each index has its own, the stocks share one.

        Raises
        ------
        IntegrityError
            A file is missing, or is not the one of the pinned version.
        """
        for index in (symbol for symbol in BUNDLED_INDICES if symbol in symbols):
            yield self._answer(_INDEX_FILES[index], (index,), start, end, _index_frame, "as_traded")
        stocks = tuple(symbol for symbol in BUNDLED_STOCKS if symbol in symbols)
        if stocks:
            yield self._answer(STOCKS, stocks, start, end, _stock_frame, "vendor_adjusted")

    def _answer(
        self,
        file: PackageFile,
        symbols: tuple[str, ...],
        start: date | None,
        end: date | None,
        read: Callable[[bytes, tuple[str, ...]], pd.DataFrame],
        basis: str,
    ) -> Answer:
        payload = _read_package_file(file)
        frame = read(payload, symbols)
        frame = frame[_between(pd.DatetimeIndex(frame["session"]), start, end)]
        rows, refused = bar_rows(frame, source=SOURCE, basis=basis, currency="USD", calendar=self._calendar)
        notes = ("closes only, adjusted by the vendor with hindsight; survivors",) if file is STOCKS else ()
        return Answer(
            source=SOURCE,
            dataset=BARS_DATASET,
            origin=file.origin,
            request=_request(file, symbols, start, end),
            payload=payload,
            rows=rows,
            names=symbols,
            refused=refused,
            notes=notes,
        )


class BundledMacro:
    """Five macro series, one vintage each, with the publication moments of `PUBLICATION` (`vintage_kind` assumed)."""

    name = SOURCE
    names_per_request = None
    incremental = False

    def __init__(self, settings: Settings) -> None:
        del settings

    def available(self) -> tuple[str, ...]:
        """The series there are."""
        return BUNDLED_SERIES

    def observations(self, series: Sequence[str], start: date | None = None, end: date | None = None) -> Iterator[Answer]:
        """One answer a series.

        Raises
        ------
        IntegrityError
            A file is missing, or is not the one of the pinned version.
        """
        for name in (known for known in BUNDLED_SERIES if known in series):
            yield _macro_answer(name, PUBLICATION[name], start, end)


def _macro_answer(name: str, publication: Publication, start: date | None, end: date | None) -> Answer:
    payload = _read_package_file(publication.file)
    # A dot, or nothing, is the publisher's own "no value on this day": stored as NULL.
    frame = pd.read_csv(io.BytesIO(payload), compression="gzip", na_values=["."])
    periods = pd.DatetimeIndex(pd.to_datetime(frame["Date"], format="%m/%d/%Y"))
    keep = _between(periods, start, end)
    periods = periods[keep]
    released = publication.released(periods)
    moments = (released + pd.Timedelta(f"{publication.at}:00")).tz_localize(NEW_YORK).tz_convert("UTC")
    rows = table_of(
        MACRO_DATASET,
        {
            "series": name,
            "period": periods.date,
            "vintage": released.date,
            "source": SOURCE,
            "value": frame.loc[keep, publication.column].to_numpy(dtype=float),
            "unit": publication.unit,
            "vintage_kind": "assumed",
            "available_at": moments,
        },
        len(periods),
    )
    return Answer(
        source=SOURCE,
        dataset=MACRO_DATASET,
        origin=publication.file.origin,
        request=_request(publication.file, (name,), start, end),
        payload=payload,
        rows=rows,
        names=(name,),
        notes=(f"{name}: publication assumed, {publication.why}",),
    )


def _request(file: PackageFile, names: tuple[str, ...], start: date | None, end: date | None) -> dict[str, Any]:
    return {"file": file.origin, "names": list(names), "start": start, "end": end}


def _between(days: pd.DatetimeIndex, start: date | None, end: date | None) -> Any:
    keep = np.ones(len(days), dtype=bool)
    if start is not None:
        keep &= np.asarray(days >= pd.Timestamp(start))
    if end is not None:
        keep &= np.asarray(days <= pd.Timestamp(end))
    return keep


def _index_frame(payload: bytes, symbols: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.read_csv(io.BytesIO(payload), compression="gzip")
    frame["session"] = pd.to_datetime(frame.pop("Date"), format="%m/%d/%Y")
    frame["symbol"] = symbols[0]
    # "Adj Close" equals the close on every row: an index has no splits or dividends of its own.
    return frame.drop(columns="Adj Close").rename(columns=str.lower)


def _stock_frame(payload: bytes, symbols: tuple[str, ...]) -> pd.DataFrame:
    wide = pd.read_csv(io.BytesIO(payload), compression="gzip", usecols=["Date", *symbols])
    wide["session"] = pd.to_datetime(wide.pop("Date"), format="%Y-%m-%d")
    return wide.melt(id_vars="session", value_vars=list(symbols), var_name="symbol", value_name="close").dropna(subset="close")


def _read_package_file(file: PackageFile) -> bytes:
    """Return the file's bytes, verified.

    Raises
    ------
    IntegrityError
        The package or the file is missing, or its SHA-256 is another.
    """
    remedy = f"pip install --force-reinstall --no-deps {file.package}=={file.version}"
    found = importlib.util.find_spec(file.package)
    if found is None or found.origin is None:
        raise IntegrityError(f"the bundled data needs the package {file.package}, which is not installed", remedy=remedy)
    path = Path(found.origin).parent / file.path
    try:
        payload = path.read_bytes()
    except OSError as problem:
        raise IntegrityError(f"the bundled file {path} cannot be read: {problem.strerror}", remedy=remedy) from problem
    actual = sha256_bytes(payload)
    if actual != file.sha256:
        raise IntegrityError(
            f"the bundled file {path} has SHA-256 {actual}; that of {file.package} {file.version} is {file.sha256}", remedy=remedy
        )
    return payload
