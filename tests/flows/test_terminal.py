"""What a person sees: on a real terminal of a hundred columns nothing is wider, and nothing is left out in silence."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.flows.demo_home import environment, quant

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 100
BARS = "symbol,date,open,high,low,close,volume\n" + "".join(
    f"ACME,2024-01-{day:02},10.{day},11.5,9.5,10.{day},{day}00\n" for day in (2, 3, 4)
)


def on_a_terminal(home: Path, *arguments: str, columns: int = COLUMNS) -> tuple[int, list[str]]:
    """Run the command line on a pseudo-terminal; its exit code and the lines it drew."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    told = environment(home) | {"TERM": "dumb"}
    told.pop("COLUMNS", None)
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    running = subprocess.Popen(command, stdout=theirs, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=told, cwd=ROOT)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not more:
            break
        drawn += more
    os.close(ours)
    running.communicate()
    return running.returncode, [line.rstrip() for line in drawn.decode().replace("\r", "").splitlines()]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three good bars, and one whose high lies below its low."""
    (tmp_path / "acme.csv").write_text(BARS + "ACME,2024-01-05,10,9,11,10,500\n")
    assert quant(tmp_path / "home", "ingest", "equity", "--path", str(tmp_path / "acme.csv")).code == 0
    return tmp_path / "home"


def test_a_table_too_wide_for_the_terminal_says_what_it_leaves_out(home: Path) -> None:
    code, lines = on_a_terminal(home, "data", "show", "equity_bars", "--symbols", "ACME")
    assert code == 0
    assert max(len(line) for line in lines) <= COLUMNS
    text = " ".join(" ".join(lines).split())
    # What is alike is said once, above; the closes of the three days stand in the table, in one line each.
    assert "in every row: interval 1d, source files, high 11.5, low 9.5, basis as_traded, currency USD, calendar XNYS" in text
    days = [line.split() for line in lines if line.strip().startswith("ACME")]
    assert [(day[3], day[5]) for day in days] == [("2024-01-02", "10.2"), ("2024-01-03", "10.3"), ("2024-01-04", "10.4")]
    header = next(line.split() for line in lines if line.strip().startswith("symbol"))
    everything = quant(home, "data", "show", "equity_bars").out.splitlines()[1].split("\t")  # in a pipe: every column
    left_out = [column for column in everything if column not in header and column not in text.split("in every row: ")[1]]
    assert "close" in everything
    assert left_out == []


def test_refused_rows_are_told_with_reason_and_row_and_no_empty_grid_is_drawn(home: Path) -> None:
    _, lines = on_a_terminal(home, "data", "quarantine")
    assert lines[0].split()[1:] == ["equity_bars", "ACME", "high_below_low"]
    assert lines[1].strip() == "high 9.0 is below low 11.0"
    assert lines[2].strip().startswith('{"')
    _, none = on_a_terminal(home, "data", "quarantine", "--table", "cot_positions")
    assert none == ["nothing is held"]
    _, checked = on_a_terminal(home, "data", "check")
    assert "stored: no stored row breaks a rule" in checked
    assert "gaps: no session is missing" in checked


def test_a_symbol_that_was_never_stored_is_an_error_and_an_empty_window_is_not(home: Path) -> None:
    unknown = quant(home, "data", "show", "equity_bars", "--symbols", "ACNE")
    assert (unknown.code, "did you mean ACME?" in unknown.err) == (1, True)
    empty = quant(home, "data", "show", "equity_bars", "--symbols", "ACME", "--start", "2024-02-01", "--json")
    assert (empty.code, empty.document["rows"]) == (0, 0)


def test_a_query_says_how_many_rows_it_does_not_show(home: Path) -> None:
    asked = quant(home, "data", "sql", "select close from equity_bars order by close", "--limit", "2")
    assert asked.out.splitlines() == ["close", "10.2", "10.3", "2 of 3 rows; more with --limit"]
