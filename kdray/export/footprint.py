"""A student becomes what it costs to serve: bytes of its ONNX int8 file, milliseconds of one text.

Knows nothing about how the student was found.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from kdray.corpus.rows import Rows
from kdray.corpus.tokenizer import load_tokenizer
from kdray.export.onnx import INT8, export_onnx, quantise
from kdray.models.forward import collate, taken
from kdray.models.load import load_model
from kdray.serving.backends import load_backend
from kdray.serving.predictor import Predictor
from kdray.serving.texts import spread
from kdray.storage import Store
from kdray.tasks import TASKS

_TEXTS = 100
_WARM = 10


def footprint(store: Store, student: dict[str, Any], threads: int) -> dict[str, float]:
    """`bytes` of the int8 file and `milliseconds`, the median of validation texts, each alone on `threads` threads.

    `student` is the student's manifest. The times are those of the predictor alone, tokenizer included, without HTTP.
    """
    task, labels = TASKS[student["task"]], student["labels"]
    corpus = store.manifest("corpus", student["parents"]["corpus"])
    assert corpus is not None
    rows = Rows.open(store.fetch("corpus", corpus["key"]), "validation")
    source = store.fetch("students", student["key"])
    with tempfile.TemporaryDirectory(prefix="kdray-footprint-") as name:
        folder = Path(name)
        model = load_model(task, source, labels).eval()
        export_onnx(model, list(taken(model, collate(rows, np.arange(1), corpus["pad_token_id"]).model)), folder)
        quantise(folder)
        predictor = Predictor(task, labels, corpus["max_length"], load_tokenizer(source),
                              load_backend(folder, "onnx-int8", task, labels, 0, threads), corpus["max_length"])
        items = spread(rows.items(task), _TEXTS)
        times = [_seconds(predictor, item) for item in [*items[:_WARM], *items]][-len(items):]
        return {"bytes": (folder / INT8).stat().st_size, "milliseconds": float(np.median(times)) * 1000}


def _seconds(predictor: Predictor, item: Any) -> float:
    started = time.perf_counter()
    predictor.predict([(item, {})])
    return time.perf_counter() - started
