"""From `ray job submit` to the teacher's first row, on a cluster that is up and has run a job: the whole and its parts.

    python tests/bench/submit.py [--times 5] [--cpus 2]

The quickstart's teacher, fine-tuned by the job before. Shards have 16 rows: a row is seen when its shard is there. Each
job is ended there, and what it wrote is removed. Other work on the machine counts, so the best is the figure.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
MARK = "mark "
PARTS = {"process": "submission, until the driver is a process", "found": "its imports, corpus and teacher found",
         "connected": "ray.init", "up": "an actor, until the teacher is loaded", "row": "the first rows"}


def main() -> None:
    """Prints the table."""
    from tests.heads import running

    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--cpus", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kdray-bench-") as folder, running(cpus=options.cpus) as head:
        store = Path(folder) / "store"
        overrides = (f"storage={store}", "cache.rows_per_shard=16", "teacher.finetune.epochs=1")
        submit(head, "teacher", *overrides)
        rounds = []
        for _ in range(options.times):
            rounds.append(submit(head, "cache", *overrides))
            for kind in ("shards", "caches", "fills", "plans"):
                shutil.rmtree(store / kind, ignore_errors=True)
            print(" ".join(f"{name} {seconds:.1f}" for name, seconds in rounds[-1].items()), flush=True)
    print(f"\n{'':45}  best  median")
    for name, words in {**PARTS, "whole": "submission to the first row"}.items():
        taken = [one[name] for one in rounds]
        print(f"{words:45} {min(taken):5.1f} {statistics.median(taken):7.1f}")


def submit(head: Any, stage: str, *overrides: str) -> dict[str, float]:
    """Seconds of each part, from before the command starts."""
    started = time.time()
    done = subprocess.run(
        ["ray", "job", "submit", "--address", head.dashboard, "--working-dir", str(ROOT / "jobs"), "--", sys.executable,
         __file__, stage, "configs/quickstart.yaml", *overrides],
        capture_output=True, text=True, env=head.environment(PYTHONPATH=str(ROOT)))
    marks = {line.split()[1]: float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith(MARK)}
    if stage == "teacher":
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return {}
    if marks.keys() != PARTS.keys():
        sys.exit(done.stdout + done.stderr)
    ends = [started, *(marks[name] for name in PARTS)]
    return {**{name: after - before for name, before, after in zip(PARTS, ends, ends[1:], strict=False)},
            "whole": ends[-1] - started}


def drive(stage: str, arguments: list[str]) -> int:
    """What jobs/STAGE.py does, told where it is, and ended at the first rows."""
    tell("process")
    from kdray.pipeline import Pipeline
    from kdray.stages import job

    if stage == "cache":
        connect = Pipeline._connect

        def told(self: Pipeline, stage: str) -> None:
            tell("found")
            connect(self, stage)
            tell("connected")
            watch()

        Pipeline._connect = told  # type: ignore[method-assign]
    return job(stage, arguments)


def watch() -> None:
    """Tells when an actor is up, and ends the job when rows are there."""
    from kdray.teacher.pool import Pool

    arrived = Pool._arrived

    def told(self: Pool, name: str, done: Any) -> None:
        tell("row" if name in self.up else "up")
        if name in self.up:
            raise KeyboardInterrupt
        arrived(self, name, done)

    Pool._arrived = told  # type: ignore[method-assign]


def tell(name: str) -> None:
    """A line that `submit` reads."""
    print(f"{MARK}{name} {time.time():.3f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] in (["teacher"], ["cache"]):
        sys.exit(drive(sys.argv[1], sys.argv[2:]))
    main()
