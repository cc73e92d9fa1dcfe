"""Trials become runs of Weights & Biases, in the project WANDB_PROJECT or `kdray`, in a group a sweep.

Needs the package wandb: imported where `search.trackers` asks for it. WANDB_MODE=offline writes files for `wandb sync`.
"""

import os
from pathlib import Path
from typing import Any

import wandb
from ray.air.integrations.wandb import WandbLoggerCallback

from kdray.errors import ConfigError


def check() -> None:
    """Raises ConfigError where W&B would ask for an API key."""
    if _mode() in ("offline", "disabled", "dryrun"):
        return
    if not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
        raise ConfigError("search.trackers: wandb has no API key: set WANDB_API_KEY, run `wandb login`, or set "
                          "WANDB_MODE=offline to keep the runs in files")


class WandbRuns(WandbLoggerCallback):
    """Ray's callback with the runs in this process.

    Ray's starts two actors a trial, writes WANDB_API_KEY into the runtime environment that Ray logs, and the files into
    Tune's experiment, which is removed.
    """

    def __init__(self, sweep: str, folder: Path | None):
        super().__init__(project=os.environ.get("WANDB_PROJECT", "kdray"), group=sweep)
        self._folder, self._runs = os.environ.get("WANDB_DIR", folder), dict[Any, Any]()

    def setup(self, *args: Any, **info: Any) -> None:
        """Nothing: `check` has looked for the API key."""

    def log_trial_start(self, trial: Any) -> None:
        """Starts the trial's run; a resumed sweep goes on with it."""
        self._runs[trial] = wandb.init(
            project=self.project, group=self.group, id=trial.trial_id, name=trial.name, config=trial.config,
            dir=self._folder, resume="allow", reinit="create_new", mode=_mode(),
            settings=wandb.Settings(console="off", silent=True))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """The metrics at step `iteration`."""
        self._runs[trial].log(result, step=iteration)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Waits until the run is uploaded."""
        self._runs.pop(trial).finish(exit_code=int(failed))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Nothing: no actor is waited for."""


def _mode() -> Any:
    """WANDB_MODE as it is now: wandb keeps what it was when it was first asked for something."""
    return os.environ.get("WANDB_MODE")
