"""A cut is seeded, stratified, exact, and keeps equal texts together."""

from collections import Counter

import numpy as np
import pytest

from kdray.corpus.splits import cut
from kdray.errors import DataError


def rows(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    random = np.random.default_rng(seed)
    return list(random.choice(["a", "b", "c"], count, p=[0.6, 0.3, 0.1])), [f"text {i}" for i in range(count)]


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
    strata = ["common"] * 100 + [f"rare {i}" for i in range(20)]
    _, off = cut(strata, [str(i) for i in range(120)], 0.1, 0)
    assert sum(strata[i] != "common" for i in off) == 2


def test_a_lone_rare_stratum_is_no_obstacle():
    kept, off = cut(["common"] * 50 + ["lone"], [str(i) for i in range(51)], 0.2, 0)
    assert len(kept) + len(off) == 51 and len(off) == 11


@pytest.mark.parametrize("texts", [["same"] * 40, ["one"]])
def test_too_few_distinct_rows_are_refused(texts):
    with pytest.raises(DataError, match="cannot cut 10% off 1 distinct rows"):
        cut(["a"] * len(texts), texts, 0.1, 0)
