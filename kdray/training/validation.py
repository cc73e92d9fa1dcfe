"""A model and the validation split become metrics, and how close the student is to its teacher.

Workers share the rows, but under ZeRO 3 all must run every batch together.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch.distributed as dist

from kdray.cache.ensemble import Ensemble
from kdray.cache.reader import SoftTargets
from kdray.cache.truth import truth_of
from kdray.corpus.rows import Rows
from kdray.errors import TrainingError
from kdray.models.forward import predict
from kdray.tasks import TASKS
from kdray.tasks.base import decisions, scores_of, unsettled
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

        Where the task has a threshold, it is tuned here, and among the metrics. agreement is the share of what both
        decide alike of the targets that the teacher knows, kl the mean KL(teacher || student) there at T = 1, in nats.
        Raises TrainingError where logits are not finite.
        """
        engine.eval()
        together = engine.zero_optimization_stage() == 3
        mine = np.arange(len(self.rows)) if together else np.arange(len(self.rows))[self.rank::self.workers]
        logits = predict(engine, self.task, self.rows, mine, self.job.pad_token_id)
        part = (dict(zip(mine.tolist(), self._decided(mine, logits), strict=True)), self._closeness(mine, logits),
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
            self._teacher = aligned(self.task.output, self.soft, self.rows, mine, len(self.labels))
        teacher, known = self._teacher
        output = self.task.output.among(self.rows.targets.joined(mine)[known])
        return closeness(output, np.concatenate(logits), teacher, known)

    def _decided(self, mine: np.ndarray, logits: list[np.ndarray]) -> list[np.ndarray]:
        """Decisions for every unit of the rows `mine`; unsettled ones where a threshold is to be tuned."""
        said = [self.rows.targets[row] for row in mine], logits
        if self.task.output.tunable:
            return unsettled(self.task, said)
        units = self.rows.units(self.task.output.shape(len(self.labels)))[mine]
        return decisions(self.task, said, units, self.labels)

    @cached_property
    def _truth(self) -> list[Any]:
        """What each row is measured against."""
        soft = self.soft if isinstance(self.soft, SoftTargets | Ensemble) else None
        return truth_of(self.task, self.rows, len(self.labels), soft)

    def _joined(self, parts: list[Any]) -> tuple[dict[str, float], dict[str, float]]:
        if not all(finite for _, _, finite in parts):
            raise TrainingError(f"the student's logits on validation are not finite, precision {self.job.precision}. "
                                "Lower the rate, or set precision: float32")
        found = {row: ids for decided, _, _ in parts for row, ids in decided.items()}
        decided = [found[row] for row in range(len(self.rows))]
        tuned = {}
        if self.task.output.tunable:
            tuned = {"threshold": self.task.tuned(self._truth, decided)}
            decided = [self.task.output.settle(row, tuned["threshold"]) for row in decided]
        scores = {**scores_of(self.task, self._truth, decided, self.labels), **tuned}
        known, same, kl = sum(sums for _, sums, _ in parts)
        return scores, {"agreement": float(same / known), "kl": float(kl / known)} if known else {}
