"""Features on panels with splits, dividends and a delisting inside: adjusted prices must not tell what came later."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.catalogue import CATALOGUE
from features.engine import compute
from features.leakage import check_catalogue
from features.panel import Adjust, MarketPanel
from features.point_in_time import PanelRequest, load_panel, read_panel
from lake import Lake, Snapshot
from tests.features.lakes import action, at, bars, lake_in, put, split
from tests.features.panels import FIELDS, walk

WALK = walk(820, 3, seed=7)
SPLITS = {"S0": ((150, 2.0), (310, 7.0)), "S1": ((200, 0.1),)}
PAYMENTS = {"S0": range(40, 820, 60), "S1": range(63, 820, 63)}
DELISTED = 330  # S2's first session without a bar


def rows_of(symbol: str) -> list[dict[str, Any]]:
    """The walk as traded: from each split on, prices are divided by its ratio and volume is multiplied with it."""
    shares = np.ones(len(WALK.sessions))
    for place, ratio in SPLITS.get(symbol, ()):
        shares[place:] *= ratio
    last = DELISTED if symbol == "S2" else len(shares)
    traded = {name: getattr(WALK, name)[symbol].to_numpy() * (shares if name == "volume" else 1 / shares) for name in FIELDS}
    rows = bars(symbol, {f"{day:%Y-%m-%d}": 1.0 for day in WALK.sessions[:last]})
    return [row | {name: float(traded[name][place]) for name in FIELDS} for place, row in enumerate(rows)]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    lake = lake_in(tmp_path_factory.mktemp("adjusted"))
    day = [f"{one:%Y-%m-%d}" for one in WALK.sessions]
    put(lake, "equity_bars", [row for symbol in WALK.symbols for row in rows_of(symbol)])
    put(lake, "corporate_actions", [split(symbol, day[place], ratio) for symbol in SPLITS for place, ratio in SPLITS[symbol]])
    paid = []
    for symbol, places in PAYMENTS.items():
        closes = [row["close"] for row in rows_of(symbol)]
        paid += [action(symbol, day[place], "dividend", 0.02 * closes[place]) for place in places]
    put(lake, "corporate_actions", [*paid, action("S2", day[DELISTED], "delisting", 3.5)])
    return lake.publish()


def panel_of(snapshot: Snapshot, adjust: Adjust, last: pd.Timestamp | None = None) -> MarketPanel:
    panel = load_panel(snapshot, WALK.symbols, end=None if last is None else last.date(), adjust=adjust)
    return replace(panel, macro={name: series.loc[panel.sessions] for name, series in WALK.macro.items()})


@pytest.mark.parametrize("adjust", ["splits", "total"])
def test_the_catalogue_passes_the_leakage_check_on_an_adjusted_panel(snapshot: Snapshot, adjust: Adjust) -> None:
    report = check_catalogue(panel_of(snapshot, adjust), cuts=5, rng=np.random.default_rng(5))
    assert report.leaks == ()
    assert report.unproven == ()


@pytest.mark.parametrize("adjust", ["splits", "total"])
def test_features_are_the_same_whether_the_lake_is_read_to_that_day_or_years_on(snapshot: Snapshot, adjust: Adjust) -> None:
    # Not a cut of a panel: each read computes its own factors, with the actions up to its own end.
    later = compute(panel_of(snapshot, adjust), tuple(CATALOGUE))
    compared = 0
    for place in (149, 150, 200, 340, 790):
        then = compute(panel_of(snapshot, adjust, WALK.sessions[place]), tuple(CATALOGUE))
        for name, frame in then.items():
            np.testing.assert_allclose(frame, later[name].loc[: WALK.sessions[place]], rtol=1e-7, atol=1e-9, err_msg=name)
            compared += int(frame.notna().to_numpy().sum())
    assert compared > 50_000


def test_levels_of_adjusted_prices_do_know_later_actions_and_those_as_traded_do_not(snapshot: Snapshot) -> None:
    place = WALK.sessions[149]  # the day before the first split
    expected: dict[Adjust, bool] = {"splits": False, "total": False, "none": True}
    for adjust, same in expected.items():
        then = panel_of(snapshot, adjust, place).close["S0"].iloc[-1]
        assert (then == panel_of(snapshot, adjust).close.loc[place, "S0"]) is np.bool_(same)


def test_adjusted_returns_are_those_of_the_walk_and_its_payments(snapshot: Snapshot) -> None:
    by_splits = panel_of(snapshot, "splits").close.pct_change(fill_method=None)
    np.testing.assert_allclose(by_splits[["S0", "S1"]].iloc[1:], WALK.close[["S0", "S1"]].pct_change().iloc[1:], atol=1e-12)
    total = panel_of(snapshot, "total").close.pct_change(fill_method=None)
    for symbol, places in PAYMENTS.items():
        raw = pd.Series([row["close"] for row in rows_of(symbol)], index=WALK.sessions)
        splits = dict(SPLITS[symbol])
        for place in places:
            # Who paid P the day before holds the new shares and the cash on each; the payment is taken out of P.
            ratio = splits.get(place, 1.0)
            cash = 0.02 * raw.iloc[place] * ratio
            expected = raw.iloc[place] * ratio / (raw.iloc[place - 1] - cash) - 1
            assert total[symbol].iloc[place] == pytest.approx(expected, abs=1e-12)


def test_nothing_is_carried_past_a_delisting(snapshot: Snapshot) -> None:
    panel = panel_of(snapshot, "total")
    gone = WALK.sessions[DELISTED]
    assert panel.companies["S2"].delisted == gone.date()
    assert panel.companies["S2"].final_value == 3.5
    for name in FIELDS:
        assert getattr(panel, name).loc[gone:, "S2"].isna().all()
    values = compute(panel, [name for name, feature in CATALOGUE.items() if not feature.macro])
    carried = {name: int(frame.loc[gone:, "S2"].notna().sum()) for name, frame in values.items()}
    assert {name: count for name, count in carried.items() if count} == {}


def test_a_row_is_known_only_once_the_action_that_adjusts_it_is(tmp_path: Path) -> None:
    lake: Lake = lake_in(tmp_path)
    days = ("2018-06-04", "2018-06-05", "2018-06-06")
    put(lake, "equity_bars", bars("AAA", dict(zip(days, (60.0, 66.0, 33.0), strict=True))) + bars("BBB", dict.fromkeys(days, 1.0)))
    late: datetime = at("2018-06-20", "07:00")
    put(lake, "corporate_actions", [split("AAA", days[1], 2.0, available=late), split("AAA", days[2], 2.0)])
    _, known_at = read_panel(lake.publish(), PanelRequest(symbols=("AAA", "BBB")))
    closes = [pd.Timestamp(at(day, "20:00")) for day in days]
    assert list(known_at["AAA"]) == [closes[0], pd.Timestamp(late), pd.Timestamp(late)]
    assert list(known_at["BBB"]) == closes
