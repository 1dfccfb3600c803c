"""Finds series of FRED by words, and says what a series is: fredapi's part, asked through our own careful HTTP client.

fredapi builds the questions and reads the answers; how it fetches them is replaced (`_fetching`), since it has no time-out, makes a
plain ValueError of a 429 with the key in its traceback, and changes Python's global URL opener where a proxy is set.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass
from typing import Any

from config.errors import InputError, ServiceError, ServiceUnavailable, UnknownNameError
from config.settings import Settings
from flows.sources.fred import ADDRESS, SOURCE
from flows.sources.http import VendorClient, require_key

__all__ = ["FoundSeries", "describe_series", "find_series"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundSeries:
    """What FRED says a series is, today.

    Parameters
    ----------
    series : str
        Its id, as `quant ingest macro --series` takes it.
    title, frequency, units, seasonal_adjustment : str
    first, last : str
        Oldest and newest period with a value.
    last_updated : str
        As FRED writes it.
    popularity : int
        0 to 100, by FRED's count of visits.
    """

    series: str
    title: str
    frequency: str
    units: str
    seasonal_adjustment: str
    first: str
    last: str
    last_updated: str
    popularity: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def find_series(text: str, settings: Settings, *, limit: int = 20) -> tuple[FoundSeries, ...]:
    """The series that FRED finds for some words, the most visited first; none is no error.

    Raises
    ------
    InputError
        No words, or a limit below one.
    ConfigError
        There is no key.
    ServiceUnavailable, RateLimited, ServiceError
        No answer, asked to wait, or a refusal.
    """
    if not text.strip():
        raise InputError("no words to search FRED for", remedy='such as "real gdp"')
    if limit < 1:
        raise InputError(f"a limit of {limit} series finds none", remedy="use 1 or more")
    found = _fetching(settings).search(text.strip(), limit=limit, order_by="popularity", sort_order="desc")
    return () if found is None else tuple(_found(row) for row in found.to_dict("records"))


def describe_series(series: str, settings: Settings) -> FoundSeries:
    """What a series is.

    Raises
    ------
    UnknownNameError
        FRED has no such series.
    ConfigError
        There is no key.
    ServiceUnavailable, RateLimited, ServiceError
        No answer, asked to wait, or a refusal.
    """
    return _found(_fetching(settings).get_series_info(series).to_dict())


def _found(row: dict[str, Any]) -> FoundSeries:
    def day(name: str) -> str:
        return str(row[name])[:10]

    return FoundSeries(
        series=str(row["id"]),
        title=str(row["title"]),
        frequency=str(row["frequency"]),
        units=str(row["units"]),
        seasonal_adjustment=str(row["seasonal_adjustment"]),
        first=day("observation_start"),
        last=day("observation_end"),
        last_updated=str(row["last_updated"]),
        popularity=int(row["popularity"]),
    )


def _fetching(settings: Settings) -> Any:
    """A `fredapi.Fred` whose one fetching method goes through `VendorClient`."""
    import fredapi

    key = require_key(settings, SOURCE)
    client = VendorClient(SOURCE, ADDRESS, settings, secrets=(key,))

    class Fetching(fredapi.Fred):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:  # not the parent's, which may install a global URL opener
            self.root_url = f"{client.base}/fred"

        def _Fred__fetch_data(self, url: str) -> ElementTree.Element:  # the name that fredapi calls
            reply = client.get(f"{url}&api_key={key.get_secret_value()}", expect=("xml",), allow=(400,))
            try:
                root = ElementTree.fromstring(reply.body)
            except ElementTree.ParseError as problem:
                raise ServiceUnavailable(
                    f"{reply.origin} did not answer with XML: {problem}", remedy="run the same command again"
                ) from None
            if reply.status == 400:
                _refuse(" ".join(str(root.get("message", "no reason given")).split()), reply.origin)
            return root

    return Fetching()


def _refuse(message: str, origin: str) -> None:
    if "api_key" in message:
        raise ServiceError(f"FRED refuses the key ({origin}): {message}", remedy="check FRED_API_KEY in the environment")
    if "does not exist" in message:
        raise UnknownNameError(f"FRED has no such series ({origin}): {message}", remedy="search for it: quant ingest find WORDS")
    raise ServiceError(f"FRED refuses the request ({origin}): {message}", remedy="check the words and the limit")
