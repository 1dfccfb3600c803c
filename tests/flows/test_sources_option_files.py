"""Option chains from the user's files: any columns by a mapping, symbols checked and built, refusals with their line."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from config.clock import FixedClock
from config.errors import DataError, InputError
from config.settings import load_settings
from flows.ingest_options import ingest_options_flow
from flows.sources.base import get_source
from lake import open_lake

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HEAD = "quote_date,underlying,expiry,strike,right,bid,ask\n"
GOOD = HEAD + "2018-01-02,ACME,2018-01-19,50,call,1.2,1.3\n2018-01-02,ACME,2018-01-19,52.5,P,2.5,2.75\n"


def read(path: Path, text: str, **options: Any) -> Any:
    path.write_text(text)
    source = get_source("files", "options", load_settings(), path=str(path), **options)
    (answer,) = source.quotes(source.available() or (), None, None)
    return answer


def test_a_plain_chain_needs_no_mapping(tmp_path: Path) -> None:
    call, put = read(tmp_path / "chain.csv", GOOD).rows.to_pylist()
    close = datetime(2018, 1, 2, 21, tzinfo=UTC)  # 16:00 in New York
    assert call["occ_symbol"] == "ACME180119C00050000"  # OCC: root, yymmdd, C or P, strike in thousandths on eight digits
    assert put["occ_symbol"] == "ACME180119P00052500"
    assert [call[name] for name in ("underlying", "expiry", "strike", "right", "bid", "ask", "multiplier")] == [
        "ACME",
        date(2018, 1, 19),
        50.0,
        "C",
        1.2,
        1.3,
        100.0,
    ]
    assert [call[name] for name in ("style", "settlement", "data_kind", "source")] == ["american", "physical", "real", "files"]
    assert (call["quote_time"], call["available_at"], call["session"]) == (close, close, date(2018, 1, 2))
    assert [call[name] for name in ("last", "volume", "delta", "greeks_time")] == [None, None, None, None]


@pytest.mark.parametrize(
    ("line", "rule", "reason"),
    [
        ("2018-01-02,ACME,2018-01-19,55,C,soon,1.3", "wrong_type", "chain.csv line 4: column bid: 'soon' cannot be read"),
        ("2018-01-02,ACME,someday,55,C,1.2,1.3", "wrong_type", "chain.csv line 4: column expiry: 'someday' cannot be read"),
        ("2018-01-02,ACME,2018-01-19,,C,1.2,1.3", "wrong_type", "chain.csv line 4: column strike: '' cannot be read"),
        ("2018-01-02,ACME,2018-01-19,55,X,1.2,1.3", "unknown_right", "chain.csv line 4: column right: 'X' cannot be read"),
        ("2018-01-06,ACME,2018-01-19,55,C,1.2,1.3", "not_a_session", "chain.csv line 4: 2018-01-06 is not a session of XNYS"),
        ("soon,ACME,2018-01-19,55,C,1.2,1.3", "wrong_type", "chain.csv line 4: column quote_date: 'soon' cannot be read"),
        (
            "2018-01-02,ACME,2018-01-19,55.0001,C,1.2,1.3",
            "bad_strike",
            "chain.csv line 4: strike 55.0001 of ACME cannot be written",
        ),
        ("2018-01-02,ACME1,2018-01-19,55,C,1.2,1.3", None, None),  # its letters are its underlying's: nothing says it is another's
    ],
)
def test_a_line_that_cannot_be_read_is_refused_with_its_number_and_the_rest_is_kept(
    tmp_path: Path, line: str, rule: str | None, reason: str | None
) -> None:
    answer = read(tmp_path / "chain.csv", GOOD + line + "\n")
    assert answer.rows.num_rows == 2 + (rule is None)
    assert [one.rule for one in answer.refused] == ([] if rule is None else [rule])
    if reason is not None:
        assert answer.refused[0].reason.startswith(reason)
        assert answer.refused[0].raw["line"] == 4


def test_a_symbol_is_checked_against_the_columns_beside_it(tmp_path: Path) -> None:
    text = "contractSymbol,underlying,expiry,strike,type,date,bid,ask\n"
    text += "ACME180119C00050000,ACME,2018-01-19,50,call,2018-01-02,1,2\n"
    text += "ACME180119C00050000,ACME,2018-01-19,51,call,2018-01-02,1,2\n"
    text += "ACME180119C00050000,ACME,2018-01-20,50,call,2018-01-02,1,2\n"
    text += "ACME180119C00050000,ACME,2018-01-19,50,put,2018-01-02,1,2\n"
    text += "ACME7180119C00050000,ACME,2018-01-19,50,call,2018-01-02,1,2\n"
    text += "nonsense,ACME,2018-01-19,50,call,2018-01-02,1,2\n"
    answer = read(tmp_path / "chain.csv", text)
    assert answer.rows.num_rows == 1
    assert [(one.rule, one.raw["line"]) for one in answer.refused] == [
        ("contradicts_symbol", 3),
        ("contradicts_symbol", 4),
        ("contradicts_symbol", 5),
        ("non_standard_deliverable", 6),  # a mini contract on ten shares
        ("bad_occ_symbol", 7),
    ]


def test_symbols_alone_are_enough_and_an_index_root_is_on_its_index(tmp_path: Path) -> None:
    text = "occ_symbol,date,bid,ask\nSPXW  180131C02700000,2018-01-02,30,31\nSPX180119P02700000,2018-01-02,20,21\n"
    answer = read(tmp_path / "chain.csv", text)
    assert answer.names == ("SPX",)
    assert [(row["occ_symbol"], row["underlying"], row["style"], row["settlement"]) for row in answer.rows.to_pylist()] == [
        ("SPXW180131C02700000", "SPX", "european", "pm_cash"),
        ("SPX180119P02700000", "SPX", "european", "am_cash"),
    ]


def test_the_quote_time_is_the_close_or_as_stated_and_moments_need_a_zone(tmp_path: Path) -> None:
    half_day = GOOD.replace("2018-01-02", "2018-07-03").replace("2018-01-19", "2018-07-20")
    assert read(tmp_path / "a.csv", half_day).rows["quote_time"][0].as_py() == datetime(2018, 7, 3, 17, tzinfo=UTC)  # 13:00
    at = read(tmp_path / "b.csv", GOOD, quote_time="15:45").rows["quote_time"][0].as_py()
    assert at == datetime(2018, 1, 2, 20, 45, tzinfo=UTC)
    moments = GOOD.replace("2018-01-02", "2018-01-02 10:30:00")
    with pytest.raises(InputError, match="without a time zone"):
        read(tmp_path / "c.csv", moments)
    row = read(tmp_path / "c.csv", moments, timezone="America/New_York").rows.to_pylist()[0]
    assert (row["quote_time"], row["session"]) == (datetime(2018, 1, 2, 15, 30, tzinfo=UTC), date(2018, 1, 2))
    aware = read(tmp_path / "d.csv", GOOD.replace("2018-01-02", "2018-01-03T01:00:00Z")).rows.to_pylist()[0]
    assert aware["session"] == date(2018, 1, 2)  # eight in the evening in New York
    with pytest.raises(InputError, match="neither 'close' nor a time of day"):
        read(tmp_path / "e.csv", GOOD, quote_time="noon-ish")


def test_a_file_without_times_needs_the_moment_of_the_whole(tmp_path: Path) -> None:
    text = "underlying,expiry,strike,right,bid,ask\nACME,2018-01-19,50,C,1,2\n"
    with pytest.raises(DataError, match="has no column for time"):
        read(tmp_path / "chain.csv", text)
    (row,) = read(tmp_path / "chain.csv", text, quoted_at="2018-01-06T15:00:00Z").rows.to_pylist()
    assert (row["quote_time"], row["session"]) == (datetime(2018, 1, 6, 15, tzinfo=UTC), date(2018, 1, 5))  # a Saturday: Friday's
    with pytest.raises(InputError, match="has no offset"):
        read(tmp_path / "chain.csv", text, quoted_at="2018-01-06T15:00:00")
    with pytest.raises(InputError, match="quoted_at contradicts it"):
        read(tmp_path / "chain.csv", GOOD, quoted_at="2018-01-06T15:00:00Z")


def test_a_mapping_file_names_the_columns(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("time: Tag\nexpiry: Verfall\nstrike: Basis\nright: Art\nbid: Geld\nask: Brief\n")
    text = "Tag,Verfall,Basis,Art,Geld,Brief\n02.01.2018,19.01.2018,50,Call,1.2,1.3\n"
    options = {"mapping": str(tmp_path / "map.yaml"), "underlying": "ACME", "date_format": "%d.%m.%Y"}
    (row,) = read(tmp_path / "chain.csv", text, **options).rows.to_pylist()
    assert (row["occ_symbol"], row["session"], row["bid"], row["ask"]) == ("ACME180119C00050000", date(2018, 1, 2), 1.2, 1.3)
    with pytest.raises(InputError, match="'strikes', which is no column of ours"):
        read(tmp_path / "chain.csv", text, mapping={"strikes": "Basis"})


def test_modelled_chains_say_so_and_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    assert set(read(tmp_path / "chain.csv", GOOD, data_kind="modelled").rows["data_kind"].to_pylist()) == {"modelled"}
    with pytest.raises(InputError, match="neither real nor modelled"):
        read(tmp_path / "chain.csv", GOOD, data_kind="synthetic")


def ingest(symbols: str, path: Path, **options: Any) -> tuple[Any, pd.DataFrame]:
    """Through the flow, and read back."""
    report = ingest_options_flow(symbols, "files", path=str(path), clock=FixedClock(NOW), **options)
    return report, open_lake(load_settings()).snapshot().read("option_quotes", where={"underlying": symbols}).to_pandas()


def test_the_real_spxw_chain_of_january_2018(shared_data: Path) -> None:
    path = shared_data / "options" / "spxw_2018-01.csv.gz"
    report, stored = ingest("SPX", path, date_format="%m/%d/%Y")
    raw = pd.read_csv(path)
    assert (report.total.new, report.total.refused) == (len(raw), 0) == (7588, 0)
    assert stored["session"].nunique() == raw["quote_date"].nunique() == 21
    assert set(stored["settlement"]) == {"pm_cash"}
    assert {f"{one:%m/%d/%Y}" for one in stored["expiry"]} == set(raw["expiration"])
    line = raw.iloc[1234]
    day, expiry = (pd.to_datetime(line[name], format="%m/%d/%Y") for name in ("quote_date", "expiration"))
    symbol = f"SPXW{expiry:%y%m%d}{line['option_type'][0].upper()}{round(line['strike'] * 1000):08d}"
    row = stored[(stored["occ_symbol"] == symbol) & (stored["session"] == day.date())].iloc[0]
    assert [row[name] for name in ("bid", "ask", "delta", "underlying_price")] == [
        line[name] for name in ("bid", "ask", "delta", "underlying_price")
    ]
    assert stored["implied_volatility"].isna().all()


def test_the_real_apple_chain_around_its_seven_for_one_split(shared_data: Path) -> None:
    mapping = {"bid": "bid_close", "ask": "ask_close"}
    path = shared_data / "options" / "aapl_2014-06.csv.gz"
    report, stored = ingest("AAPL", path, mapping=mapping)
    assert (report.total.new, report.total.refused) == (4532, 0)
    before, after = (stored[stored["session"] == date(2014, 6, day)] for day in (6, 9))
    # 265 a share before is 265 / 7 = 37.857 after, listed as 37.86; monthlies of that time expire on a Saturday.
    assert "AAPL140621C00265000" in set(before["occ_symbol"])
    assert "AAPL140621C00037860" in set(after["occ_symbol"])
    assert not set(before["occ_symbol"]) & set(after["occ_symbol"])
    assert date(2014, 6, 21).weekday() == 5
    with gzip.open(path, "rt") as file:
        lines = file.read().splitlines()
    assert lines[1] == "AAPL,call,490.0,2014-06-06,2014-06-06,159.45,159.45,153.75,153.75,20,160.5,162.5,156.45,157.2,6,0"
    row = before[before["occ_symbol"] == "AAPL140606C00490000"].iloc[0]
    assert [row[name] for name in ("bid", "ask", "bid_size", "ask_size", "open_interest")] == [153.75, 157.2, 20, 6, 0]
    no_bid = sum(not line.split(",")[8] for line in lines[1:])
    assert stored["bid"].isna().sum() == no_bid == 355


def test_the_real_spy_chain_of_2021_with_greeks(shared_data: Path) -> None:
    path = shared_data / "options" / "spy_2021h1_sparse.csv.gz"
    report, stored = ingest("SPY", path, mapping={"time": "quotedate"})
    raw = pd.read_csv(path)
    assert (report.total.new, report.total.refused) == (len(raw), 0) == (2480, 0)
    both = stored.assign(day=stored["session"].astype(str)).merge(
        raw, left_on=["occ_symbol", "day"], right_on=["optionroot", "quotedate"], suffixes=("", "_raw")
    )
    assert len(both) == len(raw)
    for ours, theirs in (("implied_volatility", "impliedvol"), ("open_interest", "openinterest"), ("delta", "delta_raw")):
        assert (both[ours] == both[theirs]).all()


@pytest.mark.parametrize(("symbol", "rows"), [("AAPL", 322), ("QQQ", 1506)])
def test_the_real_chains_in_yahoos_columns(shared_data: Path, symbol: str, rows: int) -> None:
    path = shared_data / "options" / f"yfinance_schema_{symbol}_2026-06.parquet"
    report, stored = ingest(symbol, path, quoted_at="2026-06-25T20:15:00Z")
    assert (report.total.new, report.total.refused) == (rows, 0)
    assert set(stored["session"]) == {date(2026, 6, 25)}
    raw = pd.read_parquet(path).set_index("contractSymbol")
    stored = stored.set_index("occ_symbol").loc[raw.index]
    assert (stored["bid"] == raw["bid"]).all()
    assert (stored["implied_volatility"] == raw["impliedVolatility"]).all()
    assert (stored["underlying_price"] == raw["spot"]).all()
    assert (stored["multiplier"] == 100).all()  # contractSize says REGULAR
