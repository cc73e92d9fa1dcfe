"""The report of a finished run as people look at it: a real browser, light, dark, on a phone and on paper."""

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kdray.cli import main
from tests.browser import CHROMIUM, WORST_CONTRAST, Browser, Tab, overflow
from tests.reports import LABEL, sequence_run, token_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")

EMPTY_PLOTS = """[...document.querySelectorAll("svg")].filter(plot => {
  const drawn = [...plot.querySelectorAll(".data")].map(mark => mark.getBoundingClientRect());
  return !drawn.some(box => box.width + box.height > 2) || !plot.querySelectorAll("text").length;
}).map(plot => plot.getAttribute("aria-label"))"""
PLOTS = "[...document.querySelectorAll('svg')].map(plot => plot.getAttribute('aria-label'))"
OUTSIDE = """[...document.querySelectorAll("svg")].filter(plot => {
  const box = plot.getBoundingClientRect();
  return box.left < 0 || box.right > document.documentElement.clientWidth + 1;
}).map(plot => plot.getAttribute("aria-label"))"""
TEXT_COLOURS = """[...new Set([...document.querySelectorAll("svg text")].map(text => getComputedStyle(text).fill))]"""
OPEN = "document.querySelectorAll('details').forEach(part => part.open = true)"
MODELS = ("teacher", "baseline", "winner")


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a log."""

    def log_message(self, *told: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports as `kdray report` draws them: sequence.html and token.html."""
    folder = tmp_path_factory.mktemp("reports")
    for name, make in (("sequence", sequence_run), ("token", token_run)):
        with pytest.raises(SystemExit) as ended:
            main(["report", str(make(folder / name)), "--out", str(folder / f"{name}.html")])
        assert ended.value.code == 0
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def show(pages: Path, browser: Browser) -> Iterator[Callable[[str], Tab]]:
    """Shows a page; fails the test where the page complained."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(pages)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tab = Tab(browser, f"http://127.0.0.1:{server.server_port}")

    def open_page(name: str) -> Tab:
        tab.open(f"/{name}.html")
        return tab

    yield open_page
    complaints = tab.complaints()
    tab.close()
    server.shutdown()
    assert not complaints


@pytest.mark.parametrize("name, own", [
    ("sequence", ["Pareto front: bytes and validation accuracy", "Learning curves: agreement"]),
    ("token", ["Learning curves: validation f1"])])
def test_every_plot_is_there_and_shows_something(show, name, own):
    tab = show(name)
    shown = tab.run(PLOTS)
    for plot in (*own, "Temperature and alpha of all trials", "Settings of all trials and what they gave",
                 *(f"{what} of the {model}" for what in ("Confusion", "Calibration") for model in MODELS)):
        assert plot in shown
    assert tab.run(EMPTY_PLOTS) == []


def test_an_empty_plot_is_found(show):
    tab = show("token")
    tab.run("document.querySelectorAll('svg')[2].querySelectorAll('.data').forEach(mark => mark.remove())")
    assert tab.run(EMPTY_PLOTS) == [tab.run(PLOTS)[2]]


def test_the_page_says_what_was_measured(show):
    tab = show("sequence")
    head = tab.texts(".sides thead th")
    lines = [text.split()[0] for text in tab.texts(".sides tr > th:first-child")[1:]]
    assert head[1:] == ["teacher", "baseline", "winner", "served (ONNX int8)"]
    assert {"test", "calibration", "parameters", "file", "one", "examples/s"} <= set(lines)
    assert "25 % above the limit" in tab.text(".notice")
    assert "McNemar's exact test of the two models above" in tab.text("#models") and "deviation" in tab.text("#models")
    assert len(tab.texts(".examples li")) == 20
    assert "estimated" in tab.text("#cost") and "nan in step 3" in " ".join(tab.texts(".why"))


def test_texts_and_labels_stay_text(show):
    tab = show("sequence")
    assert LABEL in tab.texts("#labels tbody th") or LABEL in tab.texts("#labels th")
    assert LABEL[:15] in " ".join(tab.texts("svg text")) and not tab.texts(".examples dd b")


def test_the_word_that_is_meant_is_marked(show):
    tab = show("token")
    assert len(tab.texts(".examples mark")) == 20
    assert tab.run("[...document.querySelectorAll('.examples mark')].every(mark => mark.textContent.trim())")


@pytest.mark.parametrize("name", ["sequence", "token"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(show, name, width):
    tab = show(name)
    tab.size(width, 844, mobile=width < 600)
    tab.run(OPEN)
    assert overflow(tab) <= 0
    assert tab.run(OUTSIDE) == (["Settings of all trials and what they gave"] if width < 600 else [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_in_both_schemes(show, scheme):
    tab = show("sequence")
    tab.scheme(scheme)
    tab.run(OPEN)
    ratio, where = tab.run(WORST_CONTRAST)
    assert ratio >= 4.5, where
    ink = tab.run("getComputedStyle(document.body).color")
    assert tab.run(TEXT_COLOURS) == [ink]
    assert (ink == "rgb(232, 235, 240)") == (scheme == "dark")


def test_paper_is_light_and_shows_what_is_folded(show):
    tab = show("sequence")
    tab.size(794, 1123)
    folded = "document.querySelector('#lineage pre').checkVisibility()"
    assert not tab.run(folded)
    tab.call("Emulation.setEmulatedMedia", media="print",
             features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert tab.run(folded) and "sequence-classification" in tab.text("#lineage pre")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert overflow(tab) <= 0 and tab.run(OUTSIDE) == []


def test_the_page_needs_nothing_but_itself(pages):
    page = (pages / "sequence.html").read_text()
    assert "<script" not in page and "http-equiv" not in page and "@import" not in page and 'src="' not in page
