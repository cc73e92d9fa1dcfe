"""A model and the validation split become metrics, and how close the student is to its teacher.

Workers share the rows, but under ZeRO 3 all must run every batch together.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch.distributed as dist

from kdray.corpus.rows import Rows
from kdray.errors import TrainingError
from kdray.models.forward import decisions, predict
from kdray.tasks import TASKS
from kdray.tasks.base import scores_of
from kdray.training.health import closeness
from kdray.training.job import TrainingJob
from kdray.training.targets import Soft, aligned


class Validation:
    """One worker's view of the validation split."""

    def __init__(self, job: TrainingJob, rows: Rows, soft: Soft | None, rank: int, workers: int):
        self.job, self.rows, self.soft, self.rank, self.workers = job, rows, soft, rank, workers
        self.task, self.labels = TASKS[job.task], list(job.labels)
        self._teacher: tuple[np.ndarray, np.ndarray] | None = None

    def measure(self, engine: Any) -> tuple[dict[str, float], dict[str, float]]:
        """Every metric; and, with soft targets, `agreement` and `kl`. The same on every worker.

        agreement is the share of the targets that the teacher knows on which both decide alike, kl the mean
        KL(teacher || student) there at T = 1, in nats. Raises TrainingError where logits are not finite.
        """
        engine.eval()
        together = engine.zero_optimization_stage() == 3
        mine = np.arange(len(self.rows)) if together else np.arange(len(self.rows))[self.rank::self.workers]
        logits = predict(engine, self.task, self.rows, mine, self.job.pad_token_id)
        decided = decisions(self.task, self.rows, mine, logits, self.labels)
        part = (dict(zip(mine.tolist(), decided, strict=True)), self._closeness(mine, logits),
                all(np.isfinite(row).all() for row in logits))
        parts: list[Any] = [part]
        if self.workers > 1 and not together:
            parts = [None] * self.workers
            dist.all_gather_object(parts, part)
        return self._joined(parts)

    def _closeness(self, mine: np.ndarray, logits: list[np.ndarray]) -> np.ndarray:
        if self.soft is None or not len(mine):
            return np.zeros(3)
        if self._teacher is None:
            teacher, known = aligned(self.soft, self.rows, mine, len(self.labels))
            self._teacher = teacher, known
        return closeness(self.task.output, np.concatenate(logits), *self._teacher)

    @cached_property
    def _truth(self) -> list[np.ndarray]:
        """What each row is measured against."""
        gold = self.rows.gold(self.task.output.shape(len(self.labels)))
        if self.task.labelled or self.soft is None:
            return gold
        said, _ = aligned(self.soft, self.rows, np.arange(len(self.rows)), len(self.labels))
        parts = np.split(said, np.cumsum(self.rows.targets.lengths)[:-1])
        return [self.task.truth(*both) for both in zip(gold, parts, strict=True)]

    def _joined(self, parts: list[Any]) -> tuple[dict[str, float], dict[str, float]]:
        if not all(finite for _, _, finite in parts):
            raise TrainingError(f"the student's logits on validation are not finite, precision {self.job.precision}. "
                                "Lower the rate, or set precision: float32")
        found = {row: ids for decided, _, _ in parts for row, ids in decided.items()}
        scores = scores_of(self.task, self._truth, [found[row] for row in range(len(self.rows))], self.labels)
        known, same, kl = sum(sums for _, sums, _ in parts)
        return scores, {"agreement": float(same / known), "kl": float(kl / known)} if known else {}
