"""The service when four times what it can serve arrives: every answer is a 200 or a quick 503, and memory stays flat.

    python tests/bench/serve_overload.py [--seconds 60] [--times 4] [--connections 512] [--set max_queue=256]

First 128 clients that each wait for their answer: capacity, in requests/s, and its p99. Then requests at fixed times,
`--times` as many, whether answers come or not, from a process of its own that shares the processors with the service.
A request that finds all connections taken waits in the generator. Its latency counts from when it was due (`due`, what
a client sees) and from when it was sent (`sent`, what the service is answerable for). Texts are those of SST-2's test
split, the student is that of serve_load.py, one replica on all processors.
"""

import argparse
import asyncio
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop
from serve_load import THREADS, make_package

CLIENTS = 128
MIB = 2**20
TICK = 0.001
LAST = 15.0
"""Seconds after the load in which answers may still come."""


def main() -> None:
    """Capacity, then the overload."""
    options = arguments(__doc__, seconds=60.0)
    with service(options) as (url, bodies):
        ready = Load(url, bodies, clients=CLIENTS, seconds=options.warm).run()
        at_capacity = ready.told("capacity, 128 clients")
        rate = options.times * at_capacity["200"]["rate"]
        load = Load(url, bodies, rate=rate, seconds=options.seconds, connections=options.connections)
        memory = watched(load, 10.0)
    found = load.told(f"overload, {rate:.0f} requests/s asked for")
    print(f"memory of the replica, MiB, every 10 s: {', '.join(f'{one:.0f}' for one in memory)}")
    for since in ("due", "sent"):
        ratio = found["200"][since][1] / at_capacity["200"][since][1]
        print(f"p99 of the 200s since {since}: {ratio:.2f}x of that at capacity")
    if found.keys() - {"200", "503"}:
        raise SystemExit("there were answers that are neither 200 nor 503")


def arguments(doc: str | None, **defaults: Any) -> argparse.Namespace:
    """The options that the benches of load share, with defaults of their own, and others."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/sst2/test.csv")
    parser.add_argument("--teacher", default="../shared/models/sst2-teacher")
    parser.add_argument("--warm", type=float, default=10.0, help="seconds in which capacity is measured")
    parser.add_argument("--times", type=float, default=4.0, help="load as a multiple of the capacity")
    parser.add_argument("--connections", type=int, default=512, help="connections of the generator")
    parser.add_argument("--set", action="append", default=[], help="a setting of serve, such as max_queue=64")
    parser.add_argument("--generate", help=argparse.SUPPRESS)
    for name in defaults.keys() - {"times", "connections"}:
        parser.add_argument(f"--{name}", type=type(defaults[name]))
    parser.set_defaults(**defaults)
    options = parser.parse_args()
    if options.generate:
        uvloop.run(generate(json.loads(options.generate)))
        raise SystemExit
    return options


@contextmanager
def service(options: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """URL of a service of its own, and a file of bodies to ask it with; it has been asked for a while."""
    import ray

    from kdray.cluster import connect
    from kdray.config import ServeConfig
    from kdray.serving.deploy import deploy, take_down

    with open(options.data, newline="") as file:
        texts = [row["sentence"] for row in csv.DictReader(file)]
    with tempfile.TemporaryDirectory() as scratch:
        package = make_package(Path(options.teacher), Path(scratch), texts)
        bodies = Path(scratch) / "bodies.jsonl"
        bodies.write_text("\n".join(json.dumps({"inputs": text}) for text in texts))
        connect(niceness=0)
        settings = ServeConfig(port=0, num_cpus=THREADS).changed(options.set)
        try:
            url = deploy({"default": str(package)}, settings, [], blocking=False)
            Load(url, bodies, clients=CLIENTS, seconds=4).run()
            yield url, bodies
        finally:
            take_down()
            ray.shutdown()


def replicas() -> list[psutil.Process]:
    """The processes that serve."""
    return [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE
            and "".join(one.cmdline()[:1]).startswith("ray::ServeReplica:kdray:")]


def watched(load: "Load", every: float) -> list[float]:
    """Memory of the replica in MiB, at the start of the load and then again and again until its end."""
    (process,) = replicas()
    memory = [process.memory_info().rss / MIB]
    load.start()
    while load.wait(every) is None:
        memory.append(process.memory_info().rss / MIB)
    return memory


class Load:
    """Requests from a process of its own: of `clients` that wait for their answers, or `rate` a second."""

    def __init__(self, url: str, bodies: Path, **plan: float | str):
        self.plan: dict[str, Any] = {
            "url": url, "bodies": str(bodies), "found": str(bodies.with_name("found.npy")), **plan}
        self.found = np.empty((0, 4))
        """Of each request: its status, 0 where none came; when it was due, sent and answered, in seconds."""

    def run(self) -> "Load":
        """Waits for the end."""
        self.start()
        self.wait(None)
        return self

    def start(self) -> None:
        """Starts the process."""
        self._process = subprocess.Popen([sys.executable, __file__, "--generate", json.dumps(self.plan)])

    def wait(self, seconds: float | None) -> int | None:
        """0 where the load ends within `seconds`, else None."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if status:
            raise SystemExit(f"the generator ended with {status}")
        self.found = np.load(self.plan["found"])
        return 0

    def figures(self) -> dict[str, dict[str, Any]]:
        """By status: its share, requests/s, and p50 and p99 in milliseconds."""
        figures = {}
        for status in sorted(set(self.found[:, 0].astype(int).tolist())):
            _, due, sent, answered = self.found[self.found[:, 0] == status].T
            figures[str(status) if status else "none"] = {
                "share": len(due) / len(self.found), "rate": len(due) / self.plan["seconds"],
                "due": 1e3 * np.percentile(answered - due, [50, 99]),
                "sent": 1e3 * np.percentile(answered - sent, [50, 99])}
        return figures

    def told(self, name: str) -> dict[str, dict[str, Any]]:
        """Prints and returns the figures."""
        late = 1e3 * np.percentile(self.found[:, 2] - self.found[:, 1], 99)
        print(f"{name}: {len(self.found)} requests, p99 of what the generator sent late {late:.1f} ms", flush=True)
        for status, one in self.figures().items():
            print("  {}: {share:.1%}, {rate:.0f}/s, since sent p50 {sent[0]:.1f} p99 {sent[1]:.1f} ms, since due p50 "
                  "{due[0]:.1f} p99 {due[1]:.1f} ms".format(status, **one), flush=True)
        return self.figures()


# The generator's process.

async def generate(plan: dict[str, Any]) -> None:
    """Sends what is planned, and writes what came back."""
    host, _, port = plan["url"].removeprefix("http://").rpartition(":")
    key = f"authorization: Bearer {plan['key']}\r\n" if plan.get("key") else ""
    requests = [f"POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{key}"
                f"content-length: {len(body)}\r\n\r\n{body}".encode()
                for body in Path(plan["bodies"]).read_text().splitlines()]
    generator = Generator(requests)
    loop = asyncio.get_running_loop()
    for _ in range(int(plan.get("clients") or plan["connections"])):
        await loop.create_connection(lambda: Connection(generator), host, int(port))
    await (generator.closed if "clients" in plan else generator.open)(plan["seconds"], plan.get("rate", 0.0))
    np.save(plan["found"], np.array(generator.found))


class Generator:
    """Requests in turn, on whatever connection has waited longest."""

    def __init__(self, requests: list[bytes]):
        self.requests, self.idle, self.found = requests, deque[Connection](), []
        self.waiting: deque[float] = deque()
        self.sent = 0
        self.freed: Callable[[Connection], None] = self.idle.append

    def send(self, connection: "Connection", due: float) -> None:
        """Sends the next request, which was due then."""
        request = self.requests[self.sent % len(self.requests)]
        self.sent += 1
        connection.send(request, due)

    async def closed(self, seconds: float, _: float) -> None:
        """Each client asks again as soon as it has its answer."""
        ends = time.perf_counter() + seconds

        def again(connection: Connection) -> None:
            if (now := time.perf_counter()) < ends:
                self.send(connection, now)

        self.freed = again
        for connection in list(self.idle):
            again(connection)
        await asyncio.sleep(seconds)
        await self._last()

    async def open(self, seconds: float, rate: float) -> None:
        """One request every 1 / `rate` seconds, whether answers come or not."""
        def next_one(connection: Connection) -> None:
            if self.waiting:
                self.send(connection, self.waiting.popleft())
            else:
                self.idle.append(connection)

        self.freed = next_one
        began, arrived = time.perf_counter(), 0
        while arrived < int(rate * seconds):
            until = int((time.perf_counter() - began) * rate)
            for number in range(arrived, min(until, int(rate * seconds))):
                self.waiting.append(began + number / rate)
            arrived = max(arrived, until)
            while self.waiting and self.idle:
                self.send(self.idle.popleft(), self.waiting.popleft())
            await asyncio.sleep(TICK)
        await self._last()

    async def _last(self) -> None:
        """Waits for the answers that are out; those that never come have status 0."""
        ends = time.perf_counter() + LAST
        while len(self.found) < self.sent and time.perf_counter() < ends:
            await asyncio.sleep(0.01)
        now = time.perf_counter()
        missing = self.sent - len(self.found)
        self.found += [(0, now, now, now)] * missing + [(0, due, now, now) for due in self.waiting]


class Connection(asyncio.Protocol):
    """HTTP/1.1 to the service, one request at a time."""

    def __init__(self, generator: Generator):
        self.generator, self.times, self.data = generator, (0.0, 0.0), b""

    def connection_made(self, transport: Any) -> None:
        """May be used."""
        self.transport = transport
        self.generator.idle.append(self)

    def send(self, request: bytes, due: float) -> None:
        """Sends a request that was due then."""
        self.times = (due, time.perf_counter())
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Notes an answer when all of it has come."""
        self.data += data
        head, _, body = self.data.partition(b"\r\n\r\n")
        if len(body) < int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or len(self.data)):
            return
        status = int(head[9:12])
        if status == 503 and b"retry-after" not in head:
            status = -503
        self.generator.found.append((status, *self.times, time.perf_counter()))
        self.data = b""
        self.times = (0.0, 0.0)
        self.generator.freed(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Notes a request that gets no answer."""
        if self in self.generator.idle:
            self.generator.idle.remove(self)
        if self.times[0]:
            now = time.perf_counter()
            self.generator.found.append((0, *self.times, now))


if __name__ == "__main__":
    main()
