"""The daily chain: a late day is caught up with, a day run twice adds nothing, and what cannot be traded says why."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from config.clock import SystemClock
from config.errors import TradingHalted
from config.settings import Settings, load_settings
from execution.journal import Journal, account_folder
from flows.daily import DailyResearch, PaperOutcome, daily_research_flow
from flows.ingest_equity import ingest_equity_flow
from flows.trade import played_sessions
from lake import open_lake
from tests.flows.paper_home import promote_to_paper

ASK: dict[str, Any] = {"symbols": ["SP500"], "series": ["BAA"]}
FAST, HOLD = "sma_crossover", "buy_and_hold"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose lake holds the S&P 500 of 2018, with two strategies on paper."""
    folder = tmp_path_factory.mktemp("daily")
    settings = load_settings({"home": str(folder)}, environ={})
    ingest_equity_flow(["SP500"], "2018-01-02", "2018-12-20", settings=settings)
    promote_to_paper(settings, {"name": FAST, "fast": 2, "slow": 5}, ["SP500"])
    promote_to_paper(settings, {"name": HOLD}, ["SP500"])
    return folder


def account_of(house: Path, name: str) -> Settings:
    """The house with paper accounts that no other test uses."""
    return load_settings({"home": str(house), "execution.account": name})


def run(settings: Settings, day: str) -> DailyResearch:
    done: DailyResearch = daily_research_flow(day, settings=settings, **ASK)
    return done


def paper(done: DailyResearch, strategy: str) -> PaperOutcome:
    (found,) = [one for one in done.paper if one.strategy == strategy]
    return found


def book(settings: Settings, account: str) -> list[tuple[date, str, str]]:
    with Journal.read(account_folder(settings.home_path, account)) as journal:
        return [(fill.session, str(fill.quantity), str(fill.price)) for fill in journal.fills()]


def test_days_made_up_later_give_the_account_that_every_day_would_have_given(house: Path) -> None:
    each, late = account_of(house, "each"), account_of(house, "late")
    days = ("2018-12-24", "2018-12-26", "2018-12-27", "2018-12-28", "2018-12-31")
    every = [paper(run(each, day), FAST) for day in days]
    run(late, days[0])
    last = run(late, days[-1])
    made_up = paper(last, FAST)
    assert [one.sessions for one in every] == [1, 2, 3, 4, 5]
    assert (made_up.outcome, made_up.sessions) == ("traded", 5)
    assert made_up.equity == every[-1].equity
    assert book(late, made_up.account) == book(each, every[-1].account)
    # It traded on a day that was made up, so the comparison says something.
    assert any(date(2018, 12, 24) < session <= date(2018, 12, 31) for session, _, _ in book(late, made_up.account))
    # The account begins at the close before its first day: 21 December, a Friday.
    assert played_sessions(late, made_up.account)[:2] == (date(2018, 12, 21), date(2018, 12, 24))

    again = run(late, days[-1])
    assert (paper(again, FAST).outcome, paper(again, FAST).sent) == ("unchanged", 0)
    assert again.ingest.reports[0].outcome == "unchanged"
    assert again.feature_set == last.feature_set
    assert book(late, made_up.account) == book(each, every[-1].account)

    earlier = paper(run(late, "2018-12-28"), FAST)
    assert (earlier.outcome, earlier.reason) == ("skipped", "its account stands at 2018-12-31 already")


def test_the_first_days_equity_is_what_bars_and_costs_say_and_a_halt_stops_the_chain(house: Path) -> None:
    settings = account_of(house, "one")
    done = paper(run(settings, "2018-12-27"), HOLD)
    rows = open_lake(settings).snapshot().read("equity_bars", start=date(2018, 12, 26), end=date(2018, 12, 27)).to_pydict()
    before, opened, closed = rows["close"][0], rows["open"][1], rows["close"][1]
    convention = settings.trading_convention()
    assert convention.cash_interest_ann == 0.0
    # What 100,000 buys at the close of 26 December, costs included; the market opened lower, so a little cash is left.
    costs = (1 + convention.slippage) * (1 + convention.fee)
    shares = convention.initial_cash / (before * costs)
    assert opened < before
    left = convention.initial_cash - shares * opened * costs
    assert done.equity == pytest.approx(left + shares * closed, rel=1e-9)
    assert (done.sent, done.fills) == (1, 1)

    folder = account_folder(settings.home_path, done.account)
    with Journal.open(folder, done.account, clock=SystemClock()) as journal:
        journal.halt("a test")
    with pytest.raises(TradingHalted):
        run(settings, "2018-12-28")
    assert played_sessions(settings, done.account)[-1] == date(2018, 12, 27)
    with Journal.open(folder, done.account, clock=SystemClock()) as journal:
        journal.resume("over")
    after = paper(run(settings, "2018-12-28"), HOLD)
    assert (after.outcome, after.sessions) == ("traded", 2)


def test_a_day_without_a_session_and_one_without_bars_trade_nothing_and_say_why(house: Path) -> None:
    settings = account_of(house, "none")
    holiday = run(settings, "2018-12-25")
    assert holiday.ingest.skipped == "2018-12-25 is not a session of XNYS"
    assert holiday.paper == ()
    # A session, but the bundled bars end in 2018.
    stale = paper(run(settings, "2019-01-02"), HOLD)
    assert stale.outcome == "skipped"
    assert "no bar of SP500 on 2019-01-02" in stale.reason
    assert played_sessions(settings, stale.account) == ()


def test_without_anything_on_paper_the_day_is_ingested_and_featured_only() -> None:
    settings = load_settings()
    done: DailyResearch = daily_research_flow("2018-12-31", lookback_days=10, settings=settings, **ASK)
    assert done.paper == ()
    assert f"features/{done.feature_set}" in open_lake(settings).tables()
