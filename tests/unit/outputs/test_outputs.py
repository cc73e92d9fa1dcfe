"""Every output keeps the promises of its interface; flags and numbers against torch and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from kdray.errors import ModelError
from kdray.outputs import Choice, Flags, Value

LABELS = ["a", "b", "c"]
IDS = {name: index for index, name in enumerate(LABELS)}
RANDOM = np.random.default_rng(0)
ONE, OTHER = (RANDOM.normal(0, 2, (50, 3)).astype(np.float32) for _ in range(2))
ALL = pytest.mark.parametrize("output", [Choice(), Flags(), Value()], ids=["choice", "flags", "value"])


def gold_of(output) -> np.ndarray:
    """Something that is true of 50 targets."""
    return output.decide(OTHER)


@ALL
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_and_the_divergence_are_one(output, temperature):
    student, teacher = torch.from_numpy(ONE), torch.from_numpy(OTHER)
    kl = output.kl(student, teacher, temperature).numpy()
    found = output.divergence(OTHER, ONE, temperature).sum(-1) * temperature**2
    assert found == pytest.approx(kl, rel=1e-4, abs=1e-5)
    each = output.kl(student, teacher, torch.full((50,), temperature)).numpy()
    assert each == pytest.approx(kl, rel=1e-5, abs=1e-6)
    assert output.divergence(ONE, ONE, temperature) == pytest.approx(np.zeros((50, 3)), abs=1e-12)


@ALL
def test_decisions_have_the_shape_of_gold_and_are_alike_where_they_are_told_alike(output):
    decided, shape = output.decide(ONE), output.shape(3)
    assert decided.shape == (50, *shape) and gold_of(output).shape == decided.shape
    told, others = output.told(decided, LABELS), output.told(output.decide(OTHER), LABELS)
    assert all(map(output.told_alike, told, told))
    assert output.alike(decided, output.decide(OTHER)).tolist() == list(map(output.told_alike, told, others))
    assert not output.alike(decided, output.decide(OTHER)).all()


@ALL
def test_gold_that_is_not_known_weighs_nothing(output):
    gold = gold_of(output).copy()
    gold[::2] = output.unknown
    found = output.task_loss(torch.from_numpy(ONE), torch.from_numpy(gold))
    assert output.known(gold).tolist() == [False, True] * 25
    assert (found[::2] == 0).all() and (found[1::2] > 0).all() and torch.isfinite(found).all()


@ALL
def test_the_mean_of_one_model_is_that_model_and_of_two_lies_between(output):
    alone = output.mean(ONE[None], np.ones(1), 2.0)
    assert output.divergence(ONE, alone).sum(-1) == pytest.approx(np.zeros(50), abs=1e-6)
    both = output.mean(np.stack([ONE, OTHER]), np.array([0.5, 0.5]), 2.0)
    apart = output.divergence(ONE, OTHER, 2.0).sum(-1)
    assert (output.divergence(ONE, both, 2.0).sum(-1) <= apart + 1e-9).all()


@ALL
def test_a_teacher_that_knows_nothing_is_doubted_and_one_that_knows_is_not(output):
    many = RANDOM.normal(0, 2, (400, 3)).astype(np.float32)
    gold = output.decide(many)
    assert output.doubt(many, gold) is None
    output.check_teacher(gold, gold, LABELS)
    assert "constant" in (output.doubt(np.ones((400, 3), np.float32), gold) or "")
    strange = RANDOM.normal(0, 2, (400, 3)).astype(np.float32)
    assert "teacher.finetune" in (output.doubt(strange, gold) or "")
    with pytest.raises(ModelError, match="fine-tune it"):
        output.check_teacher(gold, output.decide(strange), LABELS)


@ALL
def test_a_summary_has_every_target_in_its_histogram(output):
    found = output.summary(ONE, gold_of(output), LABELS)
    assert sum(found.counts) == 50 and len(found.edges) == len(found.counts) + 1
    assert all(np.isfinite(value) for value in found.facts.values())
    unknown = np.full_like(gold_of(output), output.unknown)
    assert not output.summary(ONE, unknown, LABELS).lines and len(output.summary(ONE, unknown, LABELS).facts) > 0


@pytest.mark.parametrize("output", [Choice(), Flags()])
def test_what_is_sure_is_certain_and_a_guess_is_not(output):
    sure, guess = torch.tensor([[30.0, -30, -30]]), torch.zeros(1, 3)
    for measure in (output.certainty, output.information):
        assert measure(sure).item() == pytest.approx(1, abs=1e-5)
        assert measure(guess).item() == pytest.approx(0, abs=1e-5)
    assert output.confidence(sure.numpy())[0] == pytest.approx(1)
    assert output.confidence(guess.numpy())[0] < 0.6


def test_flags_are_what_torch_says():
    gold = Flags().decide(OTHER)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(ONE), torch.from_numpy(gold).float(), reduction="none").sum(-1)
    assert torch.allclose(Flags().task_loss(torch.from_numpy(ONE), torch.from_numpy(gold)), wanted)
    one, other = (torch.distributions.Bernoulli(logits=torch.from_numpy(z) / 2) for z in (OTHER, ONE))
    wanted = torch.distributions.kl_divergence(one, other).sum(-1)
    assert Flags().divergence(OTHER, ONE, 2.0).sum(-1) == pytest.approx(wanted.numpy(), rel=1e-4)


def test_flags_that_agree_by_chance_have_no_kappa():
    from kdray.outputs.flags import _kappa

    one, other = (RANDOM.integers(0, 2, (300, 1)) for _ in range(2))
    assert _kappa(one, other) == pytest.approx(cohen_kappa_score(one.ravel(), other.ravel()))


@pytest.mark.parametrize("said, wanted", [([], [0, 0, 0]), (["c"], [0, 0, 1]), (["c", "a"], [1, 0, 1])])
def test_flags_of_a_row_are_ones_and_zeros(said, wanted):
    assert Flags().gold(said, IDS, 3) == wanted
    assert Flags().told(np.array([wanted]), LABELS) == [sorted(said)]


def test_numbers_have_no_temperature():
    student, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [3.5]])
    assert Value().kl(student, teacher, 1.0).tolist() == Value().kl(student, teacher, 8.0).tolist() == [0.5, 0.125]
    assert Value().task_loss(student, teacher).tolist() == [1.0, 0.25]
    assert np.isnan(Value().confidence(ONE)).all()


@pytest.mark.parametrize("one, other, alike", [
    (0.0, 0.04, True), (0.0, 0.06, False), (4.0, 4.2, True), (4.0, 4.3, False)])
def test_numbers_are_alike_where_they_are_near(one, other, alike):
    assert Value().told_alike(one, other) is alike
    assert Value().alike(np.array([[one]]), np.array([[other]])).tolist() == [alike]


def test_a_scatter_is_of_one_number_alone():
    gold, said = np.arange(2000.0)[:, None], np.arange(2000.0)[:, None] + 1
    points = Value().breakdown(gold, said, np.full(2000, np.nan), ["score"])["scatter"]
    assert len(points["truth"]) == 1000 and points["truth"][0] == 0 and points["said"][-1] == 2000
    assert Value().breakdown(ONE, OTHER, np.full(50, np.nan), LABELS) == {}
