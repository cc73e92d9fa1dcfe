"""Batches hold every row once and stay within their tokens."""

import numpy as np
import pytest

from kdray.corpus.grouping import length_batches


@pytest.mark.parametrize("max_tokens", [1, 16, 50, 128, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_batches_hold_every_row_once_longest_first_within_the_limit(max_tokens, seed):
    lengths = np.random.default_rng(seed).integers(1, 50, 200)
    batches = length_batches(lengths, max_tokens)
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= max_tokens for batch in batches)
    assert np.all(np.diff([lengths[i] for batch in batches for i in batch]) <= 0)


def test_a_batch_is_as_full_as_it_may_be():
    assert [len(batch) for batch in length_batches(np.array([4, 4, 4, 4, 4]), 12)] == [3, 2]


def test_a_batch_ends_early_rather_than_pad_much_but_never_before_a_quarter_of_its_tokens():
    lengths = np.array([20] * 10 + [19] * 5 + [10] * 30)
    assert [len(batch) for batch in length_batches(lengths, 800)] == [15, 30]
    assert [len(batch) for batch in length_batches(np.array([20, 10, 10, 10]), 800)] == [4]


def test_a_row_longer_than_the_limit_is_a_batch_of_its_own():
    assert [batch.tolist() for batch in length_batches(np.array([2, 90, 2]), 8)] == [[1], [0, 2]]


def test_no_rows_are_no_batches_and_empty_rows_are_rows():
    assert length_batches(np.array([], int), 8) == []
    assert sorted(np.concatenate(length_batches(np.array([0, 0, 3]), 8))) == [0, 1, 2]
