"""Real prices as traded and real events, through the files source and the ingest flow, against published adjusted prices."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from config.errors import UnknownNameError
from config.settings import load_settings
from features.point_in_time import load_panel
from flows.ingest_actions import ingest_actions_flow
from flows.ingest_equity import ingest_equity_flow
from lake import Snapshot, open_lake
from lake.adjustment import adjusted_bars
from lake.listings import history
from tests.flows.factor_files import LETTERS, SINCE, actions, expected_factors, other_letters

SYMBOLS = ("AAPL", "BAC", "IBM", "IWM", "QQQ", "SPY")


def raw_bars(shared_data: Path, symbol: str) -> pd.DataFrame:
    """The recorded bars, read with pandas alone."""
    content = gzip.decompress((shared_data / "market" / "daily" / f"{symbol}.csv.gz").read_bytes())
    return pd.read_csv(io.BytesIO(content), parse_dates=["date"], index_col="date")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(path)


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The six recorded histories and the actions out of their factor files, ingested."""
    folder = tmp_path_factory.mktemp("real")
    settings = load_settings({"home": str(folder / "home")}, environ={})
    told: list[tuple[Any, ...]] = list(LETTERS)
    (folder / "others").mkdir()
    for symbol in SYMBOLS:
        factor_file = shared_data / "market" / "actions" / f"{symbol}.csv"
        told += actions(factor_file)
        for letters, closes in other_letters(factor_file).items():
            write_csv(folder / "others" / f"{letters}.csv", ("date", "close"), closes)
    for path in (shared_data / "market" / "daily", folder / "others"):
        bars = ingest_equity_flow(source="files", settings=settings, path=str(path))
        assert {name.outcome for name in bars.names} == {"stored"}
    columns = ("symbol", "ex_date", "kind", "value", "new_symbol")
    said = ingest_actions_flow(settings=settings, path=write_csv(folder / "actions.csv", columns, told))
    assert said.total.refused == 0
    assert said.total.new == len(told) == 479
    return open_lake(settings).snapshot()


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_total_adjusted_prices_are_those_of_the_factor_file_on_every_session(
    real: Snapshot, shared_data: Path, symbol: str
) -> None:
    raw = raw_bars(shared_data, symbol).loc[SINCE.get(symbol) :]
    read = adjusted_bars(real, [symbol], adjust="total").to_pandas()
    adjusted = read[read["letters"] == symbol].set_index(pd.DatetimeIndex(read["session"][read["letters"] == symbol]))
    assert len(raw) > 3900
    assert adjusted.index.equals(raw.index)
    factors = expected_factors(shared_data / "market" / "actions" / f"{symbol}.csv", pd.DatetimeIndex(raw.index))
    both = (factors["price_factor"] * factors["split_factor"]).to_numpy()
    for name in ("open", "high", "low", "close"):
        np.testing.assert_allclose(adjusted[name], raw[name].to_numpy() * both, rtol=1e-4)
    np.testing.assert_allclose(adjusted["volume"], raw["volume"].to_numpy() / factors["split_factor"].to_numpy(), rtol=1e-4)


def test_the_dividends_derived_from_the_factor_files_are_those_that_were_paid(shared_data: Path) -> None:
    # As the companies announced them, before later splits: investor.apple.com, ssga.com.
    paid = {
        ("AAPL", "2012-08-09"): 2.65,
        ("AAPL", "2013-05-09"): 3.05,
        ("AAPL", "2014-05-08"): 3.29,
        ("AAPL", "2014-08-07"): 0.47,
        ("AAPL", "2020-08-07"): 0.82,
        ("AAPL", "2020-11-06"): 0.205,
        ("SPY", "2019-12-20"): 1.57,
        ("SPY", "2020-12-18"): 1.58,
    }
    told = {
        (symbol, day): value
        for symbol in ("AAPL", "SPY")
        for _, day, kind, value, _ in actions(shared_data / "market" / "actions" / f"{symbol}.csv")
        if kind == "dividend"
    }
    assert {key: round(told[key], 3) for key in paid} == paid


def test_apples_splits_never_show_as_returns_and_are_not_known_before_they_were(real: Snapshot, shared_data: Path) -> None:
    raw = raw_bars(shared_data, "AAPL")["close"]
    panel = load_panel(real, ["AAPL"])
    for ex_date, ratio in (("2014-06-09", 7), ("2020-08-31", 4)):
        at = int(raw.index.searchsorted(pd.Timestamp(ex_date)))
        assert raw.iloc[at] / raw.iloc[at - 1] < 1.2 / ratio  # as traded the price falls to a seventh, a quarter
        assert abs(panel.close["AAPL"].pct_change(fill_method=None)[ex_date]) < 0.05
    close_before = pd.Timestamp("2014-06-06 20:00", tz="UTC").to_pydatetime()  # 16:00 New York: the last close before the split
    then = load_panel(real, ["AAPL"], as_of=close_before)
    assert then.sessions[-1] == pd.Timestamp("2014-06-06")
    np.testing.assert_array_equal(then.close.loc["2005-02-28":, "AAPL"], raw["2005-02-28":"2014-06-06"])
    np.testing.assert_allclose(then.close.loc[:"2005-02-25", "AAPL"].iloc[-1], raw["2005-02-25"] / 2)


def test_the_letters_that_nationsbank_took_are_two_companies(real: Snapshot, shared_data: Path) -> None:
    raw = raw_bars(shared_data, "BAC")["close"]
    assert raw["1998-10-01"] / raw["1998-09-30"] - 1 < -0.1  # no return that anyone had
    bought, buyer = (history(real, "BAC", day) for day in (date(1998, 9, 30), date(1998, 10, 1)))
    assert [spell.symbol for spell in bought.spells] == ["BAC"]
    assert bought.delisted == date(1998, 10, 1)
    assert [spell.symbol for spell in buyer.spells] == ["NB", "BAC"]
    panel = load_panel(real, ["BAC", "SPY"])
    of_nb = [f"{day:%Y-%m-%d}" for day in panel.close["BAC"].dropna().index[:3]]
    assert of_nb == ["1998-03-03", "1998-06-02", "1998-09-01"]
    ended = load_panel(real, ["BAC", "SPY"], end=date(1998, 9, 30))
    np.testing.assert_array_equal(ended.close["BAC"], raw[:"1998-09-30"])
    with pytest.raises(UnknownNameError, match="nobody held the letters QQQQ on 2012-01-03"):
        history(real, "QQQQ", date(2012, 1, 3))


def test_total_adjusted_closes_are_a_second_vendors(shared_data: Path, tmp_path: Path) -> None:
    vendor = pd.read_csv(shared_data / "market" / "daily_tiingo_SPY_2021.csv.gz", parse_dates=["date"])
    settings = load_settings({"home": str(tmp_path / "home")}, environ={})
    bars = [(f"{row.date:%Y-%m-%d}", row.open, row.high, row.low, row.close, row.volume) for row in vendor.itertuples()]
    paid = [("SPY", f"{row.date:%Y-%m-%d}", "dividend", row.divCash) for row in vendor.itertuples() if row.divCash]
    assert len(paid) >= 3
    path = write_csv(tmp_path / "SPY.csv", ("date", "open", "high", "low", "close", "volume"), bars)
    ingest_equity_flow(source="files", settings=settings, path=path)
    ingest_actions_flow(settings=settings, path=write_csv(tmp_path / "actions.csv", ("symbol", "ex_date", "kind", "value"), paid))
    found = adjusted_bars(open_lake(settings).snapshot(), ["SPY"], adjust="total").to_pandas()
    # The vendor's are on a later day's level; its own factor of the last session takes them to the last bar's. It pays a dividend
    # back in at the close of the ex-date, P / (P + amount), where the factor files take it out of the close before: the same but
    # for the amount times that day's return.
    other = pd.Series(1.0, index=vendor.index)
    for at in np.flatnonzero(vendor["divCash"]):
        amount, close, before = vendor["divCash"][at], vendor["close"][at], vendor["close"][at - 1]
        other[:at] *= close / (close + amount) / (1 - amount / before)
    for name in ("open", "high", "low", "close"):
        theirs = vendor[f"adj{name.capitalize()}"] * (vendor["close"].iloc[-1] / vendor["adjClose"].iloc[-1])
        np.testing.assert_allclose(found[name], theirs, rtol=1.3e-4)
        np.testing.assert_allclose(found[name] * other, theirs, rtol=1e-6)


def test_total_adjusted_closes_are_yahoos(shared_data: Path, tmp_path: Path) -> None:
    name = "historical-via-chart-MSFT-dividends-2021-02-01-to-2022-01-31.csv.json"
    chart = json.loads((shared_data / "recordings" / "yahoo" / "bodies" / name).read_bytes())["chart"]["result"][0]
    days = [f"{day:%Y-%m-%d}" for day in pd.to_datetime(chart["timestamp"], unit="s", utc=True).tz_convert("America/New_York")]
    theirs, closes = (
        np.array(chart["indicators"][group][0][field]) for group, field in (("adjclose", "adjclose"), ("quote", "close"))
    )
    paid = [
        (
            "MSFT",
            f"{pd.Timestamp(told['date'], unit='s', tz='UTC').tz_convert('America/New_York'):%Y-%m-%d}",
            "dividend",
            told["amount"],
        )
        for told in chart["events"]["dividends"].values()
    ]
    assert len(paid) == 4
    settings = load_settings({"home": str(tmp_path / "home")}, environ={})
    rows = list(zip(days, closes, strict=True))
    ingest_equity_flow(source="files", settings=settings, path=write_csv(tmp_path / "MSFT.csv", ("date", "close"), rows))
    ingest_actions_flow(settings=settings, path=write_csv(tmp_path / "actions.csv", ("symbol", "ex_date", "kind", "value"), paid))
    found = adjusted_bars(open_lake(settings).snapshot(), ["MSFT"], adjust="total")["close"].to_numpy()
    np.testing.assert_allclose(found, theirs * (closes[-1] / theirs[-1]), rtol=1e-4)
