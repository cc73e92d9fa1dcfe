"""A teacher runner in a Ray actor. Logits go to storage; only receipts come back."""

import os

from kdray.cache.manifest import Slot
from kdray.teacher.runner import Done, TeacherJob, TeacherRunner


class TeacherActor:
    """One process with the teacher in it."""

    def __init__(self, job: TeacherJob):
        self._runner = TeacherRunner(job)

    def fill(self, slot: Slot) -> Done:
        """Computes and publishes one shard."""
        return self._runner.fill(slot)

    def pid(self) -> int:
        """The process, so that tests can kill it."""
        return os.getpid()
