"""Every model is timed on the same texts, alone and together."""

import pytest

from kdray.report import speed
from kdray.report.speed import measure
from kdray.tasks import TASKS
from tests.families import make_family


@pytest.mark.parametrize("package, task", [("films", "sequence-classification"), ("names", "token-classification")])
def test_each_model_and_the_package_as_served_are_timed(request, package, task):
    folder = request.getfixturevalue(package)
    found = measure(TASKS[task], {"teacher": folder, "winner": folder}, folder, ["What a film."] * 5, 32, 1, 1024)
    assert set(found) == {"teacher", "winner", "served"}
    for times in found.values():
        assert times["examples_per_second"] > 0 and 0 < times["p50"] <= times["p99"]


def test_a_decoder_whose_tokenizer_has_no_padding_is_timed(films, tmp_path):
    folder = make_family(tmp_path, "GPT-2", "sequence-classification", ["bad", "good", "mixed"])
    found = measure(TASKS["sequence-classification"], {"teacher": folder}, films, ["A film.", "Good."], 32, 1, 1024)
    assert found["teacher"]["examples_per_second"] > 0


def test_a_slow_model_answers_as_many_texts_as_it_can(monkeypatch):
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    answered: list[list[str]] = []
    assert speed._latency(answered.append, ["a", "b", "c"])["p50"] > 0
    assert answered == [["a"], ["a"]]
