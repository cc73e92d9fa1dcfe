"""Replicas on any machine become one address: HAProxy on each machine that has a replica, told of all of them.

A machine's ingress is a named actor which its first replica starts. A replica says hello to all of them every second,
and goodbye before it ends, so an ingress that is lost is there again with the next hello. Knows nothing about models.
"""

import asyncio
import logging
import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdray.console import log_to_stderr
from kdray.errors import ClusterError, KdrayError
from kdray.metrics import Gauge
from kdray.serving.haproxy import HAProxy, Rules, Seen
from kdray.serving.metrics import remove_dead_folders
from kdray.serving.turn import NAMESPACE

logger = logging.getLogger("kdray")

APP = "kdray"
ANYWHERE = {"0.0.0.0", "::"}
"""Hosts that are all addresses of a machine."""
_NAME = "ingress-"
_EVERY = 1.0
_STUCK_SECONDS = 4.0
"""For so long a replica on this machine may fail its health check; then its process is killed."""
_SILENT_SECONDS, _ALONE_SECONDS = 10.0, 60.0
"""For so long a replica of another machine that is down is kept without a hello, and an ingress without any replica
before it asks whether there still is a service."""
_ANSWER_SECONDS = 30.0
_GOODBYE_SECONDS = 5.0
_NOTICE_SECONDS = 3.0
"""For so long a service that ends says so, where something may be in front of it that asks for its health."""
ANSWERS = Gauge("ingress_answers", "Answers of a machine's HAProxy since it started, by their status's first digit",
                "machine", "status")
UP = Gauge("ingress_replicas_up", "Replicas that a machine's HAProxy sends requests to", "machine")
HAND = Gauge("ingress_requests", "Requests that replicas have in hand, of a machine's HAProxy", "machine")


@dataclass(frozen=True)
class Replica:
    """Where a replica is."""

    name: str
    host: str
    port: int
    machine: str
    pid: int


class Ingress:
    """HAProxy of one machine. An actor: all its methods belong to one event loop."""

    def __init__(self, machine: str, metrics: str):
        """`metrics` is the folder of this machine's metrics, which goes with the ingress."""
        log_to_stderr(worker=True)
        remove_dead_folders()
        self._machine, self._metrics = machine, metrics
        self._cluster = {"address": ray.get_runtime_context().gcs_address,
                         "auth_mode": os.environ.get("RAY_AUTH_MODE", "disabled")}
        self._haproxy: HAProxy | None = None
        self._known: dict[str, Replica] = {}
        self._heard: dict[str, float] = {}
        self._leaving: set[str] = set()
        self._last = time.monotonic()
        self._watching: asyncio.Task[None] | None = None

    async def hello(self, replica: dict[str, Any], rules: dict[str, Any]) -> None:
        """Sends requests to a replica from now on. Raises ClusterError where the port cannot be had."""
        one, haproxy = Replica(**replica), self._open(Rules(**rules))
        self._heard[one.name] = self._last = time.monotonic()
        if one.name not in self._known and one.name not in self._leaving:
            self._add(haproxy, one)

    async def goodbye(self, name: str) -> None:
        """Sends no more requests to a replica."""
        self._leaving.add(name)
        if name in self._known and self._haproxy is not None:
            self._haproxy.drain(name)
            self._tell_bare(self._haproxy)

    async def leave(self) -> bool:
        """Says at /-/healthz that no more requests should come; whether they may come from other machines."""
        if self._haproxy is None:
            return False
        self._haproxy.leave()
        return self._haproxy.rules.host in ANYWHERE

    async def close(self) -> None:
        """Ends: answers what is in hand, and removes what is on the disk."""
        if self._haproxy is not None:
            await asyncio.to_thread(self._haproxy.stop)
        shutil.rmtree(self._metrics, ignore_errors=True)

    def _open(self, rules: Rules) -> HAProxy:
        """HAProxy as the latest rules have it."""
        now = self._haproxy if self._haproxy is not None and self._haproxy.running else None
        if now is not None and (now.rules == rules or now.rules.since >= rules.since):
            return now
        then = HAProxy(rules, self._cluster)
        then.start(before=now)
        self._haproxy = then
        for one in self._known.values():
            if one.name not in self._leaving:
                self._add(then, one)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return then

    def _add(self, haproxy: HAProxy, one: Replica) -> None:
        haproxy.add(one.name, one.host, one.port, one.machine == self._machine)
        self._known[one.name] = one
        self._tell_bare(haproxy)

    def _tell_bare(self, haproxy: HAProxy) -> None:
        haproxy.bare(all(one.machine != self._machine for one in self._known.values() if one.name not in self._leaving))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            try:
                if self._haproxy is not None and self._haproxy.running:
                    self._look(self._haproxy)
                await self._end_with_service()
            except Exception as error:
                logger.warning("the ingress of %s: %s", self._machine, error)

    def _look(self, haproxy: HAProxy) -> None:
        """Forgets who is gone, kills who is stuck, and tells the metrics."""
        seen = haproxy.replicas()
        for name, one in seen.items():
            replica = self._known.get(name)
            if replica is None or self._is_gone(replica, one):
                haproxy.remove(name)
                self._known.pop(name, None)
                self._heard.pop(name, None)
                self._tell_bare(haproxy)
            elif one.down and one.seconds >= _STUCK_SECONDS and replica.machine == self._machine:
                logger.error("a replica fails its health check for %.0f s: it is killed, and replaced", one.seconds)
                os.kill(replica.pid, signal.SIGKILL)
        for digit, count in haproxy.answered().items():
            ANSWERS.set(count, machine=self._machine, status=digit)
        UP.set(sum(one.up for one in seen.values()), machine=self._machine)
        HAND.set(sum(one.requests for one in seen.values()), machine=self._machine)

    def _is_gone(self, replica: Replica, seen: Seen) -> bool:
        """Whether a replica has left, or died."""
        if replica.name in self._leaving:
            return not seen.requests
        if not seen.down:
            return False
        if replica.machine == self._machine:
            return not _is_replica(replica.pid)
        return time.monotonic() - self._heard.get(replica.name, 0.0) > _SILENT_SECONDS

    async def _end_with_service(self) -> None:
        if time.monotonic() - self._last > _ALONE_SECONDS:
            self._last = time.monotonic()
            if not await asyncio.to_thread(is_served):
                logger.info("nothing is served any more: the ingress of %s ends", self._machine)
                await self.close()
                os._exit(0)


class Presence:
    """What a replica tells the ingresses: that it is there, again and again, and that it leaves."""

    def __init__(self, replica: Replica, rules: Rules, metrics: str):
        """`metrics` is the folder of this machine's metrics."""
        self._replica, self._metrics = replica, metrics
        self._hello = asdict(replica), asdict(rules)
        self._left = threading.Event()

    def enter(self) -> None:
        """Starts this machine's ingress where there is none, and asks all for requests.

        Raises ClusterError where the port cannot be had, StorageError where the machine's folder is not this user's.
        """
        try:
            ray.get(self._own().hello.remote(*self._hello), timeout=_ANSWER_SECONDS)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, KdrayError) else error from None
        self._say("hello", *self._hello)
        threading.Thread(target=self._stay, name="presence", daemon=True).start()

    def leave(self) -> None:
        """Returns when no ingress that answers sends requests any more."""
        self._left.set()
        with suppress(ray.exceptions.RayError, ClusterError):
            ray.wait(self._say("goodbye", self._replica.name), num_returns=len(ingresses()), timeout=_GOODBYE_SECONDS)

    def _stay(self) -> None:
        while not self._left.wait(_EVERY):
            try:
                self._own()
                self._say("hello", *self._hello)
            except Exception as error:
                logger.warning("the ingresses do not hear this replica: %s", error)

    def _say(self, word: str, *what: Any) -> list[Any]:
        return [getattr(one, word).remote(*what) for one in ingresses()]

    def _own(self) -> Any:
        """This machine's ingress."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return ray.remote(Ingress).options(
            name=f"{_NAME}{self._replica.machine}", namespace=NAMESPACE, get_if_exists=True, lifetime="detached",
            num_cpus=0, max_restarts=0, scheduling_strategy=here,
        ).remote(self._replica.machine, self._metrics)


def ingresses() -> list[Any]:
    """Handles of the ingresses of all machines."""
    found = []
    for machine in machines():
        with suppress(ValueError):  # it has just ended
            found.append(ray.get_actor(f"{_NAME}{machine}", NAMESPACE))
    return found


def machines() -> set[str]:
    """Addresses of the machines that have an ingress."""
    return {one["name"].removeprefix(_NAME) for one in ray.util.list_named_actors(all_namespaces=True)
            if one["namespace"] == NAMESPACE and one["name"].startswith(_NAME)}


def announce_end() -> None:
    """Lets them all say that the service ends, before it does."""
    if any(ray.get([one.leave.remote() for one in ingresses()], timeout=_ANSWER_SECONDS)):
        time.sleep(_NOTICE_SECONDS)


def close_ingresses() -> None:
    """Ends them all, when the replicas have."""
    found = ingresses()
    ray.wait([one.close.remote() for one in found], num_returns=len(found), timeout=_ANSWER_SECONDS)
    for one in found:
        ray.kill(one)


def is_served() -> bool:
    """Whether the service is there, whatever state it is in."""
    return APP in serve.status().applications


def this_machine() -> str:
    """Its address, as other nodes reach it."""
    return ray.util.get_node_ip_address()


def _is_replica(pid: int) -> bool:
    """Whether the process is there, and a replica: numbers come again."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ServeReplica")
    except OSError:
        return False
