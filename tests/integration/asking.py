"""Clients of a served model: one request, or many until they are stopped, with all that went wrong."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray import serve

from kdray.serving.deploy import running

CLIENTS = 4
_PAUSE = 0.01


def post(url: str, body: Any, content_type: str = "application/json", **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return fetch(urllib.request.Request(url, data, {"content-type": content_type, **headers}))


def fetch(request: str | urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


class Load(threading.Thread):
    """Clients that keep asking, each on new connections; what broke, and what was answered with no 200."""

    def __init__(self, url: str, **headers: str):
        super().__init__()
        self.url, self.headers, self.stop, self.counts = url, headers, threading.Event(), [0] * CLIENTS
        self.broken, self.wrong = [], []

    def run(self) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._client, range(CLIENTS)))

    def _client(self, place: int) -> None:
        while not self.stop.is_set():
            try:
                status, answer = post(self.url, {"inputs": f"film {self.counts[place]}"}, **self.headers)
            except OSError as error:
                self.broken.append(repr(error))
                continue
            if status != 200:
                self.wrong.append((status, answer))
            self.counts[place] += 1
            time.sleep(_PAUSE)

    def __enter__(self) -> "Load":
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop.set()
        self.join()

    def lost_none(self) -> bool:
        """Whether every request was answered with a 200, and each client asked."""
        assert (self.wrong, self.broken) == ([], [])
        return min(self.counts) > 0


def replicas() -> set[int]:
    """Process ids of this service's replicas."""
    return _processes("ray::ServeReplica:kdray:Endpoint", running()["metrics"])


def replicas_when(true: Callable[[set[int]], bool], metrics: str, seconds: float = 60) -> set[int]:
    """Process ids of the replicas with these metrics, when they are what they should be; none of them is asked."""
    ends = time.monotonic() + seconds
    while not true(found := _processes("ray::ServeReplica:kdray:Endpoint", metrics)):
        assert time.monotonic() < ends, f"there are {found}"
        time.sleep(0.1)
    return found


def until_running(count: int, seconds: float = 60) -> None:
    """Returns when as many replicas answer, and none comes or goes."""
    ends = time.monotonic() + seconds
    while (found := serve.status().applications["kdray"].deployments["Endpoint"].replica_states) != {"RUNNING": count}:
        assert time.monotonic() < ends, f"there are {found}"
        time.sleep(0.1)


def _processes(name: str, mine: str) -> set[int]:
    folders = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path).startswith(name)]
    return {int(folder.name) for folder in folders if mine in _readable(folder / "environ")}


def _readable(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
