"""Bodies of OpenAI's embeddings and of text-embeddings-inference's ranking."""

import base64
import json

import numpy as np
import pytest

from kdray.serving.predictor import Prediction
from kdray.serving.protocol import Limits, Refusal, parse
from kdray.serving.vectors import (
    EmbeddingsRequest,
    RerankRequest,
    embedding_inputs,
    embeddings,
    ranking,
    rerank_inputs,
)

LIMITS = Limits(4096, 4, 16, 100)


def embedding_request(**body) -> EmbeddingsRequest:
    return parse(EmbeddingsRequest, json.dumps(body).encode(), "application/json")


def rerank_request(**body) -> RerankRequest:
    return parse(RerankRequest, json.dumps(body).encode(), "application/json")


def said(*vectors: list[float]) -> list[Prediction]:
    return [Prediction(vector, [vector], 1.0, 3) for vector in vectors]


def test_embeddings_are_an_object_a_text_in_order() -> None:
    asked = embedding_request(input=["a", "b"], model="default", user="me")
    assert embedding_inputs(asked, LIMITS) == (["a", "b"], {})
    assert embeddings(asked, "default", said([1.0, 0.0], [0.0, 1.0])) == {
        "object": "list", "model": "default", "usage": {"prompt_tokens": 6, "total_tokens": 6},
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0, 0.0]},
                 {"object": "embedding", "index": 1, "embedding": [0.0, 1.0]}]}


def test_one_text_is_a_list_of_one_and_fewer_dimensions_are_of_length_1() -> None:
    assert embedding_inputs(embedding_request(input="a", dimensions=2), LIMITS) == (
        ["a"], {"dimensions": 2, "normalize": True})


def test_base64_is_that_of_float32() -> None:
    (one,) = embeddings(embedding_request(input="a", encoding_format="base64"), "x", said([0.5, -2.0]))["data"]
    assert np.frombuffer(base64.b64decode(one["embedding"]), "<f4").tolist() == [0.5, -2.0]


@pytest.mark.parametrize("body, status, words", [
    ({}, 422, "input is required"), ({"input": [1, 2]}, 422, "input"), ({"input": ""}, 422, "input"),
    ({"input": ["a", " "]}, 422, r"input\[1\]: the text is empty"), ({"input": ["a"] * 5}, 413, "input: 5 of them"),
    ({"input": "x" * 101}, 413, "101 characters"), ({"input": "a", "dimensions": 0}, 422, "dimensions"),
    ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format"), ({"inputs": "a"}, 422, "unknown key 'inputs'")])
def test_bodies_that_are_no_request_for_embeddings_are_refused(body, status, words) -> None:
    with pytest.raises(Refusal, match=words) as refused:
        embedding_inputs(embedding_request(**body), LIMITS)
    assert refused.value.status == status


def scored(*scores: float) -> list[Prediction]:
    return [Prediction([{"label": "score", "score": score}], [score], 1.0) for score in scores]


def test_texts_are_ranked_by_their_scores() -> None:
    asked = rerank_request(query="q", texts=["a", "b", "c"], raw_scores=True, return_text=True)
    assert rerank_inputs(asked, LIMITS) == [{"text": "q", "text_pair": text} for text in "abc"]
    assert ranking(asked, scored(0.5, 4.0, -1.0)) == [
        {"index": 1, "score": 4.0, "text": "b"}, {"index": 0, "score": 0.5, "text": "a"},
        {"index": 2, "score": -1.0, "text": "c"}]


def test_scores_lie_between_0_and_1_unless_they_are_to_be_raw() -> None:
    found = ranking(rerank_request(query="q", texts=["a", "b", "c"]), scored(0.0, 1000.0, -1000.0))
    assert found == [{"index": 1, "score": 1.0}, {"index": 0, "score": 0.5}, {"index": 2, "score": 0.0}]


@pytest.mark.parametrize("body, status, words", [
    ({"query": "q"}, 422, "texts is required"), ({"query": "q", "texts": []}, 422, "texts"),
    ({"query": " ", "texts": ["a"]}, 422, "the text is empty"), ({"query": "q", "texts": ["a"] * 5}, 413, "texts: 5"),
    ({"query": "q" * 60, "texts": ["a" * 41]}, 413, r"texts\[0\]: 101 characters")])
def test_bodies_that_are_no_request_for_a_ranking_are_refused(body, status, words) -> None:
    with pytest.raises(Refusal, match=words) as refused:
        rerank_inputs(rerank_request(**body), LIMITS)
    assert refused.value.status == status
