"""A service becomes a replica: a process that Ray Serve starts, watches and replaces, with an HTTP server of its own.

Requests reach it without a proxy between: replicas of one machine share the port, and the kernel spreads the
connections. Knows nothing about models.
"""

import asyncio
import gc
import logging
import os
import socket
import sys
import threading
from functools import partial
from typing import Any

import uvicorn
import uvloop

from kdray.config import ServeConfig
from kdray.errors import ClusterError
from kdray.serving import metrics
from kdray.serving.advice import Advice
from kdray.serving.app import http_app
from kdray.serving.guard import VARIABLE, Guard, read_keys
from kdray.serving.protocol import Limits
from kdray.serving.roster import Engine, Roster, Slot
from kdray.serving.service import Service
from kdray.serving.turnstile import Turnstile

logger = logging.getLogger("kdray")

_BACKLOG = 2048
_SWITCH_SECONDS = 0.0005
"""How long the HTTP thread may keep the interpreter from the model's thread, which asks for it many times a batch."""
_DRAIN_SECONDS = 20
_PATIENCE_SECONDS = 30.0
_CROWDED, _EMPTY = 32.0, 1.0
"""Inputs that wait at a replica, in the mean, above which another starts and below which one ends."""


class Endpoint:
    """One replica."""

    def __init__(self, settings: dict[str, Any], package: str | None = None, teacher: Any = None):
        """`settings`: a ServeConfig as plain data; `teacher`: a Serve handle of the teacher of `package`."""
        self._taught, self._teacher = package, teacher
        self._settings = ServeConfig.model_validate(settings)
        self._keys = read_keys(None) if os.environ.get(VARIABLE) else []
        self._given: list[str] = []
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        self._thread.start()
        self.roster = Roster(engine_of(self._settings), metrics.BATCHES.observe)
        self._server: uvicorn.Server | None = None
        self._serving: Any = None

    async def reconfigure(self, wanted: dict[str, Any]) -> None:
        """Serves `{"students": {name: Slot}, "keys": digests}`; opens the port when the first students are there."""
        self._given = wanted["keys"]
        slots = {name: Slot.model_validate(slot) for name, slot in wanted["students"].items()}
        await self._on_loop(self.roster.apply(slots))
        if self._server is None:
            self._server = self._start()
            gc.freeze()  # what was imported and loaded is never collected: full collections stay short
        self._service.thresholds = wanted["thresholds"]

    def state(self) -> dict[str, Any]:
        """What is served and refused, the settings, the metrics' folder, whose teacher is there, digests of keys."""
        return {"students": {name: slot.model_dump() for name, slot in self.roster.slots.items()},
                "refused": self.roster.refused, "settings": self._settings.model_dump(),
                "metrics": os.environ[metrics.FOLDER], "taught": self._taught, "keys": self._given}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Inputs that wait, for `scale`."""
        return {"waiting": float(self.roster.waiting)}

    def check_health(self) -> None:
        """Raises ClusterError where the HTTP server has ended."""
        if self._serving is not None and self._serving.done():
            raise ClusterError(f"the HTTP server has ended: {self._serving.exception()}")

    async def __del__(self) -> None:
        if self._server is None:
            return
        self._server.should_exit = True
        server, self._server = self._serving, None
        await asyncio.wrap_future(server)
        await self._on_loop(self.roster.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _on_loop(self, work: Any) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _start(self) -> uvicorn.Server:
        settings = self._settings
        limits = Limits(settings.max_body, settings.max_texts, settings.max_bulk, settings.max_characters)
        advice = None
        if self._teacher is not None and settings.teacher is not None:
            advice = Advice(self._teacher.predict.remote, self._teacher.compare.remote, settings.teacher.shadow)
        self._service = Service(self.roster, limits, settings.deadline, advice)
        app = Guard(http_app(self._service), lambda: self._given + self._keys)
        protocol: Any = partial(Turnstile, full=lambda: self.roster.full, patience=_PATIENCE_SECONDS)
        server = uvicorn.Server(uvicorn.Config(
            app, http=protocol, ws="none", lifespan="off", log_level="error", access_log=False, server_header=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS, backlog=_BACKLOG))
        listener = listen(settings.host, settings.port)
        self._serving = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), self._loop)
        return server


def listen(host: str, port: int) -> socket.socket:
    """A socket on `host`:`port` that other replicas may share."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.set_inheritable(True)
    return listener


def scale(contexts: Any) -> Any:
    """Replicas by what waits: one more where a replica's queue is over half full, one less where all are empty.

    An autoscaling policy of Ray Serve: a deployment's context becomes a number of replicas and a state.
    """
    waiting = {name: sum(values.values()) for name, values in (contexts.aggregated_metrics or {}).items()}
    running = max(1, contexts.current_num_replicas)
    each = waiting.get("waiting", 0.0) / running
    return running + (each > _CROWDED) - (each < _EMPTY), {}


def engine_of(settings: ServeConfig) -> Engine:
    """How the settings say that students are run."""
    return Engine(settings.backend, settings.num_gpus, max(1, int(settings.num_cpus)), settings.batch_tokens,
                  settings.max_queue)
