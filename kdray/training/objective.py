"""Logits and the targets of a batch become the two terms of the loss, as the settings and the moment want them.

Knows nothing about models, rows or workers.
"""

from typing import Any

from torch import Tensor

from kdray.outputs import Output
from kdray.outputs.losses import distillation, weighed
from kdray.training.schedules import Moment, annealed, confident_temperature


def terms(output: Output, settings: dict[str, Any], at: Moment, logits: Tensor, labels: Tensor, soft: Tensor,
          known: Tensor) -> tuple[Tensor, Tensor]:
    """Task term and distillation term of each target, weighed by alpha: their sum is the loss. Both (targets,).

    `settings` are the fields of TrainingConfig; `logits` and the teacher's `soft` are (targets, labels), `labels` are
    the gold of the output, `known` says which targets the teacher has logits for.
    """
    return weighed(output.task_loss(logits, labels), _distillation(output, settings, at, logits, soft), known, at.alpha)


def _distillation(output: Output, settings: dict[str, Any], at: Moment, logits: Tensor, soft: Tensor) -> Tensor:
    by_confidence, temperature = settings["confidence"], at.temperature
    each = confident_temperature(output.certainty(soft), temperature) if by_confidence == "temperature" else temperature
    share = annealed(temperature, settings["temperature"])
    loss = distillation(settings["loss"], output.kl, each, settings["huber_delta"], share)(logits, soft)
    return loss * output.information(soft) if by_confidence == "weight" else loss
