"""Requests reach a replica that is up and has room; they wait where none is up, and none is lost with a replica."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kdray.errors import ClusterError
from kdray.serving import haproxy
from kdray.serving.haproxy import HAProxy, Rules, services

ROOM = 2
Answer = tuple[int, str]


class Replica:
    """A server that says its name, when it may, and can die as a process does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, port: int = 0):
        self.name, self._loop = name, loop
        self.asked, self.writers, self.held = 0, set[asyncio.StreamWriter](), list[asyncio.StreamWriter]()
        self.go, self.healthy = asyncio.Event(), True
        self.go.set()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", port))
        self.port = self._server.sockets[0].getsockname()[1]

    def hold(self) -> None:
        self._loop.call_soon_threadsafe(self.go.clear)

    def answer(self) -> None:
        self._loop.call_soon_threadsafe(self.go.set)

    def die(self) -> None:
        async def ended() -> None:
            self._server.close()
            for writer in self.writers:
                writer.transport.abort()

        self._do(ended())

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        if not self._server.is_serving():  # it died when this had just come
            writer.transport.abort()
            return
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length: ")[2].partition("\r\n")[0]
                await reader.readexactly(int(length or 0))
                status = 200 if self.healthy else 503
                if "healthz" not in head:
                    self.asked += 1
                    self.held.append(writer)
                    await self.go.wait()
                    status = 200
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(self.name)}\r\n\r\n{self.name}".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
def replica() -> Iterator[Callable[..., Replica]]:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    yield lambda name, port=0: Replica(loop, name, port)
    loop.call_soon_threadsafe(loop.stop)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


@pytest.fixture(autouse=True)
def folder(tmp_path_factory, monkeypatch) -> Path:
    made = tmp_path_factory.mktemp("h")  # the path of a socket must be short
    monkeypatch.setattr(haproxy, "machine_folder", lambda: made)
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def made() -> Iterator[Callable[..., HAProxy]]:
    started: list[HAProxy] = []

    def start(deadline: float = 10.0, **about: str) -> HAProxy:
        one = HAProxy(Rules("127.0.0.1", free_port(), deadline, ROOM), about)
        one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.stop()


def ask(one: HAProxy, path: str = "/", body: bytes | None = b"{}") -> Answer:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{one.rules.port}{path}", body, 30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(true: Callable[[], Any]) -> None:
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def add(one: HAProxy, *replicas: Replica, near: bool = True) -> None:
    for replica in replicas:
        one.add(replica.name, "127.0.0.1", replica.port, near)


def test_whoever_has_fewest_requests_gets_the_next_and_nobody_is_refused_beside_an_idle_replica(made, replica, pool):
    one, a, b = made(), replica("a"), replica("b")
    add(one, a, b)
    a.hold()
    b.hold()
    asked: list[Future[Answer]] = []
    for count in range(2 * ROOM):
        asked.append(pool.submit(ask, one))
        until(lambda count=count: a.asked + b.asked == count + 1)
    assert a.asked == b.asked == ROOM
    a.answer()
    b.answer()
    assert sorted(future.result()[1] for future in asked) == ["a", "a", "b", "b"]


def test_what_finds_all_full_and_one_waiting_is_refused_at_once(made, replica, pool):
    one, a = made(), replica("a")
    add(one, a)
    a.hold()
    asked = [pool.submit(ask, one) for _ in range(ROOM + 1)]
    until(lambda: [row["qcur"] for row in one._rows() if row["svname"] == "BACKEND" and row["qcur"] == "1"])
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{one.rules.port}/", b"{}", 30)
    assert caught.value.headers["retry-after"] == "1"
    assert json.loads(caught.value.read()) == {"error": "the queue is full"}
    assert one.replicas()["a"].requests == ROOM
    a.answer()
    assert [future.result() for future in asked] == [(200, "a")] * (ROOM + 1)


def test_requests_of_a_replica_that_dies_are_answered_by_another(made, replica, pool):
    one, a, b = made(), replica("a"), replica("b")
    add(one, a, b)
    a.hold()
    asked = [pool.submit(ask, one) for _ in range(2 * ROOM)]
    until(lambda: a.asked)
    a.die()
    assert [future.result() for future in asked] == [(200, "b")] * (2 * ROOM)
    assert ask(one) == (200, "b")


def test_requests_wait_for_a_lone_replica_that_comes_again(made, replica, pool):
    one, a = made(), replica("a")
    add(one, a)
    a.hold()
    asked = [pool.submit(ask, one) for _ in range(ROOM)]
    until(lambda: a.asked == ROOM)
    a.die()
    until(lambda: not one.replicas()["a"].up)
    asked += [pool.submit(ask, one) for _ in range(3)]
    add(one, replica("later"))
    assert [future.result() for future in asked] == [(200, "later")] * (ROOM + 3)


def test_who_hangs_up_while_its_answer_is_made_or_waits_for_room_frees_its_place(made, replica):
    one, a = made(deadline=30.0), replica("a")
    add(one, a)
    a.hold()
    asked = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
    clients = [socket.create_connection(("127.0.0.1", one.rules.port)) for _ in range(ROOM + 1)]
    waiting = lambda: sum(int(row["qcur"] or 0) for row in one._rows() if row["svname"] == "BACKEND")  # noqa: E731
    for client in clients[:ROOM]:
        client.sendall(asked)
    until(lambda: a.asked == ROOM)
    clients[-1].sendall(asked)
    until(lambda: waiting() == 1)
    clients[-1].close()
    until(lambda: waiting() == 0)
    for client in clients[:ROOM]:
        client.close()
    until(lambda: one.replicas()["a"].requests == 0 and all(one.is_closing() for one in a.held))
    assert a.asked == ROOM
    a.answer()
    assert ask(one) == (200, "a")


def test_what_waits_for_longer_than_the_deadline_is_told_so(made):
    status, said = ask(made(deadline=0.3))
    assert status == 504 and json.loads(said) == {"error": "no answer within 0.3 s"}


def test_a_replica_that_fails_its_health_check_gets_nothing_until_it_passes_again(made, replica):
    one, a, b = made(), replica("a"), replica("b")
    add(one, a, b)
    a.healthy = False
    until(lambda: one.replicas()["a"].down)
    assert {ask(one)[1] for _ in range(4)} == {"b"}
    a.healthy = True
    until(lambda: one.replicas()["a"].up)
    assert {ask(one)[1] for _ in range(4)} == {"a", "b"}


def test_a_replica_that_leaves_answers_what_it_has_and_gets_no_more(made, replica, pool):
    one, a, b = made(), replica("a"), replica("b")
    add(one, a)
    a.hold()
    asked = pool.submit(ask, one)
    until(lambda: a.asked)
    add(one, b)
    one.drain("a")
    assert {ask(one)[1] for _ in range(4)} == {"b"}
    one.remove("a")
    assert "a" in one.replicas()
    a.answer()
    assert asked.result() == (200, "a")
    until(lambda: one.remove("a") or "a" not in one.replicas())


def test_health_is_that_of_the_service_and_may_say_that_this_machine_leaves(made, replica):
    one, a = made(), replica("a")
    assert ask(one, "/-/healthz", None)[0] == 503
    add(one, a)
    until(lambda: ask(one, "/-/healthz", None) == (200, "success"))
    assert ask(one, "/-/routes", None) == (200, '{"/":"kdray"}')
    one.bare(True)
    assert ask(one, "/-/healthz", None)[0] == 503 and ask(one) == (200, "a")
    one.bare(False)
    assert ask(one, "/-/healthz", None)[0] == 200
    one.leave()
    assert ask(one, "/-/healthz", None)[0] == 503 and ask(one) == (200, "a")


def test_metrics_are_those_of_a_replica_on_this_machine(made, replica):
    one, here, there = made(), replica("here"), replica("there")
    add(one, here)
    add(one, there, near=False)
    assert {ask(one, "/metrics", None)[1] for _ in range(4)} == {"here"}
    assert {ask(one)[1] for _ in range(4)} == {"here", "there"}


def test_answers_are_counted(made, replica):
    one = made()
    add(one, replica("a"))
    ask(one)
    until(lambda: one.answered()["2"] == 1)


def test_a_port_that_is_taken_is_named_and_nobody_shares_one_that_is_had(made, folder):
    one = made()
    with pytest.raises(ClusterError, match=rf"cannot listen on 127\.0\.0\.1:{one.rules.port} of .*: address already in"
                       r" use\. Choose another `serve\.port`"):
        HAProxy(one.rules, {}).start()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError):
            other.bind(("127.0.0.1", one.rules.port))


def test_other_rules_hold_without_a_gap(made, replica, pool):
    one, a = made(), replica("a")
    add(one, a)
    a.hold()
    asked = pool.submit(ask, one)
    until(lambda: a.asked)
    other = HAProxy(Rules("127.0.0.1", one.rules.port, 0.2, ROOM), {})
    other.start(before=one)
    later = [pool.submit(ask, other) for _ in range(4)]
    assert {future.result()[0] for future in later} == {504}
    a.answer()
    assert asked.result() == (200, "a")
    until(lambda: not one.running)
    other.stop()


def test_services_of_this_machine_are_known_by_their_ports_while_they_run(made, folder):
    one = made(address="here:1", auth_mode="token")
    assert services() == {one.rules.port: {"address": "here:1", "auth_mode": "token"}}
    dead, starts = folder / "services/1234-5", folder / "services/1234-6"
    dead.mkdir()
    starts.mkdir()
    os.utime(dead, (0, 0))
    assert len(services()) == 1 and not dead.exists() and starts.exists()
    starts.rmdir()
    one.stop()
    assert services() == {} and not list((folder / "services").iterdir())


CHILD = """
import sys
from pathlib import Path
from kdray.serving import haproxy
haproxy.machine_folder = lambda: Path(sys.argv[1])
made = haproxy.HAProxy(haproxy.Rules("127.0.0.1", int(sys.argv[2]), 1.0, 1), {})
made.start()
print(made._process.pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_the_process_that_started_it(folder):
    port = free_port()
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(port)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    pid = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split())
    assert services() == {}
