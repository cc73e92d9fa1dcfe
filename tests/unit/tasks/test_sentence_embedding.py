"""Sentence embeddings: rows, metrics, requests and answers."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr

from kdray.tasks import TASKS
from kdray.tasks.base import scores_of
from kdray.tasks.sentence_embedding import Likeness

TASK = TASKS["sentence-embedding"]
PAIR = {"text": "a film", "text_pair": "a plot", "score": "2.5"}


def by_row(values: np.ndarray) -> list[np.ndarray]:
    return [row[None] for row in values]


def drawn(rows: int, seed: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def truth(scores: np.ndarray, teacher: np.ndarray) -> list[np.ndarray]:
    return TASK.truth([np.array([[score]]) for score in scores], pa.table({}), [vector[None] for vector in teacher])


@pytest.mark.parametrize("row, words", [
    (PAIR, None), ({"text": "a film"}, None), ({"text": "a", "text_pair": None, "score": None}, None),
    ({"text": "a", "text_pair": "b"}, None),
    ({**PAIR, "text": " "}, "text is empty"), ({**PAIR, "text_pair": ""}, "text_pair is empty"),
    ({**PAIR, "score": "many"}, "score 'many' is no number"), ({**PAIR, "score": "inf"}, "is not finite"),
    ({"text": "a film", "score": "2"}, "score 2 is of one text")])
def test_a_row_is_a_text_or_two_and_perhaps_a_score(row, words) -> None:
    found = TASK.complaint(row)
    assert found is None if words is None else words in found


def test_each_text_of_a_pair_is_read_by_itself_and_the_first_has_the_score() -> None:
    first, second = TASK.rows(PAIR)
    assert (first["text"], TASK.labels(first)) == ("a film", ["2.5"])
    assert (second["text"], TASK.labels(second)) == ("a plot", [])
    assert [entry["text"] for entry in TASK.rows({"text": "a", "text_pair": None})] == ["a"]


def test_the_teacher_finds_all_its_neighbours_and_another_few() -> None:
    teacher, gold = drawn(300, 0), np.full(300, np.nan)
    assert scores_of(TASK, truth(gold, teacher), by_row(5 * teacher), []) == {"recall_at_10": 1.0}
    chance = scores_of(TASK, truth(gold, teacher), by_row(drawn(300, 1)), [])["recall_at_10"]
    assert chance == pytest.approx(10 / 299, abs=0.02)


def test_recall_is_that_of_a_plain_count() -> None:
    teacher, student = drawn(700, 0), drawn(700, 0) + 0.5 * drawn(700, 2)
    nearest = []
    for vectors in (teacher, student):
        unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -2)
        nearest.append(np.argsort(-cosine, axis=-1)[:, :10])
    wanted = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(*nearest, strict=True)])
    found = scores_of(TASK, truth(np.full(700, np.nan), teacher), by_row(student), [])
    assert found["recall_at_10"] == pytest.approx(wanted, abs=1e-4)


def test_spearman_is_of_the_cosines_of_pairs_that_have_a_score() -> None:
    vectors, scores = drawn(80, 0), np.full(80, np.nan)
    scores[0:60:2] = np.random.default_rng(1).integers(0, 6, 30)
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    wanted = spearmanr(scores[0:60:2], (unit[0:60:2] * unit[1:60:2]).sum(-1)).statistic
    assert scores_of(TASK, truth(scores, vectors), by_row(vectors), [])["spearman"] == pytest.approx(wanted, rel=1e-5)


def test_tallies_beside_each_other_count_the_rows_of_both() -> None:
    teacher, scores = drawn(40, 0), np.full(40, np.nan)
    scores[::2] = np.arange(20)
    gold = truth(scores, teacher)
    one, other = (TASK.tally(gold, by_row(drawn(40, seed)), []) for seed in (0, 1))
    both = one.beside(other)
    assert isinstance(both, Likeness) and both.rows == 80
    for side, weights in ((one, [1, 0]), (other, [0, 1])):
        assert both.rates(np.repeat(weights, 40).astype(float)) == pytest.approx(side.rates(np.ones(40)))


@pytest.mark.parametrize("item", [
    5, {"text": "a"}, ["a"], {"source_sentence": "a"}, {"source_sentence": "a", "sentences": "b"},
    {"source_sentence": "a", "sentences": []}, {"source_sentence": "a", "sentences": ["b", 1]},
    {"source_sentence": "a", "sentences": ["b", " "]}])
def test_what_is_no_input_is_refused(item) -> None:
    with pytest.raises(ValueError, match="source_sentence"):
        TASK.requests(item, None, 32)


def answer(rows, vectors, **parameters):
    return TASK.answer(rows, [vector[None] for vector in vectors], [np.zeros(1, int)] * len(rows), [], parameters)


def test_a_text_is_answered_with_its_vector() -> None:
    (rows, vectors) = TASK.requests("a film", None, 32), drawn(1, 0)
    assert answer(rows, vectors) == pytest.approx(vectors[0].tolist())
    assert np.linalg.norm(answer(rows, vectors, normalize=True)) == pytest.approx(1)
    short = answer(rows, vectors, dimensions=2, normalize=True, truncate=True)
    assert short == pytest.approx((vectors[0, :2] / np.linalg.norm(vectors[0, :2])).tolist())


def test_texts_are_compared_with_the_first() -> None:
    rows, vectors = TASK.requests({"source_sentence": "a", "sentences": ["b", "a"]}, None, 32), drawn(3, 0)
    vectors[2] = 2 * vectors[0]
    found = answer(rows, vectors)
    assert len(rows) == 3 and len(found) == 2 and found[1] == pytest.approx(1) and found[0] < 1


@pytest.mark.parametrize("parameters, words", [
    ({"dimensions": 0}, "from 1 to 6, not 0"), ({"dimensions": 7}, "not 7"), ({"dimensions": True}, "not True"),
    ({"truncate": False}, "truncate cannot be False"), ({"prompt_name": "query"}, "prompt_name cannot be 'query'"),
    ({"truncation_direction": "left"}, "cannot be 'left'"), ({"normalize": "yes"}, "normalize cannot be 'yes'"),
    ({"normalize": [1]}, "normalize cannot be"), ({"encoding_format": "base64"}, "encoding_format cannot be 'base64'")])
def test_options_that_cannot_be_are_refused(parameters, words) -> None:
    with pytest.raises(ValueError, match=words):
        answer(TASK.requests("a", None, 32), drawn(1, 0), **parameters)
