"""The output of sentence embeddings: where a vector points."""

import numpy as np
import pytest
import torch

from kdray.outputs import Embedding
from kdray.outputs.embedding import cosines
from kdray.outputs.losses import cosine, distillation, similarity

OUTPUT = Embedding()


def drawn(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))


def test_gold_is_the_score_of_a_pair_or_not_known() -> None:
    gold = np.array([OUTPUT.gold(["3.5"], {}, 8), OUTPUT.gold([], {}, 8)])
    assert gold[0, 0] == 3.5 and OUTPUT.known(gold).tolist() == [True, False] and OUTPUT.shape(8) == (1,)


def test_vectors_are_alike_where_they_point_the_same_way() -> None:
    one = drawn(1).numpy()
    turned = one + 0.5 * np.linalg.norm(one) * np.eye(8)[:1]
    assert OUTPUT.alike(one, 7 * one).all() and not OUTPUT.alike(one, -one).any()
    assert OUTPUT.told_alike(one[0].tolist(), one[0].tolist())
    assert cosines(one, turned) == pytest.approx(torch.cosine_similarity(*map(torch.from_numpy, (one, turned))).numpy())
    assert cosines(one, np.zeros((1, 8))) == 0


def test_no_gold_teaches_anything() -> None:
    student = drawn(3).requires_grad_()
    loss = OUTPUT.task_loss(student, torch.tensor([[1.0], [float("nan")], [2.0]]))
    loss.sum().backward()
    assert (loss == 0).all() and (student.grad == 0).all()


def test_the_kl_of_vectors_of_length_1_is_1_minus_their_cosine() -> None:
    student, teacher = (torch.nn.functional.normalize(drawn(5, seed), dim=-1) for seed in (0, 1))
    assert torch.allclose(OUTPUT.kl(student, teacher, 2.0), cosine(student, teacher), atol=1e-6)


def test_similarity_compares_neighbourhoods_and_not_directions() -> None:
    teacher = drawn(6)
    turn, _ = torch.linalg.qr(drawn(8, 3))
    assert similarity(teacher @ turn, teacher, 0.1).abs().max() < 1e-4
    assert (similarity(drawn(6, 1), teacher, 0.1) > 0.01 * 0.1).all()


def test_similarity_is_the_kl_over_the_others_of_the_batch() -> None:
    student, teacher, temperature = drawn(4, 1), drawn(4), 0.3
    wanted = []
    for row in range(4):
        others = [other for other in range(4) if other != row]
        given, asked = (torch.cosine_similarity(vectors[row:row + 1], vectors[others]).div(temperature).log_softmax(-1)
                        for vectors in (student, teacher))
        wanted.append(temperature**2 * torch.nn.functional.kl_div(given, asked, log_target=True, reduction="sum"))
    found = distillation("similarity", OUTPUT.kl, temperature, 1.0)(student, teacher)
    assert torch.allclose(found, torch.stack(wanted), atol=1e-6)


def test_a_text_alone_in_its_batch_has_no_neighbours() -> None:
    student = drawn(1).requires_grad_()
    similarity(student, drawn(1, 2), 1.0).sum().backward()
    assert (student.grad == 0).all()


def test_vectors_that_all_point_the_same_way_teach_nothing() -> None:
    one, gold = drawn(1).numpy(), np.full((200, 1), np.nan)
    assert "constant" in (OUTPUT.doubt(np.repeat(one, 200, 0), gold) or "")
    assert OUTPUT.doubt(drawn(200).numpy(), gold) is None


def test_a_summary_says_how_long_and_how_alike_vectors_are() -> None:
    found = OUTPUT.summary(3 * torch.nn.functional.normalize(drawn(50), dim=-1).numpy(), np.full((50, 1), np.nan), [])
    assert found.facts["length"] == pytest.approx(3) and abs(found.facts["cosine of two rows"]) < 0.2
    assert sum(found.counts) == 49
