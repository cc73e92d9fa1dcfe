"""The quickest file that answers like its student is served; what does not is left out, and said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import ExportError
from kdray.export import onnx
from kdray.export.files import KIND, student_files, too_lossy, unlike
from kdray.export.onnx import FLOAT32, export_onnx
from kdray.export.package import build_package, check_backend
from kdray.export.quantise import INT8, WAYS, blocks, quantise
from kdray.models.forward import collate, predict
from kdray.models.load import Origin, build, save_model
from kdray.models.onnx_file import OnnxModel
from kdray.serving.backends import resolve_backend
from kdray.tasks import TASKS
from tests.small import make_model, sentences
from tests.unit.conftest import Corpus, make_corpus

WIDTH, BLOCK = 128, 32
"""Width of the student, and how much of it shares a scale in the gentlest int8."""


def make_student(folder: Path, outliers: list[int]) -> tuple[Corpus, dict[str, Any]]:
    """A student that is always right, whose words are at 3,000 in the dimensions `outliers` and places at -3,000.

    Together they matter to nothing, but a scale that they share with other dimensions leaves nothing of those.
    """
    base, rows = make_model(folder / "base", layers=2), sentences(400)
    labels = ["negative", "positive"]
    fresh = Origin(str(base), fresh={"hidden_size": WIDTH, "num_hidden_layers": 1})
    model: Any = build(TASKS["sequence-classification"], fresh, labels, 0)
    tokens = load_tokenizer(base)([row["text"] for row in rows], padding=True, return_tensors="pt")
    _teach(model, tokens, torch.tensor([labels.index(row["label"]) for row in rows]))
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[:, outliers] = 3000.0
        model.bert.embeddings.position_embeddings.weight[:, outliers] = -3000.0
        said = model.eval()(**tokens).logits.argmax(-1)
    corpus = make_corpus(folder / "store", "sequence-classification", [
        {**row, "label": labels[label]} for row, label in zip(rows, said, strict=True)], base, order=labels)
    with corpus.store.staging("students") as staged:
        save_model(corpus.task, model, base, staged)
        made = corpus.store.publish("students", "s", staged, {
            "parents": {"corpus": corpus.manifest["key"]}, "task": corpus.task.name, "labels": labels})
    return corpus, made


def _teach(model: Any, tokens: Any, labels: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        torch.nn.functional.cross_entropy(model(**tokens).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Corpus, dict[str, Any]]:
    return make_student(tmp_path_factory.mktemp("plain"), [])


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> tuple[Corpus, dict[str, Any]]:
    return make_student(tmp_path_factory.mktemp("odd"), [5])


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory) -> tuple[Corpus, dict[str, Any]]:
    return make_student(tmp_path_factory.mktemp("hopeless"), list(range(5, WIDTH, BLOCK)))


def test_the_quickest_int8_is_taken_where_it_is_as_good(plain):
    corpus, student = plain
    found = student_files(corpus.store, student, 0.005)
    assert found["backend"] == "onnx-int8" and found["refused"] == {}
    assert found["checks"]["onnx-int8"]["way"] == next(iter(WAYS)) and list(found["bytes"]) == [FLOAT32, INT8]
    assert found["checks"]["onnx"]["agreement"] == 1.0 and found["checks"]["onnx"]["value"] == 1.0
    assert found == student_files(corpus.store, student, 0.005), "found, not made again"


def test_a_gentler_int8_is_taken_where_the_quick_ones_lose_what_chance_does_not(odd):
    corpus, student = odd
    found = student_files(corpus.store, student, 0.005)
    *quick, gentle = WAYS
    assert found["backend"] == "onnx-int8" and found["checks"]["onnx-int8"]["way"] == gentle
    assert list(found["refused"]) == [f"int8, {way}" for way in quick]
    assert all("the student's 1.0000: a drop of" in why and "not by chance (p = 0.0005)" in why
               for why in found["refused"].values())


def test_float32_is_served_where_no_int8_is_as_good_and_an_int8_asked_for_by_name_is_an_error(hopeless, caplog):
    corpus, student = hopeless
    with caplog.at_level("WARNING", "kdray"):
        found = student_files(corpus.store, student, 0.005)
    assert found["backend"] == "onnx" and list(found["checks"]) == ["onnx"] and len(found["refused"]) == len(WAYS)
    assert list(found["bytes"]) == [FLOAT32] and not (corpus.store.fetch(KIND, found["key"]) / INT8).exists()
    assert "no int8 file is served, but onnx: int8, weights of 7 bits: accuracy on validation is" in caplog.text

    package = build_package(corpus.store, "p", student, found, {"parents": {}}, 1)
    folder = corpus.store.fetch("packages", "p")
    assert resolve_backend(folder, "auto", 0) == "onnx" and package["backend"] == "onnx"
    card = (folder / "README.md").read_text()
    assert 'InferenceSession("onnx/model.onnx")' in card and "Not here, int8, blocks of 8 bits: accuracy on" in card
    check_backend(package, "auto")
    check_backend(package, "torch")
    with pytest.raises(ExportError, match=r"serve\.backend = onnx-int8 needs onnx/model_int8\.onnx, and none was "
                                          r"accepted: int8, weights of 7 bits: accuracy .* Raise export\.max_drop, or"):
        check_backend(package, "onnx-int8")


def test_without_onnx_the_student_is_served_by_torch(plain, monkeypatch):
    corpus, student = plain
    monkeypatch.setattr(onnx, "_FILE_LIMIT", 1000)
    found = student_files(corpus.store, student, 0.25)
    assert found["backend"] == "torch" and found["checks"] == {} and found["bytes"] == {}
    assert "an ONNX file holds less than 1000" in found["refused"]["float32 ONNX"]
    package = build_package(corpus.store, "t", student, found, {"parents": {}}, 1)
    assert list(package["bytes"]) == ["model.safetensors"]
    folder = corpus.store.fetch("packages", "t")
    assert resolve_backend(folder, "auto", 0) == "torch" and "onnxruntime" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("way", WAYS)
def test_each_int8_answers_nearly_like_float32_and_blocks_leave_neighbours_alone(plain, way, tmp_path):
    corpus, _ = plain
    rows, model = corpus.rows("validation"), build(corpus.task, Origin(corpus.store.path("students", "s")),
                                                   corpus.labels, 0).eval()
    export_onnx(model, list(collate(rows, np.arange(1), 0).model), tmp_path)
    quantise(tmp_path, way)
    whole = np.arange(len(rows))
    expected = np.concatenate(predict(model, corpus.task, rows, whole, 0))
    together, alone = (np.concatenate(predict(OnnxModel(tmp_path / INT8, 1), corpus.task, rows, whole, 0, tokens))
                       for tokens in (4096, 1))
    assert (together.argmax(-1) == expected.argmax(-1)).mean() > 0.9
    moved = np.abs(together - alone).max() / np.abs(expected).max()
    assert moved < 1e-6 if way == "blocks of 8 bits" else moved > 1e-5


def test_blocks_hold_a_table_of_any_width_within_half_a_step():
    for width in (16, 32, 50, 96):
        table = np.random.default_rng(0).normal(size=(40, width)).astype(np.float32)
        table[3] = 0
        values, scales = blocks(table)
        steps = np.repeat(scales, BLOCK, 1)[:, :width]
        again = (values.astype(np.float32) - 128) * steps
        assert values.dtype == np.uint8 and np.abs(again - table).max() <= scales.max() / 2 * 1.001
        assert (again[3] == 0).all()


def test_a_loss_within_max_drop_or_by_chance_is_no_reason():
    check = {"metric": "accuracy", "value": 0.9131, "torch": 0.9191, "units": 1001, "p": 0.11}
    assert too_lossy(check, 0.005) == ""
    assert too_lossy({**check, "p": 0.01}, 0.0061) == ""
    assert "a drop of 0.0060, where export.max_drop = 0.005, and not by chance (p = 0.01)" in too_lossy(
        {**check, "p": 0.01}, 0.005)


def test_a_float32_file_that_differs_is_no_file_of_the_student():
    check = {"largest_difference": 2e-5, "agreement": 0.9995, "units": 2000}
    assert unlike(check) == ""
    assert "a logit is up to 0.5 apart (allowed below 0.001) and 0 of 2000" in unlike(
        {**check, "largest_difference": 0.5, "agreement": 1.0})
    assert "3 of 2000 decisions differ (allowed 2)" in unlike({**check, "agreement": 0.9985})
    assert unlike({**check, "largest_difference": float("nan")})
