"""Questions about texts, from SQuAD's file to a package that answers them."""

import asyncio
import json
import random
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from huggingface_hub import InferenceClient
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from kdray.serving.app import http_app
from kdray.serving.predictor import load_predictor
from kdray.serving.protocol import Limits
from kdray.serving.roster import Engine, Roster, Slot
from kdray.serving.service import Service
from tests.integration.conftest import Command, small_config, write_config
from tests.small import FILLERS, make_model

LONG = 70
"""Words of a text: several windows."""


def articles(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """SQuAD's shape: what is asked for is a name, and half of the texts have none; some are of several windows."""
    chance, found = random.Random(seed), []
    for number in range(count):
        words = [chance.choice(FILLERS) for _ in range(chance.choice([6, 10, LONG if number % 5 == 0 else 14]))]
        answers = []
        if number % 2:
            place = chance.randrange(len(words) + 1)
            name = chance.choice(["ann", "bob", "rome", "oslo"])
            start = len(" ".join(words[:place])) + (place > 0)
            words.insert(place, name)
            answers = [{"text": name, "answer_start": start}]
        found.append({"title": str(number), "paragraphs": [{"context": " ".join(words), "qas": [
            {"id": str(number), "question": "was some name", "answers": answers, "is_impossible": not answers}]}]})
    return found


@contextmanager
def hosted(package: Path) -> Iterator[str]:
    """URL of the application that serves a package, on a thread of its own."""
    listener, up, servers = socket.create_server(("127.0.0.1", 0)), threading.Event(), list[uvicorn.Server]()

    async def serve() -> None:
        roster = Roster(Engine("auto", 0, 1, 1024, 8))
        await roster.apply({"default": Slot(package=str(package))})
        app = http_app(Service(roster, Limits(65536, 8, 8, 10000), 30.0))
        servers.append(uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off")))
        up.set()
        await servers[0].serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert up.wait(60)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    servers[0].should_exit = True
    thread.join(30)


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=30).read())


def test_questions_with_and_without_an_answer(kdray: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "squad.json"
    data.write_text(json.dumps({"version": "v2.0", "data": articles(400)}))
    base = make_model(tmp_path / "base", head="BertForMaskedLM")
    config = small_config(tmp_path / "store", data, base, {
        "task": "question-answering", "data": {"source": str(data), "max_length": 32},
        "teacher": {"model": str(base), "finetune": {"epochs": 8, "lr": 3e-3}}, "training": {"epochs": 6, "lr": 3e-3},
        "search": {"trials": 2, "seeds": 2}, "export": {"max_drop": 1.0}})
    done = kdray("run", str(write_config(tmp_path / "c.yaml", config)))
    assert done.returncode == 0, done.stderr
    (package,), (evaluation,) = ((tmp_path / "store" / kind).iterdir() for kind in ("packages", "evaluations"))
    numbers = json.loads((evaluation / "manifest.json").read_text())["numbers"]
    assert numbers["test"]["teacher"]["f1"]["value"] > 0.9
    assert set(numbers["test"]["winner"]) == {"f1", "exact_match", "answered_f1", "answered_exact_match",
                                              "impossible_found"}
    assert set(numbers["thresholds"]) == {"teacher", "baseline", "winner"}
    assert json.loads((package / "manifest.json").read_text())["threshold"] == numbers["thresholds"]["winner"]
    context = f"{' the' * 40} story,  ann {'the ' * 30}"
    predictor = load_predictor(package, "auto", 0, 1, 1024)
    found, none = predictor.predict([({"question": "was some name", "context": text}, {})
                                     for text in (context, "the film was")])
    assert found.answer["answer"] == "ann" == context[found.answer["start"]:found.answer["end"]]
    assert none.answer["answer"] == "" and none.said == [[]]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with hosted(package) as url:
        client, asked = InferenceClient(model=url), {"question": "was some name", "context": context}
        answer = client.question_answering(**asked)
        assert (answer.answer, answer.start) == ("ann", context.index("ann")) and 0 < answer.score <= 1
        first, _ = client.question_answering(**asked, top_k=2, max_answer_len=1)
        assert first.answer == "ann"
        told = post(f"{url}/v1/predict", {"inputs": [asked, {"question": "name", "context": " "}, "text"]})["answers"]
        assert told[0]["answer"]["answer"] == "ann" and told[1]["error"] == "the text is empty"
        assert "question" in told[2]["error"]
        tensors = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in asked.items()]
        (output,) = post(f"{url}/v2/models/default/infer", {"inputs": tensors})["outputs"]
        assert json.loads(output["data"][0])["answer"] == "ann"
    model, tokenizer = AutoModelForQuestionAnswering.from_pretrained(package), AutoTokenizer.from_pretrained(package)
    batch = tokenizer("was some name", "the film was a story with ann and some music", return_tensors="pt")
    with torch.no_grad():
        said = model(**batch)
    own = [place for place, part in enumerate(batch.sequence_ids()) if part == 1]
    start, end = (own[int(logits[0, own].argmax())] for logits in (said.start_logits, said.end_logits))
    assert tokenizer.decode(batch["input_ids"][0, start:end + 1]) == "ann"
