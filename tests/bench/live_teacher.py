"""A sweep from the cache against the same sweep with a live teacher, in CPU seconds of the whole sweep.

    python tests/bench/live_teacher.py [--data ../shared/data/sst2] [--teacher ../shared/models/sst2-teacher]
                                       [--trials 12] [--epochs 4] [--students kept fresh]

    kept   3 of the teacher's 6 layers
    fresh  2 layers, 128 wide

Measures the teacher's pass (CPU seconds of the machine during `kdray cache fill`, so nothing else may run) and, of each
student, a trial from the cache and one with the teacher in the step (CPU seconds of the process, the mean of one trial
a core side by side, as in a sweep: cores may share what a CPU second is worth). All trials of a sweep do the same work
and use their processes again: a sweep is the pass, that many trials, and what the first trial of each process pays for
imports. Prints both and the ratio.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
import yaml
from sst2 import FRESH, config_for, kdray, options_for

from kdray.config import parse
from kdray.pipeline import Pipeline
from kdray.progress import Progress
from kdray.training.board import Silent
from kdray.training.loop import run_in_process

CORES = 2
"""Trials side by side, a core each."""
STUDENTS: dict[str, dict[str, Any]] = {"kept": {"layers": 3}, "fresh": FRESH}


class Alone:
    """A process that reports to nobody."""

    rank, workers = 0, 1

    def restore(self) -> Path | None:
        """Nothing to restore."""

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Nobody listens."""

    def progress(self, label: str, total: int, done: int) -> Progress:
        """Nobody looks."""
        return Silent()


def main() -> None:
    """The pass, then each student both ways."""
    parser = options_for(__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kdray-live-") as scratch:
        tree = config_for(Path(scratch), options,
                          {"epochs": options.epochs, "lr": 1e-4, "temperature": 4, "alpha": 0.1})
        path = Path(scratch) / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        kdray("teacher", str(path))
        before = machine_cpu()
        kdray("cache", "fill", str(path))
        teacher_pass = machine_cpu() - before
        print(f"teacher's pass: {teacher_pass:.0f} CPU seconds", flush=True)
        for name in options.students:
            (cached, first), (live, first_live) = (
                trial_cpu({**tree, "student": STUDENTS[name], "teacher": {**tree["teacher"], "live": on}})
                for on in (False, True))
            ours = teacher_pass + options.trials * cached + CORES * first
            theirs = options.trials * live + CORES * first_live
            print(f"{name}: a trial of {options.epochs} epochs {cached:.1f} from the cache, {live:.1f} live, and the "
                  f"first of a process {first:.1f} and {first_live:.1f} more; {options.trials} trials {ours:.0f} and "
                  f"{theirs:.0f} CPU seconds: {theirs / ours:.2f}x less", flush=True)


def machine_cpu() -> float:
    """CPU seconds that this machine has spent on processes."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def trial_cpu(tree: dict[str, Any]) -> tuple[float, float]:
    """CPU seconds of a trial (model, training, validation, checkpoints), and what the first of a process takes more.

    New processes each time, for the imports of one kind would be there for the next.
    """
    with multiprocessing.get_context("spawn").Pool(CORES) as processes:
        found = processes.starmap(_trials, [(tree, 3 * core) for core in range(CORES)], chunksize=1)
    whole, more = zip(*found, strict=True)
    return mean(whole), mean(more)


def _trials(tree: dict[str, Any], seed: int) -> tuple[float, float]:
    short = {**tree["training"], "epochs": 1}
    first, second, whole = (_cpu({**tree, "training": {**training, "seed": seed + place}})
                            for place, training in enumerate((short, short, tree["training"])))
    return whole, first - second


def _cpu(tree: dict[str, Any]) -> float:
    job = Pipeline(parse(tree, "a trial")).jobs["student"]
    started = time.process_time()
    run_in_process(job, Alone())
    return time.process_time() - started


if __name__ == "__main__":
    main()
