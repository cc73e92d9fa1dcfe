"""A sweep from the cache against the same sweep with a live teacher, in CPU seconds of the whole sweep.

    python tests/bench/live_teacher.py [--data ../shared/data/sst2] [--teacher ../shared/models/sst2-teacher]
                                       [--trials 12] [--epochs 4] [--students kept fresh]

    kept   3 of the teacher's 6 layers
    fresh  2 layers, 128 wide

Measures the teacher's pass (CPU seconds of the machine during `kdray cache fill`, so nothing else may run) and, of each
student, a trial from the cache and one with the teacher in the step (CPU seconds of the process, in which DeepSpeed has
been imported). All trials of a sweep do the same work, so a sweep is the pass and that many trials. Prints both and the
ratio.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from sst2 import FRESH, config_for, kdray, options_for

from kdray.config import Config, parse
from kdray.pipeline import Pipeline
from kdray.progress import Progress
from kdray.training.board import Silent
from kdray.training.loop import run_in_process

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
    import deepspeed  # noqa: F401
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
            cached, live = (
                trial_cpu(parse({**tree, "student": STUDENTS[name], "teacher": {**tree["teacher"], "live": on}}, name))
                for on in (False, True))
            ours, theirs = teacher_pass + options.trials * cached, options.trials * live
            print(f"{name}: a trial of {options.epochs} epochs {cached:.0f} from the cache, {live:.0f} live; "
                  f"{options.trials} trials {ours:.0f} and {theirs:.0f} CPU seconds: {theirs / ours:.2f}x less",
                  flush=True)


def machine_cpu() -> float:
    """CPU seconds that this machine has spent on processes."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def trial_cpu(config: Config) -> float:
    """CPU seconds of the config's student: model, training, validation and checkpoints."""
    job = Pipeline(config).jobs["student"]
    started = time.process_time()
    run_in_process(job, Alone())
    return time.process_time() - started


if __name__ == "__main__":
    main()
