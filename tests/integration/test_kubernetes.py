"""What rendered manifests say is done: a RayJob's entrypoint, runtime environment and resources, a RayService's Serve
config, on a cluster with a token.

The test plays the kubelet, and `tests/kuberay` the operator: `ray start` with what the manifest offers, in a folder
that is laid out as the image is, the line with which the operator submits, and the request with which it deploys.
"""

import json
import shlex
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdray.kubernetes.render import Values, render
from kdray.storage import Store
from tests.heads import Head, running
from tests.integration.conftest import ROOT, small_config, write_config
from tests.integration.test_faults import wait_for
from tests.kuberay.cluster import make_pods
from tests.kuberay.jobs import submit_line

pytestmark = pytest.mark.skipif(
    not (shutil.which("kubectl") or shutil.which("kustomize")),
    reason="neither kubectl nor kustomize is on PATH, and one of them renders the manifests")


def submit(head: Head, job: dict[str, Any], name: str, token: str | None = None) -> subprocess.CompletedProcess:
    """What the operator's pod does: the entrypoint goes into a shell as it stands."""
    line = submit_line(job, head.dashboard.removeprefix("http://"), name)
    return subprocess.run(["bash", "-ce", "--", line], capture_output=True, text=True, timeout=400,
                          env=head.environment(token))


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
def given() -> dict[str, str]:
    """What the rendered secrets hold."""
    documents = render("secrets", Values(), ROOT / "k8s")
    return {key: value for document in documents for key, value in document["stringData"].items()}


@pytest.fixture(scope="module")
def head(image: Path, job: dict[str, Any], given: dict[str, str]) -> Iterator[Head]:
    """A node that offers what the driver's pod offers, and the CPUs of two replicas."""
    _, driver = make_pods(job["rayClusterSpec"], "small", "RayJob")
    offers = [flag for flag in shlex.split(driver.container["args"][0]) if flag.startswith("--resources=")]
    with running(*offers, cpus=4, cwd=image, token=given["auth_token"],
                 KDRAY_API_KEYS=given["KDRAY_API_KEYS"]) as head:
        yield head


@pytest.fixture(scope="module")
def done(head: Head, job: dict[str, Any]) -> subprocess.CompletedProcess:
    """The RayJob, submitted and ended."""
    return submit(head, job, "small")


def test_probes_answer_without_a_token(head: Head, job: dict[str, Any]) -> None:
    for group in (job["rayClusterSpec"]["headGroupSpec"], *job["rayClusterSpec"]["workerGroupSpecs"]):
        for probe in ("livenessProbe", "readinessProbe"):
            asked = group["template"]["spec"]["containers"][0][probe]["httpGet"]
            assert asked["port"] == 52365
            assert urllib.request.urlopen(head.agent + asked["path"], timeout=10).status == 200


def test_nothing_is_taken_without_the_token(head: Head, job: dict[str, Any]) -> None:
    for token in ("", "0" * 64):
        refused = submit(head, job, "refused", token)
        assert refused.returncode != 0 and "token" in (refused.stdout + refused.stderr).lower()
    for path in ("/api/jobs/", "/api/serve/applications/"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(head.dashboard + path, timeout=10)
    assert head.ask("/api/jobs/") == []


def test_the_job_does_what_the_manifest_says(head: Head, job: dict[str, Any], documents: list[dict[str, Any]],
                                             done: subprocess.CompletedProcess) -> None:
    run = run_of(done)
    config = next(document["data"]["config.yaml"] for document in documents if document["kind"] == "ConfigMap")
    assert Store(yaml.safe_load(config)["storage"]).exists("runs", Path(run).name, "run.json")
    told = head.ask("/api/jobs/small")
    assert told["status"] == "SUCCEEDED" and told["entrypoint"] == job["entrypoint"]
    variables = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    assert told["runtime_env"]["env_vars"].items() >= variables.items()
    assert [one["submission_id"] for one in head.ask("/api/jobs/")] == ["small"]


def test_a_submitter_that_comes_again_follows_and_does_not_submit_twice(head: Head, job: dict[str, Any],
                                                                        done: subprocess.CompletedProcess) -> None:
    run_of(done)
    again = submit(head, job, "small")
    assert again.returncode == 0 and run_of(again) == run_of(done)
    assert [one["submission_id"] for one in head.ask("/api/jobs/")] == ["small"]


def run_of(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("kdray serve ")[1].split()[0].replace("~", str(Path.home()), 1)


def test_the_service_does_what_the_manifest_says(head: Head, done: subprocess.CompletedProcess,
                                                 given: dict[str, str]) -> None:
    service = next(document["spec"] for document in render("service", Values(run=run_of(done)), ROOT / "k8s")
                   if document["kind"] == "RayService")
    container = service["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    port = next(port["containerPort"] for port in container["ports"] if port["name"] == "serve")
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", port)) == 0:
            pytest.skip(f"something listens on port {port} of this machine already")

    config = yaml.safe_load(service["serveConfigV2"])
    head.ask("/api/serve/applications/", "PUT", config)
    (application,) = config["applications"]
    wait_for(lambda: state(head, application)["status"] in ("RUNNING", "DEPLOY_FAILED"), 300)
    there = state(head, application)
    assert there["status"] == "RUNNING", there["message"]
    replicas = there["deployments"]["Endpoint"]["replicas"]
    assert len(replicas) == application["args"]["settings"]["replicas"]

    pod = f"http://{replicas[0]['node_ip']}:{port}"  # where the operator's service sends requests
    probe = container["readinessProbe"]["httpGet"]
    assert urllib.request.urlopen(f"http://{replicas[0]['node_ip']}:{probe['port']}{probe['path']}").status == 200
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(pod, "nobody's key")
    assert ask(pod, given["client"])[0][0]["label"] == "positive"


def state(head: Head, application: dict[str, Any]) -> dict[str, Any]:
    """What the operator is told of an application."""
    return head.ask("/api/serve/applications/")["applications"][application["name"]]


def ask(url: str, key: str) -> Any:
    request = urllib.request.Request(url, json.dumps({"inputs": "the film was great"}).encode(),
                                     {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
    return json.loads(urllib.request.urlopen(request, timeout=30).read())
