"""The service under load while replicas end, hang, go and come, while it changes, and beside a bulk client.

    python tests/bench/serve_events.py [--seconds 20] [--clients 16] [--only beside_bulk]

Two replicas of one thread each, but where the event says otherwise. Load, texts and student are those of
serve_overload.py: clients that each wait for their answer. Prints for each event what was answered, p50, p99 and the
slowest, and how long it took until the service was whole again; in the end what of it failed.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from serve_overload import Load, arguments, service

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.integration.asking import replicas, replicas_when, until_running

BULK, SINGLES = 4096, 16
AFTER = 2.0
"""Seconds of load before an event."""
GRACE = 1.0
"""Seconds after which a revoked key must not be answered any more."""
OLD, NEW = "the key of yesterday, which was long", "the key of today, which is long too"


class Bench:
    """A service, and what is done to it."""

    def __init__(self, url: str, bodies: Path, options: Any):
        from kdray.serving.deploy import running

        self.url, self.bodies, self.options = url, bodies, options
        state = running()
        self.package, self.metrics = state["students"]["default"]["package"], state["metrics"]
        self.failed: list[str] = []

    def under_load(self, name: str, act: Callable[[], Any], **plan: Any) -> np.ndarray:
        """Does `act` under load, and tells what was answered; the load's requests."""
        load = Load(self.url, self.bodies, clients=self.options.clients, seconds=self.options.seconds, **plan)
        load.start()
        time.sleep(AFTER)
        started = time.perf_counter()
        act()
        took = time.perf_counter() - started
        load.wait(None)
        statuses = {str(one): int(count) for one, count in zip(*np.unique(load.found[:, 0].astype(int),
                                                                          return_counts=True), strict=True)}
        seconds = load.found[:, 3] - load.found[:, 2]
        late = "" if started + took < load.found[:, 2].max() else " (after the load)"
        print(f"{name}: {statuses}, p50 {1e3 * np.median(seconds):.0f} p99 {1e3 * np.percentile(seconds, 99):.0f} "
              f"slowest {1e3 * seconds.max():.0f} ms; whole again after {took:.1f} s{late}",
              flush=True)
        if statuses.keys() != {"200"}:
            self.failed.append(name)
        return load.found

    def scaled(self, count: int) -> None:
        """Returns when there are `count` replicas."""
        from kdray.config import ServeConfig
        from kdray.serving.deploy import deploy, running

        settings = ServeConfig.model_validate(running()["settings"]).changed([f"replicas={count}"])
        deploy({"default": self.package}, settings, [], blocking=False)
        until_running(count)

    def hit(self, sign: signal.Signals) -> None:
        """Sends a replica a signal, and waits for another in its place that answers."""
        before = replicas()
        os.kill(min(before), sign)
        replicas_when(lambda found: min(before) not in found and len(found) == len(before), self.metrics, 120)
        until_running(len(before))


def main() -> None:
    """All events in turn."""
    options = arguments(__doc__, seconds=20.0, clients=16, only="")
    options.set += ["replicas=2", "num_cpus=0.5"]
    with service(options) as (url, bodies):
        bench = Bench(url, bodies, options)
        for act in (beside_bulk, faults, changes, keys, alone):
            if options.only in ("", act.__name__):
                act(bench)
    print(f"failed: {', '.join(bench.failed) or 'nothing'}")


def beside_bulk(bench: Bench) -> None:
    """Single texts alone, and beside a client that asks for 4,096 at once, again and again."""
    url, bodies, seconds = bench.url, bench.bodies, bench.options.seconds
    alone, beside = [], []
    for _ in range(3):
        alone.append(p99(Load(url, bodies, clients=SINGLES, seconds=seconds / 2).run()))
        bulk = Bulk(url, bodies)
        bulk.start()
        beside.append(p99(Load(url, bodies, clients=SINGLES, seconds=seconds / 2).run()))
        bulk.stop.set()
        bulk.join()
        print(f"{SINGLES} singles: p99 alone {alone[-1]:.1f} ms, beside bulk {beside[-1]:.1f} ms; bulk: {bulk.calls} "
              f"calls, {bulk.answered} of {bulk.calls * BULK} inputs answered in {bulk.seconds:.1f} s", flush=True)
        if bulk.answered != bulk.calls * BULK:
            bench.failed.append("bulk")
    print(f"beside bulk: {np.median(beside) / np.median(alone):.2f}x the p99 alone (asked: 3x at most)")


class Bulk(threading.Thread):
    """Asks for many texts in one call, again and again."""

    def __init__(self, url: str, bodies: Path):
        super().__init__()
        texts = [json.loads(line)["inputs"] for line in bodies.read_text().splitlines()]
        self.body = json.dumps({"inputs": (texts * (BULK // len(texts) + 1))[:BULK]}).encode()
        self.url, self.stop = f"{url}/v1/predict", threading.Event()
        self.calls = self.answered = 0
        self.seconds = 0.0

    def run(self) -> None:
        """Until it is stopped; the last call is waited for."""
        started = time.perf_counter()
        while not self.stop.is_set():
            request = urllib.request.Request(self.url, self.body, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=600) as response:
                self.answered += sum("answer" in one for one in json.loads(response.read())["answers"])
            self.calls += 1
        self.seconds = time.perf_counter() - started


def faults(bench: Bench) -> None:
    """One of two replicas is killed, or stopped."""
    bench.under_load("one of two killed", lambda: bench.hit(signal.SIGKILL))
    bench.under_load("one of two stopped", lambda: bench.hit(signal.SIGSTOP))


def changes(bench: Bench) -> None:
    """Replicas go and come; what is served changes."""
    from kdray.serving import change

    other = Path(bench.package).with_name("other")
    subprocess.run(["cp", "-r", bench.package, str(other)], check=True)
    bench.under_load("2 to 1 to 3 replicas", lambda: (bench.scaled(1), bench.scaled(3)))
    bench.scaled(2)
    bench.under_load("promote", lambda: change.promote("default", str(other)))
    bench.under_load("back", lambda: change.back("default"))
    bench.under_load("canary and back", lambda: (change.put_canary("default", str(other), 0.5), change.back("default")))


def keys(bench: Bench) -> None:
    """A key is replaced by another."""
    from kdray.serving import change
    from kdray.serving.guard import digest

    change.replace_keys([digest(OLD)])
    revoked: list[float] = []

    def rotate() -> None:
        change.replace_keys([digest(OLD), digest(NEW)])

    bench.under_load("a key more", rotate, key=OLD)

    def revoke() -> None:
        change.replace_keys([digest(NEW)])
        revoked.append(time.perf_counter())

    bench.failed, before = [], bench.failed
    found = bench.under_load("a key less, asked with it", revoke, key=OLD)
    bench.failed = before
    later = found[(found[:, 0] == 200) & (found[:, 2] > revoked[0])]
    print(f"answered with a revoked key: {len(later)} that were asked after it was revoked, "
          f"{int((later[:, 2] > revoked[0] + GRACE).sum())} {GRACE:g} s after")
    bench.under_load("the other key", lambda: None, key=NEW)
    change.replace_keys([])


def alone(bench: Bench) -> None:
    """The only replica is killed."""
    bench.scaled(1)
    bench.under_load("the only one killed", lambda: bench.hit(signal.SIGKILL))


def p99(load: Load) -> float:
    """Milliseconds since a request was sent. Raises where an answer was not 200."""
    figures = load.figures()
    if figures.keys() != {"200"}:
        raise SystemExit(f"not all were answered: {figures}")
    return figures["200"]["sent"][1]


if __name__ == "__main__":
    main()
