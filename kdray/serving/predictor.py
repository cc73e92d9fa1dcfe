"""A model and inputs of the inference protocol become predictions, in batches of similar length.

Knows nothing about Ray or HTTP, or what runs the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kdray.corpus.grouping import length_batches, placed
from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import ModelError
from kdray.serving.backends import Model, load_backend, resolve_backend
from kdray.storage import MANIFEST, parse_manifest
from kdray.tasks import TASKS, Row, Task

Item = tuple[Any, dict[str, Any]]
"""An input of the inference protocol and its parameters."""
Answer = Any
"""What the task answers, as JSON: mostly a list of objects."""


def texts_in(item: Any) -> list[str]:
    """The texts of an input: itself, or those in it and in its lists."""
    parts = list(item.values()) if isinstance(item, dict) else [item]
    return [text for part in parts for text in (part if isinstance(part, list) else [part]) if isinstance(text, str)]


class RefusedError(ValueError):
    """An input or a parameter that the task refuses; `field` says which of the two."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class _Tokens:
    """One tokenised row."""

    ids: list[int]
    types: list[int] | None
    targets: list[int]
    positions: list[int]
    entries: list[int]
    """Tokens of each entry, one after another in what is above."""


@dataclass(frozen=True)
class _Output:
    """What the model says of one row."""

    logits: np.ndarray
    """(targets, labels)."""
    targets: np.ndarray
    """(targets,): their units."""
    tokens: int


@dataclass(frozen=True)
class Prediction:
    """What the model says of one input."""

    answer: Answer
    said: list[Any]
    """What the output says of each target, as JSON has it."""
    confidence: float
    """How sure the model is of the least sure of them; 1 where there is none, or it cannot say."""
    tokens: int = 0
    """That it has read."""


class Predictor:
    """A model with its tokenizer, ready to answer. Not for more than one thread at a time."""

    def __init__(self, task: Task, labels: list[str], max_length: int, tokenizer: Any, model: Model, batch_tokens: int,
                 threshold: float = 0.0):
        """`threshold` settles decisions, where the task has one."""
        self._threshold = threshold
        self._task, self._labels, self._max_length = task, labels, max_length
        self._tokenizer, self._model, self._batch_tokens = tokenizer, model, batch_tokens

    def predict(self, items: list[Item]) -> list[Prediction | Exception]:
        """A prediction for each item; what is wrong with one item is an exception in its own place.

        Inputs and parameters that the task refuses are a RefusedError.
        """
        requests = [self._rows(item) for item, _ in items]
        rows = [row for part in requests if isinstance(part, list) for row in part]
        outputs = iter(self._outputs(rows))
        return [part if isinstance(part, Exception)
                else self._prediction(part, list(islice(outputs, len(part))), parameters)
                for part, (_, parameters) in zip(requests, items, strict=True)]

    def _rows(self, item: Any) -> list[Row] | Exception:
        try:
            for text in texts_in(item):
                text.encode()
            return self._task.requests(item, self._tokenizer, self._max_length)
        except UnicodeEncodeError as error:
            return RefusedError("inputs", f"character {error.start} is half of a surrogate pair")
        except ValueError as error:
            return RefusedError("inputs", str(error))
        except Exception as error:
            return error

    def _prediction(self, rows: list[Row], outputs: list[_Output],
                    parameters: dict[str, Any]) -> Prediction | Exception:
        logits, targets = [one.logits for one in outputs], [one.targets for one in outputs]
        try:
            answer = self._task.answer(rows, logits, targets, self._labels, parameters)
        except ValueError as error:
            return RefusedError("parameters", str(error))
        except Exception as error:
            return error
        together = np.concatenate([np.empty((0, len(self._labels)), np.float32), *logits])
        output = self._task.output.among(np.concatenate([np.empty(0, np.int64), *targets]))
        sure = float(output.confidence(together).min(initial=1.0))
        return Prediction(answer, output.told(output.decide(together), self._labels), sure if sure == sure else 1.0,
                          sum(one.tokens for one in outputs))

    def _outputs(self, rows: list[Row]) -> list[_Output]:
        tokens = self._tokenise(rows)
        logits = [np.empty(0)] * len(rows)
        for batch in length_batches(np.array([len(row.ids) for row in tokens]), self._batch_tokens):
            for index, part in zip(batch, self._forward([tokens[index] for index in batch]), strict=True):
                logits[index] = part
        found = zip(logits, (np.array(row.targets, np.int64) for row in tokens), tokens, strict=True)
        return [_Output(self._task.output.moved(part, targets, self._threshold), targets, len(row.ids))
                for part, targets, row in found]

    def _tokenise(self, rows: list[Row]) -> list[_Tokens]:
        """Rows with the same columns are tokenised together: some have a pair and some have none."""
        found: dict[int, _Tokens] = {}
        for columns in {frozenset(row) for row in rows}:
            indices = [index for index, row in enumerate(rows) if row.keys() == columns]
            encoded = self._task.encode(self._tokenizer, [rows[index] for index in indices], self._max_length)
            types: Sequence[list[int] | None] = encoded.token_type_ids or [None] * len(indices)
            entries = encoded.entries or [[len(ids)] for ids in encoded.input_ids]
            parts = zip(encoded.input_ids, types, encoded.targets, encoded.positions, entries, strict=True)
            found.update(zip(indices, (_Tokens(*part) for part in parts), strict=True))
        return [found[index] for index in range(len(rows))]

    def _forward(self, batch: list[_Tokens]) -> list[np.ndarray]:
        counts = [len(row.positions) for row in batch]
        lengths, sizes = ([len(row.ids) for row in batch], [size for row in batch for size in row.entries])
        positions = np.concatenate([row.positions for row in batch]).astype(np.int64)
        row, position = placed(np.array(lengths), np.array(sizes), np.array(counts), positions)
        inputs = _pad(batch, sizes, self._tokenizer.pad_token_id)
        most = max(1, self._batch_tokens // max(sizes))  # fewer than there are where rows have many entries
        parts = [self._model({name: values[first:first + most] for name, values in inputs.items()})
                 for first in range(0, len(sizes), most)]
        logits = self._task.gather(parts[0] if len(parts) == 1 else np.concatenate(parts), row, position)
        return np.split(logits, np.cumsum(counts)[:-1])


def load_predictor(folder: Path, backend: str, num_gpus: float, threads: int, batch_tokens: int,
                   precision: str = "auto") -> Predictor:
    """The predictor of the package in `folder`. Raises ModelError where it cannot be served with `backend`."""
    manifest = read_package(folder)
    task, labels = TASKS[manifest["task"]], manifest["labels"]
    model = load_backend(folder, resolve_backend(folder, backend, num_gpus), task, labels, num_gpus, threads, precision)
    return Predictor(task, labels, manifest["max_length"], load_tokenizer(folder), model, batch_tokens,
                     manifest.get("threshold", 0.0))


def read_package(folder: Path) -> dict[str, Any]:
    """The package's manifest. Raises ModelError where the folder is no package that can be served."""
    try:
        data = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{folder} is no package: it has no {MANIFEST}. Give a folder that the export "
                         "wrote, packages/KEY in storage") from error
    manifest = parse_manifest(data, str(folder / MANIFEST))
    if manifest.get("kind") != "packages":
        raise ModelError(f"{folder} holds {manifest.get('kind')!r}, not 'packages'. Export it first")
    if manifest.get("task") not in TASKS:
        raise ModelError(f"{folder}: no task {manifest.get('task')!r}, this kdray knows {', '.join(TASKS)}")
    return manifest


def _pad(batch: list[_Tokens], sizes: list[int], pad_token_id: int) -> dict[str, np.ndarray]:
    """Padded on the right to the longest entry; types of tokens where the tokenizer gives some, as in training."""
    seen = np.arange(max(sizes)) < np.array(sizes)[:, None]
    inputs = {"input_ids": np.full(seen.shape, pad_token_id, np.int64), "attention_mask": seen.astype(np.int64)}
    inputs["input_ids"][seen] = np.concatenate([row.ids for row in batch])
    if any(row.types is not None for row in batch):
        inputs["token_type_ids"] = np.zeros(seen.shape, np.int64)
        inputs["token_type_ids"][seen] = np.concatenate([row.types or [0] * len(row.ids) for row in batch])
    return inputs
