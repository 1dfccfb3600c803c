"""Run in a process of its own by test_prefect_runs.py: the same flows, with or without a server as the environment says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from config.errors import DataError, QuantError, ServiceUnavailable
from config.orchestration import flow, inside_flow_run, step
from flows.ingest_equity import ingest_equity_flow
from flows.ingest_macro import ingest_macro_flow

KEY = "a-key-that-must-not-be-stored-0123456789"
attempts: dict[str, int] = {"transient": 0, "final": 0}


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


@flow(name="retries")
def retries() -> dict[str, object]:
    """Both, one after the other."""
    inside = transient()
    try:
        final()
    except DataError as failure:
        return {"inside": inside, "failure": str(failure)}
    raise AssertionError("final() did not fail")


def main(prices: str, out: str) -> None:
    """Everything once."""
    report = ingest_equity_flow(["X"], "2018-12-24", "2018-12-26", source="files", path=prices)
    macro = ingest_macro_flow(KEY, series=["AAA"])
    told = retries()
    refused = ""
    if sys.argv[3] == "with server":
        from prefect.flow_engine import run_flow

        try:
            run_flow(ingest_macro_flow, parameters={"fred_api_key": "typed-into-the-page"})
        except QuantError as failure:
            refused = str(failure)
    answer = {"report": report.as_dict(), "macro": macro.as_dict(), "told": told, "attempts": attempts, "refused": refused}
    Path(out).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
