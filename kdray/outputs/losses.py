"""Logits of student and teacher become losses: pure tensor functions, one value a target.

Every function takes logits (targets, labels) in float32 and returns (targets,). Knows nothing about
batches, weights or schedules. alpha weights the hard labels: 1 is plain fine-tuning, 0 pure distillation.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Kl = Callable[[Tensor, Tensor, float | Tensor], Tensor]
"""From logits of student and teacher, and a temperature."""


def kl(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over labels; T is one number, or (targets,).

    Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2: T^2 keeps the gradient's size as T changes.
    """
    each = temperature.unsqueeze(-1) if isinstance(temperature, Tensor) else temperature
    wanted = F.log_softmax(teacher / each, -1)
    given = F.log_softmax(student / each, -1)
    return temperature**2 * (wanted.exp() * (wanted - given)).sum(-1)


def binary_kl(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """T^2 * KL of a coin a label, sigmoid(teacher / T) || sigmoid(student / T), summed over labels."""
    each = temperature.unsqueeze(-1) if isinstance(temperature, Tensor) else temperature
    wanted, given = teacher / each, student / each
    on = F.logsigmoid(wanted) - F.logsigmoid(given)
    off = F.logsigmoid(-wanted) - F.logsigmoid(-given)
    return temperature**2 * (wanted.sigmoid() * on + (-wanted).sigmoid() * off).sum(-1)


def log_softmax_within(logits: Tensor, group: np.ndarray) -> Tensor:
    """Log-probabilities over the targets of each group, by label; `group` is the number of each target's, (targets,).

    Shapes are (targets, labels), what is given back too.
    """
    place = torch.from_numpy(group).to(logits.device)
    wide, groups = place[:, None].expand_as(logits), int(group[-1]) + 1
    peak = logits.new_zeros((groups, logits.shape[-1])).scatter_reduce(
        0, wide, logits.detach(), "amax", include_self=False)
    shifted = logits - peak[place]
    return shifted - shifted.new_zeros(peak.shape).index_add(0, place, shifted.exp()).log()[place]


def kl_within(student: Tensor, teacher: Tensor, temperature: float | Tensor, group: np.ndarray) -> Tensor:
    """Mean over labels of T^2 * KL over the targets of each group: what is at each target adds up to its group's."""
    each = temperature.unsqueeze(-1) if isinstance(temperature, Tensor) else temperature
    wanted, given = log_softmax_within(teacher / each, group), log_softmax_within(student / each, group)
    return temperature**2 * (wanted.exp() * (wanted - given)).mean(-1)


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over labels of (student - teacher)^2: Ba, Caruana 2014 (arXiv 1312.6184), equation 1."""
    return (student - teacher).square().mean(-1)


def huber(student: Tensor, teacher: Tensor, delta: float) -> Tensor:
    """Mean over labels of Huber's loss: d^2 / 2 up to `delta`, then delta * (|d| - delta / 2). Huber 1964."""
    return F.huber_loss(student, teacher, reduction="none", delta=delta).mean(-1)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of the two vectors."""
    return 1 - F.cosine_similarity(student, teacher, -1)


def similarity(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """T^2 * KL of how alike the vector of a target is to those of all others in the batch: softmax of cosines / T.

    How alike they are is all that is compared, so that student and teacher need not share a space; the larger the
    batch, the more it says. After Passalis, Tefas 2018 (arXiv 1803.10837), with a softmax in place of their kernel; the
    target itself is left out. A batch is what one worker has in hand at a time.
    """
    if len(student) < 2:
        return student.sum(-1) * 0
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    given, wanted = (F.normalize(vectors, dim=-1) for vectors in (student, teacher))
    found, asked = (cosines[others].view(len(student), -1) for cosines in (given @ given.T, wanted @ wanted.T))
    return kl(found, asked, temperature)


def cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(student)[label]; `labels` are ids (targets,)."""
    return F.cross_entropy(student, labels, reduction="none")


def binary_cross_entropy(student: Tensor, gold: Tensor) -> Tensor:
    """-log sigmoid of what is on, and of minus what is off, summed over labels; 0 where gold is not known.

    `gold` are ones and zeros (targets, labels).
    """
    known = (gold >= 0).all(-1)
    return torch.where(known, F.binary_cross_entropy_with_logits(
        student, gold.clamp_min(0).to(student.dtype), reduction="none").sum(-1), 0.0)


def squared_error(student: Tensor, gold: Tensor) -> Tensor:
    """Mean over numbers of (student - gold)^2; 0 where gold, (targets, labels), is not known."""
    known = ~gold.isnan().any(-1)
    return torch.where(known, (student - gold.nan_to_num()).square().mean(-1), 0.0)


def distillation(name: str, own: Kl, temperature: float | Tensor, delta: float,
                 share: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss called `name` as a function of student and teacher logits.

    `own` is the KL of the output that the logits are of.

    annealing is the mse to `share` of the teacher's logits: Jafari et al. 2021 (arXiv 2104.07163), section 3, whose
    first stage has alpha 0, and whose second is a last stage on the hard labels.
    """
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "kl": lambda student, teacher: own(student, teacher, temperature),
        "mse": mse,
        "huber": lambda student, teacher: huber(student, teacher, delta),
        "cosine": cosine,
        "similarity": lambda student, teacher: similarity(student, teacher, temperature),
        "annealing": lambda student, teacher: mse(student, share * teacher),
    }
    return losses[name]


def weighed(task: Tensor, soft: Tensor, known: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The terms alpha * task and (1 - alpha) * soft; a target that the teacher does not know has its task loss alone.

    All (targets,); `known` is boolean.
    """
    return torch.where(known, alpha * task, task), torch.where(known, (1 - alpha) * soft, 0.0)
