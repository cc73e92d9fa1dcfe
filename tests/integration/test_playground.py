"""The page to try a student, in a real browser against the real application."""

import asyncio
import json
import shutil
import socket
import string
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
import uvicorn
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from kdray.serving.app import http_app
from kdray.serving.guard import Guard, digest
from kdray.serving.protocol import Limits, Refusal
from kdray.serving.roster import Engine, Roster, Slot
from kdray.serving.service import Service
from tests.browser import CHROMIUM, WORST_CONTRAST, Browser, Tab, overflow
from tests.packages import write_package

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
KEY = "a-key-of-the-tests"
EVIL = "<img src=x onerror=\"document.title='owned'\">"
NUMBERS = {
    "metric": "accuracy", "rows": 221, "parameters": {"teacher": 22_715_141, "winner": 15_617_285},
    "test": {who: {name: {"value": value, "low": value - .03, "high": value + .02} for name in ("accuracy", "macro_f1")}
             for who, value in (("teacher", .9729), ("winner", .9638))},
    "settings": {"loss": "kl", "temperature": 2.0}}
FILM = "A warm, funny film that ends too soon."
NAMES = "🦊🎉 Ada Lovelace met 👩‍👩‍👧 Charles Babbage in London, and \U0001d49cda wrote to Mary Somerville."


class Site:
    """The real application in a thread of its own, with what the tests change of it while it runs."""

    def __init__(self, students: dict[str, Path]):
        self.keys: list[str] = []
        self.teacher: Any = None
        """What the stand-in for a teacher answers; None where there is no teacher."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._students, self._up = students, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._up.wait(120)

    async def _serve(self) -> None:
        roster = Roster(Engine("onnx-int8", 0, 1, 4096, 64))
        await roster.apply({name: Slot(package=str(folder)) for name, folder in self._students.items()})
        self.service = Service(roster, Limits(65536, 8, 64, 2000), deadline=30.0)
        app = http_app(self.service)
        app.middleware("http")(self._stand_in)
        self._server = uvicorn.Server(uvicorn.Config(Guard(app, lambda: self.keys), log_level="warning"))
        self._up.set()
        await self._server.serve(sockets=[self.listener])
        await roster.close()

    async def _stand_in(self, request: Request, call_next: Any) -> Response:
        """A stand-in for a teacher, and the strict policy that a proxy may add."""
        if self.teacher is not None and request.url.path == "/v1/teacher":
            status = 503 if "error" in self.teacher else 200
            return JSONResponse(self.teacher, status)
        response = await call_next(request)
        response.headers["content-security-policy"] = POLICY
        if self.teacher is not None and request.url.path == "/v1/model":
            card = json.loads(b"".join([part async for part in response.body_iterator]))
            return JSONResponse(card | {"teacher": True})
        return response

    def ask(self, inputs: Any, name: str = "default") -> Any:
        """What the API answers."""
        request = urllib.request.Request(f"{self.url}/models/{name}", json.dumps({"inputs": inputs}).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)


class Playground(Tab):
    """A tab that shows the page to try a student."""

    def open(self) -> None:
        super().open()
        self.wait("!!document.querySelector('#ask')")

    def ready(self) -> None:
        self.open()
        self.wait("!document.querySelector('#ask').hidden")

    def ask(self, text: str) -> None:
        self.type("#text", text)
        self.press("Enter", control=True)

    def answered(self, text: str) -> None:
        self.run("document.querySelector('#status').textContent = ''")
        self.ask(text)
        self.says("#status", "round trip")


def changed(folder: Path, **values: Any) -> Path:
    """The package with other values in its manifest."""
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("packages")
    films = changed(write_package(folder / "films", "sequence-classification",
                                  transformers.BertForSequenceClassification, ["bad", "good", "mixed"]),
                    numbers=NUMBERS, lineage={"corpus": "c0ffee", "teacher": "7eac4e5"})
    names = write_package(folder / "names", "token-classification", transformers.BertForTokenClassification,
                          ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
    evil = changed(Path(shutil.copytree(films, folder / "evil")), labels=[EVIL, "good", "<script>x</script>"])
    moods, stars = (write_package(folder / name, task, transformers.BertForSequenceClassification, labels)
                    for name, task, labels in (("moods", "multi-label-classification", ["calm", "glad", "sad"]),
                                               ("stars", "regression", ["score"])))
    site = Site({"default": films, "names": names, EVIL: evil, "moods": moods, "stars": stars})
    yield site
    site.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def tab(site, browser) -> Iterator[Playground]:
    """An empty tab; the test fails where its page complains."""
    site.keys, site.teacher, site.service.deadline = [], None, 30.0
    tab = Playground(browser, site.url)
    yield tab
    complaints = tab.complaints()
    tab.close()
    assert not complaints


@pytest.fixture
def page(tab) -> Playground:
    """The page, with its default student."""
    tab.ready()
    return tab


def choose(page: Playground, name: str) -> None:
    page.run(f"""(() => {{
        const select = document.querySelector("#student");
        select.value = {json.dumps(name)};
        select.dispatchEvent(new Event("change"));
    }})()""")
    page.says("h1", name)


def percent(score: float) -> str:
    return f"{score * 100:.1f} %"


def test_a_text_gets_its_labels_best_first_with_bars(page, site):
    page.answered(FILM)
    (answer,) = site.ask(FILM)
    assert page.texts("#panels .bars li") == [item["label"] + percent(item["score"]) for item in answer]
    widths = page.run("[...document.querySelectorAll('.fill')].map(bar => parseFloat(bar.style.width))")
    assert widths == pytest.approx([item["score"] * 100 for item in answer], abs=0.01)
    assert page.text("#status").startswith(f"{answer[0]['label']}, {percent(answer[0]['score'])}, ")
    assert page.text("#panels .head").startswith("Answer") and page.text("#panels .head").endswith(" ms")


def test_several_labels_are_those_above_a_half(page, site):
    choose(page, "moods")
    page.answered(FILM)
    (answer,) = site.ask(FILM, "moods")
    on = [item["label"] for item in answer if item["score"] >= 0.5]
    assert page.text("#status").startswith((", ".join(on) or "No label") + ", ")
    assert page.texts("#panels .bars li.best") == [item["label"] + percent(item["score"]) for item in answer][:len(on)]
    site.teacher = [[{**item, "score": 0.9} for item in answer]]
    page.ready()
    choose(page, "moods")
    page.answered(FILM)
    page.says("#agreement", "Both say" if len(on) == 3 else "the teacher calm, glad, sad")


def test_a_number_is_shown_as_it_is_and_compared_with_the_teachers(page, site):
    choose(page, "stars")
    page.answered(FILM)
    ((answer,),) = site.ask(FILM, "stars")
    assert float(page.text("#panels .figure").replace(",", "")) == pytest.approx(answer["score"], abs=1e-3)
    assert page.text("#go") == "Score" and page.texts("#panels .bars") == []
    site.teacher = [[{"label": "score", "score": answer["score"] + 2}]]
    page.ready()
    choose(page, "stars")
    page.answered(FILM)
    page.says("#agreement", "✗ The student is 2 from the teacher.")


def test_the_page_says_what_the_model_is(page):
    assert page.text("h1") == "kdray" and page.text("#task") == "sequence-classification"
    facts = page.texts("#facts")[0]
    assert "bad, good, mixed" in facts and "films" in facts and "c0ffee" in facts and "settings, temperature" in facts
    assert page.texts("#facts tbody tr")[1].startswith("this student0.9638") and "15.6 M" in facts
    assert page.run("document.querySelector('nav a').href") == f"{page.url}/docs"


def test_the_keyboard_is_enough(page):
    page.says("#status", "The answer appears here.")
    assert page.run("document.activeElement.id") == "text"
    page.call("Input.insertText", text=FILM)
    visited = []
    while visited[-1:] != ["go"] and len(visited) < 9:
        page.press("Tab")
        visited.append(page.run("document.activeElement.id || document.activeElement.tagName"))
    assert visited == ["pair-title", "go"]
    page.press("Enter")
    page.says("#status", "round trip")


def test_every_field_has_a_label_and_answers_are_announced(page):
    assert page.run("[...document.querySelectorAll('input, textarea, select')].every(field => field.labels.length)")
    assert page.run("document.querySelector('#status').role") == "status"
    assert page.run("document.querySelector('#problem').role") == "alert"


def test_a_second_text_makes_a_pair(page, site):
    page.click("#pair summary")
    page.type("#second", "Quite the contrary.")
    page.answered(FILM)
    (answer,) = site.ask({"text": FILM, "text_pair": "Quite the contrary."})
    assert page.texts("#panels .bars li") == [item["label"] + percent(item["score"]) for item in answer]
    assert answer != site.ask(FILM)[0]
    page.click("#pair summary")
    page.answered(FILM)
    page.wait(f"document.querySelector('.bars .number').textContent === '{percent(site.ask(FILM)[0][0]['score'])}'")


def test_entities_are_coloured_where_python_counts_them(page, site):
    choose(page, "names")
    page.answered(NAMES)
    entities = site.ask(NAMES, "names")
    assert any(item["start"] > NAMES.index("\U0001d49c") for item in entities)
    assert page.texts("#panels .text") == [NAMES]
    assert page.texts("#panels mark") == [item["word"] for item in entities]
    kinds = page.run("[...document.querySelectorAll('#panels mark')].map(mark => mark.dataset.kind)")
    assert kinds == [item["entity_group"] for item in entities]
    assert page.texts(".legend li") == [f"{kind} {kinds.count(kind)}" for kind in ("PER", "LOC")]
    assert page.texts(".bars .number") == [percent(item["score"]) for item in entities]
    colours = page.run("[...document.querySelectorAll('.legend .kind')].map(kind => getComputedStyle(kind)"
                       ".backgroundColor)")
    assert len(set(colours)) == 2
    assert page.text("#go") == "Find entities" and not page.text("#pair")


def test_a_text_without_entities_says_so(page, site):
    choose(page, "names")
    page.answered(next(sign for sign in string.printable[:94] if not site.ask(sign, "names")))
    assert page.text("#status").startswith("No entities") and "No entity in this text." in page.text("#panels")


def test_another_student_answers_the_same_text(page, site):
    assert page.texts("#student option") == ["default", "names", EVIL, "moods", "stars"]
    page.answered(FILM)
    choose(page, "names")
    page.wait("!!document.querySelector('.legend')")
    assert page.texts("#panels mark") == [item["word"] for item in site.ask(FILM, "names")]


def test_no_text_becomes_html(page, site):
    choose(page, EVIL)
    page.answered(f"{EVIL}<script>document.title='owned'</script>")
    assert sorted(page.texts("#panels .bars span:first-child")) == sorted([EVIL, "good", "<script>x</script>"])
    site.teacher = {"error": EVIL}
    choose(page, "names")
    page.wait("!!document.querySelector('.teacher .problem')")
    assert EVIL in page.text(".teacher") and page.text(".student .text").startswith(EVIL)
    page.refusals = {503}
    assert page.run("document.querySelectorAll('img, main script script').length") == 0
    assert page.run("document.title") == "kdray: names"


def test_the_key_is_asked_for_and_kept_in_the_tab_alone(tab, site):
    site.keys, tab.refusals = [digest(KEY)], {401}
    tab.open()
    tab.says("#key-why", "This server asks for an API key.")
    assert tab.run("document.activeElement.id") == "key" and not tab.text("#ask")
    tab.type("#key", "schlüssel")
    tab.press("Enter")
    tab.says("#key-why", "only ASCII")
    tab.type("#key", "a-key-of-somebody-else")
    tab.press("Enter")
    tab.says("#key-why", "The server does not accept this key.")
    tab.type("#key", KEY)
    tab.press("Enter")
    tab.wait("!document.querySelector('#ask').hidden")
    assert tab.run("[sessionStorage.getItem('kdray-key'), localStorage.length, document.cookie]") == [KEY, 0, ""]
    assert not tab.text("#key-form") and tab.run("document.querySelector('#key').value") == ""
    tab.ready()
    tab.answered(FILM)
    site.keys = [digest("the-next-key-of-the-tests")]
    tab.ask(FILM)
    tab.says("#key-why", "The server does not accept this key.")
    tab.type("#key", "the-next-key-of-the-tests")
    tab.press("Enter")
    tab.says("#status", "round trip")
    assert tab.run("document.activeElement.id") == "text"
    tab.click("#forget")
    tab.says("#key-why", "This server asks for an API key.")
    assert tab.run("sessionStorage.length") == 0 and not tab.text("#panels")


def test_an_empty_text_is_not_sent(page):
    page.ask("  \n")
    page.says("#status", "Type a text first.")
    assert page.run("document.activeElement.id") == "text"


@pytest.mark.parametrize("status, text, message", [
    (413, "long " * 500, "2500 characters, an input may have 2000"),
    (422, "\x85", "inputs: the text is empty"),
    (503, FILM, "the queue is full"),
    (504, FILM, "no answer within 0 s"),
    (500, FILM, "internal error"),
])
def test_a_refusal_is_shown_in_the_words_of_the_server(page, site, monkeypatch, status, text, message):
    page.answered(FILM)
    page.refusals = {status}
    prepare(page, site, monkeypatch, status)
    page.ask(text)
    page.says("#problem", message)
    assert not page.text("#panels") and not page.text("#status")
    monkeypatch.undo()
    site.service.deadline = 30.0
    if status >= 500:
        page.click("#problem button")
    else:
        page.ask(FILM)
    page.says("#status", "round trip")
    assert not page.text("#problem")


def prepare(page: Playground, site: Site, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Makes the service refuse the next request so."""

    async def full(*_: Any) -> Any:
        raise Refusal(503, "the queue is full", retry=1)

    async def broken(*_: Any) -> Any:
        raise ValueError("a bug")

    if status == 504:
        site.service.deadline = 0.0
    elif status in (500, 503):
        monkeypatch.setattr(site.service, "ask", full if status == 503 else broken)


def test_half_of_an_emoji_is_sent_as_the_sign_for_what_is_no_character(page, site):
    page.run(r"document.querySelector('#text').value = 'half \ud83d'")
    page.press("Enter", control=True)
    page.says("#status", "round trip")
    assert page.texts("#panels .bars .number")[0] == percent(site.ask("half \ufffd")[0][0]["score"])


def test_a_server_that_is_gone_is_a_message_and_can_be_asked_again(page):
    page.refusals = {0}
    page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    page.ask(FILM)
    page.says("#problem", "The server does not answer.")
    page.call("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    page.click("#problem button")
    page.says("#status", "round trip")


def test_a_student_that_is_gone_is_not_chosen(page, site, monkeypatch):
    slots = site.service.roster.slots
    monkeypatch.setattr(site.service.roster, "slots", {"default": slots["default"]})
    page.refusals = {404}
    page.run("document.querySelector('#student').value = 'names'")
    page.run("document.querySelector('#student').dispatchEvent(new Event('change'))")
    page.says("#problem", "no student is named 'names'")
    assert page.run("document.querySelector('#student').value") == "default"


def test_a_slow_answer_does_not_replace_a_later_one(page, site, monkeypatch):
    real = site.service.ask

    async def slow_at_first(name: str, inputs: list[Any], parameters: dict[str, Any]) -> Any:
        await asyncio.sleep(0.8 if inputs == ["slow"] else 0)
        return await real(name, inputs, parameters)

    monkeypatch.setattr(site.service, "ask", slow_at_first)
    page.ask("slow")
    page.says("#status", "Waiting for the answer…")
    page.answered(FILM)
    time.sleep(1)
    assert page.texts("#panels .bars .number")[0] == percent(site.ask(FILM)[0][0]["score"])


def test_the_teacher_answers_beside_the_student(tab, site):
    (answer,) = site.ask(FILM)
    best, other = answer[0]["label"], answer[1]["label"]
    site.teacher = [[{"label": best, "score": 1.0}]]
    tab.ready()
    tab.answered(FILM)
    tab.says("#agreement", f"✓ Both say {best}; their scores overlap by {percent(answer[0]['score'])}.")
    assert tab.texts("#panels h2") == ["Student", "Teacher"]
    boxes = tab.run("[...document.querySelectorAll('#panels > *')].map(box => box.getBoundingClientRect().toJSON())")
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["right"] < boxes[1]["x"]
    site.teacher = [[{"label": other, "score": 0.9}, *({"label": f"label {i}", "score": 0.01} for i in range(10))]]
    tab.answered(FILM)
    tab.says("#agreement", f"✗ The student says {best}, the teacher {other};")
    assert len(tab.texts(".teacher .bars li")) == 11 and "3 more labels" in tab.text(".teacher")


def test_the_teachers_entities_are_compared_one_by_one(tab, site):
    entities = site.ask(NAMES, "names")
    alone = {"entity_group": "PER", "score": 0.9, "word": "🦊🎉", "start": 0, "end": 2}
    site.teacher = entities
    tab.ready()
    choose(tab, "names")
    tab.answered(NAMES)
    tab.says("#agreement", f"✓ Both find the same {len(entities)} entities.")
    site.teacher = [alone, *entities[1:]]
    tab.answered(NAMES)
    tab.says("#agreement", f"✗ {len(entities) - 1} of {len(entities) + 1} entities are the same;")
    assert tab.texts("mark.alone") == [entities[0]["word"], "🦊🎉"]


def test_a_teacher_that_fails_leaves_the_students_answer(tab, site):
    site.teacher, tab.refusals = {"error": "the teacher is busy"}, {503}
    tab.ready()
    tab.answered(FILM)
    tab.says(".teacher", "the teacher is busy")
    assert len(tab.texts(".student .bars li")) == 3 and not tab.text("#agreement")
    site.teacher = site.ask(FILM)
    tab.click(".teacher button")
    tab.says("#agreement", "✓")


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_in_one_direction(tab, site, width):
    site.teacher = site.ask(FILM)
    tab.size(width, 800, mobile=True)
    tab.ready()
    tab.answered(FILM + "unbroken" * 60)
    tab.says("#agreement", "overlap")
    assert overflow(tab) <= 0
    site.teacher = site.ask(NAMES, "names")
    choose(tab, "names")
    tab.answered(NAMES + " Un" + "broken" * 60)
    tab.says("#agreement", "entities")
    tab.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert overflow(tab) <= 0
    assert tab.run("document.querySelector('#go').getBoundingClientRect().height") >= 40 and not tab.text(".keys")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_in_both_schemes(tab, site, scheme):
    tab.scheme(scheme)
    site.teacher = {"error": "busy"}
    tab.refusals = {503}
    tab.ready()
    back = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    for name, text in (("default", FILM), ("names", NAMES)):
        for teacher in ({"error": "busy"}, site.ask(text, name)):
            site.teacher = teacher
            if name == "names":
                choose(tab, name)
            tab.answered(text)
            tab.wait("document.querySelector('#panels').ariaBusy === 'false'")
            tab.run("document.querySelectorAll('details').forEach(part => part.open = true)")
            ratio, where = tab.run(WORST_CONTRAST)
            assert ratio >= 4.5, where
