"""A teacher whose label map is not the data's is told apart from one that errs."""

import numpy as np
import pytest

from kdray.errors import ModelError
from kdray.outputs.labelmap import check_label_map

LABELS = ("business", "politics", "sport")


def drawn(count: int, accuracy: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    gold = random.integers(0, 3, count)
    return gold, np.where(random.random(count) < accuracy, gold, random.integers(0, 3, count))


def check(gold, predicted, labels=LABELS) -> None:
    check_label_map(list(gold), list(predicted), labels)


@pytest.mark.parametrize("accuracy", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_teacher_that_is_right_more_often_than_chance_passes(accuracy, seed):
    check(*drawn(300, accuracy, seed))


@pytest.mark.parametrize("order", [[1, 0, 2], [1, 2, 0], [2, 1, 0], [0, 2, 1], [2, 0, 1]])
def test_a_permuted_map_is_named_with_the_better_accuracy(order):
    gold, predicted = drawn(300, 0.9)
    with pytest.raises(ModelError, match=r"label map disagrees.*with its labels permuted 0\.9") as error:
        check(gold, np.array(order)[predicted])
    moved = [index for index, to in enumerate(order) if to != index]
    assert all(f"{LABELS[i]} is what it calls {LABELS[order[i]]}" in str(error.value) for i in moved)


def test_two_swapped_labels_are_found():
    gold = np.random.default_rng(0).integers(0, 2, 200)
    with pytest.raises(ModelError, match=r"with its labels permuted 1.000"):
        check(gold, 1 - gold, ("neg", "pos"))


@pytest.mark.parametrize("predicted", [np.zeros(300, int), np.tile([0, 1, 2], 100)], ids=["constant", "independent"])
def test_a_teacher_at_chance_is_refused(predicted):
    with pytest.raises(ModelError, match=r"no better than chance.*0.333"):
        check(np.repeat([0, 1, 2], 100), predicted)


@pytest.mark.parametrize("share", [0.55, 0.7, 0.85])
def test_the_largest_class_said_of_every_row_is_chance(share):
    gold = np.arange(300) >= round(300 * share)
    with pytest.raises(ModelError, match=rf"no better than chance.* is {share:.3f}, chance is {share:.3f}"):
        check(gold.astype(int), np.zeros(300, int), ("neg", "pos"))


def test_the_largest_of_many_classes_said_of_every_row_is_chance():
    gold = np.minimum(np.random.default_rng(0).zipf(1.5, 200), 150) - 1
    with pytest.raises(ModelError, match="no better than chance"):
        check(gold, np.zeros(200, int), tuple(map(str, range(150))))


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("share", [0.7, 0.9])
def test_a_teacher_that_knows_a_third_of_the_small_class_passes(share, seed):
    random = np.random.default_rng(seed)
    for count in (100, 300, 512):
        gold = (random.random(count) >= share).astype(int)
        check(gold, np.where(random.random(count) < 0.35, gold, 0), ("neg", "pos"))


@pytest.mark.parametrize("right", [1.0, 0.9])
def test_data_in_the_order_of_its_labels_condemns_no_sound_teacher(right):
    predicted = (np.random.default_rng(0).random(512) >= right).astype(int)
    check(np.zeros(512, int), predicted, ("neg", "pos"))
    with pytest.raises(ModelError, match="no better than chance"):
        check(np.zeros(512, int), np.ones(512, int), ("neg", "pos"))


@pytest.mark.parametrize("count", [0, 1, 99])
def test_too_few_labels_say_nothing(count):
    gold = np.arange(count) % 3
    check(gold, (gold + 1) % 3)


def test_swapped_entities_are_found_behind_the_words_outside():
    random = np.random.default_rng(0)
    gold = random.choice(4, 400, p=[0.85, 0.05, 0.05, 0.05])
    with pytest.raises(ModelError, match=r"B-PER is what it calls B-LOC, B-LOC is what it calls B-PER"):
        check(gold, np.array([0, 2, 1, 3])[gold], ("O", "B-PER", "B-LOC", "B-ORG"))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("labels, accuracy", [(77, 0.5), (150, 0.7)])
def test_many_labels_and_few_rows_do_not_condemn_a_sound_teacher(labels, accuracy, seed):
    random = np.random.default_rng(seed)
    gold = random.integers(0, labels, 100)
    predicted = np.where(random.random(100) < accuracy, gold, random.integers(0, labels, 100))
    check(gold, predicted, tuple(map(str, range(labels))))
