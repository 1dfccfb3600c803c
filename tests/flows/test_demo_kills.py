"""The demo killed at twenty random moments, and the demo run twice: nothing is lost, nothing doubled, no number differs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.flows.demo_home import QUANT, environment, quant
from tests.flows.home_facts import account, audit_is_whole, ledger, numbers, registered_versions, runs

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo_kills")]

ROUNDS = 20
Calm = tuple[Path, dict[str, Any], float]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """A demo that nothing disturbed: its home, what it printed, and how long it took."""
    home = tmp_path_factory.mktemp("calm") / "home"
    began = time.monotonic()
    said = quant(home, "demo", "--json")
    assert said.code == 0, said.err
    return home, said.document, time.monotonic() - began


def killed_after(home: Path, seconds: float) -> bool:
    """Start a demo, kill its whole process group after so long; False when it had ended by then."""
    process = subprocess.Popen(
        [*QUANT, "demo", "--json"],
        cwd=home.parent,
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    assert process.returncode == 0, said
    return False


def test_killed_at_twenty_random_moments_it_ends_as_if_nothing_had_happened(calm: Calm, tmp_path: Path) -> None:
    calm_home, expected, duration = calm
    home, rng = tmp_path / "home", random.Random(20181231)
    home.parent.mkdir(exist_ok=True)
    for round_ in range(ROUNDS):
        # Ascending, so that each round gets a little further into what the rounds before it left unfinished.
        while True:
            began = time.monotonic()
            if killed_after(home, duration * (round_ + rng.random()) / ROUNDS):
                break
            duration = time.monotonic() - began  # it re-used so much that it was through: the moments are spread over that now

    said = quant(home, "demo", "--json")
    assert said.code == 0, said.err
    assert numbers(said.document) == numbers(expected)
    assert account(home) == account(calm_home)
    assert ledger(home) == ledger(calm_home)
    assert ledger(home)["whole"]
    assert audit_is_whole(home)

    versions = registered_versions(home)
    assert set(versions.values()) == {1}, "a version was registered twice"
    assert versions == registered_versions(calm_home)
    finished = {run for run, status in runs(home) if status == "FINISHED"}
    assert {entry["run_id"] for entry in said.document["strategies"]} <= finished

    checked = quant(home, "data", "verify", "--json")
    assert (checked.code, checked.document["problems"]) == (0, 0), checked.err
    order = said.document["orders"][0]["id"]
    assert quant(home, "explain", order, "--json").document["chain"] == said.document["lineage"]


def test_two_fresh_homes_agree_in_every_number_and_every_id_of_an_order(calm: Calm, tmp_path: Path) -> None:
    home, first, _ = calm
    said = quant(tmp_path / "home", "demo", "--json")
    assert said.code == 0, said.err
    assert numbers(said.document) == numbers(first)
    assert [order["id"] for order in said.document["orders"]] == [order["id"] for order in first["orders"]]
    assert account(tmp_path / "home") == account(home)
    assert ledger(tmp_path / "home") == ledger(home)
