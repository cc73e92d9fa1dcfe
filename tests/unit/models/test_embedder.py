"""Folders of sentence-transformers, and models whose logits are the vector of a text."""

import json
from pathlib import Path

import pytest
import torch

from kdray.config import StudentConfig
from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import ModelError
from kdray.models.folder import fingerprint, label_order, share
from kdray.models.load import build, check_weights, load_model, save_model, student_origin
from kdray.models.pooling import must_pool, pooling_files, read_pooling
from kdray.storage import Store
from kdray.tasks import TASKS
from tests.small import make_embedder, make_model

TASK = TASKS["sentence-embedding"]
TEXTS = ["the film was good", "a dull story", "music and plot with some very bad actors"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedder(tmp_path_factory.mktemp("teacher") / "model")


def changed(folder: Path, file: str, content) -> Path:
    (folder / file).write_text(json.dumps(content))
    return folder


def vectors(model, folder: Path, texts: list[str] = TEXTS) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**load_tokenizer(folder)(texts, padding=True, return_tensors="pt")).logits


def by_library(folder: Path, texts: list[str] = TEXTS) -> torch.Tensor:
    library = pytest.importorskip("sentence_transformers")
    return torch.from_numpy(library.SentenceTransformer(str(folder), device="cpu").encode(texts))


@pytest.mark.parametrize("mode, normalised", [("mean", True), ("cls", True), ("mean", False)])
def test_vectors_are_those_of_sentence_transformers(tmp_path: Path, mode: str, normalised: bool) -> None:
    folder = make_embedder(tmp_path / "model", mode, normalised)
    model = load_model(TASK, folder, label_order(folder, TASK) or [])
    assert torch.allclose(vectors(model, folder), by_library(folder), atol=1e-5)
    assert (vectors(model, folder).norm(dim=-1) - 1).abs().max().lt(1e-5).item() is normalised


@pytest.mark.parametrize("student", [
    {"layers": 2}, {"fresh": {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32}}])
def test_a_student_is_the_same_when_it_is_loaded_again_by_anybody(folder: Path, tmp_path: Path, student) -> None:
    labels = label_order(folder, TASK) or []
    model = build(TASK, student_origin(StudentConfig(**student), folder, must_pool(folder)), labels, 3)
    save_model(TASK, model, folder, tmp_path / "one")
    found = vectors(model, folder)
    assert found.shape == (3, 32) and (model.dense is not None) is ("fresh" in student)
    assert torch.equal(vectors(load_model(TASK, tmp_path / "one", labels), folder), found)
    assert torch.allclose(by_library(tmp_path / "one"), found, atol=1e-5)
    check_weights(TASK, tmp_path / "one", labels, False)
    again = build(TASK, student_origin(StudentConfig(model="one"), tmp_path / "one", must_pool(folder)), labels, 0)
    assert torch.equal(vectors(again, folder), found)


def test_a_student_of_another_family_pools_as_the_teacher_does(folder: Path, tmp_path: Path) -> None:
    bare = make_model(tmp_path / "bare", layers=1, head="BertModel", seed=5)
    cls = make_embedder(tmp_path / "cls", "cls", normalised=False, layers=1, seed=5)
    for own, mode in ((bare, "mean"), (cls, "cls")):
        origin = student_origin(StudentConfig(model="x"), own, must_pool(folder))
        model = build(TASK, origin, label_order(folder, TASK) or [], 0)
        assert (model.pooling.mode, model.pooling.normalised) == (mode, True)


def test_what_pools_otherwise_is_another_teacher(folder: Path, tmp_path: Path) -> None:
    other = make_embedder(tmp_path / "other", "cls")
    assert fingerprint(folder) == fingerprint(other) and fingerprint(folder, TASK) != fingerprint(other, TASK)
    assert label_order(folder, TASK) == [str(number) for number in range(32)]


def test_how_a_teacher_pools_travels_with_it(folder: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.local = False  # as where no machine sees another's folders
    place = Path(share(store, folder, "key").removeprefix("file://"))
    assert read_pooling(place) == read_pooling(folder) and len(pooling_files(place)) == 2


@pytest.mark.parametrize("file, content, words", [
    ("1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_max_tokens": True}, "pools by max, which"),
    ("1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": "weightedmean"}, "pools by weightedmean"),
    ("1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": ["cls", "mean"]}, "by cls and mean"),
    ("1_Pooling/config.json", {"word_embedding_dimension": 32}, "pools by nothing"),
    ("modules.json", [{"type": "a.Transformer", "path": ""}, {"type": "a.CNN", "path": "1"}], "Transformer, CNN"),
    ("modules.json", [{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "9"}], "is not there"),
    ("modules.json", [], "a text goes through nothing")])
def test_a_folder_that_pools_in_an_unknown_way_is_refused(tmp_path: Path, file: str, content, words: str) -> None:
    folder = changed(make_embedder(tmp_path / "model"), file, content)
    with pytest.raises(ModelError, match=words):
        must_pool(folder)


def test_a_teacher_that_does_not_say_how_it_pools_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no modules.json. Save it with sentence-transformers"):
        label_order(make_model(tmp_path / "bare", head="BertModel"), TASK)


def test_a_dense_layer_that_kdray_does_not_know_is_refused(folder: Path, tmp_path: Path) -> None:
    student = {"fresh": {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32}}
    model = build(TASK, student_origin(StudentConfig(**student), folder, must_pool(folder)), ["0"] * 32, 3)
    save_model(TASK, model, folder, tmp_path / "one")
    config = json.loads((tmp_path / "one/2_Dense/config.json").read_text())
    for change, words in (({"activation_function": "torch.nn.GELU"}, "not GELU"), ({"use_residual": True}, "residual")):
        changed(tmp_path / "one", "2_Dense/config.json", {**config, **change})
        with pytest.raises(ModelError, match=words):
            must_pool(tmp_path / "one")
