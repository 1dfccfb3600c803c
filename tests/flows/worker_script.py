"""Run in a process of its own by test_prefect_schedules.py: leave the schedule to a pool, ask for a run, do it as a worker."""

from __future__ import annotations

from prefect.deployments import run_deployment

from flows.schedules import apply_schedules
from flows.worker import run_worker

if __name__ == "__main__":
    research, *others = apply_schedules(paused=True)
    assert apply_schedules(paused=True) == [research, *others]  # again: brought up to date, not doubled
    run_deployment(research, parameters={"as_of": "2018-12-31", "symbols": ["SP500"], "series": ["AAA"]}, timeout=0)
    run_worker(run_once=True)
