"""The engine of every ingest: what is asked, what a revision sets off, who is asked when another fails, and at what price."""

from __future__ import annotations

import math
import random
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.clock import FixedClock
from config.errors import (
    ConfigError,
    DataError,
    InputError,
    QuantError,
    RateLimited,
    ServiceError,
    ServiceUnavailable,
    StorageError,
)
from config.progress import SILENT
from config.settings import load_settings
from features.point_in_time import load_panel
from flows import ingest_ask
from flows.ingest import Window, ingest
from flows.ingest_arguments import make_sources
from flows.ingest_report import IngestReport
from tests.flows.fake_vendor import MONDAY, FakeVendor, ask, closes, days, fails_for, lake, outcomes, ramp, run

TUESDAY = datetime(2026, 1, 6, 12, tzinfo=UTC)
DOWN = ServiceUnavailable("503 from vendor.example")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def sold_out(report: IngestReport) -> tuple[int, int, int]:
    return report.total.new, report.total.revised, report.total.unchanged


# What is asked


def test_a_symbol_that_is_stored_is_asked_from_the_overlap_on_and_an_unknown_one_for_everything() -> None:
    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-03-28"), "B": ramp("2024-01-02", "2024-03-28")})
    run(vendor, ["A"])
    vendor.history["A"] |= ramp("2024-04-01", "2024-04-02", 500)
    vendor.asked.clear()
    report = run(vendor, ["A", "B"], TUESDAY)
    # 28 March 2024 is a Thursday before Good Friday; five sessions before it: 27, 26, 25, 22, 21.
    assert vendor.asked == [(("B",), None, None), (("A",), date(2024, 3, 21), None)]
    assert outcomes(report) == {"A": "stored", "B": "stored"}
    assert sold_out(report) == (2 + 61, 0, 6)  # 61 sessions in the first quarter of 2024
    assert closes("A") == vendor.history["A"]


def test_full_and_a_named_first_day_are_asked_as_they_are() -> None:
    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-01-31")})
    run(vendor, ["A"])
    vendor.asked.clear()
    assert run(vendor, ["A"], TUESDAY, full=True).outcome == "unchanged"
    run(vendor, ["A"], TUESDAY, start=date(2024, 1, 10), end=date(2024, 1, 12))
    assert vendor.asked == [(("A",), None, None), (("A",), date(2024, 1, 10), date(2024, 1, 12))]


def test_symbols_of_like_age_share_a_request_and_one_that_lags_has_its_own() -> None:
    vendor = FakeVendor({name: ramp("2024-01-02", "2024-06-28") for name in "ABCD"}, names_per_request=10)
    run(vendor, ["A", "B", "C"], end=date(2024, 6, 27))
    run(vendor, ["D"], end=date(2024, 1, 31))
    vendor.asked.clear()
    run(vendor, list("ABCD"), TUESDAY)
    assert vendor.asked == [(("D",), date(2024, 1, 24), None), (("A", "B", "C"), date(2024, 6, 20), None)]


def test_a_window_that_ends_before_what_is_stored_asks_nothing() -> None:
    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-03-28")})
    run(vendor, ["A"])
    vendor.asked.clear()
    report = run(vendor, ["A"], TUESDAY, end=date(2024, 2, 1))
    assert vendor.asked == []
    assert outcomes(report) == {"A": "unchanged"}
    assert report.names[0].message == "stored up to 2024-03-28 already"


def test_without_names_a_source_that_cannot_list_brings_up_to_date_what_is_stored_from_it() -> None:
    vendor = FakeVendor({name: ramp("2024-01-02", "2024-01-31") for name in "ABC"})
    with pytest.raises(InputError, match="nothing is stored from it"):
        run(vendor, None)
    run(vendor, ["A", "C"])
    assert outcomes(run(vendor, None, TUESDAY)) == {"A": "unchanged", "C": "unchanged"}


def test_the_overlap_is_counted_on_the_symbols_own_calendar() -> None:
    # Bitcoin trades every day: five sessions before Wednesday 31 January are the 26th, across a weekend.
    vendor = FakeVendor({"BTC-USD": ramp("2024-01-01", "2024-01-31", calendar="24/7")}, calendars={"BTC-USD": "24/7"})
    run(vendor, ["BTC-USD"])
    run(vendor, ["BTC-USD"], TUESDAY)
    assert vendor.asked[-1] == (("BTC-USD",), date(2024, 1, 26), None)


# Revisions


def test_a_bar_of_the_overlap_that_changed_sets_off_a_refetch_and_the_old_view_stays() -> None:
    before = ramp("2024-01-02", "2024-01-31")
    vendor = FakeVendor({"A": dict(before), "B": dict(before)})
    run(vendor, ["A", "B"])
    # The vendor has divided A's history by two, as after a split it applies to the past, and one session more has come.
    vendor.history["A"] = {day: close / 2 for day, close in before.items()} | {date(2024, 2, 1): 60.0}
    vendor.history["B"] |= {date(2024, 2, 1): 60.0}
    vendor.asked.clear()
    report = run(vendor, ["A", "B"], TUESDAY)
    # Five sessions before the newest, the 31st: the 24th.
    assert vendor.asked == [(("A",), date(2024, 1, 24), None), (("B",), date(2024, 1, 24), None), (("A",), None, None)]
    (refetched,) = report.refetched
    assert refetched.name == "A"
    assert refetched.refetched == ("6 of 6 stored bars that were asked again differ: open of 2024-01-24 was 115.0 and is 57.5")
    assert report.as_dict()["refetched"] == ["A"]
    assert sold_out(report) == (2, 21, 6)  # a new bar each; all 21 sessions of January of A; six of B asked again
    assert closes("A") == vendor.history["A"]
    # On Monday the closes of January were these; that of 1 February was out as well, only not stored yet.
    assert closes("A", as_of=MONDAY) == before | {date(2024, 2, 1): 60.0}
    # The next day there is nothing to report.
    assert run(vendor, ["A", "B"], datetime(2026, 1, 7, tzinfo=UTC)).refetched == ()


def test_another_volume_alone_revises_its_bar_and_asks_for_no_history() -> None:
    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-01-31")})
    run(vendor, ["A"])
    # Trades reported after the close: overnight the vendor has counted more shares of the last session, and a new bar is out.
    vendor.volumes["A", date(2024, 1, 31)] = 117.0
    vendor.history["A"] |= {date(2024, 2, 1): 122.0}
    vendor.asked.clear()
    report = run(vendor, ["A"], TUESDAY)
    assert vendor.asked == [(("A",), date(2024, 1, 24), None)]
    assert (report.refetched, sold_out(report)) == ((), (1, 1, 5))

    def volume(**read: datetime) -> float:
        where, day = {"symbol": "A"}, date(2024, 1, 31)
        (row,) = lake().snapshot().read("equity_bars", where=where, start=day, end=day, **read).to_pylist()
        return float(row["volume"])

    assert (volume(as_of=TUESDAY - timedelta(microseconds=1)), volume(as_of=TUESDAY), volume()) == (100.0, 117.0, 117.0)


def test_a_revision_counts_as_known_when_it_came_and_not_when_the_run_began() -> None:
    vendor = FakeVendor({name: ramp("2024-01-02", "2024-01-31") for name in "AB"})
    run(vendor, ["A", "B"])
    clock = FixedClock(TUESDAY)
    vendor.history = {name: {day: close + 1 for day, close in bars.items()} for name, bars in vendor.history.items()}
    vendor.wrong = lambda symbols: clock.move_to(clock.at + timedelta(hours=1))  # each request takes an hour
    ingest("equity", ["A", "B"], [vendor], ask, lake=lake(), clock=clock, progress=SILENT, window=Window(full=True))
    came = TUESDAY + timedelta(hours=2)  # the two are one step, stored together once the second is here
    for name in "AB":
        before = closes(name, as_of=came - timedelta(microseconds=1))
        assert before == ramp("2024-01-02", "2024-01-31")
        assert closes(name, as_of=came) == vendor.history[name]


def test_a_bar_that_the_source_no_longer_gives_sets_off_a_refetch_too() -> None:
    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-01-31")})
    run(vendor, ["A"])
    del vendor.history["A"][date(2024, 1, 29)]
    (found,) = run(vendor, ["A"], TUESDAY).refetched
    assert found.refetched == "1 of 6 stored bars that were asked again differ: the bar of 2024-01-29 is no longer there"
    assert date(2024, 1, 29) in closes("A")  # nothing that was known is forgotten


def test_a_refetch_that_fails_writes_nothing_so_that_the_next_run_meets_the_difference_again() -> None:
    before = ramp("2024-01-02", "2024-01-31")
    vendor = FakeVendor({"A": dict(before), "B": dict(before)})
    run(vendor, ["A", "B"])
    vendor.history["A"] = {day: close / 2 for day, close in before.items()}
    asked_whole: list[bool] = []

    def wrong(symbols: tuple[str, ...]) -> None:
        if vendor.asked[-1][1] is None:
            asked_whole.append(True)
            raise ServiceError("refused")

    vendor.wrong = wrong
    report = run(vendor, ["A", "B"], TUESDAY)
    assert asked_whole == [True]
    assert outcomes(report) == {"A": "failed", "B": "unchanged"}
    assert closes("A") == before
    vendor.wrong = None
    assert [one.name for one in run(vendor, ["A", "B"], datetime(2026, 1, 7, tzinfo=UTC)).refetched] == ["A"]
    assert closes("A") == vendor.history["A"]


# Several sources


def test_a_name_goes_to_the_next_source_when_one_fails_or_has_it_not_and_the_outcome_says_so() -> None:
    history = {name: ramp("2024-01-02", "2024-01-05") for name in "ABC"}
    first = FakeVendor({"A": history["A"], "B": history["B"]}, name="first", wrong=fails_for({"B": DOWN}))
    second = FakeVendor({"B": history["B"], "C": history["C"]}, name="second")
    report = run([first, second], list("ABCD"))
    found = {name.name: (name.outcome, name.source) for name in report.names}
    assert found == {
        "A": ("stored", "first"),
        "B": ("stored", "second"),
        "C": ("stored", "second"),
        "D": ("missing", "first, second"),
    }
    tried = {name.name: name.tried for name in report.names}
    assert tried["A"] == ()
    assert tried["B"] == ("first: 503 from vendor.example",)
    assert tried["C"] == ("first: first has no C",)
    assert report.names[3].message == "first: first has no D; second: second has no D"
    sources = {(row["symbol"], row["source"]) for row in lake().snapshot().read("equity_bars").to_pylist()}
    assert sources == {("A", "first"), ("B", "second"), ("C", "second")}
    assert second.asked == [(("B",), None, None), (("C",), None, None), (("D",), None, None)]


def test_a_name_that_changes_its_source_is_said_aloud_and_a_reader_must_choose() -> None:
    history = {"A": ramp("2024-01-02", "2024-01-05")}
    first, second = FakeVendor(history, name="first"), FakeVendor(history, name="second")
    run([first, second], ["A"])
    first.wrong = fails_for({"A": DOWN})
    report = run([first, second], ["A"], TUESDAY)
    (note,) = report.notes
    assert note.startswith("A is stored from first and now also from second")
    # The second source's history is whole: none of it is a continuation of the first's.
    assert second.asked == [(("A",), None, None)]
    snapshot = lake().snapshot()
    with pytest.raises(InputError, match="first[\\s\\S]*second|second[\\s\\S]*first"):
        load_panel(snapshot, ["A"])
    assert load_panel(snapshot, ["A"], source="second").close["A"].tolist() == [100.0, 101.0, 102.0, 103.0]


def test_a_source_of_the_chain_without_its_key_or_option_is_left_out_with_a_note_and_none_left_is_an_error() -> None:
    chosen = load_settings({"data.equity": ["bundled", "files"]})
    sources, notes = make_sources(chosen.data.equity, "equity", chosen, {})
    assert [source.name for source in sources] == ["bundled"]
    assert notes == ("files was not asked: it needs path",)
    with pytest.raises(ConfigError, match="POLYGON_API_KEY"):
        make_sources(("polygon",), "equity", chosen, {})
    with pytest.raises(InputError, match="none of bundled, files has an option 'pth'"):
        make_sources(chosen.data.equity, "equity", chosen, {"pth": "."})


def test_the_settings_give_a_source_of_the_chain_its_options(tmp_path: object) -> None:
    chosen = load_settings({"data.source_options": {"files": {"path": str(tmp_path)}}})
    with pytest.raises(InputError, match="no file"):  # the path arrived: the folder is empty
        make_sources(("bundled", "files"), "equity", chosen, {})


# Failures


@pytest.mark.parametrize("bad", [0, 17, 63])
def test_one_bad_name_in_a_request_of_many_is_found_in_few_requests(bad: int) -> None:
    names = [f"S{number:02d}" for number in range(64)]
    vendor = FakeVendor({name: ramp("2024-01-02", "2024-01-05") for name in names}, names_per_request=64)
    vendor.wrong = fails_for({names[bad]: DataError("half a number")})
    report = run(vendor, names)
    assert [name.name for name in report.names if name.outcome != "stored"] == [names[bad]]
    assert report.outcome == "completed with refusals"
    assert len(vendor.asked) == 1 + 2 * int(math.log2(64))
    assert lake().snapshot().read("equity_bars").num_rows == 63 * 4


def test_without_a_bad_name_a_request_is_one_request() -> None:
    names = [f"S{number:02d}" for number in range(64)]
    vendor = FakeVendor({name: ramp("2024-01-02", "2024-01-05") for name in names}, names_per_request=64)
    run(vendor, names)
    assert len(vendor.asked) == 1


def lose_only_the_bad_ones(seed: int, count: int, share: float, size: int | None, incremental: bool) -> None:
    """An ingest of many symbols of which some fail for good, some at first, and three do not exist."""
    chance = random.Random(seed)
    names = [f"S{number:03d}" for number in range(count)]
    bad = {name: chance.choice([DOWN, ServiceError("403"), DataError("torn")]) for name in names if chance.random() < share}
    flaky = {name for name in names if chance.random() < share}
    fails = fails_for(bad)

    def wrong(symbols: tuple[str, ...]) -> None:
        fails(symbols)
        hurt = flaky.intersection(symbols)
        if hurt:  # cured by asking again
            flaky.difference_update(hurt)
            raise chance.choice([DOWN, RateLimited("429", retry_after_seconds=1.0)])

    history = {name: {date(2024, 1, 2): 10.0, date(2024, 1, 3): 11.0} for name in names if name not in names[:3]}
    report = run(FakeVendor(history, names_per_request=size, incremental=incremental, wrong=wrong), names)
    expected = {name: "failed" if name in bad else "missing" if name in names[:3] else "stored" for name in names}
    assert outcomes(report) == expected
    stored = {row["symbol"] for row in lake().snapshot().read("equity_bars", columns=["symbol"]).to_pylist()}
    assert stored == {name for name, outcome in expected.items() if outcome == "stored"}
    assert report.total.new == 2 * len(stored)


@pytest.mark.parametrize(
    ("share", "size", "incremental"), [(0.01, 500, True), (0.02, 100, True), (0.02, None, False), (0.3, 1, True)]
)
def test_of_five_hundred_symbols_only_the_bad_ones_are_lost(share: float, size: int | None, incremental: bool) -> None:
    lose_only_the_bad_ones(7, 500 if size != 1 else 100, share, size, incremental)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.002, 0.05, 0.5, 1.0]),
    size=st.sampled_from([1, 7, 50, 500, None]),
    incremental=st.booleans(),
)
def test_of_five_hundred_symbols_only_the_bad_ones_are_lost_whatever_goes_wrong(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float, size: int | None, incremental: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANT_HOME", str(tmp_path_factory.mktemp("home")))
        if share == 1.0:
            with pytest.raises(QuantError):
                lose_only_the_bad_ones(seed, 500, share, size, incremental)
        else:
            lose_only_the_bad_ones(seed, 500, share, size, incremental)


def test_a_source_that_has_answered_nothing_for_long_is_given_up_and_the_next_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    monkeypatch.setattr(ingest_ask.time, "monotonic", lambda: clock[0])
    names = [f"S{number:03d}" for number in range(60)]
    history = {name: {date(2024, 1, 2): 10.0} for name in names}
    dead = FakeVendor(history, name="dead", wrong=fails_for(dict.fromkeys(names, DOWN)))
    report = run([dead, FakeVendor(history, name="alive")], names)
    # Each name is tried four times with waits of 2, 4 and 8 seconds: 22 names after the first failure are 308 seconds.
    assert len(dead.asked) == 23 * 4
    assert {name.source for name in report.names} == {"alive"}
    assert "gave no answer to the 23 requests before" in report.names[-1].tried[0]


def test_a_full_disk_ends_the_run_at_once() -> None:
    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-01-05")}, wrong=fails_for({"A": StorageError("no space left")}))
    with pytest.raises(StorageError, match="no space"):
        run([vendor, FakeVendor(vendor.history, name="second")], ["A"])


def test_a_source_may_say_that_it_does_not_know_one_name_by_raising() -> None:
    from config.errors import UnknownNameError

    vendor = FakeVendor({name: ramp("2024-01-02", "2024-01-05") for name in "ABCD"}, names_per_request=4)
    vendor.wrong = fails_for({"C": UnknownNameError("no such symbol: C")})
    report = run(vendor, list("ABCD"))
    assert outcomes(report) == {"A": "stored", "B": "stored", "C": "missing", "D": "stored"}
    assert report.names[2].message == "no such symbol: C"


def test_what_two_answers_say_of_a_name_is_added_up() -> None:
    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-01-05")}, actions={"A": [(date(2024, 1, 3), "dividend", 0.5)]})
    report = run(vendor, ["A"])
    assert (report.names[0].received, report.names[0].changed) == (5, 5)
    assert {table: counts.new for table, counts in report.tables.items()} == {"corporate_actions": 1, "equity_bars": 4}
    assert outcomes(run(vendor, ["A"], TUESDAY)) == {"A": "unchanged"}


# Interruptions


def test_what_was_asked_is_recorded_before_its_rows_so_that_a_killed_run_can_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import ingest_store

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-01-31")})
    del vendor.history["A"][date(2024, 1, 10)]
    with monkeypatch.context() as patch:
        patch.setattr(ingest_store, "_count_written", killed)  # the bars are written, nothing after them
        with pytest.raises(Killed):
            run(vendor, ["A"])
    (row,) = lake().read_latest("ingest_runs").to_pylist()
    assert row["outcome"] == "started"
    assert lake().raw.get(row["response_sha256"])
    assert set(lake().read_latest("equity_bars")["ingest_id"].to_pylist()) == {row["ingest_id"]}
    report = run(vendor, ["A"], TUESDAY)
    assert vendor.asked[-1][1] == date(2024, 1, 24)  # it goes on from what is stored
    assert "cut off" in report.notes[0]
    assert report.gaps == 1  # a gap of the part that was stored before the kill
    outcomes_of_runs = [row["outcome"] for row in lake().read_latest("ingest_runs").to_pylist()]
    assert sorted(outcomes_of_runs) == ["interrupted", "unchanged"]


def test_an_ingest_that_is_still_at_work_is_not_called_interrupted_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import ingest_store

    count_written = ingest_store._count_written
    others: list[IngestReport] = []

    def meanwhile(*given: Any) -> None:
        monkeypatch.setattr(ingest_store, "_count_written", count_written)
        others.append(run(FakeVendor({"B": ramp("2024-01-02", "2024-01-31")}), ["B"], TUESDAY))
        count_written(*given)

    monkeypatch.setattr(ingest_store, "_count_written", meanwhile)  # A's bars are written, what came of them is not recorded
    run(FakeVendor({"A": ramp("2024-01-02", "2024-01-31")}), ["A"])
    assert [(other.outcome, other.notes) for other in others] == [("completed", ())]
    assert lake().read_latest("ingest_runs")["outcome"].to_pylist() == ["completed", "completed"]


def test_ctrl_c_keeps_what_is_stored_publishes_nothing_and_the_next_run_goes_on() -> None:
    names = [f"S{number:03d}" for number in range(120)]
    vendor = FakeVendor({name: ramp("2024-01-02", "2024-01-31") for name in names})

    def interrupt(symbols: tuple[str, ...]) -> None:
        if symbols == ("S075",):
            raise KeyboardInterrupt

    vendor.wrong = interrupt
    said: list[str] = []

    class Listening:
        def stage(self, name: str, total: int | None = None) -> None: ...
        def advance(self, steps: int = 1) -> None: ...
        def note(self, text: str) -> None:
            said.append(text)

    with pytest.raises(KeyboardInterrupt):
        run(vendor, names, progress=Listening())
    assert said == ["interrupted: 50 of 120 names are stored and not published; the same command goes on from there"]
    assert not lake().has_snapshot()
    assert {row["outcome"] for row in lake().read_latest("ingest_runs").to_pylist()} == {"completed"}
    vendor.wrong = None
    vendor.asked.clear()
    report = run(vendor, names, TUESDAY)
    assert [start for _, start, _ in vendor.asked].count(None) == 70
    assert lake().snapshot(report.snapshot_id).read("equity_bars").num_rows == 120 * len(days("2024-01-02", "2024-01-31"))


def test_the_summary_says_everything_in_one_line() -> None:
    names = list("ABCD")
    vendor = FakeVendor({name: ramp("2024-01-02", "2024-01-05") for name in "ABC"})
    vendor.history["C"][date(2024, 1, 5)] = -1.0
    vendor.wrong = fails_for({"B": DOWN})
    report = run(vendor, names)
    assert report.summary == "completed with refusals: 7 rows new, 0 revised, 0 unchanged, 1 refused; 1 missing, 1 failed"
    assert report.as_dict()["names"] == {"stored": 2, "unchanged": 0, "refused": 0, "missing": 1, "failed": 1}
