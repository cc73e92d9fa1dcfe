"""What a sweep spends on anything but training, and how long a trial takes to its first step.

    python tests/bench/sweep_overhead.py [--config jobs/configs/quickstart.yaml] [--trials 12] [--set KEY=VALUE]

Runs the config's sweep in a storage of its own, after the teacher and its cache, on a Ray that has been started. From
the sweep's log lines and its students: seconds from a trial's start to its first optimizer step, the first trial of
each process and the later ones apart, and the share of the sweep's processor time that is not between a trial's first
step and its last epoch's end, validation and checkpoints included. A trial that was stopped leaves no student: its
first step is taken to be as late as the others' median.
"""

import argparse
import logging
import os
import tempfile
import time
from statistics import median

from kdray.cluster import connect
from kdray.config import load
from kdray.pipeline import Pipeline

SIDE_BY_SIDE = len(os.sched_getaffinity(0))


class Times(logging.Handler):
    """When each trial began and when its last epoch ended, by its description."""

    def __init__(self):
        super().__init__()
        self.began: dict[str, float] = {}
        self.trained: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Takes the lines `NAME begins` and `NAME | epoch ...`."""
        if record.msg.startswith("sweep: %s begins") and isinstance(record.args, tuple):
            self.began[str(record.args[0])] = record.created
        elif record.msg.startswith("sweep: %s | epoch") and isinstance(record.args, tuple):
            self.trained[str(record.args[0])] = record.created


def main() -> None:
    """One sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="jobs/configs/quickstart.yaml")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    times = Times()
    logging.getLogger("kdray").addHandler(times)
    logging.getLogger("kdray").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="kdray-overhead-") as scratch:
        pipeline = Pipeline(load(options.config, [
            f"storage={scratch}", f"search.trials={options.trials}", "search.trackers=[]", *options.set]))
        assert pipeline.cache
        connect()
        started = time.time()
        rows = pipeline.sweep["trials"]
        whole = time.time() - started
        tell(pipeline, rows, times, whole)


def tell(pipeline: Pipeline, rows: list, times: Times, whole: float) -> None:
    """The figures."""
    from kdray.search.describe import describe

    first_steps = {describe(row["point"]): pipeline.store.manifest("students", row["student"])["first_step"]
                   for row in rows if row["student"]}
    delays = [step - times.began[name] for name, step in sorted(first_steps.items(), key=lambda item: item[1])]
    cold, warm = delays[:SIDE_BY_SIDE], delays[SIDE_BY_SIDE:]
    training = sum(ended - first_steps.get(name, times.began[name] + median(warm))
                   for name, ended in times.trained.items())
    print(f"{len(rows)} trials, {len(first_steps)} of them to their end, in {whole:.0f} s, {SIDE_BY_SIDE} side by side")
    print(f"start to first step: the first of each process {median(cold):.1f} s, later ones {median(warm):.1f} s "
          f"(most {max(warm):.1f} s)")
    print(f"not training: {1 - training / (SIDE_BY_SIDE * whole):.1%} of the sweep's processor time")


if __name__ == "__main__":
    main()
