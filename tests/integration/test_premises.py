"""cluster/on-premises.yaml, as it stands but for addresses and key: `ray up`, a job, `ray down`.

Hosts are network namespaces with sshd, and containers are podman's; see `tests/premises`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hosts import Host, RefusedError
from tests.integration.conftest import (
    ROOT,
    Command,
    command,
    free_port,
    numbers,
    small_config,
    wait_until_up,
    write_config,
)
from tests.premises import missing, premises
from tests.small import make_model, sentences, write_jsonl

pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing()) or os.geteuid() != 0,
                       reason=f"needs root, and apt-get install {' '.join(missing()) or 'nothing'}")]
BIN = Path(sys.executable).parent
CHANGES: dict[str, Any] = {"search": {"trials": 1}, "cache": {"rows_per_shard": 100}, "training": {
    "epochs": 2, "lr": 3e-3, "num_cpus": 1}}


class Site:
    """Hosts, and the machine from which they are made a cluster: it has the file, the key and the token, no more."""

    def __init__(self, folder: Path, shared: Path, machines: list[Host]):
        self.hosts, self.shared, self.file = machines, shared, folder / "on-premises.yaml"
        config = yaml.safe_load((ROOT / "cluster" / "on-premises.yaml").read_text())
        config["provider"].update(head_ip=machines[0].address, worker_ips=[host.address for host in machines[1:]])
        self.key = config["auth"]["ssh_private_key"] = str(folder / "id_ed25519")
        self.file.write_text(yaml.safe_dump(config, sort_keys=False))
        home, tmp = folder / "home", folder / "ray"
        (home / ".ray").mkdir(parents=True)
        tmp.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {**kept, "HOME": str(home), "RAY_TMPDIR": str(tmp), "RAY_AUTH_MODE": "token",
                            "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        self.ray("get-auth-token", "--generate")

    def ray(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([str(BIN / "ray"), *arguments], env=self.environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=600)

    @contextmanager
    def dashboard(self) -> Iterator[str]:
        """What `ray dashboard` brings here."""
        port = free_port()
        tunnel = subprocess.Popen([str(BIN / "ray"), "dashboard", str(self.file), "--port", str(port)],
                                  env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until_up(f"http://127.0.0.1:{port}/api/gcs_healthz", tunnel)
            yield f"http://127.0.0.1:{port}"
        finally:
            tunnel.terminate()
            tunnel.wait(60)

    def containers(self) -> list[str]:
        """Ids of the containers that run, on any host."""
        return [container for host in self.hosts for container in self.ssh(host, "docker ps --quiet").split()]

    def ssh(self, host: Host, line: str) -> str:
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", self.key]
        done = subprocess.run(["ssh", *options, f"kdray@{host.address}", line], capture_output=True, text=True,
                              timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def made(folder: Path, count: int, hidden: tuple[str, ...] = ()) -> Iterator[Site]:
    shared = folder / "shared"
    shared.mkdir()
    try:
        with premises(count, shared, hidden) as machines:
            yield Site(folder, shared, machines)
    except RefusedError as error:
        pytest.skip(f"no such hosts here: {error}")


def test_ray_up_a_job_and_ray_down(tmp_path: Path, kdray: Command) -> None:
    rows, model = write_jsonl(tmp_path / "rows.jsonl", sentences(400)), make_model(tmp_path / "base")
    teacher = {"finetune": {"epochs": 2, "lr": 3e-3, "num_cpus": 1}, "num_cpus": 1}
    alone = write_config(tmp_path / "alone.yaml", small_config(
        tmp_path / "alone", rows, model, {**CHANGES, "teacher": {"model": str(model), **teacher}}))
    done = kdray("run", str(alone))
    assert done.returncode == 0, done.stderr
    with made(tmp_path, 2) as site:
        for path in (rows, model):
            subprocess.run(["cp", "-r", "--no-preserve=mode", str(path), str(site.shared)], check=True)
        up = site.ray("up", "--yes", str(site.file))
        assert up.returncode == 0, up.stdout[-3000:] + up.stderr[-2000:]
        ends = time.monotonic() + 300
        with site.dashboard() as address:
            while len(alive(site, address)) < 2:
                assert time.monotonic() < ends, site.ray("exec", str(site.file), "cat /tmp/ray/session_latest/logs/"
                                                                                 "monitor.log").stdout[-3000:]
                time.sleep(1)
            assert sorted(node["labels"].get("kdray/group", "head") for node in alive(site, address)) == [
                "head", "student"]
            config = write_config(tmp_path / "c.yaml", small_config(
                Path("/storage/kdray"), Path("/storage/rows.jsonl"), Path(), {
                    **CHANGES, "teacher": {"model": "/storage/base", **teacher}}))
            submit = command("submit", str(config), "--address", address)  # from here, where there is no /storage
            refused, job = (subprocess.run([*submit, *more], env=site.environment, capture_output=True, text=True,
                                           timeout=900) for more in ([], ["--shared", "/storage"]))
            assert refused.returncode == 1 and "say so with --shared /storage" in refused.stderr
            assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-2000:]
        assert numbers(site.shared / "kdray") == numbers(tmp_path / "alone")
        assert len(site.containers()) == 2
        down = site.ray("down", "--yes", str(site.file))
        assert down.returncode == 0 and site.containers() == [], down.stdout[-2000:] + down.stderr[-2000:]


def alive(site: Site, address: str) -> list[dict[str, Any]]:
    """Nodes that live, as the dashboard tells."""
    said = subprocess.run([str(BIN / "ray"), "list", "nodes", "--address", address, "--format", "json", "--detail"],
                          env=site.environment, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    return [node for node in json.loads(said.stdout) if node["state"] == "ALIVE"]


def test_an_image_without_what_ray_up_needs_is_refused_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    with made(tmp_path, 1, hidden=("rsync",)) as site:
        up = site.ray("up", "--yes", str(site.file))
        assert up.returncode != 0
        assert "the image has no rsync: build it from cluster/Dockerfile" in up.stdout + up.stderr
        assert site.containers() == []
