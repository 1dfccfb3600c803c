"""Files of prices that a vendor adjusted, one ingested after the other: no seam gets into the lake, the whole history mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import Settings, load_settings
from features.point_in_time import load_panel
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_report import IngestReport
from lake import open_lake

DAYS = ("2018-06-26", "2018-06-27", "2018-06-28", "2018-06-29", "2018-07-02", "2018-07-03")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"home": str(tmp_path / "home")}, environ={})


def ingest(settings: Settings, folder: Path, closes: dict[str, float]) -> IngestReport:
    path = folder / f"{len(list(folder.glob('*.csv')))}.csv"
    path.write_text("date,close\n" + "".join(f"{day},{close}\n" for day, close in closes.items()))
    return ingest_equity_flow("AAA", source="files", settings=settings, path=str(path), basis="vendor_adjusted")


def test_an_append_after_the_vendors_next_adjustment_is_refused_and_the_whole_history_taken(
    settings: Settings, tmp_path: Path
) -> None:
    # Two for one on 2018-07-02: on that day the vendor halves its whole history.
    ingest(settings, tmp_path, dict(zip(DAYS, (100.0, 102.0, 101.0, 104.0), strict=False)))
    lake = open_lake(settings)
    before = lake.snapshot()
    appended = ingest(settings, tmp_path, dict(zip(DAYS[2:], (50.5, 52.0, 51.0, 51.5), strict=True)))
    assert (appended.total.new, appended.total.revised, appended.total.refused) == (0, 0, 4)
    assert lake.snapshot().id == before.id
    (reason,) = set(lake.read_latest("quarantine", where={"rule": "adjustment_not_continued"})["reason"].to_pylist())
    assert "AAA of files: the vendor's adjustment has changed" in reason
    assert "are 0.5 times what they were" in reason
    whole = ingest(settings, tmp_path, dict(zip(DAYS, (50.0, 51.0, 50.5, 52.0, 51.0, 51.5), strict=True)))
    assert (whole.total.new, whole.total.revised, whole.total.refused) == (2, 4, 0)
    panel = load_panel(lake.snapshot(), ["AAA"])
    assert panel.close["AAA"].tolist() == [50.0, 51.0, 50.5, 52.0, 51.0, 51.5]
    assert panel.basis == {"AAA": "vendor_adjusted"}


def test_an_append_with_an_equal_overlap_is_taken(settings: Settings, tmp_path: Path) -> None:
    ingest(settings, tmp_path, dict(zip(DAYS, (100.0, 102.0, 101.0, 104.0), strict=False)))
    appended = ingest(settings, tmp_path, dict(zip(DAYS[3:], (104.0, 103.0, 102.0), strict=True)))
    assert (appended.total.new, appended.total.unchanged, appended.total.refused) == (2, 1, 0)
