"""An ingest: everything kept, the same twice adds nothing, what is wrong is set aside and said, a killed one is completed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from config.clock import FixedClock
from config.errors import InputError, QuantError, RateLimited, ServiceUnavailable, UnknownNameError
from config.hashing import sha256_bytes
from config.settings import load_settings
from flows.ingest import ingest
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_macro import ingest_macro_flow
from flows.ingest_options import ingest_options_flow
from flows.sources.base import Answer, answer_schema
from lake import Lake, open_lake

MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)
TUESDAY = datetime(2026, 1, 6, 12, tzinfo=UTC)
HEAD = "Date,Open,High,Low,Close,Volume\n"
GOOD = HEAD + "2018-12-24,10,11,9,10.5,100\n2018-12-26,10.5,12,10,11.5,200\n2018-12-27,11,12,11,12,1\n"


def lake() -> Lake:
    return open_lake(load_settings())


def from_file(path: Path, text: str, at: datetime = MONDAY, **options: Any) -> Any:
    path.write_text(text)
    return ingest_equity_flow(source="files", path=str(path), clock=FixedClock(at), **options)


def test_an_ingest_stores_rows_clocks_bytes_and_what_was_asked(tmp_path: Path) -> None:
    report = from_file(tmp_path / "X.csv", GOOD)
    assert report.outcome == "completed"
    snapshot = lake().snapshot(report.snapshot_id)
    rows = snapshot.read("equity_bars").to_pylist()
    assert [row["close"] for row in rows] == [10.5, 11.5, 12]
    assert {row["recorded_at"] for row in rows} == {MONDAY}
    (ingest_id,) = {row["ingest_id"] for row in rows}
    (run,) = lake().read_latest("ingest_runs", where={"ingest_id": ingest_id}).to_pylist()
    # From a row to the bytes it came from: the chain's last link.
    assert lake().raw.get(run["response_sha256"]) == GOOD.encode()
    assert run["response_sha256"] == sha256_bytes(GOOD.encode())
    assert json.loads(run["request"])["names"] == ["X"]
    assert (run["rows_received"], run["rows_new"], run["outcome"]) == (3, 3, "completed")


def test_the_same_again_adds_nothing_and_says_unchanged(tmp_path: Path) -> None:
    first = from_file(tmp_path / "X.csv", GOOD)
    again = from_file(tmp_path / "X.csv", GOOD, TUESDAY)
    assert again.outcome == "unchanged"
    assert again.total.as_dict() == {"received": 3, "new": 0, "revised": 0, "unchanged": 3, "refused": 0}
    assert again.snapshot_id == first.snapshot_id
    assert again.ingest_ids == first.ingest_ids
    assert len(lake().snapshots()) == 1


def test_a_changed_value_is_a_revision_known_from_the_day_it_was_seen(tmp_path: Path) -> None:
    from_file(tmp_path / "X.csv", GOOD)
    report = from_file(tmp_path / "X.csv", GOOD.replace("10,11.5,200", "10,11.4,200"), TUESDAY)
    assert report.total.as_dict() == {"received": 3, "new": 0, "revised": 1, "unchanged": 2, "refused": 0}
    (outcome,) = report.names
    assert (outcome.outcome, outcome.changed, outcome.unchanged) == ("stored", 1, 2)
    snapshot = lake().snapshot()
    before = snapshot.read("equity_bars", as_of=MONDAY).column("close").to_pylist()
    after = snapshot.read("equity_bars").column("close").to_pylist()
    assert (before, after) == ([10.5, 11.5, 12], [10.5, 11.4, 12])


def test_a_refused_row_is_named_by_its_session(tmp_path: Path) -> None:
    (outcome,) = from_file(tmp_path / "X.csv", GOOD + "2018-12-28,10,11,-9,10,1\n").troubled
    assert outcome.message == "1 row refused, the first: 2018-12-28: low is -9.0"


def test_bad_rows_go_to_quarantine_once_and_the_good_ones_are_stored(tmp_path: Path) -> None:
    # A high below the low (a rule of the table), a word for a price and a closed day (refused by the source).
    bad = GOOD + "2018-12-28,10,8,9,9,1\n2018-12-31,x,8,9,9,1\n2018-12-25,10,11,9,10,1\n"
    for at in (MONDAY, TUESDAY):
        report = from_file(tmp_path / "X.csv", bad, at)
        assert report.outcome == "completed with refusals"
        assert (report.total.received, report.total.refused) == (6, 3)
        (outcome,) = report.troubled
        assert "3 rows refused, the first: X.csv line 6" in str(outcome.message)
    refused = lake().read_latest("quarantine").to_pylist()
    assert sorted(row["rule"] for row in refused) == ["high_below_low", "not_a_session", "wrong_type"]
    wrong = next(row for row in refused if row["rule"] == "wrong_type")
    assert json.loads(wrong["raw"])["Open"] == "x"
    assert lake().snapshot().read("equity_bars").num_rows == 3


def test_a_missing_session_is_a_gap_until_it_is_filled(tmp_path: Path) -> None:
    lines = GOOD.splitlines(keepends=True)
    report = from_file(tmp_path / "X.csv", "".join(lines[:2] + lines[3:]))
    assert report.gaps == 1
    (gap,) = lake().read_latest("gaps").to_pylist()
    assert (gap["symbol"], gap["session"], gap["state"]) == ("X", date(2018, 12, 26), "missing")
    assert from_file(tmp_path / "X.csv", GOOD, TUESDAY).gaps == 0
    (gap,) = lake().read_latest("gaps").to_pylist()
    assert gap["state"] == "filled"


def test_one_unknown_symbol_among_good_ones_is_reported_and_none_known_is_an_error() -> None:
    report = ingest_equity_flow(["SP500", "NSDAQ"], "2018-12-24", "2018-12-31")
    assert {name.name: name.outcome for name in report.names} == {"SP500": "stored", "NSDAQ": "missing"}
    assert report.outcome == "completed with refusals"
    assert "did you mean NASDAQ" in str(report.troubled[0].message)
    with pytest.raises(UnknownNameError, match=r"'SPX500'[\s\S]*did you mean SP500"):
        ingest_equity_flow("SPX500")


def test_the_names_of_the_earlier_system_keep_working() -> None:
    equity = ingest_equity_flow(["SP500"], "2018-12-24", "2018-12-31")
    assert equity.total.new == 5  # 24, 26, 27, 28 and 31 December
    macro = ingest_macro_flow("a-key")
    assert macro.total.new == 1305 + 8611 + 743 + 2 * 1200
    assert any("the key was not used" in note for note in macro.notes)
    assert "a-key" not in json.dumps(macro.as_dict())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ingest_equity_flow([]), "list is empty"),
        (lambda: ingest_equity_flow(["SP500"], "31.12.2018"), "write it as 2018-12-31"),
        (lambda: ingest_equity_flow(["SP500"], "2018-12-31", "2018-01-01"), "lies after"),
        (lambda: ingest_equity_flow(["SP500"], source="reuters"), "available: .*bundled, files"),
        (lambda: ingest_equity_flow(["SP500"], path="x.csv"), "no option 'path'"),
        (lambda: ingest_options_flow(["SP500"], "reuters", "secret-key"), "available: .*modelled"),
        (lambda: ingest_macro_flow(source="reuters"), "available: .*bundled, files"),
    ],
)
def test_what_is_asked_wrongly_is_said_and_nothing_is_written(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        call()
    assert "secret-key" not in str(refused.value)
    assert not Path(load_settings().lake_address).exists()


@dataclass
class Vendor:
    """A source whose answers are scripted: by symbol, what happens at each request."""

    script: dict[str, list[QuantError | float]]
    name: str = "vendor"
    names_per_request: int | None = 1

    def available(self) -> None:
        """It cannot tell."""

    def answers(self, symbols: Sequence[str]) -> Iterator[Answer]:
        """One bar, or the scripted failure."""
        for symbol in symbols:
            acts = self.script[symbol]
            act = acts.pop(0) if len(acts) > 1 else acts[0]
            if isinstance(act, QuantError):
                raise act
            close = datetime(2018, 12, 31, 21, tzinfo=UTC)
            row = {
                **dict.fromkeys(("open", "high", "low", "volume")),
                "symbol": symbol,
                "interval": "1d",
                "event_time": close,
                "available_at": close,
                "source": self.name,
                "session": date(2018, 12, 31),
                "close": act,
                "basis": "as_traded",
                "currency": "USD",
                "calendar": "XNYS",
            }
            yield Answer(
                source=self.name,
                dataset="equity_bars",
                origin="vendor.example",
                request={"symbol": symbol},
                payload=json.dumps([symbol, act]).encode(),
                rows=pa.Table.from_pylist([row], schema=answer_schema("equity_bars")),
                names=(symbol,),
            )


def ask_vendor(script: dict[str, list[QuantError | float]]) -> Any:
    vendor = Vendor(script)
    from config.progress import SILENT

    return ingest(
        "equity",
        list(script),
        [vendor],
        lambda source, names, start, end: source.answers(names),
        lake=lake(),
        clock=FixedClock(MONDAY),
        progress=SILENT,
    )


def test_a_transient_failure_is_cured_by_asking_again_and_a_lasting_one_fails_only_its_symbol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    down = ServiceUnavailable("500 from vendor.example")
    script: dict[str, list[QuantError | float]] = {
        "A": [1.0],
        "B": [down, RateLimited("429", retry_after_seconds=9.0), 2.0],
        "C": [down],
        "D": [4.0],
    }
    report = ask_vendor(script)
    assert {name.name: name.outcome for name in report.names} == {"A": "stored", "B": "stored", "C": "failed", "D": "stored"}
    assert waits[:2] == [2.0, 9.0]  # the first retry after two seconds, the second after what the vendor asked for
    assert len(waits) == 2 + 3
    assert lake().snapshot().read("equity_bars").num_rows == 3


def test_when_every_request_fails_the_failure_is_raised_and_nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(ServiceUnavailable, match="no route"):
        ask_vendor({"A": [ServiceUnavailable("no route")], "B": [ServiceUnavailable("no route")]})
    assert lake().snapshots() == ()


@pytest.mark.parametrize("kill_at", ["lake.write", "quarantine", "record_runs", "publish"])
def test_an_ingest_killed_between_any_two_steps_is_completed_by_the_next(tmp_path: Path, kill_at: str) -> None:
    bad = GOOD + "2018-12-28,10,8,9,9,1\n"
    prices = tmp_path / "X.csv"
    prices.write_text(bad)
    targets = {
        "lake.write": "import lake.store as m; name, owner = 'write', m.Lake",
        "quarantine": "import lake.quarantine as m; name, owner = 'quarantine', m",
        "record_runs": "import flows.ingest_store as m; name, owner = 'record_runs', m",
        "publish": "import lake.store as m; name, owner = 'publish', m.Lake",
    }
    code = (
        f"import os, signal\n{targets[kill_at]}\n"
        "setattr(owner, name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))\n"
        "from flows.ingest_equity import ingest_equity_flow\n"
        f"ingest_equity_flow(source='files', path={str(prices)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert lake().snapshots() == ()  # nothing half-done was shown
    report = from_file(prices, bad)
    assert report.total.new + report.total.unchanged == 3
    assert lake().snapshot(report.snapshot_id).read("equity_bars").num_rows == 3
    assert lake().read_latest("quarantine").num_rows == 1
    ingest_ids = lake().snapshot().read("equity_bars").column("ingest_id").unique().to_pylist()
    runs = lake().read_latest("ingest_runs", where={"ingest_id": ingest_ids})
    assert lake().raw.get(runs.column("response_sha256")[0].as_py()) == bad.encode()


def test_the_report_is_plain_json_with_the_keys_that_are_promised() -> None:
    document = json.loads(json.dumps(ingest_equity_flow(["SP500"], "2018-12-24", "2018-12-31").as_dict()))
    assert document["outcome"] == "completed"
    assert document["rows"] == {"received": 5, "new": 5, "revised": 0, "unchanged": 0, "refused": 0}
    assert document["tables"] == {"equity_bars": document["rows"]}
    (outcome,) = document["outcomes"]
    assert (outcome["symbol"], outcome["outcome"], outcome["received"], outcome["source"]) == ("SP500", "stored", 5, "bundled")
