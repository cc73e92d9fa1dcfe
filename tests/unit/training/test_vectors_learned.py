"""Students that learn vectors, and their baseline, which has nothing to learn from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdray.cache.truth import truth
from kdray.config import TrainingConfig
from kdray.models.forward import predict
from kdray.models.load import Origin, build, load_model
from kdray.models.pooling import must_pool
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.tasks.base import scores_of
from kdray.training.health import check_targets
from kdray.training.job import TrainingJob
from kdray.training.loop import run_in_process
from kdray.training.targets import sample_targets
from tests.small import make_embedder
from tests.unit.cache.test_truth import corpus_of
from tests.unit.conftest import Corpus, make_cache
from tests.unit.training.test_loop import Here

TASK = TASKS["sentence-embedding"]
NARROW = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("vectors")
    return corpus_of(folder, make_embedder(folder / "teacher", layers=1))


@pytest.fixture(scope="module")
def cache(corpus: Corpus) -> dict[str, Any]:
    return make_cache(corpus, "float16")


def job(corpus: Corpus, cache: str, origin: Origin | None = None, **settings: Any) -> TrainingJob:
    wanted = TrainingConfig(**{"alpha": 0.0, "lr": 3e-3, "batch_size": 16, "precision": "float32", **settings})
    return TrainingJob("students", corpus.store.uri, TASK.name, tuple(corpus.labels), corpus.manifest["key"], cache,
                       origin or Origin(str(corpus.model)), "origin", str(corpus.model),
                       corpus.manifest["pad_token_id"], "recall_at_10", wanted.model_dump(), "float32")


def narrow(corpus: Corpus) -> Origin:
    return Origin(str(corpus.model), fresh=NARROW, pooling=must_pool(corpus.model))


def test_first_weights_are_measured_against_a_teacher_and_are_of_it(corpus: Corpus, cache: dict[str, Any]) -> None:
    plain = job(corpus, cache["key"], alpha=1.0)
    assert not plain.learns and job(corpus, cache["key"]).learns
    assert len({plain.key, job(corpus, "another", alpha=1.0).key, job(corpus, "another").key}) == 3


def test_how_a_teacher_pools_is_no_part_of_a_key_beside_its_fingerprint(corpus: Corpus, cache: dict[str, Any]) -> None:
    one, other = (job(corpus, cache["key"], Origin("folder", pooling=pooling))
                  for pooling in (None, must_pool(corpus.model)))
    assert one.key == other.key


def test_a_baseline_is_the_student_with_its_first_weights(corpus: Corpus, cache: dict[str, Any],
                                                          tmp_path: Path) -> None:
    wanted = job(corpus, cache["key"], narrow(corpus), alpha=1.0, epochs=3, seed=4)
    made = run_in_process(wanted, Here(tmp_path / "kept"))
    first = build(TASK, narrow(corpus), corpus.labels, 4).state_dict()
    kept = load_model(TASK, corpus.store.fetch("students", made["key"]), corpus.labels).state_dict()
    assert all(torch.equal(first[name], kept[name]) for name in kept) and len(made["history"]) == 1
    assert set(made["validation"]) == {"recall_at_10", "spearman"} and made["history"][0]["kl"] > 0


@pytest.mark.parametrize("loss", ["kl", "cosine", "similarity"])
def test_a_student_comes_nearer_with_every_loss(corpus: Corpus, cache: dict[str, Any], tmp_path: Path,
                                                loss: str) -> None:
    wanted = job(corpus, cache["key"], narrow(corpus), epochs=12, loss=loss, temperature=0.1)
    made, before = (run_in_process(one, Here(tmp_path / str(place))) for place, one in enumerate(
        (wanted, job(corpus, cache["key"], narrow(corpus), alpha=1.0))))
    assert made["history"][-1]["loss"] < made["history"][0]["loss"] / 2
    assert made["validation"]["recall_at_10"] > before["validation"]["recall_at_10"]
    assert loss == "similarity" or made["history"][-1]["kl"] < before["history"][0]["kl"] / 4


def test_the_published_student_has_the_scores_of_its_manifest(corpus: Corpus, cache: dict[str, Any],
                                                              tmp_path: Path) -> None:
    made = run_in_process(job(corpus, cache["key"], narrow(corpus), epochs=2), Here(tmp_path / "kept"))
    model = load_model(TASK, Store(corpus.store.uri).fetch("students", made["key"]), corpus.labels).eval()
    rows = corpus.rows("validation")
    said = predict(model, TASK, rows, np.arange(len(rows)), 0, 1024)
    gold = truth(corpus.store, corpus.manifest, "validation", cache["key"])
    assert scores_of(TASK, gold, said, corpus.labels) == pytest.approx(made["validation"], abs=0.02)


def test_vectors_that_differ_are_worth_learning(corpus: Corpus, cache: dict[str, Any]) -> None:
    teacher, gold, _ = sample_targets(job(corpus, cache["key"]))
    assert teacher.shape == (len(gold), 32) and check_targets(TASK.output, teacher, gold) is None
