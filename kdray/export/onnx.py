"""A model becomes a float32 ONNX file.

Knows nothing about what the model is good at: whether a file is accepted is decided elsewhere.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdray.errors import ExportError, first_line
from kdray.models.forward import head_logits

FLOAT32 = "onnx/model.onnx"
_FILE_LIMIT = 2 * 10**9


def export_onnx(model: nn.Module, inputs: list[str], folder: Path) -> Path:
    """Writes the model, which takes `inputs` (int64, any number of rows and tokens), as float32 ONNX.

    Raises ExportError where the exporter cannot follow the model, or its weights do not fit one file.
    """
    check_size(model)
    path = folder / FLOAT32
    path.parent.mkdir(parents=True, exist_ok=True)
    example = {name: torch.ones((2, 8), dtype=torch.int64) for name in inputs}
    shapes = {name: {0: "batch", 1: "sequence"} for name in inputs}
    with quiet():
        try:
            torch.onnx.export(_Logits(model).eval(), (), str(path), kwargs={"inputs": example},
                              input_names=inputs, output_names=["logits"], dynamic_shapes={"inputs": shapes},
                              dynamo=True, external_data=False, verbose=False)
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"cannot export {type(model).__name__} to ONNX: {_reason(error)}. Choose a "
                              "student of another architecture (student.model)") from error
    return path


def check_size(model: nn.Module) -> None:
    """Raises ExportError where the weights of the model, or of its outline, do not fit one file."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if size >= _FILE_LIMIT:
        raise ExportError(f"{type(model).__name__} has {size} bytes of weights, and an ONNX file holds less than "
                          f"{_FILE_LIMIT}. Distil a smaller student (student.layers, student.fresh)")


class _Logits(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return head_logits(self.model(**inputs))


def _reason(error: BaseException) -> str:
    cause: Any = error.__cause__ or error
    return first_line(cause) or type(cause).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back the warnings of exporters, which tell of parts that kdray does not use; errors pass."""
    disabled, level, handlers = logging.root.manager.disable, logging.root.level, list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)
        logging.root.setLevel(level)
        logging.root.handlers[:] = handlers  # the quantisers add one
