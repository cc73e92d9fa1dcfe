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


def evaluation_key(teacher: str, pairs: list[dict[str, Any]]) -> str:
    """Content key of an evaluation; `teacher` is the cache's key, or a live teacher's fingerprint."""
    return content_key({"teacher": teacher, "pairs": pairs})


def evaluate(store: Store, key: str, task: Task, corpus: dict[str, Any], teacher: Path, cache: str | None,
             pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Publishes `numbers` and a `breakdown` by class of teacher, baseline and winner, and every prediction.

    `corpus` is the manifest of the rows as the folder `teacher` reads them. The teacher's answers are those of `cache`;
    it runs where that is None. `pairs` are {seed, winner, baseline}, keys of students; the first pair is the sweep's.
    """
    labels, rows = list(corpus["labels"]), Rows.open(store.fetch("corpus", corpus["key"]), "test")
    said, parameters = _teacher(store, task, corpus, teacher, cache, rows)
    made = {(name, number): _student(store, task, pair[name], labels)
            for number, pair in enumerate(pairs) for name in _PAIR}
    first = {"teacher": said, **{name: made[name, 0][0] for name in _PAIR}}
    manifests = {name: made[name, 0][2] for name in _PAIR}
    gold, won = rows.gold(), manifests["winner"]
    ids = [(pair["seed"], made["winner", number][0].ids, made["baseline", number][0].ids)
           for number, pair in enumerate(pairs)]
    numbers = {
        "metric": won["metric"], "rows": len(rows),
        "test": {name: interval_scores(task, gold, found.ids, labels) for name, found in first.items()},
        "validation": {name: student["validation"] for name, student in manifests.items()},
        "parameters": {"teacher": parameters, **{name: made[name, 0][1] for name in _PAIR}},
        "settings": {name: won["settings"][name] for name in ("loss", "temperature", "alpha", "lr", "epochs")},
        "seeds": paired(task, won["metric"], gold, ids, labels),
        "mcnemar": mcnemar(gold, first["winner"].ids, first["baseline"].ids),
    }
    students = [pair[name] for pair in pairs for name in _PAIR]
    with store.staging(KIND) as folder:
        _write_predictions(folder / PREDICTIONS, gold, first, ids[1:])
        return store.publish(KIND, key, folder, {
            "parents": {"corpus": corpus["key"], "cache": cache, "students": students}, "numbers": numbers,
            "breakdown": {name: breakdown(gold, found, labels) for name, found in first.items()}})


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
                       others: list[tuple[int, list[np.ndarray], list[np.ndarray]]]) -> None:
    """One row a test row, a list over its units in each column.

    Label ids of the truth, of each model and of the other seeds' students; confidence of each model; and `divergence`,
    KL(teacher || winner) in nats.
    """
    ids = {"gold": gold, **{name: found.ids for name, found in models.items()}}
    for seed, winner, baseline in others:
        ids |= {f"winner_{seed}": winner, f"baseline_{seed}": baseline}
    reals = {f"{name}_confidence": found.confidence for name, found in models.items()}
    reals["divergence"] = divergences(models["teacher"], models["winner"])
    table = pa.table({name: pa.array(column, pa.list_(kind)) for kind, columns in
                      ((pa.int32(), ids), (pa.float32(), reals)) for name, column in columns.items()})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
