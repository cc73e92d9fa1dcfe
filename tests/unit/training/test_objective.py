"""The two terms are those that the formula of each setting gives."""

import numpy as np
import pytest
import torch

from kdray.config import TrainingConfig
from kdray.outputs import Choice
from kdray.outputs.losses import cross_entropy, kl, mse
from kdray.training.objective import terms
from kdray.training.schedules import Moment

DRAW = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(5, 3, generator=DRAW), 3 * torch.randn(5, 3, generator=DRAW)
LABELS, KNOWN = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([True, True, False, True, True])
LIKELY = TEACHER.softmax(-1).numpy()


def found(at: Moment, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    return terms(Choice(), TrainingConfig(**settings).model_dump(), at, STUDENT, LABELS, TEACHER, KNOWN)


def soft_of(wanted: torch.Tensor, alpha: float) -> np.ndarray:
    return ((1 - alpha) * wanted * KNOWN).numpy()


def test_alpha_and_temperature_are_those_of_the_moment():
    task, soft = found(Moment(0.3, 4.0), alpha=0.9, temperature=2)
    hard = cross_entropy(STUDENT, LABELS)
    np.testing.assert_allclose(task, torch.where(KNOWN, 0.3 * hard, hard))
    np.testing.assert_allclose(soft, soft_of(kl(STUDENT, TEACHER, 4.0), 0.3), rtol=1e-5)


def test_annealing_is_the_mse_to_the_teachers_share_at_the_moment():
    _, soft = found(Moment(0.0, 2.0), loss="annealing", temperature=4)
    np.testing.assert_allclose(soft, soft_of(mse(STUDENT, 0.75 * TEACHER), 0.0), rtol=1e-5)


def test_a_confident_teacher_is_softened_by_its_own_temperature():
    _, soft = found(Moment(0.5, 3.0), confidence="temperature")
    each = torch.from_numpy(1 + 2 * (LIKELY.max(-1) - 1 / 3) * 1.5)
    np.testing.assert_allclose(soft, soft_of(kl(STUDENT, TEACHER, each), 0.5), rtol=1e-4)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_a_confident_teacher_weighs_more(loss):
    _, plain = found(Moment(0.5, 2.0), loss=loss)
    _, soft = found(Moment(0.5, 2.0), loss=loss, confidence="weight")
    weight = 1 + (LIKELY * np.log(LIKELY)).sum(-1) / np.log(3)
    np.testing.assert_allclose(soft, plain.numpy() * weight, rtol=1e-4, atol=1e-6)
