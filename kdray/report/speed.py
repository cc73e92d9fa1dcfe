"""Model folders and test inputs become examples a second and latencies, all measured in one run on this machine.

The teacher and the students run as people run them, in `transformers.pipeline` with batches of 32 in
float32; the package as it is served.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdray.corpus.tokenizer import load_tokenizer
from kdray.serving.predictor import load_predictor
from kdray.tasks import Task

ROWS = 512
_BATCH = 32
_ALONE = 200
_SECONDS = 10.0
"""What a slow model may take for its texts alone; it answers as many as it can."""
Model = Callable[[list[Any]], Any]


def measure(task: Task, folders: dict[str, Path], package: Path, items: list[Any], max_length: int,
            threads: int, batch_tokens: int) -> dict[str, dict[str, float]]:
    """{examples_per_second, p50, p99} of the model in each folder, and of the `package` in ONNX int8 as `served`.

    p50 and p99 are milliseconds of one text alone. All cut an item at `max_length` tokens, but for
    token-classification, whose pipeline cuts nowhere.
    """
    torch.set_num_threads(threads)
    found = {name: _times(_pipeline(task, folder, max_length), items) for name, folder in folders.items()}
    predictor = load_predictor(package, "onnx-int8", 0, threads, batch_tokens)
    return {**found, "served": _times(lambda part: predictor.predict([(item, {}) for item in part]), items)}


def _times(run: Model, items: list[Any]) -> dict[str, float]:
    run(items[:_BATCH])
    started = time.perf_counter()
    run(items)
    return {"examples_per_second": len(items) / (time.perf_counter() - started), **_latency(run, items[:_ALONE])}


def _latency(run: Model, items: list[Any]) -> dict[str, float]:
    run(items[:1])
    spent: list[float] = []
    for item in items:
        started = time.perf_counter()
        run([item])
        spent.append(time.perf_counter() - started)
        if sum(spent) > _SECONDS:
            break
    p50, p99 = np.percentile(spent, (50, 99)) * 1000
    return {"p50": float(p50), "p99": float(p99)}


def _pipeline(task: Task, folder: Path, max_length: int) -> Model:
    import transformers

    from kdray.models.architecture import head_class, read

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    cut: dict[str, Any] = {"truncation": True, "max_length": max_length}
    options = cut if task.pipeline_tag == "text-classification" else {}
    found = head_class(task).from_pretrained(str(folder), config=read(folder))
    model: Any = transformers.pipeline(  # type: ignore[call-overload]
        task.pipeline_tag, model=found, tokenizer=load_tokenizer(folder), device="cpu", **options)
    return lambda part: model(part, batch_size=_BATCH)
