"""The benches' peer: a hive-partitioned folder of Parquet files, written by pyarrow and read by DuckDB. No versions, no clocks."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = ["Folder"]

KEY = "symbol, interval, event_time, source"


class Folder:
    """Bars in ``bars/year=YYYY/*.parquet``, macro observations in one file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.con = duckdb.connect(
            ":memory:",
            config={"TimeZone": "UTC", "autoinstall_known_extensions": "false", "enable_external_file_cache": "false"},
        )

    def load(self, bars: pa.Table, macro: pa.Table) -> None:
        """Write the history: one file a year, rows in the order in which they come (by symbol and day)."""
        self._by_year(bars, "history")
        pq.write_table(macro, self.root / "macro.parquet", compression="zstd")

    def update(self, bars: pa.Table, name: str) -> None:
        """Put one day's file beside the others."""
        self._by_year(bars, name)

    def compact(self, year: int) -> None:
        """Rewrite one year as one file, by symbol and day."""
        folder = self.root / "bars" / f"year={year}"
        files = sorted(folder.glob("*.parquet"))
        rows = pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])
        rows = rows.sort_by([(name.strip(), "ascending") for name in KEY.split(",")])
        for file in files:
            file.unlink()
        pq.write_table(rows, folder / "history.parquet", compression="zstd")

    def _by_year(self, bars: pa.Table, name: str) -> None:
        years = pc.year(bars["session"])
        for year in pc.unique(years).to_pylist():
            folder = self.root / "bars" / f"year={year}"
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(bars.filter(pc.equal(years, year)), folder / f"{name}.parquet", compression="zstd")

    @property
    def bars(self) -> str:
        """The bars as a FROM item."""
        return f"read_parquet('{self.root}/bars/*/*.parquet', hive_partitioning=true)"

    @property
    def macro(self) -> str:
        """The macro observations as a FROM item."""
        return f"read_parquet('{self.root}/macro.parquet')"

    def ask(self, query: str) -> pa.Table:
        """Run a query in an engine that is started already; like ours it keeps no file's bytes between queries."""
        return self.con.sql(query).to_arrow_table()

    def history(self, symbol: str) -> pa.Table:
        """Every column of one symbol's bars."""
        return self.ask(f"SELECT * EXCLUDE (year) FROM {self.bars} WHERE symbol = '{symbol}' ORDER BY {KEY}")

    def cross_section(self, day: date) -> pa.Table:
        """Every column of one day's bars, by someone who knows the partitions."""
        return self.ask(
            f"SELECT * EXCLUDE (year) FROM {self.bars} WHERE session = DATE '{day}' AND year = {day.year} ORDER BY {KEY}"
        )

    def panel(self, columns: str, *, ordered: bool) -> pa.Table:
        """Those columns of everything, in key order or in the files' order."""
        return self.ask(f"SELECT {columns} FROM {self.bars}{f' ORDER BY {KEY}' if ordered else ''}")
