"""A vendor's concurrency limit holds whatever its rows are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import Settings, load_settings
from flows.schedules import vendor_limits
from flows.sources.base import DATASETS, DatasetName, get_source, source_names, source_options, vendor_of

EVERY = [(name, dataset) for dataset in DATASETS for name in source_names(dataset)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "bars.csv").write_text("symbol,date,close\n")
    keys = ("FRED_API_KEY", "TRADIER_API_KEY", "POLYGON_API_KEY", "ALPACA_API_KEY", "ALPACA_API_SECRET")
    return load_settings(environ={"QUANT_HOME": str(tmp_path / "home"), **dict.fromkeys(keys, "a" * 32)})


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_every_registered_source_is_limited_under_its_registered_name(
    name: str, dataset: DatasetName, settings: Settings, tmp_path: Path
) -> None:
    needed = {option: str(tmp_path / "bars.csv") for option, needs in source_options(name, dataset).items() if needs}
    assert set(needed) <= {"path"}
    source = get_source(name, dataset, settings, **needed)
    assert vendor_of(source) == name
    assert vendor_limits(settings)[f"vendor:{vendor_of(source)}"] == settings.data.requests_at_once


@pytest.mark.parametrize(
    ("name", "dataset", "options", "rows_of"),
    [
        ("alpaca", "equity", {"feed": "iex"}, "alpaca_iex"),
        ("alpaca", "options", {"feed": "indicative"}, "alpaca_indicative"),
        ("ccxt", "equity", {"exchange": "coinbase"}, "ccxt_coinbase"),
    ],
)
def test_rows_of_another_feed_or_exchange_are_asked_under_the_vendors_limit(
    name: str, dataset: DatasetName, options: dict[str, str], rows_of: str, settings: Settings
) -> None:
    source = get_source(name, dataset, settings, **options)
    assert (source.name, vendor_of(source)) == (rows_of, name)


def test_a_source_from_elsewhere_goes_by_its_own_name() -> None:
    class Elsewhere:
        name = "elsewhere"
        names_per_request = 1
        incremental = False

        def available(self) -> None:
            return None

    assert vendor_of(Elsewhere()) == "elsewhere"
