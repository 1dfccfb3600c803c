"""Flows and steps without a server: plain calls, retried by error class; what a flow withholds has its default back."""

from __future__ import annotations

import inspect
import time

import pytest

from config.errors import DataError, RateLimited, ServiceUnavailable
from config.orchestration import LONGEST_WAIT_SECONDS, QuantFlow, api_configured, flow, inside_flow_run, step, wait_before_retry
from config.progress import SILENT, Progress


@flow(name="adds", withheld=("progress", "key"))
def adds(one: int, two: int = 2, *, progress: Progress = SILENT, key: str | None = None) -> tuple[int, Progress, str | None, bool]:
    """Say what arrived."""
    return one + two, progress, key, inside_flow_run()


def test_without_an_api_a_flow_is_the_plain_function() -> None:
    assert not api_configured()
    assert adds(1) == (3, SILENT, None, False)
    assert adds(1, two=4, key="k") == (5, SILENT, "k", False)
    assert adds(1, return_state=False) == (3, SILENT, None, False)


def test_none_stands_for_the_default_of_a_withheld_parameter() -> None:
    assert adds(1, progress=None)[1] is SILENT


def test_prefects_form_shows_a_withheld_parameter_as_nothing_to_fill_in() -> None:
    shown = inspect.signature(adds.fn).parameters
    assert shown["key"].default is None
    assert shown["progress"].default is None
    assert shown["one"].annotation is int
    assert set(adds.parameters.properties) == {"one", "two", "progress", "key"}


def test_a_copy_with_other_options_is_still_such_a_flow() -> None:
    copy = adds.with_options(name="adds under another name")
    assert isinstance(copy, QuantFlow)
    assert copy.name == "adds under another name"
    assert copy.withheld == ("progress", "key")
    assert copy(1) == (3, SILENT, None, False)


def test_results_are_not_persisted_and_parameters_not_validated() -> None:
    assert adds.persist_result is False
    assert adds.should_validate_parameters is False


def test_a_step_outside_a_flow_run_is_a_plain_call_that_repeats_transient_failures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    failures: list[Exception] = [ServiceUnavailable("once"), RateLimited("twice", retry_after_seconds=7.5)]

    @step(name="works at the third attempt", retries=3, retry_delay_seconds=0.5)
    def third(value: int) -> int:
        if failures:
            raise failures.pop(0)
        return value * 2

    assert third(21) == 42
    assert waits == [0.5, 7.5]  # half a second; then one, or what the service asked for, whichever is longer

    calls: list[int] = []

    @step(name="wrong for good", retries=3)
    def wrong() -> None:
        calls.append(1)
        raise DataError("wrong")

    with pytest.raises(DataError, match="wrong"):
        wrong()
    assert calls == [1]


def test_no_vendor_makes_a_run_wait_for_longer_than_five_minutes_at_a_time() -> None:
    assert wait_before_retry(RateLimited("429", retry_after_seconds=86_400.0), 0, 2.0) == LONGEST_WAIT_SECONDS == 300.0
    assert wait_before_retry(RateLimited("429", retry_after_seconds=5.0), 2, 2.0) == 8.0  # its own delay is the longer one
    assert wait_before_retry(RateLimited("429"), 1, 2.0) == 4.0
    assert wait_before_retry(ServiceUnavailable("503"), 0, 2.0) == 2.0


def test_a_step_gives_up_after_its_retries_and_raises_what_it_met(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)

    @step(name="down", retries=2, retry_delay_seconds=1.0)
    def down() -> None:
        raise ServiceUnavailable("down")

    with pytest.raises(ServiceUnavailable, match="down"):
        down()
    assert waits == [1.0, 2.0]  # doubled each time, and none after the last attempt


def test_a_step_is_a_named_task_that_keeps_nothing() -> None:
    @step(name="fetch", retries=2, retry_delay_seconds=1.5, tags=("vendor:x",))
    def fetch() -> None:
        """Fetch."""

    task = fetch.as_task  # type: ignore[attr-defined]
    assert (task.name, task.retries, task.retry_delay_seconds, task.tags) == ("fetch", 2, [1.5, 3.0], {"vendor:x"})
    assert task.persist_result is False
