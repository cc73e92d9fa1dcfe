"""Logits and the targets of a batch become the two terms of the loss, as the settings and the moment want them.

Knows nothing about models, rows or workers.
"""

from typing import Any

from torch import Tensor

from kdray.training.losses import cross_entropy, distillation, weighed
from kdray.training.schedules import Moment, annealed, confident_temperature, confident_weight


def terms(settings: dict[str, Any], at: Moment, logits: Tensor, labels: Tensor, soft: Tensor,
          known: Tensor) -> tuple[Tensor, Tensor]:
    """Task term and distillation term of each target, weighed by alpha: their sum is the loss. Both (targets,).

    `settings` are the fields of TrainingConfig; `logits` and the teacher's `soft` are (targets, labels), `labels` are
    ids (targets,), `known` says which targets the teacher has logits for.
    """
    return weighed(cross_entropy(logits, labels), _distillation(settings, at, logits, soft), known, at.alpha)


def _distillation(settings: dict[str, Any], at: Moment, logits: Tensor, soft: Tensor) -> Tensor:
    by_confidence = settings["confidence"]
    temperature = confident_temperature(soft, at.temperature) if by_confidence == "temperature" else at.temperature
    share = annealed(at.temperature, settings["temperature"])
    loss = distillation(settings["loss"], temperature, settings["huber_delta"], share)(logits, soft)
    return loss * confident_weight(soft) if by_confidence == "weight" else loss
