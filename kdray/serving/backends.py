"""A model file becomes a function from padded inputs to logits.

Knows nothing about texts, tasks' answers or HTTP. Only the backend that is asked for is imported.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kdray.errors import ModelError
from kdray.storage import MANIFEST, parse_manifest
from kdray.tasks import Task

Model = Callable[[dict[str, np.ndarray]], np.ndarray]
"""Padded inputs (rows, tokens) by name to float32 logits (rows, [tokens,] labels)."""

FILES = {"onnx-int8": "onnx/model_int8.onnx", "onnx": "onnx/model.onnx", "openvino-int8": "onnx/model_int8.onnx",
         "openvino": "onnx/model.onnx", "torch": "model.safetensors"}
"""What of a package each backend reads."""
TITLES = {"onnx-int8": "ONNX int8", "onnx": "ONNX float32", "torch": "PyTorch"}
"""How people call what serves a package."""


def resolve_backend(folder: Path, backend: str, num_gpus: float) -> str:
    """`auto` becomes torch on a GPU, else what the package was accepted with.

    Raises ModelError where the package lacks its file, or this machine OpenVINO.
    """
    if backend == "auto":
        manifest = parse_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
        backend = "torch" if num_gpus else manifest.get("backend", "onnx-int8")
    if backend.startswith("openvino") and find_spec("openvino") is None:
        raise ModelError(f"backend {backend} needs OpenVINO, which is not installed: pip install -e '.[openvino]', or "
                         "choose another `serve.backend`")
    file = folder / FILES[backend]
    if not file.exists():
        raise ModelError(f"backend {backend} needs {file}, which is not there: README.md beside it says whether it was "
                         "refused, and why. Choose another `serve.backend`, or leave it out")
    return backend


def load_backend(folder: Path, backend: str, task: Task, labels: list[str], num_gpus: float, threads: int,
                 precision: str = "auto") -> Model:
    """The model of the package in `folder`, ready to run; `backend` is resolved, `precision` is that of torch."""
    if backend == "torch":
        return torch_model(folder, task, labels, num_gpus, threads, precision)
    make = _openvino_model if backend.startswith("openvino") else _onnx_model
    return make(folder / FILES[backend], threads)


def torch_model(folder: Path, task: Task, labels: list[str], num_gpus: float, threads: int,
                precision: str = "auto") -> Model:
    """PyTorch; `auto` is bfloat16 on a GPU and where the processor has it."""
    import torch

    from kdray.models.forward import head_logits, taken
    from kdray.models.load import load_model
    from kdray.models.precision import DTYPES, device, resolve_precision

    torch.set_num_threads(threads)
    dtype = DTYPES[resolve_precision(precision, num_gpus)]
    model = load_model(task, folder, labels, num_gpus, dtype).eval().to(device(num_gpus))

    @torch.no_grad()
    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        tensors = {name: torch.from_numpy(values).to(device(num_gpus)) for name, values in inputs.items()}
        return head_logits(model(**taken(model, tensors))).float().cpu().numpy()

    return run


def _onnx_model(file: Path, threads: int) -> Model:
    from kdray.models.onnx_file import onnx_session

    session = onnx_session(file, threads)
    names = [argument.name for argument in session.get_inputs()]

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return session.run(["logits"], {name: inputs[name] for name in names})[0]

    return run


def _openvino_model(file: Path, threads: int) -> Model:
    import openvino

    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(file), "CPU", settings).create_infer_request()
    names = [argument.any_name for argument in request.model_inputs]

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return request.infer({name: inputs[name] for name in names})["logits"].copy()

    return run
