"""How far the distillation is becomes alpha and temperature; how sure a teacher is, a temperature a target.

Pure functions. Knows nothing about losses. How far is told by epoch and step alone, so that a resumed run, and one on
another number of workers, has the same values.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Moment:
    """Alpha and temperature of one step."""

    alpha: float
    temperature: float


def moment(settings: dict[str, Any], epoch: int, step: int, steps: int) -> Moment:
    """Alpha and temperature at `step` of `epoch`, both from 0, of a distillation with `steps` an epoch.

    `settings` are the fields of TrainingConfig. With the loss `annealing` the temperature falls to 1 where nothing
    else is said.
    """
    gone = (epoch * steps + step) / max(1, settings["epochs"] * steps - 1)
    end = settings["temperature_end"]
    if end is None and settings["loss"] == "annealing":
        end = 1.0
    return Moment(scheduled(settings["alpha_schedule"], settings["alpha"], settings["alpha_end"], gone),
                  scheduled(settings["temperature_schedule"], settings["temperature"], end, gone))


def scheduled(shape: str | None, start: float, end: float | None, gone: float) -> float:
    """Value when the share `gone` of all steps is gone: `start` at 0, `end` at 1.

    linear: start + (end - start) * gone. cosine: half a wave, slow at both ends, as Loshchilov, Hutter 2017
    (arXiv 1608.03983), equation 5, anneal the rate. None is linear where there is an end, else constant.
    """
    if end is None or shape == "constant":
        return start
    return start + (end - start) * (0.5 * (1 - math.cos(math.pi * gone)) if shape == "cosine" else gone)


def annealed(temperature: float, highest: float) -> float:
    """Share of the teacher's logits that a student is asked for: phi(T) = 1 - (T - 1) / T_max.

    Jafari et al. 2021 (arXiv 2104.07163), section 3. There T is a whole number that falls every few epochs; here it
    falls every step.
    """
    return 1 - (temperature - 1) / highest


def confident_temperature(certainty: Tensor, temperature: float) -> Tensor:
    """T_i = 1 + (T - 1) * certainty: the sure targets are softened, the unsure are soft as they are. (targets,)

    The idea is that of dynamic temperature distillation: Wen, Lai, Qian 2019 (arXiv 1911.07471), who lower the
    temperature of confusing samples too, but by the student's confidence, against the mean of the batch. Here the
    teacher's logits alone decide, so the batch does not matter.
    """
    return 1 + (temperature - 1) * certainty
