import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch.nn.functional import cross_entropy

from kdray.errors import ModelError
from kdray.outputs import Choice, Span
from kdray.outputs.span import answers
from kdray.outputs.windows import AGAIN, NONE

ONE = np.array([NONE, 0, 4, 9, 15, AGAIN, 9, 15, 20])
"""A row of two windows, which overlap, of tokens at 0, 4, 9, 15 and 20."""
TWO = np.array([NONE, 0, 3])
BOTH = np.concatenate([ONE, TWO])
SPANS = [slice(0, 5), slice(5, 9), slice(9, 12)]
ENDS = {0: 4, 4: 9, 9: 15, 15: 20, 20: 2**31 - 1}


def drawn(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (count, 2)).astype(np.float32)


def test_the_best_answer_is_looked_for_in_all_windows_and_no_answer_must_be_better_in_each():
    for seed in range(200):
        z = drawn(len(ONE), seed)
        totals = {}
        for span in SPANS[:2]:
            for i in range(span.start + 1, span.stop):
                for j in range(i, span.stop):
                    place = int(ONE[i]), ENDS[int(ONE[j])]
                    totals[place] = max(totals.get(place, -np.inf), z[i, 0] + z[j, 1])
        (found,), (decided,) = Span(ONE).unsettled(z), Span(ONE).decide(z)
        best = max(totals, key=totals.__getitem__)
        margin = min(z[0].sum(), z[5].sum()) - totals[best]
        assert (*found[:2], pytest.approx(found[2], abs=1e-4)) == (*best, margin)
        said, _ = answers(z, ONE)
        assert {(one.start, one.stop): pytest.approx(one.total, abs=1e-4) for one in said} == totals
        assert [one.total for one in said] == sorted((one.total for one in said), reverse=True)
        assert Span().told(decided[None], []) == ([[]] if margin > 0 else [list(best)])


def test_rows_and_windows_are_told_apart_by_their_units():
    z, output = drawn(len(BOTH)), Span(BOTH)
    assert np.array_equal(output.decide(z), np.concatenate([Span(ONE).decide(z[:9]), Span(TWO).decide(z[9:])]))
    assert output.confidence(z).shape == (2,) and output.counted(BOTH) == 3
    assert np.array_equal(output.divergence(z, -z), [Span(ONE).divergence(z[:9], -z[:9])[0],
                                                     Span(TWO).divergence(z[9:], -z[9:])[0]])


def test_losses_are_those_of_a_softmax_over_each_window():
    student, teacher = torch.from_numpy(drawn(12)).requires_grad_(), torch.from_numpy(drawn(12, 1))
    output, flags = Span(BOTH), np.concatenate([Span().taught(np.array([[9, 14]]), ONE),
                                                Span().taught(np.array([[-1, -1]]), TWO)])
    hard, soft = output.task_loss(student, torch.from_numpy(flags)), output.kl(student, teacher, 3.0)
    for span, place in zip(SPANS, (3, 1, 0), strict=True):
        wanted = [cross_entropy(student[span, column][None], torch.tensor([place])) for column in (0, 1)]
        assert hard[span].sum().item() == pytest.approx(sum(wanted).item() / 2, rel=1e-5)
        own = [Choice().kl(student[span, column][None], teacher[span, column][None], 3.0) for column in (0, 1)]
        assert soft[span].sum().item() == pytest.approx(sum(own).item() / 2, rel=1e-4)
    (hard + soft).sum().backward()
    assert torch.isfinite(student.grad).all() and student.grad.abs().sum() > 0
    by_row = output.divergence(teacher.numpy(), student.detach().numpy(), 3.0).sum(-1) * 9
    assert by_row.tolist() == pytest.approx([soft[:9].sum().item() / 2, soft[9:].sum().item()], rel=1e-4)
    assert output.kl(student, teacher, torch.full((12,), 3.0)).tolist() == pytest.approx(soft.tolist())
    for found in (output.certainty(teacher), output.information(teacher)):
        assert ((found >= 0) & (found <= 1)).all() and all(len(set(found[span].tolist())) == 1 for span in SPANS)


@pytest.mark.parametrize("gold, places", [
    ((9, 14), [(3, 3), (1, 1)]), ((5, 12), [(2, 3), (0, 0)]), ((16, 25), [(0, 0), (2, 3)]),
    ((-1, -1), [(0, 0), (0, 0)])])
def test_a_window_without_the_whole_answer_is_taught_that_it_has_none(gold, places):
    flags = Span().taught(np.array([gold]), ONE)
    found = [tuple(flags[span].argmax(0).tolist()) for span in SPANS[:2]]
    assert found == places and all((flags[span].sum(0) == 1).all() for span in SPANS[:2])


def test_gold_that_is_not_known_teaches_nothing():
    flags = Span().taught(np.array([[-100, -100]]), TWO)
    assert not Span().known(flags).any() and not Span().known(np.array([[-100, -100]])).any()
    assert not Span(TWO).task_loss(torch.randn(3, 2), torch.from_numpy(flags)).any()


def test_another_tokenizer_meets_the_teacher_at_starts_and_at_ends():
    """The student cuts the token at 4 in two, and has one at 20 in a window where the teacher's has none."""
    ours, z = np.array([NONE, 0, 4, 6, 9, 15, 20]), drawn(len(ONE))
    found, known = Span().matched(ours, ONE, z)
    assert known.tolist() == [*[True] * 6, False] and np.array_equal(found[0], z[0])
    assert found[2, 0] == z[2, 0] and found[3, 1] == z[2, 1] and found[2, 1] == found[3, 0] == -1e4
    likely = log_softmax(found.astype(float), 0)
    assert np.exp(likely[[2], 1]) == 0 and np.exp(likely).sum(0) == pytest.approx([1, 1])
    loss = Span(ours).kl(torch.zeros(7, 2), torch.from_numpy(found), 4.0)
    assert torch.isfinite(loss).all() and (Span(ONE).matched(ONE, ONE, z)[0] == z).all()


def test_a_threshold_moves_logits_as_it_settles_decisions():
    output = Span(BOTH)
    for seed in range(100):
        z = drawn(len(BOTH), seed)
        for threshold in (-3.0, 0.5, 4.0):
            moved = output.moved(z, BOTH, threshold)
            assert np.array_equal(output.decide(moved), output.settle(output.unsettled(z), threshold))


def test_an_answer_has_at_most_thirty_tokens_and_a_window_without_tokens_none():
    units = np.array([NONE, *range(0, 200, 2)])
    z = np.zeros((101, 2), np.float32)
    z[1, 0] = z[40, 1] = 5
    (start, stop), = Span(units).decide(z)
    assert 1 <= (stop - start) / 2 <= 30
    (found,) = Span(np.array([NONE])).decide(np.zeros((1, 2), np.float32))
    assert Span().told(found[None], []) == [[]]


def test_a_mean_of_probabilities_is_that_over_a_window():
    stack, weights = np.stack([drawn(len(ONE), 0), drawn(len(ONE), 1)]), np.array([0.25, 0.75])
    mean = Span(ONE).mean(stack, weights, 2.0)
    for span in SPANS[:2]:
        wanted = sum(w * np.exp(log_softmax(z[span] / 2, 0)) for w, z in zip(weights, stack, strict=True))
        assert np.exp(log_softmax(mean[span] / 2, 0)) == pytest.approx(wanted, rel=1e-4)


def test_a_teacher_that_finds_nothing_is_refused():
    random = np.random.default_rng(0)
    gold = random.integers(0, 500, (200, 2))
    gold[::2] = NONE
    margins = np.where(gold[:, :1] < 0, 5.5, 5.0)
    Span().check_teacher(gold, np.concatenate([gold, random.normal(0, 1, (200, 1))], 1), [])
    Span().check_teacher(gold, np.concatenate([gold + 1, margins], 1), [])
    with pytest.raises(ModelError, match=r"0\.0% of the answers"):
        Span().check_teacher(gold, np.concatenate([gold + 1, margins[random.permutation(200)]], 1), [])
    units = np.concatenate([TWO] * 200)
    assert "constant" in Span(units).doubt(np.zeros((600, 2), np.float32), gold)
