"""Sentence embeddings: from rows to a package that answers, and that sentence-transformers loads as it is."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from kdray.serving.predictor import load_predictor
from tests.browser import CHROMIUM, Browser
from tests.integration.asking import post
from tests.integration.conftest import Command, run_task, small_config, write_config
from tests.integration.test_playground import Playground, Site
from tests.packages import write_package
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
def ran(kdray_here: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of a run, and what it printed."""
    folder = tmp_path_factory.mktemp("embedding")
    teacher = make_embedder(folder / "teacher")
    done = run_task(kdray_here, folder, write_jsonl(folder / "rows.jsonl", pairs(250)), teacher, {
        "task": "sentence-embedding",
        "student": {"fresh": {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32}},
        "training": {"epochs": 6, "lr": 3e-3, "batch_size": 8},
        "search": {"trials": 2, "seeds": 2, "space": {"lr": {"values": [1e-3, 3e-3]}}}})
    return folder, done.stdout


@pytest.fixture(scope="module")
def store(ran: tuple[Path, str]) -> Path:
    return ran[0] / "store"


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
    for backend in ("torch", "onnx"):
        found = load_predictor(package, backend, 0, 1, 1024, "float32").predict([(text, {}) for text in TEXTS])
        assert np.allclose(wanted, [one.answer for one in found], atol=1e-4)
    assert np.allclose(np.linalg.norm(wanted, axis=-1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def url(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real application in front of the package, and beside it of one that scores pairs."""
    pair = write_package(tmp_path_factory.mktemp("packages") / "scored", "regression",
                         transformers.BertForSequenceClassification, ["score"])
    site = Site({"default": package, "scored": pair})
    yield site.url
    site.close()


@pytest.fixture
def client(url: str, monkeypatch: pytest.MonkeyPatch) -> InferenceClient:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return InferenceClient(model=url)


def test_the_client_gets_vectors_unchanged(client: InferenceClient) -> None:
    one, many = client.feature_extraction(TEXTS[0]), client.feature_extraction(TEXTS)
    assert one.shape == (32,) and many.shape == (3, 32) and np.allclose(one, many[0], atol=0.05)
    short = client.feature_extraction(TEXTS[1], normalize=True, dimensions=5, truncate=True)
    assert short.shape == (5,) and np.linalg.norm(short) == pytest.approx(1, abs=1e-5)
    with pytest.raises(HfHubHTTPError, match="dimensions must be a whole number from 1 to 32, not 33"):
        client.feature_extraction("fine", dimensions=33)


def test_the_client_compares_sentences_unchanged(client: InferenceClient) -> None:
    found = client.sentence_similarity(TEXTS[0], other_sentences=[TEXTS[1], TEXTS[0]])
    assert len(found) == 2 and found[1] == pytest.approx(1, abs=1e-4) and found[0] < found[1]


def test_embeddings_are_answered_as_openai_does(url: str, client: InferenceClient) -> None:
    status, answer = post(f"{url}/v1/embeddings", {"input": TEXTS, "model": "default"})
    assert status == 200 and answer["object"] == "list" and answer["model"] == "default"
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    assert np.allclose([one["embedding"] for one in answer["data"]], client.feature_extraction(TEXTS), atol=1e-5)
    words = sum(len(text.split()) + 2 for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": words, "total_tokens": words}
    (packed,) = post(f"{url}/v1/embeddings", {"input": TEXTS[0], "encoding_format": "base64"})[1]["data"]
    assert np.frombuffer(base64.b64decode(packed["embedding"]), "<f4").shape == (32,)


def test_texts_are_ranked_for_a_query(url: str) -> None:
    texts = ["a film", "a plot with a story", "music"]
    status, found = post(f"{url}/rerank", {"query": "a film", "texts": texts, "model": "scored", "return_text": True})
    scores = [post(f"{url}/models/scored", {"inputs": {"text": "a film", "text_pair": text}})[1][0][0]["score"]
              for text in texts]
    assert status == 200 and [one["index"] for one in found] == np.argsort(scores)[::-1].tolist()
    assert [one["text"] for one in found] == [texts[one["index"]] for one in found]
    assert all(0 < one["score"] < 1 for one in found)


@pytest.mark.parametrize("path, body, status, words", [
    ("/v1/embeddings", {"input": "a", "model": "scored"}, 404, "a student of regression, which has no embeddings"),
    ("/rerank", {"query": "a", "texts": ["b"]}, 404, "a student of sentence-embedding, which has no rerank"),
    ("/v1/embeddings", {"input": "a", "model": "other"}, 404, "no student is named 'other'"),
    ("/", {"inputs": "a", "top_k": 1}, 422, "unknown key 'top_k'; known are inputs, parameters, options, normalize"),
    ("/models/scored", {"inputs": "a", "normalize": True}, 422, "unknown key 'normalize'"),
    ("/", {"inputs": {"source_sentence": "a", "sentences": ["b"] * 9}}, 413, "10 texts, a request may hold 8"),
    ("/", {"inputs": {"source_sentence": "a", "sentences": [""]}}, 422, "the text is empty"),
    ("/", {"inputs": {"source_sentence": "a", "sentences": [5]}}, 422, "an input must be a string or")])
def test_what_cannot_be_answered_is_refused(url: str, path: str, body: Any, status: int, words: str) -> None:
    found, answer = post(url + path, body)
    assert found == status and words in answer["error"]


def test_half_of_a_surrogate_pair_is_refused_wherever_it_is(package: Path) -> None:
    item = {"source_sentence": "a", "sentences": ["b", "\ud800"]}
    found, sound = load_predictor(package, "auto", 0, 1, 1024).predict([(item, {}), ("a", {})])
    assert "half of a surrogate pair" in str(found) and len(sound.answer) == 32


def test_open_inference_gives_the_vector_as_json(url: str) -> None:
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS[:2]}
    status, answer = post(f"{url}/v2/models/default/infer", {"inputs": [tensor]})
    (output,) = answer["outputs"]
    assert status == 200 and [len(json.loads(one)) for one in output["data"]] == [32, 32]
    bulk = post(f"{url}/v1/predict", {"inputs": [TEXTS[0], 5]})[1]["answers"]
    assert len(bulk[0]["answer"]) == 32 and "must be a string" in bulk[1]["error"]


def test_a_teacher_s_vectors_are_cut_to_their_principal_directions(kdray_here: Command, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", pairs(100))
    config = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, make_embedder(
        tmp_path / "teacher"), {
            "task": "sentence-embedding", "teacher": {"model": str(tmp_path / "teacher"), "dimensions": 8},
            "student": {"fresh": {"num_hidden_layers": 1, "hidden_size": 8}}}))
    done = kdray_here("distill", str(config))
    assert done.returncode == 0 and "8 numbers keep" in done.stderr, done.stderr
    (teacher,), (student,), (cache,) = ((tmp_path / "store" / kind).iterdir() for kind in (
        "teachers", "students", "caches"))
    assert (teacher / "2_Dense").exists() and not (student / "2_Dense").exists()
    assert kdray_here("cache", "verify", "--storage", str(tmp_path / "store"), cache.name).returncode == 0
    again = kdray_here("distill", str(config))
    assert again.stdout == done.stdout and "making" not in again.stderr
    write_jsonl(rows, [*pairs(100), {"text": " ", "text_pair": None, "score": None}])
    wrong = kdray_here("distill", str(config), f"storage={tmp_path / 'other'}")
    assert wrong.returncode == 1 and "a row of the train split: text is empty" in wrong.stderr
    assert not (tmp_path / "other" / "teachers").exists()


@pytest.mark.parametrize("override, words", [
    ("teacher.dimensions=32", "teacher.dimensions = 32 must be below the 32 of teacher.model"),
    ("teacher.dimensions=8 task=regression", "teacher.dimensions: a teacher of regression gives no vectors"),
    ("training.alpha=0.5", "training.alpha = 0.5: sentence-embedding has no hard labels"),
    ("training.finetune={epochs: 1}", "sentence-embedding has no hard labels"),
    ("search.space={alpha: {min: 0, max: 1}}", "search.space.alpha: sentence-embedding has no hard labels"),
    ("search.space={temperature: {min: 1, max: 4}}", "search.space.temperature: loss kl does not use it"),
    ("training.temperature_end=1", "sentence-embedding has a temperature in the loss similarity alone"),
    ("training.confidence=weight", "training.confidence = weight: sentence-embedding"),
    ("training.loss=annealing", "sentence-embedding has no such loss"),
    ("search.space={loss: {values: [kl, annealing]}}", "sentence-embedding has no loss annealing"),
    ("teacher.finetune={epochs: 1}", "teacher.finetune: sentence-embedding has no hard labels to fine-tune on"),
    ("teacher.live=true", "teacher.live: sentence-embedding"),
    ("search.metric=accuracy", "only recall_at_10, spearman"),
    ("search.metric=spearman", "no row of validation has a score"),
    ("task=sequence-classification", "no column 'label'"),
    ("training.loss=cosine task=regression", "regression has no temperature")])
def test_what_embeddings_cannot_do_is_refused_before_work(kdray_here: Command, tmp_path: Path, override: str,
                                                          words: str) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": row["text"]} for row in sentences(40)])
    config = small_config(tmp_path / "store", rows, make_embedder(tmp_path / "teacher"), {"task": "sentence-embedding"})
    done = kdray_here("run", str(write_config(tmp_path / "c.yaml", config)), *override.split(" ") if "task" in override
                      else [override])
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "store" / "caches").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
def test_the_page_compares_texts(url: str, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    page = Playground(browser, url)
    page.ready()
    page.ask(TEXTS[0])
    page.says("#status", "Type texts to compare it with first.")
    page.type("#second", f"{TEXTS[1]}\n\n{TEXTS[0]}")
    page.ask(TEXTS[0])
    page.says("#status", f"{TEXTS[0]}, 100.0 %")
    assert all(text.startswith(wanted) for text, wanted in zip(
        page.texts("#panels .bars li"), (TEXTS[0], TEXTS[1]), strict=True))
    assert "32" in page.texts("#facts")[0] and not page.complaints()
    page.close()
    browser.close()
