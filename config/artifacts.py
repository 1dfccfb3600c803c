"""What a flow run leaves on the Prefect page for a person to read: tables, published only inside a Prefect run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from config.orchestration import inside_flow_run

__all__ = ["show_table"]


def show_table(key: str, rows: Iterable[Mapping[str, Any]], about: str) -> None:
    """Leave a table on the page of the flow run that is running; outside of one nothing happens.

    Parameters
    ----------
    key : str
        Artifacts with one key are versions of one another on the page. Anything but letters, digits and dashes becomes a dash.
    rows : iterable of mapping
        Values are shown as they are; a number that is not finite as a dash, because JSON has none.
    about : str
        Markdown above the table.
    """
    if not inside_flow_run():
        return
    from prefect.artifacts import create_table_artifact

    create_table_artifact(
        key=_key(key), table=[{name: _shown(cell) for name, cell in row.items()} for row in rows], description=about
    )


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _shown(cell: Any) -> Any:
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else "–"
    return cell if cell is None or isinstance(cell, bool | int | str) else str(cell)
