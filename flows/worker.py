"""A worker: runs in this process's place what a Prefect work pool hands out, each run in a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from flows.schedules import POOL, require_api

__all__ = ["run_worker"]


def run_worker(*, pool: str = POOL, limit: int | None = None, run_once: bool = False) -> None:
    """Work until stopped. Runs start in the current folder: its quantrail.yaml, and relative paths in it, hold as for any command.

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
    from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

    here = Path.cwd()

    class QuantrailWorker(ProcessWorker):
        """Prefect starts each run in a throw-away folder; there, other settings would hold, and a home of its own would be made."""

        async def run(self, flow_run: Any, configuration: ProcessJobConfiguration, task_status: Any = None) -> Any:
            configuration.working_dir = configuration.working_dir or here
            return await super().run(flow_run, configuration, task_status)

    worker = QuantrailWorker(work_pool_name=pool, limit=limit, create_pool_if_not_found=True)
    asyncio.run(worker.start(run_once=run_once, printer=_silent))


def _silent(text: str) -> None:
    """Libraries do not print; what the worker does is on the Prefect page and in its log."""
