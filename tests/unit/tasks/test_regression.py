"""A score a row, with the metrics that SciPy computes."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from kdray.tasks import TASKS
from kdray.tasks.base import scores_of

TASK = TASKS["regression"]


def by_row(numbers: np.ndarray) -> list[np.ndarray]:
    return [np.array([[number]], np.float32) for number in numbers]


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth, with ties, and what is said of it."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 11, 80) / 2
    return truth.astype(np.float32), (truth + random.normal(0, 2, 80)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scipy(seed):
    truth, said = drawn(seed)
    assert scores_of(TASK, by_row(truth), by_row(said), ["score"]) == pytest.approx({
        "spearman": spearmanr(truth, said).statistic,
        "pearson": pearsonr(truth.astype(float), said.astype(float)).statistic,
        "rmse": np.sqrt(((truth - said) ** 2).mean())}, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_tally_of_rows_drawn_again_is_their_score(seed):
    truth, said = drawn(seed)
    some = np.random.default_rng(seed).integers(0, 80, 80)
    found = TASK.tally(by_row(truth), by_row(said), ["score"]).rates(np.bincount(some, minlength=80))
    assert found == pytest.approx(scores_of(TASK, by_row(truth[some]), by_row(said[some]), ["score"]), rel=1e-6)


def test_one_number_for_all_rows_goes_with_nothing():
    found = scores_of(TASK, by_row(np.arange(5.0)), by_row(np.ones(5)), ["score"])
    assert found["spearman"] == found["pearson"] == 0.0


@pytest.mark.parametrize("score, words", [
    ("3.5", None), ("-1", None), ("1e3", None), (None, "score is missing"), ("", "score is missing"),
    ("three", "'three' is no number"), ("nan", "not finite"), ("inf", "not finite"), (["1"], "is no number")])
def test_a_row_is_complained_about(score, words):
    complaint = TASK.complaint({"text": "fine", "text_pair": "too", "score": score})
    assert complaint is None if words is None else words in complaint
    assert TASK.complaint({"text": "fine"}) is None


def test_an_answer_is_the_score_as_it_is():
    answer = TASK.answer([{"text": "fine"}], [np.array([[4.25]], np.float32)], [np.array([0])], ["score"], {})
    assert answer == [{"label": "score", "score": 4.25}]
    assert TASK.taught({"text": "fine"}, [4.25]) == {"text": "fine", "score": 4.25}
