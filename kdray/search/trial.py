"""A sampled point becomes a trained student, within a Tune trial.

A student with one worker is trained in the trial's own process: nothing is started for it. Its checkpoints are the
run's own, Tune knows nothing of them.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from kdray.config import TrainingConfig, changed
from kdray.console import work_for
from kdray.errors import ConfigError, ModelError, TrainingError
from kdray.metrics import Steps, Trained
from kdray.progress import Progress
from kdray.search.describe import NAME, place_of, point_of
from kdray.storage import Store
from kdray.training.alone import LoneSurroundings
from kdray.training.job import TrainingJob
from kdray.training.loop import run_in_process
from kdray.training.trainer import fit

_REPORT = "report.json"


class TrialSurroundings(LoneSurroundings):
    """The process of a Tune trial."""

    def __init__(self, store: Store, place: tuple[str, ...]):
        super().__init__(store, place, None)

    def restore(self) -> Path | None:
        """The trial's last checkpoint. What was reported with it is reported again: nobody may have heard it."""
        told = self.checkpoints.read(_REPORT)
        if told is not None:
            tune.report(json.loads(told))
        return super().restore()

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """To Tune, which may end the trial here."""
        if checkpoint:
            (checkpoint / _REPORT).write_text(json.dumps(metrics))
        super().report(metrics, checkpoint)
        tune.report(metrics)

    def progress(self, label: str, total: int, done: int) -> Progress:
        """The sweep shows trials, not their rows."""
        return Steps(Trained())


def point_job(job: TrainingJob, point: dict[str, Any]) -> TrainingJob:
    """The job with a sampled point's changes to its settings, and a sweep's CPUs a worker.

    Raises ConfigError where a change is not allowed.
    """
    settings = changed(TrainingConfig(**job.settings), {"num_cpus": job.settings["num_cpus"] or 1.0, **point})
    return replace(job, settings=settings.model_dump())


def run_trial(config: dict[str, Any], jobs: dict[str, TrainingJob], folder: tuple[str, ...],
              whose: dict[str, str]) -> None:
    """Trains the point's student, or finds it, and reports its last epoch; `folder` of the storage is the sweep's.

    What would fail again in the same way, such as a loss that is not a number, is reported and not raised: Tune would
    start the trial again.
    """
    work_for({**whose, "student": config[NAME]})
    try:
        _train(point_job(jobs[config[NAME]], point_of(config)), (*folder, place_of(config)))
    except (ConfigError, ModelError, TrainingError) as error:
        tune.report({"fault": str(error)})


def _train(job: TrainingJob, folder: tuple[str, ...]) -> None:
    store, place = Store(job.storage), (*folder, job.key)
    known = store.manifest(job.kind, job.key)
    if known is None and job.settings["workers"] == 1:
        run_in_process(job, TrialSurroundings(store, place))
        store.delete_folder(*place)
        return
    if known is None:
        from ray.tune.integration.ray_train import TuneReportCallback

        known = fit(job, [TuneReportCallback()], place)
    best = float("-inf")
    for entry in known["history"]:
        best = max(best, entry[known["metric"]])
        tune.report({**entry, "best": best})
