"""What models say of a split is the same in one part and in many, and how far two are apart is that of the formula."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from kdray.cache.reader import SoftTargets
from kdray.evaluation.answers import Answers, Asked, ask
from kdray.models.load import Origin, build, save_model
from tests.unit.conftest import Corpus, make_cache


@pytest.fixture(params=["corpus", "token_corpus"])
def made(request) -> Corpus:
    return request.getfixturevalue(request.param)


def asked(corpus: Corpus, **model: str) -> Asked:
    return Asked(corpus.store.uri, corpus.task.name, tuple(corpus.labels), corpus.manifest["key"], "test", **model)


def said(*group: Asked, rows: int) -> list[Answers]:
    (found,) = ask([group], rows)
    return found


def test_a_cache_answers_as_the_model_that_filled_it(made):
    rows, cache = made.rows("test"), make_cache(made)
    cached, fresh = said(asked(made, cache=cache["key"]), asked(made, place=str(made.model)), rows=len(rows))
    assert cached.decided.tolist() == fresh.decided.tolist() and cached.counts.tolist() == fresh.counts.tolist()
    assert cached.confidence == pytest.approx(fresh.confidence, abs=1e-5, nan_ok=True)
    seen = ~np.isnan(cached.confidence)
    assert fresh.divergence[seen] == pytest.approx(0, abs=1e-5) and np.isnan(fresh.divergence[~seen]).all()
    assert fresh.largest < 1e-4 and (cached.parameters, fresh.parameters > 10_000) == (0, True)
    assert [ids.tolist() for ids in fresh.by_row()] == [
        made.task.decide(logits, units, len(rows.labels[row]), made.labels).tolist()
        for row, (units, logits) in enumerate(logits_of(made, cache["key"]))]


def logits_of(corpus: Corpus, cache: str) -> list[tuple[np.ndarray, np.ndarray]]:
    soft = SoftTargets(corpus.store, cache, "test")
    return [soft[row] for row in range(len(soft))]


def test_a_word_that_the_model_does_not_see_has_a_label_and_no_confidence(token_corpus):
    rows = token_corpus.rows("test")
    (found,) = said(asked(token_corpus, place=str(token_corpus.model)), rows=len(rows))
    unseen, before = 0, 0
    for row, ids in enumerate(found.by_row()):
        confidence, before = found.confidence[before:before + len(ids)], before + len(ids)
        seen = np.isin(np.arange(len(ids)), rows.targets[row])
        assert (np.isnan(confidence) == ~seen).all() and (confidence[seen] > 1 / 3).all()
        assert all(token_corpus.labels[label] == "O" for label in ids[~seen])
        unseen += (~seen).sum()
    assert unseen > 0


def test_two_models_are_apart_by_the_formula(made):
    caches = [make_cache(made, codec)["key"] for codec in ("float32", "int8")]
    _, other = said(*(asked(made, cache=cache) for cache in caches), rows=len(made.rows("test")))
    one, two = (np.concatenate([logits for _, logits in logits_of(made, cache)]).astype(float) for cache in caches)
    seen = ~np.isnan(other.divergence)
    wanted = (np.exp(log_softmax(one, -1)) * (log_softmax(one, -1) - log_softmax(two, -1))).sum(-1)
    assert other.divergence[seen] == pytest.approx(wanted, abs=1e-6) and seen.sum() == len(wanted)
    assert other.largest == pytest.approx(np.abs(one - two).max(), rel=1e-5) and other.largest > 0


def test_a_logit_that_is_no_number_is_not_passed_over(corpus, monkeypatch):
    rows, model = len(corpus.rows("test")), asked(corpus, place=str(corpus.model))
    monkeypatch.setattr("kdray.evaluation.answers.ROWS", 7)
    monkeypatch.setattr("kdray.evaluation.answers.predict", lambda model, task, rows, indices, *rest: [
        np.full((1, 2), np.nan if index == 9 else 0.5, np.float32) for index in indices])
    _, found = said(asked(corpus, cache=make_cache(corpus)["key"]), model, rows=rows)
    assert np.isnan(found.largest)


def test_parts_give_what_the_whole_gives(made, monkeypatch, tmp_path):
    half = build(made.task, Origin(str(made.model), (0, 1)), made.labels, 0)
    save_model(made.task, half, made.model, tmp_path)
    rows, teacher = len(made.rows("test")), asked(made, place=str(made.model))
    group = teacher, replace(teacher, place=str(tmp_path))
    whole = said(*group, rows=rows)
    monkeypatch.setattr("kdray.evaluation.answers.ROWS", 3)
    for one, other in zip(whole, said(*group, rows=rows), strict=True):
        assert one.decided.tolist() == other.decided.tolist() and one.counts.tolist() == other.counts.tolist()
        assert one.confidence == pytest.approx(other.confidence, abs=1e-6, nan_ok=True)
        assert one.divergence == pytest.approx(other.divergence, abs=1e-6, nan_ok=True)
        assert (one.largest, one.parameters) == (pytest.approx(other.largest, abs=1e-5), other.parameters)


def test_several_groups_are_asked_at_once_and_told_apart(corpus):
    rows, model = len(corpus.rows("test")), asked(corpus, place=str(corpus.model))
    cached = asked(corpus, cache=make_cache(corpus)["key"])
    (one,), (two, three) = ask([(model,), (cached, model)], rows)
    assert one.decided.tolist() == two.decided.tolist() == three.decided.tolist()
    assert len(one.divergence) == 0 and len(three.divergence) == len(one.decided)
