"""A service becomes a replica: a process that Ray Serve starts, watches and replaces, with an HTTP server of its own.

Requests come from the ingress of each machine, which is told where it is. Knows nothing about models.
"""

import asyncio
import gc
import logging
import os
import socket
import sys
import threading
import uuid
from typing import Any

import uvicorn
import uvloop
from starlette.middleware.cors import CORSMiddleware

from kdray.config import ServeConfig
from kdray.errors import ClusterError, KdrayError
from kdray.serving import metrics
from kdray.serving.advice import Advice
from kdray.serving.app import http_app
from kdray.serving.guard import Guard
from kdray.serving.haproxy import Rules
from kdray.serving.ingress import ANYWHERE, Presence, Replica, this_machine
from kdray.serving.protocol import Limits
from kdray.serving.roster import Engine, Roster, Slot
from kdray.serving.service import Service

logger = logging.getLogger("kdray")

_BACKLOG = 2048
_SWITCH_SECONDS = 0.0005
"""How long the HTTP thread may keep the interpreter from the model's thread, which asks for it many times a batch."""
_DRAIN_SECONDS = 20
_IDLE_SECONDS = 75
"""How long a connection of the ingress may be idle: longer than it keeps one."""
_LOOK_SECONDS = 0.5
_EXIT_STATUS = 70


class Endpoint:
    """One replica."""

    def __init__(self, settings: dict[str, Any], since: float, node: str | None, package: str | None, teacher: Any):
        """`settings`: a ServeConfig as plain data, as it is `since` then; `teacher`: a handle of that of `package`.

        `node`: where all replicas must be, null where any place will do.
        """
        self._since, self._node, self._taught = since, node, package
        self._settings = ServeConfig.model_validate(settings)
        self._keys: list[str] = []
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="http", daemon=True).start()
        self.roster = Roster(engine_of(self._settings))
        self._service = _service(self.roster, self._settings, teacher)
        self._server: uvicorn.Server | None = None
        self._serving: Any = None
        self._presence: Presence | None = None

    async def reconfigure(self, wanted: dict[str, Any]) -> None:
        """Serves `{"students": {name: Slot}, "keys": digests, "thresholds": ..., "settings": ...}`.

        Of the settings, those of the number of replicas may differ from those that it was made with.
        """
        self._keys, self._settings = wanted["keys"], ServeConfig.model_validate(wanted["settings"])
        slots = {name: Slot.model_validate(slot) for name, slot in wanted["students"].items()}
        await self._on_loop(self.roster.apply(slots))
        self._service.thresholds = wanted["thresholds"]
        if self._server is None:
            port = self._start()
            gc.freeze()  # what was imported and loaded is never collected: full collections stay short
            await asyncio.to_thread(self._enter, port)

    async def prepare(self, name: str, package: str) -> str:
        """Loads a package that `name` may be asked to serve; why not, where it cannot."""
        try:
            await self._on_loop(self.roster.prepare(name, package))
        except KdrayError as error:
            return str(error)
        return ""

    async def release(self) -> None:
        """Lets go what was prepared and is not served."""
        await self._on_loop(self.roster.release())

    def state(self) -> dict[str, Any]:
        """What is served and refused, the settings, the metrics' folder, whose teacher is there, digests of keys."""
        return {"students": {name: slot.model_dump() for name, slot in self.roster.slots.items()},
                "refused": self.roster.refused, "settings": self._settings.model_dump(),
                "metrics": os.environ[metrics.FOLDER], "taught": self._taught, "node": self._node, "keys": self._keys}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Share of what it can do that it does, for `scale`."""
        return {"load": self.roster.load()}

    def check_health(self) -> None:
        """Raises ClusterError where the HTTP server has ended or a model is stuck."""
        if self._serving is not None and self._serving.done():
            raise ClusterError(f"the HTTP server has ended: {self._serving.exception()}")
        if self._service.stuck:
            raise ClusterError("a model is stuck")

    async def __del__(self) -> None:
        if self._server is None:
            return
        if self._presence is not None:
            await asyncio.to_thread(self._presence.leave)
        self._server.should_exit, self._server = True, None
        await asyncio.wrap_future(self._serving)
        await self._on_loop(self.roster.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _on_loop(self, work: Any) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _start(self) -> int:
        """Starts the HTTP server, and returns its port."""
        app: Any = Guard(http_app(self._service), lambda: self._keys)
        if self._settings.cors:
            app = CORSMiddleware(app, self._settings.cors, allow_methods=["GET", "POST"], allow_headers=["*"])
        self._server = uvicorn.Server(uvicorn.Config(
            metrics.Timed(app), http="httptools", ws="none", lifespan="off", log_level="error", access_log=False,
            server_header=False, timeout_graceful_shutdown=_DRAIN_SECONDS, timeout_keep_alive=_IDLE_SECONDS,
            backlog=_BACKLOG))
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, 0), family=family)
        self._serving = asyncio.run_coroutine_threadsafe(self._server.serve(sockets=[listener]), self._loop)
        asyncio.run_coroutine_threadsafe(self._watch(), self._loop)
        return listener.getsockname()[1]

    def _enter(self, port: int) -> None:
        settings, machine = self._settings, this_machine()
        rules = Rules(settings.host, settings.port, settings.deadline, settings.max_queue, self._since)
        replica = Replica(uuid.uuid4().hex[:12], self._host, port, machine, os.getpid())
        self._presence = Presence(replica, rules, os.environ[metrics.FOLDER])
        self._presence.enter()

    @property
    def _host(self) -> str:
        return this_machine() if self._settings.host in ANYWHERE else self._settings.host

    async def _watch(self) -> None:
        """Ends the process where a model is stuck: what it has in hand goes elsewhere, and Serve starts another."""
        while not self._service.stuck:
            await asyncio.sleep(_LOOK_SECONDS)
        logger.error("a batch has run for %.1f s and does not end: this replica does, and is replaced",
                     self.roster.running_for)
        os._exit(_EXIT_STATUS)


def engine_of(settings: ServeConfig) -> Engine:
    """How the settings say that students are run."""
    return Engine(settings.backend, settings.num_gpus, max(1, int(settings.num_cpus)), settings.batch_tokens,
                  settings.max_queue)


def _service(roster: Roster, settings: ServeConfig, teacher: Any) -> Service:
    limits = Limits(settings.max_body, settings.max_texts, settings.max_bulk, settings.max_characters)
    advice = None
    if teacher is not None and settings.teacher is not None:
        advice = Advice(teacher.predict.remote, teacher.compare.remote, settings.teacher.shadow)
    return Service(roster, limits, settings.deadline, advice)
