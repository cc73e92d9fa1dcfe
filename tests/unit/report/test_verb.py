"""`kdray report` as a user calls it, where the run has nothing but a report's numbers."""

import json
from pathlib import Path

import pytest

from kdray.cli import main
from kdray.report.facts import FACTS, KIND
from kdray.storage import Store


@pytest.fixture
def run(facts, tmp_path, monkeypatch) -> Path:
    """A run; the working folder is another one."""
    store = Store(str(tmp_path / "store"))
    store.write(json.dumps(facts).encode(), KIND, "key", FACTS)
    store.write(json.dumps({"report": "key"}).encode(), "runs", "films-1a2b", "run.json")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "store/runs/films-1a2b"


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit status and all that is said."""
    with pytest.raises(SystemExit) as end:
        main(["report", *arguments])
    printed = capsys.readouterr()
    return int(end.value.code or 0), printed.out + printed.err


def test_the_page_is_named_after_the_run_and_said_to_be_there(run, capsys):
    assert called(capsys, str(run)) == (0, "report: films-1a2b.html\n")
    assert Path("films-1a2b.html").read_text().startswith("<!doctype html>")
    assert called(capsys, f"{run}/run.json", "--out", "mine.html") == (0, "report: mine.html\n")
    assert Path("mine.html").read_text() == Path("films-1a2b.html").read_text()


@pytest.mark.parametrize("out, words", [
    ("nowhere/page.html", "--out nowhere/page.html: there is no folder nowhere. Make it, or name another file"),
    (".", "--out . is a folder: name a file in it")])
def test_a_page_that_cannot_be_written_is_said_before_it_is_drawn(run, capsys, out, words):
    status, told = called(capsys, str(run), "--out", out)
    assert status == 1 and words in told


def test_a_run_or_report_that_is_not_there_is_said(run, capsys):
    assert called(capsys, str(run.parent))[0] == 1
    (run.parents[1] / KIND / "key" / FACTS).unlink()
    status, told = called(capsys, str(run))
    assert status == 1 and "report key is gone from" in told
