"""Rows without labels are the teacher's alone: distilled students train on them too, and nobody else sees them."""

from dataclasses import replace

import numpy as np
import pytest

from kdray.config import TrainingConfig
from kdray.corpus.rows import Rows
from kdray.corpus.tokenizer import whole_words
from kdray.models.load import Origin
from kdray.outputs.base import UNLABELLED
from kdray.storage import Store
from kdray.training.job import TrainingJob
from kdray.training.loop import run_in_process
from kdray.training.targets import open_targets, trained_splits
from tests.small import sentences, tagged
from tests.unit.conftest import Corpus, make_cache, make_corpus
from tests.unit.training.test_loop import CUT, Here, equal, weights

PHRASES = 2


def job(corpus: Corpus, **settings) -> TrainingJob:
    chosen = TrainingConfig(**{"epochs": 1, "lr": 1e-3, **settings})
    return TrainingJob("students", corpus.store.uri, corpus.task.name, tuple(corpus.labels), corpus.manifest["key"],
                       make_cache(corpus)["key"], Origin(str(corpus.model), **CUT), "fingerprint", str(corpus.model),
                       corpus.manifest["pad_token_id"], "accuracy", chosen.model_dump(), "float32", labelled="plain")


@pytest.fixture
def wide(tmp_path, model_folder) -> Corpus:
    """A corpus whose training rows have phrases."""
    return make_corpus(tmp_path / "wide", "sequence-classification", sentences(60), model_folder, phrases=PHRASES)


def test_a_distilled_student_trains_on_the_phrases_and_a_plain_one_does_not(wide, tmp_path):
    labelled = wide.manifest["rows"]["train"]
    for alpha, rows in ((0.5, labelled * (1 + PHRASES)), (1.0, labelled)):
        here = Here(tmp_path / str(alpha))
        run_in_process(job(wide, alpha=alpha), here)
        assert here.labels == [("epoch 1/1", rows, 0)]


def test_a_last_stage_on_hard_labels_takes_the_labelled_rows_alone(wide, tmp_path):
    here, labelled = Here(tmp_path / "run"), wide.manifest["rows"]["train"]
    run_in_process(job(wide, alpha=0.0, finetune={"epochs": 1}), here)
    assert [total for _, total, _ in here.labels] == [labelled * (1 + PHRASES), labelled]


def test_a_plain_student_is_the_same_with_and_without_phrases(wide, tmp_path, model_folder):
    bare = make_corpus(tmp_path / "bare", "sequence-classification", sentences(60), model_folder)
    one, two = (replace(job(corpus, alpha=1.0), labelled=bare.manifest["key"]) for corpus in (bare, wide))
    assert one.corpus != two.corpus and one.key == two.key
    made = [run_in_process(each, Here(tmp_path / each.corpus)) for each in (one, two)]
    assert equal(weights(one, made[0]), weights(two, made[1]))
    assert replace(one, settings=job(bare).settings).key != replace(two, settings=job(wide).settings).key


def test_soft_targets_of_two_splits_are_read_as_one(wide):
    wanted = job(wide, alpha=0.0)
    soft, _ = open_targets(Store(wanted.storage), wanted, 0, trained_splits(Store(wanted.storage), wanted))
    rows, labelled = Rows.open(wide.folder, "train", "transfer"), wide.manifest["rows"]["train"]
    apart, _ = open_targets(Store(wanted.storage), wanted, 0, ["transfer"])
    assert all(np.array_equal(soft[labelled + row][1], apart[row][1]) for row in range(labelled * PHRASES))
    assert rows.labels[labelled - 1][0] != UNLABELLED == rows.labels[labelled][0]


def test_a_tagged_phrase_is_a_run_of_the_sentences_words_with_some_of_the_vocabulary(tmp_path, token_folder):
    corpus = make_corpus(tmp_path, "token-classification", tagged(60), token_folder, phrases=PHRASES)
    whole = corpus.rows("train").table.column("tokens").to_pylist()
    phrases, others = corpus.rows("transfer"), whole_words(str(token_folder))
    for index, words in enumerate(phrases.table.column("tokens").to_pylist()):
        source = whole[index % len(whole)]
        runs = [source[start:start + len(words)] for start in range(len(source) - len(words) + 1)]
        assert any(all(word in (old, *others) for word, old in zip(words, run, strict=True)) for run in runs)
        assert set(phrases.labels[index].tolist()) == {UNLABELLED}
