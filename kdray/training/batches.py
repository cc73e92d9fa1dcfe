"""Rows of a split, hard labels and soft targets become training batches, addressed by (seed, epoch, step).

Knows nothing about the student. A step's rows do not depend on how many workers share them, so a run gives
the same batches after a fault and on another number of workers.
"""

from dataclasses import dataclass

import numpy as np
import torch

from kdray.corpus.rows import Rows
from kdray.models.forward import Inputs, collate
from kdray.outputs import Output
from kdray.training.targets import Soft, aligned, hard_labels

_WINDOW = 50


@dataclass(frozen=True)
class Batch:
    """One worker's share of a micro-batch."""

    inputs: Inputs
    labels: torch.Tensor
    """(targets, ...): what is gold."""
    soft: torch.Tensor
    """(targets, labels): the teacher's logits, 0 where it has none."""
    known: torch.Tensor
    """(targets,): whether the teacher has logits for the target."""
    units: np.ndarray
    """(targets,): what each is about, which says what belongs together."""
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

    def __init__(self, rows: Rows, soft: Soft | None, output: Output, labels: int, pad_token_id: int):
        self.rows, self.soft, self.output, self.labels, self.pad = rows, soft, output, labels, pad_token_id

    def batch(self, step: np.ndarray, worker: int, workers: int, micro: int, accumulation: int) -> Batch:
        """One worker's micro-batch of a step; a worker without a row gets a filler that weighs nothing."""
        mine = worker_share(step, worker, workers, micro, accumulation)
        share = 1.0 / max(1, self.output.counted(self.rows.targets.joined(step)))
        if len(mine) == 0:
            mine, share = step[:1], 0.0
        soft, known = self.soft_targets(mine)
        hard = hard_labels(self.output, self.rows, mine, self.labels)
        return Batch(collate(self.rows, mine, self.pad), torch.from_numpy(hard), torch.from_numpy(soft),
                     torch.from_numpy(known), self.rows.targets.joined(mine), share)

    def soft_targets(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Teacher logits (targets, labels) of the rows, and which targets have them; none without soft targets."""
        if self.soft is not None:
            return aligned(self.output, self.soft, self.rows, rows, self.labels)
        count = self.rows.targets.lengths[rows].sum()
        return np.zeros((count, self.labels), np.float32), np.zeros(count, bool)
