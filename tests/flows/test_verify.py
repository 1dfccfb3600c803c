"""`quant data verify` walks from each row that is stored, old versions too, to the bytes it came from."""

from __future__ import annotations

from datetime import UTC, date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from config.errors import InputError
from config.settings import load_settings
from flows.bookkeeping import mark_interrupted
from flows.inventory import moment, verify_snapshot
from tests.flows.fake_vendor import MONDAY, FakeVendor, lake, ramp, run


def problems() -> list[str]:
    return [check["detail"] for check in verify_snapshot(load_settings())["checks"] if check["state"] != "ok"]


def test_a_row_whose_ingest_nobody_recorded_is_found_also_under_a_newer_one() -> None:
    vendor = FakeVendor({"A": ramp("2024-01-02", "2024-01-31")})
    vendor.actions = {"A": [(date(2024, 1, 10), "dividend", 0.5)]}
    run(vendor, ["A"])
    assert mark_interrupted(lake(), "equity_bars", MONDAY) == 0
    assert problems() == []
    rows = lake().read_latest("equity_bars").slice(0, 1).drop(["recorded_at"])
    stray = rows.set_column(rows.schema.get_field_index("ingest_id"), "ingest_id", pa.array(["stray"]))
    stray = stray.set_column(stray.schema.get_field_index("close"), "close", pc.add(stray["close"], 0.5))
    lake().write("equity_bars", stray, recorded_at=MONDAY + timedelta(days=1))
    lake().publish()
    assert problems() == ["rows of equity_bars name 1 ingests of which nothing is recorded, the first: stray"]
    lake().write("equity_bars", rows, recorded_at=MONDAY + timedelta(days=2))  # revised back: the newest row is traced
    lake().publish()
    assert len(problems()) == 1


def test_the_remedy_for_a_moment_without_time_zone_is_one() -> None:
    for text in ("2010-01-05", "2010-01-05T20:59", "2010-01-05+00:00"):
        with pytest.raises(InputError) as said:
            moment(text)
        remedy = str(said.value.remedy).split()[1]
        assert moment(remedy).tzinfo == UTC, remedy
