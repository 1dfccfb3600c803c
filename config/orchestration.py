"""One source, two ways to run: plain Python when no Prefect API is configured, a full Prefect run when one is.

1. `flow` makes a `prefect.Flow`; its direct call runs the plain function unless an API address is set (`api_configured`).
   Parameters named `withheld` (keys, settings, progress) stay in this process: Prefect's database never sees them (`_hand_over`).
2. `step` makes a `prefect.Task`; it is a task run only inside a Prefect flow run (`inside_flow_run`), else a plain call.
3. Either way a step is retried by error class: `config.errors.Transient` and nothing else (`_is_transient`).
4. What Prefect timed out is raised as a `ServiceUnavailable`, like every other outside thing that did not answer (`_as_ours`).

Prefect's own server-less mode is not used: it starts a throw-away server, which costs 7 CPU seconds for a trivial flow and
fails when several processes start at once.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

# Before the import: Prefect and the libraries below it read these once.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")

import prefect
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.flow_engine import FlowRunTimeoutError
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.task_engine import TaskRunTimeoutError
from prefect.utilities.annotations import quote

from config.errors import InputError, RateLimited, ServiceUnavailable, Transient

__all__ = ["LONGEST_WAIT_SECONDS", "QuantFlow", "api_configured", "flow", "inside_flow_run", "some_of", "step", "wait_before_retry"]

LONGEST_WAIT_SECONDS = 300.0
"""No vendor's Retry-After makes a run wait longer than this before one retry."""

P = ParamSpec("P")
R = TypeVar("R")


def api_configured() -> bool:
    """Whether a Prefect API address is set, by the environment or by the active profile."""
    return bool(PREFECT_API_URL.value())


def inside_flow_run() -> bool:
    """Whether this code runs inside a Prefect flow run."""
    return FlowRunContext.get() is not None


# What the innermost direct call of a flow keeps from Prefect, on its way from `__call__` to the function.
_WITHHELD: ContextVar[dict[str, Any] | None] = ContextVar("quantrail_withheld_parameters", default=None)


@contextmanager
def _hand_over(values: dict[str, Any]) -> Iterator[None]:
    token = _WITHHELD.set(values)
    try:
        yield
    finally:
        _WITHHELD.reset(token)


def _is_transient(task: Any, run: Any, state: Any) -> bool:
    """Prefect's retry condition: retry what is marked `Transient` or was timed out, let everything else fail at once."""
    del task, run
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, Transient | TaskRunTimeoutError)


@contextmanager
def _as_ours(what: str, seconds: float | None) -> Iterator[None]:
    """Raise Prefect's timeouts as an error of ours, so that callers handle one kind and the command line words it."""
    try:
        yield
    except (FlowRunTimeoutError, TaskRunTimeoutError) as timed_out:
        raise ServiceUnavailable(
            f"{what} was stopped: it took longer than {seconds:g} seconds", remedy="run it again; what was stored is kept"
        ) from timed_out


def some_of(names: str | Sequence[Any] | None, *, all_of: str = "all", shown: int = 3) -> str:
    """A list of names short enough for the name of a run: the first few, and how many more.

    Examples
    --------
    >>> some_of(["SP500", "NASDAQ", "AAPL", "AMD", "BAC"])
    'SP500, NASDAQ, AAPL and 2 more'
    """
    if names is None:
        return all_of
    listed = [names] if isinstance(names, str) else [str(name) for name in names]
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more


class QuantFlow(prefect.Flow[P, R]):
    """A flow whose direct call needs no server."""

    withheld: tuple[str, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a Prefect flow when an API is configured, as the plain function otherwise."""
        if not (api_configured() or inside_flow_run()):
            for prefect_only in ("return_state", "wait_for"):
                kwargs.pop(prefect_only, None)
            return self.fn(*args, **kwargs)
        signature = inspect.signature(self.fn)
        prefect_only_given = {name: kwargs.pop(name) for name in ("return_state", "wait_for") if name in kwargs}
        given = signature.bind(*args, **kwargs)
        kept = {name: given.arguments[name] for name in self.withheld if name in given.arguments}
        for name in kept:
            given.arguments[name] = signature.parameters[name].default
        # A synchronous run with a heartbeat ends on a sleep of a second.
        quiet = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with _as_ours(f"the flow {self.name}", self.timeout_seconds), _hand_over(kept), quiet:
            return super().__call__(*given.args, **given.kwargs, **prefect_only_given)

    def with_options(self, **options: Any) -> QuantFlow[P, R]:
        """As `prefect.Flow.with_options`, keeping this class (a deployment made of the copy behaves the same)."""
        copy = super().with_options(**options)
        copy.__class__ = QuantFlow
        kept = cast("QuantFlow[P, R]", copy)
        kept.withheld = self.withheld
        return kept


def flow(
    *,
    name: str,
    description: str | None = None,
    timeout_seconds: float | None = None,
    run_name: Callable[[Mapping[str, Any]], str] | None = None,
    withheld: tuple[str, ...] = (),
) -> Callable[[Callable[P, R]], QuantFlow[P, R]]:
    """Declare a flow: named, timed, its result never persisted by accident.

    Parameters
    ----------
    name : str
        Shown on the Prefect page.
    timeout_seconds : float, optional
        Ends a Prefect run, as `ServiceUnavailable` for the caller; a plain call is not timed.
    run_name : callable, optional
        Makes of the parameters the name of a run on the Prefect page; without it Prefect invents one.
    withheld : tuple of str
        Parameters, each with a default, that never reach Prefect: a direct call hands them to the function past Prefect, and
        a run that was given one through Prefect (a deployment's parameter, typed into the page) is refused, because Prefect
        stores parameters where anyone who can open its page can read them.
    """

    def declare(function: Callable[P, R]) -> QuantFlow[P, R]:
        @functools.wraps(function)
        def entered(*args: P.args, **kwargs: P.kwargs) -> R:
            if not withheld:
                return function(*args, **kwargs)
            whole = _taken_over(function, entered, withheld, args, kwargs)
            return function(*whole.args, **whole.kwargs)

        if withheld:
            entered.__signature__ = _shown_to_prefect(function, withheld)  # type: ignore[attr-defined]
        declared = QuantFlow(
            entered,
            name=name,
            description=description,
            timeout_seconds=timeout_seconds,
            flow_run_name=None if run_name is None else functools.partial(_name_of_run, run_name, function),
            persist_result=False,
            validate_parameters=False,
        )
        declared.withheld = withheld
        return declared

    return declare


def _name_of_run(run_name: Callable[[Mapping[str, Any]], str], function: Callable[..., Any]) -> str:
    """Prefect asks for the name with the run's context set, and without arguments; a deployment's run lacks the defaults."""
    run = FlowRunContext.get()
    defaults = {name: one.default for name, one in inspect.signature(function).parameters.items() if one.default is not one.empty}
    return run_name({**defaults, **((run.parameters if run is not None else None) or {})})


def _shown_to_prefect(function: Callable[..., Any], withheld: tuple[str, ...]) -> inspect.Signature:
    """The signature Prefect makes its parameter form of: what is withheld is anything, and None."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # a type imported for the type checker only
        signature = inspect.signature(function)
    shown = [
        parameter.replace(annotation=Any, default=None) if parameter.name in withheld else parameter
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=shown)


def _taken_over(
    function: Callable[..., Any], entered: Callable[..., Any], withheld: tuple[str, ...], args: Any, kwargs: Any
) -> inspect.BoundArguments:
    """The arguments of a call, with what was withheld from Prefect put back in; None stands for the default.

    Raises
    ------
    InputError
        A withheld parameter came through Prefect.
    """
    signature = inspect.signature(function)
    bound = signature.bind(*args, **kwargs)
    run = FlowRunContext.get()
    if run is not None and run.flow is not None and run.flow.fn is entered:
        for name in withheld:
            if (run.parameters or {}).get(name) is not None:
                raise InputError(
                    f"the parameter {name} was given to a Prefect run, where it is stored for all to read; the run was stopped",
                    remedy="take it out of the deployment's parameters; keys belong in the environment of the worker",
                )
        bound.arguments.update(_WITHHELD.get() or {})
    for name in withheld:
        if bound.arguments.get(name) is None:
            bound.arguments.pop(name, None)
    bound.apply_defaults()
    return bound


def wait_before_retry(failure: Exception, attempt: int, first_delay_seconds: float) -> float:
    """Seconds to wait before the next try: `first_delay_seconds`, doubled with each attempt (0, 1, ...).

    A vendor that named a longer wait gets it, up to `LONGEST_WAIT_SECONDS`; a longer one is for the next run.
    """
    asked = failure.retry_after_seconds if isinstance(failure, RateLimited) else None
    own = float(first_delay_seconds * 2**attempt)
    return max(own, min(asked or 0.0, LONGEST_WAIT_SECONDS))


def _attempt_of_task() -> int:
    """How many tries of the running task came before this one."""
    run = TaskRunContext.get()
    return max(0, (run.task_run.run_count if run is not None else 1) - 1)


def step(
    *,
    name: str,
    retries: int = 0,
    retry_delay_seconds: float = 1.0,
    timeout_seconds: float | None = None,
    tags: tuple[str, ...] = (),
    run_name: Callable[[Mapping[str, Any]], str] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a step of a flow: a Prefect task inside a Prefect run, a plain call elsewhere.

    Arguments are handed over quoted: Prefect neither looks into them (a frame, a snapshot) nor keeps them. So a step takes values,
    not another step's future.

    Parameters
    ----------
    retries : int
        How often a `Transient` failure is tried again; other failures are raised at once.
    retry_delay_seconds : float
        The wait before the first retry, doubled each time; a `RateLimited` answer that names a longer wait is honoured, up to
        `LONGEST_WAIT_SECONDS`, in a plain call and in a Prefect run alike.
    tags : tuple of str
        Prefect concurrency limits apply by tag ("vendor:yahoo").
    run_name : callable, optional
        Makes of the arguments, by name, the name of a task run on the Prefect page.
    """

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        def named(parameters: dict[str, Any]) -> str:
            return name if run_name is None else run_name(parameters)

        @functools.wraps(function)
        def patient(*args: P.args, **kwargs: P.kwargs) -> R:
            """As a task: Prefect waits a fixed time before each retry, so what a vendor asked for beyond it is waited here."""
            try:
                return function(*args, **kwargs)
            except RateLimited as failure:
                attempt = _attempt_of_task()
                if attempt < retries:
                    time.sleep(wait_before_retry(failure, attempt, retry_delay_seconds) - retry_delay_seconds * 2**attempt)
                raise

        as_task: Any = prefect.task(
            name=name,
            retries=retries,
            retry_delay_seconds=[retry_delay_seconds * 2**attempt for attempt in range(retries)] or None,
            retry_condition_fn=_is_transient,
            timeout_seconds=timeout_seconds,
            tags=list(tags),
            persist_result=False,
            cache_policy=NO_CACHE,
            task_run_name=cast("Any", named),
        )(patient)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if inside_flow_run():
                given = signature.bind(*args, **kwargs)
                with _as_ours(f"the step {name}", timeout_seconds):
                    return cast("R", as_task(*map(quote, given.args), **{key: quote(value) for key, value in given.kwargs.items()}))
            for attempt in range(retries + 1):
                try:
                    return function(*args, **kwargs)
                except Exception as failure:
                    if attempt == retries or not isinstance(failure, Transient):
                        raise
                    time.sleep(wait_before_retry(failure, attempt, retry_delay_seconds))
            raise AssertionError("unreachable: the last attempt returns or raises")

        call.as_task = as_task  # type: ignore[attr-defined]
        return call

    return declare
