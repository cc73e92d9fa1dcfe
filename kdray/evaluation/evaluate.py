"""Teacher, baselines and winners become numbers on the test split, measured once and kept.

Knows nothing about Ray: where models are asked is handed in; the teacher's answers come from the cache where there is
one.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.cache.truth import truth
from kdray.corpus.rows import Rows
from kdray.evaluation.answers import HERE, Answers, Asked, Where, ask
from kdray.evaluation.comparison import Ids, mcnemar, paired
from kdray.evaluation.quality import interval_scores
from kdray.models.folder import at
from kdray.models.load import count_parameters, load_model
from kdray.storage import Store, content_key
from kdray.tasks import Task

KIND = "evaluations"
PREDICTIONS = "predictions.arrow"
_PAIR = ("baseline", "winner")
_TEACHER = "teacher"


def evaluation_key(teacher: str, chosen: dict[str, Any]) -> str:
    """Content key of an evaluation; `teacher` is the cache's key, or a live teacher's fingerprint."""
    return content_key({"layout": 2, "teacher": teacher, **{name: chosen[name] for name in ("pairs", "seeds", *_PAIR)}})


def evaluate(store: Store, key: str, task: Task, corpus: dict[str, Any], teacher: str, cache: str | None,
             chosen: dict[str, Any], where: Where = HERE) -> dict[str, Any]:
    """Publishes `numbers` and a `breakdown` by class of teacher, baseline and winner, and every prediction.

    `corpus` is the manifest of the rows as the model at the place `teacher` reads them. The teacher's answers are those
    of `cache`; it is asked where that is None. `chosen` has the keys of `winner` and `baseline`, the `pairs` {seed,
    winner, baseline} that they are of, and on how many `seeds` pairs were to be trained.
    """
    labels = list(corpus["labels"])
    gold = Rows.of_split(store, corpus, "test").gold(task.output.shape(len(labels)))
    true, pairs = truth(store, corpus, "test", cache), chosen["pairs"]
    students = [pair[name] for pair in pairs for name in _PAIR]
    manifests = {student: store.manifest("students", student) or {} for student in students}
    shown = {"teacher": _TEACHER, **{name: chosen[name] for name in _PAIR}}
    thresholds = {_TEACHER: _threshold(store, task, corpus, teacher, cache, where),
                  **{student: made.get("threshold", 0.0) for student, made in manifests.items()}}
    said = _said(store, task, corpus, teacher, cache, manifests, shown["winner"], thresholds, where)
    ids = {key: answers.by_row() for key, answers in said.items()}
    models = {name: said[key] for name, key in shown.items()}
    named = {name: ids[key] for name, key in shown.items()}
    sides = [(pair["seed"], ids[pair["winner"]], ids[pair["baseline"]]) for pair in pairs]
    won = manifests[shown["winner"]]
    numbers = {
        "metric": won["metric"], "rows": len(gold),
        "test": {name: interval_scores(task, true, found, labels) for name, found in named.items()},
        "validation": {name: manifests[shown[name]]["validation"] for name in _PAIR},
        "parameters": {name: found.parameters or _parameters(task, teacher, labels) for name, found in models.items()},
        **({"thresholds": {name: thresholds[key] for name, key in shown.items()}} if task.output.tunable else {}),
        "settings": {name: won["settings"][name] for name in ("loss", "temperature", "alpha", "lr", "epochs")},
        "seeds": {"asked": chosen["seeds"], **paired(task, won["metric"], true, sides, labels)},
        **({"mcnemar": mcnemar(true, named["winner"], named["baseline"], task.right)} if task.output.whole else {}),
    }
    with store.staging(KIND) as folder:
        _write_predictions(folder / PREDICTIONS, gold, models, sides if len(sides) > 1 else [])
        return store.publish(KIND, key, folder, {
            "parents": {"corpus": corpus["key"], "cache": cache, "students": students}, "numbers": numbers,
            "breakdown": {name: task.output.breakdown(np.concatenate(gold), found.decided, found.confidence, labels)
                          for name, found in models.items()}})


def _said(store: Store, task: Task, corpus: dict[str, Any], teacher: str, cache: str | None,
          students: dict[str, dict[str, Any]], winner: str, thresholds: dict[str, float],
          where: Where) -> dict[str, Answers]:
    """Answers of the teacher and of each student by its key; the winner's say how far they are from the teacher's."""
    own = _asked(store, task, corpus, teacher, cache, where)
    asked = {_TEACHER: replace(own, threshold=thresholds[_TEACHER])}
    asked |= {key: replace(own, corpus=made["parents"]["corpus"], cache="", place=store.uri_of("students", key),
                           threshold=thresholds[key]) for key, made in students.items()}
    groups = [(_TEACHER, winner), *((key,) for key in students if key != winner)]
    found = ask([tuple(asked[key] for key in group) for group in groups], corpus["rows"]["test"], where)
    return {key: answers for group, parts in zip(groups, found, strict=True)
            for key, answers in zip(group, parts, strict=True)}


def _asked(store: Store, task: Task, corpus: dict[str, Any], teacher: str, cache: str | None, where: Where) -> Asked:
    """The teacher and the test split."""
    own = Asked(store.uri, task.name, tuple(corpus["labels"]), corpus["key"], "test", num_gpus=where.num_gpus)
    return replace(own, cache=cache) if cache else replace(own, place=teacher)


def _threshold(store: Store, task: Task, corpus: dict[str, Any], teacher: str, cache: str | None,
               where: Where) -> float:
    """The teacher's, tuned on validation as the students' are; 0 where the task has none."""
    if not task.output.tunable:
        return 0.0
    asked = replace(_asked(store, task, corpus, teacher, cache, where), split="validation", threshold=None)
    ((answers,),) = ask([(asked,)], corpus["rows"]["validation"], where)
    return task.tuned(truth(store, corpus, "validation", cache), answers.by_row())


def _parameters(task: Task, teacher: str, labels: list[str]) -> int:
    return count_parameters(load_model(task, at(teacher), labels))


def _write_predictions(path: Path, gold: Ids, models: dict[str, Answers], pairs: list[tuple[int, Ids, Ids]]) -> None:
    """One row a test row, a list over its units in each column; of decisions of several numbers, one after another.

    The truth, decisions of each model and of every seed's students; confidence of each model; and `divergence`,
    KL(teacher || winner) in nats.
    """
    said = {"gold": np.concatenate(gold), **{name: found.decided for name, found in models.items()}}
    for seed, winner, baseline in pairs:
        said |= {f"winner_{seed}": np.concatenate(winner), f"baseline_{seed}": np.concatenate(baseline)}
    reals = {f"{name}_confidence": found.confidence for name, found in models.items()}
    reals["divergence"] = models["winner"].divergence
    ends = np.cumsum([0, *map(len, gold)], dtype=np.int32)
    table = pa.table({name: _lists(column, ends) for name, column in {**said, **reals}.items()})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def _lists(column: np.ndarray, ends: np.ndarray) -> pa.ListArray:
    """A column (units, ...) as lists of the rows, whose units end where `ends` says."""
    width = math.prod(column.shape[1:])
    kind = pa.int32() if column.dtype.kind == "i" else pa.float32()
    return pa.ListArray.from_arrays(pa.array(ends * width, pa.int32()), pa.array(column.ravel(), kind))
