"""The modelled chain over real closes and the real VIX: what it gives back, what it lists, when it is known."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from config.clock import FixedClock
from config.errors import DataError, InputError, UnknownNameError
from config.hashing import sha256_bytes
from config.settings import Settings, load_settings
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_macro import ingest_macro_flow
from flows.ingest_options import ingest_options_flow
from flows.sources.base import get_source
from flows.sources.chain_model import ChainModel, monthly_expiries
from flows.sources.modelled_options import ChainInputs, ModelledChain, build_chain, read_inputs
from lake import open_lake
from risk.greeks import implied_volatility

CLOCK = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
YEAR_MINUTES, MONTH_MINUTES = 525_600.0, 43_200.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake that holds the bundled S&P 500 and VIX."""
    settings = load_settings({"home": str(tmp_path_factory.mktemp("modelled"))}, environ={})
    ingest_equity_flow(["SP500"], None, None, settings=settings, clock=CLOCK)
    ingest_macro_flow(series=["VIXCLS"], settings=settings, clock=CLOCK)
    return settings


@pytest.fixture(scope="module")
def inputs(home: Settings) -> ChainInputs:
    """All sessions from 2013 on."""
    return read_inputs(open_lake(home).snapshot(), "SP500", "VIXCLS", date(2013, 6, 3), None, ChainModel())


@pytest.fixture(scope="module")
def chain(inputs: ChainInputs) -> ModelledChain:
    """The chain of every session that has a VIX."""
    return build_chain(inputs, ChainModel())


@pytest.fixture(scope="module")
def rows(chain: ModelledChain) -> pd.DataFrame:
    """Its quotes."""
    return chain.rows.to_pandas()


def strip_variance_in_words(quotes: dict[float, dict[str, tuple[float, float]]], years: float, rate: float) -> float:
    """Cboe's method, step by step, for one expiry: {strike: {"C": (bid, ask), "P": (bid, ask)}}."""
    strikes = sorted(quotes)
    mid = {k: {right: sum(pair) / 2 for right, pair in sides.items()} for k, sides in quotes.items()}
    both = [k for k in strikes if len(mid[k]) == 2]
    at = min(both, key=lambda k: abs(mid[k]["C"] - mid[k]["P"]))
    forward = at + math.exp(rate * years) * (mid[at]["C"] - mid[at]["P"])
    centre = max(k for k in both if k <= forward)
    chosen = {centre: (mid[centre]["C"] + mid[centre]["P"]) / 2}
    for right, outwards in (("P", [k for k in reversed(strikes) if k < centre]), ("C", [k for k in strikes if k > centre])):
        zeros = 0
        for k in outwards:
            if right not in quotes[k]:
                continue
            zeros = zeros + 1 if quotes[k][right][0] == 0 else 0
            if zeros == 2:
                break
            if zeros == 0:
                chosen[k] = mid[k][right]
    used = sorted(chosen)
    total = 0.0
    for i, k in enumerate(used):
        low, high = used[max(i - 1, 0)], used[min(i + 1, len(used) - 1)]
        total += (high - low) / (2 if 0 < i < len(used) - 1 else 1) / k**2 * math.exp(rate * years) * chosen[k]
    return 2 / years * total - (forward / centre - 1) ** 2 / years


def index_of(session: pd.DataFrame, rate: float) -> float:
    """The volatility index of one session's quotes."""
    by_expiry: dict[date, dict[float, dict[str, tuple[float, float]]]] = defaultdict(lambda: defaultdict(dict))
    for expiry, strike, right, bid, ask in zip(*(session[c] for c in ("expiry", "strike", "right", "bid", "ask")), strict=True):
        by_expiry[expiry][strike][right] = (bid, ask)
    day = session["session"].iloc[0]
    near = max((e for e in by_expiry if (e - day).days <= 30), default=min(by_expiry))
    following = min(e for e in by_expiry if e > near)
    moment = session["quote_time"].iloc[0]
    minutes = [
        (pd.Timestamp(e).tz_localize("America/New_York") + pd.Timedelta(hours=16) - moment).total_seconds() / 60
        for e in (near, following)
    ]
    variances = [
        strip_variance_in_words(by_expiry[e], m / YEAR_MINUTES, rate) for e, m in zip((near, following), minutes, strict=True)
    ]
    weight = (minutes[1] - MONTH_MINUTES) / (minutes[1] - minutes[0])
    parts = [m / YEAR_MINUTES * v for m, v in zip(minutes, variances, strict=True)]
    return 100 * math.sqrt((parts[0] * weight + parts[1] * (1 - weight)) * YEAR_MINUTES / MONTH_MINUTES)


def test_the_quotes_give_back_the_real_vix_on_every_session(rows: pd.DataFrame, inputs: ChainInputs) -> None:
    found = pd.Series({day: index_of(part, 0.01) for day, part in rows.groupby("session")})
    real = inputs.index.dropna()
    assert list(pd.DatetimeIndex(found.index)) == list(real.index)
    error = np.abs(found.to_numpy() - real.to_numpy())
    assert len(error) == 1257
    assert error.mean() < 0.01  # the issue asks for 0.5
    assert error.max() < 0.05


def test_at_the_money_volatility_lies_below_the_index_as_in_the_market(rows: pd.DataFrame, inputs: ChainInputs) -> None:
    days = (pd.to_datetime(rows["expiry"]) - pd.to_datetime(rows["session"])).dt.days
    calls = rows[(rows["right"] == "C") & days.between(25, 36)].assign(
        days=days, away=(rows["strike"] / rows["underlying_price"] - 1).abs()
    )
    nearest = calls.sort_values(["session", "away"]).drop_duplicates("session")
    mid = (nearest["bid"] + nearest["ask"]) / 2
    volatility = implied_volatility(
        True, mid, nearest["underlying_price"], nearest["strike"], (nearest["days"] - 0.01) / 365, 0.01, 0.02
    )
    ratio = 100 * volatility / inputs.index.reindex(pd.to_datetime(nearest["session"])).to_numpy()
    assert len(ratio) > 400
    # Near 0.84 of VIX in the market: the index also counts the wings.
    assert 0.80 < ratio.mean() < 0.88


def test_quotes_leave_no_arbitrage_along_the_strikes_and_enclose_the_model(rows: pd.DataFrame) -> None:
    ordered = rows.sort_values(["session", "expiry", "right", "strike"])
    same = (ordered[["session", "expiry", "right"]] == ordered[["session", "expiry", "right"]].shift()).all(axis=1)
    sign = np.where(ordered["right"] == "C", -1.0, 1.0)
    for side in ("bid", "ask"):
        step = ordered[side].diff() * sign
        assert (step[same] >= -1e-9).all(), side
    assert (rows["bid"] >= 0).all()
    assert (rows["ask"] > rows["bid"]).all()


def test_quotes_lie_on_nickels_below_three_and_dimes_above(rows: pd.DataFrame) -> None:
    for side in ("bid", "ask"):
        cents = (rows[side] * 100).round(6)
        tick = np.where(rows[side] < 3, 5, 10)
        assert ((cents - cents.round()).abs() < 1e-6).all()
        assert (cents.round().astype(int) % tick == 0).all()


def test_sessions_list_thirty_to_sixty_days_and_one_expiry_beyond(rows: pd.DataFrame) -> None:
    days = (pd.to_datetime(rows["expiry"]) - pd.to_datetime(rows["session"])).dt.days
    by_session = days.groupby(rows["session"])
    inside = by_session.apply(lambda d: d.between(30, 60).any())
    # Two third Fridays 35 days apart straddle the window for a few days: 26 to 29 and 61 to 64.
    assert inside.mean() > 0.95
    assert all(days[rows["session"] == day].between(26, 64).any() for day in inside.index[~inside])
    assert (by_session.max() > 60).all()
    assert by_session.min().min() >= 1
    per_session = rows.groupby("session").size()
    assert 100 <= per_session.mean() <= 250


def test_a_contract_once_listed_is_quoted_every_session_until_it_expires(rows: pd.DataFrame) -> None:
    sessions = {day: number for number, day in enumerate(sorted(rows["session"].unique()))}
    number = rows["session"].map(sessions)
    life = number.groupby(rows["occ_symbol"]).agg(["min", "max", "size"])
    assert (life["max"] - life["min"] + 1 == life["size"]).all()
    expiry = rows.drop_duplicates("occ_symbol").set_index("occ_symbol")["expiry"]
    ended = life[life["max"] < max(sessions.values())]
    last_day = pd.Series({at: day for day, at in sessions.items()})[ended["max"]].to_numpy()
    assert all(0 < (expiry[symbol] - day).days <= 4 for symbol, day in zip(ended.index, last_day, strict=True))


def test_every_row_says_modelled_and_is_known_a_quarter_hour_after_the_close(rows: pd.DataFrame) -> None:
    assert set(rows["source"]) == set(rows["data_kind"]) == {"modelled"}
    assert (rows["available_at"] >= rows["quote_time"]).all()
    times = rows.drop_duplicates("session").set_index("session")["quote_time"]
    assert times[date(2014, 7, 2)] == pd.Timestamp("2014-07-02 20:15", tz="UTC")
    assert times[date(2014, 11, 28)] == pd.Timestamp("2014-11-28 18:15", tz="UTC")  # the day after Thanksgiving closes at 13:00
    assert set(rows["settlement"]) == {"pm_cash"}
    assert rows[["volume", "open_interest", "bid_size", "last"]].isna().all().all()


def test_occ_symbols_name_underlying_expiry_right_and_strike(rows: pd.DataFrame) -> None:
    row = rows[(rows["session"] == date(2014, 1, 3)) & (rows["strike"] == 1830.0) & (rows["right"] == "C")].iloc[0]
    assert row["occ_symbol"] == "SP500140117C01830000"
    assert row["expiry"] == date(2014, 1, 17)


def test_monthlies_are_third_fridays_or_the_day_before_a_closed_one() -> None:
    found = monthly_expiries(date(2014, 1, 1), date(2014, 6, 30))
    # Good Friday was 2014-04-18, so April's options expired on the Thursday.
    assert found == [date(2014, m, d) for m, d in ((1, 17), (2, 21), (3, 21), (4, 17), (5, 16), (6, 20))]


def test_a_later_start_or_an_earlier_end_changes_no_quote(chain: ModelledChain, home: Settings) -> None:
    window = read_inputs(open_lake(home).snapshot(), "SP500", "VIXCLS", date(2016, 5, 2), date(2016, 6, 30), ChainModel())
    part = build_chain(window, ChainModel()).rows.to_pandas()
    whole = chain.rows.to_pandas()
    same = whole[(whole["session"] >= date(2016, 5, 2)) & (whole["session"] <= date(2016, 6, 30))].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, same)


def test_sessions_without_an_index_have_no_chain(inputs: ChainInputs) -> None:
    days = pd.DatetimeIndex(["2014-02-03", "2014-02-04"])
    index = inputs.index.where(~inputs.index.index.isin(days)).loc[:"2014-02-14"]
    cut = replace(inputs, close=inputs.close.loc[:"2014-02-14"], index=index, known_at=inputs.known_at[: len(index)])
    built = build_chain(cut, ChainModel())
    assert set(days.date).isdisjoint(built.rows["session"].to_pylist())
    # 1 + 5 + 5 + 4 (no trading on Monday 20 January) + 5 in January from the 3rd, 5 + 5 in February to the 14th: 30.
    assert len(built.levels) == 30 - 2


def test_the_answer_carries_its_inputs_and_is_the_same_ingest_again(home: Settings, tmp_path: Path) -> None:
    source = get_source("modelled", "options", home)
    first, second = (next(iter(source.quotes(["SP500"], date(2018, 1, 2), date(2018, 1, 31)))) for _ in range(2))
    assert first.ingest_id == second.ingest_id
    assert first.payload == second.payload
    document: dict[str, Any] = json.loads(first.payload)
    assert document["model"]["rate_ann"] == 0.01
    # Closes of 2018-01-02: S&P 500 2,695.81, VIX 9.77 (Cboe).
    by_day = {row[0]: row for row in document["inputs"]}
    assert by_day["2018-01-02"][1:3] == [pytest.approx(2695.81, abs=0.005), 9.77]
    bars = open_lake(home).snapshot().ingest_ids("equity_bars")
    assert set(bars) <= set(first.request["input_ingest_ids"])
    assert first.response_sha256 == sha256_bytes(first.payload)
    assert any("21 of 21 sessions" in note for note in first.notes)
    other = get_source("modelled", "options", home, model=ChainModel(rate_ann=0.02))
    assert next(iter(other.quotes(["SP500"], date(2018, 1, 2), date(2018, 1, 31)))).ingest_id != first.ingest_id


def test_the_chain_goes_through_the_lake_and_comes_back(home: Settings) -> None:
    report = ingest_options_flow(["SP500"], "modelled", start_date="2018-01-02", end_date="2018-01-05", settings=home, clock=CLOCK)
    again = ingest_options_flow(["SP500"], "modelled", start_date="2018-01-02", end_date="2018-01-05", settings=home, clock=CLOCK)
    counts, repeated = report.tables["option_quotes"], again.tables["option_quotes"]
    assert counts.refused == 0
    assert counts.new == repeated.unchanged > 400
    stored = open_lake(home).snapshot().read("option_quotes", where={"underlying": "SP500"}, columns=["data_kind", "session"])
    assert set(stored["data_kind"].to_pylist()) == {"modelled"}
    assert len(set(stored["session"].to_pylist())) == 4


def test_what_cannot_be_modelled_is_refused_with_its_reason(home: Settings, tmp_path: Path) -> None:
    source = get_source("modelled", "options", home)
    with pytest.raises(UnknownNameError, match="no volatility index is known for NASDAQ"):
        next(iter(source.quotes(["NASDAQ"], None, None)))
    with pytest.raises(DataError, match="no VIXCLS on any"):
        next(iter(source.quotes(["SP500"], date(2005, 1, 3), date(2005, 3, 1))))
    with pytest.raises(InputError, match="butterfly"):
        ChainModel(curvature=2.0)
    with pytest.raises(InputError, match="two monthly expiries"):
        ChainModel(expiry_days=40)
    nasdaq = get_source("modelled", "options", home, volatility_series={"NASDAQ": "VIXCLS"})
    with pytest.raises(DataError, match="no daily closes of NASDAQ"):
        next(iter(nasdaq.quotes(["NASDAQ"], None, None)))
