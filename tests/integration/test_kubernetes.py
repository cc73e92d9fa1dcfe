"""What a rendered RayJob says is done: its entrypoint, runtime environment and resources, on a cluster with a token.

The test plays the operator and the kubelet: `ray start` with what the manifest offers, in a folder that is laid out as
the image is, and the line with which the operator submits.
"""

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdray.kubernetes.render import Values, render
from kdray.storage import Store
from tests.integration.conftest import ROOT, free_port, small_config, wait_until_up, write_config

pytestmark = pytest.mark.skipif(
    not (shutil.which("kubectl") or shutil.which("kustomize")),
    reason="neither kubectl nor kustomize is on PATH, and one of them renders the manifests")
BIN = Path(sys.executable).parent


@dataclass
class Head:
    """A running head node."""

    dashboard: str
    agent: str
    token: str

    def environment(self, token: str | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
        return {**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", **given}

    def submit(self, job: dict[str, Any], token: str | None, name: str) -> subprocess.CompletedProcess:
        """The operator's line: the entrypoint goes into a shell as it stands."""
        runtime = json.dumps(yaml.safe_load(job["runtimeEnvYAML"]))
        line = " ".join(["ray job submit --address", self.dashboard, "--submission-id", name, "--runtime-env-json",
                         shlex.quote(runtime), "--entrypoint-resources", shlex.quote(job["entrypointResources"]), "--",
                         job["entrypoint"], ";"])
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=400,
                              env=self.environment(token))

    def ask(self, path: str) -> dict[str, Any]:
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"})
        return json.loads(urllib.request.urlopen(request, timeout=10).read())


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory, rows: Path, teacher: Path) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("manifests")
    config = write_config(folder / "c.yaml", small_config(folder / "store", rows, teacher, {"search": {"trials": 1}}))
    return render("cpu", Values(config=str(config), name="small"), ROOT / "k8s")


@pytest.fixture(scope="module")
def job(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return next(document for document in documents if document["kind"] == "RayJob")["spec"]


@pytest.fixture(scope="module")
def image(documents: list[dict[str, Any]], job: dict[str, Any]) -> Iterator[Path]:
    """The image's working folder, with the ConfigMap where the driver mounts it."""
    folder = Path(tempfile.mkdtemp(prefix="kdray-image-"))
    driver = job["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    container = driver["containers"][0]
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "config")
    place = folder / Path(mount["mountPath"]).relative_to(container["workingDir"])
    place.mkdir()
    wanted = next(volume for volume in driver["volumes"] if volume["name"] == "config")["configMap"]["name"]
    for name, text in next(document["data"] for document in documents
                           if document["metadata"]["name"] == wanted).items():
        (place / name).write_text(text)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def head(image: Path, job: dict[str, Any]) -> Iterator[Head]:
    """A node with 2 CPUs that offers what the driver's group offers; in the foreground, so that ending it ends all."""
    group = job["rayClusterSpec"]["workerGroupSpecs"][0]
    offers = {name: float(amount) for name, amount in group["resources"].items() if name != "CPU"}
    port, dashboard, agent = free_port(), free_port(), free_port()
    made = Head(f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{agent}", secrets.token_hex(32))
    session = Path(tempfile.mkdtemp(prefix="kdray-ray-"))
    with open(session / "log", "w") as log:
        process = subprocess.Popen(
            [str(BIN / "ray"), "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}",
             f"--dashboard-agent-listen-port={agent}", "--num-cpus=2", f"--resources={json.dumps(offers)}",
             "--disable-usage-stats", "--min-worker-port=21000", "--max-worker-port=21999", f"--temp-dir={session}"],
            stdout=log, stderr=subprocess.STDOUT, env=made.environment(made.token), cwd=image)
        try:
            wait_until_up(f"{made.dashboard}/api/gcs_healthz", process)
            wait_until_up(f"{made.agent}/api/healthz", process)
            yield made
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(session, ignore_errors=True)


def test_probes_answer_without_a_token(head: Head, job: dict[str, Any]) -> None:
    for group in (job["rayClusterSpec"]["headGroupSpec"], *job["rayClusterSpec"]["workerGroupSpecs"]):
        for probe in ("livenessProbe", "readinessProbe"):
            asked = group["template"]["spec"]["containers"][0][probe]["httpGet"]
            assert asked["port"] == 52365
            assert urllib.request.urlopen(head.agent + asked["path"], timeout=10).status == 200


def test_nothing_is_taken_without_the_token(head: Head, job: dict[str, Any]) -> None:
    for token in (None, "0" * 64):
        done = head.submit(job, token, "refused")
        assert done.returncode != 0 and "token" in (done.stdout + done.stderr).lower()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head.dashboard}/api/jobs/", timeout=10)
    assert head.ask("/api/jobs/") == []


def test_the_job_does_what_the_manifest_says(head: Head, job: dict[str, Any], documents: list[dict[str, Any]]) -> None:
    done = head.submit(job, head.token, "small")
    assert done.returncode == 0, done.stdout + done.stderr
    run = done.stdout.split("kdray serve ")[1].split()[0].replace("~", str(Path.home()), 1)
    config = next(document["data"]["config.yaml"] for document in documents if document["kind"] == "ConfigMap")
    name = Path(run).name
    assert Store(yaml.safe_load(config)["storage"]).exists("runs", name, "run.json")
    told = head.ask("/api/jobs/small")
    assert told["status"] == "SUCCEEDED" and told["entrypoint"] == job["entrypoint"]
    variables = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    assert told["runtime_env"]["env_vars"].items() >= variables.items()
    assert [one["submission_id"] for one in head.ask("/api/jobs/")] == ["small"]
