"""Building feature sets: stored values, their clock, re-use, and what does not change them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from config.clock import FixedClock
from config.errors import DataError, InputError, UnknownNameError
from features import build as building
from features.build import FeatureBuild, build_features_flow
from features.catalogue import SETS, feature_set
from features.engine import compute
from features.point_in_time import load_panel
from features.store import load_features, stored_sets
from lake import Lake
from tests.features.lakes import RECORDED, at, bars, lake_in, observation, put, settings_in
from tests.features.panels import walk

NAMES = ("rsi_14", "roc_5", "sma_ratio_20", "volume_ratio_20", "vix_level", "risk_components")
PANEL = walk(60, 3)


class Spoken:
    """Progress that remembers what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, total: int | None = None) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def closes(symbol: str, rows: slice = slice(None)) -> dict[str, float]:
    return {f"{day:%Y-%m-%d}": price for day, price in PANEL.close[symbol].iloc[rows].items()}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three symbols; the second lists late, the third has closes only; VIX of every session, from 21:15 UTC on."""
    lake = lake_in(tmp_path)
    rows = bars("S0", closes("S0")) + bars("S1", closes("S1", slice(30, None))) + bars("S2", closes("S2"), closes_only=True)
    put(lake, "equity_bars", rows)
    put(lake, "macro_observations", [observation("VIXCLS", day, price, at(day, "21:15")) for day, price in closes("S1").items()])
    lake.publish()
    return lake


def build(tmp_path: Path, symbols: Any = ("S0", "S1", "S2"), **options: Any) -> FeatureBuild:
    return build_features_flow(
        symbols, **{"feature_set": NAMES, "settings": settings_in(tmp_path), "clock": FixedClock(RECORDED), **options}
    )


def stored(lake: Lake, built: FeatureBuild, symbols: tuple[str, ...] = ("S0", "S1", "S2")) -> dict[str, pd.DataFrame]:
    return load_features(lake.snapshot(built.snapshot_id), built.set_version, built.features, symbols)


def test_what_is_stored_is_what_is_computed(lake: Lake, tmp_path: Path) -> None:
    built = build(tmp_path)
    panel = load_panel(lake.snapshot(), ("S0", "S1", "S2"), macro=("VIXCLS",))
    expected = compute(panel, NAMES)
    for name, frame in stored(lake, built).items():
        pd.testing.assert_frame_equal(frame, expected[name], check_exact=True, check_freq=False, obj=name)
    assert built.rows == 60 + 30 + 60
    assert built.features == feature_set(NAMES).names
    assert built.coverage["roc_5"] == pytest.approx((55 + 25 + 55) / 150)
    assert built.coverage["volume_ratio_20"] == pytest.approx((41 + 11) / 150)
    assert built.coverage["vix_level"] == pytest.approx((59 + 30 + 59) / 150)  # no VIX yet at the first close
    assert built.absent_macro == ("AAA", "BAA")
    assert json.loads(json.dumps(built.as_dict(), allow_nan=False))["coverage"] == built.coverage


def test_rows_are_known_at_their_sessions_close_and_carry_their_origin(lake: Lake, tmp_path: Path) -> None:
    before = lake.snapshot().id
    built = build(tmp_path)
    table = f"features/{built.set_version}"
    rows = lake.snapshot().read(table, where={"symbol": "S0"}).to_pandas()
    assert rows["available_at"].iloc[0] == pd.Timestamp("1999-01-04 21:00", tz="UTC")
    assert set(rows["ingest_id"]) == {built.ingest_id}
    assert set(rows["panel_snapshot"]) == {built.panel_snapshot_id} == {before}
    early = load_features(lake.snapshot(), built.set_version, ["roc_5"], ["S0"], as_of=at("1999-01-15", "20:59"))["roc_5"]
    assert early.index[-1] == pd.Timestamp("1999-01-14")


def test_a_second_build_is_used_again_and_says_so(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(tmp_path)
    monkeypatch.setattr(building, "compute", lambda *_: pytest.fail("computed again"))
    spoken = Spoken()
    second = build(tmp_path, progress=spoken)
    assert second == replace(first, reused=True)
    assert any("re-used" in note for note in spoken.notes)


def test_new_bars_are_built_and_the_old_rows_stay(lake: Lake, tmp_path: Path) -> None:
    first = build(tmp_path)
    put(lake, "equity_bars", bars("S0", {"1999-04-05": 101.0}))
    lake.publish()
    second = build(tmp_path)
    assert not second.reused
    assert (second.set_version, second.rows) == (first.set_version, first.rows + 1)
    assert second.ingest_id != first.ingest_id
    rows = lake.snapshot().read(f"features/{first.set_version}", where={"symbol": "S0"}, columns=["ingest_id"])
    assert rows["ingest_id"].to_pylist() == [first.ingest_id] * 60 + [second.ingest_id]


def test_a_corrected_bar_makes_revisions_that_were_not_known_before(lake: Lake, tmp_path: Path) -> None:
    first = build(tmp_path)
    later = at("2026-02-01")
    put(lake, "equity_bars", bars("S0", {"1999-03-29": 500.0}), recorded_at=later)
    lake.publish()
    second = build(tmp_path, clock=FixedClock(later))
    old = load_features(lake.snapshot(), first.set_version, ["roc_5"], ["S0"], as_of=at("2026-01-15"))["roc_5"]["S0"]
    new = load_features(lake.snapshot(), second.set_version, ["roc_5"], ["S0"])["roc_5"]["S0"]
    changed = old.index[(old - new).abs() > 0]
    assert changed[0] == pd.Timestamp("1999-03-29")
    assert old[changed[0]] == stored(lake, first)["roc_5"]["S0"][changed[0]]


def test_values_depend_on_neither_the_window_nor_the_block_nor_the_company(lake: Lake, tmp_path: Path) -> None:
    whole = stored(lake, build(tmp_path))
    for number, options in enumerate(({"start": at("1999-03-01").date(), "end": at("1999-03-12").date()}, {"block_size": 1})):
        home = tmp_path / str(number)
        other = lake_in(home)
        for table in ("equity_bars", "macro_observations"):
            rows = lake.snapshot().read(table)
            other.write(table, rows.drop_columns(["recorded_at"]), recorded_at=RECORDED)
        other.publish()
        part = stored(other, build(home, **options))
        for name, frame in part.items():
            pd.testing.assert_frame_equal(frame, whole[name].loc[frame.index], check_exact=True, check_freq=False, obj=name)
        assert len(part["roc_5"]) == (10 if "start" in options else 60)


def test_the_same_inputs_give_the_same_snapshot_in_another_lake(lake: Lake, tmp_path: Path) -> None:
    first = build(tmp_path)
    other = lake_in(tmp_path / "other")
    for table in ("macro_observations", "equity_bars"):
        other.write(table, lake.snapshot().read(table).drop_columns(["recorded_at"]), recorded_at=at("2026-03-03"))
    other.publish()
    assert build(tmp_path / "other", clock=FixedClock(at("2026-03-03"))) == first


def test_prefect_can_look_into_what_a_step_is_given(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task run walks through its arguments; it cannot walk through `Settings`, whose section `keys` it takes for a method."""
    from prefect.utilities.collections import visit_collection

    walked = []

    def step(*arguments: Any) -> Any:
        walked.append(visit_collection(arguments, lambda value: value, return_data=True))
        return building_block(*walked[-1])

    building_block = building._build_block
    monkeypatch.setattr(building, "_build_block", step)
    assert build(tmp_path, block_size=2).rows == 150
    assert len(walked) == 2


def test_a_build_as_of_a_moment_has_a_table_of_its_own(lake: Lake, tmp_path: Path) -> None:
    newest, then = build(tmp_path), build(tmp_path, as_of=at("1999-02-01"))
    assert then.set_version.startswith(newest.set_version + "-")
    assert then.rows == 2 * 19  # S1 was not listed yet; 4 to 29 January holds 19 sessions
    assert set(stored_sets(lake.snapshot())) == {newest.set_version, then.set_version}


def test_a_lake_made_again_is_not_taken_for_the_recorded_one(lake: Lake, tmp_path: Path) -> None:
    import shutil

    build(tmp_path)
    rows = {table: lake.snapshot().read(table).drop_columns(["recorded_at"]) for table in ("equity_bars", "macro_observations")}
    shutil.rmtree(lake.root)
    for table, content in rows.items():
        lake.write(table, content, recorded_at=RECORDED)
    lake.publish()
    assert build(tmp_path).reused is False
    assert len(stored(lake, build(tmp_path))["roc_5"]) == 60


def test_a_damaged_record_of_a_build_costs_only_the_work(lake: Lake, tmp_path: Path) -> None:
    first = build(tmp_path)
    (record,) = (tmp_path / "features").rglob("*.json")
    record.write_text('{"set_version": "x"')
    again = build(tmp_path)
    assert (again.reused, again.rows, again.snapshot_id) == (False, first.rows, first.snapshot_id)


def test_a_series_the_lake_does_not_hold_is_said(lake: Lake, tmp_path: Path) -> None:
    spoken = Spoken()
    built = build(tmp_path, progress=spoken, feature_set="macro")
    assert built.features == SETS["macro"]
    assert built.coverage["core_inflation_yoy"] == 0.0
    assert spoken.notes == ["the lake holds no AAA, BAA, CPILFESL, DCOILWTICO: features of them are empty"]


def test_wrong_names_are_refused_before_anything_is_written(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="S0"):
        build(tmp_path, ["S9"])
    with pytest.raises(UnknownNameError, match="rsi_14"):
        build(tmp_path, feature_set=["rsi_15"])
    with pytest.raises(InputError, match="no symbols"):
        build(tmp_path, [])
    with pytest.raises(DataError, match="lies between"):
        build(tmp_path, start=at("2020-01-01").date())
    assert stored_sets(lake.snapshot()) == ()


def test_reading_what_was_not_built_is_refused(lake: Lake, tmp_path: Path) -> None:
    built = build(tmp_path, "S0")
    snapshot = lake.snapshot()
    with pytest.raises(UnknownNameError, match="custom-"):
        load_features(snapshot, "custom-0", ["roc_5"], ["S0"])
    with pytest.raises(UnknownNameError, match="not built for 'S1'"):
        load_features(snapshot, built.set_version, ["roc_5"], ["S0", "S1"])
    with pytest.raises(UnknownNameError, match="roc_5"):
        load_features(snapshot, built.set_version, ["roc_6"], ["S0"])
    nothing = load_features(snapshot, built.set_version, ["roc_5"], ["S0"], start=at("2020-01-01").date())["roc_5"]
    assert nothing.shape == (0, 1)
    np.testing.assert_array_equal(nothing.columns, ["S0"])
