"""Alpha and temperature are where they should be at each step, and follow a teacher's confidence."""

import math

import numpy as np
import pytest
import torch

from kdray.config import TrainingConfig
from kdray.outputs import Choice
from kdray.training.schedules import (
    Moment,
    annealed,
    confident_temperature,
    moment,
    scheduled,
)

SURE, GUESS = [30.0, 0.0, 0.0], [1.0, 1.0, 1.0]


def path(epochs: int = 2, steps: int = 5, **settings) -> list[Moment]:
    """The moment of every step."""
    chosen = TrainingConfig(epochs=epochs, **settings).model_dump()
    return [moment(chosen, epoch, step, steps) for epoch in range(epochs) for step in range(steps)]


@pytest.mark.parametrize("shape, middle, quarter", [
    (None, 3.0, 2.0), ("linear", 3.0, 2.0), ("cosine", 3.0, 1 + 4 * (1 - math.sqrt(0.5)) / 2), ("constant", 1.0, 1.0)])
def test_a_value_goes_from_its_start_to_its_end(shape, middle, quarter):
    assert scheduled(shape, 1.0, 5.0, 0.0) == 1.0
    assert scheduled(shape, 1.0, 5.0, 1.0) == pytest.approx(1.0 if shape == "constant" else 5.0)
    assert scheduled(shape, 1.0, 5.0, 0.5) == pytest.approx(middle)
    assert scheduled(shape, 1.0, 5.0, 0.25) == pytest.approx(quarter)


@pytest.mark.parametrize("shape", [None, "linear", "cosine", "constant"])
def test_without_an_end_a_value_stays(shape):
    assert [scheduled(shape, 0.3, None, gone) for gone in (0, 0.4, 1)] == [0.3] * 3


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize("epochs, steps", [(1, 7), (3, 2), (2, 5)])
def test_the_end_is_reached_at_the_last_step_and_no_step_leaves_the_way(shape, epochs, steps):
    found = path(epochs, steps, alpha=0.2, alpha_end=0.9, alpha_schedule=shape, temperature=8, temperature_end=1,
                 temperature_schedule=shape)
    alphas, temperatures = np.array([(at.alpha, at.temperature) for at in found]).T
    assert (alphas[0], temperatures[0]) == (0.2, 8) and (alphas[-1], temperatures[-1]) == pytest.approx((0.9, 1))
    assert (np.diff(alphas) > 0).all() and (np.diff(temperatures) < 0).all()


def test_a_distillation_of_one_step_is_at_the_start():
    assert path(1, 1, alpha=0.2, alpha_end=0.9) == [Moment(0.2, 2.0)]


def test_nothing_moves_unless_it_is_told_to():
    assert set(path(alpha=0.3, temperature=3)) == {Moment(0.3, 3.0)}


def test_annealing_asks_for_more_and_more_of_the_teachers_logits():
    found = path(1, 5, loss="annealing", temperature=5, alpha=0)
    assert [at.temperature for at in found] == [5, 4, 3, 2, 1]
    assert [annealed(at.temperature, 5) for at in found] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_certainty_is_0_at_chance_and_1_where_there_is_no_doubt():
    assert Choice().certainty(torch.tensor([SURE, GUESS])).tolist() == pytest.approx([1, 0], abs=1e-6)
    half = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert Choice().certainty(half).item() == pytest.approx((0.5 - 1 / 3) / (2 / 3))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_sure_target_has_the_whole_temperature_and_a_guess_has_one(temperature):
    found = confident_temperature(Choice().certainty(torch.tensor([SURE, GUESS])), temperature)
    assert found.tolist() == pytest.approx([temperature, 1.0], abs=1e-5)


def test_a_weight_is_one_minus_the_entropy_over_its_largest():
    assert Choice().information(torch.tensor([SURE, GUESS])).tolist() == pytest.approx([1, 0], abs=1e-6)
    likely = np.array([0.7, 0.2, 0.1])
    wanted = 1 + (likely * np.log(likely)).sum() / np.log(3)
    assert Choice().information(torch.tensor(likely).log()[None]).item() == pytest.approx(wanted)


def test_confidence_does_not_depend_on_the_rest_of_the_batch():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    for function in (Choice().information, Choice().certainty):
        assert torch.allclose(function(logits)[:2], function(logits[:2]))
