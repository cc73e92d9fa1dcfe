"""Tasks beside classification and entities, each from rows to a package that answers."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from kdray.config import ServeConfig
from kdray.serving.predictor import load_predictor
from kdray.serving.teacher import threshold
from tests.integration.conftest import Command, run_task, small_config, write_config
from tests.small import make_model, sentences, write_jsonl

TUNED = {"epochs": 8, "lr": 3e-3}


def several(count: int) -> list[dict[str, Any]]:
    """Sentences labelled by which of some words are in them: none, one or two."""
    return [{"text": row["text"], "tags": "; ".join(
        ["praise"] * (row["label"] == "positive") + ["film"] * ("film" in row["text"]))} for row in sentences(count)]


def scored(count: int) -> list[dict[str, Any]]:
    """Sentences with a number: 4 for a good word, 1 for a bad one, and a half where there is a film."""
    return [{"text": row["text"], "score": (4 if row["label"] == "positive" else 1) + ("film" in row["text"]) / 2}
            for row in sentences(count)]


def as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(kdray: Command, folder: Path, task: str, changes: dict[str, Any]) -> tuple[str, Path, dict[str, Any]]:
    """What a run printed, its package and its evaluation."""
    base = make_model(folder / "base")
    done = run_task(kdray, folder, folder, base, {
        "task": task, "teacher": {"model": str(base), "finetune": TUNED}, "training": {"epochs": 4, "lr": 3e-3},
        **changes})
    (package,), (evaluation,) = ((folder / "store" / kind).iterdir() for kind in ("packages", "evaluations"))
    return done.stdout, package, json.loads((evaluation / "manifest.json").read_text())


@pytest.fixture(scope="module")
def labelled(kdray_here: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, Any]]:
    """A run with several labels a row."""
    folder = tmp_path_factory.mktemp("several")
    rows = as_csv(folder / "rows.csv", several(500))
    return run(kdray_here, folder, "multi-label-classification", {
        "data": {"source": str(rows), "columns": {"labels": "tags"}, "separator": ";", "max_length": 32}})


def test_several_labels_a_row(labelled: tuple[str, Path, dict[str, Any]]) -> None:
    printed, package, made = labelled
    assert made["numbers"]["test"]["teacher"]["micro_f1"]["value"] > 0.8
    assert set(made["numbers"]["test"]["winner"]) == {"micro_f1", "macro_f1", "subset_accuracy"}
    assert {line["label"] for line in made["breakdown"]["winner"]["classes"]} == {"film", "praise"}
    assert set(made["numbers"]["thresholds"]) == {"teacher", "baseline", "winner"}
    assert json.loads((package / "manifest.json").read_text())["threshold"] == made["numbers"]["thresholds"]["winner"]
    assert "settles decisions at a threshold" in (package / "README.md").read_text()
    config = json.loads((package / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    (prediction,) = load_predictor(package, "auto", 0, 1, 1024).predict([("the film was great", {})])
    assert "film" in prediction.said[0] and {one["label"] for one in prediction.answer} == {"film", "praise"}
    assert "micro_f1" in printed and "kdray serve" in printed


def test_a_cascade_is_tuned_on_what_student_and_teacher_say_at_their_own_thresholds(
        labelled: tuple[str, Path, dict[str, Any]]) -> None:
    manifest = labelled[1] / "manifest.json"
    made = json.loads(manifest.read_text())
    least, never = [], 1e9
    for teacher in (made["numbers"]["thresholds"]["teacher"], never):
        numbers = {**made["numbers"], "thresholds": {**made["numbers"]["thresholds"], "teacher": teacher}}
        manifest.write_text(json.dumps({**made, "threshold": never, "numbers": numbers}))
        least.append(threshold(str(labelled[1]), ServeConfig(), 1.0))
    manifest.write_text(json.dumps(made))
    assert least[0] > 0 == least[1], "a student that says nothing needs its teacher, but for one that says nothing too"


def test_a_score_a_row(kdray_here: Command, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", scored(500))
    printed, package, made = run(kdray_here, tmp_path, "regression", {"data": {"source": str(rows), "max_length": 32}})
    assert made["numbers"]["test"]["teacher"]["spearman"]["value"] > 0.7
    assert set(made["numbers"]["test"]["winner"]) == {"spearman", "pearson", "rmse"}
    assert "mcnemar" not in made["numbers"] and made["numbers"]["settings"]["loss"] == "kl"
    good, bad = load_predictor(package, "auto", 0, 1, 1024).predict([("a great story", {}), ("a dull story", {})])
    assert good.answer[0]["score"] > bad.answer[0]["score"] + 1 and good.answer[0]["label"] == "score"
    page = Path(printed.split("report:  ")[1].split("\n")[0]).read_text()
    assert "What is said against what is true" in page and "Confusion" not in page and "Calibration" not in page


@pytest.mark.parametrize("task, row", [("regression", {"text": "fine", "score": 2}), ("question-answering", {
    "question": "what", "context": "fine", "answers": []})])
def test_rows_that_all_say_the_same_are_refused_before_work(kdray_here: Command, tmp_path: Path, task: str,
                                                            row: dict[str, Any]) -> None:
    text = "context" if "context" in row else "text"
    rows = write_jsonl(tmp_path / "rows.jsonl", [{**row, text: f"{row[text]} {number}"} for number in range(40)])
    base = make_model(tmp_path / "base")
    config = small_config(tmp_path / "store", rows, base, {
        "task": task, "teacher": {"model": str(base), "finetune": TUNED}})
    done = kdray_here("run", str(write_config(tmp_path / "c.yaml", config)))
    assert done.returncode == 1 and "all rows of the train split say the same (" in done.stderr
    assert not (tmp_path / "store" / "teachers").exists()


@pytest.mark.parametrize("task, override, words", [
    ("regression", "search.space={temperature: {min: 1, max: 4}}", "numbers have no temperature"),
    ("regression", "training.loss=annealing", "regression has no temperature"),
    ("regression", "training.confidence=weight", "regression has no temperature"),
    ("regression", "search.metric=rmse", "only spearman, pearson"),
    ("question-answering", "training.loss=mse", "question-answering has no such loss. Leave it out; its losses are kl"),
    ("sequence-classification", "data.columns={label: many}", "multi-label-classification")])
def test_what_a_task_cannot_do_is_refused_before_work(kdray_here: Command, tmp_path: Path, task: str, override: str,
                                                      words: str) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "fine", "score": 1.5, "label": "a", "many": ["a", "b"]},
                                                 {"text": "bad", "score": 0.5, "label": "b", "many": ["b"]}])
    config = small_config(tmp_path / "store", rows, make_model(tmp_path / "base"), {"task": task})
    done = kdray_here("run", str(write_config(tmp_path / "c.yaml", config)), override)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "store" / "caches").exists()
