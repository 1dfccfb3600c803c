"""Run in a process of its own by test_prefect_schedules.py: serve two schedules that are due every half minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.schedules import Interval
from prefect.types.entrypoint import EntrypointType

from flows.schedules import daily_ingest_flow, serve_schedules


def soon(name: str, **parameters: Any) -> Any:
    """A deployment of the daily ingest that is due within half a minute, however long it takes to make it."""
    return daily_ingest_flow.to_deployment(
        name=name,
        schedule=Interval(timedelta(seconds=30), anchor_date=datetime.now(UTC) + timedelta(seconds=5)),
        parameters={"symbols": ["SP500"], "series": ["AAA", "NOSUCH"], **parameters},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


if __name__ == "__main__":
    # Christmas day is no session; the last day of 2018 was one.
    serve_schedules([soon("closed", as_of="2018-12-25"), soon("open", as_of="2018-12-31")])
