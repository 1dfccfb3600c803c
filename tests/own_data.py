"""The files that the README and docs/data.md speak of, small and hand-made."""

from __future__ import annotations

import contextlib
from pathlib import Path
from unittest.mock import patch

from tests.flows.demo_home import Said, environment

HEAD = "symbol,date,open,high,low,close,volume\n"
FILES = {
    # The bar of the 4th has its high below its low.
    "prices.csv": HEAD
    + "ACME,2024-01-02,10,11,9,10.5,100\nACME,2024-01-03,10.5,11,10,10.6,120\nACME,2024-01-04,10,9,11,10,90\n"
    + "ACME,2024-01-05,10.6,12,10,11.5,150\n",
    "odd.csv": "symbol,day,last\nODD,2024-01-02,5.5\n",
    "mapping.yaml": "time: day\nclose: last\n",
    "actions.csv": "symbol,ex_date,kind,value\nACME,2024-01-05,dividend,0.25\n",
    "macro.csv": "series,period,value\nOUTPUT,2023-11-01,1.5\nOUTPUT,2023-12-01,1.6\n",
    "members.csv": "universe,symbol,from,to\nOURS,ACME,2024-01-02,\nOURS,GONE,2023-01-03,2024-01-04\n",
}


def write_files(folder: Path) -> None:
    """Put them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")


def quant_here(folder: Path, *words: str) -> Said:
    """Run `quant` in this process, in `folder`, its home below it; a command costs its work, not two seconds of imports.

    An error of ours is raised: here, none is expected.
    """
    from typer.testing import CliRunner

    from flows.cli.app import app

    with contextlib.chdir(folder), patch.dict("os.environ", environment(folder / "home"), clear=True):
        done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    return Said(done.exit_code, done.stdout, done.stderr)
