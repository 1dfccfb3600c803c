"""`quant ingest … --source yahoo`, the whole way: the real command and the real yfinance against a fake Yahoo behind a proxy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from config.clock import FixedClock
from config.settings import Settings, load_settings
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_options import ingest_options_flow
from flows.ingest_report import IngestReport
from lake import open_lake
from lake.adjustment import adjusted_bars
from tests.flows.demo_home import quant
from tests.replay import Fault, ReplayServer
from tests.replay.yahoo_service import Listing, YahooService

DAYS = pd.DatetimeIndex(["2020-08-25", "2020-08-26", "2020-08-27", "2020-08-28", "2020-08-31"])
NAMES = [f"S{number:02d}" for number in range(19)]
BEFORE, AFTER = datetime(2020, 8, 28, 22, tzinfo=UTC), datetime(2020, 8, 31, 22, tzinfo=UTC)


def listing(closes: list[float], **more: object) -> Listing:
    """A listing that trades on `DAYS` at these closes."""
    close = np.array(closes)
    opens = np.concatenate([close[:1], close[:-1]])
    bars = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close), "close": close, "volume": 1000.0}
    return Listing(bars=pd.DataFrame(bars, index=DAYS), **more)  # type: ignore[arg-type]


def split_listing() -> Listing:
    """Ex 4:1 on the last day, on which it opens at a quarter of the close before."""
    made = listing([499.3, 506.09, 500.04, 499.23, 129.04], splits={date(2020, 8, 31): (4, 1)})
    made.bars.loc["2020-08-31", ["open", "high", "low"]] = [127.58, 131.0, 126.0]
    return made


def market() -> dict[str, Listing]:
    """Nineteen symbols that move by a per cent, and one that splits."""
    rng = np.random.default_rng(20200831)
    walks = {name: np.round(50 * np.cumprod(1 + 0.01 * rng.standard_normal(len(DAYS))), 2).tolist() for name in NAMES}
    return {**{name: listing(walk) for name, walk in walks.items()}, "SPLT": split_listing()}


def stored(home: Path, table: str) -> pd.DataFrame:
    snapshot = open_lake(load_settings({"home": str(home)})).snapshot()
    frame: pd.DataFrame = snapshot.read(table).to_pandas()
    return frame


def settings_for(server: ReplayServer, home: Path) -> Settings:
    """Yahoo's hosts below the server's address, without waiting between requests."""
    return load_settings(
        {
            "home": str(home),
            "data.addresses": {"yahoo": f"http://127.0.0.1:{server.port}"},
            "data.seconds_between_requests": {"yahoo": 0.0},
        }
    )


def command(names: list[str]) -> tuple[str, ...]:
    return ("ingest", "equity", "--source", "yahoo", "--symbols", ",".join(names), "--json")


def through(server: ReplayServer) -> dict[str, str]:
    """The environment of a command that finds Yahoo behind the server's proxy."""
    return {**server.proxy_environment(), "QUANT_DATA__SECONDS_BETWEEN_REQUESTS__YAHOO": "0"}


def by_command(server: ReplayServer, home: Path) -> dict[str, Any]:
    said = quant(home, *command([*NAMES, "SPLT"]), env=through(server))
    assert said.code == 0, said.err
    return said.document


def in_process(server: ReplayServer, home: Path) -> dict[str, Any]:
    settings = load_settings({"home": str(home), "data.seconds_between_requests": {"yahoo": 0.0}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.ingest_ask.FIRST_DELAY_SECONDS", 0.0)
        for name, value in server.proxy_environment().items():
            patch.setenv(name, value)
        return ingest_equity_flow([*NAMES, "SPLT"], source="yahoo", settings=settings).as_dict()


@pytest.mark.parametrize("run", [in_process, pytest.param(by_command, marks=pytest.mark.slow)])
def test_a_day_and_a_split_later_the_history_is_as_it_was_traded(
    tmp_path: Path, run: Callable[[ReplayServer, Path], dict[str, Any]]
) -> None:
    home, service = tmp_path / "home", YahooService(market(), BEFORE)
    asked_to_wait = Fault(kind="429", match="chart/S03.*period1", nth=1, retry_after="0")
    with ReplayServer(services=[service], faults=[asked_to_wait]) as server:
        first = run(server, home)
        assert {one["outcome"] for one in first["outcomes"]} == {"stored"}
        assert first["rows"]["new"] == 20 * 4
        asked = [question for question in server.asked if "chart/S03" in question.words and "period1" in question.query]
        assert [question.status for question in asked] == [429, 200]
        before = stored(home, "equity_bars")
        assert not server.errors

        service.now = AFTER
        second = run(server, home)
        tables = second["tables"]
        assert (tables["equity_bars"]["new"], tables["equity_bars"]["revised"], tables["corporate_actions"]["new"]) == (20, 0, 1)

        third = run(server, home)
        assert (third["rows"]["new"], third["rows"]["revised"], third["snapshot_id"]) == (0, 0, second["snapshot_id"])

    after = stored(home, "equity_bars")
    columns = ["symbol", "session", "open", "high", "low", "close", "volume", "ingest_id"]
    kept = after.loc[after["session"].isin(before["session"]), columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before[columns], check_exact=True)
    for name, one in service.listings.items():
        assert after.loc[after["symbol"] == name, "close"].tolist() == one.bars["close"].tolist(), name
    actions = stored(home, "corporate_actions")
    assert actions[["symbol", "ex_date", "kind", "value"]].values.tolist() == [["SPLT", date(2020, 8, 31), "split", 4.0]]

    snapshot = open_lake(load_settings({"home": str(home)})).snapshot()
    adjusted = adjusted_bars(snapshot, ["SPLT"], adjust="splits").to_pandas()
    assert adjusted["close"].tolist() == pytest.approx([499.3 / 4, 506.09 / 4, 500.04 / 4, 499.23 / 4, 129.04])
    assert abs(adjusted["close"].pct_change().dropna()).max() < 0.04  # no day on which three quarters were lost


def test_one_symbol_that_fails_does_not_fail_nineteen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.ingest_ask.FIRST_DELAY_SECONDS", 0.0)
    service = YahooService(market(), AFTER)
    with ReplayServer(services=[service], faults=[Fault(kind="500", match="chart/S07")]) as server:
        settings, clock = settings_for(server, tmp_path / "home"), FixedClock(AFTER)
        report = ingest_equity_flow([*NAMES, "SPLT"], source="yahoo", settings=settings, clock=clock)
        failed = {one.name: one for one in report.names}.pop("S07")
        assert (failed.outcome, [one.outcome for one in report.names].count("stored")) == ("failed", 19)
        assert "answered 500" in str(failed.message)
        assert "delisted" not in str(failed.message)
        server.faults = []
        healed = ingest_equity_flow([*NAMES, "SPLT"], source="yahoo", settings=settings, clock=clock)
    assert {one.name: one.outcome for one in healed.names if one.outcome != "unchanged"} == {"S07": "stored"}
    assert healed.total.new == 5


def test_a_split_that_yahoo_applies_before_it_lists_it_never_makes_a_false_return(tmp_path: Path) -> None:
    service = YahooService(market(), BEFORE)
    split = service.listings["SPLT"]
    clock = FixedClock(BEFORE)

    def day_by_day() -> tuple[IngestReport, list[float]]:
        service.now = clock.now()
        report = ingest_equity_flow("SPLT", source="yahoo", settings=settings_for(server, home), clock=clock)
        snapshot = open_lake(load_settings({"home": str(home)})).snapshot()
        return report, adjusted_bars(snapshot, ["SPLT"], adjust="splits")["close"].to_pylist()

    home = tmp_path / "home"
    with ReplayServer(services=[service]) as server:
        assert day_by_day()[1] == pytest.approx([499.3, 506.09, 500.04, 499.23])
        clock.move_to(AFTER)
        split.unlisted = [date(2020, 8, 31)]
        unlisted, closes = day_by_day()
        assert unlisted.names[0].refetched is not None  # every stored bar differs, and the report says so
        assert closes == pytest.approx([499.3 / 4, 506.09 / 4, 500.04 / 4, 499.23 / 4, 129.04], rel=1e-6)
        clock.move_to(AFTER + timedelta(days=1))
        split.unlisted = []
        listed, closes = day_by_day()
        assert closes == pytest.approx([499.3 / 4, 506.09 / 4, 500.04 / 4, 499.23 / 4, 129.04], rel=1e-6)
        assert listed.tables["corporate_actions"].new == 1
    assert stored(home, "equity_bars")["close"].tolist() == [499.3, 506.09, 500.04, 499.23, 129.04]


def test_intraday_bars_grow_day_by_day_beside_the_daily_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = YahooService(market(), BEFORE)
    spans = [
        pd.date_range(f"{day.date()} 13:30", f"{day.date()} 20:00", freq="min", inclusive="left", tz="UTC") for day in DAYS[-2:]
    ]
    index = spans[0].append(spans[1])
    price = 500 + 0.01 * np.arange(len(index))
    price[len(spans[0]) :] /= 4
    columns = dict.fromkeys(("open", "high", "low", "close"), price)
    service.listings["SPLT"].minutes = pd.DataFrame({**columns, "volume": 10.0}, index=index)
    with ReplayServer(services=[service]) as server:
        settings, clock = settings_for(server, tmp_path / "home"), FixedClock(BEFORE)
        monkeypatch.setattr("flows.sources.yahoo.SystemClock", lambda: clock)  # Yahoo has intraday bars of sixty days only
        ingest_equity_flow("SPLT", source="yahoo", settings=settings, clock=clock)
        first = ingest_equity_flow("SPLT", source="yahoo", interval="5m", settings=settings, clock=clock)
        service.now = AFTER
        clock.move_to(AFTER)
        second = ingest_equity_flow("SPLT", source="yahoo", interval="5m", settings=settings, clock=clock)
    assert (first.tables["equity_bars"].new, second.tables["equity_bars"].new, second.tables["equity_bars"].revised) == (78, 78, 0)
    bars = stored(tmp_path / "home", "equity_bars")
    assert bars.groupby("interval").size().to_dict() == {"1d": 4, "5m": 156}
    opens = bars.loc[bars["interval"] == "5m", "open"].tolist()
    assert opens == pytest.approx(
        np.concatenate([500 + 0.05 * np.arange(78), (503.9 + 0.05 * np.arange(78)) / 4]).tolist(), rel=1e-6
    )


@pytest.mark.slow
def test_the_command_says_by_its_exit_code_that_a_symbol_failed(tmp_path: Path) -> None:
    with ReplayServer(services=[YahooService(market(), AFTER)], faults=[Fault(kind="500", match="chart/S07")]) as server:
        said = quant(
            tmp_path / "home", *command(["S06", "S07"]), env=through(server)
        )  # waits 2, 4 and 8 seconds before it gives up
    assert said.code == 5, said.err
    assert {one["symbol"]: one["outcome"] for one in said.document["outcomes"]} == {"S06": "stored", "S07": "failed"}


def test_a_symbol_that_yahoo_does_not_have_fails_nobody(tmp_path: Path) -> None:
    service = YahooService(market(), AFTER)
    with ReplayServer(services=[service]) as server:
        settings = settings_for(server, tmp_path / "home")
        report = ingest_equity_flow(["S01", "GONE"], source="yahoo", settings=settings, clock=FixedClock(AFTER))
    outcomes = {one.name: one for one in report.names}
    assert (outcomes["S01"].outcome, outcomes["GONE"].outcome) == ("stored", "missing")
    assert "No data found" in str(outcomes["GONE"].message)


def chains_of_acme() -> tuple[Listing, list[date]]:
    """Two expiries to come: the command asks the machine's clock, and a contract is not quoted once it has expired."""
    from tests.flows.test_sources_yahoo_options import BARS, contract

    near, far = ((datetime.now(UTC) + timedelta(days=days)).date() for days in (30, 60))
    chains = {near: [contract(near, "C", 225.0), contract(near, "P", 225.0)], far: [contract(far, "C", 232.5)]}
    return Listing(bars=BARS, chains=chains), [near, near, far]


def test_option_chains_are_stored(tmp_path: Path) -> None:
    listing, expiries = chains_of_acme()
    with ReplayServer(services=[YahooService({"ACME": listing}, AFTER)]) as server:
        report = ingest_options_flow(["ACME", "NOPE"], "yahoo", settings=settings_for(server, tmp_path / "home"))
    assert {one.name: one.outcome for one in report.names} == {"ACME": "stored", "NOPE": "missing"}
    rows = stored(tmp_path / "home", "option_quotes")
    assert sorted(rows["expiry"]) == expiries
    assert set(rows["bid"]) == {5.4}


@pytest.mark.slow
def test_option_chains_are_stored_by_the_command(tmp_path: Path) -> None:
    listing, expiries = chains_of_acme()
    words = ("ingest", "options", "--source", "yahoo", "--symbols", "ACME", "--json")
    with ReplayServer(services=[YahooService({"ACME": listing}, AFTER)]) as server:
        said = quant(tmp_path / "home", *words, env=through(server))
        assert said.code == 0, said.err
    rows = stored(tmp_path / "home", "option_quotes")
    assert sorted(rows["expiry"]) == expiries
    assert set(rows["data_kind"]) == {"real"}
    assert (tmp_path / "home" / "cache" / "yfinance").is_dir()
