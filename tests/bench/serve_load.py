"""The served student under load: kdray's service against others, same ONNX file, same run.

    python tests/bench/serve_load.py [--data ../shared/data/sst2/test.csv] [--teacher ../shared/models/sst2-teacher]
                                     [--seconds 10] [--rounds 3]

    FastAPI  one uvicorn process: a request model, a `def` route, a tokenizer and an ONNX session
    Serve    kdray's application as a deployment behind Ray Serve's own HAProxy (RAY_SERVE_ENABLE_HA_PROXY)
    kdray    the service on Ray Serve with one replica on all processors

The student is three layers of the teacher, not trained: that changes no time. The load is wrk's, the texts those of
SST-2's test split, one a request, and for bulk 64 a request. Prints requests/s, p50 and p99 of each, the best round
of each contender, and the ratios.
"""

import argparse
import asyncio
import contextlib
import csv
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kdray.console import sigterm_as_ctrl_c

CLIENTS = (1, 32, 128)
BULK = 64
THREADS = len(os.sched_getaffinity(0))
Figures = dict[str, float]
_LUA = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local next = 0
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
request = function()
  next = next %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[next])
end
"""


def main() -> None:
    """Rounds of all loads, the contenders in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/sst2/test.csv")
    parser.add_argument("--teacher", default="../shared/models/sst2-teacher")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", nargs=3, metavar=("NAME", "PACKAGE", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        name, package, port = options.server
        {"FastAPI": fastapi_server, "Serve": serve_server}[name](Path(package), int(port))
        return
    with open(options.data, newline="") as file:
        texts = [row["sentence"] for row in csv.DictReader(file)]
    with tempfile.TemporaryDirectory() as scratch:
        package = make_package(Path(options.teacher), Path(scratch), texts)
        single, bulk = scripts(texts, Path(scratch))
        bare = bare_rate(package, texts)
        figures = {}
        for name in ("FastAPI", "Serve"):
            process, url = start_server(name, package)
            try:
                figures[name] = measure(f"{url}/", single, options)
            finally:
                process.terminate()
                process.wait()
        url, end = start_kdray(package)
        try:
            figures["kdray"] = measure(f"{url}/", single, options)
            bulked = max(wrk(f"{url}/v1/predict", 1, options.seconds, bulk)["requests"] for _ in range(options.rounds))
        finally:
            end()
    tell(figures, bulked * BULK, bare)


def make_package(teacher: Path, scratch: Path, texts: list[str]) -> Path:
    """A package with three layers of the teacher."""
    from kdray.export.onnx import export_onnx
    from kdray.export.quantise import WAYS, quantise
    from kdray.models.folder import label_order
    from kdray.models.load import Origin, build, save_model
    from kdray.tasks import TASKS

    task = TASKS["sequence-classification"]
    model = build(task, Origin(str(teacher), (0, 2, 4)), label_order(teacher) or [], 0).eval()
    folder = scratch / "package"
    save_model(task, model, teacher, folder)
    export_onnx(model, ["input_ids", "attention_mask", "token_type_ids"], folder)
    quantise(folder, next(iter(WAYS)))
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    (folder / "manifest.json").write_text(json.dumps({
        "version": 2, "kind": "packages", "key": "bench", "task": "sequence-classification", "labels": labels,
        "max_length": 128, "parents": {}, "numbers": {}}))
    return folder


def scripts(texts: list[str], scratch: Path) -> tuple[Path, Path]:
    """wrk's scripts for single texts and for bulk."""
    groups = [texts[start:start + BULK] for start in range(0, len(texts) - BULK, BULK)]
    paths = []
    for name, bodies in (("single", [{"inputs": text} for text in texts]), ("bulk", [{"inputs": g} for g in groups])):
        lines = scratch / f"{name}.jsonl"
        lines.write_text("\n".join(json.dumps(body) for body in bodies))
        paths.append(scratch / f"{name}.lua")
        paths[-1].write_text(_LUA % lines)
    return paths[0], paths[1]


def bare_rate(package: Path, texts: list[str]) -> float:
    """Texts/s of the predictor in this process, 64 at a time: no server."""
    from kdray.serving.predictor import load_predictor

    predictor = load_predictor(package, "onnx-int8", 0, THREADS, 1024)
    groups = [[(text, {}) for text in texts[start:start + BULK]] for start in range(0, len(texts) - BULK, BULK)]
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        for group in groups:
            predictor.predict(group)
        best = max(best, BULK * len(groups) / (time.perf_counter() - started))
    return best


def fastapi_server(package: Path, port: int) -> None:
    """What a user of FastAPI writes."""
    import onnxruntime
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package)
    session = onnxruntime.InferenceSession(str(package / "onnx/model_int8.onnx"))
    labels = json.loads((package / "manifest.json").read_text())["labels"]
    api = FastAPI()

    class Body(BaseModel):
        inputs: str

    @api.post("/")
    def classify(body: Body) -> list[list[dict[str, Any]]]:
        encoded = tokenizer(body.inputs, truncation=True, max_length=128, return_tensors="np")
        logits = session.run(["logits"], {name: encoded[name].astype(np.int64) for name in encoded})[0][0]
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        return [[{"label": labels[index], "score": float(scores[index])} for index in np.argsort(-scores)]]

    uvicorn.run(api, port=port, log_level="warning", access_log=False)


def serve_server(package: Path, port: int) -> None:
    """The same application as kdray's, behind Ray Serve's HAProxy."""
    import ray
    from ray import serve

    ray.init("local", num_cpus=THREADS, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
    deployment = serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": THREADS})(
        serve.ingress(Application(str(package)))(type("Ours", (), {})))
    serve.run(deployment.bind())
    with sigterm_as_ctrl_c(), contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    serve.shutdown()
    ray.shutdown()


class Application:
    """kdray's ASGI application of a package, made where it is asked first."""

    def __init__(self, package: str):
        self.package, self.app, self.made = package, None, None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on."""
        if self.app is None:
            self.made = self.made or asyncio.ensure_future(self._make())
            await self.made
        await self.app(scope, receive, send)

    async def _make(self) -> None:
        from kdray.config import ServeConfig
        from kdray.serving.app import http_app
        from kdray.serving.endpoint import _service, engine_of
        from kdray.serving.roster import Roster, Slot

        settings = ServeConfig(num_cpus=THREADS)
        roster = Roster(engine_of(settings))
        await roster.apply({"default": Slot(package=self.package)})
        self.app = http_app(_service(roster, settings, None))


def start_server(name: str, package: Path) -> tuple[subprocess.Popen, str]:
    """The process of a contender and its URL, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, "--server", name, str(package), str(port)],
                               env={**os.environ, "RAY_SERVE_ENABLE_HA_PROXY": "1"})
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/docs", timeout=10).read()
            break
        except OSError:
            time.sleep(0.1)
    return process, url


def start_kdray(package: Path) -> tuple[str, Callable[[], None]]:
    """URL of the service on a Ray of its own, and what ends it."""
    import ray

    from kdray.cluster import connect
    from kdray.config import ServeConfig
    from kdray.serving.deploy import deploy, take_down

    connect(niceness=0)
    url = deploy({"default": str(package)}, ServeConfig(port=0, num_cpus=THREADS), [], blocking=False)

    def end() -> None:
        take_down()
        ray.shutdown()

    return url, end


def measure(url: str, script: Path, options: argparse.Namespace) -> dict[int, Figures]:
    """Best figures at each number of clients."""
    wrk(url, 8, 2, script)
    found: dict[int, Figures] = {}
    for _ in range(options.rounds):
        for clients in CLIENTS:
            figures = wrk(url, clients, options.seconds, script)
            before = found.get(clients)
            found[clients] = figures if before is None else {
                "requests": max(before["requests"], figures["requests"]),
                **{name: min(before[name], figures[name]) for name in ("p50", "p99")}}
            print(f"{url} {clients} clients: {figures['requests']:.0f} requests/s, p50 {figures['p50']:.1f} ms, "
                  f"p99 {figures['p99']:.1f} ms", flush=True)
    return found


def wrk(url: str, clients: int, seconds: int, script: Path) -> Figures:
    """Requests/s, and latencies in milliseconds. Raises where an answer was not 200."""
    load = ["-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", str(script)]
    done = subprocess.run(["wrk", *load, url], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{url}: {done.stdout}")
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    spread = {name: float(value) * units[unit] for name, value, unit in
              re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)\s*$", done.stdout, re.MULTILINE)}
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", done.stdout)[0])
    if spread.keys() != {"50", "99"}:
        raise SystemExit(done.stdout)
    return {"requests": rate, "p50": spread["50"], "p99": spread["99"]}


def tell(figures: dict[str, dict[int, Figures]], bulk: float, bare: float) -> None:
    """The table."""
    print(f"\n{THREADS} processors, best of each round")
    for clients in CLIENTS:
        plain = figures["FastAPI"][clients]
        for name, found in figures.items():
            rate, p50, p99 = (found[clients][part] for part in ("requests", "p50", "p99"))
            print(f"{clients:4} clients: {name:8} {rate:5.0f}/s p50 {p50:6.1f} p99 {p99:6.1f} ms   requests/s "
                  f"{rate / plain['requests']:.2f}x, p50 {p50 / plain['p50']:.2f}x, p99 {p99 / plain['p99']:.2f}x")
    print(f"bulk of {BULK}: {bulk:.0f} texts/s, bare loop {bare:.0f} texts/s, share {bulk / bare:.2f}")


if __name__ == "__main__":
    main()
