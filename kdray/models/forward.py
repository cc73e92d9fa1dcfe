"""Rows and a model become logits of the targets, in batches of similar length limited by tokens.

Knows nothing about whose logits they are.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from kdray.corpus.grouping import length_batches, placed
from kdray.corpus.rows import Ragged, Rows
from kdray.tasks import Task

_TOKENS = {"cpu": 2048, "cuda": 8192}
"""Padded tokens a batch. A CPU takes 1.6 times as long for rows of 250 in batches of 8192: attention leaves its
caches."""


@dataclass(frozen=True)
class Inputs:
    """A padded batch, and where its targets are."""

    model: dict[str, torch.Tensor]
    """Arguments of the model's forward: tensors (rows, tokens)."""
    row: torch.Tensor
    """(targets,): each target's row in the batch, which is an entry."""
    position: torch.Tensor
    """(targets,): each target's token."""

    def to(self, device: torch.device) -> "Inputs":
        """The same on `device`."""
        return Inputs({name: tensor.to(device) for name, tensor in self.model.items()},
                      self.row.to(device), self.position.to(device))


def collate(rows: Rows, indices: np.ndarray, pad_token_id: int) -> Inputs:
    """The entries of the rows `indices` as one batch, padded on the right to its longest."""
    sizes = rows.sizes(indices)
    seen = np.arange(sizes.max()) < sizes[:, None]

    def padded(column: Ragged, filler: int) -> torch.Tensor:
        values = np.full(seen.shape, filler, np.int64)
        values[seen] = column.joined(indices)
        return torch.from_numpy(values)

    model = {"input_ids": padded(rows.input_ids, pad_token_id),
             "attention_mask": torch.from_numpy(seen.astype(np.int64))}
    if rows.token_type_ids is not None:
        model["token_type_ids"] = padded(rows.token_type_ids, 0)
    line, position = placed(rows.lengths[indices], sizes, rows.positions.lengths[indices],
                            rows.positions.joined(indices).astype(np.int64))
    return Inputs(model, torch.from_numpy(line), torch.from_numpy(position))


def taken(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of the inputs that a model takes: tokenizers may give types of tokens to one that knows none."""
    inner = getattr(model, "module", model)
    inner = getattr(inner, "body", inner)
    if isinstance(inner, nn.Module) and not _knows_types(type(inner).forward):
        return {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}
    return inputs


@cache
def _knows_types(forward: Callable[..., Any]) -> bool:
    return "token_type_ids" in inspect.signature(forward).parameters


def head_logits(said: Any) -> torch.Tensor:
    """Logits (rows, [tokens,] labels) of what a model returned; starts and ends, which come apart, side by side."""
    if hasattr(said, "logits"):
        return said.logits
    return torch.stack((said.start_logits, said.end_logits), -1)


@torch.no_grad()
def predict(model: Any, task: Task, rows: Rows, indices: np.ndarray, pad_token_id: int, batch_tokens: int | None = None,
            done: Callable[[int], None] = lambda count: None) -> list[np.ndarray]:
    """Logits of the rows `indices`, in their order: float32 arrays (targets of the row, labels).

    `batch_tokens` are padded ones, None what suits the device; `done` is told how many rows each batch brought.
    """
    device = next(model.parameters()).device
    most = batch_tokens or _TOKENS[device.type]
    found: list[np.ndarray] = [np.empty(0)] * len(indices)
    last: tuple[np.ndarray, torch.Tensor] | None = None

    def take(batch: np.ndarray, logits: torch.Tensor) -> None:
        ends = np.cumsum(rows.positions.lengths[indices[batch]])
        for place, part in zip(batch.tolist(), np.split(logits.cpu().numpy(), ends[:-1]), strict=True):
            found[place] = part
        done(len(batch))

    for batch in length_batches(rows.lengths[indices], most):
        inputs = collate(rows, indices[batch], pad_token_id).to(device)
        logits = task.gather(_forward(model, taken(model, inputs.model), most), inputs.row, inputs.position).float()
        if last is not None:
            take(*last)  # a GPU works on this batch meanwhile
        last = batch, logits
    if last is not None:
        take(*last)
    return found


def _forward(model: Any, inputs: dict[str, torch.Tensor], most: int) -> torch.Tensor:
    """Logits of a batch; of one with more than `most` padded tokens, as rows of many entries make it, part by part."""
    rows, width = inputs["input_ids"].shape
    step = max(1, most // width)
    parts = [head_logits(model(**{name: tensor[first:first + step] for name, tensor in inputs.items()}))
             for first in range(0, rows, step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
