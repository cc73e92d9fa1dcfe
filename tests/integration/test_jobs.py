"""Stages as Ray jobs on a cluster with a token: `ray job submit`, `kdray submit`, and the endpoint that stays."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.heads import BIN, Head, running
from tests.integration.conftest import ROOT, command, free_port, small_config, write_config
from tests.integration.test_faults import make, same_weights, shards, student, wait_for

EPOCHS = 60
"""Of a training that lasts until `ray job stop`, which takes seconds to start, has reached it."""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running(cpus=2) as head:
        yield head


def ray_submit(head: Head, *entrypoint: str, token: str | None = None) -> subprocess.CompletedProcess:
    """Submits as a user does, again where the cluster is up but its agent is not yet."""
    ends = time.monotonic() + 90
    while True:
        done = subprocess.run(
            [str(BIN / "ray"), "job", "submit", f"--address={head.dashboard}", f"--working-dir={ROOT / 'jobs'}", "--",
             sys.executable, *entrypoint], capture_output=True, text=True, timeout=400, env=head.environment(token))
        if "No available agent" not in done.stderr or time.monotonic() > ends:
            return done
        time.sleep(1)


def kdray_submit(head: Head, *arguments: str, token: str | None = None, cwd: Path = ROOT) -> subprocess.Popen:
    return subprocess.Popen(command("submit", *arguments, "--address", head.dashboard), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, cwd=cwd,
                            env=head.environment(token, PYTHONPATH=str(ROOT), RAY_ADDRESS="http://overruled:1"))


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def jobs(head: Head) -> dict[str, Any]:
    return {job["submission_id"]: job for job in head.ask("/api/jobs/") if job["submission_id"]}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, rows: Path, teacher: Path) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    return write_config(folder / "c.yaml", small_config(folder / "store", rows, teacher))


def test_nothing_is_taken_without_the_token(head: Head, config: Path) -> None:
    before = jobs(head)
    for token in ("", "0" * 64):
        done = ray_submit(head, "cache.py", str(config), token=token)
        assert done.returncode != 0 and "token" in (done.stdout + done.stderr).lower()
        status, out, err = ended(kdray_submit(head, str(config), token=token))
        assert (status, out) == (1, "") and "Traceback" not in err
        assert f"kdray: the cluster at {head.dashboard}" in err and "Set RAY_AUTH_MODE=token" in err
    assert jobs(head) == before


def test_stages_run_as_jobs_and_the_endpoint_stays(head: Head, config: Path) -> None:
    for stage, says in (("teacher", "teacher: "), ("cache", "cache: "), ("distill", "student: "), ("tune", "winner: "),
                        ("evaluate", "kdray serve "), ("pipeline", "kdray serve ")):
        done = ray_submit(head, f"{stage}.py", str(config))
        assert done.returncode == 0 and says in done.stdout, done.stdout + done.stderr
    run = done.stdout.split("kdray serve ")[1].split()[0].replace("~", str(Path.home()), 1)
    port = free_port()
    served = ray_submit(head, "serve.py", run, f"port={port}", "num_cpus=0")
    assert served.returncode == 0 and f"http://127.0.0.1:{port}" in served.stdout, served.stdout + served.stderr
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", json.dumps({"inputs": "the film was great"}).encode(),
                                     {"Content-Type": "application/json"})
    answer = json.loads(urllib.request.urlopen(request, timeout=30).read())
    assert answer[0][0]["label"] == "positive"


def test_a_job_that_cannot_run_fails_with_its_reason(head: Head, config: Path) -> None:
    done = ray_submit(head, "cache.py", str(config), "data.sorce=x")
    assert done.returncode == 1
    assert "did you mean 'data.source'?" in done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path, rows: Path, teacher: Path) -> Path:
    """A folder with c.yaml, whose paths are relative to it."""
    (tmp_path / "rows.jsonl").symlink_to(rows)
    (tmp_path / "large").symlink_to(teacher)
    write_config(tmp_path / "c.yaml", small_config(Path("store"), Path("rows.jsonl"), Path("large"), {"name": "here"}))
    return tmp_path


def test_submit_carries_the_config_and_shows_the_log(head: Head, folder: Path) -> None:
    status, out, err = ended(kdray_submit(head, "c.yaml", "--stage", "cache", cwd=folder))
    assert status == 0, out + err
    assert "\x1b" not in out + err and f"cache: {folder}/store/caches/" in out and "600/600 rows" in out
    name, = (name for name in jobs(head) if name.startswith("here-cache-"))
    assert f"job {name} submitted to {head.dashboard}" in err
    assert jobs(head)[name]["runtime_env"]["working_dir"].startswith("gcs://")

    status, out, err = ended(kdray_submit(head, "c.yaml", "--stage", "cache", "--no-wait", cwd=folder))
    assert (status, out) == (0, f"{name}-2\n")
    wait_for(lambda: jobs(head)[f"{name}-2"]["status"] == "SUCCEEDED")


def test_functions_beside_the_config_go_with_it(head: Head, folder: Path, rows: Path) -> None:
    (folder / "own_rows.py").write_text("import own_help\n\ndef rows():\n    return own_help.read()\n")
    (folder / "own_help.py").write_text(
        f"import json\n\ndef read():\n    return [json.loads(line) for line in open({str(rows)!r})]\n")
    status, out, err = ended(kdray_submit(head, str(folder / "c.yaml"), "data.source=package:own_rows:rows",
                                          f"teacher.model={folder / 'large'}", f"storage={folder / 'store'}",
                                          "--stage", "teacher"))
    assert status == 0, out + err
    (made,) = (folder / "store" / "corpus").glob("*/manifest.json")
    assert sum(json.loads(made.read_text())["rows"].values()) == 600


def test_submit_keeps_the_driver_off_the_head(folder: Path) -> None:
    with running(cpus=0, workers=(("--num-cpus=2",),)) as head:
        status, out, err = ended(kdray_submit(head, "c.yaml", "--stage", "cache", cwd=folder))
        assert status == 0, out + err
        (job,), nodes = jobs(head).values(), head.ask("/api/v0/nodes")["data"]["result"]["result"]
    assert {node["node_id"]: node["is_head_node"] for node in nodes}[job["driver_node_id"]] is False
    assert len(list((folder / "store" / "caches").iterdir())) == 1


def test_submit_ends_as_the_job_does(head: Head, config: Path) -> None:
    status, out, err = ended(kdray_submit(head, str(config), "cache.rows_per_shard=8", "teacher.num_cpus=64",
                                          "--stage", "cache"))
    assert status == 1 and "teacher.actors = 1 with 64 CPU each does not fit" in out
    assert "failed with exit status 1" in err


def stopped(head: Head, config: Path, stage: str, when: Callable[[], bool]) -> None:
    """Submits, stops the job when that holds, and checks how it ends."""
    following = kdray_submit(head, str(config), "--stage", stage)
    wait_for(when, 300)
    name = max(name for name, job in jobs(head).items() if job["status"] == "RUNNING")
    done = subprocess.run([str(BIN / "ray"), "job", "stop", f"--address={head.dashboard}", name], capture_output=True,
                          text=True, timeout=120, env=head.environment())
    assert done.returncode == 0, done.stdout + done.stderr
    status, out, err = ended(following)
    assert status == 143, out + err
    assert "kdray: stopped; the same command, or submission, goes on from here" in out and "Traceback" not in out
    assert f"job {name} was stopped; the same command goes on from there" in err
    assert jobs(head)[name]["status"] == "STOPPED"


@pytest.mark.slow
def test_a_job_that_was_stopped_goes_on_where_it_was(head: Head, tmp_path: Path, rows: Path, teacher: Path) -> None:
    for name in ("quiet", "stopped"):
        (tmp_path / name).mkdir()
    config, quiet = (make(tmp_path / name, rows, teacher, epochs=EPOCHS) for name in ("stopped", "quiet"))
    store, whole = tmp_path / "stopped" / "store", tmp_path / "quiet" / "store"
    status, out, err = ended(kdray_submit(head, str(quiet), "--stage", "distill"))
    assert status == 0, out + err

    stopped(head, config, "distill", lambda: len(shards(store)) >= 5)
    first = {path: path.stat().st_mtime_ns for path in (store / "shards").rglob("*.arrow")}
    assert 5 <= len(first) < len(shards(whole)), "the cache was full"
    assert not list((store / "caches").glob("[!.]*"))

    saved = lambda: any((store / "train").rglob("checkpoint_*/state.json"))  # noqa: E731
    stopped(head, config, "distill", saved)
    assert {path: path.stat().st_mtime_ns for path in first} == first, "shards were computed again"
    assert shards(store) == shards(whole) and not list((store / "students").glob("[!.]*"))

    before = time.time()
    status, out, err = ended(kdray_submit(head, str(config), "--stage", "distill"))
    assert status == 0, out + err
    (manifest,) = (store / "students").glob("[!.]*/manifest.json")
    assert json.loads(manifest.read_text())["first_step"] < before, "it started anew"
    assert same_weights(student(store), student(whole))


@pytest.mark.slow
def test_whoever_follows_may_go_and_come_back(head: Head, tmp_path: Path, rows: Path, teacher: Path) -> None:
    config, store = make(tmp_path, rows, teacher), tmp_path / "store"
    first = kdray_submit(head, str(config), "--stage", "cache")
    wait_for(lambda: len(shards(store)) >= 1, 300)
    first.send_signal(2)
    status, _, err = ended(first)
    assert status == 130 and "goes on. To stop it: ray job stop --address" in err
    name = err.split("To stop it: ray job stop --address ")[1].split()[1]
    status, out, err = ended(kdray_submit(head, str(config), "--stage", "cache"))
    assert status == 0 and f"job {name} runs already" in err and "cache: " in out
    assert f"{name}-2" not in jobs(head)


@pytest.mark.slow
def test_two_jobs_of_one_config_at_once_make_each_artefact_once_and_say_the_same(
        head: Head, tmp_path: Path, rows: Path, teacher: Path) -> None:
    config, store = make(tmp_path, rows, teacher), tmp_path / "store"
    both = [subprocess.Popen(
        [str(BIN / "ray"), "job", "submit", f"--address={head.dashboard}", f"--working-dir={ROOT / 'jobs'}", "--",
         sys.executable, "pipeline.py", str(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=head.environment(PYTHONPATH=str(ROOT))) for _ in range(2)]
    ends = [ended(process) for process in both]
    assert [status for status, _, _ in ends] == [0, 0], [out[-2000:] + err[-1000:] for _, out, err in ends]
    one, other = (out.split("kdray serve ")[1].split()[0] for _, out, _ in ends)
    made = {kind: len(list((store / kind).glob("[!.]*"))) for kind in ("caches", "sweeps", "selections", "evaluations",
                                                                       "packages", "reports")}
    assert made == dict.fromkeys(made, 1)
    tables = [out.split("model  ")[1].partition("report:")[0] for _, out, _ in ends]
    assert [[line.split("MB")[0] for line in table.splitlines()] for table in tables].count(
        [line.split("MB")[0] for line in tables[0].splitlines()]) == 2, "but for the examples/s"
    again = ray_submit(head, "pipeline.py", str(config))
    assert again.returncode == 0 and again.stdout.split("kdray serve ")[1].split()[0] in (one, other)


@pytest.mark.slow
def test_a_job_whose_head_is_lost_goes_on_when_it_is_submitted_to_a_new_one(
        tmp_path: Path, rows: Path, teacher: Path) -> None:
    config, store = make(tmp_path, rows, teacher), tmp_path / "store"
    with running(cpus=2) as lost:
        following = kdray_submit(lost, str(config), "--stage", "distill")
        wait_for(lambda: len(shards(store)) >= 5, 300)
    status, out, err = ended(following)
    assert status == 1 and "Traceback" not in err, out + err
    assert "lost the log of job" in err or f"no Ray dashboard answers at {lost.dashboard}" in err
    assert "The same command follows it again" in err or "Start Ray there" in err
    first = {path: path.stat().st_mtime_ns for path in (store / "shards").rglob("*.arrow")}
    assert first and not list((store / "students").glob("[!.]*"))
    with running(cpus=2) as new:
        status, out, err = ended(kdray_submit(new, str(config), "--stage", "distill"))
    assert status == 0, out + err
    kept = {path for path in first if path.stat().st_mtime_ns == first[path]}
    assert len(kept) >= len(first) - 2, "shards were computed again"
    assert len(list((store / "students").glob("[!.]*"))) == 1
