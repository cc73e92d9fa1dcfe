"""A model of vectors becomes one of shorter vectors: with a dense layer of their principal directions at its end.

Cosines are taken from the origin, and so are the directions: eigenvectors of the vectors' second moment. The layer has
its place where sentence-transformers has it, before the division by the length. Knows nothing about where texts are
from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import DataError, ModelError
from kdray.models.embedder import Embedder
from kdray.models.folder import at, label_order
from kdray.models.forward import taken
from kdray.models.load import load_model, save_model
from kdray.models.pooling import Dense, must_pool
from kdray.models.precision import device
from kdray.tasks import TASKS, Task

SAMPLE = 8192
"""Rows of train that directions are found from."""
_ROWS = 1024
"""Texts of a call."""
_BATCH = 32
Call = tuple[str, str, int, float, list[str], int, int]


def check_shorter(folder: Path, dimensions: int) -> None:
    """Raises ModelError where the model's vectors cannot be cut to so many numbers by a dense layer at its end."""
    pooling = must_pool(folder)
    if dimensions >= pooling.dimensions:
        raise ModelError(f"teacher.dimensions = {dimensions} must be below the {pooling.dimensions} of teacher.model "
                         f"({folder}). Leave it out to keep them all")
    if pooling.dense and pooling.dense.activation != "Identity":
        raise ModelError(f"teacher.dimensions = {dimensions}: the dense layer of teacher.model ({folder}) ends in "
                         f"{pooling.dense.activation}, and none can follow it. Take another teacher")


def calls(place: str, task: Task, max_length: int, num_gpus: float, texts: Sequence[str]) -> list[Call]:
    """Arguments of `moment` for some of the texts at a time."""
    return [(place, task.name, max_length, num_gpus, list(texts[start:start + _ROWS]), start,
             min(start + _ROWS, len(texts))) for start in range(0, len(texts), _ROWS)]


def moment(place: str, task: str, max_length: int, num_gpus: float, texts: list[str], start: int,
           stop: int) -> np.ndarray:
    """Sum of the outer products of the texts' vectors, float64 (numbers, numbers), by the model at `place`."""
    on = device(num_gpus)
    tokenizer, model = _opened(place, task, num_gpus)
    found = torch.zeros(())
    with torch.no_grad():
        for part in _parts(sorted(texts, key=len)):
            inputs = tokenizer(part, padding=True, truncation=True, max_length=max_length, return_tensors="pt").to(on)
            vectors = model(**taken(model, dict(inputs))).logits.double().cpu()
            found = found + vectors.T @ vectors
    return found.numpy()


def write_shorter(task: Task, folder: Path, moments: Iterator[np.ndarray], dimensions: int, target: Path) -> float:
    """Writes the model with `dimensions`; returns the share of the vectors' squared length that they keep.

    Raises DataError where there are fewer texts than directions.
    """
    width = must_pool(folder).dimensions
    try:
        values, vectors = np.linalg.eigh(sum(moments, np.zeros((width, width))))
    finally:
        _opened.cache_clear()
    if values[-dimensions] <= values[-1] * 1e-9:
        raise DataError(f"teacher.dimensions = {dimensions}: the texts of train have fewer directions. Give more "
                        "texts, or lower it")
    model: Embedder = load_model(task, folder, label_order(folder, task) or [])
    _shorten(model, torch.from_numpy(np.ascontiguousarray(vectors[:, ::-1][:, :dimensions].T)).float())
    save_model(task, model, folder, target)
    return float(values[-dimensions:].sum() / values.sum())


@lru_cache(maxsize=1)
def _opened(place: str, task: str, num_gpus: float) -> tuple[Any, Any]:
    """The tokenizer and the model at `place`, which stay for the next call."""
    folder = at(place)
    model = load_model(TASKS[task], folder, label_order(folder, TASKS[task]) or [], num_gpus).eval()
    return load_tokenizer(folder), model.to(device(num_gpus))


@torch.no_grad()
def _shorten(model: Embedder, directions: torch.Tensor) -> None:
    """The dense layer that gives the `directions` (dimensions, numbers) of what it has given so far."""
    old: Any = model.dense
    weight = directions if old is None else directions @ old.weight
    bias = None if old is None or old.bias is None else directions @ old.bias
    model.dense = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    model.dense.weight.copy_(weight)
    if bias is not None:
        model.dense.bias.copy_(bias)
    model.pooling = replace(model.pooling, dense=Dense(len(weight), bias is not None, "Identity", ""))


def _parts(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _BATCH):
        yield texts[start:start + _BATCH]
