"""Gradients, logits and history entries become numbers and warnings that say whether distillation does anything.

Pure functions. Knows nothing about where the numbers are shown.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdray.training.losses import kl

EVERY = 10
"""Steps from one measured gradient to the next."""
_NOTHING = 0.01
"""A ratio of gradients below which distillation does nothing."""
_NEAR = 0.01
"""A KL, in nats, below which the student follows the teacher, so that a small gradient is as it should be."""
_ENOUGH = 100
_KAPPA = 0.05
_SPREAD = 0.01


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


def closeness(student: Tensor, teacher: Tensor, known: Tensor) -> np.ndarray:
    """Sums over the targets that the teacher knows, (3,): their number, those with its argmax, KL(teacher || student).

    `student` and `teacher` are logits (targets, labels), `known` is boolean (targets,); the KL is in nats at T = 1.
    """
    student, teacher = student[known].double(), teacher[known].double()
    same = student.argmax(-1) == teacher.argmax(-1)
    return np.array([len(student), same.sum().item(), kl(student, teacher, 1.0).sum().item()])


def warning_of(entry: dict[str, Any]) -> str | None:
    """What is wrong with the distillation in an epoch's history entry and what mends it, None where nothing is."""
    found = entry.get("ratio")
    if found is None or found >= _NOTHING or entry.get("kl", 1.0) < _NEAR:
        return None
    return (f"distillation does next to nothing in epoch {entry['epoch']}: its gradient is {found:.2g} of the hard "
            "labels'. Either alpha is near 1, the loss is small on these logits (mse, huber or a temperature below 1), "
            "or the teacher has no logits for the student's targets. Lower training.alpha, take loss kl with a "
            "temperature of 1 or more, or look at the teacher (kdray cache show)")


def check_targets(teacher: np.ndarray, gold: np.ndarray) -> str | None:
    """What is wrong with soft targets, from a sample of them, and what mends it; None where nothing is.

    `teacher` are logits (targets, labels), `gold` label ids (targets,). Says nothing of fewer than 100 targets. Logits
    that tell nothing from the hard labels are found by Cohen's kappa: Cohen 1960, agreement beyond chance.
    """
    from sklearn.metrics import cohen_kappa_score

    if len(gold) < _ENOUGH:
        return None
    spread = np.ptp(torch.from_numpy(teacher).softmax(-1).numpy(), 0).max()
    if spread < _SPREAD:
        return (f"the soft targets are constant: over {len(gold)} targets of train, no probability of the teacher "
                f"differs by more than {spread:.2g}. There is nothing to distil; check teacher.model, or fine-tune it "
                "(teacher.finetune)")
    kappa = cohen_kappa_score(gold, teacher.argmax(-1))
    if kappa < _KAPPA:
        return (f"the soft targets agree with the hard labels no better than chance: Cohen's kappa is {kappa:.3f} over "
                f"{len(gold)} targets of train. They may be those of other rows (kdray cache verify), or the teacher "
                "does not know this task; fine-tune it (teacher.finetune)")
    return None
