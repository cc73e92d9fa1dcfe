"""The Open Inference Protocol, version 2, becomes texts; answers become its tensors.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, and its binary tensor data
extension, which Triton's clients use. Knows nothing about models: a text goes in as BYTES, and out come the answer as
JSON and, for classification, the best label and its score.
"""

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from kdray.serving.predictor import Answer
from kdray.serving.protocol import Refusal, parse

HEADER = "inference-header-content-length"
_NOT_OURS = {"binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout"}
"""Parameters of the protocol's extensions; answers are JSON whatever they say."""


class Tensor(BaseModel):
    """An input tensor."""

    name: str
    shape: list[int] = Field(fail_fast=True, description="[n] or [n, 1]")
    datatype: str = Field(description="BYTES")
    data: list[Any] | None = Field(None, description="n strings; null where they follow the JSON as binary data")
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """The JSON of an inference request."""

    id: str | None = None
    inputs: list[Tensor] = Field(fail_fast=True)
    outputs: list[dict[str, Any]] | None = Field(None, fail_fast=True,
                                                 description="Names of the outputs wanted; null takes all")
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    inputs: list[Any]
    """Texts, or objects of texts by field."""
    id: str | None
    outputs: list[str] | None
    parameters: dict[str, Any]
    """The task's, as in the Hugging Face protocol."""


def parse_infer(body: bytes, header_length: str | None, fields: Sequence[str] = ("text",)) -> Asked:
    """The request in `body`, whose JSON is `header_length` bytes where binary data follows. Raises Refusal (422).

    There must be a tensor of each of the `fields` that the task's inputs have; with one, inputs are its texts.
    """
    length = len(body)
    if header_length is not None:
        if not re.fullmatch("[0-9]{1,18}", header_length) or int(header_length) > len(body):
            raise Refusal(422, f"{HEADER}: {header_length[:20]!r} is not a length within the body")
        length = int(header_length)
    asked: InferRequest = parse(InferRequest, body[:length], "application/json")
    if sorted(tensor.name for tensor in asked.inputs) != sorted(fields):
        many = "one tensor, named" if len(fields) == 1 else "tensors named"
        raise Refusal(422, f"inputs: there must be {many} {' and '.join(map(repr, fields))}")
    columns, at = dict[str, list[str]](), length
    for tensor in asked.inputs:
        own = (tensor.parameters or {}).get("binary_data_size", 0) if len(fields) > 1 else len(body) - length
        end = at + (own if isinstance(own, int) and own > 0 else 0)
        columns[tensor.name], at = _texts(tensor, body[at:end]), end
    inputs = _together(columns, fields)
    names = [str(output.get("name")) for output in asked.outputs] if asked.outputs is not None else None
    parameters = {name: value for name, value in (asked.parameters or {}).items() if name not in _NOT_OURS}
    return Asked(inputs, asked.id, names, parameters)


def _together(columns: dict[str, list[str]], fields: Sequence[str]) -> list[Any]:
    """Inputs of the tensors' texts."""
    if len(fields) == 1:
        return columns[fields[0]]
    if len({len(texts) for texts in columns.values()}) > 1:
        raise Refusal(422, f"inputs: {' and '.join(map(repr, fields))} must have as many texts")
    return [dict(zip(fields, texts, strict=True)) for texts in zip(*(columns[name] for name in fields), strict=True)]


def infer_response(asked: Asked, name: str, version: str, answers: list[Answer], scored: bool) -> dict[str, Any]:
    """The response with the wanted outputs; `scored` where an answer is a list of labels with scores, best first.

    Raises Refusal (422) where an output that does not exist is wanted.
    """
    count = len(answers)
    outputs = {"answer": _output("answer", "BYTES", [count], [json.dumps(a, ensure_ascii=False) for a in answers])}
    if scored:
        outputs["label"] = _output("label", "BYTES", [count], [answer[0]["label"] for answer in answers])
        outputs["score"] = _output("score", "FP32", [count], [answer[0]["score"] for answer in answers])
    for unknown in set(asked.outputs or ()) - outputs.keys():
        raise Refusal(422, f"outputs: there is no {unknown[:50]!r}, only {', '.join(outputs)}")
    wanted = dict.fromkeys(asked.outputs or outputs)
    response: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": [outputs[n] for n in wanted]}
    return {**response, "id": asked.id} if asked.id is not None else response


def metadata(name: str, versions: list[str], scored: bool, fields: Sequence[str] = ("text",)) -> dict[str, Any]:
    """What a model takes, a tensor of each field, and gives.

    `versions` are those that answer, that which answers most first.
    """
    outputs = [{"name": "answer", "datatype": "BYTES", "shape": [-1]}]
    if scored:
        outputs += [{"name": "label", "datatype": "BYTES", "shape": [-1]},
                    {"name": "score", "datatype": "FP32", "shape": [-1]}]
    return {"name": name, "versions": versions, "platform": "kdray",
            "inputs": [{"name": field, "datatype": "BYTES", "shape": [-1]} for field in fields], "outputs": outputs}


def _output(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _texts(tensor: Tensor, binary: bytes) -> list[str]:
    where = f"inputs.{tensor.name}"
    if tensor.datatype != "BYTES":
        raise Refusal(422, f"{where}.datatype must be BYTES, not {tensor.datatype[:20]!r}")
    texts = tensor.data if tensor.data is not None else _unpack(binary, where)
    if len(tensor.shape) not in (1, 2) or tensor.shape != [len(texts), 1][:len(tensor.shape)]:
        raise Refusal(422, f"{where}.shape must be [{len(texts)}] or [{len(texts)}, 1] for {len(texts)} texts")
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise Refusal(422, f"{where}.data[{index}] must be a string that is not empty")
    return texts


def _unpack(binary: bytes, where: str) -> list[str]:
    """Elements that each follow their length, four bytes, little-endian."""
    texts: list[str] = []
    start = 0
    while start < len(binary):
        if start + 4 > len(binary):
            raise Refusal(422, f"{where}: the binary data ends within a length")
        (length,) = struct.unpack_from("<I", binary, start)
        part = binary[start + 4:start + 4 + length]
        if len(part) < length:
            raise Refusal(422, f"{where}: the binary data ends within element {len(texts)}")
        try:
            texts.append(part.decode())
        except UnicodeDecodeError:
            raise Refusal(422, f"{where}: element {len(texts)} is not UTF-8") from None
        start += 4 + length
    return texts
