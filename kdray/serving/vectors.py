"""Requests for embeddings, as OpenAI has them, and for a ranking, as text-embeddings-inference has it, become inputs.

https://platform.openai.com/docs/api-reference/embeddings; https://huggingface.github.io/text-embeddings-inference, POST
/rerank. And predictions become their answers. Knows nothing about HTTP servers or models.
"""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit

from kdray.serving.predictor import Prediction
from kdray.serving.protocol import Limits, Refusal, check_count, complaint

_Text = Annotated[str, Field(min_length=1)]


class EmbeddingsRequest(BaseModel):
    """The body of a request for embeddings."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [
        {"input": ["What a lovely film.", "I left after ten minutes."], "model": "default"}]})

    input: _Text | list[_Text] = Field(description="A text, or a list of texts", union_mode="left_to_right")
    model: str | None = Field(None, description="Name of the student; null takes the default one")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64 is that of the numbers as float32, the lowest byte first")
    dimensions: int | None = Field(None, ge=1, description="The first so many numbers, divided by their length")
    user: str | None = Field(None, description="Taken, and without effect")


class RerankRequest(BaseModel):
    """The body of a request for a ranking of texts by a query."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [
        {"query": "A man plays the guitar.", "texts": ["Somebody makes music.", "It rains."], "return_text": True}]})

    query: _Text
    texts: list[_Text] = Field(min_length=1)
    raw_scores: bool = Field(False, description="Scores as the model gives them, not 1 / (1 + exp(-score))")
    return_text: bool = Field(False, description="Whether each text stands beside its score")
    truncate: bool | None = Field(None, description="Texts that are too long are cut in any case")
    truncation_direction: Literal["Right", "right"] | None = None
    model: str | None = Field(None, description="Name of the student; null takes the default one")


def embedding_inputs(asked: EmbeddingsRequest, limits: Limits) -> tuple[list[Any], dict[str, Any]]:
    """Inputs and parameters. Raises Refusal (413, 422)."""
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    _check("input", texts, limits)
    return list(texts), {} if asked.dimensions is None else {"dimensions": asked.dimensions, "normalize": True}


def embeddings(asked: EmbeddingsRequest, name: str, found: list[Prediction]) -> dict[str, Any]:
    """The body of the answer; `name` is the student's."""
    tokens = sum(prediction.tokens for prediction in found)
    shaped = [_base64(one.answer) if asked.encoding_format == "base64" else one.answer for one in found]
    return {"object": "list", "model": name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shaped)]}


def rerank_inputs(asked: RerankRequest, limits: Limits) -> list[Any]:
    """Inputs: pairs of the query and each text. Raises Refusal (413, 422)."""
    pairs = [{"text": asked.query, "text_pair": text} for text in asked.texts]
    _check("texts", pairs, limits)
    return list(pairs)


def ranking(asked: RerankRequest, found: list[Prediction]) -> list[dict[str, Any]]:
    """The body of the answer: indices of the texts and their scores, best first."""
    scores = [prediction.answer[0]["score"] for prediction in found]
    told = scores if asked.raw_scores else expit(scores).tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [{"index": index, "score": told[index], **({"text": asked.texts[index]} if asked.return_text else {})}
            for index in order]


def _check(field: str, inputs: list[Any], limits: Limits) -> None:
    check_count(len(inputs), limits.texts, field)
    for index, item in enumerate(inputs):
        if problem := complaint(item, limits):
            raise Refusal(problem[0], f"{field}[{index}]: {problem[1]}")


def _base64(vector: list[float]) -> str:
    return base64.b64encode(np.array(vector, "<f4").tobytes()).decode()
