"""Teacher, baseline and winner become numbers on the test split, measured once and kept.

Knows nothing about Ray: the teacher's answers come from the cache, the students are small.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.cache.ensemble import open_cache
from kdray.corpus.rows import Rows
from kdray.evaluation.quality import cached_predictions, interval_scores, model_predictions
from kdray.models.load import count_parameters, load_model
from kdray.storage import Store, content_key
from kdray.tasks import TASKS

KIND = "evaluations"
PREDICTIONS = "predictions.arrow"


def evaluation_key(cache: str, baseline: str, winner: str) -> str:
    """Content key of an evaluation."""
    return content_key({"cache": cache, "baseline": baseline, "winner": winner})


def evaluate(store: Store, key: str, cache: dict[str, Any], baseline: str, winner: str,
             teacher_folder: Path) -> dict[str, Any]:
    """Publishes test metrics with intervals, parameters and bytes of the three, and every prediction."""
    task = TASKS[cache["schema"]["task"]]
    labels = list(cache["schema"]["labels"])
    rows = Rows(store.fetch("corpus", cache["parents"]["corpus"]), "test")
    predicted = {"teacher": cached_predictions(task, open_cache(store, cache["key"], "test"), rows, labels)}
    parameters = {"teacher": count_parameters(load_model(task, teacher_folder, labels))}
    manifests = {name: store.manifest("students", student) or {} for name, student in
                 (("baseline", baseline), ("winner", winner))}
    for name, made in manifests.items():
        corpus = store.manifest("corpus", made["parents"]["corpus"]) or {}
        own = Rows(store.fetch("corpus", corpus["key"]), "test")
        predicted[name], parameters[name] = model_predictions(
            task, store.fetch("students", made["key"]), own, labels, corpus["pad_token_id"])
    gold = rows.gold()
    won = manifests["winner"]
    numbers = {
        "metric": won["metric"], "rows": len(rows),
        "test": {name: interval_scores(task, gold, ids, labels) for name, ids in predicted.items()},
        "validation": {name: made["validation"] for name, made in manifests.items()},
        "parameters": parameters,
        "settings": {name: won["settings"][name] for name in ("loss", "temperature", "alpha", "lr", "epochs")},
    }
    with store.staging(KIND) as folder:
        _write_predictions(folder / PREDICTIONS, gold, predicted)
        parents = {"cache": cache["key"], "baseline": baseline, "winner": winner}
        return store.publish(KIND, key, folder, {"parents": parents, "numbers": numbers})


def _write_predictions(path: Path, gold: list[np.ndarray], predicted: dict[str, list[np.ndarray]]) -> None:
    """One row a test row: label ids of its units, the truth and what each model says."""
    table = pa.table({name: pa.array(ids, pa.list_(pa.int32())) for name, ids in {"gold": gold, **predicted}.items()})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
