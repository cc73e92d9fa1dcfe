"""A Ray cluster with a token, as `ray start` makes it: a head, and nodes beside it, processes of this machine."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.integration.conftest import free_port, wait_until_up

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A running head node."""

    dashboard: str
    agent: str
    token: str
    gcs: str

    def environment(self, token: str | None = None, **more: str) -> dict[str, str]:
        """This process's environment, but no cluster to join, and a token: the head's where null, none where empty."""
        token = self.token if token is None else token
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
        return {**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", **given, **more}

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """What the dashboard says, from JSON where it says something."""
        request = urllib.request.Request(
            self.dashboard + path, json.dumps(body).encode() if body is not None else None, method=method,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=60).read() or "null")


@contextmanager
def running(*options: str, cpus: int, workers: tuple[tuple[str, ...], ...] = (), cwd: Path | None = None,
            token: str | None = None, **more: str) -> Iterator[Head]:
    """A head with `cpus` and `options` of `ray start`, and a node for each of `workers`' options.

    Each has a folder of its own, since each unpacks a job's files there, in place of what is there. They share an
    address, by which Ray finds the head alone when it looks for a job's log: that of a driver off the head cannot be
    followed. They run in the foreground, as this process's children. `more` is added to their environment.
    """
    port, dashboard = free_port(), free_port()
    session = Path(tempfile.mkdtemp(prefix="kdray-ray-"))
    head = Head(f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{free_port()}", token or secrets.token_hex(32),
                f"127.0.0.1:{port}")
    environment = head.environment(**more)
    first = ("--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={session}", f"--num-cpus={cpus}")
    with ExitStack() as nodes:
        nodes.callback(shutil.rmtree, session, ignore_errors=True)
        _start_node(nodes, (*first, *options), head.agent, session, cwd, environment, 0, head.dashboard)
        for place, worker in enumerate(workers, 1):
            own = session / str(place)
            own.mkdir()
            _start_node(nodes, (f"--address={head.gcs}", f"--temp-dir={own}", *worker),
                        f"http://127.0.0.1:{free_port()}", session, cwd, environment, place)
        yield head


def _start_node(nodes: ExitStack, options: tuple[str, ...], agent: str, session: Path, cwd: Path | None,
                environment: dict[str, str], place: int, dashboard: str | None = None) -> None:
    agent_port = agent.rpartition(":")[2]
    ports = 20000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) + 500 * place
    with open(session / f"node-{place}.log", "w") as log:
        process = subprocess.Popen(
            [str(BIN / "ray"), "start", *options, "--block", f"--dashboard-agent-listen-port={agent_port}",
             "--disable-usage-stats", f"--min-worker-port={ports}", f"--max-worker-port={ports + 499}"],
            stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=cwd)
    nodes.callback(_end, process)
    if dashboard:
        wait_until_up(f"{dashboard}/api/gcs_healthz", process)
    wait_until_up(f"{agent}/api/healthz", process)


def _end(process: subprocess.Popen) -> None:
    """At once; `ray start` itself takes half a minute to end what it started."""
    if process.poll() is None:
        first = psutil.Process(process.pid)
        for one in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait(60)
