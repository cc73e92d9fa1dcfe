"""Every model is timed on the same texts, alone and together."""

import json
import shutil

import pytest

from kdray.report import speed
from kdray.report.speed import measure
from kdray.tasks import TASKS


@pytest.mark.parametrize("package, task", [("films", "sequence-classification"), ("names", "token-classification")])
def test_each_model_and_the_package_as_served_are_timed(request, package, task):
    folder = request.getfixturevalue(package)
    found = measure(TASKS[task], {"teacher": folder, "winner": folder}, folder, ["What a film."] * 5, 32, 1, 1024)
    assert set(found) == {"teacher", "winner", "served"}
    for times in found.values():
        assert times["examples_per_second"] > 0 and 0 < times["p50"] <= times["p99"]


def test_texts_longer_than_the_models_positions_are_cut_where_no_tokenizer_says_so(names, tmp_path):
    folder = shutil.copytree(names, tmp_path / "names")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 10**30}))
    found = measure(TASKS["token-classification"], {"teacher": folder}, names, ["ann in rome " * 400] * 2, 32, 1, 1024)
    assert all(times["p50"] > 0 for times in found.values())


def test_a_slow_model_answers_as_many_texts_as_it_can(monkeypatch):
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    answered: list[list[str]] = []
    assert speed._latency(answered.append, ["a", "b", "c"])["p50"] > 0
    assert answered == [["a"], ["a"]]
