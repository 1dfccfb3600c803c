"""A worker: runs in this process's place what a Prefect work pool hands out, each run in a process of its own."""

from __future__ import annotations

import asyncio

from flows.schedules import POOL, require_api

__all__ = ["run_worker"]


def run_worker(*, pool: str = POOL, limit: int | None = None, run_once: bool = False) -> None:
    """Work until stopped.

    Parameters
    ----------
    pool : str
        The work pool; made when there is none.
    limit : int, optional
        Runs at the same time; None: no limit.
    run_once : bool
        Look for work once, do it, and return.

    Raises
    ------
    InputError
        No Prefect server is set.
    """
    require_api("a worker")
    from prefect.workers.process import ProcessWorker

    worker = ProcessWorker(work_pool_name=pool, limit=limit, create_pool_if_not_found=True)
    asyncio.run(worker.start(run_once=run_once, printer=_silent))


def _silent(text: str) -> None:
    """Libraries do not print; what the worker does is on the Prefect page and in its log."""
