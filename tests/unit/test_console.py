"""Log lines as text and as JSON; `kdray teacher` as a user calls it."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from kdray import console
from kdray.errors import ConfigError
from tests.small import make_model, sentences, write_jsonl

ROOT = Path(__file__).resolve().parents[2]


def kdray(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "kdray.cli", *arguments], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, **environment})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that is taken as it is: no Ray is needed for it."""
    folder = tmp_path_factory.mktemp("logs")
    rows = write_jsonl(folder / "rows.jsonl", sentences(60))
    (folder / "c.yaml").write_text(yaml.safe_dump({
        "name": "films", "storage": str(folder / "store"), "data": {"source": str(rows), "max_length": 32},
        "teacher": {"model": str(make_model(folder / "model"))}, "student": {"layers": 2}}))
    return folder / "c.yaml"


def test_json_logs_are_one_object_a_line_on_standard_error_alone(config: Path) -> None:
    done = kdray("teacher", str(config), KDRAY_LOG="json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("corpus: ") and "{" not in done.stdout
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    made = next(entry for entry in entries if entry["message"].startswith("corpus: making"))
    assert (made["level"], made["run"], made["stage"]) == ("INFO", "films", "corpus")
    assert datetime.fromisoformat(made["time"]).utcoffset() is not None
    assert all(set(entry) == {"time", "level", "run", "stage", "message"} for entry in entries)


def test_what_went_wrong_is_an_object_too(config: Path) -> None:
    done = kdray("teacher", str(config), "data.source=gone.csv", KDRAY_LOG="json")
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 1 and last["level"] == "ERROR" and "no file matches gone.csv" in last["message"]
    assert (last["run"], last["stage"]) == ("films", "corpus")


def test_text_is_the_default(config: Path) -> None:
    done = kdray("teacher", str(config))
    assert done.returncode == 0 and "run films: " in done.stderr and "corpus: " in done.stderr
    assert "{" not in done.stderr


def test_a_format_that_there_is_not_is_refused(config: Path) -> None:
    done = kdray("teacher", str(config), KDRAY_LOG="xml")
    assert done.returncode == 1
    assert done.stderr == "kdray: the environment variable KDRAY_LOG = 'xml' must be text or json\n"


@pytest.fixture
def json_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    """JSON logs in this process."""
    monkeypatch.setenv(console.FORMAT, "json")
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(console, "_labels", dict(console.labels()))
    return capsys


def test_lines_of_others_become_objects_and_a_workers_have_its_labels(json_here: pytest.CaptureFixture[str]) -> None:
    console.work_for({"run": "films", "stage": "sweep", "student": "tiny"})
    print("Warning: of another library\n  in two lines", file=sys.stderr)
    logging.getLogger("kdray").warning("loss %.1f", 0.5)
    first, second, third = map(json.loads, json_here.readouterr().err.splitlines())
    assert first["message"] == "Warning: of another library" and second["message"] == "  in two lines"
    assert third["message"] == "loss 0.5" and third["level"] == "WARNING"
    assert (third["run"], third["stage"], third["student"]) == ("films", "sweep", "tiny")


def test_a_bug_is_one_object_with_its_trace(json_here: pytest.CaptureFixture[str]) -> None:
    console.log_to_stderr()
    try:
        raise ValueError("unforeseen")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    line = json.loads(json_here.readouterr().err)
    assert line["level"] == "CRITICAL" and line["message"] == "ValueError: unforeseen"
    assert "test_console.py" in line["exception"] and "Traceback" in line["exception"]


def test_a_workers_text_lines_say_whose_they_are(monkeypatch: pytest.MonkeyPatch,
                                                 json_here: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(console.FORMAT)
    console.work_for({"run": "films", "stage": "cache", "student": ""})
    logging.getLogger("kdray").warning("hot")
    assert json_here.readouterr().err.endswith(" films/cache hot\n")


def end(number: int) -> Callable[[], None]:
    def act() -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    return act


def swallowed() -> None:
    """Ray raises a KeyboardInterrupt of its own where a signal interrupts its waiting."""
    try:
        end(signal.SIGTERM)()
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None


def refuse() -> None:
    raise ConfigError("no such thing")


@pytest.mark.parametrize("act, status, said", [
    (lambda: None, 0, ""),
    (lambda: 7, 7, ""),
    (refuse, 1, "kdray: no such thing\n"),
    (end(signal.SIGINT), 130, "kdray: interrupted; the same command goes on from here\n"),
    (end(signal.SIGTERM), 143, "kdray: stopped; the same command, or submission, goes on from here\n"),
    (swallowed, 143, "kdray: stopped; the same command, or submission, goes on from here\n"),
])
def test_how_a_command_ends_and_what_it_says(act: Callable[[], int | None], status: int, said: str,
                                             json_here: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(console.FORMAT)
    before = signal.getsignal(signal.SIGTERM)
    assert console.guarded(act) == status
    assert json_here.readouterr().err == said
    assert signal.getsignal(signal.SIGTERM) is before
