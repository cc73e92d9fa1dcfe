"""The predictor answers as the model does, whatever shares the batch, and keeps bad items to themselves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from kdray.errors import ModelError
from kdray.serving.backends import resolve_backend
from kdray.serving.predictor import Item, Prediction, Predictor, RefusedError, load_predictor, read_package

TEXTS = ["fine", "What a long and lovely film that was, and how well they played in it!", "so-so", "Never."]


def predictor(folder: Path, backend: str = "onnx", batch_tokens: int = 4096) -> Predictor:
    return load_predictor(folder, backend, num_gpus=0, threads=1, batch_tokens=batch_tokens)


def answers_of(made: Predictor, items: list[Item]) -> list:
    """The answers, and exceptions in their places."""
    return [found.answer if isinstance(found, Prediction) else found for found in made.predict(items)]


def scores(answer: list[dict]) -> dict[str, float]:
    return {item["label"]: item["score"] for item in answer}


@pytest.mark.parametrize("backend, tolerance", [("torch", 0.02), ("onnx", 1e-5), ("onnx-int8", 0.1)])
def test_every_backend_answers_as_the_model_in_the_folder(films, backend, tolerance):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(films).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(films)
    with torch.no_grad():
        expected = [model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0] for text in TEXTS]
    answers = answers_of(predictor(films, backend), [(text, {}) for text in TEXTS])
    for answer, row in zip(answers, expected, strict=True):
        assert [item["score"] for item in answer] == sorted((item["score"] for item in answer), reverse=True)
        assert scores(answer) == pytest.approx(dict(zip(["bad", "good", "mixed"], row.tolist(), strict=True)),
                                               abs=tolerance)


@pytest.mark.parametrize("batch_tokens", [16, 64])
def test_answers_keep_their_places_however_rows_are_batched(films, batch_tokens):
    items = [(text, {"function_to_apply": "none"}) for text in TEXTS * 3]
    together = answers_of(predictor(films, batch_tokens=batch_tokens), items)
    for item, answer in zip(items, together, strict=True):
        assert scores(answer) == pytest.approx(scores(predictor_alone(films, item)), abs=1e-5)


def predictor_alone(folder: Path, item) -> list[dict]:
    return answers_of(predictor(folder), [item])[0]


def test_what_is_wrong_with_one_item_stays_in_its_place(films):
    answers = answers_of(predictor(films), [
        ("good", {}), (7, {}), ("half \ud83d", {}), ("good", {"top_k": 0}), ({"text_pair": "no text"}, {}),
        ("good", {"function_to_apply": "tanh"}), ("good", {"top_k": 1})])
    assert len(answers[0]) == 3 and answers[6] == answers[0][:1]
    assert [type(answer) for answer in answers[1:6]] == [RefusedError] * 5
    fields = [answer.field for answer in answers[1:6]]
    assert fields == ["inputs", "inputs", "parameters", "inputs", "parameters"]
    assert "surrogate" in str(answers[2]) and "top_k" in str(answers[3]) and "tanh" in str(answers[5])


def test_single_texts_and_pairs_may_share_a_batch(films):
    items = [("A man sings.", {}), ({"text": "A man sings.", "text_pair": "Somebody is silent."}, {}),
             ({"text": "A man sings."}, {})]
    answers = answers_of(predictor(films), items)
    assert scores(answers[0]) == pytest.approx(scores(answers[2]), abs=1e-5)
    assert scores(answers[1]) == pytest.approx(scores(predictor_alone(films, items[1])), abs=1e-5)
    assert scores(answers[1]) != pytest.approx(scores(answers[0]), abs=1e-3)


def test_a_prediction_tells_the_labels_and_the_least_sure_of_them(films, names):
    first, *_ = predictor(films).predict([("What a film.", {"top_k": 1})])
    assert first.said == [first.answer[0]["label"]]
    assert first.confidence == pytest.approx(first.answer[0]["score"])
    empty, words = predictor(names).predict([("", {}), ("Ada met Bob", {"aggregation_strategy": "none",
                                                                          "ignore_labels": []})])
    assert (empty.said, empty.confidence) == ([], 1.0)
    assert words.said == [item["entity"] for item in words.answer]
    assert words.confidence == pytest.approx(min(item["score"] for item in words.answer))


def test_nothing_to_predict_gives_nothing(films):
    assert answers_of(predictor(films), []) == []


@pytest.mark.parametrize("backend", ["torch", "onnx", "onnx-int8"])
def test_words_of_a_text_longer_than_the_model_are_all_answered(names, backend):
    text = "Ada Lovelace met Charles Babbage, twice! " * 20
    every = {"aggregation_strategy": "none", "ignore_labels": []}
    long, empty, short = answers_of(predictor(names, backend), [(text, every), ("", {}), ("Ada", every)])
    assert empty == [] and len(short) == 1
    assert [item["word"] for item in long] == [text[item["start"]:item["end"]] for item in long]
    assert "".join(item["word"] for item in long) == text.replace(" ", "")


def test_word_labels_come_from_the_first_sub_word(names):
    model = transformers.AutoModelForTokenClassification.from_pretrained(names).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(names)
    words = ["Babbage", "met", "Lovelace"]
    encoding = tokenizer([words], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**encoding).logits[0]
    expected = [logits[encoding.word_ids().index(word)].softmax(-1).max().item() for word in range(3)]
    parameters = {"aggregation_strategy": "none", "ignore_labels": []}
    answers = answers_of(predictor(names), [("A much longer text than the other, so that it pads it.", {}),
                                        (" ".join(words), parameters)])
    np.testing.assert_allclose([item["score"] for item in answers[1]], expected, atol=1e-5)


def test_auto_is_int8_on_a_cpu_and_torch_on_a_gpu(films):
    assert resolve_backend(films, "auto", 0) == "onnx-int8"
    assert resolve_backend(films, "auto", 1) == "torch"
    assert resolve_backend(films, "onnx", 1) == "onnx"


def test_a_backend_without_its_file_is_refused_with_the_file_and_the_remedy(films, tmp_path):
    folder = shutil.copytree(films, tmp_path / "films")
    (folder / "onnx/model_int8.onnx").unlink()
    with pytest.raises(ModelError, match=r"model_int8\.onnx.*`serve\.backend`"):
        predictor(folder, "auto")


@pytest.mark.parametrize("changes, message", [({"kind": "students"}, "holds 'students'"),
                                              ({"task": "translation"}, "no task 'translation'")])
def test_a_folder_of_another_kind_is_refused(films, tmp_path, changes, message):
    manifest = json.loads((films / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | changes))
    with pytest.raises(ModelError, match=message):
        read_package(tmp_path)


def test_a_folder_without_a_manifest_is_no_package(tmp_path):
    with pytest.raises(ModelError, match="is no package"):
        read_package(tmp_path)


def test_the_predictor_imports_neither_torch_nor_onnxruntime_nor_ray():
    code = "import sys, kdray.serving.predictor; print({'torch', 'onnxruntime', 'ray'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
