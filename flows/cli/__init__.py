"""The command `quant`: verbs import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; every `QuantError` becomes its message, its remedy and its exit code."""
    _occupy_standard_streams()
    import sqlite3

    from config.damage import is_damaged
    from config.errors import IntegrityError, QuantError, StorageError
    from flows.cli.shell import report_error

    try:
        from flows.cli.app import app

        app()
    except SystemExit as end:
        if end.code == 130:
            sys.stderr.write("interrupted: what was acknowledged is kept; the same command goes on from there\n")
        raise
    except QuantError as problem:
        sys.exit(report_error(problem))
    except sqlite3.DatabaseError as problem:
        said = f"a database of the home folder cannot be read: {problem}"
        if not is_damaged(problem):
            sys.exit(report_error(StorageError(said, remedy="run the same command again; check free space: quant doctor")))
        sys.exit(report_error(IntegrityError(said, remedy="restore the file from a backup, or set QUANT_HOME to a new folder")))
    except OSError as problem:
        where = f" ({problem.filename})" if problem.filename else ""
        remedy = "check free space and permissions: quant doctor"
        if _current_folder_is_gone():
            where, remedy = ": the current folder was deleted", "change into a folder that exists, or set QUANT_HOME to a full path"
        sys.exit(report_error(StorageError(f"the system refused: {problem.strerror or problem}{where}", remedy=remedy)))


def _occupy_standard_streams() -> None:
    """Give closed standard streams to the null device: a database opened next would else become standard output or error."""
    while (handle := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(handle)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _current_folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
