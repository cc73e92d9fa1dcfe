"""Model folders and test inputs become examples a second, all measured in one run on this machine.

The teacher and the students run as people run them, in `transformers.pipeline` with batches of 32 in
float32; the package as it is served.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kdray.serving.predictor import load_predictor
from kdray.tasks import Task

ROWS = 512
_BATCH = 32


def examples_per_second(task: Task, folders: dict[str, Path], package: Path, items: list[Any], max_length: int,
                        threads: int, batch_tokens: int) -> dict[str, float]:
    """Rates of the model in each folder, and of the `package` in ONNX int8 under the name `served`.

    All cut an item at `max_length` tokens, but for token-classification, whose pipeline cuts nowhere.
    """
    torch.set_num_threads(threads)
    rates = {name: _rate(_pipeline(task, folder, max_length), items) for name, folder in folders.items()}
    predictor = load_predictor(package, "onnx-int8", 0, threads, batch_tokens)
    return {**rates, "served": _rate(lambda part: predictor.predict([(item, {}) for item in part]), items)}


def _rate(run: Callable[[list[Any]], Any], items: list[Any]) -> float:
    run(items[:_BATCH])
    started = time.perf_counter()
    run(items)
    return len(items) / (time.perf_counter() - started)


def _pipeline(task: Task, folder: Path, max_length: int) -> Callable[[list[Any]], Any]:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    cut: dict[str, Any] = {"truncation": True, "max_length": max_length}
    options = cut if task.pipeline_tag == "text-classification" else {}
    model: Any = transformers.pipeline(task.pipeline_tag, model=str(folder), device="cpu", **options)  # type: ignore
    return lambda part: model(part, batch_size=_BATCH)
