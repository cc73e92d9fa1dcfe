"""A sampled point becomes a trained student, within a Tune trial.

A student with one worker is trained in the trial's own process: nothing is started for it.
"""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from kdray.config import TrainingConfig, changed
from kdray.console import work_for
from kdray.errors import ConfigError, ModelError, TrainingError
from kdray.metrics import Steps, Trained, tell_epoch
from kdray.progress import Progress
from kdray.search.describe import NAME, point_of
from kdray.storage import Store
from kdray.training.checkpoints import SEAL, seal, whole
from kdray.training.job import TrainingJob
from kdray.training.loop import run_in_process
from kdray.training.trainer import fit

logger = logging.getLogger("kdray")


class TrialSurroundings:
    """The process of a Tune trial."""

    rank, workers = 0, 1

    def __init__(self, student: str):
        self.student = student

    def restore(self) -> Path | None:
        """The trial's last checkpoint that Tune remembers, or the one after it; None where neither is whole.

        Tune deletes an older checkpoint before it writes down that there is a newer one. Where its driver is killed
        in between, what it remembers is gone or in pieces, and the newer one is whole.
        """
        last = tune.get_checkpoint()
        if last is None:
            return None
        recorded = Path(last.path)
        name = next((name for name in whole(last.filesystem, str(recorded.parent)) if name >= recorded.name), None)
        if name is None:
            logger.warning("sweep: the trial begins anew: neither %s nor a later checkpoint is whole", recorded)
            return None
        found = tune.Checkpoint(str(recorded.with_name(name)), last.filesystem)
        return Path(found.to_directory(tempfile.mkdtemp(prefix="kdray-restored-")))

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """To Tune, which may end the trial here."""
        if checkpoint:
            (checkpoint / SEAL).write_bytes(seal(checkpoint))
        kept = tune.Checkpoint.from_directory(str(checkpoint)) if checkpoint else None
        tell_epoch(metrics)
        tune.report({**metrics, "student": self.student}, checkpoint=kept)

    def progress(self, label: str, total: int, done: int) -> Progress:
        """The sweep shows trials, not their rows."""
        return Steps(Trained())


def point_job(job: TrainingJob, point: dict[str, Any]) -> TrainingJob:
    """The job with a sampled point's changes to its settings, and a sweep's CPUs a worker.

    Raises ConfigError where a change is not allowed.
    """
    settings = changed(TrainingConfig(**job.settings), {"num_cpus": job.settings["num_cpus"] or 1.0, **point})
    return replace(job, settings=settings.model_dump())


def run_trial(config: dict[str, Any], jobs: dict[str, TrainingJob], whose: dict[str, str]) -> None:
    """Trains the point's student, or finds it, and reports its last epoch.

    What would fail again in the same way, such as a loss that is not a number, is reported and not raised: Tune would
    start the trial again.
    """
    work_for({**whose, "student": config[NAME]})
    try:
        _train(point_job(jobs[config[NAME]], point_of(config)))
    except (ConfigError, ModelError, TrainingError) as error:
        tune.report({"fault": str(error)})


def _train(job: TrainingJob) -> None:
    known = Store(job.storage).manifest(job.kind, job.key)
    if known is None and job.settings["workers"] == 1:
        run_in_process(job, TrialSurroundings(job.key))
        return
    if known is None:
        from ray.tune.integration.ray_train import TuneReportCallback

        known = fit(job, [TuneReportCallback()])
    best = float("-inf")
    for entry in known["history"]:
        best = max(best, entry[known["metric"]])
        tune.report({**entry, "best": best, "student": job.key})
