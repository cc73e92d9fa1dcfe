"""`kdray doctor`, and what is checked before a run works, on real nodes: one with other versions and a GPU that is not
there, credentials that the driver alone has, a folder that is another on a node, a node that does not answer."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from kdray.doctor.nodes import ask_nodes
from tests.heads import running
from tests.integration.conftest import (
    ROOT,
    Command,
    command,
    environment,
    run_here,
    s3_server,
    small_config,
    write_config,
)
from tests.small import sentences, write_jsonl

ELSEWHERE = {"AWS_ACCESS_KEY_ID": "others", "AWS_SECRET_ACCESS_KEY": "others", "AWS_DEFAULT_REGION": "us-east-1"}
"""What the nodes have: credentials that are not those of the bucket."""


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The environment of somebody who may use s3://bucket, which nobody else may."""
    import boto3

    with s3_server() as url:
        admin = {"endpoint_url": url, "region_name": "us-east-1", "aws_access_key_id": "a",
                 "aws_secret_access_key": "a"}
        boto3.client("s3", **admin).create_bucket(Bucket="bucket")
        iam = boto3.client("iam", **admin)
        iam.create_user(UserName="driver")
        iam.put_user_policy(UserName="driver", PolicyName="all", PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}))
        key = iam.create_access_key(UserName="driver")["AccessKey"]
        strict = urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
        urllib.request.urlopen(strict).read()
        yield {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
               "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory, s3: dict[str, str]) -> Iterator[Cluster]:
    """A head that is as it should be; this process is connected to it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ELSEWHERE, "AWS_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"]}.items():
            patch.setenv(name, value)
        made = Cluster()
        try:
            made.add_node(num_cpus=1, include_dashboard=False)
            ray.init(made.address, log_to_driver=False, configure_logging=False)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture
def odd(grid: Cluster, tmp_path: Path) -> Iterator[str]:
    """A node on which another transformers comes first, with a GPU that Ray was told of; the start of its id."""
    fake = tmp_path / "packages" / "transformers-5.0.0.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.0\n")
    node = grid.add_node(num_cpus=1, num_gpus=1, env_vars={"PYTHONPATH": f"{fake.parent}:{ROOT}"})
    yield node.node_id[:8]
    grid.remove_node(node)


@pytest.fixture
def here(grid: Cluster, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a `kdray` command in this process, which has joined the grid."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        monkeypatch.setenv("RAY_ADDRESS", grid.address)
        return run_here(*arguments)

    return run


def run(address: str, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    """A `kdray` command as a user calls it, on the cluster at `address`."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, cwd=ROOT,
                          env={**environment(), "RAY_ADDRESS": address, **more})


def lines(said: str, check: str) -> list[str]:
    return [line for line in said.splitlines() if line[9:].startswith(check)]


def test_doctor_names_the_node_its_values_and_the_remedy(
        grid: Cluster, odd: str, s3: dict[str, str], rows: Path, base: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", {**small_config(tmp_path, rows, base), "storage": "s3://bucket/x"})
    done = run(grid.address, "doctor", str(config), "training.num_gpus=2", **s3)
    assert done.returncode == 1 and "4 of " in done.stderr and "Traceback" not in done.stderr
    (version,) = lines(done.stdout, "versions")
    assert version.startswith("wrong") and odd in version and "transformers 5.0.0, and 5." in version
    (gpu,) = lines(done.stdout, "gpus  ")[1:]
    assert odd in gpu and "Ray counts 1 GPU, torch sees 0" in gpu
    (storage,) = lines(done.stdout, "storage")
    assert storage.startswith("wrong") and "s3://bucket/x cannot be written and read" in storage
    assert s3["AWS_SECRET_ACCESS_KEY"] not in done.stdout
    (room,) = lines(done.stdout, "room")
    assert "training.workers = 1 with 1 CPU and 2 GPU each does not fit" in room
    assert done.stdout.count("\n" + " " * 24 + "-> ") >= 4


def test_a_run_is_refused_before_it_works_where_a_node_has_another_version(
        grid: Cluster, odd: str, rows: Path, base: Path, tmp_path: Path, here: Command) -> None:
    config = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, base, {
        "teacher": {"model": str(base), "finetune": {"epochs": 1}}}))
    done = here("run", str(config))
    message = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and message.startswith("kdray: versions: ") and "transformers 5.0.0" in message
    assert odd in message and "cluster/constraints.txt" in message
    assert list((tmp_path / "store").rglob("*")) == []


def test_what_a_later_stage_asks_for_is_refused_before_the_first_works(
        grid: Cluster, rows: Path, base: Path, tmp_path: Path, here: Command) -> None:
    config = small_config(tmp_path / "store", rows, base, {"teacher": {"model": str(base), "finetune": {"epochs": 1}}})
    path = write_config(tmp_path / "c.yaml", config)
    for change, words in (("teacher.actors=2", "teacher.actors = 2 with 1 CPU each does not fit"),
                          ("training.num_gpus=1", "training.workers = 1 with 1 CPU and 1 GPU each does not fit"),
                          ("teacher.finetune.workers=2", "teacher.finetune.workers = 2 with 1 CPU each")):
        done = here("run", str(path), change)
        assert done.returncode == 1 and words in done.stderr, done.stderr
    assert list((tmp_path / "store").rglob("*")) == []


def test_more_nodes_are_waited_for_where_an_autoscaler_launched_those_that_are_there(
        grid: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdray.cluster import check_resources, living, may_grow
    from kdray.errors import ClusterError

    with pytest.raises(ClusterError, match="asked = 1 with 9 CPU each does not fit"):
        check_resources(1, {"CPU": 9.0}, "asked")
    monkeypatch.setenv("RAY_NODE_TYPE_NAME", "teacher")  # as KubeRay and `ray up` do
    launched = grid.add_node(num_cpus=1)
    try:
        assert may_grow(living())
        check_resources(1, {"CPU": 9.0}, "asked")
    finally:
        grid.remove_node(launched)


@pytest.fixture
def apart(grid: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A folder in place of which a node, otherwise as the others, has one of its own: an empty file system."""
    folder = tmp_path / "mine"
    folder.mkdir()
    inside = f"mount -t tmpfs tmpfs {folder} && exec {Path(sys.executable).parent / 'ray'} start --block " \
             f"--address={grid.address} --num-cpus=1 --object-store-memory=100000000 --disable-usage-stats"
    with open(tmp_path / "node.log", "w") as log:
        node = subprocess.Popen(["unshare", "--mount", "sh", "-c", inside], stdout=log, stderr=log, cwd=ROOT)
    try:
        while len([one for one in ray.nodes() if one["Alive"]]) < 2:
            if node.poll() is not None:
                pytest.skip(f"no mounts of a process's own here: {(tmp_path / 'node.log').read_text().strip()}")
            time.sleep(0.2)
        yield folder
    finally:
        node.terminate()
        node.wait(60)


def test_a_local_storage_or_model_that_a_node_does_not_have_is_refused(
        apart: Path, rows: Path, base: Path, tmp_path: Path, here: Command) -> None:
    shutil.copytree(base, apart / "model")
    path = write_config(tmp_path / "c.yaml", small_config(apart / "store", rows, apart / "model"))
    done = here("cache", "fill", str(path))
    message = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and f"storage: {os.uname().nodename} (" in message, done.stderr
    assert f"{apart / 'store'} is another folder there" in message and "s3://" in message
    assert list((apart / "store").iterdir()) == []
    done = here("cache", "fill", str(path), f"storage={tmp_path / 'shared'}")
    message = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and f"{apart / 'model'} is not there" in message, done.stderr
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_node_that_does_not_answer_is_named_and_not_waited_for(grid: Cluster) -> None:
    node = grid.add_node(num_cpus=1)
    raylet = node.all_processes["raylet"][0].process
    raylet.send_signal(signal.SIGSTOP)
    try:
        _, nodes = ask_nodes(None, [], False, patience=5)
    finally:
        raylet.send_signal(signal.SIGCONT)
        grid.remove_node(node)
    silent = [one for one in nodes if one.facts is None]
    assert [one.trouble for one in silent] == ["no answer in 5 s"] and node.node_id[:8] in silent[0].name
    assert len(nodes) == len(silent) + 1


def test_a_run_goes_on_where_all_is_well_and_leaves_nothing_behind(
        grid: Cluster, base: Path, tmp_path: Path, here: Command) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", sentences(60))
    path = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, base))
    done = here("cache", "fill", str(path))
    assert done.returncode == 0 and "cluster: the one node answers: 1 CPU, 0 GPU" in done.stderr, done.stderr
    assert list((tmp_path / "store").glob(".probe*")) == []


def test_doctor_of_this_machine(kdray: Command, rows: Path, base: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        config = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, base, {
            "serve": {"port": taken}}))
        done = kdray("doctor", str(config))
    assert done.returncode == 0 and "nothing is wrong: " in done.stdout, done.stdout + done.stderr
    (port,) = lines(done.stdout, f"ports          {taken}")
    assert port.startswith("warning") and "is taken, wanted for kdray serve" in port
    assert [line for line in done.stdout.splitlines() if line.startswith("wrong")] == []


def test_a_token_that_is_wanted_and_not_there_says_where_it_may_be(
        grid: Cluster, tmp_path: Path, rows: Path, base: Path) -> None:
    path = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, base))
    done = run(grid.address, "run", str(path), RAY_AUTH_MODE="token", HOME=str(tmp_path))
    assert done.returncode == 1 and "RAY_AUTH_MODE=token, and there is no token" in done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode, words", [("token", "has another token than this process"),
                                         ("disabled", "wants a token, and RAY_AUTH_MODE is disabled")])
def test_a_wrong_token_says_so(tmp_path: Path, rows: Path, base: Path, mode: str, words: str) -> None:
    path = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, base))
    with running(cpus=1) as head:
        done = run(head.gcs, "run", str(path), RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN="b" * 40)
    message = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and message.startswith("kdray: ") and words in message
    assert "RAY_AUTH_TOKEN" in message
