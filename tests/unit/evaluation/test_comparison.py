"""What tells a difference from chance, against counts by hand and simulation."""

import numpy as np
import pytest
from scipy.stats import binom, ttest_ind

from kdray.evaluation.comparison import interval, lost_by_chance, mcnemar, paired, told
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
    assert -0.04 < difference["low"] < 0.04 < difference["high"] < 0.12
    assert difference["low"] + difference["high"] == pytest.approx(0.08)


def test_one_pair_has_no_interval():
    gold = np.tile([0, 1], 50)
    found = paired(TASK, "accuracy", one_each(gold), [(3, flipped(gold, 4), flipped(gold, 5))], LABELS)["difference"]
    assert found == {"mean": pytest.approx(0.01), "deviation": None, "low": None, "high": None}


def test_the_interval_of_a_difference_is_paired_over_rows():
    """Models that err on the same rows differ by little, however uncertain the value of each."""
    gold = np.tile([0, 1], 50)
    same, apart = (paired(TASK, "accuracy", one_each(gold), [
        (seed, flipped(gold, 30), flipped(gold, 31, first)) for seed in range(3)], LABELS)["difference"]
        for first in (0, 40))
    assert same["mean"] == pytest.approx(apart["mean"])
    assert same["high"] - same["low"] < 0.3 * (apart["high"] - apart["low"])


def test_the_interval_of_seeds_without_rows_is_that_of_a_t_test():
    winner, baseline = np.array([0.9, 0.92, 0.91]), np.array([0.88, 0.85, 0.9])
    found = interval(winner, baseline, np.tile(winner - baseline, (9, 1)))
    welch, alike = (ttest_ind(winner, baseline, equal_var=equal).confidence_interval(0.95) for equal in (False, True))
    assert welch.low < found["low"] < alike.low and alike.high < found["high"] < welch.high
    baseline = winner[::-1] - 0.05
    same = interval(winner, baseline, np.tile(winner - baseline, (9, 1)))
    assert (same["low"], same["high"]) == pytest.approx(ttest_ind(winner, baseline).confidence_interval(0.95))


@pytest.mark.parametrize("seeds, least", [(2, 0.91), (3, 0.93), (5, 0.93)])
@pytest.mark.parametrize("together", [0.0, 0.5, 2.0])
def test_the_interval_holds_what_is_so_as_often_as_it_says(seeds, least, together):
    """Seeds vary by 1, rows that all seeds share by `together`, and one side varies half as much as the other."""
    random, held = np.random.default_rng(0), 0
    for _ in range(2000):
        shift = together * random.normal()
        winner, baseline = random.normal(shift, 0.5, seeds), random.normal(0, 1, seeds)
        drawn = together * random.normal(0, 1, (100, 1)) + random.normal(0, 0.1, (100, seeds))
        found = interval(winner, baseline, drawn)
        held += found["low"] <= 0 <= found["high"]
    assert least <= held / 2000 <= 0.97


def seeds_of(low: float | None, high: float | None, pairs: int = 3, asked: int = 3) -> dict:
    return {"asked": asked, "pairs": [{}] * pairs, "difference": {"mean": 0.0015, "low": low, "high": high}}


@pytest.mark.parametrize("seeds, words", [
    (seeds_of(-0.0048, 0.0075), "Gain of distillation on 3 seeds that the sweep has not seen: +0.15 points of test "
     "accuracy [-0.48, 0.75], which may be chance"),
    (seeds_of(0.001, 0.002, 2, 3), "Gain of distillation on 2 seeds that the sweep has not seen (1 more failed): +0.15 "
     "points of test accuracy [0.10, 0.20]"),
    (seeds_of(None, None, 1, 1), "Gain of distillation on 1 seed that the sweep has not seen: +0.15 points of test "
     "accuracy. One seed does not say how far chance goes; 3 or more do (search.seeds)"),
])
def test_a_gain_is_told_with_its_interval_and_as_chance_where_it_may_be(seeds, words):
    assert told(seeds, "accuracy") == words
