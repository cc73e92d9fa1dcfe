"""A training job of one worker becomes one Ray actor: no controller, no process group over machines to wait for.

Its checkpoints lie in the job's storage, so that the next actor, on whatever machine, goes on from the last one.
Knows nothing about what the loop does.
"""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from kdray.console import work_for
from kdray.errors import KdrayError, TrainingError
from kdray.metrics import Steps, tell_epoch
from kdray.progress import Progress
from kdray.storage import Store
from kdray.training.board import Told
from kdray.training.checkpoints import PREFIX, seal, whole
from kdray.training.job import TrainingJob
from kdray.training.loop import run_in_process

logger = logging.getLogger("kdray")


class LoneSurroundings:
    """A process that trains alone, with `place` in the storage for its checkpoints."""

    rank, workers = 0, 1

    def __init__(self, store: Store, place: tuple[str, ...], board: Any):
        self.store, self.place, self.board = store, place, board

    def restore(self) -> Path | None:
        """The last checkpoint that is whole, downloaded."""
        kept = self._kept()
        if not kept:
            return None
        folder = Path(tempfile.mkdtemp(prefix="kdray-restored-"))
        self.store.download(folder, *self.place, kept[-1])
        return folder

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Uploads the checkpoint, then deletes the one before it."""
        if checkpoint is not None:
            kept = self._kept()
            number = int(kept[-1].removeprefix(PREFIX)) + 1 if kept else 0
            seal(checkpoint)
            self.store.upload(checkpoint, *self.place, f"{PREFIX}{number:06d}")
            for name in kept:
                self.store.delete_folder(*self.place, name)
        tell_epoch(metrics)

    def progress(self, label: str, total: int, done: int) -> Progress:
        """Told to the board."""
        return Steps(Told(self.board, label, total, done))

    def _kept(self) -> list[str]:
        return list(whole(self.store.file_system, self.store.path(*self.place)))


class LoneWorker:
    """The actor."""

    def train(self, job: TrainingJob, place: tuple[str, ...], board: Any, whose: dict[str, str]) -> str:
        """The model's manifest as JSON, or what is wrong where the fault is the user's: again would not mend it."""
        work_for(whose)
        try:
            return json.dumps(run_in_process(job, LoneSurroundings(Store(job.storage), place, board)))
        except KdrayError as error:
            return json.dumps(str(error))


def train_alone(job: TrainingJob, cpus: float, place: tuple[str, ...], board: Any,
                whose: dict[str, str]) -> dict[str, Any] | str:
    """Trains `job` in an actor with `cpus`; returns the manifest, or the user's fault.

    Waits for room, and begins again `max_failures` times at most where something else goes wrong, such as the loss of
    the machine; then raises TrainingError.
    """
    settings = job.settings
    actor = ray.remote(num_cpus=cpus, num_gpus=settings["num_gpus"])(LoneWorker).options(
        label_selector=settings["labels"] or None)
    for left in range(settings["max_failures"], -1, -1):
        worker: Any = actor.remote()
        try:
            return json.loads(ray.get(worker.train.remote(job, place, board, whose)))
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            first, _, _ = str(cause).partition("\n")
            told = f"{type(cause).__name__}: {first}"
            if not left:
                raise TrainingError(f"training failed and its restarts are used up, last cause: {told}") from error
            logger.warning("training failed and begins again from its last checkpoint: %s", told)
        finally:
            ray.kill(worker)
    raise AssertionError("every attempt returns or raises")
