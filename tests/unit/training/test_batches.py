"""A step's rows are the same for any number of workers, and every target counts once."""

from collections import Counter

import numpy as np
import pytest
import torch

from kdray.cache.reader import SoftTargets
from kdray.outputs import Choice
from kdray.training.batches import Batches, epoch_plan, worker_share
from tests.unit.cache.test_reader import publish

LENGTHS = np.random.default_rng(0).integers(3, 120, 1003)


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1003, 5000])
def test_an_epoch_has_every_row_once_in_steps_of_the_batch_size(batch_size):
    plan = epoch_plan(LENGTHS, batch_size, 0, 1)
    assert sorted(np.concatenate(plan)) == list(range(1003))
    assert len(plan) == -(-1003 // batch_size)
    assert sorted(len(step) for step in plan)[1:] == [batch_size] * (len(plan) - 1)


def test_an_epoch_is_that_of_its_seed_and_number():
    plan = epoch_plan(LENGTHS, 16, 3, 2)
    assert same(plan, epoch_plan(LENGTHS, 16, 3, 2))
    assert not same(plan, epoch_plan(LENGTHS, 16, 3, 1))
    assert not same(plan, epoch_plan(LENGTHS, 16, 4, 2))


def test_rows_of_a_step_have_similar_lengths_and_steps_are_shuffled():
    plan = epoch_plan(LENGTHS, 16, 0, 1)
    random = np.random.default_rng(0).permutation(1003)
    spread = np.mean([np.ptp(LENGTHS[step]) for step in plan])
    shuffled = np.mean([np.ptp(LENGTHS[random[i:i + 16]]) for i in range(0, 1003, 16)])
    assert spread < shuffled / 10
    means = [LENGTHS[step].mean() for step in plan]
    assert means != sorted(means)
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5


@pytest.mark.parametrize("rows", [1, 3, 8, 31])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_every_row_of_a_step_has_one_taker(rows, workers, accumulation):
    step = np.arange(100, 100 + rows)
    shares = [worker_share(step, worker, workers, micro, accumulation)
              for worker in range(workers) for micro in range(accumulation)]
    assert sorted(np.concatenate(shares)) == list(step)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.fixture(scope="module")
def targets(token_corpus):
    """Batches of the token corpus with soft targets: 3 numbers that tell row and unit."""
    rows = token_corpus.rows("train")
    logits = [np.stack([[row, unit, 1.0] for unit in rows.targets[row]]).astype(np.float32) for row in range(len(rows))]
    units = [rows.targets[row] for row in range(len(rows))]
    return rows, logits, units, publish(token_corpus.store, "whole", logits, units)


def soft_batches(token_corpus, key: str) -> Batches:
    return Batches(token_corpus.rows("train"), SoftTargets(token_corpus.store, key, "train"), Choice(), 3, 0)


@pytest.mark.parametrize("workers, accumulation", [(1, 1), (2, 1), (1, 3), (3, 2), (5, 5)])
def test_the_batches_of_a_step_hold_each_target_once_and_weigh_one_in_all(token_corpus, targets, workers, accumulation):
    batches, step = soft_batches(token_corpus, targets[3]), np.array([4, 0, 9, 17, 23, 2, 30])
    rows = targets[0]
    seen, weight = Counter(), 0.0
    for worker in range(workers):
        for micro in range(accumulation):
            batch = batches.batch(step, worker, workers, micro, accumulation)
            weight += batch.share * len(batch.labels)
            assert batch.known.all() and len(batch.labels) == len(batch.soft) == len(batch.inputs.row)
            if batch.share:
                seen.update((int(row), int(unit), int(label)) for (row, unit, _), label in
                            zip(batch.soft, batch.labels, strict=True))
    assert seen == Counter((row, unit, rows.labels[row][unit]) for row in step for unit in rows.targets[row])
    assert weight == pytest.approx(1)


def test_a_worker_without_a_row_gets_a_filler_that_weighs_nothing(token_corpus, targets):
    batch = soft_batches(token_corpus, targets[3]).batch(np.array([4]), 1, 2, 0, 1)
    assert batch.share == 0 and len(batch.labels) > 0


def test_soft_targets_of_a_teacher_with_fewer_or_other_words_are_aligned(token_corpus, targets):
    _, logits, units, _ = targets
    kept = [np.flatnonzero(np.arange(len(part)) % 2 == row % 2) for row, part in enumerate(units)]
    part = publish(token_corpus.store, "part", [logits[row][keep] for row, keep in enumerate(kept)],
                   [units[row][keep] for row, keep in enumerate(kept)])
    step = np.array([4, 0, 9, 17])
    batch = soft_batches(token_corpus, part).batch(step, 0, 1, 0, 1)
    expected_known = np.concatenate([np.isin(units[row], units[row][kept[row]]) for row in step])
    expected = np.concatenate([logits[row] for row in step]) * expected_known[:, None]
    assert batch.known.tolist() == expected_known.tolist() and 0 < expected_known.sum() < len(expected_known)
    assert np.array_equal(batch.soft.numpy(), expected)


def test_soft_targets_of_words_that_the_student_does_not_see_are_left_out(token_corpus, targets):
    rows, logits, units, _ = targets
    more = [np.concatenate([units[row], [77]]) for row in range(len(rows))]
    longer = [np.concatenate([logits[row], [[-1, -1, -1]]]).astype(np.float32) for row in range(len(rows))]
    key = publish(token_corpus.store, "more", longer, more)
    step = np.array([4, 0, 9])
    batch = soft_batches(token_corpus, key).batch(step, 0, 1, 0, 1)
    assert batch.known.all()
    assert np.array_equal(batch.soft.numpy(), np.concatenate([logits[row] for row in step]))


def test_without_soft_targets_nothing_is_known(corpus):
    batch = Batches(corpus.rows("train"), None, Choice(), 2, 0).batch(np.array([1, 5]), 0, 1, 0, 1)
    assert not batch.known.any() and torch.equal(batch.soft, torch.zeros(2, 2))
    assert batch.labels.tolist() == [corpus.rows("train").labels[row][0] for row in (1, 5)]
    assert batch.share == 0.5
