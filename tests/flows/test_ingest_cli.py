"""`quant ingest`: options that are a source's own, gaps, exit codes, and what is drawn for many names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from config.errors import InputError
from config.settings import load_settings
from flows.cli.app import app
from flows.cli.ingest import show_report, source_options
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_report import IngestReport, NameOutcome, RowCounts
from flows.sources.base import get_source
from flows.sources.base import source_options as options_of
from tests.flows.demo_home import quant

HEAD = "Date,Open,High,Low,Close,Volume\n"
WHOLE = HEAD + "2018-12-24,10,11,9,10.5,100\n2018-12-26,10.5,12,10,11.5,200\n2018-12-27,11,12,11,12,1\n"


def test_an_option_of_a_source_is_read_as_yaml_reads_it() -> None:
    given = ["interval=5m", "depth=3", "adjusted=false", "names=[a, b]", "since=2024-01-02", "text=a=b", "time-zone=UTC"]
    assert source_options(given, ingest_equity_flow, path=Path("x"), mapping=None) == {
        "path": "x",
        "interval": "5m",
        "depth": 3,
        "adjusted": False,
        "names": ["a", "b"],
        "since": "2024-01-02",
        "text": "a=b",
        "time_zone": "UTC",
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["interval"], "not KEY=VALUE"),
        (["=5"], "not KEY=VALUE"),
        (["a=1", "a=2"], "given twice"),
        (["a=["], "cannot be read"),
        (["clock=2020-01-01"], "clock is no option of a source"),
        (["start-date=2020-01-01"], "start_date is no option of a source"),
    ],
)
def test_an_option_that_cannot_be_read_is_refused(given: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        source_options(given, ingest_equity_flow)


@pytest.mark.parametrize("source", ["yahoo", "cboe", "ccxt", "polygon", "alpaca", "tradier"])
def test_a_clock_is_handed_to_a_source_by_code_and_never_by_a_user(source: str, tmp_path: Path) -> None:
    assert "clock" not in options_of(source, "equity")
    with pytest.raises(InputError, match="has no option 'clock'"):
        get_source(source, "equity", load_settings(), clock="2020-01-01")
    typed = quant(tmp_path / "home", "ingest", "equity", "--symbols", "X", "--source", source, "--option", "clock=2020-01-01")
    assert (typed.code, "clock is no option of a source" in typed.err) == (1, True)


def test_options_gaps_and_exit_codes_from_the_command_line(tmp_path: Path) -> None:
    home, prices = tmp_path / "home", tmp_path / "X.csv"
    prices.write_text("".join(line for line in WHOLE.splitlines(keepends=True) if "12-26" not in line))
    first = quant(home, "ingest", "equity", "--path", str(prices), "--option", "currency=EUR", "--json")
    assert (first.code, first.document["rows"]["new"], first.document["gaps"]) == (0, 2, 1)
    prices.write_text(WHOLE)
    filled = quant(home, "ingest", "equity", "--path", str(prices), "--option", "currency=EUR", "--fill-gaps", "--json")
    assert filled.code == 0
    assert (filled.document["rows"]["new"], filled.document["gaps"], filled.document["gaps_filled"]) == (1, 0, 1)
    told = quant(home, "ingest", "equity", "--path", str(prices), "--fill-gaps")
    assert "no gap is open" in told.out
    unknown = quant(home, "ingest", "equity", "--path", str(prices), "--option", "colour=red")
    assert (unknown.code, "no option 'colour'" in unknown.err) == (1, True)
    both = quant(home, "ingest", "equity", "--path", str(prices), "--fill-gaps", "--full")
    assert (both.code, "choose one" in both.err) == (1, True)


def report_of(*names: NameOutcome) -> IngestReport:
    return IngestReport(dataset="equity", snapshot_id="s" * 16, tables={"equity_bars": RowCounts()}, names=names, ingest_ids=())


def exit_code(report: IngestReport, as_json: bool = True) -> int:
    try:
        show_report(as_json, report)
    except SystemExit as end:
        return int(str(end.code))
    return 0


def test_the_exit_code_tells_refused_from_failed_from_done(capsys: pytest.CaptureFixture[str]) -> None:
    def one(outcome: Any) -> NameOutcome:
        return NameOutcome(name="A", outcome=outcome, source="s")

    assert exit_code(report_of(one("stored"), one("missing"))) == 0
    assert exit_code(report_of(one("missing"))) == 1  # a typing error is not a success
    assert exit_code(report_of(one("refused"))) == 3
    assert exit_code(report_of(one("stored"), one("refused"))) == 0
    assert exit_code(report_of(one("stored"), one("failed"))) == 5
    assert '"failed": 1' in capsys.readouterr().out


def test_of_many_names_only_the_troubled_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    fine = [NameOutcome(name=f"S{number}", outcome="stored", source="s") for number in range(99)]
    assert exit_code(report_of(*fine, NameOutcome(name="BAD", outcome="missing", source="s", message="none")), as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# 1 of 100 names, the others came through whole"
    assert [line.split("\t")[0] for line in lines[1:3]] == ["symbol", "BAD"]
    assert "1 missing" in lines[3]


def test_the_verbs_say_what_they_take() -> None:
    said = CliRunner().invoke(app, ["ingest", "equity", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert said.exit_code == 0
    for option in ("--full", "--fill-gaps", "--option", "--interval", "--source"):
        assert option in said.output
