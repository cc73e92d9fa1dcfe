"""Bodies of requests become inputs, checked against limits; answers become bodies.

The Hugging Face inference protocol, and bulk requests. Knows nothing about models or HTTP servers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from kdray.serving.predictor import Prediction, RefusedError, texts_in

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_SPAN: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
_INPUT: list[Any] = [_TEXT, {"type": "object", "additionalProperties": {"anyOf": [_TEXT, _SPAN]}, "minProperties": 1}]
_COMPARED: dict[str, Any] = {"type": "object", "required": ["source_sentence", "sentences"], "properties": {
    "source_sentence": _TEXT, "sentences": {"type": "array", "items": _TEXT, "minItems": 1}}}
_LIST: dict[str, Any] = {"type": "array", "items": {"anyOf": _INPUT}}
_EXAMPLES: list[Any] = [
    {"inputs": "What a lovely film."},
    {"inputs": ["What a lovely film.", "I left after ten minutes."], "parameters": {"top_k": 1}},
    {"inputs": {"text": "A man plays the guitar.", "text_pair": "Somebody makes music."}},
    {"inputs": "The <e1>author</e1> of the <e2>book</e2> lives here."},
    {"inputs": {"text": "The author of the book lives here.", "head": [4, 10], "tail": [18, 22]}},
    {"inputs": "What a lovely film.", "normalize": True},
    {"inputs": {"source_sentence": "A man plays the guitar.", "sentences": ["Somebody makes music."]}},
    {"inputs": {"question": "Who wrote it?", "context": "It was written by Ada Lovelace."}},
    {"inputs": "Ada Lovelace lived in London.", "parameters": {"aggregation_strategy": "simple"}},
]
FULL = "the queue is full"
_COMPLAINTS = 8
"""Mistakes of a body that are told; a body may hold a hundred thousand."""
_PARAMETERS: Any = Field(None, description="text-classification: top_k, function_to_apply; token-classification: "
                    "aggregation_strategy, ignore_labels; question-answering: top_k, max_answer_len, "
                    "handle_impossible_answer")


class Refusal(Exception):
    """A request that gets `status` and a body that says why; `retry` seconds later it may fare better."""

    def __init__(self, status: int, message: str, retry: int | None = None):
        super().__init__(message)
        self.status, self.retry = status, retry


class InferenceRequest(BaseModel):
    """The body of a request in the Hugging Face inference protocol; some tasks have parameters beside these."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": _EXAMPLES,
                                                                      "additionalProperties": False})

    inputs: Annotated[Any, WithJsonSchema({"anyOf": [*_INPUT, _COMPARED, _LIST]})] = Field(
        description='A text, a pair of texts as {"text": ..., "text_pair": ...}, a text with two spans as '
        '{"text": ..., "head": [start, end], "tail": [start, end]}, a question and its text as {"question": ..., '
        '"context": ...}, or a list of these; for sentence-similarity {"source_sentence": ..., "sentences": [...]}')
    parameters: dict[str, Any] | None = _PARAMETERS
    options: dict[str, Any] | None = Field(None, description="use_cache, wait_for_model and the like, as clients of "
                                           "Hugging Face's servers send them: taken, and without effect")


class BulkRequest(BaseModel):
    """The body of a bulk request: many inputs, each of which succeeds or fails alone."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [
        {"inputs": ["What a lovely film.", "I left after ten minutes."]}]})

    inputs: Annotated[list[Any], WithJsonSchema(_LIST)] = Field(description="Texts, or pairs of texts")
    parameters: dict[str, Any] | None = _PARAMETERS
    model: str | None = Field(None, description="Name of the student; null takes the default one")


@dataclass(frozen=True)
class Limits:
    """What a request may hold at most."""

    body: int
    """Bytes."""
    texts: int
    """Inputs of a request."""
    bulk: int
    """Inputs of a bulk request."""
    characters: int
    """Characters of an input."""


def parse(model: type[BaseModel], body: bytes, content_type: str) -> Any:
    """The body as `model`. Raises Refusal (422) that names the field."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(422, "the body must be a JSON object, sent with content-type: application/json")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        complaints = [_complaint(model, item) for item in error.errors(include_input=False)[:_COMPLAINTS]]
        raise Refusal(422, "; ".join(complaints)) from None


def parse_inference(body: bytes, content_type: str, limits: Limits,
                    options: Sequence[str] = ()) -> tuple[list[Any], dict[str, Any], bool]:
    """Inputs, parameters, and whether the inputs were a list; `options` are parameters that may be at the root.

    Raises Refusal (413, 422).
    """
    asked: InferenceRequest = parse(InferenceRequest, body, content_type)
    beside = asked.model_extra or {}
    if unknown := sorted(beside.keys() - set(options)):
        known = ", ".join([*InferenceRequest.model_fields, *options])
        raise Refusal(422, "; ".join(f"unknown key {name[:50]!r}; known are {known}" for name in unknown[:_COMPLAINTS]))
    many = isinstance(asked.inputs, list)
    inputs = asked.inputs if many else [asked.inputs]
    check_count(len(inputs), limits.texts)
    for index, item in enumerate(inputs):
        if problem := complaint(item, limits):
            raise Refusal(problem[0], f"{place(many, index)}: {problem[1]}")
    return inputs, {**beside, **(asked.parameters or {})}, many


def check_count(count: int, most: int, field: str = "inputs") -> None:
    """Raises Refusal (413) where a request holds too many inputs."""
    if count > most:
        raise Refusal(413, f"{field}: {count} of them, a request may hold {most}; /v1/predict takes more at once")


def complaint(item: Any, limits: Limits) -> tuple[int, str] | None:
    """Status and reason where an input cannot be one, whatever the task."""
    texts = texts_in(item)
    if len(texts) > limits.texts:
        return 413, f"{len(texts)} texts, a request may hold {limits.texts}"
    if any(not text.strip() for text in texts):
        return 422, "the text is empty"
    together = isinstance(item, dict) and not any(isinstance(part, list) for part in item.values())
    length = sum(map(len, texts)) if together else max(map(len, texts), default=0)
    return (413, f"{length} characters, an input may have {limits.characters}") if length > limits.characters else None


def answered(predictions: list[Prediction | Exception], many: bool) -> list[Prediction]:
    """The predictions. Raises Refusal (422) where the task refused one, and whatever else went wrong."""
    for index, prediction in enumerate(predictions):
        if isinstance(prediction, RefusedError):
            where = place(many, index) if prediction.field == "inputs" else prediction.field
            raise Refusal(422, f"{where}: {prediction}")
        if isinstance(prediction, Exception):
            raise prediction
    return predictions  # type: ignore[return-value]  # no exception is among them


def place(many: bool, index: int) -> str:
    """Where an input was in the request."""
    return f"inputs[{index}]" if many else "inputs"


def dumps(value: Any) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _complaint(model: type[BaseModel], item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "json_invalid":
        return f"the body is not JSON: {item['ctx']['error']}"
    if item["type"] == "extra_forbidden":
        return f"unknown key {where!r}; known are {', '.join(model.model_fields)}"
    if not where:
        return "the body must be a JSON object, sent with content-type: application/json"
    return f"{where} is required" if item["type"] == "missing" else f"{where}: {item['msg']}"
