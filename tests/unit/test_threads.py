"""Threads do not spin for long, unless the user wants it, and a process that others starve knows it."""

import os
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import pytest

import kdray.threads
from kdray.threads import NICENESS, STARVED, Waits, starved

spawned = get_context("spawn")
NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize("own, found", [
    ({}, [kdray.threads._TURNS, None]), ({"GOMP_SPINCOUNT": "7"}, ["7", None]),
    ({"OMP_WAIT_POLICY": "active"}, [None, "active"]), ({"OMP_WAIT_POLICY": "passive"}, [None, "passive"])])
def test_the_spin_is_bounded_before_torch_is_loaded_and_a_users_own_value_wins(own, found):
    code = f"import kdray, os, sys; print([os.environ.get(name) for name in {NAMES}], 'torch' in sys.modules)"
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**clean, **own}).stdout
    assert told.strip() == f"{found} False"


def busy() -> None:
    while True:
        pass


def share_on_one_processor(told: Connection) -> None:
    """Sends what this process waits for, with a busy one beside it on the same processor, when it is starved."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    beside = spawned.Process(target=busy, daemon=True)
    beside.start()
    kdray.threads._ENOUGH = kdray.threads._OFTEN = 0.2
    waits, ends = Waits(), time.monotonic() + 60
    while waits.share() <= STARVED and time.monotonic() < ends:
        pass
    told.send(waits.share())
    beside.kill()


def test_a_process_that_shares_its_processor_with_a_busy_one_knows_how_long_it_waits():
    ours, theirs = spawned.Pipe(duplex=False)
    process = spawned.Process(target=share_on_one_processor, args=(theirs,))
    process.start()
    assert STARVED < ours.recv() < 0.95
    process.join(60)


def test_a_process_that_sleeps_waits_for_nobody(monkeypatch):
    monkeypatch.setattr("kdray.threads._OFTEN", 0.0)
    waits = Waits()
    time.sleep(0.1)
    assert waits.share() == 0.0


@pytest.mark.parametrize("niceness, words", [
    ("15", "(training.num_cpus), or set RAY_worker_niceness=0: Ray's workers have niceness 15, others come first"),
    ("0", "(training.num_cpus)")])
def test_what_is_said_of_a_starved_run_has_numbers_and_a_remedy(monkeypatch, niceness, words):
    monkeypatch.setenv(NICENESS, niceness)
    said = starved(0.471, "a trial", "training.num_cpus")
    assert said.startswith("a trial waits for 47% of its time for a processor") and said.endswith(words)
