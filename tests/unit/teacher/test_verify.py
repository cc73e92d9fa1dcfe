"""Verification passes what is right, and finds each thing that is not."""

from pathlib import Path

import numpy as np
import pytest

from kdray.cache.manifest import shard_table
from kdray.cache.shard import shard_path
from kdray.errors import CacheError, ModelError
from kdray.inspection import verify_cache
from kdray.models.folder import fingerprint
from kdray.teacher.verify import check_shards, rerun
from tests.small import make_model, sentences
from tests.unit.conftest import make_cache, make_corpus


@pytest.fixture
def filled(tmp_path, model_folder):
    """A corpus, and a manifest of its cache that knows the teacher's true fingerprint."""
    corpus = make_corpus(tmp_path, "sequence-classification", sentences(80), model_folder)
    cache = make_cache(corpus)
    cache["schema"]["teacher"] = fingerprint(model_folder)
    return corpus, cache


def test_a_sound_cache_is_sound(filled):
    corpus, cache = filled
    assert check_shards(corpus.store, cache) == []
    again = rerun(corpus.store, cache, None, 30, 0)
    assert again.rows == pytest.approx(30, abs=1) and again.largest <= 1e-5 < again.allowed and again.flipped == 0


def test_every_torn_and_missing_shard_is_named(filled):
    corpus, cache = filled
    table = shard_table(corpus.store, cache)
    keys = table["key"].astype(str)
    torn, gone = (Path(corpus.store.path(*shard_path(keys[place], table["sha256"][place].tobytes().hex())))
                  for place in (0, 2))
    torn.write_bytes(torn.read_bytes()[:-1])
    gone.unlink()
    complaints = check_shards(corpus.store, cache)
    assert len(complaints) == 2
    assert keys[0] in complaints[0] and "corrupt" in complaints[0]
    assert keys[2] in complaints[1] and "missing" in complaints[1]
    with pytest.raises(CacheError, match=r"2 shards of cache .* are missing or corrupt"):
        verify_cache(corpus.store.uri, cache["key"], 0, 0, None)


@pytest.mark.parametrize("spoil, what", [(lambda path: path.write_bytes(b"torn"), "corrupt"), (Path.unlink, "missing")])
def test_a_spoilt_table_of_the_shards_is_named(filled, spoil, what):
    corpus, cache = filled
    spoil(next(Path(corpus.store.path("caches", cache["key"])).glob("shards-*.arrow")))
    with pytest.raises(CacheError, match=rf"shards-\w+\.arrow, the table of the cache's shards, is {what}"):
        check_shards(corpus.store, cache)


def test_a_teacher_that_changed_is_refused_and_a_moved_one_is_taken(filled, tmp_path):
    corpus, cache = filled
    other = make_model(tmp_path / "other", seed=3)
    with pytest.raises(ModelError, match=r"has the fingerprint .*Name the teacher's folder with --teacher"):
        rerun(corpus.store, cache, str(other), 5, 0)
    cache["teacher_model"] = "/nowhere"
    assert rerun(corpus.store, cache, str(corpus.model), 5, 0).flipped == 0


def test_logits_of_another_teacher_are_seen(filled, tmp_path):
    corpus, cache = filled
    other = make_cache(corpus, teacher=make_model(tmp_path / "other", seed=3))
    again = rerun(corpus.store, {**other, "schema": cache["schema"]}, str(corpus.model), 30, 0)
    assert again.largest > again.allowed


def test_the_sample_follows_the_seed(filled):
    corpus, cache = filled
    found = [rerun(corpus.store, {**cache, "codec_error": {"largest_logit": 0.0}}, None, 9, seed) for seed in (1, 1)]
    assert found[0] == found[1] and np.isfinite(found[0].largest)
