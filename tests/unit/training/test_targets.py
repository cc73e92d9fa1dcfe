"""A live teacher says what its cache says, whatever the student's tokenizer; a sample is of rows all over train."""

from dataclasses import replace

import numpy as np
import pytest

from kdray.config import TrainingConfig
from kdray.models.load import Origin
from kdray.outputs import Choice
from kdray.training.job import Live, TrainingJob
from kdray.training.targets import aligned, hard_labels, open_targets, sample_targets
from tests.small import make_model, tagged
from tests.unit.conftest import TAGS, Corpus, make_cache, make_corpus


def jobs(teacher: Corpus, student: Corpus, cache: dict) -> tuple[TrainingJob, TrainingJob]:
    """The same training, from the cache and with a live teacher."""
    cached = TrainingJob("students", teacher.store.uri, teacher.task.name, tuple(teacher.labels),
                         student.manifest["key"], cache["key"], Origin(str(student.model)), "fingerprint",
                         str(student.model), 0, teacher.task.metrics[0], TrainingConfig().model_dump(), "float32")
    live = Live(str(teacher.model), "fingerprint", teacher.manifest["key"], 0, "float32")
    return cached, replace(cached, cache=None, live=live)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Corpus, Corpus]:
    """The same tagged rows for a teacher, and for a student whose tokenizer cuts some words into more pieces."""
    folder, rows = tmp_path_factory.mktemp("pair"), tagged(60)
    for row in rows:
        row["tokens"] = [{"film": "zebra", "music": "quokka"}.get(word, word) for word in row["tokens"]]
    models = [make_model(folder / name, TAGS, 2, head="BertForTokenClassification", more=more)
              for name, more in (("teacher", ("zebra",)), ("student", ("quokka",)))]
    teacher, student = (make_corpus(folder / "store", "token-classification", rows, model, 10) for model in models)
    return teacher, student


def test_a_live_teacher_is_aligned_with_another_tokenizer_as_its_cache_is(pair):
    teacher, student = pair
    rows, labels = student.rows("train"), len(student.labels)
    indices = np.array([5, 0, 17, 3, 30])
    (cached, _), (live, _) = (open_targets(teacher.store, job, 0) for job in jobs(*pair, make_cache(teacher)))
    (logits, known), (its, its_known) = (aligned(Choice(), soft, rows, indices, labels) for soft in (cached, live))
    assert known.tolist() == its_known.tolist() and 0 < known.sum() < len(known)
    np.testing.assert_allclose(its, logits, atol=1e-5)
    assert np.abs(logits[known]).min() > 0 and (logits[~known] == 0).all()


@pytest.mark.parametrize("split", [0, 1])
def test_a_live_teacher_answers_for_both_splits(corpus, cache, split):
    rows = corpus.rows(("train", "validation")[split])
    cached, live = (open_targets(corpus.store, job, 0)[split] for job in jobs(corpus, corpus, cache))
    found, its = (aligned(Choice(), soft, rows, np.arange(len(rows)), 2)[0] for soft in (cached, live))
    np.testing.assert_allclose(its, found, atol=1e-5)


def test_a_sample_is_of_the_first_and_last_rows_and_has_their_labels(corpus, cache):
    cached, live = jobs(corpus, corpus, cache)
    rows = corpus.rows("train")
    logits, gold, _ = sample_targets(cached)
    assert len(logits) == len(gold) == len(rows), "64 rows a run: all of so small a split, each once"
    assert gold.tolist() == hard_labels(Choice(), rows, np.arange(len(rows)), 2).tolist()
    few, its, _ = sample_targets(live)
    assert len(few) == len(its) <= 128
    np.testing.assert_allclose(few[[0, -1]], logits[[0, -1]], atol=1e-5)
