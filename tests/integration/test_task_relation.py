"""Relations between two entities, from rows to a package that answers, and is served."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient

from kdray.corpus.tokenizer import load_tokenizer
from kdray.serving.predictor import load_predictor
from kdray.tasks.markers import MARKERS
from tests.browser import CHROMIUM, Browser
from tests.integration.asking import fetch, post
from tests.integration.conftest import Command, run_task, small_config, write_config
from tests.integration.test_playground import Playground, Site
from tests.small import FILLERS, make_model, write_jsonl

NAMES = ("ann", "bob", "rome", "oslo")
RELATIONS = {"good": "Praise(e1,e2)", "bad": "Praise(e2,e1)", "|": "Other"}
TEXT, SPANS = "<e1>ann</e1> good <e2>bob</e2>", {"text": "ann good bob", "head": [0, 3], "tail": [9, 12]}


def related(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts with two names, and a word that tells the relation, or that there is none."""
    chance, rows = random.Random(seed), []
    for _ in range(count):
        one, two = chance.sample(NAMES, 2)
        word = chance.choice(list(RELATIONS))
        text = " ".join([*chance.choices(FILLERS, k=chance.randint(0, 3)), one, word, two,
                         *chance.choices(FILLERS, k=chance.randint(0, 3))])
        spans = [[text.index(name), text.index(name) + len(name)] for name in chance.sample([one, two], 2)]
        rows.append({"text": text, "head": spans[0], "tail": spans[1], "relation": RELATIONS[word]})
    return rows


@pytest.fixture(scope="module")
def store(kdray_here: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a run."""
    folder = tmp_path_factory.mktemp("relations")
    rows, base = write_jsonl(folder / "rows.jsonl", related(500)), make_model(folder / "base")
    done = run_task(kdray_here, folder, rows, base, {
        "task": "relation-extraction", "teacher": {"model": str(base), "finetune": {"epochs": 6, "lr": 3e-3}},
        "training": {"epochs": 4, "lr": 3e-3}})
    assert "macro_f1 and micro_f1 are over 1 relations, 'Other' left out" in done.stderr
    return folder / "store"


def test_a_run_teaches_relations_and_keeps_the_markers(store: Path, package: Path) -> None:
    (evaluation,), (report,) = ((store / kind).glob("*/manifest.json") for kind in ("evaluations", "reports"))
    found = json.loads(evaluation.read_text())["numbers"]["test"]
    assert found["teacher"]["macro_f1"]["value"] > 0.8 and set(found["winner"]) == {"macro_f1", "micro_f1", "accuracy"}
    for folder in (package, *(store / "teachers").iterdir(), *(store / "students").iterdir()):
        assert set(MARKERS) <= load_tokenizer(folder).get_vocab().keys()
    checks = json.loads((package / "manifest.json").read_text())["checks"]
    assert checks["onnx"]["metric"] == checks["onnx-int8"]["metric"] == "macro_f1"
    assert "<e1>author</e1>" in (package / "README.md").read_text()
    assert "&lt;e1&gt; " in (report.parent / "report.html").read_text()


def test_spans_and_markers_get_one_answer_in_every_backend(package: Path) -> None:
    for backend in ("torch", "onnx", "onnx-int8"):
        spans, text, reverse, none = load_predictor(package, backend, 0, 1, 1024).predict([
            (SPANS, {}), (TEXT, {}), ("<e2>ann</e2> bad <e1>bob</e1>", {}), ("<e1>ann</e1> | <e2>bob</e2>", {})])
        assert spans.answer == text.answer and {one["label"] for one in text.answer} == set(RELATIONS.values())
        assert [one.said for one in (text, reverse, none)] == [["Praise(e1,e2)"], ["Praise(e2,e1)"], ["Other"]]


def test_transformers_reads_the_package_as_kdray_does(package: Path) -> None:
    from transformers import pipeline

    (ours,) = load_predictor(package, "torch", 0, 1, 1024, "float32").predict([(TEXT, {})])
    found = pipeline("text-classification", model=str(package), top_k=None)([TEXT])[0]
    assert [one["label"] for one in found] == [one["label"] for one in ours.answer]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in ours.answer], abs=1e-5)


def test_it_is_served_to_clients_of_both_protocols(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = InferenceClient(model=site.url).text_classification(TEXT)
    assert found[0].label == "Praise(e1,e2)" and sum(one.score for one in found) == pytest.approx(1)
    assert post(site.url, {"inputs": SPANS})[1] == post(site.url, {"inputs": TEXT})[1]
    status, infer = post(f"{site.url}/v2/models/default/infer", {"inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]})
    assert status == 200 and {one["name"]: one["data"] for one in infer["outputs"]}["label"] == ["Praise(e1,e2)"]
    status, bulk = post(f"{site.url}/v1/predict", {"inputs": [SPANS, "no marker"]})
    assert status == 200 and bulk["answers"][0]["answer"] and "text has no <e1>" in bulk["answers"][1]["error"]
    assert fetch(f"{site.url}/v1/model")[1]["columns"] == ["text", "head", "tail", "relation"]


@pytest.mark.parametrize("inputs, words", [
    ("ann good bob", "inputs: text has no <e1>, and must have one: mark both entities, <e1>...</e1> ... <e2>...</e2>"),
    ("</e1>ann<e1> good <e2>bob</e2>", "inputs: </e1> stands before <e1>"),
    ({**SPANS, "tail": [9, 13]}, "inputs: tail [9, 13] is not within its text of 12 characters"),
    ({**SPANS, "tail": [9, 9]}, "inputs: tail [9, 9] is empty"),
    ({**SPANS, "text": "<e1> good bob"}, "inputs: text has the marker <e1> in it"),
    ({"text": "ann good bob", "text_pair": "rome"}, "inputs: an input must be a string with markers")])
def test_an_input_that_is_wrong_is_refused(site: Site, inputs: Any, words: str) -> None:
    status, answer = post(site.url, {"inputs": inputs})
    assert status == 422 and words in answer["error"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
def test_the_page_takes_a_text_with_markers(site: Site, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "profile")
    page = Playground(browser, site.url)
    page.ready()
    assert page.run("document.querySelector('#pair').hidden")
    assert "<e1>author</e1>" in page.run("document.querySelector('#text').placeholder")
    page.answered(TEXT)
    assert page.texts("#panels .bars li")[0].startswith("Praise(e1,e2)")
    complaints = page.complaints()
    browser.close()
    assert not complaints


Rows = list[dict[str, Any]]
WRONG: dict[str, tuple[Callable[[Rows], Any], str]] = {
    "a span outside its text": (lambda rows: rows[3].update(tail=[0, 999]), "tail [0, 999] is not within its text"),
    "an empty span": (lambda rows: rows[3].update(head=[2, 2]), "head [2, 2] is empty"),
    "a span that is none": (lambda rows: rows[3].update(head=["x"]), "head ['x'] is no span"),
    "no span": (lambda rows: rows[3].update(head=None), "head is missing"),
    "spans and markers": (lambda rows: rows[3].update(text=f"{rows[3]['text']} <e2>"), "text has the marker <e2>"),
    "no relation": (lambda rows: rows[3].update(relation=None), "relation is missing"),
    "markers in the wrong order": (lambda rows: rows[3].update(text="</e1>ann<e1> <e2>bob</e2>", head=None, tail=None),
                                   "</e1> stands before <e1>"),
    "a marker missing": (lambda rows: rows[3].update(text="<e1>ann</e1> <e2>bob", head=None, tail=None),
                         "text has no </e2>")}


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_is_wrong_is_refused_with_its_place(kdray_here: Command, tmp_path: Path, name: str) -> None:
    change, words = WRONG[name]
    rows = related(60)
    change(rows)
    refused(kdray_here, tmp_path, rows, {"finetune": {"epochs": 1}}, [words, "row 3 of the train split"])


def test_a_teacher_without_markers_is_refused_where_it_is_not_fine_tuned(kdray_here: Command, tmp_path: Path) -> None:
    refused(kdray_here, tmp_path, related(60), {}, ["has no <e1>, </e1>, <e2>, </e2>", "(teacher.finetune)"])


def test_a_length_without_room_is_refused(kdray_here: Command, tmp_path: Path) -> None:
    refused(kdray_here, tmp_path, related(60), {"finetune": {"epochs": 1}}, ["data.max_length = 6 has no room"],
            "data.max_length=6")


def refused(kdray: Command, folder: Path, rows: Rows, teacher: dict[str, Any], words: list[str], *more: str) -> None:
    base = make_model(folder / "base")
    config = small_config(folder / "store", write_jsonl(folder / "rows.jsonl", rows), base, {
        "task": "relation-extraction", "teacher": {"model": str(base), **teacher}})
    done = kdray("run", str(write_config(folder / "c.yaml", config)), *more)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(word in done.stderr.splitlines()[-1] for word in words), done.stderr
    assert not (folder / "store" / "teachers").exists()
