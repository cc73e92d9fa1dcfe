"""Replicas start when inputs pile up."""

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import transformers

from kdray.config import ServeConfig
from kdray.serving.deploy import deploy, take_down
from tests.packages import write_package

pytestmark = pytest.mark.slow
TEXT = "a film that is as long as a text may be, and then a little longer than that " * 20


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    package = write_package(tmp_path / "films", "sequence-classification", transformers.BertForSequenceClassification,
                            ["bad", "good"])
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield deploy({"default": str(package)}, ServeConfig(port=0, max_replicas=2, max_queue=4096, max_texts=512), [],
                     blocking=False)
    finally:
        take_down()
        ray.shutdown()


def test_a_second_replica_starts_while_inputs_pile_up(url: str) -> None:
    from ray import serve

    def count() -> int:
        return sum(serve.status().applications["kdray"].deployments["Endpoint"].replica_states.values())

    def load() -> None:
        body = json.dumps({"inputs": [TEXT] * 512}).encode()
        while not stop.is_set():
            request = urllib.request.Request(url, body, {"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=120).read()

    assert count() == 1
    stop = threading.Event()
    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        ends = time.monotonic() + 150
        while count() < 2:
            assert time.monotonic() < ends, "no second replica"
            time.sleep(1)
    finally:
        stop.set()
        for client in clients:
            client.join()
