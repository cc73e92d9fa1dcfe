"""An ONNX file becomes a model that is called like the one it came from, on the CPU.

Knows nothing about rows, nor about how the file was made.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import torch

_SPIN = "20"
"""Microseconds for which a thread that waits for work of a session burns its processor. On 2 threads of a quiet machine
as fast as without a bound, beside a busy process twice as fast; without any spin, a third slower alone."""


def onnx_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on `threads` threads, which take no processor from others while they wait."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OnnxModel:
    """An ONNX file as a model: call it with the inputs that it names, it returns `.logits`."""

    def __init__(self, path: Path, threads: int):
        self.session = onnx_session(path, threads)
        self.inputs = [item.name for item in self.session.get_inputs()]

    def __call__(self, **inputs: torch.Tensor) -> SimpleNamespace:
        """Runs a padded batch."""
        logits = self.session.run(["logits"], {name: inputs[name].numpy() for name in self.inputs})[0]
        return SimpleNamespace(logits=torch.from_numpy(logits))

    def parameters(self) -> Iterator[torch.Tensor]:
        """An empty tensor on the model's device, which is all that `predict` asks of parameters."""
        yield torch.empty(0)
