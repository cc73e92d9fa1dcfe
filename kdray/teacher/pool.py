"""Slots become shards: teacher actors take leases as fast as they finish them; the dead are replaced.

Invariant: it returns only when every slot has a receipt.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray

from kdray.cache.manifest import Slot
from kdray.cache.shard import Receipt
from kdray.cluster import check_resources, cluster_cpus
from kdray.errors import ClusterError, KdrayError
from kdray.progress import Progress, progress
from kdray.teacher.actor import TeacherActor
from kdray.teacher.labelmap import check_label_map
from kdray.teacher.leases import Leases
from kdray.teacher.runner import Done, TeacherJob

logger = logging.getLogger("kdray")


def fill_slots(slots: Sequence[Slot], job: TeacherJob, actors: int, num_cpus: float | None, num_gpus: float,
               max_attempts: int, check_labels: bool) -> tuple[dict[str, Receipt], float]:
    """Receipts by shard key, and the actors' busy seconds, when every slot is in the cache.

    Raises ClusterError where the actors do not fit, CacheError where a shard keeps failing, ModelError where
    `check_labels` is set and the teacher's labels are not the data's.
    """
    actors = min(actors, len(slots))
    cpus = num_cpus or max(1, math.floor(cluster_cpus() / actors))
    check_resources(actors, {"CPU": cpus, "GPU": num_gpus}, "teacher.actors")
    pool = _Pool(slots, replace(job, threads=max(1, int(cpus))), max_attempts, check_labels)
    options = {"num_cpus": cpus, "num_gpus": num_gpus, "max_restarts": 0}
    try:
        return pool.run(actors, options)
    finally:
        pool.close()


class _Pool:
    def __init__(self, slots: Sequence[Slot], job: TeacherJob, max_attempts: int, check_labels: bool):
        self.leases = Leases(slots, max_attempts)
        self.job, self.check_labels = job, check_labels
        self.report: Progress = progress("teacher", sum(slot.rows for slot in slots))
        self.receipts: dict[str, Receipt] = {}
        self.seconds = 0.0
        self.actors: dict[str, Any] = {}
        self.flying: dict[Any, str] = {}
        self.started = 0
        self.gold: list[int] = []
        self.predicted: list[int] = []
        self.deaths = 0

    def run(self, count: int, options: dict[str, Any]) -> tuple[dict[str, Receipt], float]:
        while not self.leases.finished:
            while len(self.actors) < count and self.leases.waiting:
                self._start(options)
            ready, _ = ray.wait(list(self.flying), num_returns=1)
            for reference in ready:
                self._settle(reference)
        return self.receipts, self.seconds

    def _start(self, options: dict[str, Any]) -> None:
        name = f"actor-{self.started}"
        self.started += 1
        self.actors[name] = ray.remote(**options)(TeacherActor).remote(self.job)
        self._lease(name)

    def _lease(self, name: str) -> None:
        slot = self.leases.next(name)
        if slot is None:
            ray.kill(self.actors.pop(name))
            return
        self.flying[self.actors[name].fill.remote(slot)] = name

    def _settle(self, reference: Any) -> None:
        name = self.flying.pop(reference)
        try:
            done: Done = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, KdrayError):
                raise error.cause from None
            self.leases.failed(name, str(error.cause))
            logger.warning("teacher %s failed, its shard is leased again: %s", name, error.cause)
        except ray.exceptions.RayActorError as error:
            self._lost(name, error)
            return
        else:
            self._record(name, done)
        self._lease(name)

    def _lost(self, name: str, error: ray.exceptions.RayActorError) -> None:
        del self.actors[name]
        if isinstance(error, ray.exceptions.ActorDiedError) and "__init__" in str(error) and not self.receipts:
            raise ClusterError(f"the teacher could not be loaded in an actor: {error}") from error
        self.leases.failed(name, f"its actor died ({type(error).__name__})")
        logger.warning("teacher %s died, its shard is leased again", name)

    def _record(self, name: str, done: Done) -> None:
        slot = self.leases.done(name)
        self.receipts[slot.key] = done.receipt
        self.seconds += done.seconds
        self.report.advance(slot.rows, f"{len(self.actors)} actors")
        if self.check_labels and len(self.gold) < 512:
            self.gold += done.gold
            self.predicted += done.predicted
            check_label_map(self.gold, self.predicted, self.job.labels)

    def close(self) -> None:
        self.report.close()
        for actor in self.actors.values():
            ray.kill(actor)
