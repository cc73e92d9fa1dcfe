"""Caches of vectors: pairs are two rows, truth is what the teacher says, ensembles are of one width."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdray.cache.ensemble import make_ensemble, open_cache
from kdray.cache.summary import summarise
from kdray.cache.truth import truth
from kdray.config import CacheConfig
from kdray.errors import CacheError, DataError
from kdray.models.folder import label_order
from kdray.tasks import TASKS
from tests.small import make_embedder, sentences
from tests.unit.conftest import Corpus, make_cache, make_corpus

TASK = TASKS["sentence-embedding"]


def rows(count: int) -> list[dict[str, Any]]:
    """Pairs with a score, but for every third: a text alone."""
    texts = [row["text"] for row in sentences(2 * count)]
    return [{"text": texts[2 * place], "text_pair": texts[2 * place + 1] if place % 3 else None,
             "score": str(place % 5) if place % 3 else None} for place in range(count)]


def corpus_of(folder: Path, model: Path, **settings: Any) -> Corpus:
    return make_corpus(folder / "store", TASK.name, rows(90), model, order=label_order(model, TASK), **settings)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("vectors")
    return corpus_of(folder, make_embedder(folder / "teacher", layers=1), phrases=1)


@pytest.fixture(scope="module")
def cache(corpus: Corpus) -> dict[str, Any]:
    return make_cache(corpus, "float16")


def test_a_pair_is_two_rows_and_its_first_has_the_score(corpus: Corpus) -> None:
    made, train = corpus.manifest, corpus.rows("train")
    assert made["labels"] == [str(number) for number in range(32)] and len(train) == made["rows"]["train"] > 72
    scores = np.array(train.gold((1,)))[:, 0, 0]
    alone = sum(made["rows"][split] for split in ("train", "validation", "test")) - 2 * 60
    assert alone == 30 and (~np.isnan(scores)).sum() + np.isnan(scores).sum() == len(train)
    assert not (~np.isnan(scores[:-1]) & ~np.isnan(scores[1:])).any() and np.isnan(scores[-1])
    assert made["rows"]["transfer"] == made["rows"]["train"] and np.isnan(corpus.rows("transfer").gold((1,))).all()
    assert all(isinstance(item, str) for item in train.items(TASK))


def test_truth_is_the_score_and_the_teacher_s_vector(corpus: Corpus, cache: dict[str, Any]) -> None:
    found = truth(corpus.store, corpus.manifest, "test", cache["key"])
    soft, gold = open_cache(corpus.store, cache["key"], "test"), corpus.rows("test").gold((1,))
    assert len(found) == len(soft)
    for row, part in enumerate(found):
        assert np.array_equal(part[:, 1:], soft[row][1]) and np.array_equal(part[:, :1], gold[row], equal_nan=True)


def test_what_a_teacher_says_is_summed_up(corpus: Corpus, cache: dict[str, Any]) -> None:
    seen = summarise(corpus.store, cache, "train")
    assert seen is not None and seen.summary.facts["length"] == pytest.approx(1, abs=1e-3)
    assert sum(seen.summary.counts) == seen.targets - 1


def test_members_of_another_width_are_refused(corpus: Corpus, cache: dict[str, Any], tmp_path: Path) -> None:
    wide = corpus_of(tmp_path, make_embedder(tmp_path / "wide", layers=1, hidden=16), phrases=1)
    other = make_cache(wide)
    kept = wide.store.manifest("caches", other["key"])
    assert kept is not None
    corpus.store.seal("caches", other["key"], kept)
    with pytest.raises(CacheError, match="says of a row is 16 numbers, not 32"):
        make_ensemble(corpus.store, cache["key"], CacheConfig(ensemble=[other["key"]]))


def test_members_of_another_space_are_refused_and_those_of_one_are_averaged(
        corpus: Corpus, cache: dict[str, Any], tmp_path: Path) -> None:
    stranger = make_cache(corpus, teacher=make_embedder(tmp_path / "other", layers=1, seed=9))
    with pytest.raises(CacheError, match="of another space than those of"):
        make_ensemble(corpus.store, cache["key"], CacheConfig(ensemble=[stranger["key"]]))
    again = make_cache(corpus, teacher=corpus.model)
    made = make_ensemble(corpus.store, cache["key"], CacheConfig(ensemble=[again["key"]]))
    one, both = (open_cache(corpus.store, key, "test")[3][1] for key in (cache["key"], made["key"]))
    assert np.allclose(one, both, atol=1e-3)


def test_a_score_of_one_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1 of the train split: score 3 is of one text"):
        make_corpus(tmp_path, TASK.name, [{"text": "a", "score": None}, {"text": "b", "score": "3"}] * 10,
                    make_embedder(tmp_path / "teacher", layers=1), order=["0"])
