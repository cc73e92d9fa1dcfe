"""An ensemble is the mean of its members, as an independent formula has it, and refuses members of other rows."""

import shutil

import numpy as np
import pytest
import torch

from kdray.cache.ensemble import make_ensemble, open_cache
from kdray.cache.manifest import find_cache
from kdray.cache.reader import SoftTargets
from kdray.config import CacheConfig
from kdray.errors import CacheError
from tests.small import make_model, sentences
from tests.unit.conftest import Corpus, make_cache, make_corpus


@pytest.fixture(scope="module")
def pair(tmp_path_factory, model_folder):
    """A corpus with two caches of it, by two teachers."""
    folder = tmp_path_factory.mktemp("ensemble")
    corpus = make_corpus(folder / "store", "sequence-classification", sentences(60), model_folder)
    other = make_model(folder / "other", seed=7)
    return corpus, make_cache(corpus), make_cache(corpus, teacher=other)


def ensemble(corpus: Corpus, own: dict, *others: str, **settings):
    made = make_ensemble(corpus.store, own["key"], CacheConfig(ensemble=list(others), **settings))
    return made, lambda temperature=1.0: open_cache(corpus.store, made["key"], "train", temperature)


def logits(corpus: Corpus, cache: dict, row: int) -> torch.Tensor:
    return torch.from_numpy(SoftTargets(corpus.store, cache["key"], "train")[row][1].copy()).double()


def test_the_mean_of_logits_is_weighed(pair):
    corpus, one, two = pair
    made, opened = ensemble(corpus, one, two["key"], weights=[3, 1])
    for row in (0, 17, 33):
        units, found = opened()[row]
        wanted = 0.75 * logits(corpus, one, row) + 0.25 * logits(corpus, two, row)
        assert units.tolist() == [0] and np.allclose(found, wanted, atol=1e-6) and found.dtype == np.float32
    assert made["shards"] == one["shards"] + two["shards"] and made["teacher_seconds"] == one["teacher_seconds"] * 2
    assert made["parents"]["caches"] == [one["key"], two["key"]]


@pytest.mark.parametrize("temperature", [1, 4])
def test_the_mean_of_probabilities_is_that_at_the_temperature(pair, temperature):
    corpus, one, two = pair
    _, opened = ensemble(corpus, one, two["key"], mean="probabilities")
    soft = opened(temperature)
    for row in (0, 5, 40):
        softened = [(logits(corpus, cache, row) / temperature).softmax(-1) for cache in (one, two)]
        found = (torch.from_numpy(soft[row][1]).double() / temperature).softmax(-1)
        assert torch.allclose(found, sum(softened) / 2, atol=1e-6)


def test_the_same_members_are_the_same_ensemble_and_other_weights_another(pair):
    corpus, one, two = pair
    keys = {ensemble(corpus, one, two["key"], **settings)[0]["key"] for settings in (
        {}, {"weights": [2, 2]}, {"weights": [2, 1]}, {"mean": "probabilities"})}
    assert len(keys) == 3


def test_labels_in_another_order_are_put_into_that_of_the_first(pair, tmp_path):
    corpus, one, _ = pair
    turned = make_corpus(tmp_path, "sequence-classification", sentences(60), corpus.model,
                         order=list(reversed(corpus.labels)))
    two = make_cache(Corpus(corpus.store, _copied(turned, corpus), corpus.model, corpus.task))
    _, opened = ensemble(corpus, one, two["key"])
    row = 3
    wanted = (logits(corpus, one, row) + logits(corpus, two, row).flip(-1)) / 2
    assert np.allclose(opened()[row][1], wanted, atol=1e-6)


def _copied(turned: Corpus, corpus: Corpus) -> dict:
    shutil.copytree(turned.folder, corpus.store.path("corpus", turned.manifest["key"]), dirs_exist_ok=True)
    return turned.manifest


def test_members_of_other_rows_or_labels_or_that_are_not_there_are_refused(pair, tmp_path):
    corpus, one, _ = pair
    other = make_corpus(tmp_path, "sequence-classification", sentences(60, seed=9), corpus.model)
    moved = Corpus(corpus.store, _copied(other, corpus), corpus.model, corpus.task)
    with pytest.raises(CacheError, match=r"the train split of cache .* has other rows than that of"):
        ensemble(corpus, one, make_cache(moved)["key"])
    with pytest.raises(CacheError, match="no cache begins with 'zz'"):
        ensemble(corpus, one, "zz")
    made, _ = ensemble(corpus, one, one["key"])
    with pytest.raises(CacheError, match="is an ensemble itself; name its members"):
        ensemble(corpus, one, made["key"])


def test_a_cache_is_found_by_the_beginning_of_its_key(pair):
    corpus, one, _ = pair
    assert find_cache(corpus.store, one["key"][:10]) == one["key"]
    with pytest.raises(CacheError, match=r"\d caches begin with ''"):
        find_cache(corpus.store, "")
