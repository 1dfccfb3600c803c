"""Run in a process of its own by test_prefect_runs.py: the same flows, with or without a server as the environment says."""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from config.errors import DataError, QuantError, RateLimited, ServiceUnavailable
from config.orchestration import flow, inside_flow_run, step
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_macro import ingest_macro_flow

KEY = "a-key-that-must-not-be-stored-0123456789"
attempts: dict[str, int] = {"transient": 0, "final": 0}
hung: list[float] = []


@step(name="fails twice, then works", retries=3, retry_delay_seconds=0.01)
def transient() -> bool:
    """A service that is down at first."""
    attempts["transient"] += 1
    if attempts["transient"] < 3:
        raise ServiceUnavailable("not yet")
    return inside_flow_run()


@step(name="always wrong", retries=3, retry_delay_seconds=0.01)
def final() -> None:
    """Data that no repetition makes right."""
    attempts["final"] += 1
    raise DataError("never")


asked_at: list[float] = []


@step(name="asked to wait", retries=2, retry_delay_seconds=0.01)
def limited() -> None:
    """A vendor that wants to be left alone for a while, once."""
    asked_at.append(time.monotonic())
    if len(asked_at) == 1:
        raise RateLimited("429", retry_after_seconds=1.2)


@flow(name="retries")
def retries() -> dict[str, object]:
    """Both, one after the other."""
    inside = transient()
    limited()
    try:
        final()
    except DataError as failure:
        return {"inside": inside, "failure": str(failure)}
    raise AssertionError("final() did not fail")


@step(name="hangs", retries=1, retry_delay_seconds=0.01, timeout_seconds=0.4)
def hangs() -> None:
    """A service that accepts and never answers."""
    hung.append(time.monotonic())
    time.sleep(30)


@flow(name="hanging-step")
def hanging_step() -> None:
    """A step with a timeout of its own."""
    hangs()


@flow(name="hanging-flow", timeout_seconds=0.4)
def hanging_flow() -> None:
    """A flow that waits on the outside."""
    time.sleep(30)


def timed_out(run: Any) -> str:
    """What the caller of a hanging flow is told."""
    try:
        run()
    except ServiceUnavailable as failure:
        return str(failure)
    raise AssertionError("it ended by itself")


@step(name="takes")
def takes(value: object, *, named: object) -> tuple[object, object]:
    """Hand back what was given."""
    return value, named


@flow(name="hands-over")
def hands_over() -> bool:
    """Whether a step got the very objects it was given; Prefect copies what it walks through."""
    given, named = [1, [2, 3]], {"a": [4]}
    got = takes(given, named=named)
    return got[0] is given and got[1] is named


def fetch_slowly() -> tuple[float, float]:
    """When a request began and ended."""
    began = time.monotonic()
    time.sleep(0.5)
    return began, time.monotonic()


@flow(name="two-at-once")
def two_at_once(vendor: str) -> list[tuple[float, float]]:
    """Two requests to one vendor, submitted together."""
    fetch: Any = step(name="fetch slowly", tags=(f"vendor:{vendor}",))(fetch_slowly)
    running = [fetch.as_task.submit() for _ in range(2)]
    return [one.result() for one in running]


def overlap(vendor: str) -> bool:
    """Whether the two requests were under way at the same time."""
    (_, first_end), (second_start, _) = sorted(two_at_once(vendor))
    return second_start < first_end


def with_server_only() -> dict[str, object]:
    """What only a server can do: time out, limit, refuse a key that was typed into the page."""
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    refused = ""
    try:
        run_flow(ingest_macro_flow, parameters={"fred_api_key": "typed-into-the-page"})
    except QuantError as failure:
        refused = str(failure)
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("tag:vendor:limited", 1)
    return {
        "refused": refused,
        "step": timed_out(hanging_step),
        "hung": len(hung),
        "flow": timed_out(hanging_flow),
        "overlap": {"without a limit": overlap("free"), "with a limit of one": overlap("limited")},
    }


def main(prices: str, out: str) -> None:
    """Everything once."""
    report = ingest_equity_flow(["X"], "2018-12-24", "2018-12-26", source="files", path=prices)
    folder = Path(out).with_suffix(".files")
    folder.mkdir()
    (folder / "X.csv").write_text(Path(prices).read_text() + "2018-12-27,11,12,11,12,1\n2018-12-28,11,12,-1,12,1\n")
    partly = ingest_equity_flow(["BAD", "X"], source="files", path=str(folder))
    macro = ingest_macro_flow(KEY, series=["AAA"])
    told = retries()
    answer: dict[str, object] = {
        "report": report.as_dict(),
        "partly": {**partly.as_dict(), "ingest_ids": []},
        "macro": macro.as_dict(),
        "told": told,
        "attempts": attempts,
        "waited": [later - earlier for earlier, later in pairwise(asked_at)],
        "same_objects": hands_over(),
    }
    if sys.argv[3] == "with server":
        answer |= with_server_only()
    Path(out).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
