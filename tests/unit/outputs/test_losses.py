"""Losses and their gradients are those of an independent float64 implementation."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from kdray.outputs.losses import cross_entropy, distillation, huber, kl, mse, weighed

TEMPERATURES = [0.5, 1.0, 2.0, 8.0]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def reference_kl(student, teacher, temperature):
    wanted, given = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (wanted * np.log(wanted / given)).sum(-1)


def reference_kl_gradient(student, teacher, temperature):
    return temperature * (softmax(student / temperature) - softmax(teacher / temperature))


def reference_huber(student, teacher, delta):
    distance = np.abs(student - teacher)
    return np.where(distance <= delta, distance**2 / 2, delta * (distance - delta / 2)).mean(-1)


def drawn(seed: int, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (int(random.integers(1, 9)), int(random.integers(2, 7)))
    return random.normal(scale=scale, size=shape), random.normal(scale=scale, size=shape)


def tensors(*arrays: np.ndarray, dtype=torch.float32) -> list[torch.Tensor]:
    return [torch.tensor(array, dtype=dtype) for array in arrays]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("seed", range(5))
def test_kl(seed, temperature):
    student, teacher = drawn(seed)
    found = kl(*tensors(student, teacher), temperature)
    np.testing.assert_allclose(found, reference_kl(student, teacher, temperature), rtol=1e-4, atol=1e-4)


def test_kl_takes_a_temperature_a_target():
    student, teacher = tensors(*drawn(5))
    temperatures = torch.linspace(0.5, 4, len(student))
    wanted = [kl(student[[i]], teacher[[i]], temperatures[i].item()).item() for i in range(len(student))]
    np.testing.assert_allclose(kl(student, teacher, temperatures), wanted, rtol=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kls_gradient(temperature):
    student, teacher = drawn(0)
    given, wanted = tensors(student, teacher, dtype=torch.float64)
    given.requires_grad_()
    kl(given, wanted, temperature).sum().backward()
    np.testing.assert_allclose(given.grad, reference_kl_gradient(student, teacher, temperature), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_mse_and_huber(seed):
    student, teacher = drawn(seed)
    np.testing.assert_allclose(mse(*tensors(student, teacher)), ((student - teacher)**2).mean(-1), rtol=1e-5)
    for delta in (0.3, 1.0, 5.0):
        np.testing.assert_allclose(huber(*tensors(student, teacher), delta), reference_huber(student, teacher, delta),
                                   rtol=1e-5)


def test_huber_meets_half_the_squared_loss_within_delta_and_is_linear_beyond():
    zero = torch.zeros(1, 1)
    assert huber(zero, torch.tensor([[0.5]]), 1.0).item() == pytest.approx(0.125)
    assert huber(zero, torch.tensor([[10.0]]), 1.0).item() == pytest.approx(9.5)


@pytest.mark.parametrize("seed", range(5))
def test_cross_entropy(seed):
    student, _ = drawn(seed)
    labels = np.random.default_rng(seed).integers(0, student.shape[1], len(student))
    wanted = -np.log(softmax(student)[np.arange(len(student)), labels])
    np.testing.assert_allclose(cross_entropy(*tensors(student), torch.tensor(labels)), wanted, rtol=1e-4, atol=1e-5)


def test_annealing_is_the_mse_to_a_share_of_the_teacher():
    student, teacher = drawn(6)
    found = distillation("annealing", kl, 3.0, 1.0, 0.25)(*tensors(student, teacher))
    np.testing.assert_allclose(found, ((student - teacher / 4)**2).mean(-1), rtol=1e-5)


@pytest.mark.parametrize("name", ["kl", "mse", "huber", "annealing"])
def test_gradients_are_those_of_finite_differences(name):
    student, teacher = tensors(*drawn(3), dtype=torch.float64)
    loss = distillation(name, kl, 2.0, 0.7)
    assert gradcheck(lambda given: loss(given, teacher), student.requires_grad_())


def test_gradients_of_the_whole_are_those_of_finite_differences():
    student, teacher = tensors(*drawn(3), dtype=torch.float64)
    labels = torch.zeros(len(student), dtype=torch.long)
    known = torch.arange(len(student)) % 2 == 0
    assert gradcheck(lambda given: sum(weighed(cross_entropy(given, labels), kl(given, teacher, 2.0), known, 0.3)),
                     student.requires_grad_())


@pytest.mark.parametrize("name, given", [("kl", lambda s, t: kl(s, t, 3.0)), ("mse", mse),
                                         ("huber", lambda s, t: huber(s, t, 0.2))])
def test_a_loss_is_found_by_its_name(name, given):
    student, teacher = tensors(*drawn(1))
    assert torch.equal(distillation(name, kl, 3.0, 0.2)(student, teacher), given(student, teacher))


@pytest.mark.parametrize("name", ["kl", "mse", "huber"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_student_that_is_the_teacher_has_no_loss_and_no_gradient(name, temperature):
    student, teacher = tensors(*drawn(2)[:1] * 2)
    student.requires_grad_()
    loss = distillation(name, kl, temperature, 1.0)(student, teacher)
    loss.sum().backward()
    assert loss.abs().max() < 1e-6 and student.grad.abs().max() < 1e-6


def test_kl_is_never_negative_and_sees_no_shift():
    for seed in range(20):
        student, teacher = tensors(*drawn(seed), dtype=torch.float64)
        assert kl(student, teacher, 2.0).min() >= 0
        assert torch.allclose(kl(student + 5, teacher - 3, 2.0), kl(student, teacher, 2.0))


def test_temperature_squared_keeps_the_gradients_size():
    """Hinton et al. 2015, section 2: at a high temperature the gradient is (student - teacher) / labels, centred."""
    student, teacher = tensors(*drawn(4, 0.5), dtype=torch.float64)
    difference = student - teacher
    wanted = (difference - difference.mean(-1, keepdim=True)) / student.shape[-1]
    for temperature in (50.0, 500.0):
        given = student.clone().requires_grad_()
        kl(given, teacher, temperature).sum().backward()
        assert torch.allclose(given.grad, wanted, rtol=0.1, atol=2e-3)


def test_large_logits_give_finite_losses_and_gradients():
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = kl(student, torch.tensor([[-1e4, 1e4, 0.0]]), 1.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(student.grad).all()


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_alpha_weights_the_hard_labels(alpha):
    task, soft = tensors(np.array([2.0, 4.0]), np.array([10.0, 20.0]))
    known = torch.tensor([True, True])
    hard, distilled = weighed(task, soft, known, alpha)
    np.testing.assert_allclose(hard, [alpha * 2, alpha * 4])
    np.testing.assert_allclose(distilled, [(1 - alpha) * 10, (1 - alpha) * 20])


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_a_target_that_the_teacher_does_not_know_has_its_task_loss_alone(alpha):
    task, soft = tensors(np.array([2.0, 4.0]), np.array([10.0, 20.0]))
    assert sum(weighed(task, soft, torch.tensor([False, False]), alpha)).tolist() == [2.0, 4.0]
    assert [term.tolist() for term in weighed(task, soft, torch.tensor([False, True]), 0.0)] == [[2, 0], [0, 20]]
