"""Every model is timed on the same texts, alone and together, in turns."""

import json
import shutil

import pytest

from kdray.report.speed import TURNS, measure, take_turns
from kdray.tasks import TASKS
from tests.families import make_family


@pytest.mark.parametrize("package, task", [("films", "sequence-classification"), ("names", "token-classification")])
def test_each_model_and_the_package_as_served_are_timed(request, package, task):
    folder = request.getfixturevalue(package)
    found = measure(TASKS[task], {"teacher": folder, "winner": folder}, folder, ["What a film."] * 5, 32, 1, 1024)
    assert set(found) == {"teacher", "winner", "served"}
    for times in found.values():
        assert times["examples_per_second"] > 0 and 0 < times["p50"] <= times["p99"]


def test_models_take_turns_on_the_same_texts():
    calls: list[tuple[str, tuple[str, ...]]] = []
    models = {name: lambda part, name=name: calls.append((name, tuple(part))) for name in ("one", "two")}
    texts = [f"text {number}" for number in range(1000)]
    take_turns(models, texts)
    one, two = ([part for name, part in calls if name == whose] for whose in models)
    assert one == two
    whole = [(place, name) for place, (name, part) in enumerate(calls) if len(part) > 32]
    assert [name for _, name in whole] == ["one", "two"] * TURNS
    assert len({part for part in one if len(part) == 1}) == 200, "each text that is asked alone is another one"


def test_the_median_of_the_turns_is_told_and_a_slow_model_is_asked_less(monkeypatch):
    clock, asked = [0.0], list[int]()
    monkeypatch.setattr("kdray.report.speed.time.perf_counter", lambda: clock[0])

    def slow(part: list[str]) -> None:
        asked.append(len(part))
        disturbed = 10 if asked.count(64) == 2 and len(part) == 64 else 1
        clock[0] += 2.0 * len(part) * disturbed

    found = take_turns({"slow": slow}, ["text"] * 1000)
    assert found["slow"] == {"examples_per_second": 0.5, "p50": 2000.0, "p99": 2000.0}
    assert asked.count(64) == TURNS and asked.count(1) == 2 + TURNS


def test_texts_longer_than_the_models_positions_are_cut_where_no_tokenizer_says_so(names, tmp_path):
    folder = shutil.copytree(names, tmp_path / "names")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 10**30}))
    found = measure(TASKS["token-classification"], {"teacher": folder}, names, ["ann in rome " * 400] * 2, 32, 1, 1024)
    assert all(times["p50"] > 0 for times in found.values())


def test_a_decoder_whose_tokenizer_has_no_padding_is_timed(films, tmp_path):
    folder = make_family(tmp_path, "GPT-2", "sequence-classification", ["bad", "good", "mixed"])
    found = measure(TASKS["sequence-classification"], {"teacher": folder}, films, ["A film.", "Good."], 32, 1, 1024)
    assert found["teacher"]["examples_per_second"] > 0
