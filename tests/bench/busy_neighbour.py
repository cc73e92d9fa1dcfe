"""A training of 2 threads on 2 cores, alone and with one busy process beside it.

    python tests/bench/busy_neighbour.py [--spins 300000 1000 passive] [--niceness 0 15] [--rounds 10] [--seconds 3]

Trains the quickstart's teacher (MiniLM, rows of 48 tokens, bfloat16 where the processor has it) in a process of its own
for each pair of spin count (GOMP_SPINCOUNT; 300000 is what GNU OpenMP does unless told, `passive` OMP_WAIT_POLICY) and
niceness. All are warmed up, and stopped; then each in turn goes on for some seconds, alone and with a busy process of
niceness 0 that counts, round after round: what else runs on the machine troubles all alike. Prints rows/s, the best and
the median round of each, and the share of the best alone that is left beside the busy process.
"""

import argparse
import logging
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

THREADS = len(os.sched_getaffinity(0))
WARM = 4
"""Steps before a process is ready."""
SETTLE = 0.3
"""Seconds after a process goes on that are not counted."""
spawned = multiprocessing.get_context("spawn")


class Counter:
    """A run's surroundings and its progress at once: it counts rows, for ever."""

    rank, workers = 0, 1

    def __init__(self, rows: Any, ready: Any):
        self.rows, self.ready, self.steps = rows, ready, 0

    def restore(self) -> None:
        """It begins anew."""

    def report(self, metrics: dict[str, Any], checkpoint: Any) -> None:
        """Nothing."""

    def progress(self, label: str, total: int, done: int) -> "Counter":
        """Itself."""
        return self

    def advance(self, count: int, **facts: float) -> None:
        """A step."""
        self.rows.value += count
        self.steps += 1
        if self.steps == WARM:
            self.ready.set()

    def close(self) -> None:
        """Nothing."""


class Training:
    """A training in a process of its own that is stopped unless it is measured."""

    def __init__(self, job: Any, spin: str, niceness: int):
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            os.environ.pop(name, None)
        os.environ.update({"OMP_WAIT_POLICY": "PASSIVE"} if spin == "passive" else {"GOMP_SPINCOUNT": spin})
        self.rows, ready = spawned.Value("q", 0, lock=False), spawned.Event()
        self.process = spawned.Process(target=train, args=(job, niceness, self.rows, ready), daemon=True)
        self.process.start()
        ready.wait()
        self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        """Stops it or lets it go on."""
        assert self.process.pid
        os.kill(self.process.pid, number)

    def rate(self, seconds: float) -> float:
        """Rows/s."""
        self.signal(signal.SIGCONT)
        time.sleep(SETTLE)
        before, started = self.rows.value, time.perf_counter()
        time.sleep(seconds)
        found = (self.rows.value - before) / (time.perf_counter() - started)
        self.signal(signal.SIGSTOP)
        return found


def main() -> None:
    """Every combination, some times over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spins", nargs="+", default=["300000", "10000", "1000", "passive"])
    parser.add_argument("--niceness", nargs="+", type=int, default=[0, 15])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kdray-busy-") as storage:
        job = teacher_job(storage)
        trainings = {(spin, niceness): Training(job, spin, niceness)
                     for niceness in options.niceness for spin in options.spins}
        rates: dict[tuple[str, int, bool], list[float]] = {
            (*which, beside): [] for which in trainings for beside in (False, True)}
        for _ in range(options.rounds):
            for beside in (False, True):
                with neighbour() if beside else nobody():
                    for which, training in trainings.items():
                        rates[*which, beside].append(training.rate(options.seconds))
    print(f"{THREADS} threads on {THREADS} cores, rows/s, best (median) of {options.rounds} rounds")
    print(f"{'spin':>8} {'niceness':>9} {'alone':>16} {'beside':>16} {'left':>6}")
    for which in trainings:
        alone, beside = rates[*which, False], rates[*which, True]
        print(f"{which[0]:>8} {which[1]:>9} {max(alone):>8.1f} ({median(alone):5.1f}) {max(beside):>8.1f} "
              f"({median(beside):5.1f}) {max(beside) / max(alone):>6.2f}")


def teacher_job(storage: str) -> Any:
    """The fine-tuning of the quickstart's teacher, its corpus built."""
    from dataclasses import replace

    from kdray.config import TrainingConfig, load
    from kdray.models.load import Origin
    from kdray.pipeline import Pipeline

    logging.disable(logging.INFO)
    pipeline = Pipeline(load("jobs/configs/quickstart.yaml", [f"storage={storage}"]))
    tuning = pipeline.config.teacher.finetune
    assert tuning is not None
    settings = TrainingConfig(**{**tuning.model_dump(), "alpha": 1.0, "batch_size": 32, "epochs": 10**6})
    base = pipeline._model(pipeline.base)
    job = pipeline._job("teachers", settings, base, Origin(base.place), pipeline.corpus, None)
    return replace(job, threads=THREADS)


def train(job: Any, niceness: int, rows: Any, ready: Any) -> None:
    """For ever."""
    os.nice(niceness)
    from kdray.training.loop import run_in_process

    logging.disable(logging.WARNING)
    run_in_process(job, Counter(rows, ready))


@contextmanager
def neighbour() -> Iterator[None]:
    """A busy process."""
    busy = spawned.Process(target=count, daemon=True)
    busy.start()
    try:
        yield
    finally:
        busy.kill()
        busy.join()


def count() -> None:
    """For ever."""
    number = 0
    while True:
        number += 1


@contextmanager
def nobody() -> Iterator[None]:
    """No process."""
    yield


if __name__ == "__main__":
    main()
