"""Several labels a row, or none, with the metrics that scikit-learn computes."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from kdray.tasks import TASKS
from kdray.tasks.base import scores_of

TASK = TASKS["multi-label-classification"]
LABELS = ["anger", "joy", "love", "none of these"]


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and guesses, (60, 4); one label is in neither."""
    random = np.random.default_rng(seed)
    truth, guess = ((random.random((60, 4)) < [0.6, 0.3, 0.1, 0.0]).astype(np.int32) for _ in range(2))
    return truth, np.where(random.random((60, 4)) < 0.5, truth, guess)


def by_row(flags: np.ndarray) -> list[np.ndarray]:
    return [row[None] for row in flags]


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_sklearn(seed):
    truth, guess = drawn(seed)
    assert scores_of(TASK, by_row(truth), by_row(guess), LABELS) == pytest.approx({
        "micro_f1": f1_score(truth, guess, average="micro"),
        "macro_f1": f1_score(truth[:, :3], guess[:, :3], average="macro"),
        "subset_accuracy": accuracy_score(truth, guess)})


def test_a_tally_of_some_rows_is_their_score():
    truth, guess = drawn(9)
    some = np.random.default_rng(9).integers(0, 60, 60)
    found = TASK.tally(by_row(truth), by_row(guess), LABELS).rates(np.bincount(some, minlength=60))
    assert found == pytest.approx(scores_of(TASK, by_row(truth[some]), by_row(guess[some]), LABELS))


def test_rows_without_any_label_are_scored():
    nothing = by_row(np.zeros((3, 4), np.int32))
    assert scores_of(TASK, nothing, nothing, LABELS) == {"micro_f1": 0.0, "macro_f1": 0.0, "subset_accuracy": 1.0}


@pytest.mark.parametrize("labels, words", [
    (["joy"], None), ([], None), (["joy", "love"], None), (None, "an empty list says that there is none"),
    ("joy, love", "data.separator"), (["joy", ""], "label 1 is empty"), (["joy", None], "label 1 is empty"),
    (["joy", "joy"], "'joy' twice")])
def test_a_row_is_complained_about(labels, words):
    complaint = TASK.complaint({"text": "fine", "labels": labels})
    assert complaint is None if words is None else words in complaint
    assert TASK.complaint({"text": "fine"}) is None and "text is empty" in TASK.complaint({"text": "", "labels": []})


def test_an_answer_has_each_label_by_itself():
    answer = TASK.answer([{"text": "fine"}], [np.array([[3.0, -1, 2, -9]], np.float32)], [np.array([0])], LABELS, {})
    assert [one["label"] for one in answer] == ["anger", "love", "joy", "none of these"]
    assert answer[0]["score"] == pytest.approx(1 / (1 + np.exp(-3))) and sum(one["score"] for one in answer) > 1.5


def test_what_a_teacher_says_is_a_row_of_data():
    assert TASK.taught({"text": "fine"}, [["joy", "love"]]) == {"text": "fine", "labels": ["joy", "love"]}


def test_the_threshold_is_the_one_with_the_best_micro_f1_and_what_is_served_is_settled_at_it():
    random, output = np.random.default_rng(0), TASK.output
    for _ in range(50):
        truth = [(random.random((1, 3)) < 0.3).astype(int) for _ in range(15)]
        logits = [np.round(random.normal(-1, 1, (1, 3)) + 2 * part, 1).astype(np.float32) for part in truth]

        def rate(threshold, truth=truth, logits=logits):
            return scores_of(TASK, truth, [output.settle(row, threshold) for row in logits], LABELS[:3])["micro_f1"]

        tuned = TASK.tuned(truth, logits)
        assert rate(tuned) == pytest.approx(max(rate(at) for at in np.arange(-6, 6, 0.05)))
        for row in logits:
            assert np.array_equal(output.decide(output.moved(row, np.array([0]), tuned)), output.settle(row, tuned))
    assert TASK.tuned([np.array([[1, 0]])], [np.array([[2.0, -3.0]])]) == 0
