"""A training of 2 threads on 2 cores, alone and with one busy process beside it.

    python tests/bench/busy_neighbour.py [--spins 300000 10000 1000] [--niceness 0 15] [--seconds 15] [--rounds 3]

Trains the quickstart's teacher (MiniLM, rows of 96 tokens, bfloat16 where the processor has it) in a process of its own
for each pair of spin count (GOMP_SPINCOUNT; 300000 is what GNU OpenMP does unless told, `passive` OMP_WAIT_POLICY) and
niceness, as long as it takes to be warm and then for some seconds. The busy process has niceness 0 and counts. Prints
rows/s, the best of all rounds, and the share of those alone that is left beside it.
"""

import argparse
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

THREADS = len(os.sched_getaffinity(0))
WARM = 4
"""Steps that are not counted."""
spawned = multiprocessing.get_context("spawn")


class EnoughError(Exception):
    """The time is over."""


class Clock:
    """A run's surroundings and its progress at once: it counts rows for some seconds, then ends the run."""

    rank, workers = 0, 1

    def __init__(self, seconds: float):
        self.seconds, self.steps, self.rows, self.started = seconds, 0, 0, 0.0

    def restore(self) -> None:
        """It begins anew."""

    def report(self, metrics: dict[str, Any], checkpoint: Any) -> None:
        """An epoch's validation is not training: it ends the run too."""
        raise EnoughError

    def progress(self, label: str, total: int, done: int) -> "Clock":
        """Itself."""
        return self

    def advance(self, count: int, **facts: float) -> None:
        """A step."""
        self.steps += 1
        if self.steps == WARM:
            self.started = time.perf_counter()
        elif self.steps > WARM:
            self.rows += count
            if time.perf_counter() - self.started > self.seconds:
                raise EnoughError

    def close(self) -> None:
        """Never comes to that."""


def main() -> None:
    """Every combination, some times over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spins", nargs="+", default=["300000", "10000", "1000", "passive"])
    parser.add_argument("--niceness", nargs="+", type=int, default=[0, 15])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates: dict[tuple[str, int, bool], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="kdray-busy-") as storage:
        job = teacher_job(storage)
        for _ in range(options.rounds):
            for niceness in options.niceness:
                for spin in options.spins:
                    for beside in (False, True):
                        rate = measured(job, spin, niceness, beside, options.seconds)
                        rates.setdefault((spin, niceness, beside), []).append(rate)
                        print(f"spin {spin}, niceness {niceness}, {'beside' if beside else 'alone'}: {rate:.1f} rows/s",
                              flush=True)
    print(f"\n{THREADS} threads on {THREADS} cores, best of {options.rounds} rounds, rows/s")
    print(f"{'spin':>8} {'niceness':>9} {'alone':>7} {'beside':>7} {'left':>6}")
    for spin, niceness in dict.fromkeys((spin, niceness) for spin, niceness, _ in rates):
        alone, beside = (max(rates[spin, niceness, busy]) for busy in (False, True))
        print(f"{spin:>8} {niceness:>9} {alone:>7.1f} {beside:>7.1f} {beside / alone:>6.2f}")


def teacher_job(storage: str) -> Any:
    """The fine-tuning of the quickstart's teacher, its corpus built."""
    from dataclasses import replace

    from kdray.config import TrainingConfig, load
    from kdray.pipeline import Pipeline

    logging.disable(logging.INFO)
    pipeline = Pipeline(load("jobs/configs/quickstart.yaml", [f"storage={storage}"]))
    settings = TrainingConfig(**{**pipeline.config.teacher.finetune.model_dump(), "alpha": 1.0, "batch_size": 32})
    job = pipeline._job("teachers", settings, pipeline._model(pipeline.base), {}, pipeline.corpus, None)
    return replace(job, threads=THREADS)


def measured(job: Any, spin: str, niceness: int, beside: bool, seconds: float) -> float:
    """Rows/s of a training in a process of its own."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        os.environ.pop(name, None)
    os.environ.update({"OMP_WAIT_POLICY": "PASSIVE"} if spin == "passive" else {"GOMP_SPINCOUNT": spin})
    ours, theirs = spawned.Pipe(duplex=False)
    with neighbour() if beside else nobody():
        process = spawned.Process(target=train, args=(job, niceness, seconds, theirs))
        process.start()
        rate = ours.recv()
        process.join()
    return rate


def train(job: Any, niceness: int, seconds: float, told: Any) -> None:
    """Sends rows/s."""
    os.nice(niceness)
    from kdray.training.loop import run_in_process

    clock = Clock(seconds)
    try:
        run_in_process(job, clock)
    except EnoughError:
        told.send(clock.rows / (time.perf_counter() - clock.started))
    os._exit(0)


@contextmanager
def neighbour() -> Iterator[None]:
    """A busy process."""
    busy = spawned.Process(target=count)
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
