"""Models and a split become what each says of every unit, part by part, wherever they are asked.

Of a part comes back only what is counted: decisions, confidences, how far two models are apart. Logits stay where they
were computed, so that a million rows fit. Knows nothing about Ray: who works on the parts is handed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from kdray.cache.ensemble import open_cache
from kdray.corpus.pieces import Each, one_by_one
from kdray.corpus.rows import Rows, parts_among
from kdray.models.folder import at
from kdray.models.forward import predict
from kdray.models.load import count_parameters, load_model
from kdray.models.precision import device
from kdray.outputs.base import AllSaid
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.tasks.base import decisions, unsettled

ROWS = 4096
"""Rows of a part."""


@dataclass(frozen=True)
class Where:
    """Where models are asked."""

    each: Each = one_by_one
    """Each of its arguments ends with the rows, from `start` to `stop`, that it is about."""
    num_gpus: float = 0.0


HERE = Where()


@dataclass(frozen=True)
class Asked:
    """A model, or a cache that has its answers, and the split that it is asked about: plain data for any machine."""

    storage: str
    task: str
    labels: tuple[str, ...]
    corpus: str
    """Key of the rows, as the model's tokenizer cuts them."""
    split: str
    place: str = ""
    """Where every machine finds the model's folder."""
    file: str = ""
    """ONNX file in it, run on a CPU; none for the model in PyTorch, in float32."""
    cache: str = ""
    """Key of the cache, in the place of a model."""
    num_gpus: float = 0.0
    batch_tokens: int | None = None
    threshold: float | None = 0.0
    """What settles decisions, where the task has one; None leaves them as they are, to tune it."""


@dataclass(frozen=True)
class Answers:
    """What a model says of the units of some rows, which stand in one array."""

    counts: np.ndarray
    """(rows,): units of each row."""
    decided: np.ndarray
    """(units, ...): the output's decisions."""
    confidence: np.ndarray
    """(units,): how sure the model is, NaN for a unit that it does not see, or where it cannot say."""
    divergence: np.ndarray
    """(units,): KL(another model || this one) in nats, NaN where either does not see the unit; empty without one."""
    largest: float
    """Largest difference of a logit from the other model's, NaN where either has one that is no number."""
    parameters: int
    """0 of a cache and of an ONNX file."""

    def by_row(self) -> list[np.ndarray]:
        """Decisions of each row's units."""
        return np.split(self.decided, np.cumsum(self.counts)[:-1]) if len(self.counts) else []


def ask(groups: Sequence[tuple[Asked, ...]], rows: int, where: Where = HERE) -> list[list[Answers]]:
    """What the models of each group say of all `rows` of their split; all but a group's first are compared with it."""
    spans = [(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS)]
    try:
        parts = where.each(answer, [(group, *span) for group in groups for span in spans], "rows")
        return [[_joined(own) for own in zip(*(next(parts) for _ in spans), strict=True)] for _ in groups]
    finally:
        _opened.cache_clear()


def answer(group: tuple[Asked, ...], start: int, stop: int) -> list[Answers]:
    """`ask` for one group and the rows from `start` to `stop`."""
    found: list[Answers] = []
    first: AllSaid | None = None
    for asked in group:
        corpus = Store(asked.storage).manifest("corpus", asked.corpus) or {}
        rows, indices = _rows(asked, corpus, start, stop)
        said, parameters = _said(asked, corpus, rows, indices, start)
        counts = rows.units(TASKS[asked.task].output.shape(len(asked.labels)))[indices]
        found.append(_answers(asked, counts, said, first, parameters))
        first = first or said
    return found


def _rows(asked: Asked, corpus: dict[str, Any], start: int, stop: int) -> tuple[Rows, np.ndarray]:
    """Rows that those from `start` to `stop` are among, and which of them they are."""
    parts, first = parts_among(corpus["parts"][asked.split], start, stop)
    return Rows.of_parts(Store(asked.storage), asked.corpus, parts), np.arange(start, stop) - first


def _said(asked: Asked, corpus: dict[str, Any], rows: Rows, indices: np.ndarray, start: int) -> tuple[AllSaid, int]:
    """Units (targets,) and logits (targets, labels) of each row's targets; and the model's parameters."""
    model, parameters = _opened(asked)
    if asked.cache:
        found = [model[start + place] for place in range(len(indices))]
        return ([targets for targets, _ in found], [logits for _, logits in found]), parameters
    logits = predict(model, TASKS[asked.task], rows, indices, corpus["pad_token_id"], asked.batch_tokens)
    return ([rows.targets[row] for row in indices], logits), parameters


@lru_cache(maxsize=4)
def _opened(asked: Asked) -> tuple[Any, int]:
    """The model or the cache's soft targets, which stay for the next part, and the model's parameters."""
    if asked.cache:
        return open_cache(Store(asked.storage), asked.cache, asked.split), 0
    folder = at(asked.place)
    if asked.file:
        from kdray.models.onnx_file import OnnxModel

        return OnnxModel(folder / asked.file, torch.get_num_threads()), 0
    model = load_model(TASKS[asked.task], folder, list(asked.labels), asked.num_gpus).eval()
    return model.to(device(asked.num_gpus)), count_parameters(model)


def _answers(asked: Asked, counts: np.ndarray, said: AllSaid, first: AllSaid | None, parameters: int) -> Answers:
    task, labels = TASKS[asked.task], len(asked.labels)
    output = task.output
    divergence, largest = np.empty(0, np.float32), 0.0
    if first is not None:
        divergence, largest = output.compared(counts, first, said, labels)
    moved = said[0], [output.moved(logits, targets, asked.threshold or 0.0)
                      for targets, logits in zip(*said, strict=True)]
    confidence = output.confidences(counts, moved, labels).astype(np.float32)
    if asked.threshold is None:
        decided = np.concatenate(unsettled(task, said))
    else:
        found = np.concatenate(decisions(task, moved, counts, list(asked.labels)))
        decided = found.astype(np.int32 if output.whole else np.float32)
    return Answers(counts, decided, confidence, divergence.astype(np.float32), largest, parameters)


def _joined(parts: Sequence[Answers]) -> Answers:
    whole = {name: np.concatenate([getattr(part, name) for part in parts])
             for name in ("counts", "decided", "confidence", "divergence")}
    return Answers(**whole, largest=float(np.max([part.largest for part in parts])), parameters=parts[0].parameters)
