"""What the service does becomes Prometheus metrics; of several replicas on a machine, any tells for all.

Replicas share the folder that PROMETHEUS_MULTIPROC_DIR names, which must be set before this is imported, is made where
it is missing, and must be this user's own. Without it, this process tells for itself. What HAProxy answers itself is no
replica's.
"""

import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from kdray.storage import own_folder

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_BESIDE = str(Path(tempfile.gettempdir()) / "kdray-metrics-")
CONTENT_TYPE = CONTENT_TYPE_LATEST
if os.environ.get(FOLDER):
    own_folder(Path(os.environ[FOLDER]))

REQUESTS = Histogram("kdray_request_seconds", "Time from a request's head to its answer's end", ["route", "status"],
                     buckets=(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
BATCHES = Histogram("kdray_batch_size", "Inputs that a student answered together",
                    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512))
QUEUE = Gauge("kdray_queue_inputs", "Inputs that wait for a student", multiprocess_mode="livesum")
LABELS = Counter("kdray_labels", "Labels that a student gave", ["student", "label"])
CONFIDENCE = Histogram("kdray_confidence", "Probability of a student's least sure label in an input", ["student"],
                       buckets=(.5, .6, .7, .8, .9, .95, .98, .99, .999, 1))
TEACHER = Counter("kdray_teacher_inputs", "Inputs that the teacher was asked about, and how that ended",
                  ["why", "outcome"])


class Timed:
    """ASGI middleware that counts and times every request, whatever answers it, by route and status."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            REQUESTS.labels(_route(scope), status).observe(time.perf_counter() - started)


def exposition() -> bytes:
    """All metrics as Prometheus reads them; gauges of processes that are gone are left out."""
    if not os.environ.get(FOLDER):
        return generate_latest()
    for process in _processes(Path(os.environ[FOLDER])):
        if not _is_alive(process):
            mark_process_dead(process)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)


def folder_of(service: str) -> str:
    """A folder for the metrics of a service alone, the same on every machine."""
    return f"{_BESIDE}{service}"


def remove_dead_folders() -> None:
    """Removes the folders of services on this machine none of whose processes is there any more."""
    for folder in Path(_BESIDE).parent.glob(f"{Path(_BESIDE).name}*"):
        processes = _processes(folder)
        if processes and not any(map(_is_alive, processes)):
            shutil.rmtree(folder, ignore_errors=True)


def _processes(folder: Path) -> set[int]:
    """Those that have written metrics to a folder."""
    return {int(found[1]) for file in folder.glob("*.db") if (found := re.search(r"_(\d+)\.db$", file.name))}


def _is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def _route(scope: Any) -> str:
    """The route that a request was for, of which there are few; `other` where there is none."""
    return getattr(scope.get("route"), "path", "other")
