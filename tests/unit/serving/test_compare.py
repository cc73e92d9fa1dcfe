"""Every backend is measured on the same texts, against PyTorch in float32, and one that cannot run is named."""

import shutil
from importlib.util import find_spec

import pytest

from kdray.config import ServeConfig
from kdray.errors import DataError, ModelError
from kdray.models.precision import resolve_precision
from kdray.serving import compare as module
from kdray.serving.compare import REFERENCE, compare
from kdray.serving.predictor import load_predictor

TEXTS = [f"The {one} of the {two}." for one in ("film", "plot", "long and quiet ending") for two in ("year", "sea")]
TORCH = {f"torch {resolve_precision('auto')}", REFERENCE}
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra `openvino`")


def test_every_backend_is_measured_the_one_of_today_first(films):
    found = compare(films, TEXTS, ServeConfig(backend="onnx"))
    by_name = {one.contender.name: one for one in found.measures}
    assert next(iter(by_name)) == "onnx" and by_name.keys() >= {"onnx", "onnx-int8", *TORCH}
    assert (found.texts, found.labels) == (6, 6)
    assert found.agreement(by_name[REFERENCE]) == found.agreement(by_name["onnx"]) == 1.0
    assert by_name["onnx"].size == (films / "onnx/model.onnx").stat().st_size
    assert by_name[REFERENCE].size == (films / "model.safetensors").stat().st_size
    assert all(one.bulk > 0 and 0 < one.p50 <= one.p99 for one in found.measures)


def test_every_word_is_a_label(names):
    found = compare(names, ["Ada met Bob.", "", "Nobody came"], ServeConfig())
    assert found.measures[0].contender.name == "onnx-int8" and found.labels == 6


def test_texts_without_labels_agree(names):
    found = compare(names, [""], ServeConfig())
    assert found.labels == 0 and {found.agreement(one) for one in found.measures} == {1.0}


def test_what_cannot_run_is_named_and_the_others_are_measured(films, tmp_path):
    folder = shutil.copytree(films, tmp_path / "films")
    (folder / "onnx/model.onnx").write_bytes(b"torn")
    found = compare(folder, TEXTS, ServeConfig())
    assert any(line.startswith("onnx: ") and "\n" not in line for line in found.absent)
    assert {one.contender.name for one in found.measures} >= {"onnx-int8", *TORCH}
    (folder / "onnx/model.onnx").unlink()
    assert any("model.onnx" in line and "not there" in line for line in compare(folder, TEXTS, ServeConfig()).absent)


def test_what_the_settings_lead_to_must_be_there(films, tmp_path):
    folder = shutil.copytree(films, tmp_path / "films")
    (folder / "onnx/model_int8.onnx").unlink()
    with pytest.raises(ModelError, match=r"model_int8\.onnx"):
        compare(folder, TEXTS, ServeConfig())


def test_a_text_that_the_task_refuses_is_named(films):
    with pytest.raises(DataError, match=r"text 1 \(from 0\) cannot be answered: .*surrogate"):
        compare(films, ["fine", "\ud83d"], ServeConfig())


def test_a_slow_model_is_timed_on_fewer_texts_and_compared_on_all(films, monkeypatch):
    monkeypatch.setattr(module, "_rate", lambda predictor, items: 10.0)
    monkeypatch.setattr(module, "_ROUNDS", 1)
    bulks: list[int] = []
    bulk = module._bulk
    monkeypatch.setattr(module, "_bulk", lambda one, items, bar: bulks.append(len(items)) or bulk(one, items, bar))
    found = compare(films, TEXTS * 20, ServeConfig())
    assert found.texts == 120 and set(bulks) == {64}


@needs_openvino
@pytest.mark.parametrize("backend, tolerance", [("openvino", 0.02), ("openvino-int8", 0.1)])
def test_openvino_answers_as_pytorch_does(films, names, backend, tolerance):
    for folder in (films, names):
        made = {name: load_predictor(folder, name, 0, 2, 64) for name in ("onnx", backend)}
        for together in (TEXTS, TEXTS[:1], TEXTS * 3):
            expected, found = (made[name].predict([(text, {}) for text in together]) for name in ("onnx", backend))
            assert [one.confidence for one in found] == pytest.approx([one.confidence for one in expected],
                                                                      abs=tolerance)
