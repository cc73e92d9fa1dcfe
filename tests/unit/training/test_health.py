"""A distillation that does nothing is told apart from one that does."""

import numpy as np
import pytest
import torch

from kdray.config import TrainingConfig
from kdray.outputs import Choice
from kdray.training.health import check_targets, closeness, ratio, squared_norms, warning_of
from kdray.training.objective import terms
from kdray.training.schedules import Moment

DRAW = torch.Generator().manual_seed(1)
STUDENT, TEACHER = torch.randn(40, 3, generator=DRAW), 2 * torch.randn(40, 3, generator=DRAW)
LABELS = torch.randint(3, (40,), generator=DRAW)
KNOWN = torch.ones(40, dtype=torch.bool)


def squares(alpha: float, known: torch.Tensor = KNOWN, teacher: torch.Tensor = TEACHER, **settings) -> torch.Tensor:
    chosen = TrainingConfig(**settings).model_dump()
    at = Moment(alpha, chosen["temperature"])
    return squared_norms(STUDENT, lambda logits: terms(Choice(), chosen, at, logits, LABELS, teacher, known))


@pytest.mark.parametrize("alpha, temperature", [(0.5, 1.0), (0.2, 4.0), (0.999, 2.0)])
def test_the_ratio_is_that_of_the_closed_gradients(alpha, temperature):
    hard = STUDENT.softmax(-1) - torch.eye(3)[LABELS]
    soft = temperature * ((STUDENT / temperature).softmax(-1) - (TEACHER / temperature).softmax(-1))
    wanted = (1 - alpha) * soft.norm() / (alpha * hard.norm())
    assert ratio(squares(alpha, temperature=temperature)[None]) == pytest.approx(wanted.item(), rel=1e-4)


def test_the_squares_of_workers_add_up_to_those_of_the_whole_step():
    chosen = TrainingConfig().model_dump()
    parts = [squared_norms(STUDENT[part], lambda logits, part=part: terms(
        Choice(), chosen, Moment(0.5, 2.0), logits, LABELS[part], TEACHER[part], KNOWN[part]))
        for part in (slice(0, 13), slice(13, 40))]
    assert torch.allclose(sum(parts), squares(0.5, temperature=2.0))


def test_the_ratio_is_of_means_over_steps_and_none_without_a_task_gradient():
    assert ratio(torch.tensor([[4.0, 1.0], [16.0, 25.0]])) == pytest.approx((1 + 5) / (2 + 4))
    assert ratio(torch.tensor([[0.0, 1.0]])) is None and ratio(torch.zeros(0, 2)) is None


@pytest.mark.parametrize("what, change", [
    ("alpha near 1", {"alpha": 0.9999}),
    ("no target known", {"alpha": 0.5, "known": ~KNOWN}),
    ("a loss that is small on small logits", {"alpha": 0.5, "loss": "mse", "teacher": STUDENT + TEACHER / 1000})])
def test_a_term_that_does_nothing_is_warned_of(what, change):
    entry = {"epoch": 3, "ratio": ratio(squares(**change)[None])}
    warning = warning_of(entry)
    assert warning and f"{entry['ratio']:.2g}" in warning and "epoch 3" in warning and "training.alpha" in warning


@pytest.mark.parametrize("entry", [
    {"epoch": 1, "ratio": ratio(squares(0.5)[None]), "kl": 0.3}, {"epoch": 1, "loss": 0.2}, {"epoch": 1, "ratio": 0.01},
    {"epoch": 1, "ratio": 0.001, "kl": 0.001}], ids=["healthy", "hard labels alone", "just enough", "follows already"])
def test_an_epoch_without_fault_is_not_warned_of(entry):
    assert warning_of(entry) is None


def test_closeness_counts_what_the_teacher_knows():
    known = torch.arange(40) < 25
    count, same, divergence = closeness(Choice(), STUDENT.numpy(), TEACHER.numpy(), known.numpy())
    p, q = (logits[:25].double().softmax(-1).numpy() for logits in (TEACHER, STUDENT))
    assert count == 25 and same == (p.argmax(-1) == q.argmax(-1)).sum()
    assert divergence == pytest.approx((p * np.log(p / q)).sum())
    same = closeness(Choice(), TEACHER.numpy(), TEACHER.numpy(), KNOWN.numpy())
    assert same.tolist() == pytest.approx([40, 40, 0], abs=1e-6)


RANDOM = np.random.default_rng(0)
NOISE = RANDOM.normal(scale=1e-3, size=(400, 3)).astype(np.float32)
GOLD = RANDOM.integers(0, 3, 400)


def logits_of(ids: np.ndarray) -> np.ndarray:
    return (4 * np.eye(3)[ids] + RANDOM.normal(size=(len(ids), 3))).astype(np.float32)


@pytest.mark.parametrize("teacher, words", [
    (np.full((400, 3), 0.7, np.float32), "constant"),
    (np.float32([5, 0, 1]) + NOISE, "constant"),
    (RANDOM.permutation(logits_of(GOLD)), "no better than chance"),
    (logits_of(GOLD)[:, [1, 2, 0]], "no better than chance")], ids=["equal", "all but equal", "shuffled", "turned"])
def test_soft_targets_that_teach_nothing_are_warned_of(teacher, words):
    warning = check_targets(Choice(), teacher, GOLD)
    assert warning and words in warning and "400 targets" in warning and "teacher.finetune" in warning


def test_soft_targets_of_a_weak_but_honest_teacher_are_not():
    guesses = np.where(RANDOM.random(400) < 0.3, GOLD, RANDOM.integers(0, 3, 400))
    assert check_targets(Choice(), logits_of(guesses), GOLD) is None


def test_rare_labels_are_judged_beyond_chance():
    """98 % outside an entity: a teacher that always says so agrees often, and by chance alone."""
    gold = np.where(np.arange(1000) % 50 == 0, 1, 0)
    always = logits_of(np.zeros(1000, int))
    assert "no better than chance" in (check_targets(Choice(), always, gold) or "")
    assert check_targets(Choice(), logits_of(gold), gold) is None


def test_too_few_targets_are_not_judged():
    assert check_targets(Choice(), np.zeros((99, 3), np.float32), GOLD[:99]) is None
