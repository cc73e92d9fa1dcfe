"""A package and inputs of the inference protocol become answers, in batches of similar length.

Knows nothing about Ray or HTTP. Only the backend that needs torch or onnxruntime imports it.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kdray.corpus.grouping import length_batches
from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import ModelError
from kdray.storage import MANIFEST, parse_manifest
from kdray.tasks import TASKS, Row, Task

Item = tuple[Any, dict[str, Any]]
"""An input of the inference protocol and its parameters."""
Answer = list[dict[str, Any]]
Model = Callable[[dict[str, np.ndarray]], np.ndarray]
"""Padded inputs (rows, tokens) to float32 logits (rows, [tokens,] labels)."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
ONNX_FILES = {"onnx-int8": "onnx/model_int8.onnx", "onnx": "onnx/model.onnx"}


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


class Predictor:
    """The model of a package, ready to answer. Not for more than one thread at a time."""

    def __init__(self, folder: Path, backend: str, num_gpus: float, threads: int, batch_tokens: int):
        manifest = read_package(folder)
        self.backend = resolve_backend(folder, backend, num_gpus)
        self._task, self._labels = TASKS[manifest["task"]], manifest["labels"]
        self._max_length, self._batch_tokens = manifest["max_length"], batch_tokens
        self._tokenizer = load_tokenizer(folder)
        if self.backend == "torch":
            self._model = _torch_model(folder, self._task, self._labels, num_gpus, threads)
        else:
            self._model = _onnx_model(folder / ONNX_FILES[self.backend], threads)

    def predict(self, items: list[Item]) -> list[Answer | Exception]:
        """An answer for each item; what is wrong with one item is an exception in its own place.

        Inputs and parameters that the task refuses are a RefusedError.
        """
        requests = [self._rows(item) for item, _ in items]
        rows = [row for part in requests if isinstance(part, list) for row in part]
        outputs = iter(self._outputs(rows))
        return [part if isinstance(part, Exception)
                else self._answer(part, list(islice(outputs, len(part))), parameters)
                for part, (_, parameters) in zip(requests, items, strict=True)]

    def _rows(self, item: Any) -> list[Row] | Exception:
        try:
            for text in item.values() if isinstance(item, dict) else [item]:
                if isinstance(text, str):
                    text.encode()
            return self._task.requests(item, self._tokenizer, self._max_length)
        except UnicodeEncodeError as error:
            return RefusedError("inputs", f"character {error.start} is half of a surrogate pair")
        except ValueError as error:
            return RefusedError("inputs", str(error))
        except Exception as error:
            return error

    def _answer(self, rows: list[Row], outputs: list[tuple[np.ndarray, np.ndarray]],
                parameters: dict[str, Any]) -> Answer | Exception:
        logits, targets = [part for part, _ in outputs], [part for _, part in outputs]
        try:
            return self._task.answer(rows, logits, targets, self._labels, parameters)
        except ValueError as error:
            return RefusedError("parameters", str(error))
        except Exception as error:
            return error

    def _outputs(self, rows: list[Row]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Logits (targets, labels) and unit indices (targets,) of each row."""
        tokens = self._tokenise(rows)
        logits = [np.empty(0)] * len(rows)
        for batch in length_batches(np.array([len(row.ids) for row in tokens]), self._batch_tokens):
            for index, part in zip(batch, self._forward([tokens[index] for index in batch]), strict=True):
                logits[index] = part
        return [(part, np.array(row.targets, np.int64)) for part, row in zip(logits, tokens, strict=True)]

    def _tokenise(self, rows: list[Row]) -> list[_Tokens]:
        """Rows with the same columns are tokenised together: some have a pair and some have none."""
        found: dict[int, _Tokens] = {}
        for columns in {frozenset(row) for row in rows}:
            indices = [index for index, row in enumerate(rows) if row.keys() == columns]
            encoded = self._task.encode(self._tokenizer, [rows[index] for index in indices], self._max_length)
            types: Sequence[list[int] | None] = encoded.token_type_ids or [None] * len(indices)
            parts = zip(encoded.input_ids, types, encoded.targets, encoded.positions, strict=True)
            found.update(zip(indices, (_Tokens(*part) for part in parts), strict=True))
        return [found[index] for index in range(len(rows))]

    def _forward(self, batch: list[_Tokens]) -> list[np.ndarray]:
        counts = [len(row.positions) for row in batch]
        row = np.repeat(np.arange(len(batch)), counts)
        position = np.concatenate([row.positions for row in batch]).astype(np.int64)
        logits = self._task.gather(self._model(_pad(batch, self._tokenizer.pad_token_id or 0)), row, position)
        return np.split(logits, np.cumsum(counts)[:-1])


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


def resolve_backend(folder: Path, backend: str, num_gpus: float) -> str:
    """`auto` becomes torch on a GPU, else onnx-int8. Raises ModelError where the package lacks its file."""
    if backend == "auto":
        backend = "torch" if num_gpus else "onnx-int8"
    file = folder / ONNX_FILES.get(backend, "model.safetensors")
    if not file.exists():
        raise ModelError(f"backend {backend} needs {file}, which is not there. Choose another "
                         "`serve.backend`, or export again")
    return backend


def _pad(batch: list[_Tokens], pad_token_id: int) -> dict[str, np.ndarray]:
    """Padded on the right to the longest row."""
    shape = (len(batch), max(len(row.ids) for row in batch))
    inputs = {name: np.zeros(shape, np.int64) for name in INPUTS}
    inputs["input_ids"] += pad_token_id
    for line, row in enumerate(batch):
        inputs["input_ids"][line, :len(row.ids)] = row.ids
        inputs["attention_mask"][line, :len(row.ids)] = 1
        inputs["token_type_ids"][line, :len(row.ids)] = row.types or 0
    return inputs


def _onnx_model(file: Path, threads: int) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return session.run(["logits"], {name: inputs[name] for name in names})[0]

    return run


def _torch_model(folder: Path, task: Task, labels: list[str], num_gpus: float, threads: int) -> Model:
    import torch

    from kdray.models.load import load_model
    from kdray.models.precision import device

    torch.set_num_threads(threads)
    model = load_model(task, folder, labels, dtype=torch.bfloat16 if num_gpus else torch.float32)
    model = model.eval().to(device(num_gpus))
    names = inspect.signature(model.forward).parameters.keys() & set(INPUTS)

    @torch.no_grad()
    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        tensors = {name: torch.from_numpy(inputs[name]).to(device(num_gpus)) for name in names}
        return model(**tensors).logits.float().cpu().numpy()

    return run
