"""A package that does not answer like its student is refused, and one that does is not."""

import json
import shutil
from pathlib import Path

import pytest
import transformers

from kdray.errors import ModelError
from kdray.serving.parity import FILE, check_parity, write_parity
from kdray.serving.predictor import Prediction, Predictor, RefusedError, load_predictor
from kdray.tasks import TASKS
from tests.packages import write_package

TASK = TASKS["sequence-classification"]

WORDS = ["film", "actor", "music", "plot", "scene", "ending"]
TEXTS = [f"The {one} was better than the {two}." for one in WORDS for two in WORDS]


class Scripted:
    """A predictor that gives each input the labels that it is told."""

    def __init__(self, labels: dict[str, list[str]]):
        self.labels = labels

    def predict(self, items):
        return [Prediction([], self.labels[item], 1.0) for item, _ in items]


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = write_package(tmp_path_factory.mktemp("packages") / "films", "sequence-classification",
                           transformers.BertForSequenceClassification, ["bad", "good", "mixed"])
    write_parity(folder, load(folder, "torch"), TEXTS)
    return folder


def load(folder: Path, backend: str) -> Predictor:
    return load_predictor(folder, backend, num_gpus=0, threads=1, batch_tokens=256)


def sample(folder: Path, labels: list[list[str] | None]) -> dict[str, list[str]]:
    """Writes a sample, and gives what a predictor must say to agree with it."""
    inputs = [str(place) for place in range(len(labels))]
    (folder / FILE).write_text(json.dumps({"inputs": inputs, "labels": labels}))
    return {item: ["any"] if wanted is None else list(wanted) for item, wanted in zip(inputs, labels, strict=True)}


@pytest.mark.parametrize("backend", ["torch", "onnx", "onnx-int8"])
def test_every_file_of_a_package_agrees_with_its_sample(films, backend):
    check_parity(films, load(films, backend), TASK)


def test_the_sample_is_what_the_predictor_said(films):
    written = json.loads((films / FILE).read_text(encoding="utf-8"))
    assert written["inputs"] == TEXTS
    assert written["labels"] == [one.said for one in load(films, "torch").predict([(t, {}) for t in TEXTS])]


def test_the_weights_of_another_student_are_refused(films, tmp_path):
    other = write_package(tmp_path / "other", "sequence-classification", transformers.BertForSequenceClassification,
                          ["bad", "good", "mixed"], seed=1)
    folder = shutil.copytree(films, tmp_path / "films")
    shutil.copyfile(other / "onnx/model.onnx", folder / "onnx/model.onnx")
    with pytest.raises(ModelError, match=r"films does not answer like its student: \d+ of 36 labels .*serve\.backend"):
        check_parity(folder, load(folder, "onnx"), TASK)
    check_parity(folder, load(folder, "torch"), TASK)


@pytest.mark.parametrize("count, allowed", [(0, 2), (19, 2), (20, 3), (60, 5)])
def test_two_labels_and_one_in_twenty_may_differ(tmp_path, count, allowed):
    said = sample(tmp_path, [["good"]] * count)
    for place in range(min(count, allowed)):
        said[str(place)] = ["bad"]
    check_parity(tmp_path, Scripted(said), TASK)
    if count > allowed:
        said[str(allowed)] = ["bad"]
        with pytest.raises(ModelError, match=f"{allowed + 1} of {count} labels"):
            check_parity(tmp_path, Scripted(said), TASK)


def test_every_word_counts_and_inputs_without_words_do_not(tmp_path):
    said = sample(tmp_path, [["O"] * 30, []])
    check_parity(tmp_path, Scripted(said), TASK)
    said["0"] = ["B-PER"] * 4 + ["O"] * 26
    with pytest.raises(ModelError, match="4 of 30 labels"):
        check_parity(tmp_path, Scripted(said), TASK)


def test_an_input_without_labels_is_only_asked(tmp_path):
    check_parity(tmp_path, Scripted(sample(tmp_path, [None, ["good"]])), TASK)


def test_a_package_without_a_sample_is_asked_for_one_answer(tmp_path):
    class Broken:
        def predict(self, items):
            return [RuntimeError("no weights") for _ in items]

    check_parity(tmp_path, Scripted({TASK.example: ["good"]}), TASK)
    with pytest.raises(RuntimeError, match="no weights"):
        check_parity(tmp_path, Broken(), TASK)


def test_an_input_that_cannot_be_answered_is_no_sample(films, tmp_path):
    with pytest.raises(RefusedError):
        write_parity(tmp_path, load(films, "torch"), ["fine", 7])
    assert not (tmp_path / FILE).exists()
