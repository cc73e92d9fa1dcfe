"""Gradients, logits and history entries become numbers and warnings that say whether distillation does anything.

Pure functions. Knows nothing about where the numbers are shown.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdray.outputs import Output
from kdray.outputs.doubts import ENOUGH

EVERY = 10
"""Steps from one measured gradient to the next."""
_NOTHING = 0.01
"""A ratio of gradients below which distillation does nothing."""
_NEAR = 0.01
"""A KL, in nats, below which the student follows the teacher, so that a small gradient is as it should be."""


def squared_norms(logits: Tensor, terms: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Squared gradient norms, (2,), of the task term and the distillation term with respect to the student's logits.

    `terms` gives both, (targets,), from the logits (targets, labels). With respect to logits a gradient costs next to
    nothing, and what is behind them is the same for both terms.
    """
    leaf = logits.detach().requires_grad_()
    task, soft = terms(leaf)
    gradients = [torch.autograd.grad(term.sum(), leaf, retain_graph=True)[0] for term in (task, soft)]
    return torch.stack([gradient.double().square().sum() for gradient in gradients])


def ratio(squares: Tensor) -> float | None:
    """Mean gradient norm of the distillation term over that of the task term, None where the latter is 0.

    `squares` are the squared norms of each measured step, (steps, 2).
    """
    task, soft = squares.sqrt().mean(0).tolist() if len(squares) else (0.0, 0.0)
    return soft / task if task > 0 else None


def closeness(output: Output, student: np.ndarray, teacher: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Sums over what is decided of targets that the teacher knows, (3,): number, those alike, KL(teacher || student).

    `output` is among the known targets. `student` and `teacher` are logits (targets, labels), `known` is boolean
    (targets,); the KL is in nats at T = 1.
    """
    student, teacher = student[known], teacher[known]
    same = output.alike(output.decide(teacher), output.decide(student))
    return np.array([len(same), same.sum(), output.divergence(teacher, student).sum()])


def warning_of(entry: dict[str, Any]) -> str | None:
    """What is wrong with the distillation in an epoch's history entry and what mends it, None where nothing is."""
    found = entry.get("ratio")
    if found is None or found >= _NOTHING or entry.get("kl", 1.0) < _NEAR:
        return None
    return (f"distillation does next to nothing in epoch {entry['epoch']}: its gradient is {found:.2g} of the hard "
            "labels'. Either alpha is near 1, the loss is small on these logits (mse, huber or a temperature below 1), "
            "or the teacher has no logits for the student's targets. Lower training.alpha, take loss kl with a "
            "temperature of 1 or more, or look at the teacher (kdray cache show)")


def check_targets(output: Output, teacher: np.ndarray, gold: np.ndarray) -> str | None:
    """What is wrong with soft targets, from a sample of them, and what mends it; None where nothing is.

    `teacher` are logits (targets, labels) of those that `output` is among, `gold` is of what is decided of them. Says
    nothing of fewer than 100 of these.
    """
    return None if len(gold) < ENOUGH else output.doubt(teacher, gold)
