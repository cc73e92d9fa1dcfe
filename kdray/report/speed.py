"""Model folders and test inputs become examples a second and latencies, all measured in one run on this machine.

The teacher and the students run as people run them, in `transformers.pipeline` with batches of 32 in
float32; the package as it is served. They take turns, and what is told is the median of their turns: a machine that
others share is slower at one moment than at the next.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdray.corpus.tokenizer import load_tokenizer
from kdray.models.folder import label_order
from kdray.serving.backends import torch_model
from kdray.serving.predictor import Predictor, load_predictor
from kdray.serving.texts import spread
from kdray.tasks import Task

ROWS = 512
TURNS = 5
_BATCH = 32
_TOGETHER = 0.4
"""Seconds that the slowest model's turn with many texts may take; with fewer than two batches it says nothing."""
_ALONE, _SECONDS = 200, 5.0
"""Texts that each model answers alone over all turns, and what the slowest may take for them."""
Model = Callable[[list[Any]], Any]


def measure(task: Task, folders: dict[str, Path], package: Path, items: list[Any], max_length: int,
            threads: int, batch_tokens: int) -> dict[str, dict[str, float]]:
    """{examples_per_second, p50, p99} of the model in each folder, and of the `package` as `served` by its own backend.

    p50 and p99 are milliseconds of one text alone. All cut an item at `max_length` tokens, but for the package of a
    token-classification, which reads the rest as further rows.
    """
    torch.set_num_threads(threads)
    models = {name: _pipeline(task, folder, max_length) if task.piped else _own(task, folder, max_length, threads,
                                                                                batch_tokens)
              for name, folder in folders.items()}
    predictor = load_predictor(package, "auto", 0, threads, batch_tokens)
    return take_turns({**models, "served": lambda part: predictor.predict([(item, {}) for item in part])}, items)


def take_turns(models: dict[str, Model], items: list[Any]) -> dict[str, dict[str, float]]:
    """{examples_per_second, p50, p99} of each model, on the same texts."""
    many = spread(items, max(2 * _BATCH, int(_TOGETHER / _slowest(models, items[:_BATCH]))))
    alone = spread(items, max(TURNS, min(_ALONE, int(_SECONDS / _slowest(models, items[:1])))))
    rates: dict[str, list[float]] = {name: [] for name in models}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(TURNS):
        for name, model in models.items():
            rates[name].append(len(many) / _seconds(model, many))
            times[name] += [_seconds(model, [item]) * 1000 for item in alone[turn::TURNS]]
    found = {}
    for name in models:
        p50, p99 = np.percentile(times[name], (50, 99))
        found[name] = {"examples_per_second": float(np.median(rates[name])), "p50": float(p50), "p99": float(p99)}
    return found


def _slowest(models: dict[str, Model], items: list[Any]) -> float:
    """Seconds an item of the slowest model, when it is warm."""
    for model in models.values():
        model(items)
    return max(_seconds(model, items) for model in models.values()) / len(items)


def _seconds(run: Model, items: list[Any]) -> float:
    started = time.perf_counter()
    run(items)
    return time.perf_counter() - started


def _own(task: Task, folder: Path, max_length: int, threads: int, batch_tokens: int) -> Model:
    """The model in PyTorch float32, as kdray serves one: for tasks that `transformers` has no pipeline for."""
    labels = list(task.names) or label_order(folder) or []
    predictor = Predictor(task, labels, max_length, load_tokenizer(folder),
                          torch_model(folder, task, labels, 0, threads, "float32"), batch_tokens)
    return lambda part: predictor.predict([(item, {}) for item in part])


def _pipeline(task: Task, folder: Path, max_length: int) -> Model:
    import transformers

    from kdray.models.architecture import head_class, read

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    found = head_class(task).from_pretrained(str(folder), config=read(folder))
    model: Any = transformers.pipeline(  # type: ignore[call-overload]
        task.pipeline_tag, model=found, tokenizer=load_tokenizer(folder), device="cpu",
        **task.cut_by_pipeline(max_length))
    model.tokenizer.model_max_length = max_length  # at which the pipelines that take no such option cut
    return lambda part: model(part, batch_size=_BATCH)
