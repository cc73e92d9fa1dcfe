"""Metrics come with a bootstrap interval that is the same each time and holds the value."""

import numpy as np
import pytest

from kdray.cache.reader import SoftTargets
from kdray.evaluation.quality import Predictions, cached_predictions, divergences, interval_scores, model_predictions
from kdray.tasks import TASKS

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
    assert {name: entry["value"] for name, entry in found.items()} == task.scores(gold, guess, labels)
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


def test_cached_predictions_are_those_of_the_model_that_filled_the_cache(corpus, cache):
    rows = corpus.rows("test")
    cached = cached_predictions(corpus.task, SoftTargets(corpus.store, cache["key"], "test"), rows, corpus.labels)
    fresh, parameters = model_predictions(corpus.task, corpus.model, rows, corpus.labels, 0)
    assert [ids.tolist() for ids in cached.ids] == [ids.tolist() for ids in fresh.ids]
    assert np.concatenate(cached.logs) == pytest.approx(np.concatenate(fresh.logs), abs=1e-5)
    assert np.exp(np.concatenate(fresh.logs)).sum(-1) == pytest.approx(1)
    assert len(cached.ids) == len(rows) and parameters > 10_000
    assert np.concatenate(divergences(cached, fresh)) == pytest.approx(0, abs=1e-5)


def test_a_word_that_the_model_does_not_see_has_a_label_and_no_confidence(token_corpus):
    rows = token_corpus.rows("test")
    found, _ = model_predictions(token_corpus.task, token_corpus.model, rows, token_corpus.labels, 0)
    unseen = 0
    for row, (ids, confidence) in enumerate(zip(found.ids, found.confidence, strict=True)):
        seen = np.isin(np.arange(len(ids)), rows.targets[row])
        assert (np.isnan(confidence) == ~seen).all() and (confidence[seen] > 1 / 3).all()
        assert all(token_corpus.labels[label] == "O" for label in ids[~seen])
        unseen += (~seen).sum()
    assert unseen > 0


def test_divergence_is_that_of_the_formula():
    one, other = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    (found,) = divergences(*(Predictions([np.array([0])], [np.log(odds)]) for odds in (one, other)))
    assert found == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
