"""Trials become TensorBoard's event files, a folder a trial."""

import time
from pathlib import Path
from typing import Any

from ray.tune.logger import TBXLoggerCallback


class TensorBoardRuns(TBXLoggerCallback):
    """Ray's callback with a folder a trial outside of Tune's experiment, and metrics under their own names."""

    def __init__(self, folder: Path):
        super().__init__()
        self._folder, self._names = folder, dict[str, str]()

    def log_trial_start(self, trial: Any) -> None:
        """A writer in the trial's folder, which has its id where another one is described alike."""
        name = trial.name.replace("/", "_")[:200]
        if self._names.setdefault(name, trial.trial_id) != trial.trial_id:
            name = f"{name} ({trial.trial_id[:4]})"
        self._trial_writer[trial] = self._summary_writer_cls(
            str(self._folder / name), filename_suffix=f".{time.time_ns()}")  # the name has but the second
        self._trial_result[trial] = {}

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """A scalar a metric at step `iteration`."""
        for name, value in result.items():
            self._trial_writer[trial].add_scalar(name, value, global_step=iteration)
        self._trial_result[trial] = result
        self._trial_writer[trial].flush()

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """The parameters beside the last metrics; closes the files."""
        if self._trial_result[trial]:
            self._try_log_hparams(trial, self._trial_result[trial])
        self._trial_writer.pop(trial).close()
        del self._trial_result[trial]
