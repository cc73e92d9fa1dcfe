"""Packages behind Ray Serve answer in three protocols, change under load, and refuse what is none of the protocols."""

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import transformers
import uvicorn
from fastapi.testclient import TestClient
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from ray import serve

from kdray.config import Config, ServeConfig
from kdray.errors import ClusterError, ConfigError, ModelError
from kdray.serving import change, metrics
from kdray.serving import deploy as deployment
from kdray.serving.app import http_app
from kdray.serving.batcher import Batcher
from kdray.serving.deploy import deploy, running
from kdray.serving.guard import Guard, digest
from kdray.serving.pace import Pace
from kdray.serving.predictor import Prediction
from kdray.serving.protocol import Limits
from kdray.serving.roster import Engine, Roster, Slot, Student
from kdray.serving.service import Service
from tests.integration.asking import Load, fetch, post, replicas, replicas_when
from tests.packages import write_package

SECRET = "zanzibarquokka"
KEY = "the key that nobody may see"
PAGES = "https://example.com"
LIMITS = Limits(body=4096, texts=4, bulk=8, characters=100)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Another student of the same task."""
    return write_package(tmp_path_factory.mktemp("packages") / "other", "sequence-classification",
                         transformers.BertForSequenceClassification, ["bad", "good", "mixed"], seed=1)


@pytest.fixture(scope="module")
def url(films, names) -> Any:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init("local", num_cpus=2, include_dashboard=False)
    try:
        yield deploy({"default": str(films), "names": str(names)}, ServeConfig(
            port=0, replicas=2, max_texts=64, cors=[PAGES]), [], blocking=False)
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.fixture
def names_url(url) -> str:
    return f"{url}/models/names"


@pytest.fixture
def client(monkeypatch) -> type[InferenceClient]:
    """The Hugging Face client, which refuses even the loopback where the tests are offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return InferenceClient


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
    ({"inputs": "half \ud83d"}, "the body is not JSON"),
    ({"inputs": "fine", "parameters": {"top_k": "all"}}, "parameters: top_k must be"),
    ({"inputs": "fine", "parameters": {"function_to_apply": "tanh"}}, "parameters: function_to_apply must"),
    ({"inputs": "fine", "parameters": []}, "parameters: "),
    ({"inputs": "fine", "wait": True}, "unknown key 'wait'; known are inputs, parameters"),
    ([], "the body must be a JSON object"),
    (b'{"inputs": "fine', "the body is not JSON"),
    (b'{"inputs": "\xff"}', "the body is not JSON"),
    (b"", "the body is not JSON"),
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
        "name": "default", "key": "films", "task": "sequence-classification", "labels": ["bad", "good", "mixed"],
        "numbers": {"accuracy": 0.5}, "parents": {"student": "abc"}, "lineage": {}, "checks": {},
        "students": ["default", "names"], "teacher": False, "shown": "labels",
        "columns": ["text", "text_pair", "label"], "example": "What a lovely film."})
    assert fetch(f"{url}/v1/model?name=names")[1]["key"] == "names"
    assert fetch(f"{url}/v1/model?name=nobody") == (404, {
        "error": "no student is named 'nobody'; there are default, names"})
    assert fetch(f"{url}/nowhere") == (404, {"error": "Not Found"})


def test_the_documentation_shows_the_protocol_and_needs_nothing_from_elsewhere(url):
    with urllib.request.urlopen(f"{url}/docs", timeout=30) as response:
        page = response.read().decode()
    places = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert places and not [place for place in places if not place.startswith("/")]
    for place in places:
        with urllib.request.urlopen(url + place, timeout=30) as response:
            assert response.read()
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


def app_around(run: Any, limits: Limits = LIMITS, deadline: float = 10.0, max_queue: int = 8) -> Any:
    """The HTTP application in front of `run`, which takes the place of a model."""
    roster = Roster(Engine("onnx", 0, 1, 64, max_queue))
    manifest = {"key": "0", "task": "token-classification", "labels": [], "numbers": {}, "parents": {}}
    roster.slots = {"default": Slot(package="stand-in")}
    batcher = Batcher(run, lambda item: 1, 1, max_queue)
    roster._loaded = {"stand-in": Student("stand-in", manifest, batcher, Pace(1))}
    service = Service(roster, limits, deadline)
    app = http_app(service)
    app.service = service
    return app


def test_a_bug_is_a_500_that_tells_nothing(caplog):
    def broken(items):
        raise ValueError(f"cannot divide {items}")

    with TestClient(app_around(broken)) as client:
        response = client.post("/", json={"inputs": SECRET})
        bulk = client.post("/v1/predict", json={"inputs": [SECRET]})
    assert response.status_code == 500 and response.json() == {"error": "internal error"}
    assert bulk.json() == {"answers": [{"error": "internal error"}]}
    assert "ValueError" in caplog.text and "in broken" in caplog.text and SECRET not in caplog.text


@pytest.mark.parametrize("path, body, status, message", [
    ("/", {"inputs": "x" * 5000}, 413, "the body has more than 4096 bytes"),
    ("/", {"inputs": ["a"] * 5}, 413, "inputs: 5 of them, a request may hold 4"),
    ("/", {"inputs": ["a", "x" * 101]}, 413, r"inputs\[1\]: 101 characters, an input may have 100"),
    ("/v1/predict", {"inputs": ["a"] * 9}, 413, "inputs: 9 of them"),
    ("/v1/predict", {"inputs": "a"}, 422, "inputs: "),
    ("/v1/predict", {"inputs": ["a"], "model": "nobody"}, 404, "no student is named 'nobody'"),
    ("/models/nobody", {"inputs": "a"}, 404, "no student is named 'nobody'; there are default"),
    ("/v2/models/default/infer", {"inputs": []}, 422, "inputs: there must be one tensor, named 'text'"),
])
def test_what_is_too_much_or_does_not_exist_is_refused_with_the_number(path, body, status, message):
    with TestClient(app_around(lambda items: [])) as client:
        response = client.post(path, json=body)
    assert response.status_code == status and re.match(message, response.json()["error"])


def test_a_full_queue_is_a_503_at_once_and_a_late_answer_a_504():
    began, gate = threading.Event(), threading.Event()

    def slow(items):
        began.set()
        gate.wait(30)
        return [ValueError() for _ in items]

    app = app_around(slow, deadline=3.0, max_queue=2)
    with TestClient(app) as client, ThreadPoolExecutor(2) as pool:
        late = [pool.submit(client.post, "/", json={"inputs": "a"})]
        assert began.wait(10)
        late.append(pool.submit(client.post, "/", json={"inputs": "a"}))
        while not app.service.roster.waiting:
            time.sleep(0.01)
        full = client.post("/", json={"inputs": "a"})
        assert full.status_code == 503 and full.headers["retry-after"] == "1"
        assert full.json() == {"error": "the queue is full"}
        for response in (future.result() for future in late):
            assert response.status_code == 504 and response.json() == {"error": "no answer within 3 s"}
        gate.set()


def test_without_a_known_key_only_health_and_the_page_answer():
    guarded = Guard(app_around(lambda items: []), lambda: [digest("the first key"), digest("another key")])
    with TestClient(guarded) as client:
        for path in ("/v1/model", "/metrics", "/v2/models/default"):
            response = client.get(path)
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
        assert client.post("/", json={"inputs": "a"}).status_code == 401
        for path in ("/health", "/v2/health/ready", "/v2/health/live", "/"):
            assert client.get(path).status_code == 200
        for header, status in (("Bearer the first key", 200), ("bearer another key", 200), ("Bearer a third", 401),
                               ("Basic the first key", 401), ("Bearer", 401), ("", 401)):
            assert client.get("/v1/model", headers={"authorization": header}).status_code == status


def test_bulk_answers_each_input_alone_and_streams_lines(url):
    texts = ["a good film", "", "x" * 30_000, *(f"film {number}" for number in range(150))]
    status, told = post(f"{url}/v1/predict", {"inputs": texts, "parameters": {"top_k": 1}})
    assert status == 200 and len(told["answers"]) == len(texts)
    assert told["answers"][1] == {"error": "the text is empty"}
    assert "30000 characters" in told["answers"][2]["error"]
    assert all(len(one["answer"]) == 1 for one in [told["answers"][0], *told["answers"][3:]])
    request = urllib.request.Request(f"{url}/v1/predict", json.dumps({"inputs": texts}).encode(), {
        "content-type": "application/json", "accept": "application/x-ndjson"})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.headers["content-type"].startswith("application/x-ndjson")
        lines = [json.loads(line) for line in response]
    assert [line["index"] for line in lines] == list(range(len(texts)))
    assert [line["answer"][0]["label"] for line in lines[3:]] == [
        one["answer"][0]["label"] for one in told["answers"][3:]]


def test_open_inference(url):
    assert fetch(f"{url}/v2/health/ready")[0] == 200 and fetch(f"{url}/v2")[1]["name"] == "kdray"
    assert fetch(f"{url}/v2/models/default/ready") == (200, {"name": "default", "ready": True})
    _, described = fetch(f"{url}/v2/models/names")
    assert [tensor["name"] for tensor in described["outputs"]] == ["answer"]
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a good film", "a bad one"]}
    status, found = post(f"{url}/v2/models/default/infer", {"id": "7", "inputs": [tensor]})
    assert status == 200 and (found["id"], found["model_version"]) == ("7", "films")
    outputs = {output["name"]: output["data"] for output in found["outputs"]}
    _, answers = post(url, {"inputs": tensor["data"]})
    assert outputs["label"] == [answer[0]["label"] for answer in answers]
    assert [json.loads(text)[0]["label"] for text in outputs["answer"]] == outputs["label"]


def test_health_and_pages_answer_head_requests(url):
    for path in ("/health", "/-/healthz", "/v2/health/live", "/v2/health/ready", "/", "/v1/model"):
        with urllib.request.urlopen(urllib.request.Request(url + path, method="HEAD"), timeout=30) as response:
            assert response.status == 200 and response.read() == b""


def test_a_browser_is_told_whose_pages_may_ask(url):
    def told(origin: str, **headers: str) -> str | None:
        request = urllib.request.Request(f"{url}/v1/predict", headers={"origin": origin, **headers}, method="OPTIONS")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.headers["access-control-allow-origin"]
        except urllib.error.HTTPError as error:
            return error.headers["access-control-allow-origin"]

    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    assert told(PAGES, **asks) == PAGES
    assert told("https://elsewhere.org", **asks) is None


def test_what_clients_of_hugging_faces_servers_send_is_taken(url):
    body = {"inputs": "a film", "parameters": None, "options": {"use_cache": False, "wait_for_model": True}}
    status, answer = post(url, body)
    assert status == 200 and len(answer[0]) == 3
    packed = gzip.compress(json.dumps(body).encode())
    assert post(url, packed, **{"content-encoding": "gzip"}) == (200, answer)
    assert post(f"{url}/v1/predict", {"inputs": ["a film"], "parameters": None})[0] == 200


@pytest.mark.parametrize("body, encoding, status, message", [
    (gzip.compress(b"x" * 5000), "gzip", 413, "the body has more than 4096 bytes"),
    (gzip.compress(b"0" * 2**26), "gzip", 413, "the body has more than 4096 bytes"),
    (b'{"inputs": "a"}', "gzip", 422, "the body is not gzip"),
    (gzip.compress(b'{"inputs": "a"}')[:-12], "gzip", 422, "the body ends within its gzip stream"),
    (b'{"inputs": "a"}', "br", 415, "content-encoding: 'br' is not understood, only gzip"),
], ids=["long", "much longer", "not packed", "cut off", "packed otherwise"])
def test_a_packed_body_that_is_none_or_too_much_is_refused(body, encoding, status, message):
    with TestClient(app_around(lambda items: [])) as client:
        response = client.post("/", content=body, headers={"content-type": "application/json",
                                                            "content-encoding": encoding})
    assert response.status_code == status and message in response.json()["error"]


def test_a_client_that_hangs_up_frees_its_place():
    """Over a socket: the test client of Starlette waits for its answer."""
    began, gate = threading.Event(), threading.Event()

    def slow(items):
        began.set()
        gate.wait(30)
        return [ValueError() for _ in items]

    app = app_around(slow, max_queue=2)
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    body = b'{"inputs": "a"}'
    asked = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
    try:
        for client in clients:
            client.sendall(asked + body)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert began.wait(10)
        until(lambda: app.service.roster.waiting == 1)
        assert post(url, {"inputs": "a"})[0] == 503
        for client in clients:
            client.close()
        until(lambda: app.service.roster.waiting == 0)
        gate.set()
        assert post(url, {"inputs": "a"})[0] == 500  # the model's error, so there was room
    finally:
        gate.set()
        server.should_exit = True
        thread.join()


def until(true):
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_every_request_is_counted_and_timed_to_its_end(monkeypatch):
    timed: list[tuple[str, int]] = []

    class Requests:
        def labels(self, route, status):
            timed.append((route, status))
            return self

        def observe(self, seconds):
            streamed.append(len(lines))

    lines, streamed = [], []
    monkeypatch.setattr(metrics, "REQUESTS", Requests())
    guarded = metrics.Timed(Guard(app_around(lambda items: [Prediction([], [], 1.0) for _ in items]),
                                  lambda: [digest("the first key")]))
    with TestClient(guarded, headers={"authorization": "Bearer the first key"}) as client:
        client.get("/v1/model")
        client.get("/nowhere/at/all")
        client.post("/models/nobody", json={"inputs": "a"})
        client.get("/v1/model", headers={"authorization": "Bearer nobodys"})
        with client.stream("POST", "/v1/predict", json={"inputs": ["a"] * 8},
                           headers={"accept": "application/x-ndjson"}) as response:
            lines += response.iter_lines()
    assert timed == [("/v1/model", 200), ("other", 404), ("/models/{name}", 404), ("other", 401), ("/v1/predict", 200)]
    assert len(lines) == 8


def test_a_stuck_model_fails_the_health_check():
    gate = threading.Event()
    app = app_around(lambda items: [gate.wait(30) and ValueError() for _ in items], deadline=0.01)
    with TestClient(app) as client:
        assert client.get("/-/healthz").status_code == client.get("/health").status_code == 200
        app.service.roster._loaded["stand-in"].batcher._began = time.monotonic() - 6
        for path in ("/-/healthz", "/health", "/v2/health/ready"):
            response = client.get(path)
            assert response.status_code == 503 and response.json() == {"error": "a model is stuck"}
        gate.set()


def test_metrics_tell_of_requests_batches_and_labels(url):
    post(url, {"inputs": ["one", "two"]})
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        text = response.read().decode()
    for line in (r'kdray_request_seconds_count{route="/",status="200"} [1-9]', r"kdray_batch_size_count [1-9]",
                 r'kdray_labels_total{label="(good|bad|mixed)",student="films"} [1-9]',
                 r'kdray_confidence_count{student="films"} [1-9]', r"kdray_queue_inputs 0"):
        assert re.search(line, text), line


def answerer(url: str) -> str:
    """The package that has answered a request."""
    status, found = post(f"{url}/v2/models/default/infer", {"inputs": [
        {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a film"]}]})
    assert status == 200
    return found["model_version"]


def versions(url: str) -> list[str]:
    return fetch(f"{url}/v2/models/default")[1]["versions"]


def test_a_promoted_student_answers_and_the_former_one_comes_back(url, films, other):
    before = replicas()
    slot = change.promote("default", str(other))
    assert replicas() == before  # though num_cpus was given as an int
    assert (slot.package, slot.previous) == (str(other), str(films))
    assert {answerer(url) for _ in range(8)} == {"other"} and versions(url) == ["other"]
    assert fetch(f"{url}/v1/model")[1]["key"] == "other"
    change.back("default")
    assert {answerer(url) for _ in range(8)} == {"films"}
    with pytest.raises(ConfigError, match="there is nothing to go back to"):
        change.back("names")


def test_a_student_that_fails_its_parity_sample_is_refused_and_the_old_one_stays(url, films, other, tmp_path):
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", str(other), str(broken)], check=True)
    texts = [f"film {number}" for number in range(20)]
    (broken / "parity.json").write_text(json.dumps({"inputs": texts, "labels": [["none of these"]] * 20}))
    with pytest.raises(ModelError, match="does not answer like its student: 20 of 20 labels"):
        change.promote("default", str(broken))
    assert answerer(url) == "films" and running()["students"]["default"]["package"] == str(films)


def test_a_student_of_another_task_is_refused(url, films, names):
    with pytest.raises(ModelError, match=r"names has the task token-classification, and default answers with "
                       r"sequence-classification: .*Serve it under a name of its own"):
        change.promote("default", str(names))
    assert answerer(url) == "films" and running()["students"]["default"]["package"] == str(films)


def test_what_one_replica_refuses_is_served_by_none(url, films, other, monkeypatch):
    """Here the check passes, and when the replicas are asked the package is gone."""
    gone = other.with_name("gone")
    monkeypatch.setattr(change, "check", lambda uri, settings: None)
    with pytest.raises(ModelError, match="gone is no package"):
        change.promote("default", str(gone))
    assert running()["students"]["default"]["package"] == str(films)
    monkeypatch.setattr(change, "_prepare", lambda *_: None)
    with pytest.raises(ModelError, match=r"gone is no package.*\(default serves what it served\)"):
        change.promote("default", str(gone))
    assert running()["students"]["default"]["package"] == str(films) and running()["refused"] == {}
    assert {answerer(url) for _ in range(8)} == {"films"}


def test_changes_that_come_at_once_are_made_one_after_the_other(url, films, other):
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(change.promote, "default", str(package)) for package in (other, films)]
        slots = [future.result() for future in done]
    last = running()["students"]["default"]
    assert last in [slot.model_dump() for slot in slots]
    assert {slot.previous for slot in slots} == {str(films), last["previous"]}
    change.promote("default", str(films))


def test_a_canary_answers_its_share_until_it_is_taken_back(url, other):
    change.put_canary("default", str(other), 0.5)
    found = [answerer(url) for _ in range(40)]
    assert 5 <= found.count("other") <= 35 and sorted(versions(url)) == ["films", "other"]
    change.put_canary("default", str(other), 1.0)
    assert {answerer(url) for _ in range(8)} == {"other"} and versions(url) == ["other"]
    change.back("default")
    assert {answerer(url) for _ in range(20)} == {"films"} and versions(url) == ["films"]


def test_no_request_fails_while_students_are_promoted(url, films, other):
    with Load(url) as load:
        for package in (other, films):
            change.promote("default", str(package))
    assert load.lost_none()


def test_a_serve_config_that_wants_another_task_or_has_lost_its_keys_is_refused(url, films, names, monkeypatch):
    monkeypatch.setattr(deployment, "read_run", lambda run: (Config.model_construct(serve=ServeConfig(port=8000)), run))
    with pytest.raises(ModelError, match="names has the task token-classification, and default answers with"):
        deployment.application({"run": str(names)})
    with pytest.raises(ConfigError, match="lets anybody on the network ask"):
        deployment.application({"run": str(films), "settings": {"host": "0.0.0.0"}})
    assert deployment.application({"run": str(films)})


def test_what_cannot_be_deployed_is_refused_before_anything_changes(url, films, other, tmp_path):
    def refused(error: type[Exception], match: str, package: Path = films, **settings: Any) -> None:
        with pytest.raises(error, match=match):
            deploy({"default": str(package)}, ServeConfig(**settings), [], blocking=False)

    refused(ModelError, "is no package", tmp_path)
    refused(ClusterError, r"serve\.replicas = 9", replicas=9)
    refused(ConfigError, r"serve\.host = 0\.0\.0\.0 lets anybody", host="0.0.0.0")
    refused(ClusterError, r"runs on this cluster already, on port \d+, with default: .*films, names: .*names\. Change "
            r"what it serves with `kdray serve RUN --promote`", other)
    assert fetch(f"{url}/health")[0] == 200


def test_no_request_fails_while_a_replica_is_killed_and_replaced(url):
    before, mine = replicas(), running()["metrics"]
    with Load(url) as load:
        os.kill(min(before), signal.SIGKILL)
        replicas_when(lambda found: len(found - {min(before)}) == 2, mine)
    assert load.lost_none()


BLOCKING = """
import socket, sys
from kdray.serving.guard import take_keys
keys = take_keys(None)
from kdray.cluster import connect
from kdray.config import ServeConfig
from kdray.console import guarded
from kdray.errors import ClusterError
from kdray.serving.deploy import deploy
connect()
with socket.create_server(("127.0.0.1", 0)) as taken:
    try:
        deploy({"default": sys.argv[1]}, ServeConfig(port=taken.getsockname()[1]), [], blocking=True)
    except ClusterError as error:
        print(error, flush=True)
sys.exit(guarded(lambda: deploy({"default": sys.argv[1]}, ServeConfig(port=0), keys, blocking=True)))
"""


def test_a_blocking_endpoint_refuses_a_taken_port_shows_no_key_and_its_status_tells_of_a_sigterm(films):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["KDRAY_API_KEYS"] = KEY
    process = subprocess.Popen([sys.executable, "-c", BLOCKING, str(films)], stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.STDOUT, env=environment | {"RAY_AUTH_MODE": "disabled"})
    try:
        assert "cannot listen on 127.0.0.1" in line_with("`serve.port`", process)
        url = line_with("answers at", process).split()[-1]
        assert fetch(f"{url}/health") == (200, {"status": "ok"})
        assert post(url, {"inputs": "a"})[0] == 401
        assert post(url, {"inputs": "a"}, authorization=f"Bearer {KEY}")[0] == 200
        started = psutil.Process(process.pid).children(recursive=True)
        environments = [Path(f"/proc/{one.pid}/environ").read_bytes() for one in started if one.is_running()]
        assert len(environments) > 5 and not [one for one in environments if KEY.encode() in one]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    with pytest.raises(urllib.error.URLError):
        fetch(f"{url}/health")


def line_with(text: str, process: subprocess.Popen) -> str:
    return next(line for line in process.stdout if text in line)


def test_keys_are_replaced_while_replicas_run(url, other):
    def status(key: str) -> int:
        return fetch(urllib.request.Request(f"{url}/v1/model", headers={"authorization": f"Bearer {key}"}))[0]

    old, new = "a key of sixteen or more", "another key of that length"
    change.replace_keys([digest(old)])
    assert [status(key) for key in (old, new, "")] == [200, 401, 401]
    change.promote("default", str(other))
    assert [status(key) for key in (old, new)] == [200, 401]
    change.replace_keys([digest(old), digest(new)])
    assert [status(key) for key in (old, new)] == [200, 200]
    change.replace_keys([digest(new)])
    assert [status(key) for key in (old, new)] == [401, 200]
    change.back("default")
    assert [status(key) for key in (old, new)] == [401, 200]
    change.replace_keys([])
    assert status("") == 200
