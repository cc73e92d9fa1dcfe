"""Metrics come with a bootstrap interval that is the same each time and holds the value."""

import numpy as np
import pytest

from kdray.evaluation.quality import interval_scores
from kdray.tasks import TASKS
from kdray.tasks.base import scores_of

SEQUENCE, TOKEN = TASKS["sequence-classification"], TASKS["token-classification"]
TAGS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def sequence(rows: int, accuracy: float, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(seed)
    gold = random.integers(0, 3, rows)
    guess = np.where(random.random(rows) < accuracy, gold, (gold + 1) % 3)
    return [np.array([i]) for i in gold], [np.array([i]) for i in guess]


def words(rows: int, accuracy: float, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(seed)
    gold = [random.integers(0, 5, random.integers(1, 9)) for _ in range(rows)]
    return gold, [np.where(random.random(len(ids)) < accuracy, ids, 4) for ids in gold]


@pytest.mark.parametrize("task, draw, labels", [(SEQUENCE, sequence, ["a", "b", "c"]), (TOKEN, words, TAGS)])
@pytest.mark.parametrize("accuracy", [0.3, 0.9])
def test_an_interval_holds_the_value_and_is_the_same_each_time(task, draw, labels, accuracy):
    gold, guess = draw(120, accuracy)
    found = interval_scores(task, gold, guess, labels)
    assert {name: entry["value"] for name, entry in found.items()} == scores_of(task, gold, guess, labels)
    assert set(found) == set(task.metrics)
    for entry in found.values():
        assert entry["low"] < entry["value"] < entry["high"]
    assert found == interval_scores(task, gold, guess, labels)
    assert found != interval_scores(task, gold, guess, labels, seed=1)


def test_an_accuracys_interval_is_about_that_of_the_binomial():
    gold, guess = sequence(1000, 0.8)
    entry = interval_scores(SEQUENCE, gold, guess, ["a", "b", "c"])["accuracy"]
    half = 1.96 * np.sqrt(entry["value"] * (1 - entry["value"]) / 1000)
    assert entry["value"] - entry["low"] == pytest.approx(half, rel=0.15)
    assert entry["high"] - entry["value"] == pytest.approx(half, rel=0.15)


def test_a_perfect_model_has_an_interval_of_one_point():
    gold, _ = sequence(50, 1.0)
    assert interval_scores(SEQUENCE, gold, gold, ["a", "b", "c"])["accuracy"] == {"value": 1, "low": 1, "high": 1}
