"""Sentence embeddings: from rows to a package that answers, and that sentence-transformers loads as it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdray.serving.predictor import load_predictor
from tests.integration.conftest import Command, small_config, write_config
from tests.small import make_embedder, sentences, write_jsonl

TEXTS = ["the film was great", "a dull story with bad actors", "music"]


def pairs(count: int) -> list[dict[str, Any]]:
    """Pairs of sentences with a score: how many words they share; every fifth is a text alone."""
    texts = [row["text"] for row in sentences(2 * count)]
    rows: list[dict[str, Any]] = []
    for one, other in zip(texts[::2], texts[1::2], strict=True):
        shared = len(set(one.split()) & set(other.split())) / len(set(one.split()) | set(other.split()))
        alone = len(rows) % 5 == 0
        rows.append({"text": one, "text_pair": None if alone else other, "score": None if alone else 5 * shared})
    return rows


@pytest.fixture(scope="module")
def ran(kdray: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of a run, and what it printed."""
    folder = tmp_path_factory.mktemp("embedding")
    teacher = make_embedder(folder / "teacher")
    config = small_config(folder / "store", write_jsonl(folder / "rows.jsonl", pairs(250)), teacher, {
        "task": "sentence-embedding",
        "student": {"fresh": {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32}},
        "training": {"epochs": 6, "lr": 3e-3},
        "search": {"trials": 2, "seeds": 2, "space": {"lr": {"values": [1e-3, 3e-3]}}}, "export": {"max_drop": 1.0}})
    done = kdray("run", str(write_config(folder / "c.yaml", config)))
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def package(ran: tuple[Path, str]) -> Path:
    (found,) = (ran[0] / "store/packages").iterdir()
    return found


def test_a_student_comes_nearer_to_its_teacher_than_its_first_weights_were(ran: tuple[Path, str]) -> None:
    (evaluation,) = (ran[0] / "store/evaluations").iterdir()
    made = json.loads((evaluation / "manifest.json").read_text())
    test = made["numbers"]["test"]
    assert test["teacher"]["recall_at_10"]["value"] == 1.0 and set(test["winner"]) == {"recall_at_10", "spearman"}
    assert test["winner"]["recall_at_10"]["value"] > test["baseline"]["recall_at_10"]["value"] + 0.05
    assert "mcnemar" not in made["numbers"] and made["numbers"]["settings"]["alpha"] == 0
    page = Path(ran[1].split("report:  ")[1].split("\n")[0]).read_text()
    assert "recall_at_10" in page and "Confusion" not in page and "Calibration" not in page


def test_sentence_transformers_loads_the_package_as_it_is(package: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    wanted = library.SentenceTransformer(str(package), device="cpu").encode(TEXTS)
    found = load_predictor(package, "torch", 0, 1, 1024).predict([(text, {}) for text in TEXTS])
    assert np.allclose(wanted, [one.answer for one in found], atol=1e-5)
    assert np.allclose(np.linalg.norm(wanted, axis=-1), 1, atol=1e-5)
