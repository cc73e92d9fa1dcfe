"""Stages as Ray jobs on a cluster of their own: `ray start --head`, `ray job submit`, and the endpoint that stays."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, free_port, small_config, wait_until_up, write_config

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Dashboard address of a head node, run in the foreground so that ending it ends all of it."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    folder = tmp_path_factory.mktemp("head")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    with open(folder / "log", "w") as log:
        head = subprocess.Popen(
            [str(BIN / "ray"), "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}",
             f"--dashboard-agent-listen-port={agent}", "--num-cpus=2", "--disable-usage-stats",
             "--min-worker-port=20000", "--max-worker-port=20999"],
            stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            wait_until_up(f"http://127.0.0.1:{dashboard}/api/version", head)
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            head.terminate()
            head.wait(60)


def submit(address: str, *entrypoint: str) -> subprocess.CompletedProcess:
    """Submits as a user does, again where the cluster is up but its agent is not yet."""
    ends = time.monotonic() + 90
    while True:
        done = subprocess.run(
            [str(BIN / "ray"), "job", "submit", f"--address={address}", "--working-dir", str(ROOT / "jobs"), "--",
             sys.executable, *entrypoint], capture_output=True, text=True, timeout=400,
            env={**os.environ, "RAY_AUTH_MODE": "disabled"})
        if "No available agent" not in done.stderr or time.monotonic() > ends:
            return done
        time.sleep(1)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, rows: Path, teacher: Path) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    return write_config(folder / "c.yaml", small_config(folder / "store", rows, teacher))


def test_stages_run_as_jobs_and_the_endpoint_stays(address: str, config: Path) -> None:
    for stage, says in (("cache", "cache: "), ("distill", "student: "), ("tune", "winner: "),
                        ("evaluate", "kdray serve "), ("pipeline", "kdray serve ")):
        done = submit(address, f"{stage}.py", str(config))
        assert done.returncode == 0 and says in done.stdout, done.stdout + done.stderr
    run = done.stdout.split("kdray serve ")[1].split()[0].replace("~", str(Path.home()), 1)
    port = free_port()
    served = submit(address, "serve.py", run, f"port={port}")
    assert served.returncode == 0 and f"http://127.0.0.1:{port}" in served.stdout, served.stdout + served.stderr
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", json.dumps({"inputs": "the film was great"}).encode(),
                                     {"Content-Type": "application/json"})
    answer = json.loads(urllib.request.urlopen(request, timeout=30).read())
    assert answer[0][0]["label"] == "positive"


def test_a_job_that_cannot_run_fails_with_its_reason(address: str, config: Path) -> None:
    done = submit(address, "cache.py", str(config), "data.sorce=x")
    assert done.returncode == 1
    assert "did you mean 'data.source'?" in done.stdout + done.stderr
