"""What tells a difference from chance, against counts by hand and simulation."""

import numpy as np
import pytest
from scipy.stats import binom

from kdray.evaluation.comparison import lost_by_chance, mcnemar, paired
from kdray.tasks import TASKS

TASK, LABELS = TASKS["sequence-classification"], ["a", "b"]


def one_each(ids: np.ndarray) -> list[np.ndarray]:
    return [np.array([label]) for label in ids]


def flipped(gold: np.ndarray, wrong: int, first: int = 0) -> list[np.ndarray]:
    """Ids that are wrong on `wrong` rows from `first`."""
    found = gold.copy()
    found[first:first + wrong] = 1 - found[first:first + wrong]
    return one_each(found)


def test_mcnemar_counts_the_rows_that_one_alone_has_right():
    gold = np.zeros(20, int)
    found = mcnemar(one_each(gold), flipped(gold, 1), flipped(gold, 10))
    assert found == {"both": 10, "winner": 9, "baseline": 0, "neither": 1, "p": pytest.approx(2 * 0.5**9)}


def test_mcnemar_of_equal_models_is_chance():
    gold = np.zeros(5, int)
    assert mcnemar(one_each(gold), flipped(gold, 2), flipped(gold, 2))["p"] == 1
    assert mcnemar(one_each(gold), flipped(gold, 2), flipped(gold, 2, 2))["p"] == 1


def test_a_sentence_is_right_where_all_its_words_are():
    gold = [np.array([0, 1]), np.array([1, 1])]
    found = mcnemar(gold, gold, [np.array([0, 1]), np.array([1, 0])])
    assert (found["both"], found["winner"], found["baseline"], found["neither"]) == (1, 1, 0, 0)


def test_mcnemar_rejects_as_often_as_it_says():
    random = np.random.default_rng(0)
    gold = np.zeros(60, int)
    low = 0
    for _ in range(300):
        winner, baseline = (one_each((random.random(60) < 0.2).astype(int)) for _ in range(2))
        low += mcnemar(one_each(gold), winner, baseline)["p"] < 0.05
    assert low <= 0.05 * 300


@pytest.mark.parametrize("only_one, only_other", [(6, 0), (8, 2), (3, 3), (0, 0), (0, 4)])
def test_of_accuracy_the_permutation_test_is_mcnemar_s(only_one, only_other):
    gold = np.zeros(40, int)
    one, other = flipped(gold, only_other), flipped(gold, only_one, 20)
    exact = binom.sf(only_one - 1, only_one + only_other, 0.5)
    assert lost_by_chance(TASK, "accuracy", one_each(gold), one, other, LABELS) == pytest.approx(exact, abs=0.02)


def test_a_loss_of_nothing_is_chance_as_often_as_it_says(monkeypatch):
    """Entity F1, where rows do not add up: two equal models, 200 times."""
    monkeypatch.setattr("kdray.evaluation.comparison._SWAPS", 100)
    task, labels, random = TASKS["token-classification"], ["O", "B-X", "I-X"], np.random.default_rng(1)
    low = 0
    for _ in range(200):
        gold = [random.integers(0, 3, 6) for _ in range(40)]
        one, other = ([np.where(random.random(6) < 0.1, random.integers(0, 3, 6), row) for row in gold]
                      for _ in range(2))
        low += lost_by_chance(task, "f1", gold, one, other, labels) < 0.05
    assert low <= 0.05 * 200 + 6


def test_pairs_have_mean_and_deviation_of_their_differences():
    gold = np.tile([0, 1], 50)
    pairs = [(seed, flipped(gold, better), flipped(gold, worse)) for seed, better, worse in
             ((3, 4, 10), (4, 6, 10), (5, 8, 10))]
    found = paired(TASK, "accuracy", one_each(gold), pairs, LABELS)
    assert found["pairs"][0] == {"seed": 3, "winner": pytest.approx(0.96), "baseline": pytest.approx(0.9)}
    assert found["winner"] == pytest.approx({"mean": 0.94, "deviation": 0.02})
    assert found["baseline"] == pytest.approx({"mean": 0.9, "deviation": 0})
    difference = found["difference"]
    assert (difference["mean"], difference["deviation"]) == (pytest.approx(0.04), pytest.approx(0.02))
    assert 0 < difference["low"] < 0.04 < difference["high"] < 0.1


def test_the_interval_of_a_difference_is_paired_over_rows():
    """Two models that err on the same rows differ by little, however uncertain the value of each."""
    gold = np.tile([0, 1], 50)
    same = paired(TASK, "accuracy", one_each(gold), [(0, flipped(gold, 30), flipped(gold, 31))], LABELS)["difference"]
    apart = paired(TASK, "accuracy", one_each(gold), [(0, flipped(gold, 30), flipped(gold, 31, 40))],
                   LABELS)["difference"]
    assert same["mean"] == pytest.approx(apart["mean"]) and same["deviation"] is None
    assert same["high"] - same["low"] < 0.3 * (apart["high"] - apart["low"])
