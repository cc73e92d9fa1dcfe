"""A student becomes what it costs to serve: bytes of the file that is served, milliseconds of one text.

Knows nothing about how the student was found.
"""

import time
from typing import Any

import numpy as np

from kdray.corpus.rows import Rows
from kdray.corpus.tokenizer import load_tokenizer
from kdray.evaluation.answers import HERE, Where
from kdray.export.files import KIND, student_files
from kdray.serving.backends import FILES, load_backend
from kdray.serving.predictor import Predictor
from kdray.serving.texts import spread
from kdray.storage import Store
from kdray.tasks import TASKS

_TEXTS = 100
_WARM = 10


def footprint(store: Store, student: dict[str, Any], max_drop: float, threads: int,
              where: Where = HERE) -> dict[str, float]:
    """`bytes` of the file that is served and `milliseconds`, the median of validation texts, each alone on `threads`.

    `student` is the student's manifest, `max_drop` the loss that int8 may have, `where` its file is checked. The times
    are those of the predictor alone, tokenizer included, without HTTP.
    """
    task, labels = TASKS[student["task"]], student["labels"]
    corpus = store.manifest("corpus", student["parents"]["corpus"])
    assert corpus is not None
    files, source = student_files(store, student, max_drop, where), store.fetch("students", student["key"])
    backend = files["backend"]
    folder = source if backend == "torch" else store.fetch(KIND, files["key"])
    predictor = Predictor(task, labels, corpus["max_length"], load_tokenizer(source),
                          load_backend(folder, backend, task, labels, 0, threads), corpus["max_length"])
    items = spread(Rows.of_split(store, corpus, "validation").items(task), _TEXTS)
    times = [_seconds(predictor, item) for item in [*items[:_WARM], *items]][-len(items):]
    return {"bytes": (folder / FILES[backend]).stat().st_size, "milliseconds": float(np.median(times)) * 1000}


def _seconds(predictor: Predictor, item: Any) -> float:
    started = time.perf_counter()
    predictor.predict([(item, {})])
    return time.perf_counter() - started
