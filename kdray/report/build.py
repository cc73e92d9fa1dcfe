"""What a finished run made becomes report.json, and from it report.html: one self-contained page.

Knows nothing about how to train or search, nor about what the page looks like.
"""

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from kdray.cache.truth import truth
from kdray.config import Config
from kdray.corpus.rows import Rows
from kdray.evaluation.answers import HERE, Asked, Where, ask
from kdray.evaluation.evaluate import KIND as EVALUATIONS
from kdray.evaluation.evaluate import PREDICTIONS
from kdray.evaluation.quality import interval_scores
from kdray.report.examples import most_different
from kdray.report.facts import FACTS, KIND, VERSION
from kdray.report.page import draw
from kdray.report.speed import ROWS, measure
from kdray.serving.backends import FILES
from kdray.storage import Store, content_key
from kdray.tasks import TASKS, Task

_PACKAGES = ("kdray", "torch", "transformers", "ray", "deepspeed", "pyarrow", "onnxruntime", "optuna")
_BATCH_TOKENS = 4096


def report_key(package: str, sweep: str) -> str:
    """Content key of a report."""
    return content_key({"package": package, "sweep": sweep, "version": VERSION})


def build_report(store: Store, key: str, config: Config, package: dict[str, Any], sweep: dict[str, Any],
                 evaluation: dict[str, Any], cache: dict[str, Any] | None, corpus: dict[str, Any],
                 teacher: Path, where: Where = HERE) -> dict[str, Any]:
    """Measures speed here and the served model's quality `where` models are asked, and publishes both files.

    `cache` is None where the teacher ran beside the students, `corpus` is that of the folder `teacher`.
    """
    task, rows = TASKS[package["task"]], Rows.of_split(store, corpus, "test")
    numbers = _numbers(store, package, sweep, evaluation, rows, teacher, config, where)
    facts = {
        "version": VERSION, "name": config.name, "task": config.task, "rows": corpus["rows"],
        "labels": corpus["labels"], "numbers": numbers, "breakdown": evaluation["breakdown"],
        "examples": most_different(store.fetch(EVALUATIONS, evaluation["key"]) / PREDICTIONS, rows, task,
                                   corpus["labels"]),
        **{name: sweep.get(name) for name in ("trials", "winner", "baseline", "students", "constraint")},
        "teacher_seconds": cache and cache["teacher_seconds"], "lineage": package["lineage"],
        "config": config.model_dump(mode="json"),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    with store.staging(KIND) as folder:
        (folder / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
        (folder / "report.html").write_text(draw(facts), encoding="utf-8")
        return store.publish(KIND, key, folder, {
            "parents": {"package": package["key"], "sweep": sweep["key"]}, "numbers": numbers})


def _numbers(store: Store, package: dict[str, Any], sweep: dict[str, Any], evaluation: dict[str, Any], rows: Rows,
             teacher: Path, config: Config, where: Where) -> dict[str, Any]:
    """The evaluation's, with the package's under the name `served`, and sizes and speeds."""
    task, folder = TASKS[package["task"]], store.fetch("packages", package["key"])
    students = {name: store.fetch("students", sweep[name]) for name in ("baseline", "winner")}
    folders, found = {"teacher": teacher, **students}, evaluation["numbers"]
    threads = len(os.sched_getaffinity(0))
    items = [task.item(row) for row in rows.raw(task).slice(0, ROWS).to_pylist()]
    return {
        **found, "test": {**found["test"], "served": _served(task, store, package, sweep, where)},
        "parameters": {**found["parameters"], "served": found["parameters"]["winner"]},
        "bytes": {**{name: _weights(path) for name, path in folders.items()},
                  "served": (folder / FILES[package["backend"]]).stat().st_size},
        "speed": measure(task, folders, folder, items, config.data.max_length, threads, config.serve.batch_tokens),
        "backend": package["backend"], "refused": package["refused"], "timed_rows": len(items), "threads": threads,
    }


def _served(task: Task, store: Store, package: dict[str, Any], sweep: dict[str, Any], where: Where) -> dict[str, Any]:
    """Test metrics of what is served, on the rows as the winner's own tokenizer cuts them."""
    winner, labels, backend = store.manifest("students", sweep["winner"]) or {}, package["labels"], package["backend"]
    corpus = store.manifest("corpus", winner["parents"]["corpus"]) or {}
    served = Asked(store.uri, task.name, tuple(labels), corpus["key"], "test", store.uri_of("packages", package["key"]),
                   "" if backend == "torch" else FILES[backend], batch_tokens=_BATCH_TOKENS,
                   threshold=package.get("threshold", 0.0))
    true = truth(store, corpus, "test", winner["parents"].get("cache"))
    ((answers,),) = ask([(served,)], len(true), where)
    return interval_scores(task, true, answers.by_row(), labels)


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
