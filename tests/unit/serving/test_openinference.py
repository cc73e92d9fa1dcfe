"""The Open Inference Protocol's tensors become texts, and whatever is no tensor of texts is refused by name."""

import json
import struct
from typing import Any

import pytest

from kdray.serving.openinference import Asked, infer_response, metadata, parse_infer
from kdray.serving.protocol import Refusal

ANSWERS = [[{"label": "good", "score": 0.75}, {"label": "bad", "score": 0.25}],
           [{"label": "bad", "score": 0.5}, {"label": "good", "score": 0.5}]]


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["fine", "so-so"]} | changes


def body(*tensors: dict[str, Any], **parts: Any) -> bytes:
    return json.dumps({"inputs": list(tensors or [tensor()]), **parts}).encode()


def packed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary(tail: bytes, shape: list[int]) -> tuple[bytes, str]:
    """A request whose texts follow its JSON, and the length of that JSON."""
    head = body(tensor(data=None, shape=shape, parameters={"binary_data_size": len(tail)}))
    return head + tail, str(len(head))


def refusal(*arguments: Any) -> str:
    """Why the request is refused."""
    with pytest.raises(Refusal) as caught:
        parse_infer(*arguments)
    assert caught.value.status == 422
    return str(caught.value)


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_strings_in_json_are_the_texts(shape):
    asked = parse_infer(body(tensor(shape=shape), id="7", outputs=[{"name": "label"}]), None)
    assert asked == Asked(["fine", "so-so"], "7", ["label"], {})


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_binary_data_after_the_json_are_the_texts(shape):
    texts = ["fine", "Grüße, 日本 🦊", "a\0b"]
    data, length = binary(packed(*(text.encode() for text in texts)), shape)
    assert parse_infer(data, length) == Asked(texts, None, None, {})


def test_a_header_that_spans_the_body_is_a_request_without_binary_data():
    assert parse_infer(body(), str(len(body()))).inputs == ["fine", "so-so"]


def test_no_texts_are_a_request_too():
    assert parse_infer(body(tensor(data=[], shape=[0])), None).inputs == []
    assert parse_infer(*binary(b"", [0])).inputs == []


@pytest.mark.parametrize("header", ["-1", "1e3", "", "many", "100000", "²"])
def test_a_header_that_is_no_length_within_the_body_is_refused(header):
    assert "inference-header-content-length" in refusal(body(), header)


@pytest.mark.parametrize("changes, words", [
    ({"name": "words"}, "one tensor, named 'text'"),
    ({"datatype": "FP32", "data": [1.0, 2.0]}, "inputs.text.datatype must be BYTES, not 'FP32'"),
    ({"shape": [3]}, "inputs.text.shape must be [2] or [2, 1] for 2 texts"),
    ({"shape": []}, "inputs.text.shape"),
    ({"shape": [1, 2]}, "inputs.text.shape"),
    ({"shape": [2, 1, 1]}, "inputs.text.shape"),
    ({"shape": [-1]}, "inputs.text.shape"),
    ({"data": ["fine", 7]}, "inputs.text.data[1] must be a string"),
    ({"data": ["fine", "  "]}, "inputs.text.data[1] must be a string that is not empty"),
    ({"data": [["fine"], ["so-so"]], "shape": [2, 1]}, "inputs.text.data[0] must be a string"),
    ({"data": "fine"}, "inputs.0.data"),
    ({"shape": ["two"]}, "inputs.0.shape.0"),
])
def test_a_tensor_that_is_not_one_of_texts_is_refused(changes, words):
    assert words in refusal(body(tensor(**changes)), None)


@pytest.mark.parametrize("data, words", [
    (b"{", "the body is not JSON"),
    (b"[]", "the body must be a JSON object"),
    (b"{}", "inputs is required"),
    (b'{"inputs": []}', "there must be one tensor"),
    (body(tensor(), tensor()), "there must be one tensor"),
    (body(tensor(), id=7), "id: "),
    (body(tensor(), outputs=["label"]), "outputs.0: "),
])
def test_a_body_that_is_no_request_is_refused(data, words):
    assert words in refusal(data, None)


@pytest.mark.parametrize("tail, words", [
    (packed(b"fine") + b"\x01\x00", "ends within a length"),
    (packed(b"fine") + struct.pack("<I", 9) + b"so-so", "ends within element 1"),
    (struct.pack("<I", 2**32 - 1), "ends within element 0"),
    (packed(b"fine", b"\xff\xfe"), "element 1 is not UTF-8"),
    (packed(b"fine", b""), "inputs.text.data[1] must be a string that is not empty"),
    (packed(b"fine"), "inputs.text.shape must be [1] or [1, 1] for 1 texts"),
])
def test_binary_data_that_does_not_hold_the_texts_is_refused(tail, words):
    assert words in refusal(*binary(tail, [2]))


def test_all_outputs_come_with_the_answer_as_json():
    response = infer_response(Asked(["a", "b"], "7", None, {}), "films", "abc", ANSWERS, scored=True)
    assert (response["model_name"], response["model_version"], response["id"]) == ("films", "abc", "7")
    answer, label, score = response["outputs"]
    assert [json.loads(one) for one in answer["data"]] == ANSWERS
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["good", "bad"]}
    assert score == {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.75, 0.5]}


def test_only_the_wanted_outputs_come_in_the_order_wanted():
    response = infer_response(Asked(["a"], None, ["score", "label"], {}), "films", "abc", ANSWERS[:1], scored=True)
    assert [output["name"] for output in response["outputs"]] == ["score", "label"]
    assert "id" not in response


@pytest.mark.parametrize("scored, name", [(True, "logits"), (False, "label"), (True, "None")])
def test_an_output_that_does_not_exist_is_refused(scored, name):
    with pytest.raises(Refusal, match=f"there is no '{name}', only answer") as caught:
        infer_response(Asked(["a"], None, [name], {}), "films", "abc", ANSWERS[:1], scored)
    assert caught.value.status == 422


@pytest.mark.parametrize("scored, names", [(True, ["answer", "label", "score"]), (False, ["answer"])])
def test_metadata_names_the_outputs_that_a_response_has(scored, names):
    told = metadata("films", "abc", scored)
    response = infer_response(Asked(["a", "b"], None, None, {}), "films", "abc", ANSWERS, scored)
    assert [output["name"] for output in told["outputs"]] == names
    assert [output["name"] for output in response["outputs"]] == names
    assert told["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
