"""Questions about texts, from SQuAD's file to a package that answers them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import InferenceClient
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from kdray.serving.predictor import load_predictor
from tests.browser import CHROMIUM, Browser
from tests.integration.asking import post
from tests.integration.conftest import Command, run_task
from tests.integration.test_playground import Playground, Site
from tests.small import FILLERS, make_model

LONG = 70
"""Words of a text: several windows."""
ASKED = {"question": "was some name", "context": f"{' the' * 40} story,  ann {'the ' * 30}"}


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


@pytest.fixture(scope="module")
def store(kdray_here: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a run."""
    folder = tmp_path_factory.mktemp("questions")
    data = folder / "squad.json"
    data.write_text(json.dumps({"version": "v2.0", "data": articles(400)}))
    base = make_model(folder / "base", head="BertForMaskedLM")
    run_task(kdray_here, folder, data, base, {
        "task": "question-answering", "teacher": {"model": str(base), "finetune": {"epochs": 8, "lr": 3e-3}},
        "training": {"epochs": 6, "lr": 3e-3}})
    return folder / "store"


def test_a_run_teaches_questions_with_and_without_an_answer(store: Path, package: Path) -> None:
    (evaluation,) = (store / "evaluations").glob("*/manifest.json")
    numbers = json.loads(evaluation.read_text())["numbers"]
    assert numbers["test"]["teacher"]["f1"]["value"] > 0.9
    assert set(numbers["test"]["winner"]) == {"f1", "exact_match", "answered_f1", "answered_exact_match",
                                              "impossible_found"}
    assert set(numbers["thresholds"]) == {"teacher", "baseline", "winner"}
    assert json.loads((package / "manifest.json").read_text())["threshold"] == numbers["thresholds"]["winner"]
    found, none = load_predictor(package, "auto", 0, 1, 1024).predict([
        (ASKED, {}), ({**ASKED, "context": "the film was"}, {})])
    assert found.answer["answer"] == "ann" == ASKED["context"][found.answer["start"]:found.answer["end"]]
    assert none.answer["answer"] == "" and none.said == [[]]
    assert "AutoModelForQuestionAnswering" in (package / "README.md").read_text()


def test_it_is_served_to_clients_of_both_protocols(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    client = InferenceClient(model=site.url)
    answer = client.question_answering(**ASKED)
    assert (answer.answer, answer.start) == ("ann", ASKED["context"].index("ann")) and 0 < answer.score <= 1
    first, _ = client.question_answering(**ASKED, top_k=2, max_answer_len=1)
    assert first.answer == "ann"
    _, told = post(f"{site.url}/v1/predict", {"inputs": [ASKED, {"question": "name", "context": " "}, "text"]})
    one, empty, text = told["answers"]
    assert one["answer"]["answer"] == "ann" and empty["error"] == "the text is empty" and "question" in text["error"]
    tensors = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in ASKED.items()]
    _, infer = post(f"{site.url}/v2/models/default/infer", {"inputs": tensors})
    assert json.loads(infer["outputs"][0]["data"][0])["answer"] == "ann"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
def test_the_page_asks_for_a_question_and_marks_the_answer(site: Site, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "profile")
    page = Playground(browser, site.url)
    page.ready()
    assert page.run("document.querySelector('#pair').hidden && !document.querySelector('#question').hidden")
    page.ask(ASKED["context"])
    page.says("#status", "Type a question first.")
    page.type("#asked", ASKED["question"])
    page.answered(ASKED["context"])
    assert page.texts("#panels mark") == ["ann"] and page.texts("#panels .bars li")[0].startswith("ann")
    page.answered("the film was")
    assert page.texts("#panels mark") == [] and "The text has no answer." in page.texts("#panels p")
    complaints = page.complaints()
    browser.close()
    assert not complaints


def test_transformers_reads_the_package_as_kdray_does(package: Path) -> None:
    model, tokenizer = AutoModelForQuestionAnswering.from_pretrained(package), AutoTokenizer.from_pretrained(package)
    batch = tokenizer("was some name", "the film was a story with ann and some music", return_tensors="pt")
    with torch.no_grad():
        said = model(**batch)
    own = [place for place, part in enumerate(batch.sequence_ids()) if part == 1]
    start, end = (own[int(logits[0, own].argmax())] for logits in (said.start_logits, said.end_logits))
    assert tokenizer.decode(batch["input_ids"][0, start:end + 1]) == "ann"
