"""A training job becomes a Ray Train run: workers, process group, restarts from the last checkpoint.

One of a single worker needs none of that, and trains alone. Knows nothing about what the loop does.
"""

import json
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from kdray.cluster import check_resources, cpus_each
from kdray.console import labels, work_for
from kdray.errors import KdrayError, TrainingError
from kdray.metrics import Steps, tell_epoch
from kdray.progress import Progress
from kdray.storage import Store
from kdray.training.alone import train_alone
from kdray.training.board import Silent, Told, watch
from kdray.training.checkpoints import Checkpoints
from kdray.training.health import warning_of
from kdray.training.job import TrainingJob
from kdray.training.loop import backend, train

logger = logging.getLogger("kdray")
os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")


class WorkerSurroundings:
    """A Ray Train worker."""

    def __init__(self, store: Store, place: tuple[str, ...], board: Any):
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.checkpoints, self.board = Checkpoints(store, place), board
        last = torch.tensor(self.checkpoints.last)
        dist.broadcast(last, 0)  # machines may not see yet what another one has written
        self.checkpoints.last = int(last)

    def restore(self) -> Path | None:
        """The last checkpoint that is whole, downloaded."""
        return self.checkpoints.fetch()

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Keeps the checkpoint, to which each worker adds its part, in place of the one before it."""
        if checkpoint is not None:
            self.checkpoints.write(checkpoint)
            dist.barrier()
            self.checkpoints.finish(seals=self.rank == 0)
        ray.train.report(metrics)
        if self.rank == 0:
            tell_epoch(metrics)

    def progress(self, label: str, total: int, done: int) -> Progress:
        """The first worker tells the board."""
        return Silent() if self.rank > 0 else Steps(Told(self.board, label, total, done))


def check_workers(settings: dict[str, Any], origin: str) -> None:
    """Raises ClusterError where the workers that `origin`, a part of the config, asks for do not fit the cluster."""
    check_resources(settings["workers"], {"CPU": _cpus(settings), "GPU": settings["num_gpus"]}, f"{origin}.workers",
                    settings["labels"])


def _cpus(settings: dict[str, Any]) -> float:
    return settings["num_cpus"] or cpus_each(settings["workers"], settings["labels"])


def fit(job: TrainingJob, callbacks: list[Any] | None = None, place: tuple[str, ...] = ()) -> dict[str, Any]:
    """Trains `job` on Ray and returns the model's manifest; finds it where it was trained before.

    `callbacks` are Ray Train's; `place` is the checkpoints' folder in the storage, by default the job's own. Waits
    for room. Raises the worker's own error, or TrainingError, where restarts are used up. Warns of the first epoch in
    which distillation did nothing.
    """
    store = Store(job.storage)
    made = store.manifest(job.kind, job.key)
    if made is not None:
        return made
    label, place = job.kind.removesuffix("s"), place or ("train", f"{job.kind}-{job.key}")
    if job.settings["workers"] == 1:
        cpus = _cpus(job.settings)
        result = train_alone(replace(job, threads=max(1, int(cpus))), cpus, place, label)
    else:
        result = watch(label, lambda board: _run(job, place, board, callbacks or []))
    store.delete_folder(*place)
    for warning in list(filter(None, map(warning_of, result["history"])))[:1]:
        logger.warning(warning)
    return result


def _trainer(job: TrainingJob, place: tuple[str, ...], board: Any, callbacks: list[Any],
             folder: str) -> ray.train.torch.TorchTrainer:
    settings, cpus = job.settings, _cpus(job.settings)
    return ray.train.torch.TorchTrainer(
        _worker,  # type: ignore[arg-type]
        train_loop_config={"job": replace(job, threads=max(1, int(cpus))), "place": place, "board": board,
                           "whose": labels()},
        torch_config=ray.train.torch.TorchConfig(backend=backend(settings["num_gpus"])),
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]
            num_workers=settings["workers"], use_gpu=settings["num_gpus"] > 0,
            resources_per_worker={"CPU": cpus, **_gpus(settings)}, label_selector=settings["labels"] or None),
        run_config=ray.train.RunConfig(
            name=job.key, storage_path=folder, callbacks=callbacks,
            failure_config=ray.train.FailureConfig(max_failures=settings["max_failures"])),
    )


def _gpus(settings: dict[str, Any]) -> dict[str, float]:
    return {"GPU": settings["num_gpus"]} if settings["num_gpus"] else {}


def _run(job: TrainingJob, place: tuple[str, ...], board: Any, callbacks: list[Any]) -> dict[str, Any]:
    """Ray Train starts the workers, again where they fail; it has a folder, but no checkpoint, of its own."""
    try:
        with tempfile.TemporaryDirectory(prefix="kdray-train-") as folder:
            result = _trainer(job, place, board, callbacks, folder).fit()
    except WorkerGroupError as error:
        first = next(iter(error.worker_failures.values()))
        cause = getattr(first, "_original_exception", first)
        if isinstance(cause, KdrayError):
            raise cause from None
        raise TrainingError(f"training failed and its restarts are used up, first cause: {cause!r}") from error
    except TrainingFailedError as error:
        raise TrainingError(f"training failed: {error}") from error
    return json.loads(result.return_value)  # type: ignore[attr-defined]


def _worker(config: dict[str, Any]) -> str:
    """Runs on each worker."""
    work_for(config["whose"])
    job: TrainingJob = config["job"]
    here = WorkerSurroundings(Store(job.storage), config["place"], config["board"])
    return json.dumps(train(job, here))
