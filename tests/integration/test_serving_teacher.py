"""`kdray serve` with the teacher beside a weak student: cascade, shadow, what they differ on, a change from outside."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import (
    ROOT,
    Command,
    command,
    environment,
    free_port,
    small_config,
    write_config,
)
from tests.small import sentences


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, rows: Path, teacher: Path, kdray_here: Command) -> str:
    """Folder of a run whose student has hardly been trained."""
    folder = tmp_path_factory.mktemp("weak")
    done = kdray_here("run", str(write_config(folder / "c.yaml", small_config(folder / "store", rows, teacher, {
        "student": {"fresh": {"num_hidden_layers": 1}}, "training": {"epochs": 1, "lr": 1e-5},
        "search": {"trials": 1}}))))
    assert done.returncode == 0, done.stderr
    return str(Path(done.stdout.split("kdray serve ")[1].strip()).expanduser())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps what student and teacher differ on."""
    return tmp_path_factory.mktemp("differences") / "kept"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who has set nothing: Ray asks for a token, which it makes in an empty home."""
    plain = {name: value for name, value in environment().items() if name != "RAY_AUTH_MODE"}
    return plain | {"HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="module")
def url(run: str, kept: Path, teacher: Path, home: dict[str, str]) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        command("serve", run, f"port={port}", "teacher.shadow=1", "teacher.cascade=1", f"teacher.keep={kept}"),
        env=home, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any(f"answers at http://127.0.0.1:{port}" in line for line in process.stderr), "the service ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def ask(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def counted(url: str, why: str, outcome: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:
        text = response.read().decode()
    found = re.search(rf'kdray_teacher_inputs_total{{outcome="{outcome}",why="{why}"}} ([\d.]+)', text)
    return float(found[1]) if found else 0.0


def test_the_teacher_answers_where_the_student_is_unsure(url: str) -> None:
    rows = sentences(60, seed=9)
    answers = ask(url, {"inputs": [row["text"] for row in rows]})
    right = sum(answer[0]["label"] == row["label"] for answer, row in zip(answers, rows, strict=True))
    assert right >= 57  # the student alone guesses
    assert counted(url, "cascade", "answered") >= 20


def test_the_teacher_can_be_asked_and_the_card_says_so(url: str) -> None:
    row = sentences(1, seed=3)[0]
    (answer,) = ask(f"{url}/v1/teacher", {"inputs": row["text"]})
    assert answer[0]["label"] == row["label"]
    with urllib.request.urlopen(f"{url}/v1/model", timeout=60) as response:
        assert json.loads(response.read())["teacher"] is True


def test_the_shadow_counts_and_keeps_what_they_differ_on_as_rows(url: str, kept: Path) -> None:
    rows = sentences(60, seed=11)
    seen = counted(url, "shadow", "agreed") + counted(url, "shadow", "differed")
    ask(url, {"inputs": [row["text"] for row in rows]})
    ends = time.monotonic() + 30
    while counted(url, "shadow", "agreed") + counted(url, "shadow", "differed") < seen + 60:
        assert time.monotonic() < ends, "the shadow was not counted"
        time.sleep(0.2)
    assert counted(url, "shadow", "differed") > 0
    lines = [json.loads(line) for line in (kept / "disagreements.jsonl").read_text().splitlines()]
    assert kept.stat().st_mode & 0o077 == 0, "texts of requests are not everybody's"
    labels = {row["text"]: row["label"] for row in rows}
    mine = [line for line in lines if line["text"] in labels]
    assert mine and all(line.keys() == {"text", "label", "student"} for line in mine)
    assert all([line["label"]] != line["student"] for line in mine)
    assert sum(line["label"] == labels[line["text"]] for line in mine) >= 0.9 * len(mine)


def test_another_process_changes_what_is_served_and_who_may_ask(url: str, run: str, home: dict[str, str],
                                                                tmp_path: Path) -> None:
    def serve(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(command("serve", *arguments), capture_output=True, text=True, timeout=300, env=home,
                              cwd=ROOT)

    port = ["--port", url.rpartition(":")[2]]
    tried = serve(run, "--canary", "0.25", *port)
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.startswith("default: ") and "for 25% of the requests" in tried.stdout
    for arguments in (["--back"], [run, "--promote"], ["--back"]):
        done = serve(*arguments, *port)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("default: ") and "packages" in done.stdout
    again = serve(run, "replicas=2", "--promote")
    assert again.returncode == 1 and "a running service keeps its settings" in again.stderr
    assert ask(url, {"inputs": "the film was good"})
    keys = tmp_path / "keys"
    keys.write_text("a key of sixteen or more\n")
    assert serve("--new-keys", str(keys), *port).stdout == "keys: 1\n"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(url, {"inputs": "the film was good"})
    gone = serve("--new-keys", str(tmp_path / "gone"), *port)
    assert gone.returncode == 1 and "serve.keys: cannot read" in gone.stderr
    keys.write_text("")
    assert serve("--new-keys", str(keys), *port).stdout == "keys: 0\n"
    assert ask(url, {"inputs": "the film was good"})


def test_without_a_service_there_is_nothing_to_promote(run: str, kdray: Command) -> None:
    done = kdray("serve", run, "--promote", "--port", str(free_port()))
    assert done.returncode == 1 and "runs on this machine. Start one" in done.stderr
