"""A teacher runner in a Ray actor. Logits go to storage; only receipts come back."""

from typing import Any

import ray

from kdray.cache.plan import Slot
from kdray.console import labels, work_for
from kdray.teacher.runner import Done, TeacherJob, TeacherRunner


class TeacherActor:
    """One process with the teacher in it."""

    def __init__(self, job: TeacherJob, whose: dict[str, str]):
        work_for(whose)
        self._runner = TeacherRunner(job)

    def fill(self, slot: Slot) -> Done:
        """Computes and publishes one shard."""
        return self._runner.fill(slot)

    def ready(self) -> None:
        """Returns when the teacher is loaded."""


def start_actor(job: TeacherJob, num_cpus: float, num_gpus: float, on: dict[str, str]) -> Any:
    """A handle of a new actor, which starts as soon as a node with the labels `on` has room."""
    actor = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=0)(TeacherActor)
    return actor.options(label_selector=on).remote(job, labels())
