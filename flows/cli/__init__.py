"""The command `quant`: verbs import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; every `QuantError` becomes its message, its remedy and its exit code."""
    from config.errors import QuantError
    from flows.cli.shell import report_error

    try:
        from flows.cli.app import app

        app()
    except QuantError as problem:
        sys.exit(report_error(problem))
    except OSError as problem:
        from config.errors import StorageError

        where = f" ({problem.filename})" if problem.filename else ""
        failure = StorageError(
            f"the system refused: {problem.strerror or problem}{where}",
            remedy="check free space and permissions: quant doctor",
        )
        sys.exit(report_error(failure))
