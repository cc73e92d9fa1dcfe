"""Rows of a split, hard labels and soft targets become training batches, addressed by (seed, epoch, step).

Knows nothing about models. A step's rows do not depend on how many workers share them, so a run gives
the same batches after a fault and on another number of workers.
"""

from dataclasses import dataclass

import numpy as np
import torch

from kdray.cache.ensemble import Ensemble
from kdray.cache.reader import SoftTargets
from kdray.corpus.rows import Rows
from kdray.models.forward import Inputs, collate

_WINDOW = 50


@dataclass(frozen=True)
class Batch:
    """One worker's share of a micro-batch."""

    inputs: Inputs
    labels: torch.Tensor
    """(targets,): hard label ids."""
    soft: torch.Tensor
    """(targets, labels): the teacher's logits, 0 where it has none."""
    known: torch.Tensor
    """(targets,): whether the teacher has logits for the target."""
    share: float
    """1 / targets in the whole step, over all workers and micro-batches; 0 for a filler."""


def epoch_plan(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row indices of each step of an epoch: every row once, rows of similar length together, steps shuffled."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    window = batch_size * _WINDOW
    steps = []
    for start in range(0, len(order), window):
        part = order[start:start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        steps += [part[first:first + batch_size] for first in range(0, len(part), batch_size)]
    return [steps[index] for index in random.permutation(len(steps))]


def worker_share(step: np.ndarray, worker: int, workers: int, micro: int, accumulation: int) -> np.ndarray:
    """Rows of a step that one worker takes in one micro-batch; every row has one taker."""
    return step[worker * accumulation + micro::workers * accumulation]


class Batches:
    """Assembles batches of a split."""

    def __init__(self, rows: Rows, soft: SoftTargets | Ensemble | None, labels: int, pad_token_id: int):
        self.rows, self.soft, self.labels, self.pad = rows, soft, labels, pad_token_id

    def batch(self, step: np.ndarray, worker: int, workers: int, micro: int, accumulation: int) -> Batch:
        """One worker's micro-batch of a step; a worker without a row gets a filler that weighs nothing."""
        mine = worker_share(step, worker, workers, micro, accumulation)
        share = 1.0 / max(1, sum(len(self.rows.targets[row]) for row in step))
        if len(mine) == 0:
            mine, share = step[:1], 0.0
        labels = np.concatenate([self.rows.labels[row][self.rows.targets[row]] for row in mine])
        soft, known = self._soft(mine)
        return Batch(collate(self.rows, mine, self.pad), torch.from_numpy(labels.astype(np.int64)),
                     torch.from_numpy(soft), torch.from_numpy(known), share)

    def _soft(self, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Teacher logits by unit: student and teacher may see different words where tokenizers differ."""
        count = sum(len(self.rows.targets[row]) for row in mine)
        soft, known = np.zeros((count, self.labels), np.float32), np.zeros(count, bool)
        if self.soft is None:
            return soft, known
        place = 0
        for row in mine:
            units, logits = self.soft[row]
            targets = self.rows.targets[row]
            here = slice(place, place + len(targets))
            if np.array_equal(units, targets):
                soft[here], known[here] = logits, True
            else:
                _, ours, theirs = np.intersect1d(targets, units, return_indices=True)
                soft[place + ours], known[place + ours] = logits[theirs], True
            place += len(targets)
        return soft, known
