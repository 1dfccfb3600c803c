"""FRED's series by words, through the real fredapi over our own client."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from typer.testing import CliRunner

from config.errors import ConfigError, InputError, RateLimited, ServiceError, ServiceUnavailable, UnknownNameError
from config.settings import load_settings
from flows.sources.fred_search import describe_series, find_series
from tests.flows.replayed import settings_for
from tests.replay import Fault, Question, ReplayServer, Reply

HOST = "api.stlouisfed.org"
PATIENT = {"data.timeout_seconds": 30.0}  # a busy machine answers itself slowly
KEY = "0123456789abcdef0123456789abcdef"


def series(name: str, popularity: int) -> dict[str, str]:
    """A made-up series, with the attributes that FRED's XML has."""
    return {
        "id": name,
        "realtime_start": "2024-10-30",
        "realtime_end": "2024-10-30",
        "title": f"Made-up Product of {name}",
        "observation_start": "1947-01-01",
        "observation_end": "2024-07-01",
        "frequency": "Quarterly",
        "frequency_short": "Q",
        "units": "Billions of Chained 2017 Dollars",
        "units_short": "Bil. of Chn. 2017 $",
        "seasonal_adjustment": "Seasonally Adjusted Annual Rate",
        "seasonal_adjustment_short": "SAAR",
        "last_updated": "2024-10-30 07:54:01-05",
        "popularity": str(popularity),
        "notes": "",
    }


@dataclass
class Search:
    """FRED's search and description in XML, as fredapi asks for them."""

    hosts: Sequence[str] = (HOST,)

    def answer(self, question: Question) -> Reply | None:
        if question.query.get("api_key") != KEY:
            return self.xml(400, '<error code="400" message="Bad Request.  The value for variable api_key is not registered."/>')
        every = {"GDPC1": series("GDPC1", 92), "GDPC96": series("GDPC96", 12)}
        if question.path == "/fred/series/search":
            assert question.query["order_by"] == "popularity"
            rows = list(every.values()) if question.query["search_text"] == "real gdp" else []
        else:
            rows = [every[str(question.query["series_id"])]] if question.query["series_id"] in every else []
            if not rows:
                return self.xml(400, '<error code="400" message="Bad Request.  The series does not exist."/>')
        inner = "".join(f"<series {' '.join(f'{k}={quoteattr(v)}' for k, v in row.items())}/>" for row in rows)
        return self.xml(200, f'<seriess count="{len(rows)}" offset="0" limit="1000">{inner}</seriess>')

    def xml(self, status: int, text: str) -> Reply:
        return Reply(status=status, body=text.encode(), content_type="text/xml; charset=UTF-8")


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    with ReplayServer(services=[Search()]) as running:
        yield running


def settings(server: ReplayServer, key: str = KEY) -> Any:
    return settings_for(server, "fred", HOST, **{"credentials.fred": key, **PATIENT})


def test_words_find_series_with_what_they_are(server: ReplayServer) -> None:
    found = find_series("real gdp", settings(server))
    assert [one.series for one in found] == ["GDPC1", "GDPC96"]
    assert (found[0].units, found[0].frequency, found[0].popularity) == ("Billions of Chained 2017 Dollars", "Quarterly", 92)
    assert (found[0].first, found[0].last) == ("1947-01-01", "2024-07-01")
    assert find_series("real gdp", settings(server), limit=1) == found[:1]
    assert find_series("nothing of the kind", settings(server)) == ()


def test_a_series_is_described_and_an_unknown_one_named(server: ReplayServer) -> None:
    assert describe_series("GDPC96", settings(server)).title == "Made-up Product of GDPC96"
    with pytest.raises(UnknownNameError, match="The series does not exist"):
        describe_series("GDPX", settings(server))


def test_failures_have_their_names_and_none_shows_the_key(server: ReplayServer) -> None:
    wrong = "f" * 32
    with pytest.raises(ServiceError, match="FRED_API_KEY") as caught:
        find_series("real gdp", settings(server, wrong))
    assert wrong not in str(caught.value)
    for kind, error in (
        ("429", RateLimited),
        ("502", ServiceUnavailable),
        ("half_body", ServiceUnavailable),
        ("reset", ServiceUnavailable),
    ):
        server.faults = [Fault(kind=kind)]  # type: ignore[arg-type]
        with pytest.raises(error) as caught:
            find_series("real gdp", settings(server))
        assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match="FRED_API_KEY"):
        find_series("real gdp", load_settings())
    with pytest.raises(InputError, match="no words"):
        find_series(" ", settings(server))
    with pytest.raises(InputError, match="limit of 0"):
        find_series("gdp", settings(server), limit=0)


def test_a_proxy_in_the_environment_does_not_change_the_process(server: ReplayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """fredapi's own constructor would install a global opener."""
    before = urllib.request._opener  # type: ignore[attr-defined]
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    find_series("real gdp", settings(server))
    assert urllib.request._opener is before  # type: ignore[attr-defined]


def test_the_verb_prints_what_was_found(server: ReplayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli.app import app

    monkeypatch.setenv("FRED_API_KEY", KEY)
    monkeypatch.setenv("QUANT_DATA__ADDRESSES__FRED", server.address(HOST))
    said = CliRunner().invoke(app, ["ingest", "find", "real gdp", "--json"])
    assert said.exit_code == 0, said.output
    assert [one["series"] for one in json.loads(said.stdout)["series"]] == ["GDPC1", "GDPC96"]
