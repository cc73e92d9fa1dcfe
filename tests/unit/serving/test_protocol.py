"""Bodies that break a rule are refused with a status and the field; the others are taken as they are."""

import json
from typing import Any

import pytest

from kdray.serving.predictor import Prediction, RefusedError
from kdray.serving.protocol import (
    BulkRequest,
    InferenceRequest,
    Limits,
    Refusal,
    answered,
    check_count,
    complaint,
    dumps,
    parse,
    parse_inference,
)

JSON = "application/json"
LIMITS = Limits(body=1000, texts=3, bulk=10, characters=20)
FINE = Prediction([{"label": "good", "score": 1.0}], ["good"], 1.0)


def encode(**parts: Any) -> bytes:
    return json.dumps(parts).encode()


def refusal(body: bytes, content_type: str = JSON) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        parse_inference(body, content_type, LIMITS)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize("inputs, found, many", [
    ("fine", ["fine"], False), (["fine"], ["fine"], True), ([], [], True),
    ({"text": "a", "text_pair": "b"}, [{"text": "a", "text_pair": "b"}], False),
    (["a", {"text": "b"}, 7], ["a", {"text": "b"}, 7], True), (None, [None], False)])
def test_an_input_and_a_list_of_inputs_are_told_apart_and_left_to_the_task(inputs, found, many):
    assert parse_inference(encode(inputs=inputs), JSON, LIMITS) == (found, {}, many)


def test_parameters_come_along_and_may_be_null():
    _, parameters, _ = parse_inference(encode(inputs="a", parameters={"top_k": 1}), JSON, LIMITS)
    assert parameters == {"top_k": 1}
    for body in (encode(inputs="a", parameters=None), encode(inputs="a", options={"wait_for_model": True}),
                 encode(inputs="a", options=None)):
        assert parse_inference(body, JSON, LIMITS) == (["a"], {}, False)


@pytest.mark.parametrize("content_type", [JSON, "Application/JSON; charset=utf-8", " application/json "])
def test_the_content_type_may_be_written_in_its_ways(content_type):
    assert parse_inference(encode(inputs="a"), content_type, LIMITS)[0] == ["a"]


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_another_content_type_is_refused(content_type):
    status, words = refusal(encode(inputs="a"), content_type)
    assert status == 422 and "content-type: application/json" in words


@pytest.mark.parametrize("body, words", [
    (b"", "the body is not JSON"), (b'{"inputs": "a"', "the body is not JSON"), (b"\xff", "the body is not JSON"),
    (b'"fine"', "the body must be a JSON object"), (b"null", "the body must be a JSON object"),
    (b"{}", "inputs is required"), (encode(inputs="a", parameters=[]), "parameters: "),
    (encode(inputs="a", option=1), "unknown key 'option'; known are inputs, parameters"),
    (encode(inputs=""), "inputs: the text is empty"), (encode(inputs=["a", " \n"]), "inputs[1]: the text is empty"),
    (encode(inputs={"text": "a", "text_pair": ""}), "inputs: the text is empty"),
])
def test_what_is_wrong_is_refused_with_its_field(body, words):
    status, said = refusal(body)
    assert status == 422 and words in said


@pytest.mark.parametrize("body, words", [
    (encode(inputs=["a"] * 4), "inputs: 4 of them, a request may hold 3; /v1/predict takes more"),
    (encode(inputs=["a", "x" * 21]), "inputs[1]: 21 characters, an input may have 20"),
    (encode(inputs={"text": "x" * 11, "text_pair": "x" * 10}), "inputs: 21 characters"),
])
def test_what_is_too_much_is_refused_as_too_much(body, words):
    status, said = refusal(body)
    assert status == 413 and words in said


def test_a_refusal_does_not_repeat_the_text():
    _, said = refusal(encode(inputs="a secret", parameters="another secret"))
    assert "secret" not in said


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"inputs":' * 50_000, b'{"inputs": 1e999999}', b'{"inputs": NaN}',
                                  b'{"inputs": "\\ud83d"}', b'{"inputs": ' + b"9" * 5000 + b"}"])
def test_odd_json_is_refused_or_taken_and_breaks_nothing(body):
    try:
        parse_inference(body, JSON, LIMITS)
    except Refusal as refusal:
        assert refusal.status == 422


def test_a_bulk_request_is_a_list_and_may_name_a_student():
    asked = parse(BulkRequest, encode(inputs=["a", 7], model="films"), JSON)
    assert (asked.inputs, asked.model, asked.parameters) == (["a", 7], "films", None)
    assert parse(BulkRequest, encode(inputs=[]), JSON).model is None
    with pytest.raises(Refusal, match="inputs: "):
        parse(BulkRequest, encode(inputs="a"), JSON)


@pytest.mark.parametrize("model", [InferenceRequest, BulkRequest])
def test_the_examples_of_the_page_are_requests(model):
    for example in model.model_json_schema()["examples"]:
        assert parse(model, encode(**example), JSON).inputs == example["inputs"]


def test_as_many_as_are_allowed_are_not_too_many():
    check_count(3, 3)
    with pytest.raises(Refusal):
        check_count(4, 3)


@pytest.mark.parametrize("item", ["x" * 20, {"text": "x" * 10, "text_pair": "y" * 10}, 7, None, [], {}, {"text": 7}])
def test_what_only_a_task_can_refuse_is_no_complaint_here(item):
    assert complaint(item, LIMITS) is None


def test_predictions_pass_and_what_the_task_refused_is_named():
    assert answered([FINE, FINE], many=True) == [FINE, FINE]
    for many, place in ((True, "inputs[1]: odd"), (False, "inputs: odd")):
        with pytest.raises(Refusal) as caught:
            answered([FINE, RefusedError("inputs", "odd")], many)
        assert (caught.value.status, str(caught.value)) == (422, place)
    with pytest.raises(Refusal, match=r"^parameters: odd$"):
        answered([FINE, RefusedError("parameters", "odd")], many=True)


def test_what_broke_is_raised_as_it_is():
    with pytest.raises(ZeroDivisionError):
        answered([FINE, ZeroDivisionError()], many=True)


def test_json_keeps_letters_of_all_scripts():
    assert dumps({"word": "Grüße"}) == '{"word":"Grüße"}'.encode()
