"""One source, two ways to run: plain Python when no Prefect API is configured, a full Prefect run when one is.

1. `flow` makes a `prefect.Flow`; its direct call runs the plain function unless an API address is set (`api_configured`).
2. `step` makes a `prefect.Task`; it is a task run only inside a Prefect flow run (`_inside_flow_run`), else a plain call.
3. Either way a step is retried by error class: `config.errors.Transient` and nothing else (`_is_transient`).

Prefect's own server-less mode is not used: it starts a throw-away server, which costs 7 CPU seconds for a trivial flow and
fails when several processes start at once.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

# Before the import: Prefect and the libraries below it read these once.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")

import prefect
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL

from config.errors import RateLimited, Transient

__all__ = ["QuantFlow", "api_configured", "flow", "step"]

P = ParamSpec("P")
R = TypeVar("R")


def api_configured() -> bool:
    """Whether a Prefect API address is set, by the environment or by the active profile."""
    return bool(PREFECT_API_URL.value())


def _inside_flow_run() -> bool:
    return FlowRunContext.get() is not None


def _is_transient(task: Any, run: Any, state: Any) -> bool:
    """Prefect's retry condition: retry what is marked `Transient`, let everything else fail at once."""
    del task, run
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, Transient)


class QuantFlow(prefect.Flow[P, R]):
    """A flow whose direct call needs no server."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a Prefect flow when an API is configured, as the plain function otherwise."""
        if api_configured() or _inside_flow_run():
            return super().__call__(*args, **kwargs)
        for prefect_only in ("return_state", "wait_for"):
            kwargs.pop(prefect_only, None)
        return self.fn(*args, **kwargs)

    def with_options(self, **options: Any) -> QuantFlow[P, R]:
        """As `prefect.Flow.with_options`, keeping this class (a deployment made of the copy behaves the same)."""
        copy = super().with_options(**options)
        copy.__class__ = QuantFlow
        return cast("QuantFlow[P, R]", copy)


def flow(
    *,
    name: str,
    description: str | None = None,
    timeout_seconds: float | None = None,
    flow_run_name: str | None = None,
) -> Callable[[Callable[P, R]], QuantFlow[P, R]]:
    """Declare a flow: named, timed, its result never persisted by accident.

    Parameters
    ----------
    name : str
        Shown on the Prefect page.
    timeout_seconds : float, optional
        Ends a Prefect run; a plain call is not timed.
    flow_run_name : str, optional
        A template over the parameters, as Prefect formats it.
    """

    def declare(function: Callable[P, R]) -> QuantFlow[P, R]:
        return QuantFlow(
            function,
            name=name,
            description=description,
            timeout_seconds=timeout_seconds,
            flow_run_name=flow_run_name,
            persist_result=False,
            validate_parameters=False,
        )

    return declare


def step(
    *,
    name: str,
    retries: int = 0,
    retry_delay_seconds: float = 1.0,
    timeout_seconds: float | None = None,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a step of a flow: a Prefect task inside a Prefect run, a plain call elsewhere.

    Parameters
    ----------
    retries : int
        How often a `Transient` failure is tried again; other failures are raised at once.
    retry_delay_seconds : float
        The wait before the first retry, doubled each time; a `RateLimited` answer that names a longer wait is honoured.
    tags : tuple of str
        Prefect concurrency limits apply by tag ("vendor:yahoo").
    """

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        as_task: Any = prefect.task(
            name=name,
            retries=retries,
            retry_delay_seconds=[retry_delay_seconds * 2**attempt for attempt in range(retries)] or None,
            retry_condition_fn=_is_transient,
            timeout_seconds=timeout_seconds,
            tags=list(tags),
            persist_result=False,
            cache_policy=NO_CACHE,
        )(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if _inside_flow_run():
                return cast("R", as_task(*args, **kwargs))
            for attempt in range(retries + 1):
                try:
                    return function(*args, **kwargs)
                except Exception as failure:
                    if attempt == retries or not isinstance(failure, Transient):
                        raise
                    asked = failure.retry_after_seconds if isinstance(failure, RateLimited) else None
                    time.sleep(max(retry_delay_seconds * 2**attempt, asked or 0.0))
            raise AssertionError("unreachable: the last attempt returns or raises")

        call.as_task = as_task  # type: ignore[attr-defined]
        return call

    return declare
