"""Each family of models goes the whole way in each way to make a student, or is refused before work with the remedy.

Teacher, cache, live teacher, training, publishing, loading again, ONNX, serving: the real parts, in this process.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from kdray.cache.reader import SoftTargets
from kdray.config import StudentConfig, TrainingConfig
from kdray.errors import ModelError
from kdray.export.files import FAMILIES as EXPORTED
from kdray.export.files import student_files
from kdray.export.package import build_package
from kdray.models.forward import predict
from kdray.models.load import build, load_model, student_origin
from kdray.models.rehearsal import rehearse
from kdray.models.subject import Subject
from kdray.serving.predictor import Prediction, load_predictor
from kdray.tasks import TASKS
from kdray.training.job import Live, TrainingJob
from kdray.training.loop import Run, lone_process_group
from kdray.training.targets import open_targets
from tests.families import FAMILIES, REFUSED, WAYS, make_family
from tests.integration.conftest import ROOT, Command, small_config, write_config
from tests.small import sentences, tagged, write_jsonl
from tests.unit.conftest import Corpus, make_cache, make_corpus
from tests.unit.training.test_loop import Here

LABELS = {"sequence-classification": ["negative", "positive"], "token-classification": ["B-LOC", "B-PER", "O"]}
ROWS = {"sequence-classification": sentences(60), "token-classification": tagged(60)}
LENGTH = 40
QUICK = [("GPT-2", "layers", "sequence-classification"), ("ModernBERT", "layers", "token-classification"),
         ("DeBERTa-v2", "fresh", "sequence-classification"), ("RoBERTa", "model", "token-classification"),
         ("ALBERT", "layers", "sequence-classification")]
"""The cells that broke first."""


@dataclass(frozen=True)
class Taught:
    """A family's teacher, the rows it reads, and its soft targets."""

    corpus: Corpus
    cache: dict[str, Any]


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """Makes a family's teacher for a task, once."""
    made: dict[tuple[str, str], Taught] = {}

    def make(family: str, task: str) -> Taught:
        if (family, task) not in made:
            folder = tmp_path_factory.mktemp("taught")
            model = make_family(folder / "teacher", family, task, LABELS[task])
            corpus = make_corpus(folder / "store", task, ROWS[task], model, LENGTH, LABELS[task])
            made[family, task] = Taught(corpus, make_cache(corpus))
        return made[family, task]

    return make


def cells(wanted: list[tuple[str, str, str]]) -> Any:
    return pytest.mark.parametrize(("family", "way", "task"), wanted, ids=["-".join(cell) for cell in wanted])


@pytest.mark.slow
@cells([(family, way, task) for family in FAMILIES for way in WAYS for task in LABELS
        if (family, way, task) not in QUICK])
def test_a_family_goes_the_whole_way_or_is_refused(taught, tmp_path, family, way, task):
    check(taught(family, task), tmp_path, family, way)


@cells(QUICK)
def test_the_cells_that_broke_first_go_the_whole_way_or_are_refused(taught, tmp_path, family, way, task):
    check(taught(family, task), tmp_path, family, way)


def test_the_readme_says_what_each_family_can_be():
    said, section = {}, (ROOT / "README.md").read_text(encoding="utf-8").split("### Models")[1]
    for line in section.split("\n\n")[1].splitlines()[2:]:
        names, *ways = [cell.strip() for cell in line.strip("|").split("|")]
        said |= {(family, way): cell.startswith("yes") for family in names.split(", ")
                 for way, cell in zip(WAYS, ways, strict=True)}
    assert said == {(family, way): (family, way) not in REFUSED for family in FAMILIES for way in WAYS}


def test_what_is_known_to_become_onnx_is_what_goes_the_whole_way():
    assert {family.config.model_type for family in FAMILIES.values()} == EXPORTED


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task", "other"), [
    ("GPT-2", "sequence-classification", None), ("RoBERTa", "token-classification", "ModernBERT")])
def test_a_run_from_rows_to_a_package(kdray: Command, tmp_path, family, task, other):
    """The second: a student with layers of a third model, which has another tokenizer."""
    base = make_family(tmp_path / "base", family, task, LABELS[task])
    model = other and str(make_family(tmp_path / "other", other, task, LABELS[task]))
    rows = write_jsonl(tmp_path / "rows.jsonl", (sentences if family == "GPT-2" else tagged)(400))
    config = small_config(tmp_path / "store", rows, base, {
        "task": task, "teacher": {"model": str(base), "finetune": {"epochs": 4, "lr": 3e-3}},
        "student": {"layers": 2, "model": model}, "export": {"max_drop": 1.0}})
    done = kdray("run", str(write_config(tmp_path / "c.yaml", config)), timeout=550)
    assert done.returncode == 0, done.stderr
    (package,) = (tmp_path / "store" / "packages").iterdir()
    made = json.loads((package / "config.json").read_text())
    assert made["model_type"] == FAMILIES[other or family].config.model_type
    assert made.get("n_layer", made.get("num_hidden_layers")) == 2
    answers = pipeline(TASKS[task].pipeline_tag, model=str(package))(["ann was good", "the film was bad"], batch_size=2)
    assert len(answers) == 2


def check(made: Taught, folder: Path, family: str, way: str) -> None:
    source = make_family(folder / "other", family, made.corpus.task.name, made.corpus.labels, seed=1) \
        if way == "model" else made.corpus.model
    subject = Subject("student", student_origin(StudentConfig(model=str(source), **WAYS[way]), source), "float32",
                made.corpus.labels)
    if (family, way) in REFUSED:
        with pytest.raises(ModelError, match=REFUSED[family, way]):
            rehearse(made.corpus.task, subject, LENGTH)
        return
    rehearse(made.corpus.task, subject, LENGTH)
    student = trained(made, subject)
    served(made, student, folder)


def job_of(made: Taught, subject: Subject) -> TrainingJob:
    corpus, settings = made.corpus, TrainingConfig(epochs=1, lr=1e-3, batch_size=16, dropout=0.1)
    return TrainingJob(
        "students", str(corpus.store.root), corpus.task.name, tuple(corpus.labels), corpus.manifest["key"],
        made.cache["key"], subject.origin, str(subject.origin.folder), str(subject.origin.folder),
        corpus.manifest["pad_token_id"], corpus.task.metrics[0], settings.model_dump(), "float32")


def trained(made: Taught, subject: Subject) -> dict[str, Any]:
    """Trains the student, checks that its published folder answers as it does, and returns its manifest."""
    corpus, job = made.corpus, job_of(made, subject)
    live = replace(job, live=Live(str(corpus.model), "", corpus.manifest["key"], job.pad_token_id, "float32"))
    asked, kept = open_targets(corpus.store, live, 0)[1], SoftTargets(corpus.store, made.cache["key"], "validation")
    for row, (units, logits) in enumerate(asked.ask(np.arange(6))):
        assert np.array_equal(units, kept[row][0])
        np.testing.assert_allclose(logits, kept[row][1], atol=1e-2)
    lone_process_group(0)
    run = Run(job, Here(Path(corpus.store.root) / f"checkpoint-{job.key}"), corpus.store)
    student = run.run()
    published = corpus.store.fetch("students", student["key"])
    rows = corpus.rows("validation")
    again = load_model(corpus.task, published, corpus.labels).eval()
    ours, theirs = (logits_of(made, model, rows) for model in (run.model.whole(run.best_weights).eval(), again))
    assert len(theirs) and np.array_equal(ours, theirs) and theirs.std() > 0
    start = build(corpus.task, subject.origin, corpus.labels, job.settings["seed"]).eval()
    assert not np.array_equal(logits_of(made, start, rows), theirs), "it has learnt"
    return student


def logits_of(made: Taught, model: Any, rows: Any) -> np.ndarray:
    pad = made.corpus.manifest["pad_token_id"]
    return np.concatenate(predict(model, made.corpus.task, rows, np.arange(len(rows)), pad))


def served(made: Taught, student: dict[str, Any], folder: Path) -> None:
    """Packages the student, whose ONNX files must answer as it does, and asks each backend."""
    corpus = made.corpus
    package = build_package(corpus.store, f"of {folder.name}", student, student_files(corpus.store, student, 1.0),
                            {"parents": {}}, 1)
    assert package["checks"]["onnx"]["largest_difference"] < 1e-3 and package["checks"]["onnx"]["agreement"] == 1
    where, rows = corpus.store.fetch("packages", package["key"]), corpus.rows("test")
    model = load_model(corpus.task, corpus.store.fetch("students", student["key"]), corpus.labels).eval()
    logits = predict(model, corpus.task, rows, np.arange(len(rows)), corpus.manifest["pad_token_id"])
    wanted = [[corpus.labels[place] for place in part.argmax(-1)] for part in logits]
    sure = [torch.from_numpy(part).softmax(-1).max(-1).values.min().item() for part in logits]
    for backend in ("onnx", "torch"):
        predictor = load_predictor(where, backend, 0, 1, 512, "float32")
        found = predictor.predict([(item, {}) for item in rows.items(corpus.task)])
        assert all(isinstance(one, Prediction) for one in found), found
        assert [one.said for one in found] == wanted, backend
        np.testing.assert_allclose([one.confidence for one in found], sure, atol=1e-4)
