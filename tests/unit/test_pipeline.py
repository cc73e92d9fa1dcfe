"""What a run makes is made after its models have been tried, once, and those alone that the run will need."""

from pathlib import Path
from typing import Any

import pytest

from kdray.config import Config
from kdray.errors import ConfigError, ModelError
from kdray.models import rehearsal
from kdray.pipeline import Pipeline
from tests.families import make_family
from tests.small import make_model, sentences, tagged, write_jsonl

LABELS = ["negative", "positive"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Makes a run without a cluster."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def make(teacher: Path, last: str = "students", live: bool = False, **changes: Any) -> Pipeline:
        rows = (tagged if "task" in changes else sentences)(120)
        return Pipeline(Config.model_validate({
            "storage": str(tmp_path / "store"), "teacher": {"model": str(teacher), "live": live},
            "data": {"source": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "max_length": 32}, **changes}), last)

    return make


def test_models_are_tried_once_before_rows_are_tokenised(run, tmp_path, monkeypatch):
    tried: list[str] = []
    rehearse = rehearsal.rehearse
    monkeypatch.setattr(rehearsal, "rehearse", lambda task, subject, length: (
        tried.append(f"{subject.name}: {sorted(file.name for file in (tmp_path / 'store').glob('corpus'))}"),
        rehearse(task, subject, length))[1])
    pipeline = run(make_model(tmp_path / "teacher"), students={"two": {"layers": 2}, "whole": {
        "model": str(make_model(tmp_path / "other", more=("zebra",)))}})
    assert set(pipeline.corpus["rows"]) == {"train", "validation", "test"}
    assert tried == ["teacher.model: []", "students.two: []", "students.whole: []"]
    assert pipeline._corpus(tmp_path / "other")["key"] != pipeline.corpus["key"] and len(tried) == 3


def test_a_corpus_that_is_there_needs_no_trying(run, tmp_path, monkeypatch):
    made = run(make_model(tmp_path / "teacher")).corpus
    monkeypatch.setattr(rehearsal, "rehearse", None)
    assert run(tmp_path / "teacher").corpus == made


def test_students_that_a_stage_does_not_come_to_are_not_tried(run, tmp_path):
    teacher = make_family(tmp_path / "teacher", "ALBERT", "sequence-classification", LABELS)
    with pytest.raises(ModelError, match="share their weights"):
        run(teacher).corpus  # noqa: B018
    assert run(teacher, "cache").corpus["rows"]["train"] > 0


def test_each_model_has_its_own_positions(run, tmp_path):
    teacher = make_model(tmp_path / "teacher")
    small = make_family(tmp_path / "small", "RoBERTa", "sequence-classification", LABELS)
    wide = {"data": {"source": str(write_jsonl(tmp_path / "wide.jsonl", sentences(120))), "max_length": 63}}
    with pytest.raises(ConfigError, match=r"63 is more than the 62 positions of student .*small"):
        run(teacher, student={"model": str(small)}, **wide).corpus  # noqa: B018


def test_layers_of_another_model_are_a_job_of_their_own(run, tmp_path):
    teacher, other = make_model(tmp_path / "teacher"), make_model(tmp_path / "other", seed=1)
    made = run(teacher, live=True, students={
        "own": {"layers": 2}, "other": {"model": str(other), "layers": 2}, "whole": {"model": str(other)}}).jobs
    assert {name: (job.origin.folder, job.origin.layers) for name, job in made.items()} == {
        "own": (str(teacher), (0, 3)), "other": (str(other), (0, 3)), "whole": (str(other), None)}
    assert len({job.key for job in made.values()}) == 3
    assert len({job.corpus for job in made.values()}) == 1, "their tokenizers are alike"


def test_words_given_one_by_one_to_byte_level_bpe_have_a_corpus_of_their_own(run, tmp_path, monkeypatch):
    """The key of rows without their spaces, which older corpora have, is another."""
    from kdray.tasks.token_classification import TokenClassification

    teacher = make_family(tmp_path / "teacher", "RoBERTa", "token-classification", ["B-LOC", "B-PER", "O"])
    spaced = run(teacher, "cache", task="token-classification").corpus
    monkeypatch.setattr(TokenClassification, "space", lambda self, tokenizer: "")
    assert run(teacher, "cache", task="token-classification").corpus["key"] != spaced["key"]
