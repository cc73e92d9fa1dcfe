"""A float32 ONNX file becomes an int8 one, in one of several ways: the quickest first, the gentlest last.

Knows nothing about what is lost: whether a file is accepted is decided elsewhere.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from kdray.export.onnx import FLOAT32, quiet

INT8 = "onnx/model_int8.onnx"
_BLOCK = 32
"""Weights that share a scale."""
_INT8_ARITHMETIC = 4
"""`accuracy_level` of MatMulNBits at which activations are int8 too, with a scale for each block of a row."""


def quantise(folder: Path, way: str) -> Path:
    """Writes the folder's float32 ONNX again with int8 weights, in a way of `WAYS`."""
    path = folder / INT8
    with quiet(), tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(folder / FLOAT32, prepared, skip_symbolic_shape=True)
        WAYS[way](prepared, path)
    return path


def _dynamic(reduce_range: bool) -> Callable[[Path, Path], None]:
    """Activations are quantised as they come, one scale for all of a batch: rows move the logits of their neighbours.

    Of 7 bits are weights whose products add up without saturation on a processor without VNNI.
    """
    # Measured with the SST-2 teacher against float32 (AVX-512 VNNI, one thread): 2.5 times as fast. Scales
    # per channel: logits differ by 0.081 in the mean instead of 0.185, at the same speed. Embeddings too
    # (Gather is a default operator): 0.081 instead of 0.075, for 0.26 of the bytes instead of 0.65.
    return lambda prepared, path: quantize_dynamic(
        prepared, path, weight_type=QuantType.QInt8, per_channel=True, reduce_range=reduce_range)


def _blockwise(prepared: Path, path: Path) -> None:
    """Weights and activations have a scale for each block of a row: no row moves another's logits."""
    # Its import sets up the root logger, which `quiet` undoes.
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model = onnx.load(str(prepared))
    quantiser = MatMulNBitsQuantizer(model, algo_config=DefaultWeightOnlyQuantConfig(
        block_size=_BLOCK, is_symmetric=True, accuracy_level=_INT8_ARITHMETIC, bits=8))
    quantiser.process()
    made = quantiser.model.model
    _quantise_tables(made)
    onnx.save(made, str(path))


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "weights of 7 bits": _dynamic(reduce_range=True),
    "weights of 8 bits": _dynamic(reduce_range=False),
    "blocks of 8 bits": _blockwise,
}


def _quantise_tables(model: onnx.ModelProto) -> None:
    """Puts embedding tables, which MatMulNBitsQuantizer leaves in float32 at 8 bits, into blocks as well."""
    graph = model.graph
    tables = {tensor.name: tensor for tensor in graph.initializer
              if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2}
    lookups = [(place, node) for place, node in enumerate(graph.node)
               if node.op_type == "Gather" and node.input[0] in tables]
    for place, node in lookups:
        graph.node.remove(node)
        graph.node.insert(place, helper.make_node(
            "GatherBlockQuantized", [f"{node.input[0]}_int8", node.input[1], f"{node.input[0]}_scales"], node.output,
            name=node.name, domain="com.microsoft", bits=8, block_size=_BLOCK, gather_axis=0, quantize_axis=1))
    for name in {node.input[0] for _, node in lookups}:
        values, scales = blocks(numpy_helper.to_array(tables[name]))
        graph.initializer.extend([numpy_helper.from_array(values, f"{name}_int8"),
                                  numpy_helper.from_array(scales, f"{name}_scales")])
        if all(name not in node.input for node in graph.node):
            graph.initializer.remove(tables[name])


def blocks(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A float32 table (rows, width) as uint8 (rows, width), 128 being 0, and the scale of each block of a row."""
    width = table.shape[1]
    padded = np.pad(table, ((0, 0), (0, -width % _BLOCK))).reshape(len(table), -1, _BLOCK)
    scales = np.abs(padded).max(-1) / 127
    steps = np.rint(padded / np.where(scales > 0, scales, 1)[..., None]) + 128
    return steps.astype(np.uint8).reshape(len(table), -1)[:, :width], scales.astype(np.float32)
