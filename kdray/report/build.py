"""The numbers of a finished run become report.json, and from it report.html: one self-contained page.

Knows nothing about how to train or search. The page is drawn from the JSON alone.
"""

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from kdray.config import Config, dump
from kdray.corpus.rows import Rows
from kdray.evaluation.quality import interval_scores
from kdray.export.onnx import INT8, onnx_predict
from kdray.models.forward import decisions
from kdray.progress import duration
from kdray.report.plots import intervals, learning_curves, trial_map
from kdray.report.speed import ROWS, examples_per_second
from kdray.report.table import COLUMNS
from kdray.report.table import rows as table_rows
from kdray.search.describe import describe
from kdray.storage import Store, content_key
from kdray.tasks import TASKS, Task

KIND = "reports"
_PACKAGES = ("kdray", "torch", "transformers", "ray", "deepspeed", "pyarrow", "onnxruntime", "optuna")


def report_key(package: str, sweep: str) -> str:
    """Content key of a report."""
    return content_key({"package": package, "sweep": sweep})


def build_report(store: Store, key: str, config: Config, package: dict[str, Any], sweep: dict[str, Any],
                 evaluation: dict[str, Any], cache: dict[str, Any], corpus: dict[str, Any],
                 teacher: Path) -> dict[str, Any]:
    """Measures speed and the served model's quality, writes both files, and publishes them."""
    numbers = _numbers(store, package, sweep, evaluation, corpus, teacher, config)
    facts = {
        "name": config.name, "task": config.task, "rows": corpus["rows"], "numbers": numbers,
        "trials": sweep["trials"], "winner": sweep["winner"], "lineage": package["lineage"],
        "teacher_seconds": cache["teacher_seconds"], "config": dump(config),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    with store.staging(KIND) as folder:
        (folder / "report.json").write_text(json.dumps(facts, indent=1))
        (folder / "report.html").write_text(draw(facts))
        return store.publish(KIND, key, folder, {
            "parents": {"package": package["key"], "sweep": sweep["key"]}, "numbers": numbers})


def draw(facts: dict[str, Any]) -> str:
    """The page, from the content of report.json."""
    numbers, trials = facts["numbers"], facts["trials"]
    metric = numbers["metric"]
    plots = [("Each distilled trial: temperature, alpha, validation", trial_map(trials, facts["winner"], metric)),
             ("Learning curves", learning_curves(trials, facts["winner"], metric)),
             ("Test split, measured once", intervals(numbers["test"], metric))]
    page = jinja2.Environment(autoescape=True).from_string((Path(__file__).parent / "page.html").read_text())
    return page.render(
        facts, head=[f"test {metric} [95 %]" if name == "metric" else name for name in COLUMNS],
        table=table_rows(numbers), plots=[(title, svg) for title, svg in plots if svg],
        trials=[_trial(row, facts["winner"]) for row in trials], lineage=facts["lineage"].items(),
        cost={"teacher": duration(facts["teacher_seconds"]), "rows": sum(facts["rows"].values()), "trials": len(trials),
              "students": duration(sum(row["seconds"] or 0.0 for row in trials))},
        versions="\n".join(f"{name} {version}" for name, version in facts["versions"].items()))


def _trial(row: dict[str, Any], winner: str) -> dict[str, Any]:
    return {"what": describe(row["point"]), "winner": row["student"] == winner and not row["baseline"],
            "state": row["state"], "epochs": row["epochs"],
            "best": "-" if row["best"] is None else f"{row['best']:.4f}"}


def _numbers(store: Store, package: dict[str, Any], sweep: dict[str, Any], evaluation: dict[str, Any],
             corpus: dict[str, Any], teacher: Path, config: Config) -> dict[str, Any]:
    task, folder = TASKS[package["task"]], store.fetch("packages", package["key"])
    students = {name: store.fetch("students", sweep[name]) for name in ("baseline", "winner")}
    folders = {"teacher": teacher, **students}
    threads = len(os.sched_getaffinity(0))
    rows = Rows(store.fetch("corpus", corpus["key"]), "test")
    items = [task.item(row) for row in rows.raw(task).slice(0, ROWS).to_pylist()]
    speed = examples_per_second(task, folders, folder, items, config.data.max_length, threads,
                                config.serve.batch_tokens)
    return {
        **evaluation["numbers"], "examples_per_second": speed, "timed_rows": len(items), "threads": threads,
        "served": _served(task, store, folder, package, sweep, threads)[evaluation["numbers"]["metric"]],
        "bytes": {**{name: _weights(path) for name, path in folders.items()},
                  "served": package["bytes"][INT8]},
    }


def _served(task: Task, store: Store, folder: Path, package: dict[str, Any], sweep: dict[str, Any],
            threads: int) -> dict[str, Any]:
    """Test metrics of the ONNX int8 model, on the rows as the winner's own tokenizer cuts them."""
    winner = store.manifest("students", sweep["winner"]) or {}
    corpus = store.manifest("corpus", winner["parents"]["corpus"]) or {}
    rows, labels = Rows(store.fetch("corpus", corpus["key"]), "test"), package["labels"]
    whole = np.arange(len(rows))
    logits = onnx_predict(folder / INT8, task, rows, whole, corpus["pad_token_id"], 4096, threads)
    return interval_scores(task, rows.gold(), decisions(task, rows, whole, logits, labels), labels)


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
