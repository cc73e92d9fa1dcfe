"""Rows and a model become logits of the targets, in batches of similar length limited by tokens.

Knows nothing about whose logits they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kdray.corpus.grouping import length_batches
from kdray.corpus.rows import Rows
from kdray.tasks import Task


@dataclass(frozen=True)
class Inputs:
    """A padded batch, and where its targets are."""

    model: dict[str, torch.Tensor]
    """Arguments of the model's forward: tensors (rows, tokens)."""
    row: torch.Tensor
    """(targets,): each target's row in the batch."""
    position: torch.Tensor
    """(targets,): each target's token."""

    def to(self, device: torch.device) -> "Inputs":
        """The same on `device`."""
        return Inputs({name: tensor.to(device) for name, tensor in self.model.items()},
                      self.row.to(device), self.position.to(device))


def collate(rows: Rows, indices: np.ndarray, pad_token_id: int) -> Inputs:
    """The rows `indices` as one batch, padded on the right to its longest row."""
    lengths = rows.lengths[indices]
    shape = (len(indices), int(lengths.max()))
    ids, mask = np.full(shape, pad_token_id, np.int64), np.zeros(shape, np.int64)
    types = np.zeros(shape, np.int64) if rows.token_type_ids is not None else None
    for line, index in enumerate(indices):
        length = lengths[line]
        ids[line, :length] = rows.input_ids[index]
        mask[line, :length] = 1
        if types is not None and rows.token_type_ids is not None:
            types[line, :length] = rows.token_type_ids[index]
    model = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if types is not None:
        model["token_type_ids"] = torch.from_numpy(types)
    positions = [rows.positions[index] for index in indices]
    row = np.repeat(np.arange(len(indices)), [len(part) for part in positions])
    return Inputs(model, torch.from_numpy(row), torch.from_numpy(np.concatenate(positions).astype(np.int64)))


@torch.no_grad()
def predict(model: Any, task: Task, rows: Rows, indices: np.ndarray, pad_token_id: int, batch_tokens: int,
            done: Callable[[int], None] = lambda count: None) -> list[np.ndarray]:
    """Logits of the rows `indices`, in their order: float32 arrays (targets of the row, labels).

    `done` is told how many rows each batch brought.
    """
    device = next(model.parameters()).device
    found: list[np.ndarray] = [np.empty(0)] * len(indices)
    for batch in length_batches(rows.lengths[indices], batch_tokens):
        inputs = collate(rows, indices[batch], pad_token_id).to(device)
        logits = task.gather(model(**inputs.model).logits, inputs.row, inputs.position).float().cpu().numpy()
        ends = np.cumsum([len(rows.positions[index]) for index in indices[batch]])
        for place, part in zip(batch, np.split(logits, ends[:-1]), strict=True):
            found[place] = part
        done(len(batch))
    return found


def decisions(task: Task, rows: Rows, indices: np.ndarray, logits: list[np.ndarray],
              labels: list[str]) -> list[np.ndarray]:
    """Label ids of every unit of the rows `indices`, from their targets' logits."""
    return [task.decide(part, rows.targets[row], len(rows.labels[row]), labels)
            for row, part in zip(indices, logits, strict=True)]
