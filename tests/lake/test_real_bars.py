"""Real bars, 1998 to 2021, in and out again: what comes back is what another reader finds in the vendor's files."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable

from config.calendar import session_closes
from lake import Lake
from lake.gaps import missing_sessions
from lake.quality import split
from tests.lake.rows import BARS, NOW, without_recorded_at


def _vendor(folder: Path) -> pd.DataFrame:
    parts = [
        pd.read_csv(path, parse_dates=["date"]).assign(symbol=path.name.split(".")[0]) for path in sorted(folder.glob("*.csv.gz"))
    ]
    return pd.concat(parts, ignore_index=True)


def _batch(vendor: pd.DataFrame) -> pa.Table:
    closes = session_closes(pd.DatetimeIndex(vendor["date"])).as_unit("us")
    noon = pd.DatetimeIndex(vendor["date"]).tz_localize("UTC").as_unit("us") + pd.Timedelta(hours=21)
    moment = pa.array(closes.where(closes.notna(), noon).tz_convert(None).to_numpy(), pa.timestamp("us")).cast(
        pa.timestamp("us", tz="UTC")
    )
    columns = {name: pa.array(vendor[name].to_numpy(np.float64)) for name in ("open", "high", "low", "close", "volume")}
    texts = {"interval": "1d", "source": "lean", "basis": "as_traded", "currency": "USD", "calendar": "XNYS", "ingest_id": "real"}
    others = {
        "symbol": vendor["symbol"].tolist(),
        "session": vendor["date"].dt.date.tolist(),
        "event_time": moment,
        "available_at": moment,
    }
    everything = columns | others | {name: [value] * len(vendor) for name, value in texts.items()}
    schema = without_recorded_at(BARS)
    return pa.table(
        [pa.array(everything[f.name], f.type) if isinstance(everything[f.name], list) else everything[f.name] for f in schema],
        schema,
    )


def test_real_bars_survive_the_rules_the_lake_and_the_way_back(shared_data: Path, lake: Lake) -> None:
    vendor = _vendor(shared_data / "market" / "daily")
    parted = split(_batch(vendor), BARS, calendar="XNYS")
    assert parted.refused.num_rows == 0, parted.refused.select(["symbol", "session", "rule", "reason"]).slice(0, 20).to_pylist()
    assert lake.write("equity_bars", parted.accepted, recorded_at=NOW).new == len(vendor)
    snapshot = lake.publish()
    read = snapshot.read("equity_bars", columns=["symbol", "session", "open", "high", "low", "close", "volume"]).to_pandas()
    expected = vendor.rename(columns={"date": "session"}).sort_values(["symbol", "session"], ignore_index=True)
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(read[name].to_numpy(), expected[name].to_numpy(np.float64))
    assert read["symbol"].tolist() == expected["symbol"].tolist()
    # delta-rs reads the same table by itself.
    foreign = DeltaTable(lake.root / "equity_bars", version=snapshot.tables["equity_bars"].version).to_pyarrow_table()
    assert sorted(foreign["close"].to_pylist()) == sorted(expected["close"].tolist())
    spy = snapshot.read("equity_bars", where={"symbol": "SPY"}, start=date(2001, 9, 10), end=date(2001, 9, 17))
    assert spy["session"].to_pylist() == [date(2001, 9, 10), date(2001, 9, 17)]  # the exchange was closed in between
    assert missing_sessions(read_sessions(lake), "XNYS").num_rows == _holes(expected)


def read_sessions(lake: Lake) -> pa.Table:
    """What the search for gaps looks at."""
    return lake.read_latest("equity_bars", columns=["symbol", "source", "session"])


def _holes(bars: pd.DataFrame) -> int:
    """By hand: sessions on which one of the six traded and another, between its first and last bar, did not."""
    traded = bars.assign(there=True).pivot(index="session", columns="symbol", values="there").notna()
    return int(sum((~column[column.idxmax() : column[::-1].idxmax()]).sum() for _, column in traded.items()))
