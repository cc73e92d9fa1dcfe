"""A cut is seeded, stratified, exact, keeps equal texts together, and a row of every label in train."""

from collections import Counter

import numpy as np
import pytest

from kdray.corpus import splits
from kdray.errors import DataError


def rows(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    random = np.random.default_rng(seed)
    return list(random.choice(["a", "b", "c"], count, p=[0.6, 0.3, 0.1])), [f"text {i}" for i in range(count)]


def cut(strata: list[str], texts: list[str], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A cut of rows whose strata are their labels."""
    return splits.cut(strata, [[name] for name in strata], texts, share, seed)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_every_row_is_on_one_side_and_strata_keep_their_shares(share):
    strata, texts = rows(400)
    kept, off = cut(strata, texts, share, 0)
    assert sorted([*kept, *off]) == list(range(400))
    assert list(kept) == sorted(kept) and list(off) == sorted(off)
    counts, cut_off = Counter(strata), Counter(strata[i] for i in off)
    assert all(abs(cut_off[name] - share * count) <= 1 for name, count in counts.items())


def test_a_cut_depends_on_its_seed_alone():
    strata, texts = rows(200)
    first = cut(strata, texts, 0.2, 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, cut(strata, texts, 0.2, 1), strict=True))
    assert not np.array_equal(first[1], cut(strata, texts, 0.2, 2)[1])


@pytest.mark.parametrize("seed", range(5))
def test_equal_texts_never_cross(seed):
    strata, _ = rows(300, seed)
    texts = [f"text {i}" for i in np.random.default_rng(seed).integers(0, 120, 300)]
    kept, off = cut(strata, texts, 0.2, seed)
    assert not {texts[i] for i in kept} & {texts[i] for i in off}
    assert len(kept) + len(off) == 300
    assert len({texts[i] for i in off}) == pytest.approx(0.2 * len(set(texts)), abs=1)


def test_rare_strata_are_cut_as_one():
    strata = ["common"] * 100 + [f"rare {i}" for i in range(20) for _ in range(5)]
    _, off = cut(strata, [str(i) for i in range(200)], 0.1, 0)
    assert sum(strata[i] != "common" for i in off) == 10


def test_a_lone_row_of_a_label_stays():
    strata = ["common"] * 100 + [f"rare {i}" for i in range(20)]
    _, off = cut(strata, [str(i) for i in range(120)], 0.1, 0)
    assert len(off) == 10 and not any(strata[i] != "common" for i in off)
    kept, off = cut(["common"] * 50 + ["lone"], [str(i) for i in range(51)], 0.2, 3)
    assert len(kept) + len(off) == 51 and 50 in kept


def test_equal_texts_go_back_together():
    strata = ["common"] * 40 + ["twin"] * 2
    for seed in range(20):
        kept, _ = cut(strata, [*(str(i) for i in range(40)), "same", "same"], 0.5, seed)
        assert {40, 41} <= set(kept)


@pytest.mark.parametrize("seed", range(20))
def test_every_label_of_a_sentence_is_in_train_whatever_its_stratum(seed):
    random = np.random.default_rng(seed)
    labels = [sorted(set(random.choice([f"B-{kind}" for kind in range(12)], random.integers(1, 4)))) for _ in range(60)]
    kept, off = splits.cut(["+".join(names) for names in labels], labels, [str(i) for i in range(60)], 0.4, seed)
    there = {name for row in kept for name in labels[row]}
    assert len(off) > 0 and {name for row in off for name in labels[row]} <= there


@pytest.mark.parametrize("labels, count", [(150, 3_000), (1_000, 30_000)])
@pytest.mark.parametrize("seed", range(10))
def test_zipf_labels_are_cut_twice_and_train_keeps_each(labels, count, seed):
    share = 1 / np.arange(1, labels + 1)
    drawn = [str(name) for name in np.random.default_rng(seed).choice(labels, count, p=share / share.sum())]
    assert min(Counter(drawn).values()) == 1
    kept, test = cut(drawn, [str(row) for row in range(count)], 0.1, seed)
    rest = [drawn[row] for row in kept]
    train, validation = cut(rest, [str(row) for row in kept], 0.1 / 0.9, seed)
    for part in ([rest[row] for row in validation], [drawn[row] for row in test]):
        assert set(part) <= {rest[row] for row in train}
        assert 0.09 * count < len(part) <= 0.1 * count + 1


def test_more_strata_than_the_share_has_rows_are_no_obstacle():
    strata = [str(i // 10) for i in range(1000)]
    kept, off = cut(strata, [str(i) for i in range(1000)], 0.05, 0)
    assert len(off) == 50 and {strata[i] for i in off} <= {strata[i] for i in kept}


def test_rows_with_a_label_each_are_refused():
    with pytest.raises(DataError, match="cannot cut 10% off 40 distinct rows: each has a label of its own"):
        cut([str(i) for i in range(40)], [str(i) for i in range(40)], 0.1, 0)


@pytest.mark.parametrize("texts", [["same"] * 40, ["one"]])
def test_too_few_distinct_rows_are_refused(texts):
    with pytest.raises(DataError, match="cannot cut 10% off 1 distinct rows"):
        cut(["a"] * len(texts), texts, 0.1, 0)
