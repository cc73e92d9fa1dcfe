"""A training job of one worker becomes one Ray actor: no controller, no process group over machines to wait for.

Its checkpoints lie in the job's storage, so that the next actor, on whatever machine, goes on from the last one.
Knows nothing about what the loop does.
"""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from kdray.console import labels, work_for
from kdray.errors import KdrayError, TrainingError
from kdray.metrics import Steps, tell_epoch
from kdray.progress import Progress
from kdray.storage import Store
from kdray.training.board import Told, watch
from kdray.training.checkpoints import Checkpoints
from kdray.training.job import TrainingJob
from kdray.training.loop import run_in_process

logger = logging.getLogger("kdray")


class LoneSurroundings:
    """A process that trains alone, with `place` in the storage for its checkpoints."""

    rank, workers = 0, 1

    def __init__(self, store: Store, place: tuple[str, ...], board: Any):
        self.checkpoints, self.board = Checkpoints(store, place), board

    def restore(self) -> Path | None:
        """The last checkpoint that is whole, downloaded."""
        return self.checkpoints.fetch()

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Keeps the checkpoint in place of the one before it."""
        if checkpoint is not None:
            self.checkpoints.write(checkpoint)
            self.checkpoints.finish()
        tell_epoch(metrics)

    def progress(self, label: str, total: int, done: int) -> Progress:
        """Told to the board."""
        return Steps(Told(self.board, label, total, done))


class LoneWorker:
    """The actor."""

    def train(self, job: TrainingJob, place: tuple[str, ...], board: Any, whose: dict[str, str]) -> str:
        """The model's manifest as JSON, or what is wrong where the fault is the user's: again would not mend it."""
        work_for(whose)
        try:
            return json.dumps(run_in_process(job, LoneSurroundings(Store(job.storage), place, board)))
        except KdrayError as error:
            return json.dumps(str(error))


def train_alone(job: TrainingJob, cpus: float, place: tuple[str, ...], label: str) -> dict[str, Any]:
    """Trains `job` in an actor with `cpus`, shows its progress under `label` and returns the manifest.

    Waits for room, and begins again `max_failures` times at most where something goes wrong, such as the loss of the
    machine. Raises TrainingError after that, and at once where the fault is the user's.
    """
    settings = job.settings
    actor = ray.remote(num_cpus=cpus, num_gpus=settings["num_gpus"])(LoneWorker).options(
        label_selector=settings["labels"] or None)
    left = settings["max_failures"]
    while True:
        worker: Any = actor.remote()
        try:
            made = json.loads(watch(label, partial(_work, worker, job, place)))
            if isinstance(made, str):
                raise TrainingError(made)
            return made
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            first, _, _ = str(cause).partition("\n")
            why = f"{type(cause).__name__}: {first}"
            if not left:
                raise TrainingError(f"training failed and its restarts are used up, last cause: {why}") from error
            logger.warning("training failed and begins again from its last checkpoint: %s", why)
            left -= 1
        finally:
            ray.kill(worker)


def _work(worker: Any, job: TrainingJob, place: tuple[str, ...], board: Any) -> str:
    return ray.get(worker.train.remote(job, place, board, labels()))
