"""Teacher, baselines and winners become numbers on the test split, measured once and kept.

Knows nothing about Ray: the teacher's answers come from the cache where there is one, the students are small.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.cache.ensemble import open_cache
from kdray.corpus.rows import Rows
from kdray.evaluation.breakdown import breakdown
from kdray.evaluation.comparison import mcnemar, paired
from kdray.evaluation.quality import Predictions, cached_predictions, divergences, interval_scores, model_predictions
from kdray.models.load import count_parameters, load_model
from kdray.storage import Store, content_key
from kdray.tasks import Task

KIND = "evaluations"
PREDICTIONS = "predictions.arrow"
_PAIR = ("baseline", "winner")


def evaluation_key(teacher: str, chosen: dict[str, Any]) -> str:
    """Content key of an evaluation; `teacher` is the cache's key, or a live teacher's fingerprint."""
    return content_key({"layout": 2, "teacher": teacher, **{name: chosen[name] for name in ("pairs", "seeds", *_PAIR)}})


def evaluate(store: Store, key: str, task: Task, corpus: dict[str, Any], teacher: Path, cache: str | None,
             chosen: dict[str, Any]) -> dict[str, Any]:
    """Publishes `numbers` and a `breakdown` by class of teacher, baseline and winner, and every prediction.

    `corpus` is the manifest of the rows as the folder `teacher` reads them. The teacher's answers are those of `cache`;
    it runs where that is None. `chosen` has the keys of `winner` and `baseline`, the `pairs` {seed, winner, baseline}
    that they are of, and on how many `seeds` pairs were to be trained.
    """
    labels, rows = list(corpus["labels"]), Rows.open(store.fetch("corpus", corpus["key"]), "test")
    said, parameters = _teacher(store, task, corpus, teacher, cache, rows)
    pairs = chosen["pairs"]
    students = [pair[name] for pair in pairs for name in _PAIR]
    made = {student: _student(store, task, student, labels) for student in dict.fromkeys(students)}
    sides = {name: made[chosen[name]] for name in _PAIR}
    models = {"teacher": said, **{name: predictions for name, (predictions, *_) in sides.items()}}
    gold, won = rows.gold(), sides["winner"][2]
    ids = [(pair["seed"], *(made[pair[name]][0].ids for name in ("winner", "baseline"))) for pair in pairs]
    numbers = {
        "metric": won["metric"], "rows": len(rows),
        "test": {name: interval_scores(task, gold, found.ids, labels) for name, found in models.items()},
        "validation": {name: manifest["validation"] for name, (*_, manifest) in sides.items()},
        "parameters": {"teacher": parameters, **{name: count for name, (_, count, _) in sides.items()}},
        "settings": {name: won["settings"][name] for name in ("loss", "temperature", "alpha", "lr", "epochs")},
        "seeds": {"asked": chosen["seeds"], **paired(task, won["metric"], gold, ids, labels)},
        "mcnemar": mcnemar(gold, models["winner"].ids, models["baseline"].ids),
    }
    with store.staging(KIND) as folder:
        _write_predictions(folder / PREDICTIONS, gold, models, ids if len(ids) > 1 else [])
        return store.publish(KIND, key, folder, {
            "parents": {"corpus": corpus["key"], "cache": cache, "students": students}, "numbers": numbers,
            "breakdown": {name: breakdown(gold, found, labels) for name, found in models.items()}})


def _teacher(store: Store, task: Task, corpus: dict[str, Any], folder: Path, cache: str | None,
             rows: Rows) -> tuple[Predictions, int]:
    labels = list(corpus["labels"])
    if cache is None:
        return model_predictions(task, folder, rows, labels, corpus["pad_token_id"])
    found = cached_predictions(task, open_cache(store, cache, "test"), rows, labels)
    return found, count_parameters(load_model(task, folder, labels))


def _student(store: Store, task: Task, key: str, labels: list[str]) -> tuple[Predictions, int, dict[str, Any]]:
    """Predictions on the rows as the student's own tokenizer cuts them, parameters, and manifest."""
    manifest = store.manifest("students", key) or {}
    corpus = store.manifest("corpus", manifest["parents"]["corpus"]) or {}
    rows = Rows.open(store.fetch("corpus", corpus["key"]), "test")
    return *model_predictions(task, store.fetch("students", key), rows, labels, corpus["pad_token_id"]), manifest


def _write_predictions(path: Path, gold: list[np.ndarray], models: dict[str, Predictions],
                       pairs: list[tuple[int, list[np.ndarray], list[np.ndarray]]]) -> None:
    """One row a test row, a list over its units in each column.

    Label ids of the truth, of each model and of every seed's students; confidence of each model; and `divergence`,
    KL(teacher || winner) in nats.
    """
    ids = {"gold": gold, **{name: found.ids for name, found in models.items()}}
    for seed, winner, baseline in pairs:
        ids |= {f"winner_{seed}": winner, f"baseline_{seed}": baseline}
    reals = {f"{name}_confidence": found.confidence for name, found in models.items()}
    reals["divergence"] = divergences(models["teacher"], models["winner"])
    table = pa.table({name: pa.array(column, pa.list_(kind)) for kind, columns in
                      ((pa.int32(), ids), (pa.float32(), reals)) for name, column in columns.items()})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
