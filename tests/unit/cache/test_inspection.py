"""What is said of a cache is what scikit-learn and torch say of its logits; a difference is seen."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from kdray.cache.difference import fields_apart, logits_apart, shards_shared
from kdray.cache.reader import SoftTargets
from kdray.cache.summary import summarise
from kdray.inspection import size
from tests.unit.conftest import make_cache


def logits(corpus, cache, split="train") -> torch.Tensor:
    soft = SoftTargets(corpus.store, cache["key"], split)
    return torch.from_numpy(np.concatenate([soft[row][1] for row in range(len(soft))])).double()


def gold(corpus) -> np.ndarray:
    rows = corpus.rows("train")
    return np.concatenate([rows.labels[row][rows.targets[row]] for row in range(len(rows))])


@pytest.mark.parametrize("name", ["corpus", "token_corpus"])
def test_a_summary_is_that_of_all_targets(request, name):
    corpus = request.getfixturevalue(name)
    cache = make_cache(corpus)
    found, z, truth = summarise(corpus.store, cache, "train"), logits(corpus, cache), gold(corpus)
    likely, decided = z.softmax(-1), z.argmax(-1).numpy()
    assert (found.rows, found.targets) == (cache["rows"]["train"], len(truth))
    assert found.summary.facts == pytest.approx({
        "agreement with the labels": accuracy_score(truth, decided),
        "mean entropy, nats": float(torch.distributions.Categorical(likely).entropy().mean()),
        "mean confidence": float(likely.max(-1).values.mean())})
    assert sum(found.summary.counts) == len(truth)
    assert [name for name, _, _ in found.summary.lines] == corpus.labels
    for label, (_, count, (agreement, _)) in enumerate(found.summary.lines):
        mine = truth == label
        assert count == mine.sum() and agreement == pytest.approx((decided[mine] == label).mean() if count else 0)


def test_a_summary_of_very_many_shards_is_of_evenly_spaced_ones(corpus, cache, monkeypatch):
    monkeypatch.setattr("kdray.cache.summary._SHARDS", 3)
    assert summarise(corpus.store, cache, "train").rows == 16 * 3


def test_a_cache_differs_from_itself_in_nothing(corpus, cache):
    assert fields_apart(cache, cache) == {}
    assert shards_shared(corpus.store, cache, cache) == (cache["shards"], 0, 0)
    apart = logits_apart(corpus.store, cache, cache, "train")
    assert (apart.rows, apart.largest, apart.agreement, apart.kl) == (cache["rows"]["train"], 0, 1, 0)


def test_the_difference_of_a_codec_is_that_of_the_logits(token_corpus):
    one, two = make_cache(token_corpus), make_cache(token_corpus, codec="int8")
    assert fields_apart(one, two) == {"codec": ("float32", "int8")}
    assert shards_shared(token_corpus.store, one, two) == (0, one["shards"], two["shards"])
    apart = logits_apart(token_corpus.store, one, two, "train")
    before, after = logits(token_corpus, one), logits(token_corpus, two)
    assert apart.largest == pytest.approx(float((before - after).abs().max())) and apart.largest > 0
    kl = torch.nn.functional.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="sum")
    assert apart.kl == pytest.approx(float(kl) / len(before))
    assert two["codec_error"]["largest_logit"] >= apart.largest and one["codec_error"]["kl"]["1"] == 0


def test_other_labels_cannot_be_compared(corpus, cache):
    turned = {**cache, "schema": {**cache["schema"], "labels": cache["schema"]["labels"][::-1]}}
    assert logits_apart(corpus.store, cache, turned, "train") is None


@pytest.mark.parametrize("count, text", [(0, "0 B"), (999, "999 B"), (1234567, "1.2 MB"), (2e15, "2000.0 TB")])
def test_sizes_are_for_people(count, text):
    assert size(count) == text
