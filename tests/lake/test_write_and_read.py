"""What a batch becomes, and what a reader sees as of a moment."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from config.errors import InputError, SchemaError, UnknownNameError
from config.settings import load_settings
from config.tables import feature_table
from lake import Lake, open_lake
from tests.lake.rows import BARS, MACRO, NOW, bar, bars, days, macro, vintage

D1, D2 = date(2023, 12, 29), date(2024, 1, 2)  # two years: two partitions


def test_opening_a_lake_makes_nothing(tmp_path: Path) -> None:
    lake = open_lake(load_settings({"home": str(tmp_path / "home")}))
    assert lake.read_latest("equity_bars").num_rows == 0
    assert lake.root == tmp_path / "home" / "lake"
    assert lake.snapshots() == ()
    assert not (tmp_path / "home").exists()


def test_new_rows_come_back_with_the_three_clocks_in_key_order(lake: Lake) -> None:
    result = lake.write("equity_bars", bars([bar("B", D2, 3.0), bar("A", D2, 2.0), bar("A", D1, 1.0)]), recorded_at=NOW)
    assert (result.new, result.revised, result.unchanged) == (3, 0, 0)
    read = lake.publish().read("equity_bars")
    assert read.schema.equals(BARS.schema)
    assert [(row["symbol"], row["session"], row["close"]) for row in read.to_pylist()] == [
        ("A", D1, 1.0),
        ("A", D2, 2.0),
        ("B", D2, 3.0),
    ]
    assert set(read["recorded_at"].to_pylist()) == {NOW}
    assert read["available_at"].to_pylist()[0] == datetime(2023, 12, 29, 21, tzinfo=UTC)


def test_an_unchanged_batch_makes_no_version_and_the_same_snapshot(lake: Lake) -> None:
    batch = bars([bar("A", D1, 1.0), bar("A", D2, math.nan), bar("B", D2, None)])
    first, before = lake.write("equity_bars", batch, recorded_at=NOW), lake.publish()
    # Other clocks and another ingest alone are no change; NaN equals NaN, NULL equals NULL.
    later = bars(
        [row | {"ingest_id": "second", "available_at": row["available_at"] + timedelta(days=1)} for row in batch.to_pylist()]
    )
    again = lake.write("equity_bars", later, recorded_at=NOW + timedelta(days=9))
    assert (again.new, again.revised, again.unchanged) == (0, 0, 3)
    assert again.version == first.version
    after = lake.publish()
    assert after == before
    assert sorted(path.name for path in (lake.root / "snapshots").glob("*.json")) == [f"{before.id}.json"]
    assert after.ingest_ids("equity_bars") == ("first",)


def test_null_and_nan_are_different_values(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", D1, None)]), recorded_at=NOW)
    assert lake.write("equity_bars", bars([bar("A", D1, math.nan)]), recorded_at=NOW).revised == 1


def test_a_revision_is_known_only_from_the_moment_it_was_recorded(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", D1, 1.0), bar("B", D1, 5.0)]), recorded_at=NOW)
    revised = lake.write("equity_bars", bars([bar("A", D1, 1.5), bar("B", D1, 5.0)]), recorded_at=NOW + timedelta(days=10))
    assert (revised.new, revised.revised, revised.unchanged) == (0, 1, 1)
    snapshot = lake.publish()
    newest = snapshot.read("equity_bars", where={"symbol": "A"}).to_pylist()
    assert [(row["close"], row["available_at"]) for row in newest] == [(1.5, NOW + timedelta(days=10))]

    def close(as_of: datetime) -> list[float]:
        found: list[float] = snapshot.read("equity_bars", where={"symbol": "A"}, as_of=as_of, columns=["close"])[
            "close"
        ].to_pylist()
        return found

    assert close(datetime(2023, 12, 29, 20, 59, tzinfo=UTC)) == []  # a minute before the bar was complete
    assert close(datetime(2023, 12, 29, 21, tzinfo=UTC)) == [1.0]
    assert close(NOW + timedelta(days=10) - timedelta(microseconds=1)) == [1.0]
    assert close(NOW + timedelta(days=10)) == [1.5]
    assert snapshot.read("equity_bars")["close"].to_pylist() == [1.5, 5.0]


def test_a_clock_that_went_back_does_not_hide_the_newest_value(lake: Lake) -> None:
    for hours, close in ((0, 1.0), (48, 2.0), (1, 3.0)):  # the third writer's clock is two days slow
        lake.write("equity_bars", bars([bar("A", D1, close)]), recorded_at=NOW + timedelta(hours=hours))
    snapshot = lake.publish()
    assert snapshot.read("equity_bars")["close"].to_pylist() == [3.0]
    # It replaces a value that was available from the 48th hour on, so it is not available before.
    assert snapshot.read("equity_bars", as_of=NOW + timedelta(hours=47))["close"].to_pylist() == [1.0]
    assert lake.write("equity_bars", bars([bar("A", D1, 3.0)]), recorded_at=NOW).unchanged == 1


def test_several_revisions_at_one_moment_keep_their_order(lake: Lake) -> None:
    for close in (1.0, 2.0, 3.0, 2.0):
        lake.write("equity_bars", bars([bar("A", D1, close)]), recorded_at=NOW)
    assert lake.publish().read("equity_bars")["close"].to_pylist() == [2.0]


def test_a_macro_read_gives_the_vintages_published_by_then(lake: Lake) -> None:
    # Hand-made: January's figure published on 13 February, revised on 12 March; February's published on 12 March.
    jan, feb = date(2024, 1, 1), date(2024, 2, 1)
    rows = [vintage(jan, date(2024, 2, 13), 308.4), vintage(jan, date(2024, 3, 12), 308.5), vintage(feb, date(2024, 3, 12), 310.3)]
    lake.write("macro_observations", macro(rows), recorded_at=NOW + timedelta(days=400))
    snapshot = lake.publish()
    known = snapshot.read("macro_observations", as_of=datetime(2024, 3, 1, tzinfo=UTC))
    assert known["value"].to_pylist() == [308.4]
    assert snapshot.read("macro_observations")["value"].to_pylist() == [308.4, 308.5, 310.3]


def test_a_source_that_quotes_vintages_keeps_its_own_clock_on_a_correction(lake: Lake) -> None:
    jan, published = date(2024, 1, 1), date(2024, 2, 13)
    lake.write("macro_observations", macro([vintage(jan, published, 308.4)]), recorded_at=NOW)
    assert (
        lake.write("macro_observations", macro([vintage(jan, published, 308.9)]), recorded_at=NOW + timedelta(days=1)).revised == 1
    )
    row = lake.publish().read("macro_observations", as_of=datetime(2024, 2, 14, tzinfo=UTC)).to_pylist()[0]
    assert (row["value"], row["available_at"]) == (308.9, datetime(2024, 2, 13, 13, 30, tzinfo=UTC))


def test_a_vintage_that_was_only_assumed_is_not_revised_into_the_past(lake: Lake) -> None:
    jan, lag = date(2024, 1, 1), date(2024, 2, 13)
    for number, value in enumerate((308.4, 308.9)):
        row = {**vintage(jan, lag, value), "vintage_kind": "assumed"}
        lake.write("macro_observations", macro([row]), recorded_at=NOW + timedelta(days=number))
    snapshot, revised = lake.publish(), NOW + timedelta(days=1)
    assert snapshot.read("macro_observations", as_of=revised - timedelta(microseconds=1))["value"].to_pylist() == [308.4]
    assert snapshot.read("macro_observations", as_of=revised)["value"].to_pylist() == [308.9]


def test_many_small_writes_keep_every_row_and_few_files(lake: Lake) -> None:
    sessions = days(date(2024, 1, 1), 30)
    for n, session in enumerate(sessions):
        lake.write("equity_bars", bars([bar("A", session, float(n))]), recorded_at=NOW)
    from deltalake import DeltaTable

    assert len(DeltaTable(lake.root / "equity_bars").file_uris()) <= 8
    snapshot = lake.publish()
    assert snapshot.read("equity_bars")["close"].to_pylist() == [float(n) for n in range(30)]
    snapshot.verify("equity_bars")


def test_a_rewritten_partition_keeps_the_history_of_its_keys(lake: Lake) -> None:
    other = bars([bar("B", D1, 7.0)])  # another partition, never touched again
    lake.write("equity_bars", other, recorded_at=NOW)
    for n in range(12):
        lake.write("equity_bars", bars([bar("A", D2, float(n))]), recorded_at=NOW + timedelta(days=n))
    snapshot = lake.publish()
    for n in range(1, 12):
        assert snapshot.read("equity_bars", where={"symbol": "A"}, as_of=NOW + timedelta(days=n))["close"].to_pylist() == [float(n)]
    assert snapshot.read("equity_bars", where={"symbol": "B"})["close"].to_pylist() == [7.0]
    assert snapshot.tables["equity_bars"].rows == 13


def test_filters_bounds_and_columns(lake: Lake) -> None:
    lake.write(
        "equity_bars",
        bars([bar(s, d, 1.0, currency=c) for s, c in (("A", "USD"), ("O'X", "EUR")) for d in (D1, D2)]),
        recorded_at=NOW,
    )
    snapshot = lake.publish()
    assert snapshot.read("equity_bars", where={"symbol": "O'X"}).num_rows == 2
    assert snapshot.read("equity_bars", where={"symbol": ["A", "O'X"], "currency": "USD"}).num_rows == 2
    assert snapshot.read("equity_bars", where={"symbol": []}).num_rows == 0
    assert snapshot.read("equity_bars", where={"close": None}).num_rows == 0
    assert snapshot.read("equity_bars", start=D2)["session"].unique().to_pylist() == [D2]
    assert snapshot.read("equity_bars", end=D1)["session"].unique().to_pylist() == [D1]
    moment = datetime(2024, 1, 2, 21, tzinfo=UTC)
    assert snapshot.read("equity_bars", start=moment).num_rows == 2
    assert snapshot.read("equity_bars", end=moment - timedelta(seconds=1)).num_rows == 2
    assert snapshot.read("equity_bars", columns=["close", "symbol"]).column_names == ["close", "symbol"]


def test_a_filter_on_a_value_is_asked_of_the_newest_version(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", D1, 1.0)]), recorded_at=NOW)
    lake.write("equity_bars", bars([bar("A", D1, 1.0, basis="vendor_adjusted")]), recorded_at=NOW + timedelta(days=1))
    snapshot = lake.publish()
    assert snapshot.read("equity_bars", where={"basis": "as_traded"}).num_rows == 0
    assert snapshot.read("equity_bars", where={"basis": "as_traded"}, as_of=NOW).num_rows == 1


def test_a_stream_gives_the_rows_of_a_read(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar(f"S{n:02d}", day, n + 0.5) for n in range(40) for day in days(D1, 6)]), recorded_at=NOW)
    snapshot = lake.publish()
    reader = snapshot.stream("equity_bars", where={"symbol": ["S03", "S04"]})
    assert reader.schema.equals(BARS.schema)
    assert reader.read_all().equals(snapshot.read("equity_bars", where={"symbol": ["S03", "S04"]}))
    assert snapshot.stream("corporate_actions").read_all().num_rows == 0


def test_sql_sees_every_table_at_the_newest_version_of_each_key(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", D1, 1.0), bar("A", D2, 2.0)]), recorded_at=NOW)
    lake.write("equity_bars", bars([bar("A", D2, 4.0)]), recorded_at=NOW + timedelta(days=1))
    snapshot = lake.publish()
    assert snapshot.sql("select sum(close) as total from equity_bars")["total"].to_pylist() == [5.0]
    assert snapshot.sql("select sum(close) as total from equity_bars", as_of=NOW)["total"].to_pylist() == [3.0]
    assert snapshot.sql("select count(*) as n from corporate_actions join equity_bars using (symbol)")["n"].to_pylist() == [0]
    with pytest.raises(InputError, match="equity_bar "):
        snapshot.sql("select * from equity_bar ")
    with pytest.raises(InputError, match="a query is one SELECT, this is nothing"):
        snapshot.sql("-- nothing")


def test_features_are_stored_by_their_set_and_recomputing_them_is_no_revision(lake: Lake) -> None:
    spec = feature_table("ab12", ("momentum", "volatility"))

    def rows(panel: str, volatility: float) -> pa.Table:
        columns = {"symbol": ["A"], "session": [D1], "panel_snapshot": [panel], "momentum": [math.nan], "volatility": [volatility]}
        return pa.table({**columns, "available_at": [NOW], "ingest_id": ["f"]})

    assert lake.write(spec, rows("p1", 0.1), recorded_at=NOW).new == 1
    assert lake.write(spec, rows("p2", 0.1), recorded_at=NOW).unchanged == 1
    assert lake.write(spec, rows("p2", 0.2), recorded_at=NOW).revised == 1
    snapshot = lake.publish()
    read = snapshot.read("features/ab12")
    assert read.schema.equals(spec.schema)
    assert read["volatility"].to_pylist() == [0.2]
    assert snapshot.sql('select volatility from "features/ab12"')["volatility"].to_pylist() == [0.2]
    with pytest.raises(UnknownNameError, match="features/ab13"):
        snapshot.read("features/ab13")


def test_names_that_do_not_exist_are_answered_with_the_near_ones(lake: Lake) -> None:
    lake.write("equity_bars", bars([bar("A", D1, 1.0)]), recorded_at=NOW)
    snapshot = lake.publish()
    with pytest.raises(UnknownNameError, match="did you mean equity_bars"):
        lake.write("equity_bar", bars([]), recorded_at=NOW)
    with pytest.raises(UnknownNameError, match="did you mean equity_bars"):
        snapshot.read("equity_bar")
    with pytest.raises(UnknownNameError, match="did you mean equity_bars"):
        lake.read_latest("equity_bar")
    with pytest.raises(UnknownNameError, match="'closes'.*\n.*did you mean close"):
        snapshot.read("equity_bars", columns=["closes"])
    with pytest.raises(UnknownNameError, match="'Symbol'.*\n.*did you mean symbol"):
        snapshot.read("equity_bars", where={"Symbol": "A"})
    with pytest.raises(InputError, match="cannot be a table's name"):
        lake.write(feature_table("../../etc", ("a",)), bars([]), recorded_at=NOW)


def test_a_naive_moment_is_refused_everywhere(lake: Lake) -> None:
    naive = datetime(2024, 1, 1)  # noqa: DTZ001 - the point
    with pytest.raises(InputError, match="no time zone"):
        lake.write("equity_bars", bars([bar("A", D1, 1.0)]), recorded_at=naive)
    lake.write("equity_bars", bars([bar("A", D1, 1.0)]), recorded_at=NOW)
    with pytest.raises(InputError, match="no time zone"):
        lake.publish().read("equity_bars", as_of=naive)
    batch = bars([bar("A", D1, 1.0)])
    times = batch["event_time"].cast(pa.timestamp("us"))
    with pytest.raises(SchemaError, match=r"event_time is timestamp\[us\].*\n.*never guessed"):
        lake.write("equity_bars", batch.set_column(2, "event_time", times), recorded_at=NOW)


def _with(name: str, values: pa.Array) -> pa.Table:
    batch = bars([bar("A", D1, 1.0)])
    return batch.set_column(batch.column_names.index(name), name, values)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (bars([bar("A", D1, 1.0)]).drop(["close"]), "lacks the column close"),
        (bars([bar("A", D1, 1.0)]).append_column("adj", pa.array([1.0])), "has the column adj, which the table has not"),
        (_with("close", pa.array(["12"])), "column close is string, the table's is double"),
        (_with("session", pa.array([datetime(2024, 1, 2)])), "column session is timestamp"),  # noqa: DTZ001
        (_with("volume", pa.array([2**53 + 1])), "column volume is int64 and does not fit double without loss"),
        (_with("symbol", pa.array([None], pa.string())), "1 of 1 rows have NULL in the key symbol"),
        (_with("available_at", pa.array([None], BARS.schema.field("available_at").type)), "NULL in the column available_at"),
        (bars([bar("A", D1, 1.0), bar("B", D1, 1.0), bar("A", D1, 2.0)]), "1 rows repeat a key of the same batch.*symbol=A"),
    ],
)
def test_a_batch_that_is_not_the_tables_is_refused_whole(lake: Lake, batch: pa.Table, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        lake.write("equity_bars", batch, recorded_at=NOW)
    assert not lake.root.exists()


def test_types_that_lose_nothing_are_taken(lake: Lake) -> None:
    batch = _with("volume", pa.array([7], pa.int64()))
    batch = batch.set_column(0, "symbol", pa.array(["A"], pa.large_string()).dictionary_encode())
    batch = batch.set_column(2, "event_time", batch["event_time"].cast(pa.timestamp("ns", tz="America/New_York")))
    lake.write("equity_bars", batch, recorded_at=NOW)
    row = lake.publish().read("equity_bars").to_pylist()[0]
    assert (row["symbol"], row["volume"], row["event_time"]) == ("A", 7.0, datetime(2023, 12, 29, 21, tzinfo=UTC))


def test_a_table_whose_declared_columns_changed_says_so(lake: Lake) -> None:
    def rows(*names: str) -> pa.Table:
        columns = {"symbol": ["A"], "session": [D1], "panel_snapshot": ["p"], **{name: [1.0] for name in names}}
        return pa.table({**columns, "available_at": [NOW], "ingest_id": ["f"]})

    lake.write(feature_table("v", ("a",)), rows("a"), recorded_at=NOW)
    with pytest.raises(SchemaError, match="column b is double now and absent in the stored table"):
        lake.write(feature_table("v", ("a", "b")), rows("a", "b"), recorded_at=NOW)


def test_a_path_with_pattern_signs_is_read_as_it_is_written(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "a *c? d'e ü")
    for n in range(10):  # far enough that the partition is rewritten from its old files
        lake.write("equity_bars", bars([bar("A", D1 - timedelta(days=n), 1.0)]), recorded_at=NOW)
    assert lake.publish().read("equity_bars").num_rows == 10


@pytest.mark.parametrize("sign", list("%[]|^\\"))
def test_a_folder_that_the_delta_library_misreads_is_refused(tmp_path: Path, sign: str) -> None:
    with pytest.raises(InputError, match="which the Delta library cannot handle"):
        Lake(tmp_path / f"a{sign}20b").write("equity_bars", bars([bar("A", D1, 1.0)]), recorded_at=NOW)


def test_macro_is_one_partition_and_is_rewritten_whole(lake: Lake) -> None:
    for n in range(12):
        lake.write("macro_observations", macro([vintage(date(2000 + n, 1, 1), date(2024, 1, 2), float(n))]), recorded_at=NOW)
    snapshot = lake.publish()
    assert snapshot.read("macro_observations")["value"].to_pylist() == [float(n) for n in range(12)]
    assert snapshot.read("macro_observations").schema.equals(MACRO.schema)
    assert snapshot.read("macro_observations", start=date(2005, 1, 1), end=date(2006, 1, 1))["value"].to_pylist() == [5.0, 6.0]
