"""The fake Yahoo has the real one's shapes and numbers, as far as recordings of the real one show them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.replay import Question
from tests.replay.yahoo_service import CRUMB, Listing, YahooService


def recorded(shared_data: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recording's entry and its document."""
    folder = shared_data / "recordings" / "yahoo"
    entry = next(one for one in json.loads((folder / "index.json").read_text()) if one["id"] == name)
    return entry, json.loads((folder / entry["body_file"]).read_text())


def asked(service: YahooService, path: str, **query: str) -> tuple[int, dict[str, Any]]:
    host = "query2.finance.yahoo.com"
    answer = service.answer(Question(method="GET", host=host, path=path, query=query))
    assert answer is not None
    return answer.status, json.loads(answer.body)


def frame(rows: dict[str, tuple[float, float, float, float, float]]) -> pd.DataFrame:
    index = pd.DatetimeIndex(list(rows))
    return pd.DataFrame(list(rows.values()), index=index, columns=["open", "high", "low", "close", "volume"])


# As traded, from the exchanges' tapes: Amazon before its 20:1 split of 2022-06-06, Apple around its 4:1 of 2020-08-31.
AMZN = Listing(
    bars=frame(
        {
            "2019-12-31": (1842.0, 1853.26, 1832.23, 1847.84, 2_506_500),
            "2020-01-02": (1875.0, 1898.01, 1864.15, 1898.01, 4_029_000),
            "2020-01-03": (1864.5, 1886.2, 1864.5, 1874.97, 3_764_400),
            "2022-06-06": (125.25, 128.99, 123.81, 124.79, 135_269_000),
            "2025-02-19": (225.5, 226.83, 223.71, 226.63, 28_566_700),
        }
    ),
    splits={date(2022, 6, 6): (20, 1)},
)
AAPL = Listing(
    bars=frame(
        {
            "2020-08-28": (504.05, 505.77, 498.31, 499.23, 46_907_479),
            "2020-08-31": (127.58, 131.0, 126.0, 129.04, 225_702_700),
            "2020-09-01": (132.76, 134.8, 130.53, 134.18, 151_948_100),
            "2020-11-06": (118.32, 119.2, 116.13, 118.69, 114_457_900),
            "2025-02-19": (244.66, 246.01, 243.16, 244.87, 32_204_200),
        }
    ),
    splits={date(2020, 8, 31): (4, 1)},
    dividends={date(2020, 11, 6): 0.205},
)


def test_a_day_before_a_split_has_the_recorded_numbers_to_the_last_bit(shared_data: Path) -> None:
    entry, real = recorded(shared_data, "chart-AMZN-2020-01-01-to-2020-01-03")
    service = YahooService({"AMZN": AMZN}, now=datetime(2025, 2, 20, 12, tzinfo=UTC))
    status, ours = asked(service, entry["path"], **entry["query"])
    assert status == 200
    (theirs,), (mine,) = real["chart"]["result"], ours["chart"]["result"]
    assert mine["timestamp"] == theirs["timestamp"]
    assert mine["indicators"]["quote"] == theirs["indicators"]["quote"]
    assert mine["indicators"]["adjclose"] == theirs["indicators"]["adjclose"]
    assert mine["meta"]["chartPreviousClose"] == pytest.approx(theirs["meta"]["chartPreviousClose"], rel=1e-6)  # 1847.84 / 20


def test_events_and_the_first_day_after_a_split_are_the_recorded_ones(shared_data: Path) -> None:
    entry, real = recorded(shared_data, "chart-AAPL-2020-08-31-to-2020-11-07")
    service = YahooService({"AAPL": AAPL}, now=datetime(2025, 2, 20, 12, tzinfo=UTC))
    _, ours = asked(service, entry["path"], **entry["query"])
    (theirs,), (mine,) = real["chart"]["result"], ours["chart"]["result"]
    assert mine["events"] == theirs["events"]
    for name, values in mine["indicators"]["quote"][0].items():
        at = [theirs["timestamp"].index(stamp) for stamp in mine["timestamp"]]
        assert values == [theirs["indicators"]["quote"][0][name][place] for place in at], name


@pytest.mark.parametrize(
    ("name", "listing"), [("chart-AAPL-2020-08-31-to-2020-11-07", AAPL), ("chart-AMZN-2020-01-01-to-2020-01-03", AMZN)]
)
def test_every_key_of_a_daily_chart_is_there_with_its_type(shared_data: Path, name: str, listing: Listing) -> None:
    entry, real = recorded(shared_data, name)
    symbol = entry["path"].rpartition("/")[2]
    service = YahooService({symbol: listing}, now=datetime(2025, 2, 20, 12, tzinfo=UTC))
    _, ours = asked(service, entry["path"], **entry["query"])
    assert _shape(ours) == _shape(real)


def test_an_intraday_chart_of_a_weekend_is_empty_in_the_recorded_way(shared_data: Path) -> None:
    entry, real = recorded(shared_data, "chart-AAPL-2025-02-01-to-2025-02-02-includePrePost-false-interval-1m")
    service = YahooService({"AAPL": AAPL}, now=datetime(2025, 2, 20, 12, tzinfo=UTC))
    status, ours = asked(service, entry["path"], **entry["query"])
    assert status == 200
    (theirs,), (mine,) = real["chart"]["result"], ours["chart"]["result"]
    assert mine.keys() == theirs.keys()
    assert mine["indicators"] == theirs["indicators"]
    assert mine["meta"].keys() - {"tradingPeriods"} == theirs["meta"].keys() - {"tradingPeriods"}


def test_the_newest_bar_carries_the_last_trades_time_as_in_the_recording(shared_data: Path) -> None:
    _, real = recorded(shared_data, "history_chart_AAPL_rs")
    (theirs,) = real["chart"]["result"]
    assert theirs["timestamp"][-1] == theirs["meta"]["regularMarketTime"] == 1761768001  # a second after the close of 2025-10-29
    listing = Listing(
        bars=frame({"2025-10-28": (268.99, 269.89, 268.15, 269.0, 41e6), "2025-10-29": (269.28, 271.41, 267.11, 269.7, 51e6)})
    )
    service = YahooService({"AAPL": listing}, now=datetime(2025, 10, 30, 1, tzinfo=UTC))
    _, ours = asked(service, "/v8/finance/chart/AAPL", interval="1d", period1="1761600000", period2="1761790000")
    (mine,) = ours["chart"]["result"]
    assert mine["timestamp"] == theirs["timestamp"][-2:]
    assert mine["meta"]["regularMarketTime"] == 1761768001


def test_an_unknown_symbol_and_a_window_before_the_first_trade_are_errors_in_yahoos_words() -> None:
    service = YahooService({"AAPL": AAPL}, now=datetime(2025, 2, 20, 12, tzinfo=UTC))
    status, said = asked(service, "/v8/finance/chart/NOPE", interval="1d", range="1d")
    assert (status, said["chart"]["error"]["code"]) == (404, "Not Found")
    status, said = asked(service, "/v8/finance/chart/AAPL", interval="1d", period1="0", period2="86400")
    assert (status, said["chart"]["error"]["code"]) == (400, "Bad Request")
    status, said = asked(service, "/v8/finance/chart/AAPL", interval="5m", period1="1600000000", period2="1700000000")
    assert (status, said["chart"]["result"]) == (422, None)


def test_an_open_sessions_bar_is_half_done_and_grows() -> None:
    bars = frame({"2025-03-03": (100.0, 101.0, 99.0, 100.5, 1e6), "2025-03-04": (100.0, 112.0, 99.0, 110.0, 2e6)})
    service = YahooService({"A": Listing(bars=bars)}, now=datetime(2025, 3, 4, 17, 45, tzinfo=UTC))  # half way through the session
    query = {"interval": "1d", "period1": "1740900000", "period2": "1741300000"}
    (mine,) = asked(service, "/v8/finance/chart/A", **query)[1]["chart"]["result"]
    assert mine["timestamp"][-1] == int(service.now.timestamp())
    assert [mine["indicators"]["quote"][0][name][-1] for name in ("open", "close", "volume")] == [100, 105, 1_000_000]
    service.now = datetime(2025, 3, 4, 22, tzinfo=UTC)
    (mine,) = asked(service, "/v8/finance/chart/A", **query)[1]["chart"]["result"]
    assert [mine["indicators"]["quote"][0][name][-1] for name in ("high", "close", "volume")] == [112, 110, 2_000_000]


def test_a_split_changes_all_history_from_its_day_on() -> None:
    listing = Listing(
        bars=frame({"2025-03-03": (100.0, 101.0, 99.0, 100.0, 600.0), "2025-03-04": (50.0, 51.0, 49.0, 50.0, 900.0)}),
        splits={date(2025, 3, 4): (2, 1)},
        dividends={date(2025, 3, 3): 0.5},
    )
    service = YahooService({"A": listing}, now=datetime(2025, 3, 3, 22, tzinfo=UTC))
    query = {"interval": "1d", "period1": "1740900000", "period2": "1741300000", "events": "div,splits"}
    (before,) = asked(service, "/v8/finance/chart/A", **query)[1]["chart"]["result"]
    service.now = datetime(2025, 3, 4, 22, tzinfo=UTC)
    (after,) = asked(service, "/v8/finance/chart/A", **query)[1]["chart"]["result"]
    assert (before["indicators"]["quote"][0]["close"], before["indicators"]["quote"][0]["volume"]) == ([100], [600])
    assert (after["indicators"]["quote"][0]["close"], after["indicators"]["quote"][0]["volume"]) == ([50, 50], [1200, 900])
    assert [one["amount"] for one in before["events"]["dividends"].values()] == [0.5]
    assert [one["amount"] for one in after["events"]["dividends"].values()] == [0.25]
    assert "splits" not in before["events"]
    assert [one["splitRatio"] for one in after["events"]["splits"].values()] == ["2:1"]


def test_options_need_the_crumb_and_have_the_recorded_keys(shared_data: Path) -> None:
    _, real = recorded(shared_data, "options_v7_AAPL_rs")
    (theirs,) = real["optionChain"]["result"]
    contracts = [*theirs["options"][0]["calls"], *theirs["options"][0]["puts"]]
    listing = Listing(bars=AAPL.bars, chains={date(2025, 10, 31): contracts, date(2025, 11, 7): []})
    service = YahooService({"AAPL": listing}, now=datetime(2025, 10, 30, 1, tzinfo=UTC))
    assert asked(service, "/v7/finance/options/AAPL")[0] == 401
    status, ours = asked(service, "/v7/finance/options/AAPL", crumb=CRUMB)
    (mine,) = ours["optionChain"]["result"]
    assert status == 200
    assert mine.keys() == theirs.keys()
    assert mine["options"] == theirs["options"]
    assert mine["expirationDates"] == theirs["expirationDates"][:2]
    assert mine["quote"].keys() <= theirs["quote"].keys()


def _shape(document: Any) -> Any:
    """Keys and types; lists by their first element, events without their stamps."""
    if isinstance(document, dict):
        if document and all(key.isdigit() for key in document):
            return {"stamp": _shape(next(iter(document.values())))}
        return {key: _shape(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_shape(document[0])] if document else []
    return "number" if isinstance(document, int | float) and not isinstance(document, bool) else type(document).__name__
