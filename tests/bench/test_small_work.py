"""CPU seconds of three small pieces of work, whose bounds a busy CI machine may not fail: here, on a quiet one, they hold."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from config.settings import load_settings
from risk.overfitting import pbo
from tests.risk.reference import grid_returns
from tests.tracking.samples import report_data
from tests.tracking.test_ledger import record, trial
from tracking.ledger import TrialLedger
from tracking.report import render_report

pytestmark = pytest.mark.bench


def spent(what: str, work: Callable[[], object]) -> float:
    """CPU seconds of one call, printed."""
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    print(f"{what}: {seconds:.2f} CPU s")
    return seconds


def test_ten_thousand_trials_are_recorded_within_two_cpu_seconds() -> None:
    index = pd.DatetimeIndex(pd.bdate_range("2015-01-01", periods=250), name="session")
    values = np.random.default_rng(3).normal(size=(10_000, 250))
    trials = [trial(n, returns=pd.Series(values[n], index=index)) for n in range(10_000)]
    assert spent("10,000 trials", lambda: record(TrialLedger(load_settings()), *trials)) < 2.0


def test_a_report_is_rendered_within_three_cpu_seconds() -> None:
    assert spent("a report", lambda: render_report(report_data())) < 3.0


def test_the_probability_of_overfitting_of_a_grid_takes_six_cpu_seconds_at_most() -> None:
    returns = grid_returns().to_numpy()
    assert spent("12,870 splits of the NASDAQ grid", lambda: pbo(returns, blocks=16)) < 6.0
